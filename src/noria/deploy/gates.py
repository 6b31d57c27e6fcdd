"""Whether a version may enter an environment: evidence in, a verdict with numbers out, and its record.

`judge` is pure. Comparisons are paired on the same rows and resample whole days (see
`noria.evaluation.intervals`): delays, demand and faults come in days, so that rows of one day say less than
as many rows of many days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from noria.clock import parse_duration
from noria.deploy.declarations import (
    AtLeast,
    AtMost,
    BeatsProduction,
    Gate,
    GateCheck,
    Latency,
    NoLeakage,
    SamplesReproduced,
)
from noria.deploy.origins import corrected_sets
from noria.errors import GateRefused
from noria.evaluation.intervals import Interval, Metric, paired_bootstrap
from noria.features.statistics.records import Suspicion
from noria.ledger.store import Ledger
from noria.records import Event, EventId, Version

__all__ = [
    "CheckResult",
    "GateEvidence",
    "GateResult",
    "enter",
    "find_admission",
    "improvement",
    "judge",
    "require_passed",
]

FloatArray = npt.NDArray[np.float64]
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
_SEED = 20_130_101  # of the bootstrap: the same evidence gives the same interval


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEvidence:
    """What a version is judged on. Arrays of one length, one entry per held-back row.

    Parameters
    ----------
    y
        Outcomes: 1, 0, or NaN where none came (such rows are counted and left out).
    at
        Instants of the rows, microseconds since 1970.
    challenger
        Scores of the version that wants in.
    production
        Scores of the version in production on the same rows, or None where there is none.
    base_rate
        Share of positives among the challenger's training rows: what the first version is compared with.
    data_version
        Reference of the dataset version that the rows came from.
    until
        Where the looking back starts, microseconds since 1970. Default: the newest row.
    latency_ms
        Times to answer, or None where none were measured.
    samples_difference
        The largest absolute difference between the stored scores of the sample rows and those of the model
        as it will be served, or None where they were not compared.
    metrics
        Of the challenger, for `check.at_least` and `check.at_most`.
    suspicions
        Of the challenger's features, or None where they were not looked at.
    """

    y: npt.ArrayLike
    at: npt.ArrayLike
    challenger: npt.ArrayLike
    base_rate: float
    data_version: str
    production: npt.ArrayLike | None = None
    production_version: str | None = None
    until: int | None = None
    latency_ms: npt.ArrayLike | None = None
    samples_difference: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    suspicions: Sequence[Suspicion] | None = None


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a gate: what was found, what was asked, in numbers and in one sentence."""

    name: str
    value: float | None  # None where it could not be found out
    limit: float
    passed: bool
    detail: str
    low: float | None = None  # the interval of `value`, where it has one
    high: float | None = None
    rows: int | None = None


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate says of a version."""

    gate: str
    passed: bool
    checks: tuple[CheckResult, ...]
    data_version: str
    rows: int
    unlabelled: int
    refit_allowed: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """Name each check that failed, with value, limit and data version."""
        return tuple(
            f"{check.name} on {self.data_version}: {check.detail}"
            for check in self.checks
            if not check.passed
        )

    @property
    def reason(self) -> str:
        """The whole verdict in one sentence."""
        if self.passed:
            told = "; ".join(check.detail for check in self.checks)
            return f"passed {self.gate}: {told}"
        return f"refused by {self.gate}: {'; '.join(self.reasons)}"


def judge(gate: Gate, evidence: GateEvidence) -> GateResult:
    """Judge a version by its evidence. Pure: the same evidence gives the same result.

    Raises
    ------
    ValueError
        If the arrays of the evidence differ in length or hold a score that is no probability.

    Examples
    --------
    >>> from noria.deploy.declarations import at_least
    >>> evidence = GateEvidence(y=[1, 0], at=[0, 1], challenger=[0.9, 0.1], base_rate=0.5,
    ...                         data_version="flights:3", metrics={"auc": 0.7})
    >>> judge(Gate("production_gate", checks=[at_least("auc", 0.75)]), evidence).reason
    'refused by production_gate: at_least(auc) on flights:3: auc is 0.7, below the limit 0.75'
    """
    y = np.asarray(evidence.y, dtype=np.float64)
    checks = tuple(_judge_one(check, evidence) for check in gate.checks)
    return GateResult(
        gate=gate.name or "gate",
        passed=all(check.passed for check in checks),
        checks=checks,
        data_version=evidence.data_version,
        rows=int(y.size),
        unlabelled=int(np.isnan(y).sum()),
        refit_allowed=gate.refit,
    )


def improvement(
    metric: str,
    y: npt.ArrayLike,
    new: npt.ArrayLike,
    old: npt.ArrayLike,
    *,
    cluster: npt.ArrayLike | None,
    confidence: float,
) -> Interval:
    """Give how much better `new` is than `old` on the same rows: positive is better for every metric."""
    found = paired_bootstrap(
        cast("Metric", metric), y, new, old, seed=_SEED, cluster=cluster, level=confidence
    )
    if metric == "auc":
        return found
    return Interval(-found.mean, -found.high, -found.low)


def _judge_one(check: GateCheck, evidence: GateEvidence) -> CheckResult:
    match check:
        case BeatsProduction():
            return _judge_comparison(check, evidence)
        case Latency():
            return _judge_latency(check, evidence)
        case SamplesReproduced():
            return _judge_samples(check, evidence)
        case NoLeakage():
            return _judge_leakage(check, evidence)
        case AtLeast() | AtMost():
            return _judge_metric(check, evidence)


def _judge_comparison(check: BeatsProduction, evidence: GateEvidence) -> CheckResult:
    y, new = (np.asarray(each, dtype=np.float64) for each in (evidence.y, evidence.challenger))
    at = np.asarray(evidence.at, dtype=np.int64)
    old, rival = _rival(evidence, rows=y.size)
    if not y.shape == at.shape == new.shape == old.shape:
        shapes = ", ".join(str(each.shape) for each in (y, at, new, old))
        raise ValueError(f"outcomes, instants and scores have shapes {shapes}; wanted equal ones, (n,)")
    until = evidence.until if evidence.until is not None else int(at.max(initial=0))
    since = until - int(parse_duration(check.on).total_seconds() * 1e6)
    known = (at > since) & (at <= until) & ~np.isnan(y)
    rows, days = int(known.sum()), at[known] // DAY_US
    lacking = _what_lacks(check, rows=rows, days=days, y=y[known])
    if lacking:
        return _failed(check.name, check.min_effect, lacking, rows=rows)
    found = improvement(
        check.metric, y[known], new[known], old[known], cluster=days, confidence=check.confidence
    )
    large_enough, sure_enough = found.mean >= check.min_effect, found.low > -check.tolerance
    told = (
        f"{check.metric} is {_shown(abs(found.mean))} {'better' if found.mean >= 0 else 'worse'} than "
        f"{rival} on {rows} rows of {np.unique(days).size} days "
        f"({check.confidence:.0%} interval of the improvement {_shown(found.low)} to {_shown(found.high)})"
    )
    if not large_enough:
        told += f", less than the minimum effect {_shown(check.min_effect)}"
    if not sure_enough:
        told += f", the interval does not stay above {_shown(-check.tolerance if check.tolerance else 0.0)}"
    return CheckResult(
        name=check.name,
        value=found.mean,
        limit=check.min_effect,
        passed=large_enough and sure_enough,
        detail=told,
        low=found.low,
        high=found.high,
        rows=rows,
    )


def _rival(evidence: GateEvidence, *, rows: int) -> tuple[FloatArray, str]:
    """Give what the challenger is compared with: production's scores, or the base rate without any."""
    if evidence.production is None:
        return np.full(rows, evidence.base_rate), f"the base rate {_shown(evidence.base_rate)}"
    named = f" ({evidence.production_version})" if evidence.production_version else ""
    return np.asarray(evidence.production, dtype=np.float64), f"production{named}"


