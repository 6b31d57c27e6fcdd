"""Which parameters explain a metric over the runs of a project."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from noria.evaluation.surrogates import Influences, influences
from noria.workspace.runs.choice import MOST_RUNS, choose_runs
from noria.workspace.runs.groups import group_runs
from noria.workspace.runs.leaderboards import LARGEST, read_parents

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["importance_of"]


def importance_of(
    project: "Project",
    metric: str,
    *,
    filter: str,
    experiments: str | Sequence[str] | None,
    seed: int,
    limit: int = MOST_RUNS,
) -> Influences:
    """Tell which parameters explain a metric; see `Runs.param_importance`.

    What was repeated counts once: a forest that has seen one repeat would know the others by parameters that
    do nothing but tell configurations apart.
    """
    chosen = choose_runs(project, [metric], filter=filter, experiments=experiments, limit=limit)
    groups = group_runs(chosen.runs, (), read_parents(project, chosen.runs), metric=metric)
    figures: list[float] = []
    keys: list[dict[str, str | None]] = []
    for each in groups:
        values = np.array([run.metrics[metric] for _, run in each.runs])
        finite = values[np.abs(values) <= LARGEST]
        if finite.size:
            figures.append(float(finite.mean()))
            keys.append(each.key)
    names = sorted({name for key in keys for name in key})
    return influences(
        {name.removeprefix("params."): [key.get(name) for key in keys] for name in names},
        np.array(figures, dtype=np.float64),
        seed=seed,
    )
