"""Contracts proposed for what a project has, or could take in: a table, a frame, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from noria.errors import SourceError
from noria.lake.declarations import Dataset
from noria.lake.reading import Reading
from noria.lake.schema import INSTANT, as_table, conform, storable_schema
from noria.lake.sources.opening import open_source
from noria.lake.sources.texts import read_texts
from noria.profiles.proposals import propose_contract

if TYPE_CHECKING:
    from noria.workspace.opened import Opened

__all__ = ["propose"]

_MOST_ROWS = 1_000_000  # that a proposal is made from
_INSTANTS = 0.8  # of the texts of a column of instants
_MOST_KEYS = 1_000_000  # of another dataset, that columns are held against


def propose(
    project: Opened,
    name: str,
    rows: Any,
    *,
    key: str | tuple[str, ...] | None,
    event_at: str | None,
    known_at: str | None,
    time_zone: str | None,
) -> str:
    """See `noria.workspace.contracts.Contracts.propose_contract`."""
    Dataset(name, key="key", event_at="event_at")  # refuses what cannot name one
    learnt = _rows_of(project, name, rows, time_zone, [each for each in (event_at, known_at) if each])
    keys = () if key is None else (key,) if isinstance(key, str) else tuple(key)
    return propose_contract(
        name,
        _stored(learnt.table, name),
        source=learnt.source,
        key=keys,
        event_at=event_at,
        known_at=known_at,
        others=_keys_of_others(project, name),
        reading=learnt.reading,
        unread=learnt.unread,
        why_unread=learnt.why_unread,
    )


@dataclass(slots=True)
class _Learnt:
    """Rows to learn from, how their files were read, and what of them could not be."""

    source: str
    table: pa.Table
    reading: dict[str, Any] = field(default_factory=dict)
    unread: int = 0
    why_unread: str = ""


def _rows_of(
    project: Opened, name: str, rows: Any, time_zone: str | None, instants: Sequence[str]
) -> _Learnt:
    if rows is None:
        return _Learnt(f"the table {name}", project.lake.reader(name).head(_MOST_ROWS))
    if hasattr(rows, "__arrow_c_stream__"):
        return _Learnt("a frame", as_table(rows, name=name).slice(0, _MOST_ROWS))
    files = [rows] if isinstance(rows, str | Path) else list(rows)
    reading = Reading(time_zone=time_zone, types=dict.fromkeys(instants, "instant"))
    reading = replace(reading, types={**_mostly_instants(files, reading), **reading.types})
    learnt = _Learnt(_named(files), pa.table({}), {} if time_zone is None else {"time_zone": time_zone})
    pieces: list[pa.Table] = []
    wanted = None
    for piece in chain.from_iterable(each.pieces(wanted) for each in open_source(files, reading=reading)):
        if isinstance(piece, pa.RecordBatch):
            pieces.append(pa.Table.from_batches([piece]))
            wanted = piece.schema
        else:
            learnt.why_unread = learnt.why_unread or piece[0].reason
            learnt.unread += len(piece)
        if sum(part.num_rows for part in pieces) >= _MOST_ROWS:
            break
    if not pieces:
        why = f" ({learnt.unread} lines could not be read: {learnt.why_unread})" if learnt.unread else ""
        raise SourceError(
            f"{', '.join(map(str, files))} holds no rows to learn from{why}; name a file that does"
        )
    learnt.table = pa.concat_tables(pieces, promote_options="permissive").slice(0, _MOST_ROWS)
    return learnt


def _mostly_instants(files: Sequence[str | Path], reading: Reading) -> dict[str, str]:
    """Name the columns of the first rows that are texts by the few that are no instants."""
    for piece in chain.from_iterable(each.pieces(None) for each in open_source(files, reading=reading)):
        if isinstance(piece, pa.RecordBatch):
            texts = [each.name for each in piece.schema if pa.types.is_string(each.type)]
            return {each: "instant" for each in texts if _is_mostly_instants(piece[each], reading)}
    return {}


def _is_mostly_instants(texts: pa.Array, reading: Reading) -> bool:
    present = texts.drop_null().cast(pa.binary())
    found = read_texts(present, INSTANT, nulls=reading.nulls, time_zone=reading.time_zone)
    instants = len(present) - found.values.null_count
    return bool(instants > len(present) * _INSTANTS)


def _named(files: Sequence[str | Path]) -> str:
    names = [Path(each).name for each in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _stored(table: pa.Table, name: str) -> pa.Table:
    """Give the rows with the types under which the lake keeps them; a column of nulls stays one."""
    kinds = [each for each in table.schema if not pa.types.is_null(each.type)]
    stored = storable_schema(pa.schema(kinds), name=name)
    ready = conform(table.select(stored.names), stored, name=name)
    columns = {each: ready[each] if each in stored.names else table[each] for each in table.column_names}
    return pa.table(columns)


def _keys_of_others(project: Opened, name: str) -> dict[str, pa.Table]:
    found = {}
    for other, declared in project.declarations.datasets.items():
        if other == name or len(declared.keys) != 1 or not project.lake.exists(other):
            continue
        reader = project.lake.reader(other)
        if reader.count_rows() <= _MOST_KEYS:
            found[other] = project.lake.read(other, columns=declared.keys)
    return found
