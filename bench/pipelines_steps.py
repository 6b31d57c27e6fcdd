"""What a trivial step costs, in a graph that is all new, against other tools on this machine."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import noria
from bench.measuring import Line
from bench.peers.counting import per_step
from bench.peers.environments import NotMeasured, Taken, measure
from bench.pipelines_project import fresh, steps_project

_TWENTIETH = 0.05


@dataclass(frozen=True, slots=True)
class _Case:
    """A pipeline of the project on one executor, its goal, and the peers that do the same."""

    pipeline: str
    executor: str
    goal_ms: float
    peers: tuple[tuple[str, str, tuple[str, ...]], ...]  # what it is called, our program for it, arguments


_CASES = (
    _Case(
        "chain",
        "inline",
        1,
        (("Prefect {}, own server", "prefect", ()), ("Dagster {}, in process", "dagster", ("in_process",))),
    ),
    _Case("fan", "inline", 1, ()),
    _Case(
        "chain",
        "processes",
        5,
        (
            ("Dagster {}, forkserver", "dagster", ("forkserver",)),
            ("Dagster {}, spawn", "dagster", ("spawn",)),
        ),
    ),
    _Case("fan", "processes", 5, (("Metaflow {}", "metaflow", ()),)),
)


def lines(folder: Path) -> Iterator[Line]:
    with steps_project(folder / "steps") as project:
        for case in _CASES:
            what = f"pipelines: a step of a {case.pipeline}, {case.executor}"
            cpu_ms, wall_ms = per_step(_running(project, case), few=20, many=620)
            yield Line(what, cpu_ms, "ms", at_most=case.goal_ms)
            yield Line(f"{what}, wall", wall_ms, "ms")
            for name, peer, arguments in case.peers:
                taken = _taken(peer, arguments, folder)
                if taken is None:
                    yield Line(what, cpu_ms, "ms", f"{name.format('')}: not measured")
                    continue
                floor = name.format(taken.version)
                yield Line(what, cpu_ms, "ms", floor, taken.cpu_ms, ratio_at_most=_TWENTIETH)
                yield Line(f"{what}, wall", wall_ms, "ms", floor, taken.wall_ms)


def _running(project: noria.Project, case: _Case) -> Callable[[int], object]:
    def run(steps: int) -> None:
        params = {"steps": steps, "salt": fresh()}
        result = project.run_pipeline(case.pipeline, params, executor=case.executor)
        assert result.counts == {"ran": steps}, result.counts

    return run


def _taken(peer: str, arguments: tuple[str, ...], folder: Path) -> Taken | None:
    try:
        return measure(peer, *arguments, folder=folder)
    except NotMeasured as error:
        print(f"{peer} is not measured: {error}", file=sys.stderr)
        return None
