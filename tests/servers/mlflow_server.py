"""A real MLflow server on a free loopback port, from the environment of the client."""

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PYTHON = Path(__file__).parents[2] / ".venv-mlflow" / "bin" / "python"
_SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
_STARTS_S = 120.0


@contextmanager
def mlflow_server(store: str, folder: Path) -> Iterator[str]:
    """Give the URL of a server over a store; what it writes goes to a folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", store]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(_PYTHON), "-W", "ignore", "-m", "mlflow", "server", *options],
            env={**kept, **_SILENT, "HOME": str(folder)},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await(process, port, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + _STARTS_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise AssertionError(f"the server did not come up: {log.read_text()[-3000:]}")
