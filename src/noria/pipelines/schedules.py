"""Instants that come again and again: five fields in a time zone, or every so often.

The fields are the part of crontab(5) that a project needs. Not offered: names of months and days, `@daily`,
`L`, `W`, `#`, seconds.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from noria.clock import format_instant, parse_duration
from noria.errors import ConfigError

__all__ = ["CatchUp", "CronSchedule", "Due", "IntervalSchedule", "Schedule", "read_anchor", "read_catch_up"]

_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),  # 0 and 7 are Sunday
)
_HORIZON = timedelta(days=366 * 8)  # 29 February comes at the latest after eight years (1896 to 1904)
_COUNTED = 10_000  # missed instants of five fields are counted so far
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CatchUp(StrEnum):
    """What becomes of instants that came while nobody looked."""

    NEWEST = "newest"  # only the newest is ticked
    ALL = "all"  # each is ticked, up to a thousand
    NONE = "none"  # they are told, and the next one counts


class Due(msgspec.Struct, frozen=True):
    """Instants of a schedule within a stretch of time: the newest of them, and how many came before.

    Parameters
    ----------
    instants
        Oldest first.
    earlier
        How many more there were.
    is_counted
        Whether `earlier` is exact; else there were at least so many.
    """

    instants: tuple[datetime, ...]
    earlier: int = 0
    is_counted: bool = True


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


class CronSchedule(msgspec.Struct, frozen=True):
    """Instants that come again and again, by five fields.

    Local times are read as RFC 5545 (3.3.5) reads them: one that clocks skip comes by the offset before the
    gap (02:30 comes at 03:30), one that comes twice comes the first time only.

    Parameters
    ----------
    cron
        Minute, hour, day of month, month, day of week: `*`, numbers, lists, ranges and steps. Where both day
        fields are given, a date that fits either fits (crontab(5)).
    tz
        The time zone that the fields speak of.
    catch_up
        What becomes of instants that came while nobody looked.

    Examples
    --------
    >>> monthly = CronSchedule("0 3 1 * *", tz="America/New_York")
    >>> monthly.next_after(datetime(2013, 3, 2, tzinfo=UTC)).isoformat()
    '2013-04-01T07:00:00+00:00'
    """

    cron: str
    tz: str = "UTC"
    catch_up: CatchUp = CatchUp.NEWEST

    def __post_init__(self) -> None:
        """Refuse fields that never come and zones that do not exist."""
        _parse(self.cron)
        _zone(self.tz)

    @property
    def text(self) -> str:
        """How people write it."""
        return self.cron

    @property
    def facts(self) -> dict[str, str]:
        """What tells it from another one."""
        return {"cron": self.cron, "tz": self.tz}

    def between(self, after: datetime, until: datetime) -> tuple[datetime, ...]:
        """List the instants later than `after` and not later than `until`, oldest first."""
        zone = _zone(self.tz)
        first = after.astimezone(zone).date() - timedelta(days=1)
        last = until.astimezone(zone).date() + timedelta(days=1)
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        return tuple(sorted({at for day in days for at in self._of_day(day) if after < at <= until}))

    def newest(self, after: datetime, until: datetime, *, most: int) -> Due:
        """Give the `most` newest of the instants between, and count the others as far as that is quick."""
        found: list[datetime] = []
        end, width = until, timedelta(days=2)
        while after < end and len(found) <= most + _COUNTED:
            start = max(after, end - width) if end - after > width else after
            found[:0] = self.between(start, end)
            end, width = start, width * 2
        earlier = max(0, len(found) - most)
        return Due(tuple(found[earlier:]), min(earlier, _COUNTED), earlier <= _COUNTED)

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


class IntervalSchedule(msgspec.Struct, frozen=True):
    """Instants a period apart, whatever local clocks do: `anchor` plus any whole number of periods.

    Parameters
    ----------
    period
        Such as `15m`.
    anchor
        One of the instants; earlier and later ones follow from it.
    tz
        The time zone that the anchor was written in; the instants do not depend on it.
    catch_up
        What becomes of instants that came while nobody looked.

    Examples
    --------
    >>> quarterly = IntervalSchedule("15m")
    >>> quarterly.next_after(datetime(2013, 3, 2, 4, 50, tzinfo=UTC)).isoformat()
    '2013-03-02T05:00:00+00:00'
    """

    period: str
    anchor: datetime = _EPOCH
    tz: str = "UTC"
    catch_up: CatchUp = CatchUp.NEWEST

    def __post_init__(self) -> None:
        """Refuse what is no period, no instant or no zone."""
        try:
            parse_duration(self.period)
        except ValueError as error:
            raise ConfigError(f"schedule 'every {self.period}': {error}") from error
        if self.anchor.tzinfo is None:
            raise ConfigError(f"schedule {self.text!r}: the anchor {self.anchor} has no time zone")
        _zone(self.tz)

    @property
    def length(self) -> timedelta:
        """The period as a length of time."""
        return parse_duration(self.period)

    @property
    def text(self) -> str:
        """How people write it."""
        told = f"every {self.period}"
        return told if self.anchor == _EPOCH else f"{told} from {format_instant(self.anchor)}"

    @property
    def facts(self) -> dict[str, str]:
        """What tells it from another one."""
        return {"every": self.period, "tz": self.tz, "anchor": format_instant(self.anchor)}

    def between(self, after: datetime, until: datetime) -> tuple[datetime, ...]:
        """List the instants later than `after` and not later than `until`, oldest first."""
        first, last, length = self._number(after) + 1, self._number(until), self.length
        return tuple(self.anchor + number * length for number in range(first, last + 1))

    def newest(self, after: datetime, until: datetime, *, most: int) -> Due:
        """Give the `most` newest of the instants between, and count the others."""
        first, last, length = self._number(after) + 1, self._number(until), self.length
        start = max(first, last - most + 1)
        found = tuple(self.anchor + number * length for number in range(start, last + 1))
        return Due(found, max(0, start - first) if found else 0)

    def next_after(self, after: datetime) -> datetime:
        """Give the first instant later than `after`."""
        return self.anchor + (self._number(after) + 1) * self.length

    def _number(self, at: datetime) -> int:
        """Count the periods from the anchor to the last instant not later than `at`; exact."""
        return (at - self.anchor) // self.length


Schedule = CronSchedule | IntervalSchedule


def read_anchor(anchor: str | datetime | None, *, tz: str) -> datetime:
    """Give the UTC instant of an anchor; one without an offset is local time in `tz`.

    Raises
    ------
    ConfigError
        If it is no instant, or there is no such zone.

    Examples
    --------
    >>> read_anchor("2013-07-01T06:00", tz="Europe/Vienna").isoformat()
    '2013-07-01T04:00:00+00:00'
    """
    zone = _zone(tz)
    if anchor is None:
        anchor = datetime(1970, 1, 1)  # local midnight
    if isinstance(anchor, str):
        try:
            anchor = datetime.fromisoformat(anchor)
        except ValueError as error:
            raise ConfigError(
                f"anchor {anchor!r} is no instant; write one such as '2024-01-01T06:00'"
            ) from error
    return (anchor.replace(tzinfo=zone) if anchor.tzinfo is None else anchor).astimezone(UTC)


def read_catch_up(policy: str) -> CatchUp:
    """Give the policy of that name. Raises `ConfigError`."""
    try:
        return CatchUp(policy)
    except ValueError as error:
        raise ConfigError(f"catch_up is {policy!r}; choose among {', '.join(CatchUp)}") from error


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"there is no time zone {name!r}; write one such as 'UTC' or 'Europe/Berlin'"
        ) from error
