"""A/B tests: what outcomes or counts say of several releases so far, and how a test begins and ends.

`arm_moments` and `counted_moments` turn rows and counts into sums by arm, `ab_verdict` judges those; all are
pure. The intervals hold however often one looks (`noria.evaluation.sequential`), so a test may stop when it
is sure. They take units to be independent and their shares to be fixed: a bandit's shares follow outcomes,
and its arms are not judged here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.declarations import ABTest
from noria.deploy.environments import promote, rollback, start_test
from noria.deploy.moving import Deployment, Move
from noria.deploy.releases import read_route
from noria.errors import Conflict
from noria.evaluation.scores import brier_losses, log_losses
from noria.evaluation.sequential import Moments, mean_difference
from noria.records import Event, EventId, Version
from noria.serving.counts import RouteCounts

__all__ = [
    "ABDecision",
    "ABVerdict",
    "Comparison",
    "ab_verdict",
    "arm_moments",
    "begin_test",
    "conclude_test",
    "counted_moments",
    "record_began",
]

_DAY = timedelta(days=1)


class ABDecision(StrEnum):
    """What a test has come to."""

    CONTINUE = "continue"
    WINNER = "winner"
    NO_DIFFERENCE = "no_difference"
    STOPPED = "stopped"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One arm against the first: how much better it is, in units of the metric."""

    arm: str
    units: int
    mean: float | None
    better: float | None  # above zero: better than the first, whichever way the metric goes
    low: float | None
    high: float | None


class ABVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the test says so far: the decision, its numbers, and why, in one sentence."""

    decision: ABDecision
    reason: str
    metric: str
    winner: str | None
    days: float
    first: Comparison
    others: tuple[Comparison, ...]


def arm_moments(
    test: ABTest | Bandit,
    *,
    arm: Sequence[str],
    y: npt.ArrayLike,
    scores: npt.ArrayLike | None = None,
    unit: npt.ArrayLike | None = None,
) -> dict[str, Moments]:
    """Sum what rows say of the releases that answered them; rows of one unit are averaged first.

    Parameters
    ----------
    arm
        The release that answered each row.
    y
        Outcomes; NaN where none is known, which leaves the row out.
    scores
        The answers, for `log_loss` and `brier`.
    unit
        Whose row it is; None: each row stands for itself.

    Raises
    ------
    ValueError
        If the metric is one of counts, or of scores and there are none, or a conversion is neither 0 nor 1.

    Examples
    --------
    >>> test = ABTest(name="spring", metric="value", min_effect=1.0)
    >>> found = arm_moments(test, arm=["a", "a", "b"], y=[10.0, 30.0, 7.0], unit=["ann", "ann", "bob"])
    >>> found["a"].n, found["a"].mean, found["b"].mean
    (1, 20.0, 7.0)
    """
    outcomes, arms = np.asarray(y, dtype=np.float64), np.asarray(arm)
    known = ~np.isnan(outcomes)
    outcomes, arms = outcomes[known], arms[known]
    match test.metric:
        case "value":
            values = outcomes
        case "conversion":
            if not np.isin(outcomes, (0.0, 1.0)).all():
                raise ValueError("a conversion is 0 or 1; use metric 'value' for amounts")
            values = outcomes
        case "log_loss" | "brier":
            if scores is None:
                raise ValueError(f"{test.metric} needs the scores that were answered")
            answered = np.asarray(scores, dtype=np.float64)[known]
            losses = log_losses if test.metric == "log_loss" else brier_losses
            values = losses(outcomes, answered)
        case _:
            raise ValueError(f"{test.metric} is of requests, not of outcomes; use counted_moments")
    units = np.arange(values.size) if unit is None else np.asarray(unit)[known]
    found: dict[str, Moments] = {}
    for name in np.unique(arms).tolist():
        own = arms == name
        _, members = np.unique(units[own], return_inverse=True)
        sizes = np.bincount(members)
        found[name] = Moments.of(np.bincount(members, weights=values[own]) / sizes)
    return found


def counted_moments(test: ABTest, counts: RouteCounts) -> dict[str, Moments]:
    """Sum what releases did, for the metrics `error_rate` and `latency_ms`; each request is a unit.

    Raises
    ------
    ValueError
        If the metric is one of outcomes.
    """
    match test.metric:
        case "error_rate":
            return {
                release: Moments(each.requests, each.errors, each.errors)
                for release, each in counts.releases.items()
            }
        case "latency_ms":
            return {
                release: Moments(each.timed, each.latency_us / 1e3, each.latency_us_squared / 1e6)
                for release, each in counts.releases.items()
            }
        case _:
            raise ValueError(f"{test.metric} is of outcomes, not of requests; use arm_moments")


def ab_verdict(test: ABTest, arms: Mapping[str, Moments], *, first: str, days: float) -> ABVerdict:
    """Judge a test by what is known so far.

    - All differences from the first arm surely smaller than `min_effect`: no difference.
    - An arm surely better than the first, and by `min_effect` or more as far as one can tell: the winner is
      the best of those. All others surely worse: the first is.
    - After `max_days`: stopped.
    - Otherwise: continue.

    Parameters
    ----------
    arms
        Sums by release; see `arm_moments` and `counted_moments`.
    first
        The stable release, with which all others are compared; they share the chance of a false alarm.

    Examples
    --------
    >>> test = ABTest(name="spring", metric="conversion", min_effect=0.02)
    >>> arms = {"m:1": Moments(4_000, 400, 400), "m:2": Moments(4_000, 560, 560)}
    >>> found = ab_verdict(test, arms, first="m:1", days=5)
    >>> found.decision, found.winner
    (<ABDecision.WINNER: 'winner'>, 'm:2')
    """
    names = [each for each in arms if each != first]
    base = arms.get(first, Moments())
    others = tuple(_compare(test, name, arms[name], base, len(names)) for name in names)
    fewest = min((each.n for each in (base, *(arms[name] for name in names))), default=0)
    told = f"after {days:.3g} days and {base.n + sum(each.units for each in others):,} units"
    decision, winner = ABDecision.CONTINUE, None
    if not names or fewest < test.min_units:
        told += f" an arm has {fewest}; {test.min_units} are needed"
    else:
        decision, winner, why = _decide(test, others, first)
        told += f" {why}"
    if decision is ABDecision.CONTINUE and days >= test.max_days:
        decision = ABDecision.STOPPED
        told += f"; the test ends after {test.max_days:.3g} days"
    return ABVerdict(
        decision=decision,
        reason=f"test {test.name!r} on {test.metric}: {told}",
        metric=test.metric,
        winner=winner,
        days=days,
        first=Comparison(arm=first, units=base.n, mean=_known(base.mean), better=0.0, low=0.0, high=0.0),
        others=others,
    )


def begin_test(
    deployment: Deployment,
    test: ABTest,
    releases: Sequence[Version],
    *,
    key: str,
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Move:
    """Let releases answer by the weights of a test, the stable one first; see `start_test`.

    The test as it is declared now is put on record as `test.began`: it is judged by that.

    Raises
    ------
    Conflict
        If there are not as many releases as weights; see also `start_test`.
    """
    if len(releases) != len(test.weights):
        raise Conflict(
            f"test {test.name!r} has {len(test.weights)} weights and {len(releases)} releases were given; "
            "give as many, the stable release first"
        )
    arms = list(zip(releases, test.shares, strict=True))
    began = record_began(deployment, test, arms, key=key, cause=cause, at=at)
    return start_test(deployment, arms, name=test.name, unit=test.sticky, key=key, cause=began.id, at=at)


def record_began(
    deployment: Deployment,
    test: ABTest | Bandit,
    arms: Sequence[tuple[Version, float]],
    *,
    key: str,
    cause: EventId | None,
    at: datetime | None,
) -> Event:
    """Put on record that releases are going to be compared, and by what, as `test.began`."""
    kind = "A/B test" if isinstance(test, ABTest) else "bandit"
    payload = {
        "environment": deployment.environment,
        "deployment": deployment.name,
        "kind": kind,
        "declared": msgspec.to_builtins(test),
        "arms": {each.ref: weight for each, weight in arms},
        "reason": f"{kind} {test.name!r} on {test.metric} compares {', '.join(each.ref for each, _ in arms)}",
    }
    return deployment.ledger.append(
        "test.began", subject=deployment.subject, payload=payload, cause=cause, key=f"{key}:began", at=at
    )


def conclude_test(deployment: Deployment, found: ABVerdict, *, key: str, at: datetime) -> Move | None:
    """End a test where its verdict says so, and put that on record as `test.concluded`; else give None.

    A winner that is not stable yet is promoted; otherwise the stable release answers everything again.

    Raises
    ------
    Conflict
        If no test with these arms is running.
    DeploymentError, LeaseHeld
        As for `noria.deploy.environments.promote`.
    """
    if found.decision is ABDecision.CONTINUE:
        return None
    ledger = deployment.ledger
    event = ledger.find_event(key=f"{key}:verdict")
    if event is None:
        pointer = ledger.find_pointer(deployment.environment, deployment.name)
        answering = {} if pointer is None or pointer.stable else _answering(deployment, pointer.version)
        arms = {found.first.arm, *(each.arm for each in found.others)}
        if pointer is None or not arms <= answering.keys():
            raise Conflict(
                f"{deployment.subject} tests {', '.join(answering) or 'nothing'}, and the verdict is of "
                f"{', '.join(sorted(arms))}; judge what is running"
            )
        winner = answering[found.winner] if found.winner not in (None, found.first.arm) else None
        payload = {
            "environment": deployment.environment,
            "deployment": deployment.name,
            "route": pointer.version,
            "promoted": winner,
            **msgspec.to_builtins(found),
        }
        event = ledger.append(
            "test.concluded",
            subject=deployment.subject,
            payload=payload,
            cause=pointer.event,
            key=f"{key}:verdict",
            at=at,
        )
    reason, promoted = str(event.payload["reason"]), event.payload["promoted"]
    pointers = ledger.list_pointers(environment=deployment.environment, name=deployment.name)
    trial = next(each for each in pointers if each.event == event.cause)
    if promoted is None:
        return rollback(deployment, trial=trial, key=key, reason=reason, cause=event.id, at=at)
    release = ledger.get_version_by_id(promoted)
    return promote(deployment, release, trial=trial, key=key, reason=reason, cause=event.id, at=at)


def _answering(deployment: Deployment, route: str) -> dict[str, str]:
    return dict(read_route(deployment.ledger.get_version_by_id(route)).releases)


def _compare(test: ABTest, name: str, arm: Moments, base: Moments, others: int) -> Comparison:
    one, other = (base, arm) if test.is_less_better else (arm, base)
    found = mean_difference(one, other, alpha=(1 - test.confidence) / others, effect=test.min_effect)
    return Comparison(
        arm=name,
        units=arm.n,
        mean=_known(arm.mean),
        better=_known(found.mean),
        low=_known(found.low),
        high=_known(found.high),
    )


def _decide(test: ABTest, others: Sequence[Comparison], first: str) -> tuple[ABDecision, str | None, str]:
    bounded = [each for each in others if each.low is not None and each.high is not None]
    told = "; ".join(map(_told, others))
    if len(bounded) < len(others):
        return ABDecision.CONTINUE, None, f"{told}: values do not differ yet, which bounds nothing"
    if all(-test.min_effect < low and high < test.min_effect for low, high in map(_ends, bounded)):
        return ABDecision.NO_DIFFERENCE, None, f"{told}: no difference as large as {test.min_effect:.4g}"
    better = [each for each in bounded if _ends(each)[0] > 0 and (each.better or 0) >= test.min_effect]
    if better:
        best = max(better, key=lambda each: each.better or 0)
        return ABDecision.WINNER, best.arm, f"{told}: {best.arm} is better than {first}"
    if all(_ends(each)[1] < 0 for each in bounded):
        return ABDecision.WINNER, first, f"{told}: {first} is better than all others"
    return ABDecision.CONTINUE, None, f"{told}: not sure yet"


def _ends(found: Comparison) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def _told(found: Comparison) -> str:
    if found.better is None or found.low is None or found.high is None:
        return f"{found.arm} cannot be compared"
    return (
        f"{found.arm} is {abs(found.better):.4g} {'better' if found.better >= 0 else 'worse'} "
        f"(always-valid interval of the improvement {found.low:.4g} to {found.high:.4g})"
    )


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
