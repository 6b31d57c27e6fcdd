"""Ticks: every instant once, whoever looks, however often, whatever dies and wherever the clock stands."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.pipelines.schedules import CatchUp, CronSchedule, IntervalSchedule, Schedule
from noria.pipelines.ticks import emit_ticks
from noria.records import Event

START = datetime(2024, 1, 1, tzinfo=UTC)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
HOURLY = "0 * * * *"


def open_ledger(folder: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{folder}/noria.db"), clock=ReplayClock(START))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


def arm(ledger: Ledger, at: datetime = START) -> Event:
    return ledger.append("trigger.armed", subject="t", key="trigger:t:armed", at=at)


def look(ledger: Ledger, schedule: Schedule, at: datetime) -> list[datetime]:
    return [event.at for event in emit_ticks(ledger, "t", schedule, armed=arm(ledger), at=at)]


def ticked(ledger: Ledger) -> list[datetime]:
    return [event.at for event in ledger.list_events(verb="schedule.ticked", subject="t")]


def hour(number: float) -> datetime:
    return START + timedelta(hours=number)


def missed(ledger: Ledger) -> list[int]:
    return [event.payload["missed"] for event in ledger.list_events(verb="schedule.*", subject="t")]


def test_a_tick_says_what_came_and_when(ledger: Ledger) -> None:
    schedule = CronSchedule(HOURLY, tz="Asia/Kolkata")
    (tick,) = emit_ticks(ledger, "t", schedule, armed=arm(ledger), at=hour(0.6))
    assert (tick.verb, tick.subject, tick.at) == ("schedule.ticked", "t", hour(0.5))
    assert tick.payload == {
        "cron": HOURLY,
        "tz": "Asia/Kolkata",
        "missed": 0,
        "reason": "schedule '0 * * * *' (Asia/Kolkata) came at 2024-01-01T00:30:00Z",
    }
    (tick,) = emit_ticks(ledger, "t", IntervalSchedule("45m"), armed=arm(ledger), at=hour(0.8))
    assert tick.payload == {
        "every": "45m",
        "tz": "UTC",
        "anchor": "1970-01-01T00:00:00Z",
        "missed": 0,
        "reason": "schedule 'every 45m' (UTC) came at 2024-01-01T00:45:00Z",
    }


def test_the_newest_is_ticked_and_the_others_are_counted(ledger: Ledger) -> None:
    schedule = CronSchedule(HOURLY)
    assert look(ledger, schedule, hour(0.5)) == []
    assert look(ledger, schedule, hour(5.5)) == [hour(5)]
    assert look(ledger, schedule, hour(5.9)) == []
    assert missed(ledger) == [4]
    (tick,) = ledger.list_events(verb="schedule.ticked")
    assert tick.payload["reason"].endswith("; 4 earlier instants were missed and are not made up for")


def test_all_are_ticked_where_that_is_asked_for_up_to_a_thousand(ledger: Ledger) -> None:
    schedule = CronSchedule(HOURLY, catch_up=CatchUp.ALL)
    assert look(ledger, schedule, hour(3)) == [hour(1), hour(2), hour(3)]
    found = look(ledger, schedule, hour(1_503))
    assert found == [hour(each) for each in range(504, 1_504)]
    assert missed(ledger) == [0, 0, 0, 500, *[0] * 999]


def test_none_is_made_up_for_where_that_is_asked_for(ledger: Ledger) -> None:
    schedule = CronSchedule(HOURLY, catch_up=CatchUp.NONE)
    assert look(ledger, schedule, hour(3) + timedelta(seconds=61)) == []
    (event,) = ledger.list_events(verb="schedule.*")
    assert (event.verb, event.at, event.payload["missed"]) == ("schedule.missed", hour(3), 3)
    assert "came 3 times up to 2024-01-01T03:00:00Z while nobody looked" in event.payload["reason"]
    assert look(ledger, schedule, hour(3.9)) == []
    assert look(ledger, schedule, hour(4) + timedelta(seconds=60)) == [hour(4)]
    assert missed(ledger) == [3, 0]


def test_a_minute_of_seconds_is_one_tick_of_a_schedule_that_catches_nothing_up(ledger: Ledger) -> None:
    schedule = IntervalSchedule("1s", catch_up=CatchUp.NONE)
    assert look(ledger, schedule, hour(1)) == [hour(1)]
    assert missed(ledger) == [3_599]


def test_a_clock_that_goes_back_doubles_nothing_and_misses_nothing(ledger: Ledger) -> None:
    schedule = CronSchedule(HOURLY)
    assert look(ledger, schedule, hour(1)) == [hour(1)]
    assert look(ledger, schedule, hour(4.5)) == [hour(4)]  # too early: it is still half past one
    assert look(ledger, schedule, hour(1.5)) == []
    assert [look(ledger, schedule, hour(each)) for each in (2, 3, 4, 5)] == [
        [hour(2)],
        [hour(3)],
        [],
        [hour(5)],
    ]
    assert missed(ledger)[-1] == 0


@pytest.mark.parametrize("policy", list(CatchUp))
def test_a_clock_that_was_far_ahead_stops_nothing(ledger: Ledger, policy: CatchUp) -> None:
    schedule = CronSchedule(HOURLY, catch_up=policy)
    assert look(ledger, schedule, hour(1)) == [hour(1)]
    look(ledger, schedule, FAR)
    assert [look(ledger, schedule, hour(each)) for each in (1.5, 2, 3)] == [[], [hour(2)], [hour(3)]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policy=st.sampled_from(list(CatchUp)),
    steps=st.lists(st.integers(-400, 900), min_size=1, max_size=40),
    minutes=st.sampled_from([7, 15, 60]),
)
def test_no_walk_of_the_clock_doubles_an_instant_or_passes_one_over(
    tmp_path_factory: pytest.TempPathFactory, policy: CatchUp, steps: list[int], minutes: int
) -> None:
    """What was due when somebody looked is ticked or told, once; and nothing else is."""
    ledger = open_ledger(tmp_path_factory.mktemp("ledger"))
    schedule = IntervalSchedule(f"{minutes}m", catch_up=policy)
    now = START
    settled: set[datetime] = set()
    for step in steps:
        now = max(START, now + timedelta(minutes=step))
        before = max((at for at in settled if at <= now), default=START)
        due = schedule.between(before, now)
        found = look(ledger, schedule, now)
        if policy is CatchUp.ALL:
            assert found == list(due)
        elif policy is CatchUp.NEWEST:
            assert found == list(due[-1:])
        else:
            assert found == [at for at in due[-1:] if now - at <= timedelta(seconds=60)]
        settled |= set(due[-1:]) | set(found)
    assert len(ticked(ledger)) == len(set(ticked(ledger)))
    assert all(at > START and at in schedule.between(START, at) for at in ticked(ledger))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lags=st.lists(st.integers(0, 90), min_size=4, max_size=4), policy=st.sampled_from(list(CatchUp)))
def test_several_schedulers_at_once_tick_once(
    tmp_path_factory: pytest.TempPathFactory, lags: list[int], policy: CatchUp
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    schedule = IntervalSchedule("5m", catch_up=policy)
    arm(open_ledger(folder))

    def scheduler(lag: int) -> None:
        ledger = open_ledger(folder)
        for minute in range(0, 60, 3):
            emit_ticks(
                ledger, "t", schedule, armed=arm(ledger), at=START + timedelta(minutes=minute, seconds=lag)
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(scheduler, lags))
    events = open_ledger(folder).list_events(verb="schedule.*")
    found = sorted(event.at for event in events)
    assert len(set(found)) == len(found)
    covered = len(found) + sum(
        event.payload["missed"] - (event.verb == "schedule.missed") for event in events
    )
    assert covered >= 11  # each of the eleven instants is ticked or told; one that went back may be both
    if policy is CatchUp.ALL:
        assert found == [START + timedelta(minutes=5 * each) for each in range(1, 12)]


def live(folder: Path, hours: int = 60) -> None:
    """Sixty hours by a clock that starts anew wherever the last life of this process ended."""
    ledger = open_ledger(folder)
    for number in range(hours * 4):
        for name, schedule in SCHEDULES.items():
            armed = ledger.append("trigger.armed", subject=name, key=f"trigger:{name}:armed", at=START)
            emit_ticks(ledger, name, schedule, armed=armed, at=START + timedelta(minutes=15 * number))


SCHEDULES: dict[str, Schedule] = {
    "cron": CronSchedule("10,40 * * * *"),
    "all": IntervalSchedule("4m", catch_up=CatchUp.ALL),
    "newest": IntervalSchedule("20m"),
}


def summary(folder: Path) -> Sequence[tuple[str, datetime, int]]:
    events = open_ledger(folder).list_events(verb="schedule.ticked")
    return sorted((event.subject, event.at, event.payload["missed"]) for event in events)


def test_kills_at_random_instants_and_two_at_once_lose_and_double_no_tick(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    live(tmp_path / "whole")
    rng = random.Random(5)
    for _ in range(4):
        pair = [
            subprocess.Popen([sys.executable, __file__, str(tmp_path / "killed")], env=dict(os.environ))
            for _ in range(2)
        ]
        for process in pair:
            time.sleep(rng.uniform(0.4, 0.8))
            process.kill()
            process.wait()
    live(tmp_path / "killed")
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")
    assert open_ledger(tmp_path / "killed").verify().problems == ()


if __name__ == "__main__":
    live(Path(sys.argv[1]))
