"""A real Prometheus on a free loopback port, in a folder of its own, and its `promtool`."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.servers.redis import free_port

_START_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes its targets five times a second."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Give the series that an expression yields now."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def wait_for(self, expression: str, *, seconds: float = 15) -> list[dict[str, Any]]:
        """Give what an expression yields once it yields anything."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} yields nothing"
            time.sleep(0.1)
        return found


def check_metrics(text: bytes) -> None:
    """Hold an exposition against `promtool check metrics`, which knows the format and the naming rules."""
    if shutil.which("promtool") is None:
        pytest.skip("Prometheus is not installed: apt-get install -y --no-install-recommends prometheus")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()


@contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Start a server that scrapes `host:port` targets at /metrics."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed: apt-get install -y --no-install-recommends prometheus")
    folder.mkdir()
    config = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
        "scrape_configs": [{"job_name": "noria", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [program, "--config.file", str(folder / "prometheus.yml")]
    command += ["--storage.tsdb.path", str(folder / "data"), "--web.listen-address", f"127.0.0.1:{port}"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await(process, port, folder / "server.log")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                return
        except OSError:  # it refuses, or answers 503
            time.sleep(0.05)
    raise AssertionError(f"Prometheus did not come up: {log.read_text()[-3000:]}")
