"""A/B tests and the bandit: who is called better, how seldom wrongly, and what it costs to find out."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.deploy.bandit import thompson_shares
from noria.deploy.declarations import ABTest
from noria.deploy.environments import Deployment, deploy, start_canary
from noria.deploy.experiments import (
    ABDecision,
    ab_verdict,
    arm_moments,
    begin_test,
    conclude_test,
    counted_moments,
)
from noria.deploy.releases import Release, record_release, stable_release
from noria.errors import ConfigError, Conflict
from noria.evaluation.scores import log_loss
from noria.evaluation.sequential import Moments
from noria.ledger.store import Ledger
from noria.records import Version, sha256_hex
from noria.serving.assignment import Assignment
from noria.serving.counts import RouteCounts
from noria.serving.records import Input, Samples

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CONVERSION = ABTest(name="spring", metric="conversion", min_effect=0.02, sticky="customer_id")


def rates(**found: tuple[int, int]) -> dict[str, Moments]:
    return {name: Moments(n, hits, hits) for name, (hits, n) in found.items()}


@pytest.mark.parametrize(
    ("arms", "days", "decision", "winner"),
    [
        ({"a": (400, 4_000), "b": (600, 4_000)}, 5, ABDecision.WINNER, "b"),
        ({"a": (600, 4_000), "b": (400, 4_000)}, 5, ABDecision.WINNER, "a"),
        ({"a": (4_000, 40_000), "b": (4_010, 40_000)}, 5, ABDecision.NO_DIFFERENCE, None),
        ({"a": (40, 400), "b": (48, 400)}, 5, ABDecision.CONTINUE, None),
        ({"a": (40, 400), "b": (48, 400)}, 28, ABDecision.STOPPED, None),
        ({"a": (10, 100), "b": (90, 100)}, 5, ABDecision.CONTINUE, None),
        ({"a": (0, 400), "b": (0, 400)}, 5, ABDecision.CONTINUE, None),
        ({"a": (4_000, 40_000), "b": (4_010, 40_000), "c": (5_000, 40_000)}, 5, ABDecision.WINNER, "c"),
    ],
)
def test_a_verdict_by_its_numbers(
    arms: dict[str, tuple[int, int]], days: float, decision: ABDecision, winner: str | None
) -> None:
    found = ab_verdict(CONVERSION, rates(**arms), first="a", days=days)
    assert (found.decision, found.winner) == (decision, winner)
    assert found.reason.startswith("test 'spring' on conversion: after")


def test_of_losses_the_smaller_is_better() -> None:
    rng = np.random.default_rng(1)
    truth = rng.beta(2, 3, 6_000)
    y = (rng.random(6_000) < truth).astype(float)
    arm = rng.choice(["good", "bad"], 6_000)
    scores = np.where(arm == "good", truth, np.clip(truth + rng.normal(0, 0.3, 6_000), 0.02, 0.98))
    test = ABTest(name="losses", metric="log_loss", min_effect=0.01)
    moments = arm_moments(test, arm=arm.tolist(), y=y, scores=scores)
    assert moments["bad"].mean == pytest.approx(log_loss(y[arm == "bad"], scores[arm == "bad"]))
    found = ab_verdict(test, moments, first="bad", days=1)
    assert (found.decision, found.winner) == (ABDecision.WINNER, "good")


def test_what_releases_do_can_be_tested_too() -> None:
    counts, rng = RouteCounts(route=1), np.random.default_rng(2)
    for release, time in (("m:1", 2_000), ("m:2", 1_200)):
        for each in rng.gamma(4.0, time / 4, 2_000).astype(int).tolist():
            counts.of(release).observe(1, each, failed=each > 4_000)
    quicker = ABTest(name="quick", metric="latency_ms", min_effect=0.1)
    found = ab_verdict(quicker, counted_moments(quicker, counts), first="m:1", days=1)
    assert (found.decision, found.winner) == (ABDecision.WINNER, "m:2")
    assert found.first.mean == pytest.approx(2.0, rel=0.05)
    safer = ABTest(name="safe", metric="error_rate", min_effect=0.005)
    found = ab_verdict(safer, counted_moments(safer, counts), first="m:1", days=1)
    assert (found.decision, found.winner) == (ABDecision.WINNER, "m:2")
    with pytest.raises(ValueError, match="use counted_moments"):
        arm_moments(safer, arm=["a"], y=[1.0])
    with pytest.raises(ValueError, match="use arm_moments"):
        counted_moments(CONVERSION, counts)


def test_rows_of_a_unit_count_once_and_those_without_an_outcome_not_at_all() -> None:
    found = arm_moments(
        CONVERSION, arm=["a", "a", "a", "b", "b"], y=[1, 0, math.nan, 1, 1], unit=["u", "u", "v", "u", "w"]
    )
    assert (found["a"].n, found["a"].mean, found["b"].n, found["b"].mean) == (1, 0.5, 2, 1.0)
    with pytest.raises(ValueError, match="0 or 1"):
        arm_moments(CONVERSION, arm=["a"], y=[0.5])
    with pytest.raises(ValueError, match="needs the scores"):
        arm_moments(ABTest(name="l", metric="brier", min_effect=0.1), arm=["a"], y=[1.0])


def customers(rng: np.random.Generator, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows of customers who differ: each has a rate of its own, and some come much more often."""
    likely = rng.pareto(1.5, 1_500) + 0.2
    who = rng.choice(1_500, rows, p=likely / likely.sum())
    return who, (rng.random(rows) < rng.beta(0.4, 3.6, 1_500)[who]).astype(np.float64)


