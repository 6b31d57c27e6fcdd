"""The guard of a trial: it ends one that fails, gives no scores or is slow, and seldom any other."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.deploy.canary import CanaryDecision
from noria.deploy.declarations import Canary
from noria.deploy.environments import Deployment, deploy, promote, rollback, start_canary, start_test
from noria.deploy.guarding import guard_verdict, watch_canary
from noria.deploy.history import list_moves
from noria.deploy.releases import Release, find_standing, record_release, record_route, stable_release
from noria.errors import ConfigError, Conflict
from noria.ledger.store import Ledger
from noria.records import Version, digest_of, sha256_hex
from noria.serving.counts import ReleaseCounts, RouteCounts
from noria.serving.records import Input, RouteRule, Samples

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GUARD = Canary(max_error_rate=0.02, max_missing_rate=0.05, max_latency_ratio=2.0)


def counted(requests: int, *, errors: int = 0, incomplete: int = 0, median_us: int = 900) -> ReleaseCounts:
    """Counts of so many requests of ten rows, with times around a median, the last a tail."""
    counts, rng = ReleaseCounts(), np.random.default_rng(requests)
    times = (median_us * rng.lognormal(0.0, 0.5, requests)).astype(np.int64).tolist()
    for number, time in enumerate(times):
        counts.observe(10, time, missing=2 * (number < incomplete), failed=requests - number <= errors)
    return counts


@pytest.mark.parametrize(
    ("challenger", "metric"),
    [
        (counted(200, errors=30), "error_rate"),
        (counted(200, incomplete=60), "missing_rate"),
        (counted(200, median_us=9_000), "latency_ratio(p99)"),
    ],
    ids=["fails", "gives no scores", "is slow"],
)
def test_a_challenger_beyond_a_limit_goes_with_its_numbers(challenger: ReleaseCounts, metric: str) -> None:
    found = guard_verdict(GUARD, challenger=challenger, champion=counted(2_000, errors=4), days=0.01)
    assert (found.decision, found.metric, found.rows) == (CanaryDecision.ROLLBACK, metric, 200)
    assert found.worse is not None
    assert found.low is not None
    assert found.limit < found.low <= found.worse
    assert f"limit {found.limit:.4g}" in found.reason


def test_what_production_does_too_is_not_the_challengers_fault() -> None:
    """An input that breaks both, or a slow disk under both, ends no trial."""
    both = {"errors": 400, "incomplete": 400, "median_us": 30_000}
    found = guard_verdict(GUARD, challenger=counted(1_000, **both), champion=counted(1_000, **both))
    assert found.decision is CanaryDecision.CONTINUE


def test_the_mean_time_can_be_compared_instead() -> None:
    guard = Canary(max_latency_ratio=1.5, latency="mean")
    champion = counted(2_000)
    slow = guard_verdict(guard, challenger=counted(600, median_us=2_000), champion=champion)
    assert (slow.decision, slow.metric) == (CanaryDecision.ROLLBACK, "latency_ratio(mean)")
    assert slow.worse == pytest.approx(2_000 / 900, rel=0.1)
    alike = guard_verdict(guard, challenger=counted(600), champion=champion)
    assert alike.decision is CanaryDecision.CONTINUE


def test_without_limits_or_counts_it_goes_on() -> None:
    off = Canary(max_error_rate=None, max_missing_rate=None)
    bad = counted(500, errors=500)
    assert guard_verdict(off, challenger=bad, champion=counted(500)).decision is CanaryDecision.CONTINUE
    assert guard_verdict(GUARD, challenger=bad, champion=ReleaseCounts()).decision is CanaryDecision.CONTINUE


@pytest.mark.parametrize("paths", [40, pytest.param(1_000, marks=pytest.mark.soak)])
def test_a_challenger_as_good_as_production_is_seldom_rolled_back(paths: int) -> None:
    """It is looked at after every 25 requests, at the strictest limits, and stopped at the first alarm."""
    canary = Canary(max_error_rate=0.0, max_latency_ratio=1.0, guard_confidence=0.9)
    alarms, looks, rng = 0, 0, np.random.default_rng(5)
    for _ in range(paths):
        challenger, champion = ReleaseCounts(), ReleaseCounts()
        times = (800 * rng.lognormal(0.0, 0.7, 1_500)).astype(np.int64).tolist()
        failed, first = (rng.random(1_500) < 0.03).tolist(), (rng.random(1_500) < 0.2).tolist()
        for number, time in enumerate(times):
            (challenger if first[number] else champion).observe(1, time, failed=failed[number])
            if number % 25 == 24:
                looks += 1
                found = guard_verdict(canary, challenger=challenger, champion=champion)
                if found.decision is CanaryDecision.ROLLBACK:
                    alarms += 1
                    break
    print(
        f"{alarms / paths:.2%} of {paths} good challengers were rolled back, {looks / paths:.0f} looks each"
    )
    assert alarms / paths <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / paths)


@pytest.mark.parametrize(("rate", "most"), [(1.0, 5), (0.3, 60), (0.15, 250)])
def test_how_many_requests_it_takes_to_see_a_failing_challenger(rate: float, most: int) -> None:
    """Beside production with one failure in a thousand; limit 0.05, confidence 0.99."""
    needed, rng = [], np.random.default_rng(6)
    for _ in range(20):
        challenger, champion = ReleaseCounts(), counted(2_000)
        champion.errors = champion.requests // 1_000
        while challenger.requests < 2_000:
            challenger.observe(1, 900, failed=bool(rng.random() < rate))
            found = guard_verdict(Canary(), challenger=challenger, champion=champion)
            if found.decision is CanaryDecision.ROLLBACK:
                break
        needed.append(challenger.requests)
    print(f"error rate {rate:.0%}: half are seen within {np.median(needed):.0f} requests")
    assert np.median(needed) <= most


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(NOW))


@pytest.fixture
def place(ledger: Ledger) -> Deployment:
    def samples(release: Release) -> Samples:
        return Samples(matrix=release.model_ref.encode(), scores=b"")

    return Deployment(ledger, environment="production", name="late", fetch=Path, samples=samples, gated=False)


def releases(ledger: Ledger, count: int) -> list[Version]:
    found = []
    for number in range(count):
        model = ledger.record_version("model", "late", sha256=sha256_hex(b"%d" % number), uri="x", at=NOW)
        file_digest = sha256_hex(b"file %d" % number)
        inputs = [Input(name="distance", kind="number")]
        found.append(record_release(ledger, model, file_digest=file_digest, inputs=inputs, at=NOW))
    return found


def counts_of(place: Deployment, **found: ReleaseCounts) -> RouteCounts:
    standing = find_standing(place.ledger, environment="production", deployment="late", stable=False)
    assert standing is not None
    return RouteCounts(
        route=standing.route.number,
        releases={f"late:{ref.removeprefix('late_')}": each for ref, each in found.items()},
    )


def test_a_failing_canary_is_rolled_back_on_record_and_once(place: Deployment, ledger: Ledger) -> None:
    old, new = releases(ledger, 2)
    deploy(place, old, key="d", at=NOW)
    began = start_canary(place, new, share=0.2, key="c", at=NOW)
    later = NOW + timedelta(minutes=5)
    good = counts_of(place, late_1=counted(1_000), late_2=counted(250))
    assert watch_canary(place, good, later, canary=GUARD) is None
    bad = counts_of(place, late_1=counted(1_000), late_2=counted(250, errors=50))
    assert watch_canary(place, RouteCounts(route=9, releases=bad.releases), later, canary=GUARD) is None
    done = watch_canary(place, bad, later, canary=GUARD)
    assert done is not None
    assert (done.event.verb, done.event.subject, done.event.cause) == (
        "canary.failed",
        new.ref,
        began.pointer.event,
    )
    payload = done.event.payload
    assert (payload["metric"], payload["rows"], payload["limit"]) == ("error_rate", 250, 0.02)
    assert payload["low"] > 0.02
    assert "it failed in 50 of 250 requests, production in 0 of 1000" in payload["reason"]
    assert done.move.request.cause == done.event.id
    stable = stable_release(ledger, environment="production", deployment="late")
    assert stable is not None
    assert (stable.id, done.move.pointer.stable) == (old.id, True)
    assert watch_canary(place, bad, later, canary=GUARD) is None
    assert len(list_moves(ledger, environment="production", deployment="late")) == 3


def test_a_guard_that_was_killed_before_the_move_makes_it_when_it_is_back(
    place: Deployment, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = releases(ledger, 2)
    deploy(place, old, key="d", at=NOW)
    start_canary(place, new, share=0.2, key="c", at=NOW)
    lease = ledger.acquire_lease(f"route:{place.subject}", ttl_s=60)
    bad = counts_of(place, late_1=counted(1_000), late_2=counted(250, errors=50))
    with pytest.raises(Exception, match="route:production/late"):
        watch_canary(place, bad, NOW, canary=GUARD)
    ledger.release_lease(lease)
    done = watch_canary(place, RouteCounts(route=bad.route), NOW + timedelta(minutes=1), canary=GUARD)
    assert done is not None
    assert done.move.pointer.stable


def test_a_trial_that_was_promoted_meanwhile_is_left_alone(place: Deployment, ledger: Ledger) -> None:
    old, new = releases(ledger, 2)
    deploy(place, old, key="d", at=NOW)
    trial = start_canary(place, new, share=0.2, key="c", at=NOW)
    promote(place, new, key="p", at=NOW)
    bad = RouteCounts(route=trial.route.number, releases={new.ref: counted(250, errors=50)})
    assert watch_canary(place, bad, NOW, canary=GUARD) is None
    with pytest.raises(Conflict, match="has ended"):
        rollback(place, trial=trial.pointer, key="late", at=NOW)
    assert stable_release(ledger, environment="production", deployment="late") == new


def test_one_bad_arm_ends_a_test_of_several(place: Deployment, ledger: Ledger) -> None:
    old, good, bad = releases(ledger, 3)
    deploy(place, old, key="d", at=NOW)
    test = start_test(
        place, [(old, 0.5), (good, 0.25), (bad, 0.25)], name="spring", unit="customer_id", key="t", at=NOW
    )
    assert (test.route.unit, test.route.salt) == ("customer_id", "production/late/spring")
    assert not test.pointer.stable
    counts = counts_of(
        place, late_1=counted(3_000), late_2=counted(500), late_3=counted(500, median_us=9_000)
    )
    done = watch_canary(place, counts, NOW, canary=GUARD)
    assert done is not None
    assert (done.event.subject, done.event.payload["metric"]) == (bad.ref, "latency_ratio(p99)")
    assert done.move.route.entries[0].release == old.ref


def test_a_test_begins_with_what_is_stable_and_has_two_arms(place: Deployment, ledger: Ledger) -> None:
    old, new = releases(ledger, 2)
    deploy(place, old, key="d", at=NOW)
    with pytest.raises(Conflict, match="the stable release of production/late is release late:1"):
        start_test(place, [(new, 0.5), (old, 0.5)], name="spring", key="t1", at=NOW)
    with pytest.raises(Conflict, match="two different releases"):
        start_test(place, [(old, 0.5), (old, 0.5)], name="spring", key="t2", at=NOW)


def test_a_route_without_unit_and_rules_has_the_digest_it_always_had(place: Deployment) -> None:
    old, new = releases(place.ledger, 2)
    deploy(place, old, key="d", at=NOW)
    trial = start_canary(place, new, share=0.25, key="c", at=NOW)
    facts = {
        "environment": "production",
        "deployment": "late",
        "entries": [
            {"release": "late:1", "weight": 0.75, "mode": "answer"},
            {"release": "late:2", "weight": 0.25, "mode": "answer"},
        ],
        "releases": {"late:1": old.id, "late:2": new.id},
    }
    assert (trial.version.facts, trial.route.id) == (facts, digest_of(facts))


def test_a_rule_for_a_release_that_is_not_in_the_route_is_refused(place: Deployment) -> None:
    old, _ = releases(place.ledger, 2)
    with pytest.raises(ConfigError, match="the route has late:1"):
        record_route(
            place.ledger,
            environment="production",
            deployment="late",
            entries=[(old, 1.0, "answer")],
            rules=[RouteRule(header="x-tester", values=("1",), release="late:2")],
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_error_rate": 1.0},
        {"max_missing_rate": -0.1},
        {"max_latency_ratio": 0.5},
        {"latency": "p42"},
        {"guard_confidence": 1.0},
        {"by_header": {"x-tester": "1"}},
    ],
)
def test_a_guard_that_can_never_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Canary {next(iter(wrong))}"):
        Canary(**wrong)


def test_a_canary_may_stick_to_a_unit_and_take_testers(place: Deployment, ledger: Ledger) -> None:
    old, new = releases(ledger, 2)
    deploy(place, old, key="d", at=NOW)
    canary = Canary(sticky="customer_id", by_header={"x-tester": ["1"]})
    small, large = (
        start_canary(
            place,
            new,
            share=share,
            unit=canary.sticky,
            by_header=canary.by_header,
            key=f"c{share}",
            at=NOW,
        ).route
        for share in (0.1, 0.4)
    )
    assert small.id != large.id
    assert small.salt == large.salt == "production/late/late:2"
    assert (large.rules[0].header, large.rules[0].release) == ("x-tester", new.ref)
