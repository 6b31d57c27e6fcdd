"""The runs of an export, some hundred in a transaction, with all that they logged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import BigInteger, Connection, select, type_coerce

from noria.clock import from_micros
from noria.database.upserts import Upsert
from noria.errors import ConfigError, SourceError
from noria.ledger.chain import Change
from noria.ledger.rows import row_digest, row_key
from noria.ledger.tables import edges, events, runs
from noria.records import RunState
from noria.tracking.importing import Standing
from noria.tracking.tables import (
    HEAD_CHARS,
    latest_metrics,
    logged_datasets,
    metric_points,
    run_datasets,
    run_params,
    run_tags,
    tracked_runs,
)
from noria.workspace.moving.exporting_tables import IMPORTED
from noria.workspace.moving.importing_export import ExportImport, Places, raw_rows
from noria.workspace.moving.table_files import TableFile, read_pieces

if TYPE_CHECKING:
    from noria.ledger.store import Ledger
    from noria.workspace.moving.exporting_records import ExportManifest

__all__ = ["greatest", "point_rows", "take_lineage", "take_runs"]

_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_INSTANTS = ("at", "started_at", "ended_at")
_PLAIN = (
    "id", "kind", "name", "state", "attempt", "params", "metrics", "seed", "code", "code_diff", "runtime",
    "error", "cpu_s", "wall_s",
)  # fmt: skip
_ENDS = ("state", "params", "metrics", "error", "cpu_s", "wall_s", "ended_at")
_POINTS, _PARAMS, _INPUTS = map(Upsert, (metric_points, run_params, run_datasets))
_TAGS = Upsert(run_tags, replaced=("value", "head"))  # of a run that goes on they may change
_LATEST = Upsert(
    latest_metrics,
    replaced=("step", "recorded_at", "value", "is_nan"),
    if_greater=("step", "recorded_at", "is_nan", "value"),
)


class _Reader:
    """The rows of one table, taken batch by batch of runs."""

    def __init__(self, folder: Path, table: TableFile, counts: Sequence[int]) -> None:
        self._pieces = read_pieces(folder, table)
        self._counts = iter(counts)
        self._rest: pa.RecordBatch | None = None

    def take(self) -> Iterator[pa.RecordBatch]:
        """Give the rows of the next batch of runs, a few thousand at a time."""
        left = next(self._counts, 0)
        while left:
            piece = self._rest if self._rest is not None else next(self._pieces, None)
            if piece is None:
                return
            yield piece.slice(0, left)
            self._rest = piece.slice(left) if piece.num_rows > left else None
            left -= min(left, piece.num_rows)


def take_runs(
    ledger: Ledger,
    folder: Path,
    manifest: ExportManifest,
    places: Places,
    done: ExportImport,
    *,
    tell: Callable[[ExportImport], None] | None,
) -> None:
    """Take the runs that are not here; bring those up to date that were at work when they were taken."""
    readers = {
        name: _Reader(folder, manifest.tables[name], manifest.batches.get(name, ()))
        for name in ("runs", "params", "tags", "points", "inputs")
    }
    with ledger.database.read() as connection:
        columns = (logged_datasets.c.sha256, logged_datasets.c.name, logged_datasets.c.digest)
        names = {sha256: (name, digest) for sha256, name, digest in connection.execute(select(*columns))}
    for _ in manifest.batches.get("runs", ()):
        found = [row for rows in readers["runs"].take() for row in raw_rows(rows)]
        if done.is_dry:
            with ledger.database.read() as connection:
                standings = {row["id"]: _standing(connection, ledger.scope, row) for row in found}
            wanted = _count(found, standings, places, done)
            for name in ("params", "tags", "points", "inputs"):
                for rows in readers[name].take():
                    ids = rows["run"].to_pylist()
                    setattr(done, name, getattr(done, name) + sum(each in wanted for each in ids))
        else:
            try:
                with ledger.change(None) as change:
                    _take_batch(change, found, readers, places=places, names=names, done=done)
            except ValueError as err:
                if "NUL" not in str(err):
                    raise
                raise ConfigError(
                    "the export has a text with a NUL, which PostgreSQL cannot hold; import it into a "
                    "project on SQLite"
                ) from err
        if tell is not None:
            tell(done)


def _take_batch(
    change: Change,
    found: Sequence[dict[str, Any]],
    readers: Mapping[str, _Reader],
    *,
    places: Places,
    names: Mapping[str, tuple[str, str]],
    done: ExportImport,
) -> None:
    connection = change.connection
    standings = {row["id"]: _standing(connection, change.scope, row) for row in found}
    _count(found, standings, places, done)
    numbers: dict[str, int | None] = {}
    for row in found:
        match standings[row["id"]]:
            case Standing.NEW:
                _begin(change, row, places, done)
            case Standing.OPEN:
                _end(change, row)
            case _:
                continue
        numbers[row["id"]] = _number(row, places)
    for name, keep in (("params", _keep_params), ("tags", _keep_tags), ("points", _keep_points)):
        for rows in readers[name].take():
            setattr(done, name, getattr(done, name) + keep(connection, rows, numbers))
    for rows in readers["inputs"].take():
        wanted = [row for row in raw_rows(rows) if row["run"] in numbers]
        values = [
            (
                row["run"],
                row["dataset"],
                numbers[row["run"]],
                *names[row["dataset"]],
                row["context"],
                row["tags"],
            )
            for row in wanted
        ]
        _INPUTS.execute_raw(connection, values)
        done.inputs += len(values)


def _count(
    found: Sequence[dict[str, Any]], standings: Mapping[str, Standing], places: Places, done: ExportImport
) -> set[str]:
    """Count runs by what is here of them; give those that something is taken of."""
    wanted = set()
    for row in found:
        match standings[row["id"]]:
            case Standing.NEW:
                done.runs += 1
                wanted.add(row["id"])
            case Standing.OPEN:
                done.runs_continued += 1
                wanted.add(row["id"])
            case Standing.KNOWN:
                done.runs_known += 1
            case Standing.OTHER:
                done.leave(f"run {row['id']}", "another run of this project has its id")
                places.refused.add(row["id"])
            case Standing.UNFIT:
                done.leave(f"run {row['id']!r}", "its id can be none of a run")
                places.refused.add(row["id"])
    return wanted


def _standing(connection: Connection, scope: str, row: Mapping[str, Any]) -> Standing:
    if _ID.fullmatch(row["id"]) is None:
        return Standing.UNFIT
    started_at = type_coerce(runs.c.started_at, BigInteger)
    query = select(runs.c.kind, runs.c.name, runs.c.state, started_at).where(runs.c.id == row["id"])
    known = connection.execute(query).first()
    if known is None:
        return Standing.NEW
    if (known[0], known[1], known[3]) != (row["kind"], row["name"], row["started_at"]):
        return Standing.OTHER
    if known.state != RunState.RUNNING or row["state"] == RunState.RUNNING:
        return Standing.KNOWN
    mine = (events.c.scope == scope, events.c.subject == f"run/{row['id']}")
    verbs = set(connection.execute(select(events.c.verb).where(*mine)).scalars())
    return Standing.OPEN if verbs == {IMPORTED} else Standing.KNOWN


def _begin(change: Change, row: Mapping[str, Any], places: Places, done: ExportImport) -> None:
    """Put a run on record as it was; its key and its cause are another ledger's, and told beside it."""
    number = _number(row, places)
    parent = row["parent"]
    if parent is not None:
        there = change.connection.execute(select(runs.c.id).where(runs.c.id == parent)).first()
        if there is None or parent in places.refused:
            done.leave(f"run {row['id']}", f"it is part of run {parent}, which is not here")
            parent = None
    made = {
        **{name: row[name] for name in _PLAIN},
        **{name: _instant(row[name]) for name in _INSTANTS},
        "scope": change.scope,
        "key": None,
        "cause": None,
        "parent": parent,
        "experiment": None if number is None else str(number),
    }
    change.connection.execute(runs.insert(), made)
    origin = {name: row[name] for name in ("cause", "key") if row[name] is not None}
    payload = {"kind": row["kind"], "name": row["name"], "attempt": row["attempt"], "state": row["state"]}
    change.record(
        "run.imported",
        f"run/{row['id']}",
        payload={**payload, "origin": origin},
        cause=None,
        rows={row_key(runs, made): row_digest(runs, made)},
    )
    if number is None:
        return
    shown = {
        "run": row["id"],
        "experiment": number,
        "name": row["shown_name"],
        "owner": row["owner"],
        "is_scheduled": row["is_scheduled"],
        "started_at": _instant(row["shown_started_at"]),
        "ended_at": _instant(row["shown_ended_at"]),
        "deleted_at": _instant(row["deleted_at"]),
    }
    change.connection.execute(tracked_runs.insert(), shown)


