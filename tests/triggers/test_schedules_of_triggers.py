"""Triggers by schedules: which instants they decide about, since when, and what limits them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.errors import ConfigError
from noria.ledger.store import Ledger
from noria.monitoring.declarations import Monitor
from noria.pipelines.declarations import pipeline
from noria.pipelines.ticks import emit_ticks
from noria.triggers.declarations import Budget, Trigger, decay, every, schedule
from noria.triggers.reconcile import Choice, list_decisions, reconcile

START = datetime(2024, 1, 1, tzinfo=UTC)
MODEL = SimpleNamespace(name="late_arrival")


@pipeline
def clean() -> None: ...


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(START))


def hour(number: float) -> datetime:
    return START + timedelta(hours=number)


def instants(ledger: Ledger) -> list[datetime]:
    """Give the instants that were decided about."""
    return [ledger.get_event(each.because).at for each in list_decisions(ledger)]


def test_nothing_limits_a_pipeline_unless_that_is_asked_for() -> None:
    trigger = Trigger(every("1h"), run=clean)
    assert (trigger.name, trigger.runs_pipeline) == ("clean", True)
    assert (trigger.cooldown, trigger.budget, trigger.rest) == (None, None, timedelta(0))
    limited = Trigger(every("1h"), run=clean, cooldown="2h", budget=Budget(runs=4, per="30d"))
    assert (limited.cooldown, limited.budget) == ("2h", Budget(runs=4, per="30d"))
    training = Trigger(every("1h"), run=MODEL)
    assert (training.runs_pipeline, training.cooldown, training.budget) == (False, "7d", Budget(runs=4))


def test_each_instant_runs_a_pipeline(ledger: Ledger) -> None:
    trigger = Trigger(every("1h"), run=clean)
    assert reconcile(ledger, [trigger], at=hour(0)) == []
    (armed,) = ledger.list_events(verb="trigger.armed")
    assert armed.payload["reason"] == "trigger clean runs clean from here on"
    assert (armed.payload["schedule"], armed.payload["tz"]) == ("every 1h", "UTC")
    for number in (1, 2, 3):
        (decision,) = reconcile(ledger, [trigger], at=hour(number + 0.1))
        assert decision.choice is Choice.RUN
        assert decision.reason.endswith("; nothing limits it")
    assert instants(ledger) == [hour(1), hour(2), hour(3)]


def test_a_cooldown_of_a_pipeline_without_a_budget_and_the_other_way_round(ledger: Ledger) -> None:
    rests = Trigger(every("1h"), run=clean, cooldown="3h")
    spends = Trigger(every("1h"), run=clean, budget=Budget(runs=2, per="1d"), name="spends")
    for number in range(6):
        reconcile(ledger, [rests, spends], at=hour(number))
    choices = {
        name: [each.choice.value for each in list_decisions(ledger, trigger=name)]
        for name in ("clean", "spends")
    }
    assert choices == {
        "clean": ["run", "wait", "wait", "run", "wait"],
        "spends": ["run", "run", "wait", "wait", "wait"],
    }
    told = list_decisions(ledger, trigger="spends")[1].reason
    assert "the last run was 0.0417 days ago; 1 of 2 runs in 1d are spent" in told


def test_all_missed_instants_are_decided_about_where_that_is_asked_for(ledger: Ledger) -> None:
    trigger = Trigger(schedule("0 * * * *", catch_up="all"), run=clean)
    reconcile(ledger, [trigger], at=hour(0))
    decisions = reconcile(ledger, [trigger], at=hour(4))
    assert [each.choice for each in decisions] == [Choice.RUN] * 4
    assert reconcile(ledger, [trigger], at=hour(4)) == decisions
    assert instants(ledger) == [hour(1), hour(2), hour(3), hour(4)]


def test_what_was_missed_is_told_and_not_decided_about_where_that_is_asked_for(ledger: Ledger) -> None:
    trigger = Trigger(every("1h", catch_up="none"), run=clean)
    reconcile(ledger, [trigger], at=hour(0))
    assert reconcile(ledger, [trigger], at=hour(4.5)) == []
    (missed,) = ledger.list_events(verb="schedule.missed")
    assert missed.payload["missed"] == 4
    assert len(reconcile(ledger, [trigger], at=hour(5))) == 1


def test_a_tick_that_was_not_decided_about_before_a_kill_is_decided_about_later(ledger: Ledger) -> None:
    trigger = Trigger(every("1h"), run=clean)
    reconcile(ledger, [trigger], at=hour(0))
    (armed,) = ledger.list_events(verb="trigger.armed")
    assert trigger.schedule is not None
    emit_ticks(ledger, "clean", trigger.schedule, armed=armed, at=hour(1))
    assert [each.choice for each in reconcile(ledger, [trigger], at=hour(2))] == [Choice.RUN] * 2
    assert instants(ledger) == [hour(1), hour(2)]


def test_a_schedule_that_is_changed_counts_from_its_change(ledger: Ledger) -> None:
    reconcile(ledger, [Trigger(schedule("0 0 1 * *"), run=clean)], at=hour(0))
    changed = Trigger(schedule("0 * * * *", catch_up="all"), run=clean)
    assert reconcile(ledger, [changed], at=hour(9.5)) == []
    assert len(reconcile(ledger, [changed], at=hour(10))) == 1
    assert len(reconcile(ledger, [changed], at=hour(11))) == 1
    again = ledger.list_events(verb="trigger.armed")
    assert [each.at for each in again] == [hour(0), hour(9.5)]
    assert again[1].payload["reason"].endswith("from here on, by a schedule that was changed")
    other_policy = Trigger(schedule("0 * * * *"), run=clean)
    reconcile(ledger, [other_policy], at=hour(12))
    assert len(ledger.list_events(verb="trigger.armed")) == 2


def test_a_trigger_that_was_armed_by_a_clock_far_ahead_is_armed_again(ledger: Ledger) -> None:
    trigger = Trigger(every("1h"), run=clean)
    reconcile(ledger, [trigger], at=datetime(2100, 1, 1, tzinfo=UTC))
    assert reconcile(ledger, [trigger], at=hour(0.5)) == []
    assert [each.choice for each in reconcile(ledger, [trigger], at=hour(1))] == [Choice.RUN]
    assert [each.choice for each in reconcile(ledger, [trigger], at=hour(2))] == [Choice.RUN]
    assert len(ledger.list_events(verb="trigger.armed")) == 2


def test_a_clock_that_goes_back_decides_about_nothing_twice(ledger: Ledger) -> None:
    trigger = Trigger(every("1h"), run=clean)
    for number in (0, 1, 2, 0.5, 1.5, 1, 2, 3):
        reconcile(ledger, [trigger], at=hour(number))
    assert instants(ledger) == [hour(1), hour(2), hour(3)]


def test_a_schedule_joins_with_decay_and_with_one_schedule_only() -> None:
    watch = Monitor(MODEL)
    both = Trigger(decay(watch) | every("7d", anchor="2024-01-01T06:00", tz="Europe/Vienna"), run=MODEL)
    assert both.schedule == every("7d", anchor="2024-01-01T05:00Z", tz="Europe/Vienna").schedule
    assert Trigger(decay(watch), run=MODEL).schedule is None
    with pytest.raises(ConfigError, match="two schedules"):
        Trigger(every("1h") | schedule("0 3 * * *"), run=clean)
