"""Where rows stand in what they came from, as people find them: the line that an editor shows.

Rows are given in another order than they stand in: of each block first those that could be read, then the
others. Neighbours that stay neighbours are kept as one run, so that ten million lines in order cost nothing.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

__all__ = ["Numbers", "Standing", "count_lines", "line_ends"]

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_MOST_RUNS = 1_000_000  # of a file that has more, the rest goes without


class Standing:
    """The lines of one source, noted as its rows are given.

    Examples
    --------
    >>> standing = Standing("line")
    >>> standing.give(np.array([2, 3, 5]))
    >>> standing.give(np.array([4]))  # what could not be read
    >>> [standing.find(place) for place in range(5)]
    ['line 2', 'line 3', 'line 5', 'line 4', None]
    """

    def __init__(self, unit: Literal["line", "row"]) -> None:
        self.unit = unit
        self._given = 0
        self._begins = array("q")  # of the runs, among what was given
        self._stands = array("q")
        self._known = 0  # how many of what was given have a line

    def give(self, numbers: Numbers | None, *, rows: int | None = None) -> None:
        """Note the lines, from 1, of what is given next; None where they cannot be told, of so many rows."""
        count = rows or 0 if numbers is None else len(numbers)
        at, self._given = self._given, self._given + count
        if numbers is None or not count or self._known != at:
            return
        starts = np.concatenate(([0], np.flatnonzero(np.diff(numbers) != 1) + 1))
        if len(self._begins) and int(numbers[0]) - self._stands[-1] == at - self._begins[-1]:
            starts = starts[1:]
        if len(self._begins) + len(starts) > _MOST_RUNS:
            return
        self._known = self._given
        self._begins.extend((starts + at).tolist())
        self._stands.extend(numbers[starts].tolist())

    def give_parted(self, numbers: Numbers, wrong: Sequence[int]) -> None:
        """Note the lines of rows, and then of those among them that are `wrong`."""
        self.give(np.delete(numbers, wrong) if len(wrong) else numbers)
        self.give(numbers[list(wrong)])

    def find(self, place: int) -> str | None:
        """Say where what was given at `place`, from 0, stands; None if that is not known."""
        if not 0 <= place < self._known:
            return None
        run = bisect_right(self._begins, place) - 1
        return f"{self.unit} {self._stands[run] + place - self._begins[run]}"


def count_lines(data: bytes) -> int:
    """Count the ends of lines, as `line_ends` finds them."""
    seen = np.frombuffer(data, np.uint8)  # much quicker than to count in bytes
    return int(np.count_nonzero(seen == 0x0A)) or (data.count(b"\r") if b"\r" in data else 0)


def line_ends(data: bytes) -> Numbers:
    """Give the places of the bytes that end lines: line feeds, or carriage returns where there is none."""
    seen = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(seen == 0x0A)
    return ends if len(ends) else np.flatnonzero(seen == 0x0D)