@pytest.mark.parametrize("paths", [24, pytest.param(1_000, marks=pytest.mark.soak)])
def test_equal_arms_seldom_get_a_winner_however_often_one_looks(paths: int) -> None:
    """Customers come back, as rows they would mislead: the same looks at rows find a winner too often."""
    test = ABTest(name="a", metric="conversion", min_effect=0.005, sticky="customer_id", confidence=0.9)
    rng, wrong, wrong_by_row = np.random.default_rng(3), 0, 0
    for _ in range(paths):
        who, y = customers(rng, 12_000)
        arm = np.where(rng.random(1_500) < 0.5, "a", "b")[who]
        ends = [False, False]
        for seen in range(1_000, 12_001, 500):
            for place, unit in enumerate((who[:seen], None)):
                moments = arm_moments(test, arm=arm[:seen].tolist(), y=y[:seen], unit=unit)
                found = ab_verdict(test, moments, first="a", days=1)
                ends[place] |= found.decision is ABDecision.WINNER
        wrong, wrong_by_row = wrong + ends[0], wrong_by_row + ends[1]
    print(f"a winner in {paths} tests of equals: {wrong / paths:.2%}, by row {wrong_by_row / paths:.2%}")
    assert wrong / paths <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / paths)
    assert wrong_by_row / paths > 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "auc"},
        {"weights": (1.0,)},
        {"weights": (0.5, 0.0)},
        {"min_effect": 0.0},
        {"min_units": 10},
        {"name": ""},
    ],
)
def test_a_test_that_can_never_be_judged_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ABTest"):
        ABTest(**{"name": "t", "metric": "value", "min_effect": 1.0, **wrong})


@pytest.fixture
def place(tmp_path: Path) -> Deployment:
    def samples(release: Release) -> Samples:
        return Samples(matrix=release.model_ref.encode(), scores=b"")

    ledger = Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(NOW))
    return Deployment(ledger, environment="production", name="late", fetch=Path, samples=samples, gated=False)


def releases(ledger: Ledger, count: int) -> list[Version]:
    found = []
    for number in range(count):
        model = ledger.record_version("model", "late", sha256=sha256_hex(b"%d" % number), uri="x", at=NOW)
        inputs = [Input(name="customer_id", kind="category")]
        file_digest = sha256_hex(b"file %d" % number)
        found.append(record_release(ledger, model, file_digest=file_digest, inputs=inputs, at=NOW))
    return found


