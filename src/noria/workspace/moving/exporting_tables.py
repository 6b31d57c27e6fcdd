"""The questions whose answers are the tables of an export, all asked of one snapshot of the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import BigInteger, Connection, Select, case, literal, null, select, type_coerce

from noria.database.metadata import Instant
from noria.ledger.tables import edges, events, runs, versions
from noria.records import RunId
from noria.registry.tables import (
    model_aliases,
    model_tags,
    model_version_tags,
    model_versions,
    registered_models,
)
from noria.tracking.tables import (
    artifacts,
    experiment_tags,
    experiments,
    logged_datasets,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    metric_points,
    run_datasets,
    run_models,
    run_params,
    run_tags,
    tracked_runs,
)
from noria.workspace.moving.backup_tables import rows_in_pieces
from noria.workspace.moving.exporting_records import SCHEMAS

__all__ = [
    "IMPORTED",
    "RUNS_AT_ONCE",
    "artifacts_below",
    "batches_of_runs",
    "datasets_query",
    "experiments_query",
    "logged_model_queries",
    "model_queries",
    "origins_query",
    "queries_of_runs",
    "rows_of",
    "runs_query",
    "runs_to_export",
]

IMPORTED = "run.imported"  # of a run that came by an export: it holds what another ledger knew
RUNS_AT_ONCE = 200
_IN_ONE_QUESTION = 500


def _raw(*columns: Any) -> list[Any]:
    """Give columns as the database has them: instants as microseconds."""
    return [
        type_coerce(each, BigInteger).label(each.name) if isinstance(each.type, Instant) else each
        for each in columns
    ]


def _named(column: Any, name: str) -> Any:
    kind = BigInteger() if isinstance(column.type, Instant) else column.type
    return type_coerce(column, kind).label(name)


def rows_of(connection: Connection, query: Select[Any], table: str) -> Iterator[pa.RecordBatch]:
    """Give the rows of a question as those of a table of the export."""
    return rows_in_pieces(connection.execute(query), SCHEMAS[table])


def experiments_query(numbers: Sequence[int]) -> dict[str, Select[Any]]:
    """Ask for experiments, without the folder of their files, and for their tags."""
    e, t = experiments.c, experiment_tags.c
    columns = _raw(e.id, e.name, e.artifact_uri, e.at, e.updated_at, e.deleted_at)
    return {
        "experiments": select(*columns).where(e.id.in_(numbers)).order_by(e.id),
        "experiment_tags": select(t.experiment, t.name, t.value)
        .where(t.experiment.in_(numbers))
        .order_by(t.experiment, t.name),
    }


def runs_to_export(connection: Connection, scope: str, numbers: Sequence[int] | None) -> list[RunId]:
    """Give the runs of experiments, those that made models, and what these are parts of; parents first.

    Where experiments are chosen, a run of another one is none of it, though one of these be a part of it.
    """
    chosen = select(tracked_runs.c.run)
    makers = [
        select(versions.c.run)
        .join(model_versions, model_versions.c.version == versions.c.id)
        .where(versions.c.run.is_not(None)),
    ]
    if numbers is not None:
        chosen = chosen.where(tracked_runs.c.experiment.in_(numbers))
        makers = []
    wanted = set(connection.execute(chosen).scalars())
    for query in makers:
        wanted.update(connection.execute(query).scalars())
    found: dict[str, tuple[str | None, int]] = {}
    columns = _raw(runs.c.id, runs.c.parent, runs.c.started_at)
    known = select(*columns).where(runs.c.scope == scope)
    if numbers is not None:
        number = tracked_runs.c.experiment
        known = known.outerjoin_from(runs, tracked_runs, tracked_runs.c.run == runs.c.id)
        known = known.where(number.is_(None) | number.in_(numbers))
    left, asked = wanted, set[str]()
    while left:
        missing: set[str] = set()
        for some in _pieces(sorted(left)):
            for id, parent, started in connection.execute(known.where(runs.c.id.in_(some))):
                found[id] = (parent, started)
                if parent is not None:
                    missing.add(parent)
        asked |= left
        left = missing - asked
    return _parents_first(found)


def _parents_first(found: dict[str, tuple[str | None, int]]) -> list[RunId]:
    depths: dict[str, int] = {}
    for id in found:
        chain: list[str] = []
        at: str | None = id
        while at is not None and at in found and at not in depths:
            chain.append(at)
            at = found[at][0]
        depth = -1 if at is None else depths.get(at, -1)
        for each in reversed(chain):
            depth += 1
            depths[each] = depth
    return [RunId(each) for each in sorted(found, key=lambda id: (depths[id], found[id][1], id))]


def batches_of_runs(found: Sequence[RunId]) -> Iterator[list[RunId]]:
    """Give some hundred runs at a time."""
    for start in range(0, len(found), RUNS_AT_ONCE):
        yield [*found[start : start + RUNS_AT_ONCE]]


def queries_of_runs(some: Sequence[RunId]) -> dict[str, Select[Any]]:
    """Ask for what runs logged."""
    points = metric_points.c
    value = case((points.is_nan, literal(None)), else_=points.value)
    p, t, d, m, g = run_params.c, run_tags.c, run_datasets.c, run_models.c, edges.c
    return {
        "params": select(p.run, p.name, p.value, p.json).where(p.run.in_(some)).order_by(p.run, p.name),
        "tags": select(t.run, t.name, t.value).where(t.run.in_(some)).order_by(t.run, t.name),
        "points": select(points.run, points.name, *_raw(points.recorded_at), points.step, value)
        .where(points.run.in_(some))
        .order_by(points.run, points.name, points.recorded_at, points.step, points.value, points.is_nan),
        "inputs": select(d.run, d.dataset, d.context, d.tags)
        .where(d.run.in_(some))
        .order_by(d.run, d.dataset),
        "models_of_runs": select(m.run, m.role, m.model, m.step)
        .where(m.run.in_(some))
        .order_by(m.run, m.role, m.model),
        "lineage": select(g.run, g.role, g.version, versions.c.sha256)
        .join(versions, versions.c.id == g.version)
        .where(g.run.in_(some))
        .order_by(g.run, g.role, g.version),
    }


def runs_query(some: Sequence[RunId]) -> Select[Any]:
    """Ask for runs, as the ledger and as their owners tell of them."""
    r, t = runs.c, tracked_runs.c
    columns = _raw(
        r.id, r.kind, r.name, r.state, r.attempt, r.key, r.cause, r.parent, r.params, r.metrics, r.seed,
        r.code, r.code_diff, r.runtime, r.error, r.cpu_s, r.wall_s, r.at, r.started_at, r.ended_at,
    )  # fmt: skip
    shown = [
        _named(t.experiment, "experiment"),
        _named(t.name, "shown_name"),
        _named(t.owner, "owner"),
        _named(t.is_scheduled, "is_scheduled"),
        _named(t.started_at, "shown_started_at"),
        _named(t.ended_at, "shown_ended_at"),
        _named(t.deleted_at, "deleted_at"),
    ]
    joined = runs.outerjoin(tracked_runs, t.run == r.id)
    return select(*columns, *shown).select_from(joined).where(r.id.in_(some))


def origins_query(scope: str, some: Sequence[RunId]) -> Select[Any]:
    """Ask what other ledgers knew of runs that came from there."""
    subjects = [f"run/{each}" for each in some]
    return (
        select(events.c.subject, events.c.payload)
        .where(events.c.scope == scope, events.c.verb == IMPORTED, events.c.subject.in_(subjects))
        .order_by(events.c.seq)
    )


def datasets_query() -> Select[Any]:
    """Ask for the descriptions of data that runs read."""
    d = logged_datasets.c
    columns = (d.sha256, d.name, d.digest, d.source_type, d.source, d.schema, d.profile)
    return select(*columns).order_by(d.sha256)


def artifacts_below(folder: str) -> Select[Any]:
    """Ask for the files below a folder of the project's artifacts."""
    a = artifacts.c
    return (
        select(*_raw(a.path, a.sha256, a.size_bytes, a.put_at))
        .where(a.path > f"{folder}/", a.path < f"{folder}0")
        .order_by(a.path)
    )


