"""Which keys a table or a batch has: 8 bytes each in memory, however the keys are ordered.

A hash that is found says "perhaps": whoever asks confirms it by comparing rows.
"""

from collections.abc import Sequence

import numpy as np

from noria.checks.hashes import HashRuns, is_among, repeated, sorted_hashes
from noria.lake.data_files import DataFile
from noria.lake.row_files import RowFiles
from noria.lake.rowsql import Flags, Hashes, RowSql

__all__ = ["KeyIndex", "is_repeated"]


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
            fresh.add(sorted_hashes(self._sql.hashes(rows, self.columns)))
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
    """Say for each hash whether it comes earlier in the same array; `ordered` are the same, sorted."""
    flags = np.zeros(len(hashes), dtype=bool)
    twice = repeated(ordered)
    if len(twice):
        places = np.flatnonzero(is_among(hashes, twice))
        order = places[np.argsort(hashes[places], kind="stable")]
        flags[order[1:]] = hashes[order[1:]] == hashes[order[:-1]]
    return flags
