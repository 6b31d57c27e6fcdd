"""Steps that sleep: on two processes against the ideal, on two nodes of Ray against plain Ray tasks."""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import noria
from bench.measuring import Line
from bench.peers.environments import NotMeasured, environment, measure
from bench.pipelines_project import fresh, steps_project

_STEPS, _NAP_S, _WORKERS, _RUNS = 1_000, 0.05, 2, 3
_IDEAL_S = _STEPS * _NAP_S / _WORKERS
_WHAT = f"pipelines: {_STEPS:,} naps of {_NAP_S * 1e3:.0f} ms"


def lines(folder: Path) -> Iterator[Line]:
    with steps_project(folder / "naps") as project:
        wall_s = _wall_s(project, "processes")
        yield Line(f"{_WHAT}, 2 processes, wall", wall_s, "s", "ideal", _IDEAL_S, ratio_at_most=1 / 0.9)
        yield from _on_ray(project, folder)


def _on_ray(project: noria.Project, folder: Path) -> Iterator[Line]:
    what = f"{_WHAT}, 2 Ray nodes, wall"
    if importlib.util.find_spec("ray") is None:
        print("noria is not measured on Ray: the extra `ray` is not installed here", file=sys.stderr)
        try:
            plain = measure("ray", str(_STEPS), str(_NAP_S), "1", folder=folder)
        except NotMeasured as error:
            print(f"Ray is not measured: {error}", file=sys.stderr)
            return
        told = f"(plain tasks of Ray {plain.version} instead)"
        yield Line(told, plain.wall_ms * _STEPS / 1e3, "s", "ideal", _IDEAL_S)
        return
    os.environ |= environment(folder / "ray")  # read when Ray is imported
    from bench.peers.run_ray import two_nodes, wall_s

    with two_nodes() as address:
        wall_s(8, 0.2)  # starts the workers
        _wall_s(project, f"ray://{address}", steps=8, runs=1)
        ours, theirs = [], []
        for _ in range(_RUNS):
            ours.append(_wall_s(project, f"ray://{address}", runs=1))
            theirs.append(wall_s(_STEPS, _NAP_S))
    yield Line(what, median(ours), "s", "plain Ray tasks", median(theirs), ratio_at_most=1.15)


def _wall_s(project: noria.Project, executor: str, *, steps: int = _STEPS, runs: int = _RUNS) -> float:
    """Give how long the whole run of the pipeline takes, the start of processes included."""
    walls = []
    for _ in range(runs):
        started = time.monotonic()
        params = {"steps": steps, "salt": fresh(), "seconds": _NAP_S}
        result = project.run_pipeline("naps", params, executor=executor)
        walls.append(time.monotonic() - started)
        assert result.counts == {"ran": steps}, result.counts
    return median(walls)
