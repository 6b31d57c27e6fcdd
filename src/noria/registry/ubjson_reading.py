"""Universal Binary JSON as XGBoost writes it: plain values, and no more work than its size lets expect."""

import struct
from typing import Any

import numpy as np

__all__ = ["read_ubjson"]

_NUMBERS = {
    "i": ">i1", "U": ">u1", "I": ">i2", "u": ">u2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8",
}  # fmt: skip
_KINDS = {mark: np.dtype(kind) for mark, kind in _NUMBERS.items()}
_CONSTANTS = {"Z": None, "T": True, "F": False}
_MOST_DEPTH = 40


def read_ubjson(data: bytes) -> Any:
    """Give what UBJSON says; typed arrays of numbers as arrays of numpy.

    Raises
    ------
    ValueError
        If it is none, is cut short, deep, goes on behind its end, or says a key twice.
    """
    reader = _Reader(data)
    found = reader.value(reader.mark(), 0)
    if reader.place != len(data):
        raise ValueError(f"{len(data) - reader.place} bytes follow behind the end")
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.place + count > len(self._data):
            raise ValueError(f"it is cut short at byte {self.place}")
        self.place += count
        return self._data[self.place - count : self.place]

    def mark(self) -> str:
        return self.take(1).decode("latin-1")

    def size(self) -> int:
        mark = self.mark()
        if mark not in ("i", "U", "I", "u", "l", "L"):
            raise ValueError(f"a size of the kind {mark!r}")
        return int(self.value(mark, 0))

    def text(self) -> str:
        return self.take(self.size()).decode()

    def value(self, mark: str, depth: int) -> Any:
        if depth > _MOST_DEPTH:
            raise ValueError("it is too deep")
        if mark in _KINDS:
            kind = _NUMBERS[mark]
            width = _KINDS[mark].itemsize
            form = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "i8": "q", "f4": "f", "f8": "d"}
            return struct.unpack(f">{form[kind[1:]]}", self.take(width))[0]
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark == "S":
            return self.text()
        if mark == "C":
            return self.mark()
        if mark == "{":
            return self._mapping(depth)
        if mark == "[":
            return self._list(depth)
        raise ValueError(f"a value of the kind {mark!r} at byte {self.place}")

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._data[self.place : self.place + 1] != b"}":
            key = self.text()
            if key in found:
                raise ValueError(f"it says {key[:40]!r} twice")
            found[key] = self.value(self.mark(), depth + 1)
        self.take(1)
        return found

    def _list(self, depth: int) -> Any:
        mark = self.mark()
        if mark == "$":
            kind = _KINDS.get(self.mark())
            if kind is None or self.mark() != "#":
                raise ValueError(f"an array of an unknown kind at byte {self.place}")
            return np.frombuffer(self.take(self.size() * kind.itemsize), kind)
        if mark == "#":
            size = self.size()
            if not 0 <= size <= len(self._data):
                raise ValueError(f"a list of {size} values")
            return [self.value(self.mark(), depth + 1) for _ in range(size)]
        found = []
        while mark != "]":
            found.append(self.value(mark, depth + 1))
            mark = self.mark()
        return found
