"""The ledger as tables that `query` answers over, under names that no dataset may have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from noria.ledger.store import Ledger
from noria.records import canonical_json

__all__ = ["ledger_tables"]

_INSTANT = pa.timestamp("us", "UTC")
_COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "ledger_events": {
        "id": pa.string(), "seq": pa.int64(), "verb": pa.string(), "subject": pa.string(), "actor": pa.string(),
        "cause": pa.string(), "key": pa.string(), "payload": pa.string(), "at": _INSTANT, "recorded_at": _INSTANT,
        "digest": pa.string(),
    },
    "ledger_runs": {
        "id": pa.string(), "kind": pa.string(), "name": pa.string(), "state": pa.string(), "attempt": pa.int64(),
        "cause": pa.string(), "parent": pa.string(), "experiment": pa.string(), "params": pa.string(),
        "metrics": pa.string(), "seed": pa.int64(), "code": pa.string(), "runtime": pa.string(),
        "error": pa.string(), "cpu_s": pa.float64(), "wall_s": pa.float64(), "at": _INSTANT,
        "started_at": _INSTANT, "ended_at": _INSTANT,
    },
    "ledger_versions": {
        "id": pa.string(), "kind": pa.string(), "name": pa.string(), "number": pa.int64(), "sha256": pa.string(),
        "uri": pa.string(), "run": pa.string(), "facts": pa.string(), "at": _INSTANT, "recorded_at": _INSTANT,
    },
    "ledger_edges": {"run": pa.string(), "version": pa.string(), "role": pa.string()},
    "ledger_pointers": {
        "environment": pa.string(), "name": pa.string(), "number": pa.int64(), "version": pa.string(),
        "stable": pa.bool_(), "reason": pa.string(), "event": pa.string(), "at": _INSTANT,
        "recorded_at": _INSTANT,
    },
}  # fmt: skip


def ledger_tables(ledger: Ledger) -> Mapping[str, Callable[[], pa.Table]]:
    """Give what opens each of the ledger's tables: events, runs, versions, edges, pointers.

    Payloads, parameters, metrics and facts are JSON text: `payload ->> '$.reason'` reads a field of one.

    Parameters
    ----------
    ledger
        Is read when a table is opened, not before.
    """
    readers: Mapping[str, Callable[[], Sequence[msgspec.Struct]]] = {
        "ledger_events": ledger.list_events,
        "ledger_runs": lambda: ledger.list_runs(newest_first=False),
        "ledger_versions": ledger.list_versions,
        "ledger_edges": ledger.list_edges,
        "ledger_pointers": ledger.list_pointers,
    }
    return {name: _opener(name, read) for name, read in readers.items()}


def _opener(name: str, read: Callable[[], Sequence[msgspec.Struct]]) -> Callable[[], pa.Table]:
    def opened() -> pa.Table:
        rows = [_row(each) for each in read()]
        return pa.table({
            column: pa.array([row.get(column) for row in rows], kind) for column, kind in _COLUMNS[name].items()
        })  # fmt: skip

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
