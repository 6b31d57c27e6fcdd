"""From texts to typed columns: strictly, and with word of every value that cannot be taken over.

Arrow's own casts say what a text means; a cast that fails is tried again on halves, until the values that do
not fit are left. So a column that is right is cast once, and one wrong value in it costs a few casts more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.lake.schema import INSTANT, beyond_calendar
from noria.lake.sources.scalars import as_nested

__all__ = ["Column", "apart", "clock_reason", "halved", "infer_type", "read_texts", "salvage"]

# Raised for a value that is none of the wanted type.
UNFIT = (ValueError, TypeError, OverflowError, msgspec.DecodeError)
_NULL_TEXTS = ("NA", "N/A", "NULL", "null", "None", "\\N")  # in columns that are no text
_LEADING_ZERO = r"^[+-]?0[0-9]"
_WHOLE = r"^[+-]?[0-9]+(\.0*)?$"
_DIGITS = r"^[+-]?[0-9]{16,}$"  # an id, which a double would round
_HEX = r"^[+-]?0[xX]"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_TRUTH = r"^(?i:true|false)$"
_DAY = r"^\d{4}-\d{2}-\d{2}$"
_LOCAL = pa.timestamp("us")
# The types that `Reading.types` names.
EXPECTED = {
    "bool": pa.bool_(),
    "date32": pa.date32(),
    "double": pa.float64(),
    "instant": INSTANT,
    "int64": pa.int64(),
    "string": pa.string(),
}
_Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column in its type, and which values could not be taken over: these are null in it.

    `why` says of some of them more than that they do not fit; it goes on after the column's name.
    """

    values: pa.Array
    bad: _Mask | None = None
    why: Mapping[int, str] = field(default_factory=dict)


def read_texts(
    raw: pa.Array, kind: pa.DataType, *, nulls: Sequence[str] = (), time_zone: str | None = None
) -> Column:
    """Read a column of bytes as texts that stand for values of `kind`.

    Parameters
    ----------
    raw
        Binary; null where there is no value.
    nulls
        Further texts that stand for no value.
    time_zone
        Of instants that name no offset; without it they are bad where an instant is wanted.
    """
    texts = salvage(raw, lambda values: values.cast(pa.string()), pa.string())
    values = texts.values
    if nulls:
        values = _without(values, nulls)
    if pa.types.is_string(kind):
        return Column(values, texts.bad)
    if pa.types.is_binary(kind):
        return Column(values.cast(pa.binary()), texts.bad)
    read = _reader(kind, time_zone)
    try:
        return Column(read(values), texts.bad)
    except UNFIT:
        pass
    values = _without(pc.utf8_trim_whitespace(values), ("", *_NULL_TEXTS))
    found = salvage(values, read, kind)
    why = _clock_reasons(values, found, time_zone) if pa.types.is_timestamp(kind) and kind.tz else {}
    if texts.bad is not None:
        return Column(found.values, texts.bad if found.bad is None else texts.bad | found.bad, why)
    return Column(found.values, found.bad, why)


def infer_type(  # noqa: PLR0911 - one line per type
    raw: pa.Array, *, nulls: Sequence[str] = (), time_zone: str | None = None, expected: str | None = None
) -> pa.DataType:
    """Tell the narrowest type that all of these texts have; text where nothing else fits, or there is none.

    Numbers with leading zeros, and those with too many digits for a double, are texts: they are names.

    Parameters
    ----------
    expected
        What `Reading.types` says of the column.
    """
    if expected is not None and expected != "number":
        return EXPECTED[expected]
    texts = salvage(raw, lambda values: values.cast(pa.string()), pa.string()).values
    values = pc.utf8_trim_whitespace(_without(texts, nulls)).drop_null()
    values = _without(values, ("", *_NULL_TEXTS)).drop_null().unique()
    if expected == "number":
        values = values.filter(pc.match_substring_regex(values, _NUMBER))
        return pa.int64() if _fits(values, _reader(pa.int64(), None)) else pa.float64()
    if not len(values):
        return pa.string()
    if _all(values, _TRUTH):
        return pa.bool_()
    number = None if _any(values, _LEADING_ZERO) or _any(values, _HEX) else _number_type(values)
    if number is not None:
        return number
    if _all(values, _DAY) and _fits(values, _reader(pa.date32(), None)):
        return pa.date32()
    for kind in (INSTANT, _LOCAL):
        if _fits(values, _reader(kind, time_zone)):
            return kind
    return pa.string()


def _number_type(values: pa.Array) -> pa.DataType | None:
    if _all(values, r"^[+-]?[0-9]+$") and _fits(values, _reader(pa.int64(), None)):
        return pa.int64()
    if not _any(values, _DIGITS) and _fits(values, _reader(pa.float64(), None)):
        return pa.float64()
    return None


def _reader(kind: pa.DataType, time_zone: str | None) -> Callable[[pa.Array], pa.Array]:
    """Give what turns texts into values; it raises where one of them is none."""
    types = pa.types
    if types.is_timestamp(kind) and kind.tz is not None and time_zone is not None:
        return lambda values: _instants(values, kind, time_zone)
    if types.is_integer(kind):
        return lambda values: _whole(values, kind)
    if types.is_nested(kind):
        decode, read = msgspec.json.Decoder().decode, as_nested(kind, time_zone)
        return lambda values: pa.array(
            [None if each is None else read(decode(each)) for each in values.to_pylist()], kind
        )
    return lambda values: values.cast(kind)


