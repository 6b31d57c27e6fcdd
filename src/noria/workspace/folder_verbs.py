"""Verbs of the project in the current folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from noria.lake.declarations import ArrowFrame
    from noria.registry.folders.loaded import LoadedEstimator
    from noria.tracking.active_run import ActiveRun
    from noria.tracking.beginning import RunStores
    from noria.tracking.places import RunPlace
    from noria.tracking.remote.syncing import LogSynced
    from noria.training.declarations import Spine
    from noria.workspace.features.on_demand import WantedFeature
    from noria.workspace.project import Project
    from noria.workspace.remote_runs import RunsSynced

__all__ = ["load_model", "start_run", "sync_runs", "training_set"]


def load_model(
    reference: str | Path, *, project: Project | str | os.PathLike[str] | None = None
) -> LoadedEstimator:
    """Give a model ready to predict rows: `project.load_model` of the current folder's project.

    Parameters and errors are those of `noria.workspace.models.verbs.ModelVerbs.load_model`.

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

        scores = noria.load_model("late_arrival@production").predict(rows)
    """
    from noria.workspace.project import Project, open

    if isinstance(project, Project):
        return project.load_model(reference)
    with open(project) as opened:
        return opened.load_model(reference)


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
    server: str | None = None,
) -> ActiveRun:
    """Give a run of an experiment for a `with` block: `project.start_run` of the current folder's project.

    Parameters and errors are those of `noria.workspace.tracking_verbs.TrackingVerbs.start_run`.

    Parameters
    ----------
    project
        Another one, or its folder.
    server
        The URL of a noria that keeps the run; no project is needed then. Default: the setting
        `[tracking] server`, or `NORIA_TRACKING__SERVER`; if that is empty, the project's own stores.

    Raises
    ------
    ProjectNotFound
        If no server is named, and neither the folder nor one above it has a `noria.toml`.

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
    return ActiveRun(_place_of(project, server), wanted, nested=nested, system_metrics=system_metrics)


@contextmanager
def _place_of(
    project: Project | str | os.PathLike[str] | None, server: str | None
) -> Iterator[RunStores | RunPlace]:
    from noria.workspace.project import Project, open
    from noria.workspace.remote_runs import remote_place, tracking_here

    if isinstance(project, Project):
        with project.run_place(server) as place:
            yield place
        return
    tracking, folder = tracking_here(None if project is None else Path(project))
    url = tracking.server if server is None else server
    if url and (project is None or folder is not None):
        with remote_place(url, tracking, folder=folder or Path.cwd()) as place:
            yield place
        return
    with open(project) as opened, opened.run_place("") as place:
        yield place


def sync_runs(
    server: str | None = None, *, again: bool = False, tell: Callable[[LogSynced], None] | None = None
) -> RunsSynced:
    """Send what waits on this machine for servers: `noria run sync`.

    Parameters and errors are those of `noria.workspace.remote_runs.sync_runs`.

    Examples
    --------
    ::

        assert noria.sync_runs().is_whole
    """
    from noria.workspace.remote_runs import sync_runs

    return sync_runs(server, again=again, tell=tell)


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

    Parameters and errors are those of `noria.workspace.features.features.Features.training_set`.

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
