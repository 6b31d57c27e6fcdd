"""Sums whose rows fade, along a spine: each position's value comes from the entity's rows alone.

So it is the same to the last bit whatever else is asked for in the same spine.
"""

import numpy as np

from noria.features.columns import Floats, Ints
from noria.features.spine import SortedSpine, sort_together

__all__ = ["Fading", "faded_between"]

_AT_ONCE = 1 << 20  # positions, or rows
_MANY = 4_096  # rows of one entity


class Fading:
    """The rows that fade along one spine, in the order in which they are added up.

    Parameters
    ----------
    rows : ndarray of int64
        Which of the rows are meant: such as begin at a position of their entity. The other arrays are of all.
    codes, start, known, event : ndarray of int64
        Their entities, not -1, the first position that is not before `known`, and two instants.
    """

    def __init__(
        self, spine: SortedSpine, rows: Ints, *, codes: Ints, start: Ints, known: Ints, event: Ints
    ) -> None:
        self._spine = spine
        self._rows = rows[sort_together(codes[rows], known[rows])]
        self._codes, self._known = codes[self._rows], known[self._rows]
        self._start, self._age = start[self._rows], self._known - event[self._rows]
        other = np.append(True, (np.diff(self._codes) != 0) | (np.diff(self._known) != 0))
        self._firsts = np.flatnonzero(other)  # of those that were known at once
        tied = np.append(~other[1:], False) | ~other
        self._tied = np.flatnonzero(tied) if len(self._firsts) < len(other) else None

    def sums(self, weights: Floats, half_life_us: float) -> Floats:
        """Give what is left at each position of what rows added at the instants at which they happened."""
        if not len(self._rows):
            return np.zeros(self._spine.size)
        spine, codes, known, start = self._spine, self._codes, self._known, self._start
        fresh = weights[self._rows] * np.exp2(-self._age / half_life_us)
        if (tied := self._tied) is not None:
            # The lesser is added first: those that were known at once come in any order.
            fresh[tied] = fresh[tied][np.lexsort((fresh[tied], known[tied], codes[tied]))]
            codes, known, start = (each[self._firsts] for each in (codes, known, start))
            fresh = np.add.reduceat(fresh, self._firsts)
        sums = _added_up(codes, known, fresh, half_life_us)
        latest = np.full(spine.size, -1, dtype=np.int64)
        latest[start] = np.arange(len(start))  # of several the last one, which is the newest
        latest = np.maximum.accumulate(latest)
        row = np.maximum(latest, 0)
        present = (latest >= 0) & (codes[row] == spine.codes)
        left = np.exp2(-np.where(present, spine.at - known[row], 0) / half_life_us)
        return np.where(present, sums[row] * left, 0.0)


def faded_between(
    total: Floats, start: Ints, end: Ints, *, since: Ints, weights: Floats, at: Ints, half_life_us: float
) -> None:
    """Add to `total` what is left of rows at each position from `start` to before `end`."""
    lengths = end - start
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    low = 0
    while low < len(lengths):
        high = max(int(np.searchsorted(bounds, bounds[low] + _AT_ONCE, side="right")) - 1, low + 1)
        rows = np.repeat(np.arange(low, high), lengths[low:high])
        places = start[rows] + np.arange(len(rows)) - (bounds[rows] - bounds[low])
        np.add.at(total, places, weights[rows] * np.exp2(-(at[places] - since[rows]) / half_life_us))
        low = high


def _added_up(codes: Ints, known: Ints, fresh: Floats, half_life_us: float) -> Floats:
    """Give what is left, at each row, of the entity's rows up to it: one after the other.

    Entities with few rows go side by side, row by row; the others on their own.
    """
    kept = np.zeros(len(codes))
    same = codes[1:] == codes[:-1]
    kept[1:][same] = np.exp2(-(np.diff(known)[same]) / half_life_us)
    begin = np.flatnonzero(np.append(True, ~same))
    counts = np.diff(np.append(begin, len(codes)))
    total = fresh.copy()
    for which in np.flatnonzero(counts > _MANY):
        stretch = slice(begin[which], begin[which] + counts[which])
        total[stretch] = _one_by_one(kept[stretch], fresh[stretch])
    few = np.flatnonzero(counts <= _MANY)
    few = few[np.argsort(-counts[few], kind="stable")]
    begin, ascending = begin[few], counts[few][::-1]
    value = fresh[begin]
    for step in range(1, int(ascending[-1]) if len(few) else 0):
        going = len(few) - int(np.searchsorted(ascending, step, side="right"))
        at = begin[:going] + step
        value = value[:going] * kept[at] + fresh[at]
        total[at] = value
    return total


def _one_by_one(kept: Floats, fresh: Floats) -> Floats:
    total, held = np.empty(len(fresh)), 0.0
    for low in range(0, len(fresh), _AT_ONCE):  # lists of all would take several times the room
        sums: list[float] = []
        here = slice(low, low + _AT_ONCE)
        for factor, added in zip(kept[here].tolist(), fresh[here].tolist(), strict=True):
            held = held * factor + added
            sums.append(held)
        total[here] = sums
    return total