def _number(row: Mapping[str, Any], places: Places) -> int | None:
    number = row["experiment"]
    if number is None or number in places.numbers:
        return None if number is None else places.numbers[number]
    raise SourceError(f"the export has run {row['id']} of an experiment that it has not: {number}")


def _end(change: Change, row: Mapping[str, Any]) -> None:
    """Bring a run up to date that was at work when it was taken."""
    connection = change.connection
    known = dict(connection.execute(select(runs).where(runs.c.id == row["id"])).mappings().one())
    ends = {name: _instant(row[name]) if name == "ended_at" else row[name] for name in _ENDS}
    known.update(ends)
    connection.execute(runs.update().where(runs.c.id == row["id"]).values(ends))
    origin = {name: row[name] for name in ("cause", "key") if row[name] is not None}
    payload = {"kind": row["kind"], "name": row["name"], "attempt": row["attempt"], "state": row["state"]}
    change.record(
        "run.imported",
        f"run/{row['id']}",
        payload={**payload, "origin": origin},
        cause=None,
        rows={row_key(runs, known): row_digest(runs, known)},
    )
    shown = {
        "name": row["shown_name"],
        "owner": row["owner"],
        "is_scheduled": row["is_scheduled"],
        "ended_at": _instant(row["shown_ended_at"]),
        "deleted_at": _instant(row["deleted_at"]),
    }
    if row["experiment"] is not None:
        connection.execute(tracked_runs.update().where(tracked_runs.c.run == row["id"]).values(shown))