def logged_model_queries(numbers: Sequence[int]) -> dict[str, Select[Any]]:
    """Ask for logged models of experiments."""
    m, v, p = logged_models.c, versions.c, logged_model_metrics.c
    mine = select(m.id).where(m.experiment.in_(numbers)).scalar_subquery()
    columns = _raw(m.id, m.experiment, m.name, m.type, m.status, m.source_run, m.created_at, m.updated_at)
    columns += [*_raw(m.deleted_at), m.version, v.number, v.sha256, v.uri, v.run, v.facts, *_raw(v.at)]
    value = case((p.is_nan, literal(None)), else_=p.value)
    points = (p.model, p.name, *_raw(p.recorded_at), p.step, p.run, p.dataset_name, p.dataset_digest, value)
    found = {
        "logged_models": select(*columns)
        .select_from(logged_models.outerjoin(versions, v.id == m.version))
        .where(m.experiment.in_(numbers))
        .order_by(m.id),
        "logged_model_points": select(*points)
        .where(p.model.in_(mine))
        .order_by(*logged_model_metrics.primary_key.columns),
    }
    for name, table in (
        ("logged_model_params", logged_model_params),
        ("logged_model_tags", logged_model_tags),
    ):
        found[name] = (
            select(table.c.model, table.c.name, table.c.value)
            .where(table.c.model.in_(mine))
            .order_by(table.c.model, table.c.name)
        )
    return found


