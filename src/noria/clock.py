"""Instants and durations: aware UTC only.

`at` is the project's clock (wall, or the position of a replay); `recorded_at` is always the wall.
"""

import os
import re
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = [
    "Clock",
    "ReplayClock",
    "WallClock",
    "as_utc",
    "format_instant",
    "from_micros",
    "heed_time_zones",
    "parse_duration",
    "parse_instant",
    "parse_wait",
    "to_micros",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_S = 10_000 * 366 * 86_400  # microseconds of an instant, less it, are 64 bits
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+)([smhdw])")


class Clock(Protocol):
    """Tells the project's instant."""

    def now(self) -> datetime:
        """Give the current instant, aware, UTC."""
        ...


class WallClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Give the current instant, aware, UTC."""
        return datetime.now(UTC)


class ReplayClock:
    """A clock that stands where the replay put it."""

    def __init__(self, position: datetime) -> None:
        self._position = position

    def now(self) -> datetime:
        """Give the replay's position."""
        return self._position

    def move_to(self, position: datetime) -> None:
        """Stand at `position`. Raises `ValueError` if that is earlier than now."""
        if position < self._position:
            raise ValueError(f"a replay goes forward: {position} is before {self._position}")
        self._position = position


def as_utc(instant: datetime) -> datetime:
    """Give an aware instant as UTC.

    Raises
    ------
    ValueError
        If it has no time zone, or is not in the years 1 to 9999 of UTC.

    Examples
    --------
    >>> as_utc(datetime.fromisoformat("2013-04-01T06:30+02:00")).hour
    4
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no time zone; noria speaks aware UTC only")
    try:
        return instant.astimezone(UTC)
    except OverflowError as err:
        raise ValueError(f"{instant.isoformat()} is not in the years 1 to 9999 of UTC") from err


def to_micros(instant: datetime) -> int:
    """Give microseconds since 1970 of an aware instant.

    Examples
    --------
    >>> to_micros(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone; noria speaks aware UTC only")
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Give the aware instant of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def parse_instant(text: str) -> datetime:
    """Read ISO 8601; a text without offset is UTC.

    Examples
    --------
    >>> parse_instant("2013-04-01T06:30Z").hour
    6
    """
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else as_utc(instant)


def format_instant(instant: datetime) -> str:
    """Write ISO 8601 with `Z`, microseconds only where there are any.

    Examples
    --------
    >>> format_instant(datetime(2013, 4, 1, tzinfo=UTC))
    '2013-04-01T00:00:00Z'
    """
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `7d`, `12h`, `1h30m`.

    Raises
    ------
    ValueError
        If it is none, or is not positive.

    Examples
    --------
    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    parts = _DURATION.findall(str(text))
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration; write for example '7d', '12h' or '1h30m'")
    seconds = sum(int(number) * _UNITS_S[unit] for number, unit in parts)
    if not seconds:
        raise ValueError(f"{text!r} is an empty duration; it must be positive")
    if seconds > _LONGEST_S:
        raise ValueError(f"{text!r} is longer than ten thousand years; write a shorter one")
    return timedelta(seconds=seconds)


def parse_wait(text: str) -> timedelta:
    """Read a duration that may be shorter than a second, such as `200ms`; else as `parse_duration`.

    Examples
    --------
    >>> parse_wait("200ms").total_seconds()
    0.2
    """
    number = text.removesuffix("ms")
    if number == text or not number.isdecimal():
        return parse_duration(text)
    if not int(number):
        raise ValueError(f"{text!r} is an empty duration; it must be positive")
    return timedelta(milliseconds=int(number))


def heed_time_zones() -> None:
    """Let pyarrow heed the offsets of Python's instants, whatever was imported.

    pandera sets a variable of the environment that has pyarrow drop them, as Spark wants it: an instant of
    Vienna would be taken for one of UTC. pyarrow asks for it whenever it makes an array.
    """
    os.environ.pop("PYARROW_IGNORE_TIMEZONE", None)
