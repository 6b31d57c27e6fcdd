"""Which keys a table has: 8 bytes each in memory, however the keys are ordered.

Hashes are kept in sorted runs that double in size, so a small batch costs little and a look-up is a few
binary searches. A hash that is found is confirmed by reading the table.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from noria.checks.engine import BatchChecker
from noria.lake.delta import DataFile, Table

__all__ = ["KeyIndex"]

_Hashes = np.ndarray[Any, np.dtype[np.uint64]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]


class KeyIndex:
    """The keys of one table; a `noria.checks.engine.TakenKeys`."""

    def __init__(self, table: Table, columns: tuple[str, ...], checker: BatchChecker) -> None:
        self._table = table
        self._columns = columns
        self._checker = checker
        self._runs: list[_Hashes] = []
        self._known: set[str] = set()

    @property
    def columns(self) -> tuple[str, ...]:
        """The key's columns."""
        return self._columns

    def find(self, table: pa.Table, hashes: _Hashes) -> _Flags:
        """Say for each row of `table` whether its key is in the lake's table."""
        self._catch_up()
        maybe = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            place = np.searchsorted(run, hashes)
            maybe |= run[np.minimum(place, len(run) - 1)] == hashes
        if maybe.any():
            self._confirm(table, maybe)
        return maybe

    def add(self, hashes: _Hashes, files: list[DataFile]) -> None:
        """Take over the keys of `files`, which were just written."""
        self._known |= {each.path for each in files}
        run = np.sort(hashes)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)

    def moved(self, old: list[DataFile], new: list[DataFile]) -> None:
        """Note that the rows of `old` are in `new` now."""
        if self._known.issuperset(each.path for each in old):
            self._known |= {each.path for each in new}

    def _catch_up(self) -> None:
        new = [each for each in self._table.files if each.path not in self._known]
        if new:
            rows = self._table.read(new, columns=self._columns)
            self.add(self._checker.hash_keys(rows, self._columns), new)

    def _confirm(self, table: pa.Table, maybe: _Flags) -> None:
        rows = np.flatnonzero(maybe)
        suspects = table.select(list(self._columns)).take(pa.array(rows))
        first = self._columns[0]
        where = pads.field(first).isin(suspects[first].combine_chunks().unique())
        found = self._table.read(columns=self._columns, where=where)
        taken = set(_tuples(found))
        maybe[rows] = [key in taken for key in _tuples(suspects)]


def _tuples(table: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
