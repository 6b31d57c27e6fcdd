"""From a request's columns to rows as a model reads them, and the digest that tells one row from another."""

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.serving.requests import BadRequestError, Column, InferRequest, shown

__all__ = ["Bound", "RequestColumn", "RequestPlan", "bind", "digests_of_request"]

Floats = NDArray[np.float64]
_ROW = msgspec.msgpack.Encoder()
_DIGEST_BYTES = 16
_AT_ONCE = 100_000  # numbers
_NO_COLUMN = Column("FP64", [])


@dataclass(frozen=True, slots=True)
class RequestColumn:
    """One column that a request has to bring.

    Attributes
    ----------
    is_text
        Whether it is of strings, else of numbers.
    width
        Above 1 of vectors.
    datatype
        As clients are told, of the Open Inference Protocol.
    optional
        Whether it may be left out, and is missing then.
    is_any
        Whether numbers are taken as their texts: nothing but the assignment of rows reads it.
    """

    name: str
    is_text: bool
    width: int = 1
    datatype: str = "FP64"
    optional: bool = False
    is_any: bool = False


class Bound(msgspec.Struct, frozen=True, gc=False):
    """Rows of a request by the plan they were bound by.

    Attributes
    ----------
    numbers
        float64 of shape (rows, width of the plan's numbers); NaN is missing.
    texts
        The columns of strings; None is missing.
    """

    rows: int
    numbers: Floats
    texts: Mapping[str, list[str | None]]

    def take(self, rows: Sequence[int]) -> "Bound":
        """Give some of the rows."""
        if len(rows) == self.rows:
            return self
        texts = {name: [values[row] for row in rows] for name, values in self.texts.items()}
        return Bound(len(rows), self.numbers[list(rows)], texts)


class RequestPlan:
    """What columns the requests to a target bring, and where each lies.

    Parameters
    ----------
    columns
        In the order in which the models read them.
    """

    def __init__(self, columns: Iterable[RequestColumn]) -> None:
        self.columns = tuple(columns)
        self.by_name = {each.name: each for each in self.columns}
        self.numbers = tuple(each for each in self.columns if not each.is_text)
        self.texts = tuple(each.name for each in self.columns if each.is_text)
        self.number_names = tuple(each.name for each in self.numbers)
        self.width = sum(each.width for each in self.numbers)
        self.places: dict[str, slice] = {}
        at = 0
        for each in self.numbers:
            self.places[each.name] = slice(at, at + each.width)
            at += each.width
        self.is_flat = self.width == len(self.numbers)  # no vectors
        self.has_optional = any(each.optional for each in self.columns)
        self._names = frozenset(self.by_name)
        self._digested = _Digested(
            {each.name: each.width for each in self.numbers}, self.texts, start=self.places
        )

    def fits(self, names: Iterable[str]) -> bool:
        """Whether these are the plan's columns, all of them."""
        return self._names == set(names)

    def digests(self, bound: Bound) -> list[bytes]:
        """Give the digest of each row: the same for the same values, by whatever wire they came.

        Raises
        ------
        BadRequestError
            If a text of it is no valid Unicode.
        """
        return self._digested.of(bound)

    def expected(self, name: str) -> str:
        """Say what `name` takes, for messages."""
        told = [
            f"{each.name} ({_kind(each)}{', may be left out' if each.optional else ''})"
            for each in self.columns
        ]
        return f"{shown(name)} takes {', '.join(told) or 'no columns'}"


