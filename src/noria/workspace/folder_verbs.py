"""Verbs of the project in the current folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from noria.lake.declarations import ArrowFrame
    from noria.tracking.active_run import ActiveRun
    from noria.tracking.beginning import RunStores
    from noria.training.declarations import Spine
    from noria.workspace.feature_on_demand import WantedFeature
    from noria.workspace.project import Project

__all__ = ["start_run", "training_set"]


def start_run(
    name: str = "",
    *,
    experiment: str = "Default",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    seed: int | None = None,
    run: str | None = None,
    nested: bool = False,
    system_metrics: bool = True,
    project: Project | str | os.PathLike[str] | None = None,
) -> ActiveRun:
    """Give a run of an experiment for a `with` block: `project.start_run` of the current folder's project.

    Parameters and errors are those of `noria.workspace.tracking_verbs.TrackingVerbs.start_run`.

    Parameters
    ----------
    project
        Another one, or its folder.

    Raises
    ------
    ProjectNotFound
        If neither the folder nor one above it has a `noria.toml`.

    Examples
    --------
    ::

        with noria.start_run("first try", params={"depth": 3}) as run:
            for loss in losses:
                run.log_metric("loss", loss)
    """
    from noria.tracking.active_run import ActiveRun
    from noria.tracking.beginning import WantedRun

    wanted = WantedRun(
        name=name, experiment=experiment, params=params or {}, tags=tags or {}, seed=seed, run=run
    )
    return ActiveRun(_stores_of(project), wanted, nested=nested, system_metrics=system_metrics)


@contextmanager
def _stores_of(project: Project | str | os.PathLike[str] | None) -> Iterator[RunStores]:
    from noria.workspace.project import Project, open
    from noria.workspace.tracking_verbs import run_stores

    if isinstance(project, Project):
        yield run_stores(project, project.ledger)
        return
    with open(project) as opened:
        yield run_stores(opened, opened.ledger)


def training_set(
    spine: ArrowFrame | Spine | str,
    features: Sequence[WantedFeature],
    *,
    name: str = "training_set",
    at: str = "at",
    corrected: bool = False,
    rows_at_once: int | None = None,
    cause: str | None = None,
) -> pa.Table:
    """Join rows with features as they were known: `project.features.training_set` of the current folder.

    Parameters and errors are those of `noria.workspace.features.Features.training_set`.

    Raises
    ------
    ProjectNotFound
        If neither the folder nor one above it has a `noria.toml`.

    Examples
    --------
    ::

        rows = noria.training_set("select carrier, departed_at as at, late from flights", ["carrier"])
    """
    from noria.workspace.project import open

    with open() as project:
        return project.features.training_set(
            spine, features, name=name, at=at, corrected=corrected, rows_at_once=rows_at_once, cause=cause
        )
