"""Runs that a server keeps: CPU of a program that logs to one, and of the server that takes it in."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measuring import Line
from bench.peers.asking_trackers import cpu_s, wait_for_port

_METRICS, _RUNS = 100_000, 3
_LOG = """
import os, sys, time
import noria

with noria.start_run(server=sys.argv[1], system_metrics=False) as run:
    run.log_metric("loss", 0.0)
    assert run.flush()
    before, cpu = time.thread_time(), time.process_time()
    count = int(sys.argv[2])
    for number in range(count):
        run.log_metric("loss", number / 7)
    logged = time.thread_time() - before
    assert run.flush(60)
    cpu = time.process_time() - cpu
print(logged / count * 1e3, cpu / count * 1e3)
"""


def lines(folder: Path) -> Iterator[Line]:
    with _server(folder / "site") as (url, pid):
        found = []
        for _ in range(_RUNS):
            before = cpu_s(pid)
            acknowledged, spent = _logged(url, folder)
            found.append((acknowledged, spent, (cpu_s(pid) - before) / _METRICS * 1e6))
        acknowledged, spent, taken = (sorted(each)[_RUNS // 2] for each in zip(*found, strict=True))
        yield Line("remote: log a metric, until it is acknowledged", acknowledged, "ms", at_most=0.05)
        yield Line("remote: log a metric, until it is sent", spent, "ms", at_most=0.05)
        yield Line("remote: 1,000 points at the server", taken, "ms", at_most=6)


def _logged(url: str, folder: Path) -> tuple[float, float]:
    kept = {**os.environ, "NORIA_TRACKING__SPOOL": str(folder / "spool")}
    done = subprocess.run(
        [sys.executable, "-c", _LOG, url, str(_METRICS)],
        capture_output=True, text=True, check=True, env=kept, cwd=folder,
    )  # fmt: skip
    acknowledged, spent = map(float, done.stdout.split())
    return acknowledged, spent


@contextmanager
def _server(site: Path) -> Iterator[tuple[str, int]]:
    site.mkdir(parents=True)
    (site / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "noria", "up", "--project", str(site), "--port", str(port)]
    with (site / "up.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port)
        time.sleep(1.0)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for each in lines(Path(place)):
            print(each)
