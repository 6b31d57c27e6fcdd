"""Keep or roll back: what a trial on real traffic says of the challenger, and its record.

`verdict` and `verdict_at_any_time` are pure. Both versions scored every row of the trial, so the comparison
is paired; a trial lasts days, not weeks, so hours are resampled whole rather than days, and of a trial that
is shorter than a day its 24 parts.
"""

from datetime import datetime
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from noria.clock import to_micros
from noria.deploy.declarations import Canary
from noria.deploy.gates import HOUR_US, improvement
from noria.evaluation.scores import brier_losses, log_losses
from noria.evaluation.sequential import Moments, mean
from noria.ledger.store import Ledger
from noria.records import Event, EventId, Version

__all__ = ["CanaryDecision", "CanaryVerdict", "record_verdict", "verdict", "verdict_at_any_time"]

_DAY_US = 24 * HOUR_US


class CanaryDecision(StrEnum):
    """What to do with the challenger."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    CONTINUE = "continue"


class CanaryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the trial says so far: the decision, its numbers, and why, in one sentence."""

    decision: CanaryDecision
    reason: str
    metric: str
    rows: int  # scored by both, outcome known
    days: float  # since the trial began
    worse: float | None = None  # mean worsening, in units of the metric; below zero is better
    low: float | None = None
    high: float | None = None
    limit: float = 0.0


def verdict(
    canary: Canary,
    *,
    y: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    at: npt.ArrayLike,
    started_at: datetime,
    now: datetime,
) -> CanaryVerdict:
    """Judge a trial by the outcomes known so far.

    - Worse than `max_worse` with confidence (the whole interval lies beyond it): roll back at once.
    - After `days` days and `min_rows` outcomes: promote if the mean worsening is at most `max_worse`, else
      roll back; doubt goes to what is in production.
    - After `max_days` days without enough outcomes: roll back.
    - Otherwise: continue.

    Parameters
    ----------
    canary
        The declaration.
    y, champion, challenger, at
        One entry per row of the trial: outcome (NaN where none is known), both scores (NaN where one did
        not score), instant in microseconds since 1970.
    started_at, now
        By the project's clock.

    Examples
    --------
    >>> from noria.clock import from_micros
    >>> start = from_micros(0)
    >>> verdict(Canary(days=3), y=[], champion=[], challenger=[], at=[], started_at=start,
    ...         now=from_micros(2 * 86_400_000_000)).decision
    <CanaryDecision.CONTINUE: 'continue'>
    """
    outcomes, old, new = (np.asarray(each, dtype=np.float64) for each in (y, champion, challenger))
    instants = np.asarray(at, dtype=np.int64)
    known = ~(np.isnan(outcomes) | np.isnan(old) | np.isnan(new)) & (instants >= to_micros(started_at))
    known &= instants <= to_micros(now)
    rows, days = int(known.sum()), (to_micros(now) - to_micros(started_at)) / _DAY_US
    hours = instants[known] // _part_us(canary)
    if rows < canary.min_rows or np.unique(hours).size < 2 or np.unique(outcomes[known]).size < 2:
        return _without_comparison(canary, rows=rows, days=days)
    better = improvement(
        canary.metric, outcomes[known], new[known], old[known], cluster=hours, confidence=canary.confidence
    )
    worse, low, high = -better.mean, -better.high, -better.low
    told = (
        f"after {days:.3g} days and {rows} outcomes the challenger's {canary.metric} is {abs(worse):.4g} "
        f"{'worse' if worse > 0 else 'better'} ({canary.confidence:.0%} interval of the worsening {low:.4g} "
        f"to {high:.4g}, limit {canary.max_worse:.4g})"
    )
    if low > canary.max_worse:
        decision, told = CanaryDecision.ROLLBACK, f"{told}: worse beyond the limit with confidence"
    elif days < canary.days:
        decision, told = CanaryDecision.CONTINUE, f"{told}: {canary.days:.3g} days are asked for"
    elif worse <= canary.max_worse:
        decision, told = CanaryDecision.PROMOTE, f"{told}: within the limit"
    else:
        decision, told = CanaryDecision.ROLLBACK, f"{told}: beyond the limit at the end of the trial"
    return CanaryVerdict(
        decision=decision,
        reason=told,
        metric=canary.metric,
        rows=rows,
        days=days,
        worse=worse,
        low=low,
        high=high,
        limit=canary.max_worse,
    )


