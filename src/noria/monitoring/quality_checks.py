"""Checks of how good the scores are: by outcomes that arrived, and by the scores alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import msgspec
import numpy as np
import numpy.typing as npt

from noria.evaluation.estimates import estimated_auc, estimated_log_loss
from noria.monitoring.declarations import Calibration, EstimatedQuality, Quality
from noria.monitoring.quality import measure
from noria.monitoring.records import CheckFinding, DecayFinding
from noria.monitoring.window import LabelledRows

__all__ = ["Judgement", "judge_calibration", "judge_estimate", "judge_quality"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a check found, the metric that it computed, and the decay, if it is one."""

    finding: CheckFinding
    metrics: Mapping[str, float]
    decay: DecayFinding | None = None


def judge_quality(
    check: Quality, rows: LabelledRows, *, reference: Mapping[str, float], before: int
) -> Judgement:
    """Judge a metric of the rows by the reference; `before` counts how often in a row it was out so far."""
    usual = reference.get(check.metric)
    lacking = _what_lacks(rows, check.min_rows, needs_both=check.metric == "auc")
    if usual is None or lacking:
        return _unjudged(
            check.name, lacking or f"the gate recorded no {check.metric} to compare with", before
        )
    found = measure(check.metric, rows.y, rows.p, cluster=rows.days)
    limit, drop = _limit_and_drop(check.metric, found.value, usual, check.max_drop)
    margin = NormalDist().inv_cdf(check.confidence) * found.error if check.confidence > 0.5 else 0.0
    told = (
        f"{check.metric} of the last {check.window} is {found.value:.4g} (± {found.error:.2g}) "
        f"on {len(rows)} rows, the limit {limit:.4g}, at the gate it was {usual:.4g}"
    )
    decay = DecayFinding(
        kind="realized",
        metric=check.metric,
        value=found.value,
        limit=limit,
        reference=usual,
        window=check.window,
        rows=len(rows),
        streak=0,
        reason=told,
    )
    out = drop > check.max_drop and drop > margin
    metrics = {
        f"{check.metric}_{check.window}": found.value,
        f"{check.metric}_{check.window}_error": found.error,
    }
    return _judged(check.name, decay, out=out, days=check.days, before=before, metrics=metrics)


def judge_calibration(check: Calibration, rows: LabelledRows, *, before: int) -> Judgement:
    """Judge predicted over observed positives by the two limits."""
    lacking = _what_lacks(rows, check.min_rows, needs_both=True)
    if lacking:
        return _unjudged(check.name, lacking, before)
    ratio = float(rows.p.sum() / rows.y.sum())
    out = not check.low <= ratio <= check.high
    told = (
        f"predicted over observed positives of the last {check.window} is {ratio:.4g} on {len(rows)} rows, "
        f"{'outside' if out else 'within'} {check.low:.4g} to {check.high:.4g}"
    )
    decay = DecayFinding(
        kind="realized",
        metric="calibration",
        value=ratio,
        limit=check.low if ratio < 1 else check.high,
        reference=1.0,
        window=check.window,
        rows=len(rows),
        streak=0,
        reason=told,
    )
    metrics = {f"calibration_{check.window}": ratio}
    return _judged(check.name, decay, out=out, days=check.days, before=before, metrics=metrics)


def judge_estimate(
    check: EstimatedQuality,
    scores: npt.NDArray[np.float64],
    *,
    reference: Mapping[str, float],
    before: int,
) -> Judgement:
    """Judge a metric estimated from the window's scores by the reference."""
    known = scores[~np.isnan(scores)]
    usual = reference.get(f"estimated_{check.metric}", reference.get(check.metric))
    if known.size < check.min_rows:
        return _unjudged(check.name, f"{known.size} scores, {check.min_rows} are needed", before)
    if usual is None:
        return _unjudged(check.name, f"the gate recorded no {check.metric} to compare with", before)
    value = estimated_auc(known) if check.metric == "auc" else estimated_log_loss(known)
    limit, drop = _limit_and_drop(check.metric, value, usual, check.max_drop)
    told = (
        f"{check.metric} estimated from the {known.size} scores of the last {check.window} is {value:.4g}, "
        f"the limit {limit:.4g}, at the gate it was {usual:.4g}"
    )
    decay = DecayFinding(
        kind="estimated",
        metric=check.metric,
        value=value,
        limit=limit,
        reference=usual,
        window=check.window,
        rows=int(known.size),
        streak=0,
        reason=told,
    )
    metrics = {f"estimated_{check.metric}": value}
    return _judged(
        check.name, decay, out=drop > check.max_drop, days=check.days, before=before, metrics=metrics
    )


def _limit_and_drop(metric: str, value: float, usual: float, max_drop: float) -> tuple[float, float]:
    """Give the limit of a metric, and how much worse than usual its value is."""
    if metric == "auc":
        return usual - max_drop, usual - value
    return usual + max_drop, value - usual


def _what_lacks(rows: LabelledRows, min_rows: int, *, needs_both: bool) -> str:
    if len(rows) < min_rows:
        return f"{len(rows)} rows have an outcome, {min_rows} are needed"
    if np.unique(rows.days).size < 2:
        return f"all {len(rows)} outcomes are of one day"
    if needs_both and not rows.has_both:
        return f"all {len(rows)} outcomes are the same"
    return ""


def _unjudged(name: str, why: str, before: int) -> Judgement:
    """Leave a check unjudged; the count of times in a row stands where it was."""
    return Judgement(finding=CheckFinding(name=name, passed=None, detail=why, streak=before), metrics={})


def _judged(
    name: str, found: DecayFinding, *, out: bool, days: int, before: int, metrics: Mapping[str, float]
) -> Judgement:
    streak = before + 1 if out else 0
    decayed = out and streak >= days
    told = found.reason
    if out and days > 1:
        told += f", out for {streak} evaluations in a row ({days} are asked for)"
    finding = CheckFinding(
        name=name, passed=not decayed, detail=told, value=found.value, limit=found.limit, streak=streak
    )
    decay = msgspec.structs.replace(found, streak=streak, reason=told) if decayed else None
    return Judgement(finding=finding, metrics=metrics, decay=decay)
