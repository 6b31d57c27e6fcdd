"""Rejected rows: which are open, and how they get into their table after all, exactly once.

What was rejected stays in `<dataset>__rejected`. A repair first writes which rows it takes in into
`<dataset>__repairs`, under the number of its attempt; then it ingests them as batch of that number of the
sequence `repair`. A row is settled if the last attempt that has landed under a number took it in: rows and
number are one commit, so that after a kill at any instant a row is either open or landed, never both.

The same content that comes again with another batch is the same rejected row, seen once more: it has the name
of its first sighting, and is settled if one of its sightings is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from noria.checks.engine import row_json
from noria.checks.evaluator import Evaluator
from noria.checks.payloads import read_payloads
from noria.checks.quoting import quoted
from noria.clock import to_micros
from noria.errors import ConfigError, NotFound, SourceError
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.recording import REPAIR
from noria.lake.schema import as_table, declared_schema

if TYPE_CHECKING:
    from datetime import datetime

    from noria.lake.store import Lake
    from noria.records import Version

__all__ = ["Repaired", "list_rejected", "read_edited", "rejected_lines", "repair_rows"]

_APP = REPAIR
_INSTANT = pa.timestamp("us", "UTC")
_IDENTITY = ("app", "batch", "row", "digest")
_REJECTED = pa.schema(
    [
        ("app", pa.string()),
        ("batch", pa.int64()),
        ("row", pa.int64()),
        ("digest", pa.string()),
        ("reason", pa.string()),
        ("payload", pa.string()),
        ("rejected_at", _INSTANT),
        ("settled_at", _INSTANT),
        ("sightings", pa.int64()),
        ("last_seen_at", _INSTANT),
    ]
)
_CLAIMS = pa.schema(
    [
        ("app", pa.string()),
        ("batch", pa.int64()),
        ("row", pa.int64()),
        ("digest", pa.string()),
        ("attempt", pa.int64()),
        ("claim", pa.int64()),
        ("claimed_at", _INSTANT),
    ]
)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair came to.

    Attributes
    ----------
    rows
        Open rows that were looked at.
    landed
        Rows that are in the table now.
    repeated
        Rows that turned out to be there already, with equal content.
    reasons
        Why the others stay open -> how many.
    version
        The dataset's version that holds them; None if nothing landed.
    """

    rows: int
    landed: int
    repeated: int
    reasons: Mapping[str, int]
    version: Version | None

    @property
    def open(self) -> int:
        """How many of the rows stay open."""
        return self.rows - self.landed - self.repeated


def list_rejected(lake: Lake, name: str, *, batch: int | None, reason: str | None, settled: bool) -> pa.Table:
    """Give rejected rows, oldest batch first; `settled`: those too that have landed since."""
    found = _rejected_with_claims(lake, name)
    tests = [] if settled else ["settled_at is null"]
    tests += [] if batch is None else [f"list_contains(batches, {batch:d})"]
    tests += [] if reason is None else [f"contains(reason, '{reason.replace(chr(39), chr(39) * 2)}')"]
    where = f"where {' and '.join(tests)}" if tests else ""
    sql = f'select * exclude (batches) from found {where} order by rejected_at, app, batch, "row", digest'
    return _ask(sql, {"found": found}).cast(_REJECTED)


def repair_rows(
    lake: Lake,
    dataset: Dataset,
    rows: pa.Table,
    *,
    payloads: Sequence[str] | None,
    values: Mapping[str, str],
    using: Callable[[Any], ArrowFrame] | None,
    cause: str | None,
    at: datetime,
) -> Repaired:
    """Ingest those of the rejected `rows` that hold now; see `noria.workspace.contracts.Contracts.repair`."""
    given = rows["payload"].to_pylist() if payloads is None else list(payloads)
    table, faults = read_payloads(given, _schema_of(lake, dataset))
    reasons: Counter[str] = Counter(fault for fault in faults if fault)
    readable = np.flatnonzero([not fault for fault in faults])
    table = _changed(table.take(pa.array(readable)), dataset, values, using)
    if dataset.known_at is None and dataset.known_at_column in table.column_names:
        table = table.drop_columns([dataset.known_at_column])
    rules = [each for each in dataset.checks if not each.about_batch]
    plain = replace(dataset, checks=rules, max_rejected_share=1.0, write="append")  # it replaces no row
    verdict = lake.check(plain, table, at=at)
    reasons.update(verdict.rejected["reason"].to_pylist())
    holds = np.ones(table.num_rows, dtype=bool)
    holds[np.asarray(verdict.rejected["row"])] = False
    if not holds.any():
        return Repaired(rows.num_rows, 0, 0, reasons, None)
    attempt = (lake.last_batch(dataset.name, _APP) or 0) + 1
    _claim(lake, dataset.name, rows.take(pa.array(readable[holds])), attempt=attempt, at=at)
    done = lake.ingest(
        plain, table.filter(pa.array(holds)), batch=attempt, app=_APP, source=_APP, cause=cause, at=at
    )
    reasons.update({each.rule: each.failing for each in done.findings if each.severity != "warn"})
    return Repaired(rows.num_rows, done.accepted, done.repeated, reasons, done.version)


def rejected_lines(rows: pa.Table) -> list[str]:
    """Write rejected rows as JSON lines, for somebody to edit their `payload`."""
    lines = []
    for row in rows.select([*_IDENTITY, "reason", "payload"]).to_pylist():
        try:
            payload = msgspec.json.decode(row["payload"])
        except msgspec.DecodeError:
            payload = row["payload"]
        lines.append(msgspec.json.encode({**row, "payload": payload}).decode())
    return lines


