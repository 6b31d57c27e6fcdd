"""The guard of a trial: rolls back at once what fails, gives no scores, is slow, or ends workers.

It needs no outcomes. A release that is tried in the shadow is rolled back for the last alone.

`guard_verdict` is pure and compares counts of both releases since the trial's route began to answer.
`watch_canary` is what a supervisor calls every second or so: the bounds hold however often that is. They take
requests to be independent; failures that come in bursts which strike one release alone are evidence against
it all the same.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from noria.deploy.canary import CanaryDecision, CanaryVerdict, record_verdict
from noria.deploy.declarations import Canary
from noria.deploy.environments import rollback
from noria.deploy.moving import Deployment, Move
from noria.deploy.releases import find_standing, read_route
from noria.evaluation.intervals import Interval
from noria.evaluation.sequential import Moments, mean, proportion_difference, quantile_buckets
from noria.records import Event
from noria.serving.counts import ReleaseCounts, RouteCounts, bucket_ends_us

__all__ = ["CRASHES", "Guarded", "guard_verdict", "watch_canary"]

CRASHES = 3  # by which a release on trial ended a worker, and production did not: it is rolled back
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A trial that its guard ended: why, with the numbers, and the move back."""

    event: Event  # canary.failed
    move: Move


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing that is compared: how much worse the challenger is, and how much it may be."""

    metric: str
    worse: Interval
    limit: float
    told: str


def guard_verdict(
    canary: Canary,
    *,
    challenger: ReleaseCounts,
    champion: ReleaseCounts,
    days: float = 0.0,
    challengers: int = 1,
) -> CanaryVerdict:
    """Judge a release on trial by what it did, against production in the same time.

    Rolls back where it is beyond a limit with confidence: the lower bound of how much worse it is lies above.
    Otherwise it goes on; to promote is not the guard's to say.

    Parameters
    ----------
    canary
        The limits: `max_error_rate`, `max_missing_rate`, `max_latency_ratio`.
    challenger, champion
        What both did since the trial began.
    days
        Since then.
    challengers
        How many are on trial at once: they share the chance of a false alarm.

    Examples
    --------
    >>> good, bad = ReleaseCounts(), ReleaseCounts()
    >>> for number in range(400):
    ...     good.observe(1, 900, failed=number % 100 == 0)
    ...     bad.observe(1, 900, failed=number % 4 == 0)
    >>> found = guard_verdict(Canary(), challenger=bad, champion=good)
    >>> found.decision, found.metric
    (<CanaryDecision.ROLLBACK: 'rollback'>, 'error_rate')
    """
    checks = list(_checks(canary, challenger, champion, challengers))
    if not checks:
        return CanaryVerdict(
            decision=CanaryDecision.CONTINUE,
            reason="the guard has no limits, or a release was not asked yet",
            metric="none",
            rows=challenger.requests,
            days=days,
        )
    worst = max(checks, key=lambda each: (each.worse.low > each.limit, each.worse.low - each.limit))
    over = worst.worse.low > worst.limit
    told = (
        f"{worst.told}; the difference is at least {worst.worse.low:.4g} with "
        f"{canary.guard_confidence:.1%} confidence, limit {worst.limit:.4g}"
        if worst.metric in ("error_rate", "missing_rate")
        else f"{worst.told}; that is at least {worst.worse.low:.4g} times as long with "
        f"{canary.guard_confidence:.1%} confidence, limit {worst.limit:.4g}"
    )
    return CanaryVerdict(
        decision=CanaryDecision.ROLLBACK if over else CanaryDecision.CONTINUE,
        reason=f"guard after {days:.3g} days: {told}",
        metric=worst.metric,
        rows=challenger.requests,
        days=days,
        worse=_finite(worst.worse.mean),
        low=_finite(worst.worse.low),
        high=_finite(worst.worse.high),
        limit=worst.limit,
    )


def watch_canary(
    deployment: Deployment, counts: RouteCounts, now: datetime, *, canary: Canary
) -> Guarded | None:
    """Roll the trial back if its guard says so, and put that on record; give None while it goes on.

    Costs two reads of the ledger while nothing is wrong. Killed anywhere, the next call ends what was begun:
    a trial that its guard has condemned is rolled back, whatever newer counts say.

    Parameters
    ----------
    counts
        Of all workers, of the route that answers; counts of another route say nothing.
    now
        By the project's clock.

    Raises
    ------
    DeploymentError
        If the target does not serve the former route.
    Conflict
        If somebody else ended the trial meanwhile.
    LeaseHeld
        If another process moves this deployment right now: ask again.
    """
    ledger = deployment.ledger
    pointer = ledger.find_pointer(deployment.environment, deployment.name)
    if pointer is None or pointer.stable:
        return None
    key = f"guard:{deployment.subject}:{pointer.number}"
    event = ledger.find_event(key=f"{key}:verdict")
    if event is None:
        route = ledger.get_version_by_id(pointer.version)
        standing = find_standing(ledger, environment=deployment.environment, deployment=deployment.name)
        if standing is None or counts.route != route.number:
            return None
        content, days = read_route(route), (now - pointer.at) / _DAY
        champion = counts.of(standing.release.ref)
        modes = {each.release: each.mode for each in content.entries if each.release != standing.release.ref}
        answering = sum(mode == "answer" for mode in modes.values())
        for ref, mode in modes.items():
            challenger = counts.of(ref)
            found = _crash_verdict(challenger, champion, days=days)
            if found is None and mode == "answer":
                found = guard_verdict(
                    canary, challenger=challenger, champion=champion, days=days, challengers=answering
                )
            if found is None:
                continue
            if found.decision is CanaryDecision.ROLLBACK:
                event = record_verdict(
                    ledger,
                    found,
                    challenger=ledger.get_version_by_id(content.releases[ref]),
                    environment=deployment.environment,
                    deployment=deployment.name,
                    cause=pointer.event,
                    key=f"{key}:verdict",
                    at=now,
                )
                break
    if event is None:
        return None
    reason = str(event.payload["reason"])
    move = rollback(deployment, trial=pointer, key=key, reason=reason, cause=event.id, at=now)
    return Guarded(event, move)


def _crash_verdict(
    challenger: ReleaseCounts, champion: ReleaseCounts, *, days: float
) -> CanaryVerdict | None:
    """Judge by the workers that ended while a release scored: others' requests are lost with them."""
    more = challenger.crashes - champion.crashes
    if more < CRASHES:
        return None
    return CanaryVerdict(
        decision=CanaryDecision.ROLLBACK,
        reason=f"guard after {days:.3g} days: {challenger.crashes} times a worker ended while it scored, "
        f"{champion.crashes} times while production did; the limit is {CRASHES} more",
        metric="crashes",
        rows=challenger.requests,
        days=days,
        worse=float(more),
        low=float(more),
        high=float(more),
        limit=float(CRASHES),
    )