def _keep_params(connection: Connection, rows: pa.RecordBatch, numbers: Mapping[str, int | None]) -> int:
    values = [
        (run, name, numbers[run], value, json, value[:HEAD_CHARS])
        for run, name, value, json in zip(*(each.to_pylist() for each in rows.columns), strict=True)
        if run in numbers
    ]
    _PARAMS.execute_raw(connection, values)
    return len(values)


def _keep_tags(connection: Connection, rows: pa.RecordBatch, numbers: Mapping[str, int | None]) -> int:
    values = [
        (run, name, numbers[run], value, value[:HEAD_CHARS])
        for run, name, value in zip(*(each.to_pylist() for each in rows.columns), strict=True)
        if run in numbers
    ]
    _TAGS.execute_raw(connection, values)
    return len(values)


def _keep_points(connection: Connection, rows: pa.RecordBatch, numbers: Mapping[str, int | None]) -> int:
    values = [each for each in point_rows(rows, ("run", "name")) if each[0] in numbers]
    _POINTS.execute_raw(connection, values)
    latest = [(*each[:2], numbers[each[0]], *each[2:]) for each in greatest(values)]
    _LATEST.execute_raw(connection, latest)
    return len(values)


def point_rows(rows: pa.RecordBatch, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Give points as the database has them: NaN as a mark beside a number."""
    columns = [rows[name] for name in keys]
    columns += [rows["recorded_at"].cast(pa.int64()), rows["step"], rows["value"]]
    for *head, value in zip(*(each.to_pylist() for each in columns), strict=True):
        is_nan = value != value  # noqa: PLR0124
        yield (*head, 0.0 if is_nan else value, is_nan)


def greatest(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Give of each metric of each run the row that is greatest by step, instant and value."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for row in rows:
        held = found.get(row[:2])
        if held is None or (row[3], row[2], row[5], row[4]) > (held[3], held[2], held[5], held[4]):
            found[row[:2]] = row
    yield from found.values()


def take_lineage(
    ledger: Ledger, folder: Path, manifest: ExportManifest, places: Places, done: ExportImport
) -> None:
    """Put on record which versions runs read and made."""
    left = 0
    for rows in read_pieces(folder, manifest.tables["lineage"]):
        with ledger.change(None) as change:
            for row in rows.to_pylist():
                version = places.versions.get(row["version"])
                if row["run"] in places.refused:
                    continue
                if version is None:
                    left += 1
                    continue
                edge = {"run": row["run"], "version": version, "role": row["role"], "scope": change.scope}
                same = [edges.c[name] == edge[name] for name in ("run", "version", "role")]
                if change.connection.execute(select(edges.c.run).where(*same)).first() is not None:
                    continue
                change.connection.execute(edges.insert(), edge)
                change.record(
                    "lineage.added",
                    f"run/{row['run']}",
                    payload={"version": version, "role": row["role"]},
                    cause=None,
                    rows={row_key(edges, edge): row_digest(edges, edge)},
                )
    if left:
        done.leave(f"{left:,} edges", "they lead to versions that were left out, or that the export has not")


def _instant(micros: int | None) -> Any:
    return None if micros is None else from_micros(micros)