def read_edited(lines: Sequence[str], rows: pa.Table, *, file: str) -> tuple[pa.Table, list[str]]:
    """Read back edited lines: the open rows that they name, and their payloads.

    Raises
    ------
    SourceError
        If a line is none, or names no open row; says which.
    """
    places = {
        tuple(row.values()): place for place, row in enumerate(rows.select(list(_IDENTITY)).to_pylist())
    }
    taken: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line)
            identity = tuple(found[name] for name in _IDENTITY)
            payload = found["payload"]
        except (msgspec.DecodeError, KeyError, TypeError) as err:
            raise SourceError(
                f"{file}, line {number}: it is no rejected row ({err}); each line is JSON with "
                f"{', '.join(_IDENTITY)} and payload, as `noria dataset rejected --output` writes it"
            ) from err
        if identity not in places:
            named = dict(zip(_IDENTITY, identity, strict=True))
            raise SourceError(
                f"{file}, line {number}: no open row is {named}; it has been settled, or was never rejected: "
                "`noria dataset rejected` lists the open ones"
            )
        taken[places[identity]] = payload if isinstance(payload, str) else row_json(payload)
    return rows.take(pa.array(list(taken), pa.int64())), list(taken.values())


def _rejected_with_claims(lake: Lake, name: str) -> pa.Table:
    table = f"{name}__rejected"
    if not lake.exists(table):
        return _REJECTED.append(pa.field("batches", pa.list_(pa.int64()))).empty_table()
    rejected = lake.read(table)
    if "app" not in rejected.column_names:
        rejected = rejected.append_column("app", pa.nulls(rejected.num_rows, pa.string()))
    apps = rejected["app"].unique().to_pylist()
    last = [(app or "ingest", lake.last_batch(name, app or "ingest")) for app in apps]
    landed = pa.table(
        {
            "app": pa.array([app for app, _ in last], pa.string()),
            "last": pa.array([number for _, number in last], pa.int64()),
        }
    )
    claims = lake.read(f"{name}__repairs") if lake.exists(f"{name}__repairs") else _CLAIMS.empty_table()
    tables = {"rejected": rejected, "landed": landed, "claims": claims}
    order = 'order by rejected_at, app, batch, "row"'
    return _ask(
        f"""
        with came as (
            select coalesce(app, 'ingest') as app, batch, "row", md5(payload) as digest,
                   reason, payload, rejected_at
            from rejected
        ), sighted as (
            select came.*, row_number() over (partition by app, batch, digest order by "row") as nth
            from came join landed using (app)
            where batch <= last
        ), settled as (
            select app, batch, "row", digest, max(claimed_at) as settled_at
            from claims join (select attempt, max(claim) as claim from claims group by attempt)
                 using (attempt, claim)
            where attempt <= {lake.last_batch(name, _APP) or 0:d}
            group by all
        )
        select first(app {order}) as app, first(batch {order}) as batch, first("row" {order}) as "row",
               digest, last(reason {order}) as reason, first(payload) as payload,
               min(rejected_at) as rejected_at, max(settled_at) as settled_at,
               count(*) as sightings, max(rejected_at) as last_seen_at, list(batch) as batches
        from sighted left join settled using (app, batch, "row", digest)
        group by digest, nth
        """,
        tables,
    )


def _claim(lake: Lake, name: str, rows: pa.Table, *, attempt: int, at: datetime) -> None:
    table = f"{name}__repairs"
    claim = ((lake.last_batch(table, _APP) or 0) if lake.exists(table) else 0) + 1

    def repeated(value: int) -> pa.Array:
        return pa.repeat(pa.scalar(value, pa.int64()), rows.num_rows)

    columns = [rows[name] for name in _IDENTITY]
    columns += [repeated(attempt), repeated(claim), repeated(to_micros(at)).cast(_INSTANT)]
    lake.append(table, pa.table(columns, schema=_CLAIMS), batch=claim, app_id=_APP)


def _schema_of(lake: Lake, dataset: Dataset) -> pa.Schema:
    declared = declared_schema(dataset)
    if declared is not None:
        return declared
    if not lake.exists(dataset.name):
        raise NotFound("table", dataset.name, lake.names())
    return lake.schema(dataset.name)


def _changed(
    table: pa.Table,
    dataset: Dataset,
    values: Mapping[str, str],
    using: Callable[[Any], ArrowFrame] | None,
) -> pa.Table:
    """Give the rows as they are to be: by SQL for single columns, then by the project's function."""
    evaluator = Evaluator()
    try:
        for column, sql in values.items():
            if column not in table.column_names:
                raise NotFound("column", column, table.column_names)
            evaluator.nodes(sql, what=f"--set {column}")
            kind = table.schema.field(column).type
            try:
                part = evaluator.query(f"select ({sql}) as {quoted(column)} from batch", {"batch": table})
                made = part[column].cast(kind)
            except (duckdb.Error, pa.ArrowException) as err:
                raise ConfigError(
                    f"column {column!r} ({kind}) cannot be set to {sql!r}: {str(err).splitlines()[0]}"
                ) from err
            table = table.set_column(table.schema.get_field_index(column), column, made)
    finally:
        evaluator.close()
    if using is None or not table.num_rows:
        return table
    repaired = as_table(using(table), name=dataset.name)
    if repaired.num_rows != table.num_rows:
        raise ConfigError(
            f"the repair of dataset {dataset.name!r} gave {repaired.num_rows} rows for {table.num_rows}; "
            "it has to give each row back, in the same order: what it cannot repair as it is"
        )
    return repaired


def _ask(sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
    evaluator = Evaluator()
    try:
        return evaluator.query(sql, tables)
    finally:
        evaluator.close()
