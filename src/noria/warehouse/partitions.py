"""Partitions of time: the day, hour, month or year (UTC) that a row belongs to."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import msgspec

from noria.clock import parse_instant
from noria.errors import ConfigError

__all__ = ["Partition", "Span", "parse_partition", "parse_span", "whole_partitions"]

Unit = Literal["hour", "day", "month", "year"]
_UNITS: tuple[Unit, ...] = ("hour", "day", "month", "year")
_WRITTEN = re.compile(r"(\w+)\s*\(\s*(\"[^\"]+\"|\w+)\s*\)")
_LABELS = {"hour": "%Y%m%dT%H", "day": "%Y%m%d", "month": "%Y%m", "year": "%Y"}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """All instants from `low` to before `high`."""

    low: datetime
    high: datetime


class Partition(msgspec.Struct, frozen=True):
    """Which column of a table says to which partition a row belongs.

    Examples
    --------
    >>> str(Partition("day", "event_at"))
    'day(event_at)'
    """

    unit: Unit
    column: str

    def __str__(self) -> str:
        return f"{self.unit}({self.column})"

    def floor(self, instant: datetime) -> datetime:
        """Give the beginning of the partition that holds an instant."""
        at = instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if self.unit == "hour":
            return at
        at = at.replace(hour=0)
        if self.unit == "day":
            return at
        return at.replace(day=1) if self.unit == "month" else at.replace(month=1, day=1)

    def after(self, start: datetime) -> datetime:
        """Give the beginning of the partition after the one that begins at `start`."""
        match self.unit:
            case "hour":
                return start + timedelta(hours=1)
            case "day":
                return start + timedelta(days=1)
            case "month":
                return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
            case "year":
                return start.replace(year=start.year + 1)

    def label(self, start: datetime) -> str:
        """Name a partition by its beginning: labels sort by time."""
        return start.strftime(_LABELS[self.unit])

    def spans(self, starts: Iterable[datetime]) -> list[Span]:
        """Give what partitions cover, neighbours as one, in order.

        Examples
        --------
        >>> days = [datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]
        >>> [(each.low.day, each.high.day) for each in Partition("day", "at").spans(days)]
        [(1, 3)]
        """
        found: list[Span] = []
        for start in sorted(set(starts)):
            end = self.after(start)
            if found and found[-1].high == start:
                found[-1] = Span(found[-1].low, end)
            else:
                found.append(Span(start, end))
        return found


def parse_partition(text: str) -> Partition:
    """Read `day(event_at)`. Raises `ConfigError`."""
    written = _WRITTEN.fullmatch(text.strip())
    unit = written[1].lower() if written else ""
    for each in _UNITS:
        if written and each == unit:
            return Partition(each, written[2].strip('"'))
    raise ConfigError(f"{text!r} is no partition; write hour, day, month or year of a column: day(event_at)")


def parse_span(since: datetime | date | str | None, until: datetime | date | str | None) -> Span | None:
    """Read the bounds of a backfill: instants or days, UTC; without an end it goes on for ever.

    Raises
    ------
    ConfigError
        If one cannot be read, or nothing lies between them.
    """
    if since is None and until is None:
        return None
    low = datetime(1, 1, 1, tzinfo=UTC) if since is None else _instant(since, "since")
    high = datetime(9999, 12, 31, tzinfo=UTC) if until is None else _instant(until, "until")
    if low >= high:
        raise ConfigError(f"nothing lies from {since} to before {until}; `until` has to be later")
    return Span(low, high)


def whole_partitions(span: Span, partition: Partition) -> Span:
    """Give the span of all partitions that a span touches."""
    low = partition.floor(span.low)
    last = partition.floor(span.high - timedelta(microseconds=1))
    return Span(low, min(partition.after(last), span.high) if last.year == 9999 else partition.after(last))


def merged(spans: Sequence[Span]) -> list[Span]:
    """Give spans without overlaps, in order."""
    found: list[Span] = []
    for each in sorted(spans):
        if found and each.low <= found[-1].high:
            found[-1] = Span(found[-1].low, max(found[-1].high, each.high))
        else:
            found.append(each)
    return found


def _instant(value: datetime | date | str, what: str) -> datetime:
    if isinstance(value, str):
        try:
            return parse_instant(value)
        except ValueError as error:
            raise ConfigError(
                f"{what} is {value!r}; write a day or an instant, such as 2026-03-01 or 2026-03-01T06:00Z"
            ) from error
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        raise ConfigError(f"{what} is {value!r} without a time zone; noria speaks aware UTC only")
    return value.astimezone(UTC)


def as_literal(value: Any) -> str:
    """Write an instant as DuckDB reads it."""
    return f"TIMESTAMPTZ '{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'"
