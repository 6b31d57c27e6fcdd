"""Decisions: what news come to, within cooldown and budget, once, and alike when made again."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.errors import ConfigError
from noria.ledger.store import Ledger
from noria.monitoring.declarations import Monitor
from noria.records import Event
from noria.triggers.declarations import Budget, Trigger, decay, schedule
from noria.triggers.reconcile import Choice, Decision, list_decisions, list_unfinished, reconcile, settle

START = datetime(2013, 4, 1, tzinfo=UTC)
MODEL = SimpleNamespace(name="late_arrival")
WATCH = Monitor(MODEL)
ON_DECAY = Trigger(decay(WATCH), run=MODEL, cooldown="7d", budget=Budget(runs=3, per="30d"))


def open_ledger(folder: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{folder}/noria.db"), clock=ReplayClock(START))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def news(
    ledger: Ledger, at: float, *, verb: str = "decay.found", kind: str = "realized", tag: str = ""
) -> Event:
    payload = {"kind": kind, "metric": "auc", "value": 0.71, "limit": 0.73, "reason": "the AUC fell to 0.71"}
    key = f"{verb}:{at}:{kind}:{tag}"
    return ledger.append(verb, subject=WATCH.name, payload=payload, key=key, at=day(at))


def choices(decisions: Sequence[Decision]) -> list[str]:
    return [decision.choice.value for decision in decisions]


def test_nothing_new_is_no_decision(ledger: Ledger) -> None:
    assert reconcile(ledger, [ON_DECAY], at=day(0)) == []
    (armed,) = ledger.list_events(verb="trigger.armed")
    assert "at most once in 7d and 3 times in 30d" in armed.payload["reason"]


def test_decay_runs_and_says_why(ledger: Ledger) -> None:
    found = news(ledger, 0)
    (decision,) = reconcile(ledger, [ON_DECAY], at=day(0))
    assert decision.choice is Choice.RUN
    assert (decision.run, decision.because, decision.because_verb) == (
        "late_arrival",
        found.id,
        "decay.found",
    )
    assert decision.reason == (
        "run late_arrival: the AUC fell to 0.71; no run before it; 0 of 3 runs in 30d are spent"
    )
    event = ledger.get_event(decision.event)
    assert (event.verb, event.cause, event.at) == ("trigger.decided", found.id, day(0))


def test_the_same_pass_again_gives_the_same_decisions(ledger: Ledger) -> None:
    news(ledger, 0)
    news(ledger, 0, kind="estimated")
    first = reconcile(ledger, [ON_DECAY], at=day(0))
    events = ledger.verify().events
    assert choices(first) == ["run", "wait"]
    assert reconcile(ledger, [ON_DECAY], at=day(0)) == first
    assert ledger.verify().events == events
    assert reconcile(ledger, [ON_DECAY], at=day(1)) == []


def test_the_cooldown_holds_to_the_day(ledger: Ledger) -> None:
    found = []
    for at in range(9):
        news(ledger, at)
        found += reconcile(ledger, [ON_DECAY], at=day(at))
    assert choices(found) == ["run", *["wait"] * 6, "run", "wait"]
    assert (
        "the last run was 1 days ago, the cooldown is 7d: not before 2013-04-08T00:00:00Z" in found[1].reason
    )
    assert found[1].until == day(7)


def test_a_trigger_that_warms_up_only_watches(ledger: Ledger) -> None:
    trigger = Trigger(decay(WATCH), run=MODEL, cooldown="7d", warm_up="3d")
    found = []
    for at in range(5):
        news(ledger, at)
        found += reconcile(ledger, [trigger], at=day(at))
    assert choices(found) == ["wait", "wait", "wait", "run", "wait"]
    assert found[0].reason.endswith(
        "the trigger only watches for its first 3d: not before 2013-04-04T00:00:00Z"
    )


def test_the_budget_holds_and_frees_itself(ledger: Ledger) -> None:
    found = {}
    for at in range(0, 60):
        news(ledger, at)
        (found[at],) = reconcile(ledger, [ON_DECAY], at=day(at))
    assert [at for at, decision in found.items() if decision.choice is Choice.RUN] == [0, 7, 14, 30, 37, 44]
    assert "3 of 3 runs in 30d are spent: not before 2013-05-01T00:00:00Z" in found[21].reason


def test_drift_alerts_and_bad_data_refuse(ledger: Ledger) -> None:
    news(ledger, 0, verb="drift.found")
    news(ledger, 0, verb="data.bad")
    found = reconcile(ledger, [ON_DECAY], at=day(0))
    assert choices(found) == ["alert", "refuse"]
    assert "drift alone alerts" in found[0].reason
    assert "bad data block and never retrain" in found[1].reason


def test_a_trigger_may_ask_for_realized_decay_only(ledger: Ledger) -> None:
    realized = Trigger(decay(WATCH, kinds=("realized",)), run=MODEL)
    news(ledger, 0, kind="estimated")
    assert reconcile(ledger, [realized], at=day(0)) == []
    news(ledger, 0, kind="realized")
    assert choices(reconcile(ledger, [realized], at=day(0))) == ["run"]


def test_news_of_other_monitors_of_the_future_and_of_long_ago_are_left_alone(ledger: Ledger) -> None:
    ledger.append("decay.found", subject="another", payload={"kind": "realized", "reason": "x"}, at=day(0))
    news(ledger, -5)
    later = news(ledger, 3)
    assert reconcile(ledger, [ON_DECAY], at=day(0)) == []
    (decision,) = reconcile(ledger, [ON_DECAY], at=day(3))
    assert decision.because == later.id


def test_two_triggers_decide_each_for_itself(ledger: Ledger) -> None:
    second = Trigger(decay(WATCH), run=MODEL, cooldown="1d", name="second")
    news(ledger, 0)
    reconcile(ledger, [ON_DECAY, second], at=day(0))
    news(ledger, 2)
    found = reconcile(ledger, [ON_DECAY, second], at=day(2))
    assert [(decision.trigger, decision.choice) for decision in found] == [
        ("late_arrival", Choice.WAIT),
        ("second", Choice.RUN),
    ]


def test_a_schedule_runs_on_its_days_from_when_it_was_armed(ledger: Ledger) -> None:
    monthly = Trigger(schedule("0 3 1 * *", tz="America/New_York"), run=MODEL, cooldown="7d")
    found = {at: reconcile(ledger, [monthly], at=day(at)) for at in range(65)}
    ran = {at: decisions for at, decisions in found.items() if decisions}
    assert list(ran) == [1, 31, 62]  # 07:00 UTC on the 1st is seen at the next midnight
    assert choices(ran[31]) == ["run"]
    tick = ledger.get_event(ran[31][0].because)
    assert (tick.verb, tick.at) == ("schedule.ticked", datetime(2013, 5, 1, 7, tzinfo=UTC))
    assert "'0 3 1 * *' (America/New_York) came at 2013-05-01T07:00:00Z" in ran[31][0].reason


def test_of_missed_instants_only_the_newest_runs(ledger: Ledger) -> None:
    daily = Trigger(schedule("0 3 * * *"), run=MODEL, cooldown="1d")
    reconcile(ledger, [daily], at=day(0))
    (decision,) = reconcile(ledger, [daily], at=day(10))
    assert decision.choice is Choice.RUN
    assert "9 earlier instants were missed" in decision.reason
    assert reconcile(ledger, [daily], at=day(10)) == [decision]


def test_a_tick_within_the_cooldown_waits_for_the_next(ledger: Ledger) -> None:
    both = Trigger(decay(WATCH) | schedule("0 0 3 * *"), run=MODEL, cooldown="7d")
    news(ledger, 0)
    found = {at: choices(reconcile(ledger, [both], at=day(at))) for at in range(40)}
    assert {at: each for at, each in found.items() if each} == {0: ["run"], 2: ["wait"], 32: ["run"]}
    waited = list_decisions(ledger)[1]
    assert waited.because_verb == "schedule.ticked"
    assert waited.reason.endswith("; the schedule comes again at 2013-05-03T00:00:00Z")


def test_a_tick_and_decay_of_one_day_run_once(ledger: Ledger) -> None:
    both = Trigger(decay(WATCH) | schedule("0 0 3 * *"), run=MODEL, cooldown="7d")
    reconcile(ledger, [both], at=day(0))
    news(ledger, 2)
    found = reconcile(ledger, [both], at=day(2))
    assert [(each.because_verb, each.choice) for each in found] == [
        ("decay.found", Choice.RUN),
        ("schedule.ticked", Choice.WAIT),
    ]
    assert reconcile(ledger, [both], at=day(2)) == found


def test_what_died_before_it_was_settled_is_found(ledger: Ledger) -> None:
    news(ledger, 0)
    (decision,) = reconcile(ledger, [ON_DECAY], at=day(0))
    assert list_unfinished(ledger) == [decision]
    event = settle(ledger, decision, outcome="promoted", reason="it was better", at=day(3))
    assert settle(ledger, decision, outcome="promoted", reason="it was better", at=day(3)) == event
    assert list_unfinished(ledger) == []


def test_declarations_refuse_what_can_never_act() -> None:
    for make in (
        lambda: Budget(runs=0),
        lambda: Budget(runs=1, per="month"),
        lambda: Trigger(decay(WATCH), run=MODEL, cooldown="0d"),
        lambda: Trigger(schedule("0 3 * * *") | schedule("0 4 * * *"), run=MODEL),
        lambda: decay(WATCH, kinds=("rumoured",)),
        lambda: decay(WATCH, kinds=()),
    ):
        with pytest.raises(ConfigError):
            make()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    days=st.lists(st.integers(0, 80), min_size=1, max_size=15, unique=True).map(sorted),
    cooldown=st.integers(1, 12),
    runs=st.integers(1, 4),
)
def test_no_history_breaks_cooldown_or_budget(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], cooldown: int, runs: int
) -> None:
    ledger = open_ledger(tmp_path_factory.mktemp("ledger"))
    trigger = Trigger(decay(WATCH), run=MODEL, cooldown=f"{cooldown}d", budget=Budget(runs=runs, per="30d"))
    ran: list[int] = []
    for at in days:
        news(ledger, at)
        (decision,) = reconcile(ledger, [trigger], at=day(at))
        rested = not ran or at - ran[-1] >= cooldown
        allowed = rested and sum(at - each < 30 for each in ran) < runs
        assert decision.choice is (Choice.RUN if allowed else Choice.WAIT)
        ran += [at] if allowed else []


def live(folder: Path, days: int = 40) -> None:
    """Forty days with decay, drift, a schedule, and something run for each decision."""
    ledger = open_ledger(folder)
    trigger = Trigger(decay(WATCH) | schedule("0 0 10 * *"), run=MODEL, budget=Budget(runs=2, per="30d"))
    for at in range(days):
        if at % 3 == 0:
            news(ledger, at)
            news(ledger, at, kind="estimated")
        if at % 5 == 0:
            news(ledger, at, verb="drift.found")
        for decision in reconcile(ledger, [trigger], at=day(at)):
            if decision.choice is Choice.RUN:
                with ledger.running(
                    "train", "late_arrival", cause=decision.event, key=decision.key, at=day(at)
                ):
                    pass


def summary(folder: Path) -> list[Any]:
    ledger = open_ledger(folder)
    decided = [(each.at, each.choice, each.because_verb, each.reason) for each in list_decisions(ledger)]
    trained = [
        run.at for run in ledger.list_runs(kind="train", newest_first=False) if run.state == "finished"
    ]
    return [decided, trained]


def test_kills_at_random_instants_change_no_decision(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    live(tmp_path / "whole")
    rng = random.Random(3)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, __file__, str(tmp_path / "killed")], env=dict(os.environ))
        time.sleep(rng.uniform(0.6, 1.4))
        process.kill()
        process.wait()
    live(tmp_path / "killed")
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")


if __name__ == "__main__":
    live(Path(sys.argv[1]))
