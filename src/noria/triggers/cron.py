"""Five-field schedules in a time zone: the part of crontab(5) that a project needs, and no more.

Not offered: names of months and days, `@daily`, `L`, `W`, `#`, seconds.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from noria.errors import ConfigError

__all__ = ["Schedule"]

_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),  # 0 and 7 are Sunday
)
_HORIZON = timedelta(days=366 * 8)  # 29 February comes at the latest after eight years (1896 to 1904)


def _parse_part(part: str, *, name: str, low: int, high: int, text: str) -> set[int]:
    span, slash, step_text = part.partition("/")
    first_text, dash, last_text = span.partition("-")
    numbers = [first_text] if span != "*" else []
    numbers += [last_text] if dash else []
    numbers += [step_text] if slash else []
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ConfigError(
            f"schedule {text!r}: {part!r} is no {name}; "
            "write *, a number, a range 1-5, a list 1,15 or a step */15"
        )
    first, last = (low, high) if span == "*" else (int(first_text), int(last_text or first_text))
    if slash and span != "*" and not dash:
        raise ConfigError(
            f"schedule {text!r}: the step of {part!r} needs a range, as {first}-{high}/{step_text}"
        )
    step = int(step_text) if slash else 1
    if step < 1 or not low <= first <= last <= high:
        raise ConfigError(
            f"schedule {text!r}: {part!r} is no {name}; it goes from {low} to {high}, steps from 1"
        )
    return set(range(first, last + 1, step))


class _Fields(msgspec.Struct, frozen=True):
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool  # both day fields are given: a date that fits one of them fits (crontab(5))

    def fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_weekday if self.either_day else by_date and by_weekday


@lru_cache(maxsize=64)
def _parse(text: str) -> _Fields:
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ConfigError(
            f"schedule {text!r} has {len(parts)} fields; write five: minute, hour, day of month, month, "
            "day of week, as '0 3 1 * *'"
        )
    minutes, hours, days, months, weekdays = (
        set().union(
            *(_parse_part(piece, name=name, low=low, high=high, text=text) for piece in part.split(","))
        )
        for part, (name, low, high) in zip(parts, _FIELDS, strict=True)
    )
    fields = _Fields(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day % 7 for day in weekdays),
        either_day="*" not in (parts[2], parts[4]),
    )
    start = date(2000, 1, 1)  # 2000 has a 29 February
    if not any(fields.fits(start + timedelta(days=n)) for n in range(366)):
        raise ConfigError(f"schedule {text!r} never comes: no such day in any year")
    return fields


class Schedule(msgspec.Struct, frozen=True):
    """Instants that come again and again.

    Local times are read as RFC 5545 (3.3.5) reads them: one that clocks skip comes by the offset before the
    gap (02:30 comes at 03:30), one that comes twice comes the first time only.

    Parameters
    ----------
    cron
        Minute, hour, day of month, month, day of week: `*`, numbers, lists, ranges and steps. Where both day
        fields are given, a date that fits either fits (crontab(5)).
    tz
        The time zone that the fields speak of.

    Examples
    --------
    >>> monthly = Schedule("0 3 1 * *", tz="America/New_York")
    >>> monthly.next_after(datetime(2013, 3, 2, tzinfo=UTC)).isoformat()
    '2013-04-01T07:00:00+00:00'
    """

    cron: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse fields that never come and zones that do not exist."""
        _parse(self.cron)
        _zone(self.tz)

    def between(self, after: datetime, until: datetime) -> tuple[datetime, ...]:
        """List the instants later than `after` and not later than `until`, oldest first."""
        zone = _zone(self.tz)
        first = after.astimezone(zone).date() - timedelta(days=1)
        last = until.astimezone(zone).date() + timedelta(days=1)
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        return tuple(sorted({at for day in days for at in self._of_day(day) if after < at <= until}))

    def next_after(self, after: datetime) -> datetime:
        """Give the first instant later than `after`."""
        first = after.astimezone(_zone(self.tz)).date() - timedelta(days=1)
        for n in range(_HORIZON.days + 2):
            later = [at for at in self._of_day(first + timedelta(days=n)) if at > after]
            if later:
                return min(later)
        raise ConfigError(f"schedule {self.cron!r} does not come within eight years of {after}")

    def _of_day(self, day: date) -> Iterator[datetime]:
        fields, zone = _parse(self.cron), _zone(self.tz)
        if fields.fits(day):
            for hour in fields.hours:
                for minute in fields.minutes:
                    yield datetime.combine(day, time(hour, minute), tzinfo=zone).astimezone(UTC)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"there is no time zone {name!r}; write one such as 'UTC' or 'Europe/Berlin'"
        ) from error
