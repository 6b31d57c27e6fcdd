"""Canaries: when a challenger stays, goes, or waits, and what is written down."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.clock import ReplayClock, to_micros
from noria.database.store import Database
from noria.deploy.canary import (
    CanaryDecision,
    CanaryVerdict,
    record_verdict,
    verdict,
    verdict_at_any_time,
)
from noria.deploy.declarations import Canary
from noria.errors import Conflict
from noria.evaluation.scores import log_loss
from noria.ledger.store import Ledger

START = datetime(2013, 5, 1, tzinfo=UTC)
CANARY = Canary(share=0.2, days=3, max_worse=0.005, min_rows=300)


def trial(days: float = 3.0, *, per_hour: int = 40, noise: float = 0.0, seed: int = 1) -> dict[str, Any]:
    """A trial of so many days: the champion's scores are the truth, the challenger's are off by `noise`."""
    rng = np.random.default_rng(seed)
    hours = int(days * 24)
    truth = rng.beta(1.5, 4.0, size=hours * per_hour)
    logits = np.log(truth / (1 - truth)) + noise * rng.normal(size=truth.size)
    return {
        "y": (rng.random(truth.size) < truth).astype(np.float64),
        "champion": truth,
        "challenger": 1 / (1 + np.exp(-logits)),
        "at": to_micros(START) + np.repeat(np.arange(hours), per_hour) * 3_600_000_000,
        "started_at": START,
        "now": START + timedelta(days=days),
    }


def test_a_challenger_that_is_as_good_is_promoted_after_its_days() -> None:
    found = verdict(CANARY, **trial(3))
    assert found.decision is CanaryDecision.PROMOTE
    assert found.rows == 3 * 24 * 40
    assert "within the limit" in found.reason


def test_before_its_days_it_goes_on() -> None:
    found = verdict(CANARY, **trial(2))
    assert found.decision is CanaryDecision.CONTINUE
    assert "3 days are asked for" in found.reason


def test_a_challenger_that_is_surely_worse_goes_at_once() -> None:
    found = verdict(CANARY, **trial(1, noise=2.0))
    assert found.decision is CanaryDecision.ROLLBACK
    assert found.low is not None
    assert found.low > CANARY.max_worse
    assert "worse beyond the limit with confidence" in found.reason


def test_at_the_end_doubt_goes_to_production() -> None:
    doubtful = trial(3, per_hour=8, noise=0.35)
    found = verdict(CANARY, **doubtful)
    assert found.decision is CanaryDecision.ROLLBACK
    assert found.low is not None
    assert found.worse is not None
    assert found.low < CANARY.max_worse < found.worse
    assert "at the end of the trial" in found.reason


def test_without_outcomes_it_goes_on_and_then_ends() -> None:
    unlabelled = trial(3) | {"y": np.full(3 * 24 * 40, np.nan)}
    assert verdict(CANARY, **unlabelled).decision is CanaryDecision.CONTINUE
    late = unlabelled | {"now": START + timedelta(days=12)}
    found = verdict(CANARY, **late)
    assert found.decision is CanaryDecision.ROLLBACK
    assert "production stays" in found.reason


def test_only_rows_of_the_trial_that_both_scored_count() -> None:
    data = trial(3)
    data["challenger"][:480] = np.nan
    data["at"][480:960] -= 86_400_000_000 * 5
    data["y"][960:1_440] = np.nan
    assert verdict(CANARY, **data).rows == 3 * 24 * 40 - 3 * 480


def test_auc_is_judged_the_same_way_round() -> None:
    canary = Canary(metric="auc", max_worse=0.005, min_rows=300)
    assert verdict(canary, **trial(3)).decision is CanaryDecision.PROMOTE
    assert verdict(canary, **trial(3, noise=3.0)).decision is CanaryDecision.ROLLBACK


@settings(max_examples=20, deadline=None)
@given(
    days=st.sampled_from([0.2, 1, 2.5, 3, 6, 12]),
    noise=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 9),
)
def test_every_verdict_holds_to_its_own_numbers(days: float, noise: float, seed: int) -> None:
    found = verdict(CANARY, **trial(days, noise=noise, seed=seed, per_hour=20))
    assert found == verdict(CANARY, **trial(days, noise=noise, seed=seed, per_hour=20))
    if found.decision is CanaryDecision.PROMOTE:
        assert found.days >= CANARY.days
        assert found.rows >= CANARY.min_rows
        assert found.worse is not None
        assert found.worse <= CANARY.max_worse
    if found.days >= CANARY.last_day:
        assert found.decision is not CanaryDecision.CONTINUE


def test_a_verdict_is_on_record_once_and_never_turns(tmp_path: Path) -> None:
    ledger = Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(START))
    release = ledger.record_version("release", "late_arrival", sha256="a" * 64, uri="x", at=START)

    def record(found: CanaryVerdict, key: str) -> Any:
        return record_verdict(
            ledger,
            found,
            challenger=release,
            environment="production",
            deployment="late_arrival",
            key=key,
            at=START,
        )

    good, bad = verdict(CANARY, **trial(3)), verdict(CANARY, **trial(1, noise=2.0))
    event = record(good, "canary:1")
    assert event == record(good, "canary:1")
    assert (event.verb, record(bad, "canary:2").verb) == ("canary.passed", "canary.failed")
    assert event.payload["reason"].startswith(
        "canary of late_arrival:1 in production/late_arrival: after 3 days"
    )
    with pytest.raises(Conflict):
        record(bad, "canary:1")


def up_to(data: dict[str, Any], now: datetime) -> dict[str, Any]:
    """What was known of a trial at an instant."""
    seen = data["at"] <= to_micros(now)
    return {
        **{name: data[name][seen] for name in ("y", "champion", "challenger", "at")},
        "started_at": START,
        "now": now,
    }


@pytest.mark.parametrize("paths", [12, pytest.param(300, marks=pytest.mark.soak)])
def test_one_at_its_limit_is_seldom_rolled_back_early_however_often_one_looks(paths: int) -> None:
    """By the bootstrap of each look alone, which is meant for one look a day, it is much more often."""
    known = trial(2_000, noise=0.6)
    limit = log_loss(known["y"], known["challenger"]) - log_loss(known["y"], known["champion"])
    canary = Canary(days=6, max_worse=limit, min_rows=100)
    ends, by_look = 0, 0
    for path in range(paths):
        data = trial(5, noise=0.6, seed=path + 2)
        looks = [up_to(data, START + timedelta(hours=hours)) for hours in range(4, 120, 4)]
        ends += any(verdict_at_any_time(canary, **each).decision is CanaryDecision.ROLLBACK for each in looks)
        by_look += any(verdict(canary, **each).decision is CanaryDecision.ROLLBACK for each in looks)
    print(f"rolled back early, of {paths} at the limit: {ends}, by single looks {by_look}")
    assert ends <= 0.05 * paths + 3 * (0.05 * 0.95 * paths) ** 0.5
    assert by_look > ends


def test_at_any_time_it_says_what_a_single_look_says_but_for_early_ends() -> None:
    data = trial(3, noise=2.0)
    soon = verdict_at_any_time(CANARY, **up_to(data, START + timedelta(days=1)))
    assert soon.decision is CanaryDecision.ROLLBACK
    assert "however often one looks it is at least" in soon.reason
    assert verdict_at_any_time(CANARY, **data) == verdict(CANARY, **data)
    by_auc = Canary(metric="auc", max_worse=0.005, min_rows=300)
    assert verdict(by_auc, **up_to(data, START + timedelta(days=1))).decision is CanaryDecision.ROLLBACK
    waits = verdict_at_any_time(by_auc, **up_to(data, START + timedelta(days=1)))
    assert waits.decision is CanaryDecision.CONTINUE
    assert "an AUC is judged after 3 days" in waits.reason


def test_a_trial_of_minutes_is_judged_by_parts_of_it() -> None:
    data = trial(3)
    quick = data | {"at": to_micros(START) + (data["at"] - to_micros(START)) // 720}  # a day in two minutes
    quick["now"] = START + timedelta(minutes=6)
    assert verdict(CANARY, **quick).low is None  # all of one hour
    found = verdict(Canary(days=5 / 1_440, max_days=1.0, max_worse=0.005, min_rows=300), **quick)
    assert found.decision is CanaryDecision.PROMOTE
    few = verdict(Canary(days=5 / 1_440, min_rows=10_000), **quick)
    assert "10000 of several spans of 0.208 minutes are needed" in few.reason
