"""Sets of hashes that grow: 8 bytes each in memory, in sorted runs.

Runs of about one size are joined, small ones soon and large ones late, so that each hash is moved a few times
only. Where many are looked up at once, a table of bytes, one for each first few bits of a hash, tells most of
those that never came without a search, and in which runs the others may be.
"""

from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from noria.checks.verdicts import Flags, Hashes

__all__ = ["HashRuns", "is_among", "repeated", "sorted_hashes"]

_RADIX_FROM = 50_000  # fewer are sorted at once
_LARGE = 1 << 18
_JOINED = 4, 16  # so many small runs become one; so many large ones
_MARKED_FROM = 50_000  # of both sides; fewer are searched for at once
_MARKS = 8  # to a byte; runs beyond share them
_MARKS_BITS = 16, 26  # of the table of marks: at least, and at most
_MARKS_PER_KEY = 16


@dataclass(frozen=True, slots=True)
class _Run:
    hashes: Hashes
    mark: int  # the bits that it sets in the table of marks


class HashRuns:
    """A growing set of hashes."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._marks: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None
        self._bits = 0
        self._kept = 0
        self._added = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def common(self, ordered: Hashes) -> Hashes:
        """Give those of `ordered`, which is sorted, that are there: once each, sorted."""
        if min(len(ordered), self._kept) < _MARKED_FROM:
            each = [_common(run.hashes, ordered) for run in self._runs]
        else:
            marks = self._marked()[self._places(ordered)]
            perhaps = np.flatnonzero(marks != 0)
            ordered, marks = ordered[perhaps], marks[perhaps]
            each = [_common(run.hashes, ordered[(marks & run.mark) != 0]) for run in self._runs]
        found = [one for one in each if len(one)]
        return np.unique(np.concatenate(found)) if found else ordered[:0]

    def find(self, hashes: Hashes, ordered: Hashes | None = None) -> Flags:
        """Say for each hash whether it is there; `ordered` are the same hashes, sorted."""
        return is_among(hashes, self.common(sorted_hashes(hashes) if ordered is None else ordered))

    def find_any(self, other: "HashRuns") -> bool:
        """Say whether one of the hashes of `other` is there."""
        return any(len(self.common(run.hashes)) for run in other._runs)

    def add(self, ordered: Hashes) -> None:
        """Take sorted hashes in."""
        if not len(ordered):
            return
        runs = self._runs
        runs.append(_Run(ordered, 1 << self._added % _MARKS))
        self._kept += len(ordered)
        self._added += 1
        if self._marks is not None:
            self._mark(self._marks, runs[-1])
        while (many := self._alike()) > 1:
            joined = np.sort(np.concatenate([run.hashes for run in runs[-many:]]), kind="stable")
            mark = reduce(or_, (run.mark for run in runs[-many:]))
            runs[-many:] = [_Run(joined[np.concatenate([[True], joined[1:] != joined[:-1]])], mark)]

    def add_all(self, other: "HashRuns") -> None:
        """Take in the hashes of `other`."""
        for run in other._runs:
            self.add(run.hashes)

    def _alike(self) -> int:
        """Give how many of the last runs are to be one."""
        last = len(self._runs[-1].hashes)
        many = _JOINED[last >= _LARGE]
        return many if len(self._runs) >= many and len(self._runs[-many].hashes) <= 2 * last else 0

    def _marked(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Give the marks of all runs, in a table that is large enough for them."""
        least, most = _MARKS_BITS
        bits = min(max((_MARKS_PER_KEY * self._kept).bit_length(), least), most)
        if self._marks is None or bits > self._bits:
            self._bits = min(bits + 2, most)  # not again for the next
            self._marks = np.zeros(1 << self._bits, dtype=np.uint8)
            for run in self._runs:
                self._mark(self._marks, run)
        return self._marks

    def _mark(self, marks: np.ndarray[tuple[int], np.dtype[np.uint8]], run: _Run) -> None:
        places = self._places(run.hashes)
        marks[places] |= run.mark

    def _places(self, hashes: Hashes) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Give the first bits: of hashes in their order they are in order too, and near in memory."""
        return (hashes >> np.uint64(64 - self._bits)).view(np.intp)


def sorted_hashes(hashes: Hashes) -> Hashes:
    """Sort: hashes are spread evenly, so that a radix pass over their first bits leaves little to do."""
    if bool((hashes[1:] >= hashes[:-1]).all()):
        return hashes
    if len(hashes) < _RADIX_FROM:
        return np.sort(hashes)
    order = np.argsort((hashes >> np.uint64(48)).astype(np.uint16), kind="stable")
    return np.sort(hashes[order], kind="stable")


def repeated(ordered: Hashes) -> Hashes:
    """Give those hashes of a sorted array that stand there more than once, each time but the first."""
    again: Hashes = ordered[1:][ordered[1:] == ordered[:-1]]
    return again


def is_among(hashes: Hashes, ordered: Hashes) -> Flags:
    """Say of each hash whether it is one of `ordered`, which is sorted."""
    if not len(ordered):
        return np.zeros(len(hashes), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    found: Flags = ordered[place] == hashes
    return found


def _common(run: Hashes, ordered: Hashes) -> Hashes:
    """Give what two sorted arrays have in common: the fewer are looked up, in their order, which is quick."""
    if not len(run) or not len(ordered) or run[0] > ordered[-1] or run[-1] < ordered[0]:
        return ordered[:0]
    few, many = (ordered, run) if len(ordered) <= len(run) else (run, ordered)
    common: Hashes = few[is_among(few, many)]
    return common
