"""Schedules: held against a plain search minute by minute, and in zones that change their clocks."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import ConfigError
from noria.triggers.cron import Schedule

START = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 3 1 * *", "2013-01-01T03:00", "2013-02-01T03:00"),
        ("0 3 1 * *", "2013-01-01T02:59", "2013-01-01T03:00"),
        ("*/15 * * * *", "2013-01-01T23:46", "2013-01-02T00:00"),
        ("0 0 29 2 *", "2013-01-01T00:00", "2016-02-29T00:00"),
        ("0 0 29 2 *", "1896-03-01T00:00", "1904-02-29T00:00"),  # 1900 was no leap year
        ("0 9 * * 1-5", "2013-01-04T09:00", "2013-01-07T09:00"),  # Friday, then Monday
        ("0 9 * * 7", "2013-01-01T00:00", "2013-01-06T09:00"),  # 7 is Sunday, as 0
        ("0 0 13 * 5", "2013-01-01T00:00", "2013-01-04T00:00"),  # a 13th or a Friday
        ("0 0 */10 * 5", "2013-01-04T00:00", "2013-01-11T00:00"),  # every tenth day or a Friday
        ("5,35 1-23/11 * * *", "2013-01-01T01:35", "2013-01-01T12:05"),
    ],
)
def test_known_schedules_come_when_they_should(cron: str, after: str, expected: str) -> None:
    found = Schedule(cron).next_after(datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def part(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    whole = st.one_of(st.just("*"), spans)
    stepped = st.tuples(whole, st.integers(1, high)).map(lambda both: f"{both[0]}/{both[1]}")
    listed = st.lists(st.one_of(number.map(str), spans), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), listed, stepped)


crons = st.tuples(part(0, 59), part(0, 23), part(1, 28), part(1, 12), part(0, 7)).map(" ".join)


def numbers(text: str, low: int, high: int) -> set[int]:
    """Read one field, in another way than the code under test."""
    found: set[int] = set()
    for piece in text.split(","):
        span, _, step = piece.partition("/")
        first, _, last = span.partition("-")
        ends = (low, high) if span == "*" else (int(first), int(last or first))
        found |= {
            n for n in range(low, high + 1) if ends[0] <= n <= ends[1] and (n - ends[0]) % int(step or 1) == 0
        }
    return found


def fits(cron: str, at: datetime) -> bool:
    minute, hour, day, month, weekday = cron.split()
    by_date = at.day in numbers(day, 1, 31)
    by_weekday = at.isoweekday() % 7 in {n % 7 for n in numbers(weekday, 0, 7)}
    either = day != "*" and weekday != "*"
    return (
        at.minute in numbers(minute, 0, 59)
        and at.hour in numbers(hour, 0, 23)
        and at.month in numbers(month, 1, 12)
        and (by_date or by_weekday if either else by_date and by_weekday)
    )


@settings(max_examples=60, deadline=None)
@given(cron=crons, start=st.integers(0, 525_600), hours=st.integers(1, 36))
def test_instants_are_those_of_a_search_by_minutes(cron: str, start: int, hours: int) -> None:
    after = START + timedelta(minutes=start, seconds=start % 60)
    until = after + timedelta(hours=hours)
    first = after.replace(second=0) + timedelta(minutes=1)
    minutes = (first + timedelta(minutes=n) for n in range(hours * 60))
    assert Schedule(cron).between(after, until) == tuple(
        at for at in minutes if at <= until and fits(cron, at)
    )


@settings(max_examples=30, deadline=None)
@given(
    cron=crons,
    zone=st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]),
    start=st.integers(0, 525_600 * 8),
)
def test_the_next_instant_is_the_first_of_those_between(cron: str, zone: str, start: int) -> None:
    schedule = Schedule(cron, tz=zone)
    after = datetime(2008, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    following = schedule.next_after(after)
    assert following > after
    assert schedule.between(after, following) == (following,)


def test_a_time_that_clocks_skip_comes_an_hour_later() -> None:
    nightly = Schedule("30 2 * * *", tz="America/New_York")
    zone = ZoneInfo("America/New_York")
    around = nightly.between(datetime(2013, 3, 9, 12, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC))
    assert [at.astimezone(zone).strftime("%d %H:%M") for at in around] == ["10 03:30", "11 02:30"]


def test_a_time_that_comes_twice_counts_once() -> None:
    nightly = Schedule("30 1 * * *", tz="America/New_York")
    around = nightly.between(datetime(2013, 11, 2, 12, tzinfo=UTC), datetime(2013, 11, 4, 12, tzinfo=UTC))
    assert [at.isoformat() for at in around] == ["2013-11-03T05:30:00+00:00", "2013-11-04T06:30:00+00:00"]


def test_a_day_that_a_zone_skipped_gives_no_instant_twice() -> None:
    daily = Schedule("0 3 * * *", tz="Pacific/Apia")  # 30 December 2011 did not exist there
    around = daily.between(datetime(2011, 12, 29, tzinfo=UTC), datetime(2012, 1, 2, tzinfo=UTC))
    days = [at.astimezone(ZoneInfo("Pacific/Apia")).date() for at in around]
    assert days == [date(2011, 12, 29), date(2011, 12, 31), date(2012, 1, 1), date(2012, 1, 2)]


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "0 3 1 *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 1 13 *",
        "0 0 * * 8",
        "0 0 30 2 *",
        "5-1 * * * *",
        "*/0 * * * *",
        "5/10 * * * *",
        "a * * * *",
        "1,,2 * * * *",
        "@daily",
        "0 0 * * MON",
        "-1 * * * *",
        "1- * * * *",
    ],
)
def test_what_is_no_schedule_is_refused(cron: str) -> None:
    with pytest.raises(ConfigError, match="schedule"):
        Schedule(cron)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="no time zone"):
        Schedule("0 3 * * *", tz="Mars/Olympus")
