"""How long it takes to see that nothing of a graph is stale, from the opening of the project on."""

from collections.abc import Iterator
from pathlib import Path

import noria
from bench.measuring import Line, take_turns
from bench.pipelines_project import fresh, steps_project

_HISTORY = 10  # other runs, whose results are kept as well
_GOALS_S = {1_000: 0.5, 10_000: 5.0}
_WITH_HISTORY = {1_000}  # 10,000 take minutes to fill


def lines(folder: Path) -> Iterator[Line]:
    for steps, goal_s in _GOALS_S.items():
        root = folder / str(steps)
        params = {"steps": steps, "salt": fresh()}
        with steps_project(root) as project:
            assert project.run_pipeline("grid", params, executor="inline").counts == {"ran": steps}
        before = _decided(root, params)
        for verb, figure in before.items():
            yield Line(f"pipelines: {verb} {steps:,} fresh steps", figure, "s", at_most=goal_s)
        if steps not in _WITH_HISTORY:
            continue
        with noria.open(root) as project:
            for _ in range(_HISTORY):
                project.run_pipeline("grid", {"steps": steps, "salt": fresh()}, executor="inline")
            project.run_pipeline("grid", params, executor="inline")
        for verb, figure in _decided(root, params).items():
            what = f"... {verb}, after {_HISTORY} runs of other steps"
            yield Line(what, figure, "s", "before them", before[verb], at_most=goal_s)


def _decided(root: Path, params: dict[str, int]) -> dict[str, float]:
    """Give the CPU seconds of a plan and of a run in which nothing is to be done."""

    def plan(number: int) -> None:
        del number
        with noria.open(root) as project:
            found = project.plan_pipeline("grid", params)
            assert len(found.items) == params["steps"]
            assert not found.stale

    def run(number: int) -> None:
        del number
        with noria.open(root) as project:
            counts = project.run_pipeline("grid", params, executor="inline").counts
            assert counts == {"cached": params["steps"]}, counts

    return dict(zip(("plan", "run"), take_turns(plan, run, runs=3), strict=True))
