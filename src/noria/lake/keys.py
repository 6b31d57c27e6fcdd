"""Which keys a table or a batch has: 8 bytes each in memory, however the keys are ordered.

Hashes are kept in sorted runs that double in size, so a small batch costs little and a look-up is a few
binary searches. A hash that is found says "perhaps": whoever asks confirms it by comparing rows.
"""

from collections.abc import Sequence

import numpy as np

from noria.lake.data_files import DataFile
from noria.lake.row_files import RowFiles
from noria.lake.rowsql import Flags, Hashes, RowSql

__all__ = ["HashRuns", "KeyIndex", "is_repeated"]

_JOINED = 4


class HashRuns:
    """A growing set of hashes."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def find(self, hashes: Hashes, ordered: Hashes | None = None) -> Flags:
        """Say for each hash whether it is there; `ordered` are the same hashes, sorted."""
        ordered = np.sort(hashes) if ordered is None else ordered
        common = [found for run in self._runs if len(found := _common(run, ordered))]
        if not common:
            return np.zeros(len(hashes), dtype=bool)
        return _among(hashes, np.unique(np.concatenate(common)))

    def find_any(self, other: "HashRuns") -> bool:
        """Say whether one of the hashes of `other` is there."""
        return any(len(_common(mine, run)) for run in other._runs for mine in self._runs)

    def add(self, ordered: Hashes) -> None:
        """Take sorted hashes in. Runs of about one size are joined, four at a time."""
        if not len(ordered):
            return
        self._runs.append(ordered)
        while len(self._runs) >= _JOINED and len(self._runs[-_JOINED]) <= 2 * len(self._runs[-1]):
            last = [self._runs.pop() for _ in range(_JOINED)]
            run = np.sort(np.concatenate(last), kind="stable")
            self._runs.append(run[np.concatenate([[True], run[1:] != run[:-1]])])

    def add_all(self, other: "HashRuns") -> None:
        """Take in the hashes of `other`."""
        for run in other._runs:
            self.add(run)


class KeyIndex:
    """The keys of one table. Keys that have gone from it stay: they are confirmed before they count."""

    def __init__(self, columns: tuple[str, ...], sql: RowSql) -> None:
        self.columns = columns
        self._sql = sql
        self._hashes = HashRuns()
        self._known: set[str] = set()

    def find(self, hashes: Hashes, ordered: Hashes | None = None) -> Flags:
        """Say for each hash whether a row of the table may have it."""
        return self._hashes.find(hashes, ordered)

    def find_any(self, hashes: HashRuns) -> bool:
        """Say whether a row of the table may have one of these hashes."""
        return self._hashes.find_any(hashes)

    def catch_up(self, table: RowFiles, files: Sequence[DataFile]) -> tuple[HashRuns, list[DataFile]]:
        """Read the keys of those of `files` that others have committed; give their hashes, and the files."""
        fresh = HashRuns()
        new = [each for each in files if each.path not in self._known]
        for file in new:
            rows = table.read_files([file], columns=self.columns)
            fresh.add(np.sort(self._sql.hashes(rows, self.columns)))
            self._known.add(file.path)
        self._hashes.add_all(fresh)
        return fresh, new

    def add(self, hashes: HashRuns, files: Sequence[DataFile]) -> None:
        """Take over the keys of `files`, which were just written."""
        self._known |= {each.path for each in files}
        self._hashes.add_all(hashes)

    def moved(self, old: Sequence[DataFile], new: Sequence[DataFile]) -> None:
        """Note that what is left of the rows of `old` is in `new` now."""
        if self._known.issuperset(each.path for each in old):
            self._known |= {each.path for each in new}


def is_repeated(hashes: Hashes, ordered: Hashes) -> Flags:
    """Say for each hash whether it comes earlier in the same array."""
    repeated = np.zeros(len(hashes), dtype=bool)
    if not (ordered[1:] == ordered[:-1]).any():
        return repeated
    order = np.argsort(hashes, kind="stable")
    repeated[order[1:]] = hashes[order][1:] == hashes[order][:-1]
    return repeated


def _common(run: Hashes, ordered: Hashes) -> Hashes:
    """Give what two sorted arrays have in common: the fewer are looked up, in their order, which is quick."""
    few, many = (ordered, run) if len(ordered) <= len(run) else (run, ordered)
    return few[_among(few, many)] if len(many) else few


def _among(hashes: Hashes, ordered: Hashes) -> Flags:
    place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    found: Flags = ordered[place] == hashes
    return found
