"""Cut a stream of delimited text into blocks of whole records, without taking it apart.

A block whose quotes are all in order goes to Arrow's parser as it is. One that has a quote in the middle of a
field, or one that is never closed, is taken apart record by record; what is no record ends with its line, so
that a single wrong quote costs one line and not the rest of the file.

References
----------
RFC 4180, "Common Format and MIME Type for Comma-Separated Values (CSV) Files".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from noria.lake.sources.standing import Numbers, count_lines, line_ends

__all__ = ["Block", "Record", "Splitter"]

MAX_RECORD_BYTES = 16 << 20  # a quote that is open for longer was never meant to be
_QUOTE, _LF, _CR = 0x22, 0x0A, 0x0D
_Places = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True, slots=True)
class Record:
    """One record, or a line that is none.

    Attributes
    ----------
    fields
        None where it is none; a field is None where it is empty and was not quoted.
    begin
        Its place among the bytes of the block.
    """

    raw: bytes
    fields: tuple[bytes | None, ...] | None
    reason: str = ""
    begin: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records. `regular`: its quotes are in order, so that any parser finds the same records."""

    data: bytes
    regular: bool
    records: tuple[Record, ...] = ()  # of one that is not


class Splitter:
    """Cuts by one delimiter; quotes are doubled within quotes."""

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter.encode()

    def blocks(self, chunks: Iterator[bytes]) -> Iterator[Block]:
        """Cut `chunks` into blocks; together they hold every byte but the blank lines between."""
        rest = b""
        for chunk in chunks:
            rest += chunk
            if len(rest) == len(chunk) == 0:
                continue
            # a line feed may follow, and both are one end of a line
            held = b"\r" if rest.endswith(b"\r") else b""
            found, rest = self._cut(rest.removesuffix(held), at_end=False)
            rest += held
            if found is not None:
                yield found
        while rest:
            found, rest = self._cut(rest, at_end=True)
            if found is not None:
                yield found

    def lines(self, data: bytes) -> list[bytes]:
        """Give the records of a regular block as they are, without the ends of their lines."""
        if _QUOTE not in data:
            return [each for each in data.splitlines() if each]
        return [each.raw for each in self._scan(data, at_end=True)[0]]

    def lines_of(self, block: Block, records: int) -> Numbers | None:
        """Tell on which line of the block, from 0, each of its `records` begins; None if nothing tells."""
        data = block.data
        if not block.regular:
            begins = np.array([each.begin for each in block.records], np.int64)
            return np.searchsorted(line_ends(data), begins)
        unended = not data.endswith((b"\n", b"\r"))
        if _QUOTE not in data and count_lines(data) + unended == records:
            return np.arange(records)
        ends = line_ends(data)
        if len(ends) + unended == records and not _has_blank(data, ends):
            return np.arange(records)
        quotes = np.flatnonzero(np.frombuffer(data, np.uint8) == _QUOTE)
        closing = ends[np.searchsorted(quotes, ends) % 2 == 0]
        begins = np.concatenate(([0], closing + 1))
        until = np.append(closing, len(data))
        empty = until == begins
        if b"\r" in data:
            empty |= (until == begins + 1) & (np.frombuffer(data + b"\n", np.uint8)[begins] == _CR)
        lines = np.searchsorted(ends, begins[~empty])
        return lines if len(lines) == records else None

    def take_first(self, block: Block) -> tuple[Record | None, Block]:
        """Take the first record off a block."""
        if not block.regular:
            return block.records[0], replace(block, records=block.records[1:])
        place = len(block.data) - len(block.data.lstrip(b"\r\n"))
        match = self._record.match(block.data, place)
        assert match is not None
        raw = match[0].rstrip(b"\r\n")
        if not raw:
            return None, block
        return Record(raw, self._fields_of(raw)), replace(block, data=block.data[match.end() :])

    def _cut(self, data: bytes, *, at_end: bool) -> tuple[Block | None, bytes]:
        line_end = b"\n" if b"\n" in data else b"\r"
        regular = True
        if _QUOTE not in data:
            cut = len(data) if at_end else data.rfind(line_end) + 1
        else:
            seen = np.frombuffer(data, np.uint8)
            quotes = np.flatnonzero(seen == _QUOTE)
            cut = _last_end(data, quotes, line_end)
            if at_end and len(quotes) % 2 == 0:
                cut = len(data)
            regular = self._in_order(seen, quotes[: np.searchsorted(quotes, cut)])
        if regular and cut:
            return Block(data[:cut], True), data[cut:]
        if not at_end and regular and len(data) < MAX_RECORD_BYTES:
            return None, data  # the record is longer than what has come so far
        records, rest = self._scan(data, at_end=at_end)
        return (Block(data[: len(data) - len(rest)], False, tuple(records)) if records else None), rest

    def _in_order(self, seen: "np.ndarray[Any, np.dtype[np.uint8]]", quotes: _Places) -> bool:
        """Say whether each quote begins a field, ends one, or is one of two."""
        if len(quotes) % 2:
            return False
        ends = (self.delimiter[0], _LF, _CR, _QUOTE)
        begins, closes = quotes[0::2], quotes[1::2]
        before = seen[begins[begins > 0] - 1]
        after = seen[closes[closes < len(seen) - 1] + 1]
        return bool(np.isin(before, ends).all() and np.isin(after, ends).all())

    def _scan(self, data: bytes, *, at_end: bool) -> tuple[list[Record], bytes]:
        """Go through `data` record by record; give what is left of an unfinished one."""
        found, place = [], 0
        while place < len(data):
            complete = at_end or len(data) - place >= MAX_RECORD_BYTES
            match = self._record.match(data, place)
            if match is not None and (at_end or match[0].endswith((b"\n", b"\r"))):
                raw = match[0].rstrip(b"\r\n")
                if raw:
                    found.append(Record(raw, self._fields_of(raw), begin=place))
                place = match.end()
                continue
            is_open = self._unfinished.match(data, place) is not None
            if not complete and (match is not None or is_open):
                break
            line = self._line.match(data, place)
            assert line is not None
            if not complete and not line[0].endswith((b"\n", b"\r")):
                break
            reason = "a quote is never closed" if is_open else "its quotes do not pair"
            if match is not None:
                reason = f"a line is longer than {MAX_RECORD_BYTES >> 20} MiB"
            found.append(Record(line[0].rstrip(b"\r\n"), None, reason, place))
            place = line.end()
        return found, data[place:]

    def _fields_of(self, raw: bytes) -> tuple[bytes | None, ...]:
        fields: list[bytes | None] = []
        place = 0
        while True:
            match = self._field.match(raw, place)
            assert match is not None
            text = match[0]
            if text[:1] == b'"':
                fields.append(text[1:-1].replace(b'""', b'"'))
            else:
                fields.append(text or None)
            place = match.end() + 1
            if place > len(raw):
                return tuple(fields)

    @cached_property
    def _field(self) -> "re.Pattern[bytes]":
        return re.compile(self._field_text, re.DOTALL)

    @cached_property
    def _record(self) -> "re.Pattern[bytes]":
        between = re.escape(self.delimiter)
        return re.compile(self._field_text + b"(?:" + between + self._field_text + rb")*+(?:\r?\n|\r|\Z)")

    @cached_property
    def _unfinished(self) -> "re.Pattern[bytes]":
        between = re.escape(self.delimiter)
        return re.compile(b"(?:" + self._field_text + between + rb')*+"(?:[^"]++|"")*+\Z')

    @cached_property
    def _line(self) -> "re.Pattern[bytes]":
        return re.compile(rb"[^\r\n]*+(?:\r?\n|\r|\Z)")

    @cached_property
    def _field_text(self) -> bytes:
        between = re.escape(self.delimiter)
        return rb'(?:"(?:[^"]++|"")*+"|(?!")[^\r\n' + between + rb"]*+)"


def _last_end(data: bytes, quotes: _Places, line_end: bytes) -> int:
    """Give the place after the last end of a line that is in no quotes."""
    end = data.rfind(line_end)
    before = int(np.searchsorted(quotes, end))
    if end >= 0 and before % 2:
        end = data.rfind(line_end, 0, int(quotes[before - 1]))
    return end + 1


def _has_blank(data: bytes, ends: Numbers) -> bool:
    """Say whether a line is empty; in doubt that one is."""
    if not len(ends):
        return False
    least = 2 if b"\r" in data and data[ends[0]] == _LF else 1  # the carriage return before a line feed
    return bool(ends[0] < least or (np.diff(ends) <= least).any())
