"""`noria up` as a tracking server beside MLflow's own, by the same protocol: CPU, memory, start."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.measuring import Line
from bench.peers.asking_trackers import ask_tracker, cpu_s, wait_for_port
from bench.peers.environments import NotMeasured, printed

_RUNS = 1_000
_FIGURES = (
    ("idle_mb", "memory at rest, all processes", "MB", 120),
    ("start_s", "start to the first answer, CPU", "s", 1.5),
    ("log_metric_ms", "one log-metric", "ms", 0.5),
    ("log_batch_ms", "log-batch of 1,000 metrics", "ms", 6),
    ("history_ms", "history of 20,000 points", "ms", 40),
    ("search_ms", f"search of {_RUNS:,} runs, filter and order", "ms", 10),
)


def lines(folder: Path) -> Iterator[Line]:
    ours = _noria(folder / "site")
    try:
        told = msgspec.json.decode(printed("mlflow", str(folder), str(_RUNS), folder=folder))
    except NotMeasured as error:
        print(f"MLflow is not measured: {error}", file=sys.stderr)
        told = {}
    peer = f"MLflow {told['version']}" if told else "MLflow: not measured"
    for name, what, unit, goal in _FIGURES:
        yield Line(f"tracker: {what}", ours[name], unit, peer, told.get(name), at_most=goal)
    one, many = (1e3 / ours[f"{each}_per_s"] for each in ("one_writer", "many_writers"))
    what = "tracker: a metric while 64 log at once, wall"
    yield Line(what, many, "ms", "while one does", one, ratio_at_most=1)


def _noria(site: Path) -> dict[str, float]:
    site.mkdir()
    (site / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "noria", "up", "--project", str(site), "--port", str(port)]
    with (site / "up.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port)
        return {"start_s": cpu_s(server.pid), **ask_tracker(port, server.pid, runs=_RUNS)}
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    print(json.dumps(_noria(Path(sys.argv[1])), indent=1))