def _what_lacks(
    check: BeatsProduction, *, rows: int, days: npt.NDArray[Any], y: npt.NDArray[Any]
) -> str | None:
    if rows < check.min_rows:
        return f"only {rows} labelled rows in the last {check.on}, {check.min_rows} are needed"
    if np.unique(days).size < 2:
        return f"all {rows} labelled rows are of one day; an interval needs several"
    if check.metric == "auc" and np.unique(y).size < 2:
        return f"all {rows} labelled rows have the same outcome; the AUC needs both"
    return None


def _judge_latency(check: Latency, evidence: GateEvidence) -> CheckResult:
    times = np.asarray([] if evidence.latency_ms is None else evidence.latency_ms, dtype=np.float64)
    if not times.size:
        return _failed(check.name, check.p99_ms, "no answer was timed")
    p99 = float(np.quantile(times, 0.99))
    passed = p99 <= check.p99_ms
    told = (
        f"99 % of {times.size} answers took at most {_shown(p99)} ms, "
        f"{_side(passed)} {_shown(check.p99_ms)} ms"
    )
    return CheckResult(name=check.name, value=p99, limit=check.p99_ms, passed=passed, detail=told)


def _judge_samples(check: SamplesReproduced, evidence: GateEvidence) -> CheckResult:
    found = evidence.samples_difference
    if found is None or np.isnan(found):
        return _failed(check.name, check.tolerance, "the stored sample rows were not scored again")
    passed = found <= check.tolerance
    told = f"stored sample rows differ by at most {found:.3g}, {_side(passed)} {check.tolerance:.3g}"
    return CheckResult(name=check.name, value=found, limit=check.tolerance, passed=passed, detail=told)


def _judge_leakage(check: NoLeakage, evidence: GateEvidence) -> CheckResult:
    if evidence.suspicions is None:
        told = "the features were not looked at; see the model's event features.unmeasured, or train it again"
        return _failed(check.name, 0.0, told)
    found = [each for each in evidence.suspicions if each.feature not in check.allow]
    if not found:
        allowed = len(evidence.suspicions)
        told = "no feature is suspicious" + (f" but what is allowed, {allowed} times" if allowed else "")
        return CheckResult(name=check.name, value=0.0, limit=0.0, passed=True, detail=told)
    told = "; ".join(f"{each.feature} ({each.rule}): {each.detail}" for each in found)
    return CheckResult(name=check.name, value=found[0].value, limit=found[0].limit, passed=False, detail=told)


def _judge_metric(check: AtLeast | AtMost, evidence: GateEvidence) -> CheckResult:
    found = evidence.metrics.get(check.metric)
    if found is None or np.isnan(found):
        known = ", ".join(sorted(evidence.metrics)) or "none at all"
        return _failed(check.name, check.value, f"there is no metric {check.metric}; known: {known}")
    floor = isinstance(check, AtLeast)
    passed = found >= check.value if floor else found <= check.value
    side = ("not below" if passed else "below") if floor else ("not above" if passed else "above")
    told = f"{check.metric} is {_shown(found)}, {side} the limit {_shown(check.value)}"
    return CheckResult(name=check.name, value=float(found), limit=check.value, passed=passed, detail=told)


def _failed(name: str, limit: float, detail: str, *, rows: int | None = None) -> CheckResult:
    return CheckResult(name=name, value=None, limit=limit, passed=False, detail=detail, rows=rows)


def _side(passed: bool) -> str:
    return "within the limit" if passed else "above the limit"


def _shown(value: float) -> str:
    return f"{value:.4g}"


def enter(
    ledger: Ledger,
    gate: Gate,
    result: GateResult,
    *,
    version: Version,
    environment: str,
    cause: EventId | None = None,
    key: str | None = None,
    at: datetime | None = None,
) -> Event:
    """Record what a gate said of `version`: an event `gate.passed` or `gate.refused`.

    Whatever the gate checks, a version that was made from a corrected training set is refused. The same key
    again gives the event that is there. The event of a version that passed is its admission:
    `noria.deploy.environments` deploys the digest it names and no other.

    Raises
    ------
    Conflict
        If the key was used for another version or verdict.
    """
    result = _with_origin(ledger, version, result)
    verb = "gate.passed" if result.passed else "gate.refused"
    payload = {
        "gate": gate.name or "gate",
        "environment": environment,
        "version": version.id,
        "digest": version.sha256,
        "checks": msgspec.to_builtins(result.checks),
        "data_version": result.data_version,
        "rows": result.rows,
        "unlabelled": result.unlabelled,
        "refit_allowed": result.refit_allowed,
        "reason": f"{version.ref} {result.reason} (for {environment})",
    }
    return ledger.append(verb, subject=version.ref, payload=payload, cause=cause, key=key, at=at)


def _with_origin(ledger: Ledger, version: Version, result: GateResult) -> GateResult:
    """Add the check that every gate has: nothing was learned from what was not known then."""
    sets = corrected_sets(ledger, version)
    if not sets:
        return result
    told = (
        f"it was made from {', '.join(each.ref for each in sets)}, whose features are corrected: they hold "
        "what became known later. Train it on a training set without corrected=True"
    )
    failed = _failed("known_then", 0.0, told)
    return msgspec.structs.replace(result, passed=False, checks=(*result.checks, failed))


def require_passed(event: Event) -> Event:
    """Give the event back if it let the version in.

    Raises
    ------
    GateRefused
        If it did not, naming each check that failed with value, limit and data version.
    """
    if event.verb == "gate.passed":
        return event
    data = event.payload["data_version"]
    reasons = [
        f"{check['name']} on {data}: {check['detail']}"
        for check in event.payload["checks"]
        if not check["passed"]
    ]
    raise GateRefused(event.subject, event.payload["environment"], reasons)


def find_admission(ledger: Ledger, version: Version, *, environment: str) -> Event | None:
    """Find the event by which the gate of `environment` let this very digest in.

    The newest judgement counts: a version that was refused later is out.
    """
    for event in ledger.list_events(verb="gate.*", subject=version.ref, newest_first=True):
        if event.payload["environment"] == environment and event.payload["digest"] == version.sha256:
            return event if event.verb == "gate.passed" else None
    return None
