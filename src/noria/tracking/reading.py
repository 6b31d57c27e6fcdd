"""Runs of experiments as they are shown: many at once, with what was logged."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Integer, Select, Table, func, select, type_coerce

from noria.clock import from_micros
from noria.database.lists import is_listed
from noria.errors import NotFound
from noria.ledger.tables import runs
from noria.records import RunId, RunState
from noria.tracking.records import LinkedModel, LoggedDataset, MetricPoint, RunDetails, TrackedInfo
from noria.tracking.searches.terms import instant
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
    """Ask by run, then name. The columns are as the database has them: there are a thousand rows a page."""
    return (
        select(table.c.run, table.c.name, *columns)
        .where(is_listed(table.c.run, "runs"))
        .order_by(table.c.run, table.c.name)
    )


_INFOS = (
    select(
        tracked_runs.c.run,
        tracked_runs.c.experiment,
        tracked_runs.c.name,
        tracked_runs.c.owner,
        runs.c.state,
        tracked_runs.c.is_scheduled,
        instant(tracked_runs.c.started_at),
        func.coalesce(instant(tracked_runs.c.ended_at), instant(runs.c.ended_at)),
        instant(tracked_runs.c.deleted_at),
    )
    .join(runs, runs.c.id == tracked_runs.c.run)
    .where(is_listed(tracked_runs.c.run, "runs"))
)
_METRICS = _of_runs(
    latest_metrics,
    latest_metrics.c.value,
    type_coerce(latest_metrics.c.is_nan, Integer),
    latest_metrics.c.step,
    instant(latest_metrics.c.recorded_at),
)
_PARAMS = _of_runs(run_params, run_params.c.value)
_TAGS = _of_runs(run_tags, run_tags.c.value)
_DATASETS = _of_runs(
    run_datasets,
    run_datasets.c.digest,
    run_datasets.c.context,
    run_datasets.c.tags,
    logged_datasets.c.source_type,
    logged_datasets.c.source,
    logged_datasets.c.schema,
    logged_datasets.c.profile,
).join(logged_datasets, logged_datasets.c.sha256 == run_datasets.c.dataset)

_MODELS = (
    select(run_models.c.run, run_models.c.role, run_models.c.model, run_models.c.step)
    .where(is_listed(run_models.c.run, "runs"))
    .order_by(run_models.c.run, run_models.c.role, run_models.c.step, run_models.c.model)
)


def read_infos(connection: Connection, ids: Sequence[RunId]) -> list[TrackedInfo]:
    """Give runs in that order, without what was logged. Raises `NotFound` for the first that is not there."""
    found: dict[str, TrackedInfo] = {}
    for some in _pieces(ids):
        for row in connection.execute(_INFOS, {"runs": some}).all():
            found[row[0]] = _to_info(row)
    for each in ids:
        if each not in found:
            raise NotFound("run", each)
    return [found[each] for each in ids]


def read_runs(connection: Connection, ids: Sequence[RunId]) -> list[RunDetails]:
    """Give runs in that order, with what was logged. Raises `NotFound` for the first that is not there."""
    infos = read_infos(connection, ids)
    metrics: dict[str, list[MetricPoint]] = {each: [] for each in ids}
    params: dict[str, dict[str, str]] = {each: {} for each in ids}
    tags: dict[str, dict[str, str]] = {each: {} for each in ids}
    datasets: dict[str, list[LoggedDataset]] = {}
    models: dict[tuple[str, str], list[LinkedModel]] = {}
    for some in _pieces(ids):
        asked = {"runs": some}
        for run, name, value, is_nan, step, at_us in connection.execute(_METRICS, asked).all():
            point = MetricPoint(name=name, value=math.nan if is_nan else value, step=step, at_us=at_us)
            metrics[run].append(point)
        for held, query in ((params, _PARAMS), (tags, _TAGS)):
            for run, name, value in connection.execute(query, asked).all():
                held[run][name] = value
        for row in connection.execute(_DATASETS, asked).all():
            datasets.setdefault(row[0], []).append(_to_dataset(row))
        for run, role, model, step in connection.execute(_MODELS, asked).all():
            models.setdefault((run, role), []).append(LinkedModel(model=model, step=step))
    return [
        RunDetails(
            info=info,
            metrics=tuple(metrics[info.id]),
            params=params[info.id],
            tags=tags[info.id],
            datasets=tuple(datasets.get(info.id, ())),
            models_read=tuple(models.get((info.id, "input"), ())),
            models_made=tuple(models.get((info.id, "output"), ())),
        )
        for info in infos
    ]


def _pieces(ids: Sequence[RunId]) -> Iterator[Sequence[RunId]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _to_info(row: Sequence[Any]) -> TrackedInfo:
    run, experiment, name, owner, state, is_scheduled, started_us, ended_us, deleted_us = row
    return TrackedInfo(
        id=run,
        experiment=str(experiment),
        name=name,
        owner=owner,
        state=RunState(state),
        is_scheduled=is_scheduled,
        started_at=from_micros(started_us),
        ended_at=None if ended_us is None else from_micros(ended_us),
        deleted_at=None if deleted_us is None else from_micros(deleted_us),
    )


def _to_dataset(row: Sequence[Any]) -> LoggedDataset:
    _, name, digest, context, tags, source_type, source, schema, profile = row
    return LoggedDataset(
        name=name,
        digest=digest,
        source_type=source_type,
        source=source,
        schema=schema,
        profile=profile,
        tags=msgspec.json.decode(tags, type=dict[str, str]),
        context=context,
    )