class _Digested:
    """Digests rows by columns in the order of their names."""

    def __init__(
        self, widths: Mapping[str, int], texts: Iterable[str], *, start: Mapping[str, slice]
    ) -> None:
        self._texts = tuple(sorted(texts))
        names = sorted(widths)
        prefix = _prefix(tuple((name, widths[name]) for name in names), self._texts)
        self._begun = hashlib.blake2b(prefix, digest_size=_DIGEST_BYTES)
        order = [place for name in names for place in range(start[name].start, start[name].stop)]
        self._order: NDArray[np.intp] | None = None
        if order != sorted(order):
            self._order = np.array(order, dtype=np.intp)

    def of(self, bound: Bound) -> list[bytes]:
        numbers = bound.numbers if self._order is None else bound.numbers.take(self._order, axis=1)
        data, step = numbers.tobytes(), 8 * numbers.shape[1]
        if not self._texts:
            if bound.rows == 1:
                return [self._digest(data)]
            return [self._digest(data[at : at + step]) for at in range(0, bound.rows * step, step)]
        rows = zip(*(bound.texts[name] for name in self._texts), strict=True)
        try:
            return [
                self._digest(data[number * step : number * step + step] + _ROW.encode(row))
                for number, row in enumerate(rows)
            ]
        except UnicodeEncodeError as err:
            raise BadRequestError(
                "a text of the request cannot be kept: it holds a lone half of a surrogate pair"
            ) from err

    def _digest(self, row: bytes) -> bytes:
        digest = self._begun.copy()
        digest.update(row)
        return digest.digest()


def _prefix(numbers: tuple[tuple[str, int], ...], texts: tuple[str, ...]) -> bytes:
    return _ROW.encode((numbers, texts))


def bind(request: InferRequest, plan: RequestPlan, *, name: str) -> Bound:
    """Give a request's rows in the order of a plan.

    Parameters
    ----------
    request
        What was asked.
    plan
        What its target reads.
    name
        Of the target, for messages.

    Raises
    ------
    BadRequestError
        If a column is missing, unknown, of another kind or width.
    """
    if request.misfit:
        raise BadRequestError(request.misfit)
    columns: Mapping[str, Column] = request.columns
    if not plan.fits(columns):
        columns = _completed(request, plan, name)
    rows = request.rows
    numbers = _numbers(columns, plan, rows, name)
    if not plan.texts:
        return Bound(rows, numbers, {})
    return Bound(rows, numbers, {each: _text(columns[each], plan.by_name[each], rows) for each in plan.texts})


def digests_of_request(request: InferRequest) -> list[bytes] | None:
    """Digest rows by the columns that the request names itself, where they do not fit the target any more.

    None where it names none.
    """
    if not request.columns:
        return None
    named = request.columns.items()
    columns = [
        RequestColumn(name, is_text=each.is_text, width=1 if each.is_text else each.width)
        for name, each in named
    ]
    plan = RequestPlan(columns)
    try:
        return plan.digests(bind(msgspec.structs.replace(request, misfit=""), plan, name=""))
    except BadRequestError:
        return None


def _completed(request: InferRequest, plan: RequestPlan, name: str) -> Mapping[str, Column]:
    """Give the plan's columns by name where the request has not just them, or say what is wrong.

    A matrix of all columns goes by the name "".
    """
    if request.positional:
        return _named(request.positional, plan, name)
    columns = dict(request.columns)
    unknown = [each for each in columns if each not in plan.by_name]
    if len(columns) == 1 and unknown:  # a tensor [n, k] under a name of its own holds all columns
        column = columns[unknown[0]]
        if 1 < column.width == plan.width and not plan.texts and plan.is_flat:
            return {"": column}
        if column.width > 1:
            raise BadRequestError(
                f"input {shown(unknown[0])} has {column.width} columns; {plan.expected(name)}"
            )
    if unknown:
        raise BadRequestError(f"there is no input {shown(unknown[0])}; {plan.expected(name)}")
    for each in plan.columns:
        if each.optional and each.name not in columns:
            columns[each.name] = Column(each.datatype, [None] * request.rows * each.width, each.width)
    if missing := [each.name for each in plan.columns if each.name not in columns]:
        raise BadRequestError(f"inputs are missing: {', '.join(missing)}; {plan.expected(name)}")
    return columns


