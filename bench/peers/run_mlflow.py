# mypy: ignore-errors
"""MLflow's own server on SQLite, as `mlflow server` starts it: `run_mlflow FOLDER RUNS`."""

import json
import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version

from bench.peers.asking_trackers import ask_tracker, cpu_s, wait_for_port

if __name__ == "__main__":
    folder, runs = sys.argv[1], int(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/files",
    ]
    server = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        figures = {"start_s": cpu_s(server.pid), **ask_tracker(port, server.pid, runs=runs)}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    print(json.dumps({"version": version("mlflow"), **figures}))
