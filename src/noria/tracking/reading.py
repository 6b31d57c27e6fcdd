"""Runs of experiments as they are shown: many at once, with what was logged."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Select, Table, bindparam, func, select

from noria.errors import NotFound
from noria.ledger.tables import runs
from noria.records import RunId, RunState
from noria.tracking.records import LinkedModel, LoggedDataset, MetricPoint, RunDetails, TrackedInfo
from noria.tracking.store import LATEST, to_point
from noria.tracking.tables import (
    latest_metrics,
    logged_datasets,
    run_datasets,
    run_models,
    run_params,
    run_tags,
    tracked_runs,
)

__all__ = ["read_infos", "read_runs"]

_AT_ONCE = 500  # runs in one question


def _of_runs(table: Table, *columns: Any) -> Select[Any]:
    wanted = table.c.run.in_(bindparam("runs", expanding=True))
    return select(*columns).where(wanted).order_by(table.c.run, table.c.name)


_INFOS = (
    select(
        tracked_runs.c.run.label("id"),
        tracked_runs.c.experiment,
        tracked_runs.c.name,
        tracked_runs.c.owner,
        runs.c.state,
        tracked_runs.c.is_scheduled,
        tracked_runs.c.started_at,
        func.coalesce(tracked_runs.c.ended_at, runs.c.ended_at).label("ended_at"),
        tracked_runs.c.deleted_at,
    )
    .join(runs, runs.c.id == tracked_runs.c.run)
    .where(tracked_runs.c.run.in_(bindparam("runs", expanding=True)))
)
_METRICS = LATEST.where(latest_metrics.c.run.in_(bindparam("runs", expanding=True))).order_by(
    latest_metrics.c.run, latest_metrics.c.name
)
_PARAMS = _of_runs(run_params, run_params.c.run, run_params.c.name, run_params.c.value)
_TAGS = _of_runs(run_tags, run_tags.c.run, run_tags.c.name, run_tags.c.value)
_DATASETS = _of_runs(
    run_datasets,
    run_datasets.c.run,
    run_datasets.c.name,
    run_datasets.c.digest,
    run_datasets.c.context,
    run_datasets.c.tags,
    logged_datasets.c.source_type,
    logged_datasets.c.source,
    logged_datasets.c.schema,
    logged_datasets.c.profile,
).join(logged_datasets, logged_datasets.c.sha256 == run_datasets.c.dataset)

_MODELS = (
    select(run_models)
    .where(run_models.c.run.in_(bindparam("runs", expanding=True)))
    .order_by(run_models.c.run, run_models.c.role, run_models.c.step, run_models.c.model)
)


def read_infos(connection: Connection, ids: Sequence[RunId]) -> list[TrackedInfo]:
    """Give runs in that order, without what was logged. Raises `NotFound` for the first that is not there."""
    found: dict[str, TrackedInfo] = {}
    for some in _pieces(ids):
        for row in connection.execute(_INFOS, {"runs": some}).mappings():
            found[row["id"]] = _to_info(row)
    for each in ids:
        if each not in found:
            raise NotFound("run", each)
    return [found[each] for each in ids]


def read_runs(connection: Connection, ids: Sequence[RunId]) -> list[RunDetails]:
    """Give runs in that order, with what was logged. Raises `NotFound` for the first that is not there."""
    infos = read_infos(connection, ids)
    metrics: dict[str, list[MetricPoint]] = {}
    params: dict[str, dict[str, str]] = {}
    tags: dict[str, dict[str, str]] = {}
    datasets: dict[str, list[LoggedDataset]] = {}
    models: dict[tuple[str, str], list[LinkedModel]] = {}
    for some in _pieces(ids):
        asked = {"runs": some}
        for row in connection.execute(_METRICS, asked).mappings():
            metrics.setdefault(row["run"], []).append(to_point(row))
        for held, query in ((params, _PARAMS), (tags, _TAGS)):
            for run, name, value in connection.execute(query, asked):
                held.setdefault(run, {})[name] = value
        for row in connection.execute(_DATASETS, asked).mappings():
            datasets.setdefault(row["run"], []).append(_to_dataset(row))
        for run, role, model, step in connection.execute(_MODELS, asked):
            models.setdefault((run, role), []).append(LinkedModel(model=model, step=step))
    return [
        RunDetails(
            info=info,
            metrics=tuple(metrics.get(info.id, ())),
            params=params.get(info.id, {}),
            tags=tags.get(info.id, {}),
            datasets=tuple(datasets.get(info.id, ())),
            models_read=tuple(models.get((info.id, "input"), ())),
            models_made=tuple(models.get((info.id, "output"), ())),
        )
        for info in infos
    ]


def _pieces(ids: Sequence[RunId]) -> Iterator[list[RunId]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield [*ids[start : start + _AT_ONCE]]


def _to_info(row: RowMapping) -> TrackedInfo:
    fields = {**row, "experiment": str(row["experiment"]), "state": RunState(row["state"])}
    return TrackedInfo(**fields)


def _to_dataset(row: RowMapping) -> LoggedDataset:
    fields = dict(row)
    del fields["run"]
    fields["tags"] = msgspec.json.decode(fields["tags"], type=dict[str, str])
    return LoggedDataset(**fields)
