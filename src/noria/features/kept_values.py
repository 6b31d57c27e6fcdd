"""Texts and vectors that an entity keeps of the rows that happened last, one per set of conditions, as bytes.

A row is its instant, its key, and texts or the bytes of float32 vectors; what is missing is None.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["LastValues", "decode_values", "encode_values", "happened_after", "vector_of"]

LastValues = tuple[int, bytes, list[Any]]  # of str, bytes and None
Vector = npt.NDArray[np.float32]

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[LastValues | None])


def encode_values(rows: list[LastValues | None]) -> bytes:
    """Encode a row per set of conditions, None where there is none.

    Examples
    --------
    >>> decode_values(encode_values([(7, b"a", ["sent", None]), None]))
    [(7, b'a', ['sent', None]), None]
    """
    return _ENCODER.encode(rows)


def decode_values(raw: Any) -> list[LastValues | None]:
    """Decode what was encoded. Raises `msgspec.DecodeError` if it is damaged."""
    return _DECODER.decode(raw)


def happened_after(row: LastValues, event_us: int, key: bytes) -> bool:
    """Tell whether the row happened after that instant, or at it with a greater key."""
    return (row[0], row[1]) > (event_us, key)


def vector_of(raw: bytes) -> Vector:
    """Give a vector of its bytes."""
    return np.frombuffer(raw, dtype="<f4")
