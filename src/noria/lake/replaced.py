"""`<table>__replaced`: rows of a table that merges, as they were before others took their place.

A row of it has the table's columns, and beside them until when it was what was known. It is written before
the commit of the table that replaces it, and names that commit; it counts only where the table's log holds
it, so a kill in between, or a commit that came first, leaves nothing that is seen. The next one to write
removes what never came to count.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from noria.errors import Conflict
from noria.lake import log
from noria.lake.data_files import stem_of
from noria.lake.declarations import Dataset
from noria.lake.delta import Table
from noria.lake.evolution import evolve
from noria.lake.recording import Batch
from noria.lake.rewriting import Rewritten, without
from noria.lake.rowsql import Flags
from noria.lake.schema import INSTANT, REPLACED_AT, fill
from noria.lake.tables import Tables
from noria.records import new_id

__all__ = ["WRITER", "evolve_replaced", "keep_replaced", "replaced_name", "with_replaced"]

WRITER = "set_aside"  # in the facts of the table's commit: what names the rows that it replaced
_COMMIT, _BY = "__replaced_in", "__replaced_by"
_CHECKED = "checked"  # in the facts of a commit here: rows replaced up to this commit of the table count
_ADDED = pa.schema([(REPLACED_AT, INSTANT), (_COMMIT, pa.int64()), (_BY, pa.string())])
_ATTEMPTS = 50


def replaced_name(dataset: str) -> str:
    """Name the table of a dataset's replaced rows."""
    return f"{dataset}__replaced"


def keep_replaced(
    tables: Tables, guard: RLock, batch: Batch, rows: Iterable[pa.Table], schema: pa.Schema, *, commit: int
) -> str | None:
    """Keep rows that the commit `commit` of the table will replace; give what has to stand in its facts.

    Parameters
    ----------
    rows
        With the columns of `schema` and `REPLACED_AT`, in pieces. None at all: nothing is written.
    """
    pieces = iter(rows)
    first = next(pieces, None)
    if first is None:
        return None
    name, by = replaced_name(batch.dataset), str(new_id())
    with guard:
        table = tables.find(name) or tables.create(name, _wide(schema))
        table.widen(_wide(schema))
        writer = table.writer(stem_of(batch.number, batch.app))
        wanted = table.schema
    for piece in _with_first(first, pieces):
        marked = piece.append_column(_COMMIT, pa.array([commit] * piece.num_rows, pa.int64()))
        marked = marked.append_column(_BY, pa.array([by] * piece.num_rows, pa.string()))
        writer.write(fill(marked, wanted, name=name))
    new = writer.close()
    for _ in range(_ATTEMPTS):
        with guard:
            table, main = tables.get(name), tables.get(batch.dataset)
            seen, files, decided = table.version, table.files, main.version
            since = _checked(table)
        stale = Rewritten()
        if decided > since:
            stale = without(table, files, _NeverCounted(main, since, decided), columns=[_COMMIT, _BY])
        with guard:
            table = tables.get(name)
            if table.version == seen and table.commit(
                add=[*stale.new, *new], remove=stale.old, facts={_CHECKED: decided}, unless=lambda: True
            ):
                return by
    raise Conflict(f"{name!r}: other processes write to it all the time; ingest the batch again")


def evolve_replaced(tables: Tables, dataset: Dataset) -> None:
    """Bring the columns of the replaced rows to what their dataset declares."""
    table = tables.find(replaced_name(dataset.name))
    if table is not None:
        added = {each.name: str(each.type) for each in _ADDED}
        schema = None if dataset.schema is None else {**dataset.schema, **added}
        evolve(table, replace(dataset, schema=schema), facts={})


def with_replaced(tables: Tables, guard: RLock, table: Table, columns: Sequence[str], where: Any) -> pa.Table:
    """Give rows of a table and those that were replaced in it, with `REPLACED_AT`: null in rows that stand.

    Where nothing was ever replaced the column is left out.
    """
    rows = table.read(columns=columns, where=where)
    with guard:
        side = tables.find(replaced_name(table.name))
    if side is None:
        return rows
    there = [each for each in columns if each in side.schema.names]
    before = ds.field(_COMMIT) <= table.version
    found = side.read(
        columns=[*there, REPLACED_AT, _COMMIT, _BY], where=before if where is None else before & where
    )
    never = _NeverCounted(table, _checked(side), table.version)(found)
    found = found.filter(pa.array(~never)).drop_columns([_COMMIT, _BY])
    wanted = rows.schema.append(_ADDED.field(REPLACED_AT))
    found = fill(found, wanted, name=side.name)
    return pa.concat_tables([rows.append_column(REPLACED_AT, pa.nulls(rows.num_rows, INSTANT)), found])


class _NeverCounted:
    """Finds rows whose commit, of those after `since` up to `until`, is not the one that they name."""

    def __init__(self, table: Table, since: int, until: int) -> None:
        self._table, self._since, self._until = table, since, until
        self._known: dict[int, str | None] = {}

    def __call__(self, rows: pa.Table) -> Flags:
        import numpy as np

        commits = rows[_COMMIT].to_numpy()
        flags: Flags = np.zeros(rows.num_rows, dtype=bool)
        open_ = np.flatnonzero((commits > self._since) & (commits <= self._until))
        if len(open_):
            names = rows[_BY].take(pa.array(open_)).to_pylist()
            flags[open_] = [self._of(int(commits[at])) != by for at, by in zip(open_, names, strict=True)]
        return flags

    def _of(self, commit: int) -> str | None:
        if commit not in self._known:
            table = self._table
            made = next(log.newest_first(table.store, table.name, last=commit))
            self._known[commit] = made.facts.get(WRITER)
        return self._known[commit]


def _checked(table: Table) -> int:
    """Give up to which commit of the table its replaced rows are known to count."""
    for commit in log.newest_first(table.store, table.name, last=table.version):
        if _CHECKED in commit.facts:
            return int(commit.facts[_CHECKED])
    return -1


def _wide(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *_ADDED])


def _with_first(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others
