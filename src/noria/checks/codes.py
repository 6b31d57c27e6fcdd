"""Columns of codes: texts of one, two or three bytes, as of currencies, countries or carriers.

Such a text is a small number, so that a table of all of them tells which ones are there: at a third of what
it costs to look texts up.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["distinct_codes"]

_LONGEST = 3  # bytes: a table of 16 MB, of which only what is looked at is ever in memory
_BLOCK = 65_536  # rows: what stays near the processor
_FIRST = 1_024  # rows in which most codes come

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Numbers = np.ndarray[Any, np.dtype[np.uint32]]


def distinct_codes(texts: pa.ChunkedArray) -> pa.StringArray | None:
    """Give the distinct texts of a column of codes, all of one length; None where it is none.

    Examples
    --------
    >>> distinct_codes(pa.chunked_array([["EUR", "USD"], ["USD", "EUR"]])).to_pylist()
    ['EUR', 'USD']
    >>> distinct_codes(pa.chunked_array([["EUR", "EURO"]])) is None
    True
    """
    chunks = [_rows_of(each) for each in texts.chunks if len(each)]
    widths = {each.shape[1] for each in chunks}
    if texts.null_count or len(widths) != 1:
        return None
    (width,) = widths
    if not 0 < width <= _LONGEST:
        return None
    there = np.zeros(1 << 8 * width, dtype=bool)
    found = []
    for numbers in _numbers(chunks):
        came = there[numbers]
        if not came.all():
            found.append(np.unique(numbers[~came]))
            there[found[-1]] = True
    codes = np.sort(np.concatenate(found))
    data = codes.astype(">u4").view(np.uint8).reshape(-1, 4)[:, -width:].tobytes()
    offsets = np.arange(0, len(data) + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(codes), pa.py_buffer(offsets), pa.py_buffer(data))


def _rows_of(texts: pa.StringArray) -> _Bytes:
    """Give the bytes of each text, in a row; without columns where texts have several lengths."""
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    width = int(places[1] - places[0])
    if not width or (places[1:] - places[:-1] != width).any():
        return np.empty((len(texts), 0), np.uint8)
    return np.frombuffer(data, np.uint8, width * len(texts), places[0]).reshape(-1, width)


def _numbers(chunks: list[_Bytes]) -> Iterator[_Numbers]:
    """Give codes as numbers that sort as they do, block by block."""
    for rows in chunks:
        for begin, end in _blocks(len(rows)):
            numbers = rows[begin:end, 0].astype(np.uint32)
            for place in range(1, rows.shape[1]):
                numbers <<= 8
                numbers |= rows[begin:end, place]
            yield numbers


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < rows:
        end = begin + (_BLOCK if begin else _FIRST)
        yield begin, end
        begin = end
