"""Which keys of a batch have come already: 8 bytes each in memory, confirmed by value.

The keys themselves go to a temporary file, from which those are read back whose hash comes again: a collision
of hashes rejects nothing. A key that is one whole number, or one instant, is its own hash and needs no file.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from noria.checks.hashes import HashRuns, is_among, repeated
from noria.checks.verdicts import Flags, Hashes

__all__ = ["Key", "SeenKeys", "is_exact", "keys_of", "own_hashes"]

Key = tuple[object, ...]


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
        self._hashes = HashRuns()
        self._spill: Any = None
        self._segments: list[int] = []
        self._last: pa.Table | None = None  # a batch of one piece needs no file

    def come_again(self, ordered: Hashes) -> Hashes:
        """Give those of `ordered`, which is sorted, that were kept before, or come twice."""
        return np.unique(np.concatenate([repeated(ordered), self._hashes.common(ordered)]))

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
        return self._hashes.find(hashes)

    def add(self, table: pa.Table, ordered: Hashes) -> None:
        """Keep the keys of `table`; `ordered` holds their hashes, sorted."""
        if not len(ordered):
            return
        self._hashes.add(ordered)
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
