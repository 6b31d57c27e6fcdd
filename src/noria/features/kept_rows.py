"""Rows that an entity or a tile keeps, as bytes: the first or last one per set of conditions.

A row is its instant, its key and float64 columns; `NOTHING` stands for one that was not seen yet.
"""

from collections.abc import Sequence
from typing import Any

from noria.features.online_format import LAST

__all__ = ["NOTHING", "happened_earlier", "happened_later", "kept_row", "split_rows"]

NOTHING = LAST.pack(0, -1)


def kept_row(event_us: int, key: bytes, values: bytes) -> bytes:
    """Encode a row; `values` are float64."""
    return b"".join((LAST.pack(event_us, len(key)), key, b"\0" * (-len(key) % 8), values))


def split_rows(raw: Any, widths: Sequence[int]) -> list[Any]:
    """Split what was joined into rows of so many columns each."""
    rows, at = [], 0
    for width in widths:
        _, size = LAST.unpack_from(raw, at)
        stop = at + LAST.size + (size + -size % 8 + 8 * width if size >= 0 else 0)
        rows.append(raw[at:stop])
        at = stop
    return rows


def happened_earlier(row: bytes, event_us: int, key: bytes) -> bool:
    """Tell whether the row happened before that instant, or at it with a lesser key."""
    held_us, size = LAST.unpack_from(row)
    return held_us < event_us or (held_us == event_us and row[LAST.size : LAST.size + size] < key)


def happened_later(row: bytes, event_us: int, key: bytes) -> bool:
    """Tell whether the row happened after that instant, or at it with a greater key."""
    held_us, size = LAST.unpack_from(row)
    return held_us > event_us or (held_us == event_us and row[LAST.size : LAST.size + size] > key)
