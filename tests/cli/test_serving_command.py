import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

Run = Callable[..., subprocess.CompletedProcess[str]]


def ask(curl: str) -> dict[str, Any]:
    """Ask what the example asks."""
    _, _, url, _, body = shlex.split(curl)
    with urlopen(Request(url, body.encode(), {"content-type": "application/json"}), timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_serve_answers_follows_a_rollback_and_logs(noria: Run, lived_copy: Path) -> None:
    command = [sys.executable, "-u", "-m", "noria", "serve", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=lived_copy, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    curl = next(line for line in server.stdout if line.startswith("curl "))
    first = ask(curl)
    assert first["version"] == 5
    assert noria("rollback", "late_parcel@production", cwd=lived_copy).returncode == 0
    until = time.monotonic() + 20
    while (after := ask(curl))["version"] != 2:
        assert time.monotonic() < until
        time.sleep(0.2)
    server.send_signal(signal.SIGINT)
    _, told = server.communicate(timeout=30)
    assert server.returncode == 130
    assert told == "production/late_parcel stopped; what it answered is in the table predictions\n"
    traced = noria("trace", after["prediction_id"], "--json", cwd=lived_copy)
    assert json.loads(traced.stdout)["prediction"]["model"] == "late_parcel:2"
