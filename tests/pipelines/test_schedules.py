"""Schedules: held against a plain search minute by minute, and in zones that change their clocks."""

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import ConfigError
from noria.pipelines.schedules import CronSchedule, IntervalSchedule, read_anchor
from noria.triggers.declarations import every, schedule

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
    found = CronSchedule(cron).next_after(datetime.fromisoformat(after).replace(tzinfo=UTC))
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
    assert CronSchedule(cron).between(after, until) == tuple(
        at for at in minutes if at <= until and fits(cron, at)
    )


@settings(max_examples=30, deadline=None)
@given(
    cron=crons,
    zone=st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]),
    start=st.integers(0, 525_600 * 8),
)
def test_the_next_instant_is_the_first_of_those_between(cron: str, zone: str, start: int) -> None:
    schedule = CronSchedule(cron, tz=zone)
    after = datetime(2008, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    following = schedule.next_after(after)
    assert following > after
    assert schedule.between(after, following) == (following,)


def test_a_time_that_clocks_skip_comes_an_hour_later() -> None:
    nightly = CronSchedule("30 2 * * *", tz="America/New_York")
    zone = ZoneInfo("America/New_York")
    around = nightly.between(datetime(2013, 3, 9, 12, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC))
    assert [at.astimezone(zone).strftime("%d %H:%M") for at in around] == ["10 03:30", "11 02:30"]


def test_a_time_that_comes_twice_counts_once() -> None:
    nightly = CronSchedule("30 1 * * *", tz="America/New_York")
    around = nightly.between(datetime(2013, 11, 2, 12, tzinfo=UTC), datetime(2013, 11, 4, 12, tzinfo=UTC))
    assert [at.isoformat() for at in around] == ["2013-11-03T05:30:00+00:00", "2013-11-04T06:30:00+00:00"]


def test_a_day_that_a_zone_skipped_gives_no_instant_twice() -> None:
    daily = CronSchedule("0 3 * * *", tz="Pacific/Apia")  # 30 December 2011 did not exist there
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
        CronSchedule(cron)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match="no time zone"):
        CronSchedule("0 3 * * *", tz="Mars/Olympus")


instants = st.integers(0, 2**45).map(lambda micros: START + timedelta(microseconds=micros))
periods = st.sampled_from(["1s", "7s", "15m", "1h", "1h30m", "12h", "7d"])


@settings(max_examples=60, deadline=None)
@given(period=periods, anchor=instants, after=instants, periods_later=st.integers(0, 300))
def test_intervals_are_whole_periods_from_the_anchor(
    period: str, anchor: datetime, after: datetime, periods_later: int
) -> None:
    schedule = IntervalSchedule(period, anchor=anchor)
    until = after + periods_later * schedule.length
    found = schedule.between(after, until)
    assert len(found) == periods_later
    assert all(not (at - anchor) % schedule.length and after < at <= until for at in found)
    assert list(found) == sorted(set(found))
    following = schedule.next_after(after)
    assert after < following <= after + schedule.length
    assert not found or following == found[0]


def test_an_interval_begins_at_midnight_and_no_clock_change_moves_it() -> None:
    quarters = IntervalSchedule("6h")
    around = quarters.between(datetime(2013, 3, 9, 23, tzinfo=UTC), datetime(2013, 3, 11, tzinfo=UTC))
    assert [at.hour for at in around] == [0, 6, 12, 18, 0]
    local = every("24h", tz="America/New_York", anchor="2013-03-09T03:00").schedule  # clocks go on the 10th
    days = local.between(datetime(2013, 3, 9, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC))
    told = [at.astimezone(ZoneInfo("America/New_York")).strftime("%d %H:%M") for at in days]
    assert told == ["09 03:00", "10 04:00", "11 04:00"]
    assert {later - at for at, later in itertools.pairwise(days)} == {timedelta(days=1)}


def test_an_anchor_is_read_with_its_zone() -> None:
    summer = datetime(2013, 7, 1, 4, tzinfo=UTC)
    assert read_anchor("2013-07-01T06:00", tz="Europe/Vienna") == summer
    assert read_anchor("2013-07-01T04:00Z", tz="Europe/Vienna") == summer
    assert read_anchor(datetime(2013, 7, 1, 6), tz="Europe/Vienna") == summer
    assert read_anchor(None, tz="UTC") == datetime(1970, 1, 1, tzinfo=UTC)
    assert read_anchor(None, tz="Asia/Kolkata") == datetime(1969, 12, 31, 18, 30, tzinfo=UTC)
    with pytest.raises(ConfigError, match="no instant"):
        read_anchor("tomorrow", tz="UTC")


@settings(max_examples=40, deadline=None)
@given(
    either=st.one_of(crons.map(CronSchedule), periods.map(IntervalSchedule)),
    after=instants,
    hours=st.integers(0, 200),
    most=st.integers(1, 20),
)
def test_the_newest_and_the_earlier_are_all_there_are(
    either: CronSchedule | IntervalSchedule, after: datetime, hours: int, most: int
) -> None:
    until = after + timedelta(hours=hours)
    between = either.between(after, until)
    due = either.newest(after, until, most=most)
    assert due.instants == between[-most:]
    if due.is_counted:
        assert due.earlier == len(between) - len(due.instants)
    else:
        assert due.earlier < len(between) - len(due.instants)


@pytest.mark.parametrize("made", [CronSchedule("* * * * *"), IntervalSchedule("1s")])
def test_a_clock_that_jumps_a_century_is_answered_at_once(made: CronSchedule | IntervalSchedule) -> None:
    due = made.newest(START, START.replace(year=2113), most=1_000)
    assert due.instants[-1] == START.replace(year=2113)
    assert len(due.instants) == 1_000
    assert due.earlier >= 10_000


def test_no_interval_no_policy() -> None:
    for make in (
        lambda: every("0s"),
        lambda: every("often"),
        lambda: every("15m", tz="Mars/Olympus"),
        lambda: every("15m", catch_up="some"),
        lambda: schedule("0 3 * * *", catch_up=""),
        lambda: IntervalSchedule("15m", anchor=datetime(2013, 1, 1)),
    ):
        with pytest.raises(ConfigError):
            make()
