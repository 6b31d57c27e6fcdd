"""The keys of one piece, held against one another and against those that came before."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from noria.checks.declarations import Rule, Severity
from noria.checks.evaluator import Evaluator
from noria.checks.hashes import is_among, sorted_hashes
from noria.checks.proofs import Columns
from noria.checks.seen import Key, SeenKeys, is_exact, keys_of, own_hashes
from noria.checks.verdicts import Flags, Hashes

__all__ = ["PieceKeys", "settle"]


class PieceKeys:
    """The keys of one `unique` in one piece; a key of which a part is missing is none.

    Parameters
    ----------
    hashes
        Those of the keys; None where a key is its own hash.
    """

    def __init__(
        self, table: pa.Table, columns: Columns, rule: Rule, hashes: Hashes | None, evaluator: Evaluator
    ) -> None:
        self.rule = rule
        self._table = table.select(list(rule.columns))
        self.exact = hashes is None or is_exact(rule.columns, table.schema)
        if hashes is None or self.exact:
            self._hashes, self._present = own_hashes(table[rule.columns[0]])
        else:
            self._hashes, self._present = hashes, columns.present(rule.columns, evaluator)
        whole = bool(self._present.all())
        self._ordered = sorted_hashes(self._hashes if whole else self._hashes[self._present])
        self.suspects: Flags = np.zeros(len(self._hashes), dtype=bool)
        self.taken: set[Key | int] = set()

    def compare(self, seen: SeenKeys) -> None:
        """Find the rows whose key may come twice, and those of their keys that came in earlier pieces."""
        again = seen.come_again(self._ordered)
        if not len(again):
            return
        self.suspects = is_among(self._hashes, again) & self._present
        found = seen.find(again)
        self.taken = set(again[seen.was_kept(again)].tolist()) if found is None else set(found)

    def named(self, rows: np.ndarray[Any, Any]) -> list[Key | int | None]:
        """Give the keys of some rows; None where there is none."""
        values: list[Any] = self._hashes[rows].tolist() if self.exact else keys_of(self._table, rows)
        present = self._present[rows].tolist()
        return [value if there else None for value, there in zip(values, present, strict=True)]

    def kept(self, lost: Flags) -> tuple[pa.Table, Hashes]:
        """Give the keys of the rows that stay, and their hashes, sorted."""
        stays = self._present & ~lost
        if stays.all():
            return self._table, self._ordered
        table = self._table if self.exact else self._table.filter(pa.array(stays))
        return table, sorted_hashes(self._hashes[stays])


def settle(keys: Mapping[int, PieceKeys], bad: Flags) -> tuple[dict[int, Flags], Flags]:
    """Go through the rows whose keys may come twice, in their order: a row that fails takes no key.

    Returns
    -------
    flags
        For each of `keys`: the rows whose key an earlier row has that was kept.
    lost
        The rows that fail anything.
    """
    flags = {place: np.zeros(len(bad), dtype=bool) for place in keys}
    lost = bad.copy()
    suspected = {place: mine for place, mine in keys.items() if mine.suspects.any()}
    if not suspected:
        return flags, lost
    rows = np.flatnonzero(np.any([mine.suspects for mine in suspected.values()], axis=0))
    named = {place: mine.named(rows) for place, mine in suspected.items()}
    for at, row in enumerate(rows.tolist()):
        for place, mine in suspected.items():
            if named[place][at] in mine.taken:
                flags[place][row] = True
                lost[row] |= mine.rule.severity is not Severity.WARN
        if not lost[row]:
            for place, mine in suspected.items():
                key = named[place][at]
                if key is not None:
                    mine.taken.add(key)
    return flags, lost
