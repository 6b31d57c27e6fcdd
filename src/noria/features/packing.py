"""Bytes of many rows at once, put together without a Python object each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.features.online_format import LAST

__all__ = ["EMPTY", "KeyedBytes", "joined", "kept_rows", "lengths", "packed", "sliced", "spread"]

_HEAD = np.dtype([("event_us", "<i8"), ("key_bytes", "<i8")])
assert _HEAD.itemsize == LAST.size
_AT_ONCE = 1 << 14
EMPTY = pa.scalar(b"", pa.large_binary())
_PADS = pa.array([bytes(size) for size in range(8)], pa.large_binary())


@dataclass(frozen=True, slots=True)
class KeyedBytes:
    """Keys and values, made a portion at a time: what one iteration leaves behind is no object."""

    keys: list[bytes]
    values: pa.Array

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(self.keys), _AT_ONCE):
            stop = start + _AT_ONCE
            yield from zip(self.keys[start:stop], self.values[start:stop].to_pylist(), strict=True)


def packed(records: npt.NDArray[Any]) -> pa.Array:
    r"""Give the bytes of each record, or of each row of an array.

    Examples
    --------
    >>> packed(np.array([[1, 2], [3, 4]], dtype=np.int8)).to_pylist()
    [b'\x01\x02', b'\x03\x04']
    """
    size = len(records)
    width = records.dtype.itemsize * int(np.prod(records.shape[1:]))
    return sliced(records, np.arange(size + 1, dtype=np.int64) * width)


def sliced(data: npt.NDArray[Any], bounds: npt.NDArray[np.int64]) -> pa.Array:
    r"""Cut the bytes of an array at `bounds`, which are one more than the pieces.

    Examples
    --------
    >>> sliced(np.array([1, 2, 3], dtype=np.int8), np.array([0, 1, 1, 3])).to_pylist()
    [b'\x01', b'', b'\x02\x03']
    """
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    buffers = [None, *map(pa.py_buffer, (np.ascontiguousarray(bounds, dtype=np.int64), raw))]
    return pa.Array.from_buffers(pa.large_binary(), len(bounds) - 1, buffers)


def joined(*parts: pa.Array) -> pa.Array:
    """Join the bytes at each place."""
    return pc.binary_join_element_wise(*parts, EMPTY) if len(parts) > 1 else parts[0]


def lengths(parts: pa.Array) -> npt.NDArray[np.int64]:
    """Tell how long the bytes at each place are."""
    return np.asarray(pc.binary_length(parts), dtype=np.int64)


def kept_rows(
    event_us: npt.NDArray[np.int64], keys: list[bytes], values: npt.NDArray[np.float64]
) -> pa.Array:
    """Encode rows as `noria.features.kept_rows.kept_row` does each."""
    key = pa.array(keys, pa.large_binary())
    heads = np.empty(len(key), dtype=_HEAD)
    heads["event_us"], heads["key_bytes"] = event_us, lengths(key)
    pads = _PADS.take(pa.array(-heads["key_bytes"] % 8))
    return joined(packed(heads), key, pads, packed(values))


def spread(parts: pa.Array, places: npt.NDArray[np.int64], size: int, *, empty: bytes) -> pa.Array:
    """Put each of `parts` at its place among `size`, and `empty` at the others.

    Examples
    --------
    >>> spread(pa.array([b"a", b"b"], pa.large_binary()), np.array([2, 0]), 3, empty=b"-").to_pylist()
    [b'b', b'-', b'a']
    """
    if len(places) == size and (places[1:] > places[:-1]).all():
        return parts
    at = np.full(size, -1, dtype=np.int64)
    at[places] = np.arange(len(places))
    return parts.take(pa.array(at, mask=at < 0)).fill_null(pa.scalar(empty, pa.large_binary()))