def _whole(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Read whole numbers, also where another program has written them with a sign or as `5.0`."""
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        if not _all(values, _WHOLE):
            raise
    plain = pc.replace_substring_regex(values, r"^\+|\.0*$", "")
    return plain.cast(kind)


def _instants(values: pa.Array, kind: pa.DataType, time_zone: str) -> pa.Array:
    """Read instants, those without an offset as a clock in `time_zone` showed them."""
    try:
        local = values.cast(pa.timestamp(kind.unit))
    except pa.ArrowInvalid:
        return values.cast(kind)
    return pc.assume_timezone(local, time_zone, ambiguous="raise", nonexistent="raise").cast(kind)


def _clock_reasons(values: pa.Array, found: Column, time_zone: str | None) -> dict[int, str]:
    if found.bad is None or time_zone is None:
        return {}
    places = np.flatnonzero(found.bad)
    clocks = salvage(values.take(pa.array(places)), lambda texts: texts.cast(_LOCAL), _LOCAL).values
    told = {
        int(place): clock_reason(clock, time_zone)
        for place, clock in zip(places, clocks.to_pylist(), strict=True)
        if clock is not None
    }
    return {place: reason for place, reason in told.items() if reason is not None}


def clock_reason(clock: datetime, time_zone: str) -> str | None:
    """Say why what a clock showed is no instant; None if it is one."""
    zone = ZoneInfo(time_zone)
    early, late = (clock.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if early.utcoffset() == late.utcoffset():
        return None
    if early.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != clock:
        return f"is an hour that did not exist on that day in {time_zone}"
    return f"is an hour that occurs twice on that day in {time_zone}; write its offset"


def salvage(values: pa.Array, read: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> Column:
    """Read what can be read as `kind`; each distinct value is looked at once."""
    try:
        return Column(read(values))
    except UNFIT:
        pass
    encoded = values.dictionary_encode()
    distinct, wrong = halved(encoded.dictionary, read, kind)
    flags = np.zeros(len(distinct) + 1, dtype=bool)
    flags[wrong] = True
    places = pc.fill_null(encoded.indices, len(distinct)).to_numpy(zero_copy_only=False)
    return Column(distinct.take(encoded.indices), flags[places])


def halved(values: Any, read: Callable[[Any], pa.Array], kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Read a sequence, halving what cannot be read; give the places of the values that are none, too."""
    parts: list[pa.Array] = []
    wrong: list[int] = []

    def halve(begin: int, end: int) -> None:
        try:
            parts.append(read(values[begin:end]))
            return
        except UNFIT:
            pass
        if end - begin == 1:
            parts.append(pa.nulls(1, kind))
            wrong.append(begin)
            return
        middle = (begin + end) // 2
        halve(begin, middle)
        halve(middle, end)

    halve(0, len(values))
    return (pa.concat_arrays(parts) if len(parts) > 1 else parts[0]), wrong


def _without(values: pa.Array, texts: Sequence[str]) -> pa.Array:
    """Put null in the place of these texts."""
    if not texts:
        return values
    found = pc.is_in(values, value_set=pa.array(list(texts), pa.string()))
    return pc.if_else(found, pa.scalar(None, pa.string()), values)


def _fits(values: pa.Array, read: Callable[[pa.Array], pa.Array]) -> bool:
    try:
        read(values.slice(0, 64))  # what does not fit mostly shows at once
        read(values)
    except UNFIT:
        return False
    return True


def _all(values: pa.Array, pattern: str) -> bool:
    found = pc.all(pc.match_substring_regex(values, pattern)).as_py()
    return found is not False


def _any(values: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(values, pattern)).as_py())


def apart(
    names: Sequence[str], columns: Sequence[Column], places: "np.ndarray[Any, np.dtype[np.int64]]"
) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
    """Part the rows of which all values fit from the others.

    Parameters
    ----------
    places
        Of the rows, in whatever they come from.

    Returns
    -------
    tuple of RecordBatch and list
        The rows that fit; place and reasons of each that does not.
    """
    columns = [_in_calendar(each) for each in columns]
    batch = pa.RecordBatch.from_arrays([each.values for each in columns], names=list(names))
    flags = {place: each.bad for place, each in enumerate(columns) if each.bad is not None and each.bad.any()}
    if not flags:
        return batch, []
    bad = np.logical_or.reduce(list(flags.values()))
    told = {place: _misfit(names[place], columns[place].values.type) for place in flags}
    wrong = [
        (
            int(places[row]),
            "; ".join(
                f"{names[place]!r} {columns[place].why[row]}" if row in columns[place].why else told[place]
                for place, each in flags.items()
                if each[row]
            ),
        )
        for row in np.flatnonzero(bad).tolist()
    ]
    return batch.filter(pa.array(~bad)), wrong


def _in_calendar(column: Column) -> Column:
    """Take instants and days that no calendar has for values that do not fit."""
    far = beyond_calendar(column.values)
    if far is None:
        return column
    flags = np.asarray(far)
    why = {**column.why, **dict.fromkeys(np.flatnonzero(flags).tolist(), "is not in the years 1 to 9999")}
    return Column(column.values, flags if column.bad is None else column.bad | flags, why)


def _misfit(name: str, kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return f"{name!r} is no UTF-8 text"
    return f"{name!r} cannot be read as {kind}"
