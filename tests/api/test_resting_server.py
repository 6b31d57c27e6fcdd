"""What `noria up` has loaded while it rests and logs: the engines come when they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

ENGINES = (
    "deltalake", "duckdb", "jinja2", "lightgbm", "matplotlib", "numpy", "obstore", "pandas", "pyarrow",
    "scipy", "sklearn", "sqlglot", "xgboost",
)  # fmt: skip
PROGRAM = """
import http.client, json, os, signal, socket, sys, threading, time
from noria.cli.entry import main

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]

def ask(method, path, fields=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = None if fields is None else json.dumps(fields)
    connection.request(method, path, body, {"content-type": "application/json"})
    return json.loads(connection.getresponse().read())

def is_leading():
    try:
        return ask("GET", "/health")["role"] == "leader"
    except OSError:
        return False

def log():
    try:
        while not is_leading():
            time.sleep(0.05)
        api = "/api/2.0/mlflow/runs"
        run = ask("POST", f"{api}/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        asked = {"run_id": run, "key": "loss", "value": 1, "timestamp": 1}
        assert ask("POST", f"{api}/log-metric", asked) == {}
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=log).start()
sys.argv = ["noria", "up", "--port", str(port)]
try:
    main()
finally:
    print([each for each in ENGINES if each in sys.modules])
"""


def test_a_server_that_rests_and_logs_has_loaded_no_engine(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\n')
    program = f"ENGINES = {ENGINES!r}\n{PROGRAM}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == []
