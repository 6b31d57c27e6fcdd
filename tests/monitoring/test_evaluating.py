"""Evaluations on record: runs, events, memory of earlier windows, and the same key again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from noria.clock import ReplayClock, to_micros
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.monitoring.declarations import Monitor, calibration, drift, estimated_quality, volume
from noria.monitoring.evaluate import evaluate, find_report, list_reports
from noria.monitoring.records import MonitorReport
from noria.monitoring.window import DAY_US, WindowData
from noria.profiles.build import build_profile
from noria.records import RunState, Version

START = datetime(2013, 4, 1, tzinfo=UTC)
WATCH = Monitor(
    SimpleNamespace(name="late_arrival"),
    checks=[volume(min_days=3), drift(), calibration(), estimated_quality(window="7d", days=2)],
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(START))


def version(ledger: Ledger, text: str = "a") -> Version:
    return ledger.record_version("model", "late_arrival", sha256=text * 64, uri="x", at=START)


def day(ledger: Ledger, number: int, *, of: Version | None = None, **changes: Any) -> MonitorReport:
    at = START + timedelta(days=number)
    rng = np.random.default_rng(number)
    p = rng.beta(1.5, 4.0, size=7 * 300)
    values: dict[str, Any] = {
        "version": of or version(ledger),
        "environment": "production",
        "deployment": "late_arrival",
        "columns": {"distance": rng.normal(size=400)},
        "scores": rng.beta(1.5, 4.0, size=400),
        "y": (rng.random(p.size) < p).astype(np.float64),
        "y_scores": p,
        "y_at": to_micros(at) - np.repeat(np.arange(7), 300) * DAY_US,
    }
    stored = build_profile({"distance": np.random.default_rng(0).normal(size=20_000)}, window_rows=400)
    return evaluate(
        ledger,
        WATCH,
        WindowData(**(values | changes)),
        profile=stored,
        reference={"auc": 0.74},
        key=f"monitor:late_arrival:{number}",
        at=at,
    )


def flat_scores() -> dict[str, Any]:
    """Calibrated scores that hardly differ: nothing is told apart."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.25, 0.35, size=7 * 300)
    return {"y_scores": p, "y": (rng.random(p.size) < p).astype(np.float64)}


def verbs(ledger: Ledger) -> list[str]:
    news = {"monitor.evaluated", "data.bad", "drift.found", "decay.found"}
    return [event.verb for event in ledger.list_events() if event.verb in news]


def test_a_quiet_day_is_a_run_with_metrics_and_one_event(ledger: Ledger) -> None:
    report = day(ledger, 1)
    (run,) = ledger.list_runs(kind="monitor")
    assert run.state is RunState.FINISHED
    assert run.metrics["calibration_7d"] == pytest.approx(1.0, abs=0.1)
    assert run.metrics["drift:distance"] > 0
    assert verbs(ledger) == ["monitor.evaluated"]
    assert find_report(ledger, key="monitor:late_arrival:1") == report
    assert list_reports(ledger, "late_arrival") == [report]
    assert [edge.version for edge in ledger.list_edges(run=run.id)] == [version(ledger).id]


def test_decay_and_drift_are_news_caused_by_the_evaluation(ledger: Ledger) -> None:
    moved = {"distance": np.random.default_rng(1).normal(0.6, size=400)}
    day(ledger, 1, columns=moved, y=np.ones(2_100) * (np.arange(2_100) % 2))
    assert verbs(ledger) == ["monitor.evaluated", "drift.found", "decay.found"]
    evaluated, found_drift, decay = (ledger.list_events(verb=verb)[0] for verb in verbs(ledger))
    assert found_drift.cause == decay.cause == evaluated.id
    assert decay.subject == "late_arrival"
    assert (decay.payload["kind"], decay.payload["metric"]) == ("realized", "calibration")
    assert decay.payload["version_ref"] == "late_arrival:1"
    assert decay.payload["reason"].startswith("late_arrival:1: predicted over observed positives")
    assert found_drift.payload["columns"][0]["column"] == "distance"


def test_the_same_key_again_gives_what_is_on_record(ledger: Ledger) -> None:
    first = day(ledger, 1)
    events = ledger.verify().events
    assert day(ledger, 1, **flat_scores()) == first
    assert ledger.verify().events == events


def test_an_evaluation_that_was_cut_off_is_finished_as_it_began(ledger: Ledger, tmp_path: Path) -> None:
    whole = Ledger(Database.open(f"sqlite:///{tmp_path}/whole.db"), clock=ReplayClock(START))
    ones = np.ones(2_100) * (np.arange(2_100) % 2)
    day(whole, 1, y=ones)
    cut = ledger.append
    left = [1]

    def append(verb: str, **fields: Any) -> Any:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return cut(verb, **fields)

    ledger.append = append  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        day(ledger, 1, y=ones)
    assert verbs(ledger) == ["monitor.evaluated"]
    ledger.append = cut  # type: ignore[method-assign]
    assert day(ledger, 1, y=ones) == find_report(whole, key="monitor:late_arrival:1")
    assert verbs(ledger) == verbs(whole)


def test_volume_knows_earlier_days_and_bad_days_teach_nothing(ledger: Ledger) -> None:
    for number in range(1, 4):
        day(ledger, number)
    bad = day(ledger, 4, rows=3)
    assert bad.bad
    assert verbs(ledger)[-2:] == ["monitor.evaluated", "data.bad"]
    after = day(ledger, 5)
    assert "the median of 3 windows is 400" in after.checks[0].detail
    assert after.labelled == 7 * 300 - 300  # the rows of the bad day are left out


def test_streaks_go_on_from_day_to_day_and_end_with_the_version(ledger: Ledger) -> None:
    assert day(ledger, 1, **flat_scores()).decay == ()
    (decay,) = day(ledger, 2, **flat_scores()).decay
    assert (decay.kind, decay.streak) == ("estimated", 2)
    newer = version(ledger, "b")
    assert day(ledger, 3, of=newer, **flat_scores()).decay == ()


def test_a_day_is_judged_by_days_before_it_only(ledger: Ledger) -> None:
    for number in (1, 2, 3, 5):
        day(ledger, number)
    assert "the median of 3 windows" in day(ledger, 4).checks[0].detail
