"""Keep or roll back: what a trial on real traffic says of the challenger, and its record.

`verdict` is pure. Both versions scored every row of the trial, so the comparison is paired; a trial lasts
days, not weeks, so hours are resampled whole rather than days.
"""

from datetime import datetime
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from noria.clock import to_micros
from noria.deploy.declarations import Canary
from noria.deploy.gates import HOUR_US, improvement
from noria.ledger.store import Ledger
from noria.records import Event, EventId, Version

__all__ = ["CanaryDecision", "CanaryVerdict", "record_verdict", "verdict"]

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
    hours = instants[known] // HOUR_US
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


def _without_comparison(canary: Canary, *, rows: int, days: float) -> CanaryVerdict:
    over = days >= canary.last_day
    told = f"after {days:.3g} days {rows} outcomes are known, {canary.min_rows} of several hours are needed"
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
