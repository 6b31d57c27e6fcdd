"""Everything of a project that `query` reads, by name; each is opened when a statement names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
from sqlalchemy import Select, select

from noria.clock import format_instant
from noria.errors import ConfigError, NotFound
from noria.lake.versions import STORED_KINDS, stored_at, stored_versions
from noria.pipelines.store import CacheEntry
from noria.pipelines.tables import step_cache
from noria.pipelines.trees import stored_in, told_of
from noria.records import Version, canonical_json
from noria.registry.catalogue_tables import registry_questions
from noria.tracking.tables import (
    artifacts,
    experiment_tags,
    experiments,
    logged_model_metrics,
    logged_models,
    metric_points,
    run_params,
    run_tags,
    tracked_runs,
)
from noria.warehouse.named_tables import NamedTables
from noria.workspace.derived_tables import derived_tables, output_table
from noria.workspace.unbuilt import find_advice

if TYPE_CHECKING:
    from datetime import datetime

    from noria.ledger.store import Ledger
    from noria.warehouse.query import AsOf
    from noria.workspace.project import Project

__all__ = ["ProjectTables", "ledger_tables"]

_TEXT, _WHOLE, _REAL, _INSTANT = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", "UTC")
_COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "ledger_events": {
        "id": _TEXT, "seq": _WHOLE, "verb": _TEXT, "subject": _TEXT, "actor": _TEXT, "cause": _TEXT,
        "key": _TEXT, "payload": _TEXT, "at": _INSTANT, "recorded_at": _INSTANT, "digest": _TEXT,
    },
    "ledger_runs": {
        "id": _TEXT, "kind": _TEXT, "name": _TEXT, "state": _TEXT, "attempt": _WHOLE, "cause": _TEXT,
        "parent": _TEXT, "experiment": _TEXT, "params": _TEXT, "metrics": _TEXT, "seed": _WHOLE,
        "code": _TEXT, "runtime": _TEXT, "error": _TEXT, "cpu_s": _REAL, "wall_s": _REAL, "at": _INSTANT,
        "started_at": _INSTANT, "ended_at": _INSTANT,
    },
    "ledger_versions": {
        "id": _TEXT, "kind": _TEXT, "name": _TEXT, "number": _WHOLE, "sha256": _TEXT, "uri": _TEXT,
        "run": _TEXT, "facts": _TEXT, "at": _INSTANT, "recorded_at": _INSTANT,
    },
    "ledger_edges": {"run": _TEXT, "version": _TEXT, "role": _TEXT},
    "ledger_pointers": {
        "environment": _TEXT, "name": _TEXT, "number": _WHOLE, "version": _TEXT, "stable": pa.bool_(),
        "reason": _TEXT, "event": _TEXT, "at": _INSTANT, "recorded_at": _INSTANT,
    },
    "tracking_artifacts": {"path": _TEXT, "sha256": _TEXT, "size_bytes": _WHOLE, "put_at": _INSTANT},
    "registry_models": {
        "name": _TEXT, "ledger_name": _TEXT, "description": _TEXT, "created_at": _INSTANT,
        "updated_at": _INSTANT, "deleted_at": _INSTANT,
    },
    "registry_versions": {
        "model": _TEXT, "number": _WHOLE, "version": _TEXT, "stage": _TEXT, "status": _TEXT,
        "status_message": _TEXT, "owner": _TEXT, "description": _TEXT, "source": _TEXT, "location": _TEXT,
        "run": _TEXT, "run_link": _TEXT, "logged_model": _TEXT, "created_at": _INSTANT,
        "updated_at": _INSTANT, "deleted_at": _INSTANT,
    },
    "registry_aliases": {"model": _TEXT, "alias": _TEXT, "number": _WHOLE, "version": _TEXT},
    "registry_model_tags": {"model": _TEXT, "name": _TEXT, "value": _TEXT},
    "registry_version_tags": {"model": _TEXT, "number": _WHOLE, "name": _TEXT, "value": _TEXT},
    "tracking_experiments": {
        "id": _TEXT, "name": _TEXT, "at": _INSTANT, "updated_at": _INSTANT, "deleted_at": _INSTANT,
    },
    "tracking_experiment_tags": {"experiment": _TEXT, "name": _TEXT, "value": _TEXT},
    "tracking_runs": {
        "run": _TEXT, "experiment": _TEXT, "name": _TEXT, "owner": _TEXT, "started_at": _INSTANT,
        "ended_at": _INSTANT, "deleted_at": _INSTANT,
    },
    "tracking_metrics": {
        "run": _TEXT, "name": _TEXT, "step": _WHOLE, "value": _REAL, "recorded_at": _INSTANT,
    },
    "tracking_models": {
        "id": _TEXT, "experiment": _TEXT, "name": _TEXT, "type": _TEXT, "status": _TEXT, "source_run": _TEXT,
        "version": _TEXT, "created_at": _INSTANT, "updated_at": _INSTANT, "deleted_at": _INSTANT,
    },
    "tracking_model_metrics": {
        "model": _TEXT, "run": _TEXT, "name": _TEXT, "step": _WHOLE, "value": _REAL, "dataset_name": _TEXT,
        "dataset_digest": _TEXT, "recorded_at": _INSTANT,
    },
    "tracking_params": {"run": _TEXT, "name": _TEXT, "value": _TEXT},
    "tracking_tags": {"run": _TEXT, "name": _TEXT, "value": _TEXT},
    "pipeline_results": {
        "key": _TEXT, "run": _TEXT, "pipeline": _TEXT, "step": _TEXT, "value": _TEXT, "size_bytes": _WHOLE,
        "versions": pa.list_(_TEXT), "at": _INSTANT,
    },
}  # fmt: skip
_LEDGER = "ledger_"  # no dataset has such a name
_NUMBERED = {"id", "experiment"}  # what is counted in the database, and a text elsewhere


class _NotYet(NotFound):
    """A table had no version at that instant."""

    def __init__(self, table: str, at: datetime, first: str) -> None:
        super().__init__("version", table, [first])
        self.args = (f"no version of {table} as of {format_instant(at)}; the first is {first}",)


class ProjectTables(NamedTables):
    """Names of tables, and what opens each.

    The ledger's own, then tables of the lake; where none of these has the name: tracking and kept results,
    views of the warehouse, feature views (their values as of the newest row), results of steps that are
    tables (`"pipeline/step"`).

    Parameters
    ----------
    is_recorded
        Whether what is read is to be named by versions: a table of the lake that has none gets one.

    Attributes
    ----------
    read : dict of str to Version or None
        What was opened since this was made; for what has no versions None. Each is opened once: all that is
        read of it is the same state.
    """

    def __init__(self, project: Project, *, is_recorded: bool = False) -> None:
        self.read: dict[str, Version | None] = {}
        self._project, self._is_recorded = project, is_recorded
        self._opened: dict[str, Any] = {}
        self._records = ledger_tables(project.ledger) | _other_records(project.ledger)

    @cached_property
    def _derived(self) -> dict[str, Callable[[], Any]]:
        return derived_tables(self._project)

    def __getitem__(self, name: str) -> Callable[[], Any]:
        if name in self:
            return lambda: self._open(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in self._records or self._is_stored(name) or name in self._derived
        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._records, *self._project.lake.names(), *self._derived}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find_advice(self, name: str) -> str | None:
        """Say how a table comes to be that is declared, and not there yet."""
        return find_advice(self._project, name.lower())

    def as_it_was(self, name: str, wanted: AsOf) -> Any:
        """Open a table at a version, or at the newest version of an instant.

        Raises
        ------
        NotFound
            If there was none; says which there are.
        ConfigError
            If the table has no versions.
        """
        versions = self._versions(name)
        if not versions:
            raise ConfigError(f"{name!r} cannot be read as it was: no versions of it are on record")
        version = _wanted(versions, wanted)
        if version is None:
            first = min(versions, key=lambda each: each.at)
            known = f"{first.ref} of {format_instant(first.at)}"
            if wanted.at is not None:
                raise _NotYet(name, wanted.at, known)
            raise NotFound("version", f"{name}:{wanted.version}", [each.ref for each in versions[-3:]])
        self.read[version.ref] = version
        if version.kind == "output":
            return output_table(self._project, version)
        return self._project.lake.reader(name, version=version)

    def _open(self, name: str) -> Any:
        if name not in self._opened:
            self._opened[name] = self._open_now(name)
        return self._opened[name]

    def _open_now(self, name: str) -> Any:
        if self._is_stored(name) and not name.startswith(_LEDGER):
            lake = self._project.lake
            if not self._is_recorded:
                return lake.reader(name)
            version = self.read[name] = self._current(name)
            return lake.reader(name, version=version)
        self.read[name] = None
        return (self._records if name in self._records else self._derived)[name]()

    def _is_stored(self, name: str) -> bool:
        return bool(name) and name[0] not in "./" and "/" not in name and self._project.lake.exists(name)

    def _current(self, name: str) -> Version:
        """Give the version that a table of the lake is right now."""
        digest = self._project.lake.version_digest(name)
        for kind in STORED_KINDS:
            found = self._project.ledger.find_version(kind, name, sha256=digest)
            if found is not None:
                return found
        return self._project.lake.record_version(name, kind="table")

    def _versions(self, name: str) -> list[Version]:
        ledger = self._project.ledger
        if not self._is_stored(name):
            return ledger.list_versions(kind="output", name=name)
        return stored_versions(ledger, name)


def _wanted(versions: Iterable[Version], wanted: AsOf) -> Version | None:
    if wanted.at is not None:
        return stored_at(versions, wanted.at)
    return next((each for each in versions if each.number == wanted.version), None)


def ledger_tables(ledger: Ledger) -> dict[str, Callable[[], pa.Table]]:
    """Give what opens each of the ledger's tables: events, runs, versions, edges, pointers.

    Payloads, parameters, metrics and facts are JSON text: `payload ->> '$.reason'` reads a field of one.

    Parameters
    ----------
    ledger
        Is read when a table is opened, not before.
    """
    readers: Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]] = {
        "ledger_events": lambda: map(_row, ledger.list_events()),
        "ledger_runs": lambda: map(_row, ledger.list_runs(newest_first=False)),
        "ledger_versions": lambda: map(_row, ledger.list_versions()),
        "ledger_edges": lambda: map(_row, ledger.list_edges()),
        "ledger_pointers": lambda: map(_row, ledger.list_pointers()),
    }
    return {name: _opener(name, read) for name, read in readers.items()}


def _other_records(ledger: Ledger) -> dict[str, Callable[[], pa.Table]]:
    """Give what opens the tables of tracking and of kept results."""
    readers: Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]] = {
        "pipeline_results": lambda: _kept_results(ledger),
        "tracking_artifacts": lambda: _rows_of(ledger, select(artifacts).order_by(artifacts.c.path)),
        **{name: partial(_rows_of, ledger, query) for name, query in registry_questions().items()},
        "tracking_experiments": lambda: _rows_of(ledger, select(experiments).order_by(experiments.c.id)),
        "tracking_experiment_tags": lambda: _rows_of(
            ledger, select(experiment_tags).order_by(experiment_tags.c.experiment, experiment_tags.c.name)
        ),
        "tracking_runs": lambda: _rows_of(
            ledger, select(tracked_runs).order_by(tracked_runs.c.started_at, tracked_runs.c.run)
        ),
        "tracking_metrics": lambda: _rows_of(ledger, select(metric_points)),
        "tracking_models": lambda: _rows_of(
            ledger, select(logged_models).order_by(logged_models.c.created_at)
        ),
        "tracking_model_metrics": lambda: _rows_of(ledger, select(logged_model_metrics)),
        "tracking_params": lambda: _params(ledger),
        "tracking_tags": lambda: _rows_of(ledger, select(run_tags).order_by(run_tags.c.run, run_tags.c.name)),
    }
    return {name: _opener(name, read) for name, read in readers.items()}


def _opener(name: str, read: Callable[[], Iterable[Mapping[str, Any]]]) -> Callable[[], pa.Table]:
    def opened() -> pa.Table:
        rows = list(read())
        columns = _COLUMNS[name].items()
        return pa.table(
            {column: pa.array([row.get(column) for row in rows], kind) for column, kind in columns}
        )

    return opened


def _row(record: msgspec.Struct) -> dict[str, Any]:
    """Give the fields of a record, what is nested as JSON and the cost as two numbers."""
    row = {name: getattr(record, name) for name in record.__struct_fields__}
    cost = row.pop("cost", None)
    row |= {} if cost is None else {"cpu_s": cost.cpu_s, "wall_s": cost.wall_s}
    return {
        name: canonical_json(value).decode() if isinstance(value, dict) else value
        for name, value in row.items()
    }


def _rows_of(ledger: Ledger, statement: Select[Any]) -> Iterator[Mapping[str, Any]]:
    with ledger.database.read() as connection:
        for row in connection.execute(statement).mappings():
            told = {**row}
            for name in _NUMBERED & told.keys():
                told[name] = str(told[name])
            yield {**told, "value": math.nan} if row.get("is_nan") else told  # kept as 0


def _params(ledger: Ledger) -> Iterator[Mapping[str, Any]]:
    """Give a row per parameter of a run: texts as they are, all else as JSON."""
    kept: dict[str, dict[str, str]] = {}  # as they came: a run's record has them at its end
    for row in _rows_of(ledger, select(run_params)):
        kept.setdefault(row["run"], {})[row["name"]] = row["value"] if row["json"] is None else row["json"]
    for run in ledger.list_runs(newest_first=False):
        told = {
            name: value if isinstance(value, str) else canonical_json(value).decode()
            for name, value in run.params.items()
        }
        for name, value in {**told, **kept.get(run.id, {})}.items():
            yield {"run": run.id, "name": name, "value": value}


def _kept_results(ledger: Ledger) -> Iterator[Mapping[str, Any]]:
    """Give a row per kept result: under which key, whose, what it is."""
    runs = {str(each.id): each for each in ledger.list_runs(kind="step", newest_first=False)}
    kept = select(step_cache).where(step_cache.c.scope == ledger.scope).order_by(step_cache.c.at)
    for row in _rows_of(ledger, kept):
        entry = msgspec.json.decode(row["output"], type=CacheEntry)
        name = runs[entry.run].name if entry.run in runs else ""
        yield {
            "key": row["key"],
            "run": entry.run,
            "pipeline": name.partition("/")[0],
            "step": name.partition("/")[2],
            "value": told_of(entry.output),
            "size_bytes": sum(each.size_bytes for each in stored_in(entry.output)),
            "versions": list(entry.versions.values()),
            "at": row["at"],
        }