def _checks(
    canary: Canary, challenger: ReleaseCounts, champion: ReleaseCounts, challengers: int
) -> Iterator[_Check]:
    limits = (canary.max_error_rate, canary.max_missing_rate, canary.max_latency_ratio)
    asked = sum(each is not None for each in limits)
    if not asked or not challenger.requests or not champion.requests:
        return
    alpha = (1 - canary.guard_confidence) / (asked * challengers)
    for metric, limit, mine, theirs in (
        ("error_rate", canary.max_error_rate, challenger.errors, champion.errors),
        ("missing_rate", canary.max_missing_rate, challenger.incomplete, champion.incomplete),
    ):
        if limit is not None:
            counted = (mine, challenger.requests), (theirs, champion.requests)
            told = "failed" if metric == "error_rate" else "gave no score for some row"
            yield _Check(
                metric,
                proportion_difference(*counted, alpha=alpha),
                limit,
                f"it {told} in {mine} of {challenger.requests} requests, production in {theirs} of "
                f"{champion.requests}",
            )
    if canary.max_latency_ratio is not None and challenger.timed and champion.timed:
        mine_us, theirs_us = (
            _latency(canary.latency, each, alpha=alpha / 2) for each in (challenger, champion)
        )
        yield _Check(
            f"latency_ratio({canary.latency})",
            Interval(
                mine_us.mean / theirs_us.mean,
                mine_us.low / theirs_us.high,
                _ratio(mine_us.high, theirs_us.low),
            ),
            canary.max_latency_ratio,
            f"its {canary.latency} is {mine_us.mean / 1_000:.4g} ms, production's "
            f"{theirs_us.mean / 1_000:.4g} ms",
        )


def _latency(what: str, counts: ReleaseCounts, *, alpha: float) -> Interval:
    """Bound the time that a release takes, microseconds, at least 1."""
    if what == "mean":
        found = mean(Moments(counts.timed, counts.latency_us, counts.latency_us_squared), alpha=alpha)
        return Interval(max(found.mean, 1.0), max(found.low, 0.0), max(found.high, 1.0))
    q = _QUANTILES[what]
    low, high = quantile_buckets(counts.buckets, q, alpha=alpha)
    reached = np.cumsum(counts.buckets)
    bucket = int(np.searchsorted(reached, q * reached[-1], side="left"))
    least, above = bucket_ends_us(bucket)
    middle = least if math.isinf(above) else (least + above) / 2
    return Interval(max(middle, 1.0), bucket_ends_us(low)[0], max(bucket_ends_us(high)[1], 1.0))


def _ratio(one: float, other: float) -> float:
    return math.inf if other <= 0 else one / other


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