def _named(positional: Sequence[Column], plan: RequestPlan, name: str) -> Mapping[str, Column]:
    if len(positional) == 1 and 1 < positional[0].width == plan.width and plan.is_flat and not plan.texts:
        return {"": positional[0]}
    if len(positional) != len(plan.columns):
        raise BadRequestError(f"the rows have {len(positional)} columns; {plan.expected(name)}")
    return {each.name: column for each, column in zip(plan.columns, positional, strict=True)}


def _numbers(columns: Mapping[str, Column], plan: RequestPlan, rows: int, name: str) -> Floats:
    if not plan.numbers:
        return np.empty((rows, 0))
    whole = columns.get("", _NO_COLUMN) if plan.width > 1 and "" not in plan.by_name else _NO_COLUMN
    if whole is not _NO_COLUMN:
        if whole.is_text:
            raise BadRequestError(f"the rows came as {whole.datatype}; {plan.expected(name)}")
        return _floats(whole.values).reshape(rows, plan.width)
    given = [columns[each] for each in plan.number_names]
    for column, wanted in zip(given, plan.numbers, strict=True):
        if column.datatype == "BYTES" or column.width != wanted.width:
            _check_kind(column, wanted, plan, name)
    if plan.is_flat and not any(isinstance(each.values, np.ndarray) for each in given):
        if rows == 1:
            return np.array([[each.values[0] for each in given]], dtype=np.float64)  # None becomes NaN
        by_column = np.array([each.values for each in given], dtype=np.float64)
        return np.ascontiguousarray(by_column.T)
    matrix = np.empty((rows, plan.width))
    for column, each in zip(given, plan.number_names, strict=True):
        matrix[:, plan.places[each]] = _floats(column.values).reshape(rows, column.width)
    return matrix


def _floats(values: list[Any] | NDArray[Any]) -> Floats:
    if type(values) is list and len(values) <= _AT_ONCE:  # a third of what numpy takes
        packed = bytearray(8 * len(values))
        try:
            struct.pack_into(f"={len(values)}d", packed, 0, *values)
            return np.frombuffer(packed, dtype=np.float64)
        except (struct.error, OverflowError):  # a value is missing, or too large
            pass
    found = np.asarray(values, dtype=np.float64)
    if isinstance(values, np.ndarray):  # bits of a NaN that came as bytes must not tell two rows apart
        missing = np.isnan(found)
        if missing.any():
            found = np.where(missing, np.nan, found)
    return found


def _check_kind(column: Column, wanted: RequestColumn, plan: RequestPlan, name: str) -> None:
    if column.is_text and not column.is_empty:
        raise BadRequestError(
            f"input {shown(wanted.name)} came as {column.datatype}, wanted is {_kind(wanted)}"
        )
    if column.width != wanted.width:
        raise BadRequestError(
            f"input {shown(wanted.name)} has {column.width} values for a row, wanted are {wanted.width}; "
            f"{plan.expected(name)}"
        )


def _text(column: Column, wanted: RequestColumn, rows: int) -> list[str | None]:
    name = shown(wanted.name)
    if column.width != 1:
        raise BadRequestError(f"input {name} has {column.width} values for a row, wanted is one text")
    if column.is_text:
        return list(column.values)
    if column.is_empty:
        return [None] * rows
    if wanted.is_any:
        values = column.values.tolist() if isinstance(column.values, np.ndarray) else column.values
        return [None if each is None or math.isnan(each) else _plain(each) for each in values]
    raise BadRequestError(f"input {name} came as {column.datatype}, wanted is text (BYTES)")


def _plain(number: float) -> str:
    """Write a number so that 17 and 17.0 are one text."""
    return str(int(number)) if float(number).is_integer() else str(number)


def _kind(column: RequestColumn) -> str:
    if column.is_text:
        return "text (BYTES)"
    if column.width == 1:
        return "a number (such as FP64)"
    return f"{column.width} numbers a row, FP64 of shape [n, {column.width}]"
