"""Which rows are a subject's: by a column, by a rejected row's text, by columns that carry its values on."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.checks.verdicts import row_json
from noria.errors import ConfigError
from noria.lake.rowsql import Flags

__all__ = ["Carrying", "Finder", "InColumn", "InPayload", "Orphans", "Subject", "text_of"]

_ESCAPES = ("\\", '""')  # text that has one may hold a value in another spelling
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Finder(Protocol):
    """Tells which rows are meant."""

    def columns(self, schema: pa.Schema) -> list[str]:
        """Name the columns of a file that `flags` looks at; none: the file has no such row."""
        ...

    def flags(self, rows: pa.Table) -> Flags:
        """Say of each row whether it is meant."""
        ...


class Subject:
    """Rows in which a column has one of some values."""

    def __init__(self, column: str, values: Iterable[Any]) -> None:
        self.column = column
        self.values = list(dict.fromkeys(values))
        if not self.values or any(each is None for each in self.values):
            raise ConfigError(f"forgetting by {column!r} wants at least one value, and none that is missing")
        texts = [text_of(each) for each in self.values]
        self._texts = {each for each in texts if each}
        self._tokens = sorted(self._texts | {row_json({"": each})[5:-2] for each in self._texts})

    def want_type(self, kind: pa.DataType) -> None:
        """Raise `ConfigError` if a value is not of the column's type: no row could have it."""
        for each in self.values:
            if _scalar(each, kind) is None:
                raise ConfigError(
                    f"forgetting by {self.column!r}: the column is {kind}, and {type(each).__name__} was "
                    f"given, which is no value of it; give values of type {kind}"
                )

    def in_column(self, rows: pa.Table, names: Sequence[str]) -> Flags:
        """Say which rows are the subject's, by any name that the column ever had."""
        flags = np.zeros(rows.num_rows, dtype=bool)
        for name in names:
            column = rows[name]
            flags |= np.asarray(pc.is_in(column, self._of_type(column.type)).fill_null(False))
        return flags

    def in_payload(self, rows: pa.Table, names: Sequence[str]) -> Flags:
        """Say which rejected rows are the subject's: by their column, or by their text."""
        payloads = rows["payload"]
        maybe = np.zeros(rows.num_rows, dtype=bool)
        for each in (*self._tokens, *_ESCAPES):
            maybe |= np.asarray(pc.match_substring(payloads, pattern=each).fill_null(False))
        for place in np.flatnonzero(maybe):
            maybe[place] = self._is_intext_of(payloads[int(place)].as_py(), names)
        return maybe

    def _is_intext_of(self, payload: str, names: Sequence[str]) -> bool:
        try:
            found = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict) and any(each in found for each in names):
            held = [found[each] for each in names if each in found]
            return any(each in self.values or text_of(each) in self._texts for each in held)
        return any(_holds_word(text, each) for text in _readings(payload) for each in self._texts)

    def _of_type(self, kind: pa.DataType) -> pa.Array:
        """Give the values that an older, narrower type of the column can hold too."""
        fitting = [found for each in self.values if (found := _scalar(each, kind)) is not None]
        return pa.array([each.as_py() for each in fitting], kind)


@dataclass(frozen=True, slots=True)
class InColumn:
    """A subject's rows, by any name that its column ever had."""

    subject: Subject
    names: Sequence[str]

    def columns(self, schema: pa.Schema) -> list[str]:
        """Name those of the columns that a file has."""
        return [each for each in self.names if each in schema.names]

    def flags(self, rows: pa.Table) -> Flags:
        """Say which rows are the subject's."""
        return self.subject.in_column(rows, self.columns(rows.schema))


@dataclass(frozen=True, slots=True)
class InPayload:
    """A subject's rejected rows, by their text."""

    subject: Subject
    names: Sequence[str]

    def columns(self, schema: pa.Schema) -> list[str]:
        """Name the column of the text."""
        return ["payload"] if "payload" in schema.names else []

    def flags(self, rows: pa.Table) -> Flags:
        """Say which rejected rows are the subject's."""
        return self.subject.in_payload(rows, self.names)


