"""The ledger as tables that `query` answers over, under names that no dataset may have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from noria.ledger.store import Ledger
from noria.records import canonical_json

__all__ = ["ledger_tables"]

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
}  # fmt: skip


def ledger_tables(ledger: Ledger) -> dict[str, Callable[[], pa.Table]]:
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