def verdict_at_any_time(
    canary: Canary,
    *,
    y: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    at: npt.ArrayLike,
    started_at: datetime,
    now: datetime,
) -> CanaryVerdict:
    """Judge as `verdict` does, however often: what ends a trial early has to hold at all looks together.

    Before `days` are over the challenger is rolled back only where it is worse by an always-valid bound too
    (`noria.evaluation.sequential`). An AUC is no mean of rows and has no such bound: it is judged at the end.

    Raises
    ------
    ValueError
        If outcomes are not 0 and 1, or scores no probabilities.
    """
    found = verdict(
        canary, y=y, champion=champion, challenger=challenger, at=at, started_at=started_at, now=now
    )
    if found.decision is not CanaryDecision.ROLLBACK or found.low is None or found.days >= canary.days:
        return found
    outcomes, old, new = (np.asarray(each, dtype=np.float64) for each in (y, champion, challenger))
    instants = np.asarray(at, dtype=np.int64)
    known = ~(np.isnan(outcomes) | np.isnan(old) | np.isnan(new)) & (instants >= to_micros(started_at))
    known &= instants <= to_micros(now)
    if canary.metric == "auc":
        return msgspec.structs.replace(
            found,
            decision=CanaryDecision.CONTINUE,
            reason=f"{found.reason}, and an AUC is judged after {canary.days:.3g} days",
        )
    losses = log_losses if canary.metric == "log_loss" else brier_losses
    worsening = losses(outcomes[known], new[known]) - losses(outcomes[known], old[known])
    bound = mean(Moments.of(worsening), alpha=1 - canary.confidence).low
    told = f"{found.reason}; however often one looks it is at least {bound:.4g} worse"
    if bound > canary.max_worse:
        return msgspec.structs.replace(found, reason=told)
    return msgspec.structs.replace(
        found, decision=CanaryDecision.CONTINUE, reason=f"{told}, which is within the limit yet"
    )


def _part_us(canary: Canary) -> int:
    """Give the length of what is resampled whole: an hour, or less where the trial is shorter than a day."""
    return max(1, min(HOUR_US, int(canary.days * _DAY_US / 24)))


def _without_comparison(canary: Canary, *, rows: int, days: float) -> CanaryVerdict:
    over = days >= canary.last_day
    spans = "hours" if _part_us(canary) == HOUR_US else f"spans of {_part_us(canary) / 6e7:.3g} minutes"
    told = f"after {days:.3g} days {rows} outcomes are known, {canary.min_rows} of several {spans} are needed"
    if over:
        told += f"; the trial ends after {canary.last_day:.3g} days and production stays"
    return CanaryVerdict(
        decision=CanaryDecision.ROLLBACK if over else CanaryDecision.CONTINUE,
        reason=told,
        metric=canary.metric,
        rows=rows,
        days=days,
        limit=canary.max_worse,
    )


_VERBS = {
    CanaryDecision.PROMOTE: "canary.passed",
    CanaryDecision.ROLLBACK: "canary.failed",
    CanaryDecision.CONTINUE: "canary.continued",
}


def record_verdict(
    ledger: Ledger,
    found: CanaryVerdict,
    *,
    challenger: Version,
    environment: str,
    deployment: str,
    cause: EventId | None = None,
    key: str | None = None,
    at: datetime | None = None,
) -> Event:
    """Record a verdict as an event `canary.passed`, `canary.failed` or `canary.continued`.

    The same key again gives the event that is there: act on its verb, not on a verdict found anew.

    Parameters
    ----------
    challenger
        The release on trial.
    cause
        The event that started the trial.
    """
    payload = {
        "environment": environment,
        "deployment": deployment,
        "release": challenger.id,
        **msgspec.to_builtins(found),
        "reason": f"canary of {challenger.ref} in {environment}/{deployment}: {found.reason}",
    }
    return ledger.append(
        _VERBS[found.decision], subject=challenger.ref, payload=payload, cause=cause, key=key, at=at
    )