@pytest.mark.parametrize("better", [True, False])
def test_a_test_runs_from_its_route_to_its_end_on_record(place: Deployment, better: bool) -> None:
    old, new = releases(place.ledger, 2)
    deploy(place, old, key="d", at=NOW)
    begun = begin_test(place, CONVERSION, [old, new], key="t", at=NOW)
    units, rng = [f"c{number}" for number in range(8_000)], np.random.default_rng(4)
    arm = Assignment(begun.route).choose(units)
    rate = np.where(np.array(arm) == new.ref, 0.16 if better else 0.04, 0.1)
    y = (rng.random(8_000) < rate).astype(float)
    early = ab_verdict(
        CONVERSION, arm_moments(CONVERSION, arm=arm[:500], y=y[:500], unit=units[:500]), first=old.ref, days=1
    )
    assert conclude_test(place, early, key="end", at=NOW) is None
    found = ab_verdict(CONVERSION, arm_moments(CONVERSION, arm=arm, y=y, unit=units), first=old.ref, days=9)
    later = NOW + timedelta(days=9)
    ended = conclude_test(place, found, key="end", at=later)
    assert ended is not None
    stands = stable_release(place.ledger, environment="production", deployment="late")
    assert stands == (new if better else old)
    event = place.ledger.get_event(ended.request.cause or "")
    assert (event.verb, event.cause) == ("test.concluded", begun.pointer.event)
    assert (event.payload["winner"], event.payload["reason"]) == ((new if better else old).ref, found.reason)
    again = conclude_test(place, found, key="end", at=later)
    assert again is not None
    assert again.pointer == ended.pointer


def test_a_verdict_of_arms_that_are_not_on_test_ends_nothing(place: Deployment) -> None:
    old, new = releases(place.ledger, 2)
    deploy(place, old, key="d", at=NOW)
    found = ab_verdict(CONVERSION, rates(a=(400, 4_000), b=(600, 4_000)), first="a", days=5)
    with pytest.raises(Conflict, match="tests nothing"):
        conclude_test(place, found, key="end", at=NOW)
    start_canary(place, new, share=0.2, key="c", at=NOW)
    with pytest.raises(Conflict, match="the verdict is of a, b"):
        conclude_test(place, found, key="end", at=NOW)
    with pytest.raises(Conflict, match="2 weights and 1 releases"):
        begin_test(place, CONVERSION, [old], key="t", at=NOW)


@given(
    hits=st.lists(st.integers(0, 50), min_size=1, max_size=5),
    floor=st.floats(0, 0.2),
    values=st.sampled_from(["rates", "amounts"]),
)
def test_shares_add_up_and_keep_the_floor(hits: list[int], floor: float, values: str) -> None:
    arms = {str(place): Moments(50, each, each) for place, each in enumerate(hits)} | {"new": Moments()}
    floor = floor / 1.2
    found = thompson_shares(arms, values=values, floor=floor, seed=1)  # type: ignore[arg-type]
    assert sum(found.values()) == pytest.approx(1.0)
    assert min(found.values()) >= floor - 1e-12
    assert found == thompson_shares(arms, values=values, floor=floor, seed=1)  # type: ignore[arg-type]


def test_what_is_no_rate_and_floors_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="use values='amounts'"):
        thompson_shares({"a": Moments.of([0.5, 0.2])}, values="rates", seed=1)
    with pytest.raises(ValueError, match=r"at most 0\.5"):
        thompson_shares({"a": Moments(), "b": Moments()}, values="rates", floor=0.6, seed=1)


@pytest.mark.parametrize("values", ["rates", "amounts"])
def test_a_bandit_loses_less_than_fixed_shares(values: str) -> None:
    """40 days of 300 requests; regret: what the best release would have earned beyond what was earned."""
    rng, means = np.random.default_rng(7), np.array([0.10, 0.13, 0.08])
    regret, last = [], []
    for run in range(10):
        arms, shares, lost = {name: Moments() for name in "abc"}, np.full(3, 1 / 3), 0.0
        for day in range(40):
            for place, count in enumerate(rng.multinomial(300, shares)):
                noise = (
                    rng.random(count) < means[place]
                    if values == "rates"
                    else rng.normal(means[place], 0.3, count)
                )
                arms["abc"[place]] += Moments.of(noise)
                lost += count * (means.max() - means[place])
            found = thompson_shares(arms, values=values, floor=0.05, seed=1_000 * run + day)  # type: ignore[arg-type]
            shares = np.array(list(found.values()))
        regret.append(lost)
        last.append(shares[1])
    fixed = 40 * 300 * float((means.max() - means).mean())
    print(f"{values}: regret {np.mean(regret):.0f} of a bandit, {fixed:.0f} of equal shares")
    assert np.mean(regret) < 0.6 * fixed
    assert np.median(last) > 0.8
