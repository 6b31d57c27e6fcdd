"""From Python's values, as JSON, workbooks and databases give them, to typed columns."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from noria.lake.schema import DEEPEST, INSTANT, depth
from noria.lake.sources.scalars import (
    as_day,
    as_decimal,
    as_instant,
    as_local,
    as_nested,
    as_real,
    as_whole,
)
from noria.lake.sources.texts import EXPECTED, UNFIT, Column, clock_reason, halved, infer_type, read_texts

__all__ = ["infer_values", "read_values"]

_LOCAL = pa.timestamp("us")
_MAX_SCALE = 18  # of 38 digits
_PLAIN = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (date, pa.date32()),
    (bytes, pa.binary()),
)
_CALLED: tuple[tuple[Any, str], ...] = (
    (bool, "true or false"),
    (int | float | Decimal, "a number"),
    (datetime, "an instant"),
    (date, "a day"),
    (list, "a list"),
    (dict, "an object"),
)


def read_values(values: Sequence[Any], kind: pa.DataType, *, time_zone: str | None = None) -> Column:
    """Read values as a column of `kind`; nothing is rounded, and a number is no text.

    Parameters
    ----------
    time_zone
        Of instants that name no offset; without it they are bad where an instant is wanted.
    """
    temporal = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if temporal and any(isinstance(each, str) for each in values):
        return _read_temporal(values, kind, time_zone)
    found, wrong = halved(values, _reader(kind, time_zone), kind)
    if not wrong:
        return Column(found)
    bad = np.zeros(len(values), dtype=bool)
    bad[wrong] = True
    told = {place: _why(values[place], kind, time_zone) for place in wrong}
    return Column(found, bad, {place: why for place, why in told.items() if why is not None})


def infer_values(  # noqa: PLR0911 - one line per type
    values: Sequence[Any], *, time_zone: str | None = None, expected: str | None = None
) -> pa.DataType:
    """Tell the type that most of these values have; text where there is none.

    Parameters
    ----------
    expected
        What `Reading.types` says of the column.
    """
    if expected == "number":
        values = [
            each for each in values if isinstance(each, int | float | Decimal) and type(each) is not bool
        ]
        if not values:
            return pa.float64()
    elif expected is not None:
        return EXPECTED[expected]
    counted = Counter(type(each) for each in values if each is not None)
    if not counted:
        return pa.string()
    if set(counted) == {int, float}:
        return pa.float64()
    kind = counted.most_common(1)[0][0]
    of_kind = [each for each in values if type(each) is kind]
    if issubclass(kind, str):
        found = infer_type(pa.array(of_kind, pa.string()).cast(pa.binary()), time_zone=time_zone)
        return found if found == INSTANT or pa.types.is_date(found) else pa.string()
    if issubclass(kind, datetime):
        return INSTANT if time_zone is not None or of_kind[0].tzinfo is not None else _LOCAL
    if issubclass(kind, Decimal):
        scale = max((-int(each.as_tuple().exponent) for each in of_kind if each.is_finite()), default=0)
        return pa.decimal128(38, min(max(scale, 0), _MAX_SCALE))
    plain = next((arrow for python, arrow in _PLAIN if issubclass(kind, python)), None)
    return plain or _nested_type(of_kind)


def _nested_type(values: Sequence[Any]) -> pa.DataType:
    """Tell the type of lists or objects: that of most of them, where they do not go together."""
    try:
        found = pa.infer_type(values)
    except UNFIT:
        counted: Counter[pa.DataType] = Counter()
        for each in values:
            with suppress(*UNFIT):
                counted[pa.infer_type([each])] += 1
        found = counted.most_common(1)[0][0] if counted else pa.string()
    return _without_nulls(found) if depth(found) <= DEEPEST else pa.string()


def _without_nulls(kind: pa.DataType) -> pa.DataType:
    """Take text for what holds nothing but nulls, or nothing."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_without_nulls(each.type)) for each in kind])
    return kind


def _reader(  # noqa: PLR0911 - one line per type
    kind: pa.DataType, time_zone: str | None
) -> Callable[[Sequence[Any]], pa.Array]:
    types = pa.types
    if types.is_timestamp(kind) and kind.tz is not None:
        return lambda values: pa.array([as_instant(each, time_zone) for each in values], kind)
    if types.is_timestamp(kind):
        return lambda values: pa.array([as_local(each) for each in values], kind)
    if types.is_floating(kind):
        return lambda values: pa.array([as_real(each) for each in values], kind)
    if types.is_integer(kind):
        return lambda values: pa.array([as_whole(each) for each in values], kind)
    if types.is_date(kind):
        return lambda values: pa.array([as_day(each) for each in values], kind)
    if types.is_decimal(kind):
        return lambda values: pa.array([as_decimal(each) for each in values], kind)
    if types.is_struct(kind) or types.is_list(kind):
        read = as_nested(kind, time_zone)
        return lambda values: pa.array([read(each) for each in values], kind)
    return lambda values: pa.array(values, kind)


def _read_temporal(values: Sequence[Any], kind: pa.DataType, time_zone: str | None) -> Column:
    """Read texts as CSV is read, and the others as they are."""
    is_text = [isinstance(each, str) for each in values]
    texts = [each if text else None for each, text in zip(values, is_text, strict=True)]
    others = [None if text else each for each, text in zip(values, is_text, strict=True)]
    one = read_texts(pa.array(texts, pa.string()).cast(pa.binary()), kind, time_zone=time_zone)
    other = read_values(others, kind, time_zone=time_zone)
    flags = [each.bad for each in (one, other) if each.bad is not None]
    bad = np.logical_or.reduce(flags) if flags else None
    read = one.values.fill_null(other.values) if any(others) else one.values
    return Column(read, bad, {**one.why, **other.why})


def _why(value: Any, kind: pa.DataType, time_zone: str | None) -> str | None:
    """Say what a value is that does not fit, without the value: reasons are counted."""
    if pa.types.is_string(kind):
        found = next((text for python, text in _CALLED if isinstance(value, python)), None)
        return None if found is None else f"is {found}, wanted a text"
    clock = isinstance(value, datetime) and value.tzinfo is None
    if clock and time_zone is not None and pa.types.is_timestamp(kind) and kind.tz is not None:
        return clock_reason(value, time_zone)
    return None