def model_queries(numbers: Sequence[int] | None) -> dict[str, Select[Any]]:
    """Ask for registered models; of chosen experiments only for versions that come from these."""
    m, s, v = registered_models.c, model_versions.c, versions.c
    labels = select(s.version)
    if numbers is not None:
        runs_of = select(tracked_runs.c.run).where(tracked_runs.c.experiment.in_(numbers))
        models_of = select(logged_models.c.id).where(logged_models.c.experiment.in_(numbers))
        labels = labels.where(s.run.in_(runs_of) | s.logged_model.in_(models_of))
    chosen = labels.scalar_subquery()
    ids = select(m.id)
    if numbers is not None:
        ids = select(s.model).where(s.version.in_(chosen))
    mine = ids.scalar_subquery()
    columns = _raw(s.version, s.model, s.number, s.source, s.location, s.run, s.logged_model, s.run_link)
    columns += _raw(s.description, s.stage, s.status, s.status_message, s.owner, s.created_at, s.updated_at)
    columns += [*_raw(s.deleted_at), _named(v.number, "ledger_number"), v.sha256]
    columns += [null().label("content_sha256"), v.uri, _named(v.run, "made_by"), v.facts, *_raw(v.at)]
    t, a, w = model_tags.c, model_aliases.c, model_version_tags.c
    models = _raw(m.id, m.name, m.ledger_name, m.description, m.created_at, m.updated_at, m.deleted_at)
    return {
        "models": select(*models).where(m.id.in_(mine)).order_by(m.id),
        "model_tags": select(t.model, t.name, t.value).where(t.model.in_(mine)).order_by(t.model, t.name),
        "model_aliases": select(a.model, a.alias, a.number)
        .where(a.model.in_(mine))
        .order_by(a.model, a.alias),
        "model_versions": select(*columns)
        .select_from(model_versions.join(versions, v.id == s.version))
        .where(s.version.in_(chosen))
        .order_by(s.model, s.number),
        "model_version_tags": select(w.version, w.name, w.value)
        .where(w.version.in_(chosen))
        .order_by(w.version, w.name),
    }


def _pieces(values: Iterable[str]) -> Iterator[list[str]]:
    known = list(values)
    for start in range(0, len(known), _IN_ONE_QUESTION):
        yield known[start : start + _IN_ONE_QUESTION]