@dataclass(frozen=True, slots=True)
class Carrying:
    """Rows in which one of several columns has one of its values, in whatever type the column has them.

    Text is equal whatever its case and the blanks around it, and an element of a list or a struct counts as
    the row's own. A value that ends a text behind a colon is found too where `behind_colon` is true: so do
    the ids of probes name the row that they stand for.

    Parameters
    ----------
    values
        Path of a column, such as `("inputs", "courier")` -> values.
    """

    values: Mapping[tuple[str, ...], Collection[Any]]
    behind_colon: bool = False

    def columns(self, schema: pa.Schema) -> list[str]:
        """Name the columns, of those that a file has."""
        return sorted({path[0] for path in self.values if _type_at(schema, path) is not None})

    def flags(self, rows: pa.Table) -> Flags:
        """Say which rows carry a value."""
        found = np.zeros(rows.num_rows, dtype=bool)
        for path, values in self.values.items():
            if values and _type_at(rows.schema, path) is not None:
                found |= self._has(_column_at(rows, path), values)
        return found

    def _has(self, column: pa.ChunkedArray, values: Collection[Any]) -> Flags:
        kind = column.type
        if pa.types.is_nested(kind):
            texts = {_plain(text_of(each)) for each in values}
            return np.array([any(_plain(one) in texts for one in _leaves(row)) for row in column.to_pylist()])
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            plain = pc.utf8_lower(pc.utf8_trim_whitespace(column))
            texts = pa.array(sorted({_plain(text_of(each)) for each in values}), kind)
            flags: Flags = np.asarray(pc.is_in(plain, texts).fill_null(False))
            if self.behind_colon:
                last = pc.replace_substring_regex(plain, pattern=r"^.*:", replacement="")
                flags = flags | np.asarray(pc.is_in(last, texts).fill_null(False))
            return flags
        fitting = [found.as_py() for each in values if (found := _scalar_of(each, kind)) is not None]
        if not fitting:
            return np.zeros(len(column), dtype=bool)
        return np.asarray(pc.is_in(column, pa.array(fitting, kind)).fill_null(False))


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows whose identity, several columns together, is not among those that are left."""

    identity: tuple[str, ...]
    left: frozenset[tuple[Any, ...]]

    def columns(self, schema: pa.Schema) -> list[str]:
        """Name the columns of the identity, where a file has them all."""
        return list(self.identity) if set(self.identity) <= set(schema.names) else []

    def flags(self, rows: pa.Table) -> Flags:
        """Say which rows are left alone by what they speak of."""
        there = zip(*(rows[name].to_pylist() for name in self.identity), strict=True)
        return np.array([each not in self.left for each in there], dtype=bool)


def _type_at(schema: pa.Schema, path: Sequence[str]) -> pa.DataType | None:
    if path[0] not in schema.names:
        return None
    kind = schema.field(path[0]).type
    for name in path[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        kind = kind.field(kind.get_field_index(name)).type
    return kind


def _column_at(rows: pa.Table, path: Sequence[str]) -> pa.ChunkedArray:
    column = rows[path[0]]
    return column if len(path) == 1 else pc.struct_field(column, list(path[1:]))


def _leaves(value: object) -> Iterator[str]:
    """Give every value inside of a nested one as text."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif value is not None:
        yield text_of(value)


def _plain(text: str) -> str:
    return text.strip().lower()


def _scalar_of(value: object, kind: pa.DataType) -> pa.Scalar | None:
    """Give a value as one of a column that holds it in another type, such as a number that came as text."""
    found = _scalar(value, kind)
    if found is not None or not isinstance(value, str):
        return found
    try:
        return pa.scalar(value).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def text_of(value: object) -> str:
    """Give a value as the payload of a rejected row has it."""
    found = msgspec.json.decode(row_json({"": value}))[""]
    return found if isinstance(found, str) else row_json({"": found})[4:-1]


def _scalar(value: object, kind: pa.DataType) -> pa.Scalar | None:
    if isinstance(value, float) and pa.types.is_integer(kind):
        return None  # it would be cut
    try:
        return pa.scalar(value, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, OverflowError):
        return None


def _readings(payload: str) -> Iterator[str]:
    """Give raw text as it stands, and as formats read it in which characters are escaped or doubled."""
    yield payload
    if _ESCAPES[0] in payload:
        yield _unescaped(payload)
    if _ESCAPES[1] in payload:
        single = payload.replace('""', '"')
        yield single
        yield _unescaped(single)


def _unescaped(text: str) -> str:
    """Resolve what JSON escapes, and bytes that were no UTF-8, as Latin 1 has them."""
    plain = _ESCAPED.sub(_character, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2]
    return chr(int(digits, 16)) if digits else _SHORT.get(found[3], found[3])


def _holds_word(text: str, word: str) -> bool:
    place = text.find(word)
    while place >= 0:
        before, after = text[place - 1 : place], text[place + len(word) : place + len(word) + 1]
        if not (before.isalnum() or after.isalnum()):
            return True
        place = text.find(word, place + 1)
    return False
