"""One value of Python as what a column wants: strictly, so that nothing is rounded, cut or left out.

Each function gives None for None, and raises `TypeError` or `ValueError` where the value is none of its kind.
"""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

__all__ = ["as_day", "as_decimal", "as_instant", "as_local", "as_nested", "as_real", "as_whole"]


def as_instant(value: Any, time_zone: str | None) -> datetime | None:
    """Give an instant; one without an offset is what a clock in `time_zone` showed."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is no instant")
    if value.tzinfo is not None:
        return value
    if time_zone is None:
        raise ValueError(f"{value} names no offset")
    zone = ZoneInfo(time_zone)
    early, late = (value.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if early.utcoffset() != late.utcoffset():
        raise ValueError(f"{value} is twice, or never, in {time_zone}")
    return early


def as_local(value: Any) -> datetime | None:
    """Give what a clock showed."""
    if value is None or (isinstance(value, datetime) and value.tzinfo is None):
        return value
    raise TypeError(f"{value!r} is no local instant")


def as_real(value: Any) -> float | None:
    """Give a number."""
    if value is None or (isinstance(value, float | int) and not isinstance(value, bool)):
        return value
    if isinstance(value, Decimal):
        found = float(value)
        if math.isinf(found) and value.is_finite():
            raise ValueError(f"{value} is too large")
        return found
    raise TypeError(f"{value!r} is no number")


def as_whole(value: Any) -> int | None:
    """Give a whole number."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float | Decimal) and value == int(value):
        return int(value)
    raise TypeError(f"{value!r} is no whole number")


def as_decimal(value: Any) -> Decimal | int | None:
    """Give a decimal, also from a text of one; a float, which is none, is not taken."""
    if value is None or (isinstance(value, Decimal | int) and not isinstance(value, bool)):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no decimal")
    try:
        return Decimal(value.strip())
    except InvalidOperation as err:
        raise ValueError(f"{value!r} is no decimal") from err


def as_day(value: Any) -> date | None:
    """Give a day."""
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return value.date()
    raise TypeError(f"{value!r} is no day")


def as_nested(kind: pa.DataType, time_zone: str | None) -> Callable[[Any], Any]:  # noqa: PLR0911 - one per kind
    """Give what reads values as lists, objects and what these hold: Arrow drops fields, and cuts numbers."""
    types = pa.types
    if types.is_struct(kind):
        fields = {each.name: as_nested(each.type, time_zone) for each in kind}
        return lambda value: _object(value, fields)
    if types.is_list(kind) or types.is_large_list(kind):
        read = as_nested(kind.value_type, time_zone)
        return lambda value: _list(value, read)
    if types.is_integer(kind):
        return as_whole
    if types.is_floating(kind):
        return as_real
    if types.is_boolean(kind):
        return lambda value: _is_a(value, bool)
    if types.is_string(kind):
        return lambda value: _is_a(value, str)
    if types.is_decimal(kind):
        return as_decimal
    if types.is_date(kind):
        return lambda value: date.fromisoformat(value) if isinstance(value, str) else as_day(value)
    if types.is_timestamp(kind) and kind.tz is not None:
        return lambda value: _on_calendar(as_instant(_clock(value), time_zone))
    if types.is_timestamp(kind):
        return lambda value: as_local(_clock(value))
    return lambda value: value


def _object(value: Any, fields: dict[str, Callable[[Any], Any]]) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    if not value.keys() <= fields.keys():
        raise ValueError(f"it has {', '.join(sorted(map(repr, value.keys() - fields.keys())))} besides")
    return {name: read(value.get(name)) for name, read in fields.items()}


def _list(value: Any, read: Callable[[Any], Any]) -> list[Any] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is no list")
    return [read(each) for each in value]


def _is_a(value: Any, kind: type) -> Any:
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{value!r} is no {kind.__name__}")


def _on_calendar(instant: datetime | None) -> datetime | None:
    """Give an instant that is one in UTC too: raises `OverflowError` beyond the years 1 to 9999."""
    return None if instant is None else instant.astimezone(UTC)


def _clock(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
