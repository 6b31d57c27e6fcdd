"""A spine sorted by entity and instant, and where the rows of a source begin and cease to count along it."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from noria.features.columns import Ints

__all__ = ["SortedSpine", "sort_together"]

_CHUNK = 1 << 17  # rows that are looked up at once
_THREADS = min(os.cpu_count() or 1, 8)
_LARGEST = 2**63 - 1


class SortedSpine:
    """Instants at which features are asked for, sorted by entity.

    Parameters
    ----------
    codes : ndarray of int64
        Each position's entity, from 0; -1 where it is missing.
    at_us : ndarray of int64
        Each position's instant.
    entities : int
        How many entities there are.

    Attributes
    ----------
    order : ndarray of int64
        Which position of the given ones is at each place.
    codes, at : ndarray of int64
        In that order.
    bounds : ndarray of int64
        Where each entity's positions begin, and the last one's end.
    """

    def __init__(self, codes: Ints, at_us: Ints, entities: int) -> None:
        self.size = len(codes)
        self.entities = entities
        self.order = sort_together(codes, at_us)
        self.codes, self.at = codes[self.order], at_us[self.order]
        self.bounds = np.searchsorted(self.codes, np.arange(entities + 1))
        self._first_us = int(self.at.min()) if self.size else 0
        self._span = (int(self.at.max()) if self.size else 0) - self._first_us + 2
        self._keys: SortedNumbers | None = None
        if (entities + 1) * self._span < _LARGEST:
            self._keys = SortedNumbers(self.codes * self._span + (self.at - self._first_us))

    def positions_at(self, codes: Ints, at_us: Ints) -> Ints:
        """Find the first position of each row's entity that is not before the row's instant.

        Where there is none, it is the position after the entity's last.
        """
        keys = self._keys
        if keys is None:
            return _in_chunks(self._searched, codes, at_us)

        def find(codes: Ints, at_us: Ints) -> Ints:
            offsets = np.clip(at_us - self._first_us, 0, self._span - 1)
            return keys.find(codes * self._span + offsets)

        return _in_chunks(find, codes, at_us)

    def _searched(self, codes: Ints, at_us: Ints) -> Ints:
        """Halve the entity's stretch of the spine until one position is left."""
        low, high = self.bounds[codes], self.bounds[codes + 1]
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) >> 1
            is_before = self.at[middle] < at_us[open_]
            low[open_] = np.where(is_before, middle + 1, low[open_])
            high[open_] = np.where(is_before, high[open_], middle)
        return low

    def positions_left(self, codes: Ints, tiles: Ints, first_tiles: Ints) -> Ints:
        """Find the first position of each row's entity whose window begins after the row's tile.

        Parameters
        ----------
        codes, tiles : ndarray of int64
            Of the rows.
        first_tiles : ndarray of int64
            The oldest tile of the window at each position of the spine; ascending within an entity.
        """
        if not self.size:
            return np.zeros(len(codes), dtype=np.int64)
        least = int(first_tiles.min())
        width = int(first_tiles.max()) - least + 1
        keys = self.codes * width + (first_tiles - least)
        sorted_keys = SortedNumbers(keys)

        def find(codes: Ints, tiles: Ints) -> Ints:
            return sorted_keys.find(codes * width + np.clip(tiles - least, -1, width - 1) + 1)

        return _in_chunks(find, codes, tiles)


class SortedNumbers:
    """Where numbers would be inserted among sorted ones, to the left of their equals.

    A table over the numbers' leading bits gives a stretch of about one, which is then halved: several times
    quicker than halving all, unless most numbers share their leading bits.
    """

    def __init__(self, numbers: Ints) -> None:
        self._numbers = numbers
        self._negative = int(np.searchsorted(numbers, 0))
        largest = max(int(numbers[-1]), 0) if len(numbers) else 0
        self._shift = max(largest.bit_length() - len(numbers).bit_length() - 1, 0)
        edges = np.arange((largest >> self._shift) + 2, dtype=np.int64)
        counts = np.bincount(numbers[self._negative :] >> self._shift, minlength=len(edges))
        self._table = self._negative + np.concatenate(([0], np.cumsum(counts)))

    def find(self, wanted: Ints) -> Ints:
        """Find the position of each of `wanted`, which are not negative."""
        slot = np.minimum(wanted >> self._shift, len(self._table) - 2)
        found, high = self._table[slot], self._table[slot + 1]
        open_ = np.flatnonzero(found < high)
        low, high, wanted = found[open_], high[open_], wanted[open_]
        while len(open_):
            middle = (low + high) >> 1
            is_before = self._numbers[middle] < wanted
            low, high = np.where(is_before, middle + 1, low), np.where(is_before, high, middle)
            ended = low >= high
            found[open_[ended]] = low[ended]
            left = ~ended
            open_, low, high, wanted = open_[left], low[left], high[left], wanted[left]
        return np.asarray(found, dtype=np.int64)


def sort_together(codes: Ints, instants: Ints) -> Ints:
    """Give the order by code and instant, in which equals come in any order."""
    if not len(codes):
        return np.empty(0, dtype=np.int64)
    first = int(instants.min())
    span = int(instants.max()) - first + 1
    if (int(codes.max()) + 2) * span >= _LARGEST:
        return np.lexsort((instants, codes))
    return np.argsort(codes * span + (instants - first))


def _in_chunks(find: Callable[[Ints, Ints], Ints], codes: Ints, values: Ints) -> Ints:
    """Let threads find a chunk at a time: it stays in the cache, and numpy lets go of the interpreter."""
    size = len(codes)
    if size <= _CHUNK or _THREADS == 1:
        return find(codes, values)
    found = np.empty(size, dtype=np.int64)

    def one(start: int) -> None:
        found[start : start + _CHUNK] = find(codes[start : start + _CHUNK], values[start : start + _CHUNK])

    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(one, range(0, size, _CHUNK)):
            pass
    return found
