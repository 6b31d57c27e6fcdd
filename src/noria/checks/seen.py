"""Which keys of a batch have come already: 8 bytes each in memory, confirmed by value.

Hashes are kept in sorted runs, sixteen of which become one; a byte for each first few bits of a hash tells
most of those that never came without a search. The keys themselves go to a temporary file, from which
those are read back whose hash comes again: a collision of hashes rejects nothing. A key that is one whole
number, or one instant, is its own hash and needs no file.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from noria.checks.verdicts import Flags, Hashes

__all__ = ["Key", "SeenKeys", "is_exact", "keys_of", "own_hashes", "sorted_hashes"]

Key = tuple[object, ...]

_RADIX_FROM = 50_000  # fewer are sorted at once
_RUNS = 16  # of about one size; so many become one
_MARKS_BITS = 16, 26  # of the table of marks: at first, and at most
_MARKS_PER_KEY = 16


class SeenKeys:
    """The keys of the rows of one batch that were kept so far.

    Parameters
    ----------
    columns
        The key's columns.
    hash_keys
        Gives the hashes of keys that are read back; None where equal hashes are equal keys.
    """

    def __init__(self, columns: Sequence[str], hash_keys: Callable[[pa.Table], Hashes] | None) -> None:
        self._columns = list(columns)
        self._hash_keys = hash_keys
        self._tiers: list[list[Hashes]] = [[]]
        self._bits = _MARKS_BITS[0]
        self._marks = np.zeros(1 << self._bits, dtype=bool)
        self._kept = 0
        self._spill: Any = None
        self._segments: list[int] = []
        self._last: pa.Table | None = None  # a batch of one piece needs no file

    def come_again(self, ordered: Hashes) -> Hashes:
        """Give those of `ordered`, which is sorted, that were kept before, or come twice."""
        found = [ordered[1:][ordered[1:] == ordered[:-1]]]
        marked = ordered[self._marks[self._places(ordered)]]
        found += [_common(run, marked) for run in self._runs()]
        return np.unique(np.concatenate(found))

    def find(self, hashes: Hashes) -> set[Key] | None:
        """Give the kept keys of these hashes; None where the hash is the key."""
        if self._hash_keys is None:
            return None
        found: set[Key] = set()
        for keys in self._all_keys():
            rows = np.flatnonzero(is_among(self._hash_keys(keys), hashes))
            found |= set(keys_of(keys, rows))
        return found

    def was_kept(self, hashes: Hashes) -> Flags:
        """Say of each hash whether a row of it was kept before."""
        kept = np.zeros(len(hashes), dtype=bool)
        for run in self._runs():
            kept |= is_among(hashes, run)
        return kept

    def add(self, table: pa.Table, ordered: Hashes) -> None:
        """Keep the keys of `table`; `ordered` holds their hashes, sorted."""
        if not len(ordered):
            return
        self._tiers[0].append(ordered)
        for tier, runs in enumerate(self._tiers):
            if len(runs) == _RUNS:
                if tier + 1 == len(self._tiers):
                    self._tiers.append([])
                self._tiers[tier + 1].append(np.sort(np.concatenate(runs), kind="stable"))
                runs.clear()
        self._kept += len(ordered)
        self._mark(ordered)
        if self._hash_keys is not None:
            if self._last is not None:
                self._write(self._last)
            self._last = table.select(self._columns)

    def close(self) -> None:
        """Let go of the temporary file."""
        self._last = None
        if self._spill is not None:
            self._spill.close()
            self._spill = None

    def _runs(self) -> Iterator[Hashes]:
        return chain.from_iterable(self._tiers)

    def _mark(self, ordered: Hashes) -> None:
        least, most = _MARKS_BITS
        bits = min(max((_MARKS_PER_KEY * self._kept).bit_length(), least), most)
        if bits > self._bits:
            self._bits = min(bits + 2, most)  # not again for the next piece
            self._marks = np.zeros(1 << self._bits, dtype=bool)
            for run in self._runs():
                self._marks[self._places(run)] = True
        else:
            self._marks[self._places(ordered)] = True

    def _places(self, hashes: Hashes) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Give the first bits: of hashes in their order they are in order too, and near in memory."""
        return (hashes >> np.uint64(64 - self._bits)).astype(np.intp)

    def _all_keys(self) -> Iterator[pa.Table]:
        for begin in self._segments:
            self._spill.seek(begin)
            yield pa.ipc.open_stream(self._spill).read_all()
        if self._last is not None:
            yield self._last

    def _write(self, keys: pa.Table) -> None:
        if self._spill is None:
            self._spill = tempfile.TemporaryFile(prefix="noria-keys-")  # noqa: SIM115 - closed by `close`
        self._segments.append(self._spill.seek(0, 2))
        with pa.ipc.new_stream(self._spill, keys.schema) as writer:
            writer.write_table(keys)


def is_exact(columns: Sequence[str], schema: pa.Schema) -> bool:
    """Say whether a key is its own hash: one column of whole numbers or instants."""
    if len(columns) != 1:
        return False
    kind = schema.field(columns[0]).type
    return bool(pa.types.is_signed_integer(kind) or pa.types.is_timestamp(kind))


def own_hashes(column: pa.ChunkedArray) -> tuple[Hashes, Flags]:
    """Give the values of an exact key as hashes that sort as they do, and whether there is a value."""
    present = np.ones(len(column), dtype=bool)
    if column.null_count:
        present = np.asarray(column.is_valid())
        column = column.fill_null(pa.scalar(0, pa.int64()).cast(column.type))
    numbers = np.asarray(column.cast(pa.int64()))
    return numbers.view(np.uint64) ^ np.uint64(1 << 63), present


def sorted_hashes(hashes: Hashes) -> Hashes:
    """Sort: hashes are spread evenly, so that a radix pass over their first bits leaves little to do."""
    if bool((hashes[1:] >= hashes[:-1]).all()):
        return hashes
    if len(hashes) < _RADIX_FROM:
        return np.sort(hashes)
    order = np.argsort((hashes >> np.uint64(48)).astype(np.uint16), kind="stable")
    return np.sort(hashes[order], kind="stable")


def is_among(hashes: Hashes, ordered: Hashes) -> Flags:
    """Say of each hash whether it is one of `ordered`, which is sorted."""
    if not len(ordered):
        return np.zeros(len(hashes), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    found: Flags = ordered[place] == hashes
    return found


def keys_of(table: pa.Table, rows: np.ndarray[Any, Any]) -> list[Key]:
    """Give the values of some rows as keys that Python can compare."""
    taken = table.take(pa.array(rows))
    nested = [pa.types.is_nested(each.type) for each in table.schema]
    values = zip(*(column.to_pylist() for column in taken.columns), strict=True)
    if not any(nested):
        return list(values)
    return [tuple(map(_frozen, each)) for each in values]


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple((name, _frozen(each)) for name, each in value.items())
    return value


def _common(run: Hashes, ordered: Hashes) -> Hashes:
    """Give what two sorted arrays have in common; cheap where they do not overlap."""
    if not len(run) or not len(ordered) or run[0] > ordered[-1] or run[-1] < ordered[0]:
        return ordered[:0]
    few, many = (ordered, run) if len(ordered) <= len(run) else (run, ordered)
    return few[is_among(few, many)]
