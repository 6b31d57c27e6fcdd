"""Between rows of the tables, records, and digests.

The digest of a row is the sha256 of the canonical JSON of all its columns that are not null: instants in
ISO 8601 with `Z`, JSON columns as what they hold. Nulls are left out so that a migration may add a column.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Table

from noria.clock import from_micros
from noria.database.metadata import Instant
from noria.ledger.tables import edges, events, pointers, runs, versions
from noria.records import (
    Cost,
    Edge,
    Event,
    EventId,
    Pointer,
    Run,
    RunState,
    Version,
    canonical_json,
    sha256_hex,
)

__all__ = [
    "JSON_COLUMNS",
    "decode_json",
    "decode_metrics",
    "encode_json",
    "encode_metrics",
    "event_digest",
    "event_id",
    "row_digest",
    "row_key",
    "to_edge",
    "to_event",
    "to_pointer",
    "to_run",
    "to_version",
]

JSON_COLUMNS: dict[Table, frozenset[str]] = {
    events: frozenset({"payload", "rows"}),
    runs: frozenset({"params", "metrics"}),
    versions: frozenset({"facts"}),
    edges: frozenset(),
    pointers: frozenset(),
}
_INSTANTS = {table: {c.name for c in table.columns if isinstance(c.type, Instant)} for table in JSON_COLUMNS}


def event_id(scope: str, seq: int) -> EventId:
    """Give the id of an event."""
    return EventId(f"{scope}:{seq}")


def row_key(table: Table, row: Mapping[str, Any]) -> str:
    """Name a covered row: the table and what tells the row from others of its scope."""
    if table is edges:
        return f"edges/{row['run']}/{row['role']}/{row['version']}"
    if table is pointers:
        return f"pointers/{row['environment']}/{row['name']}:{row['number']}"
    return f"{table.name}/{row['id']}"


def row_digest(table: Table, row: Mapping[str, Any]) -> str:
    """Give the digest of a covered row, from Python's values or from the raw ones of the database."""
    return sha256_hex(canonical_json(dict(_canonical_items(table, row))))


def event_digest(row: Mapping[str, Any]) -> str:
    """Give the digest of an event: of all its fields but the digest itself, with its id."""
    body = dict(_canonical_items(events, row))
    body.pop("digest", None)
    body["id"] = event_id(row["scope"], row["seq"])
    return sha256_hex(canonical_json(body))


def _canonical_items(table: Table, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    json_columns, instants = JSON_COLUMNS[table], _INSTANTS[table]
    for name, value in row.items():
        if value is None:
            continue
        if name in json_columns and isinstance(value, str):
            yield name, msgspec.Raw(value.encode("utf-8", "surrogatepass"))
        elif name in instants and isinstance(value, int):
            yield name, _instant(value)
        elif name == "stable" and value in {0, 1}:
            yield name, bool(value)  # SQLite has no other booleans
        else:
            yield name, value


def _instant(micros: int) -> datetime | int:
    try:
        return from_micros(micros)
    except OverflowError:
        return micros  # nothing that noria wrote; its digest will not fit


def encode_json(value: Mapping[str, Any] | None) -> str:
    """Write a column of JSON."""
    return canonical_json(dict(value or {})).decode()


def decode_json(text: str) -> dict[str, Any]:
    """Read a column of JSON."""
    value: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    return value


def encode_metrics(metrics: Mapping[str, float] | None) -> str:
    """Write metrics; JSON has no NaN and no infinity, so those are kept as text."""
    numbers = {name: float(value) for name, value in (metrics or {}).items()}
    return encode_json(
        {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    )


def decode_metrics(text: str) -> dict[str, float]:
    """Read metrics."""
    return {name: float(value) for name, value in decode_json(text).items()}


def to_event(row: RowMapping | Mapping[str, Any]) -> Event:
    """Make the record of a row of `events`."""
    fields = dict(row)
    fields["payload"] = decode_json(row["payload"])
    fields["rows"] = decode_json(row["rows"])
    return Event(id=event_id(row["scope"], row["seq"]), **fields)


def to_run(row: RowMapping | Mapping[str, Any]) -> Run:
    """Make the record of a row of `runs`."""
    fields = dict(row)
    cpu_s, wall_s = fields.pop("cpu_s"), fields.pop("wall_s")
    fields["cost"] = None if cpu_s is None else Cost(cpu_s=cpu_s, wall_s=wall_s)
    fields["state"] = RunState(row["state"])
    fields["params"] = decode_json(row["params"])
    fields["metrics"] = decode_metrics(row["metrics"])
    return Run(**fields)


def to_version(row: RowMapping | Mapping[str, Any]) -> Version:
    """Make the record of a row of `versions`."""
    fields = dict(row)
    fields["facts"] = decode_json(row["facts"])
    return Version(**fields)


def to_edge(row: RowMapping | Mapping[str, Any]) -> Edge:
    """Make the record of a row of `edges`."""
    return Edge(run=row["run"], version=row["version"], role=row["role"])


def to_pointer(row: RowMapping | Mapping[str, Any]) -> Pointer:
    """Make the record of a row of `pointers`."""
    fields = dict(row)
    fields.pop("scope")
    return Pointer(**fields)
