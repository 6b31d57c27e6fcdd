"""What a monitor says of a window, from values alone: no ledger, no clock.

Data come first: a window with bad data is not judged any further, because a quality that fell with the data
is no reason to train on them. Rows of earlier bad windows are left out of the look back for the same reason.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from noria.clock import to_micros
from noria.evaluation.scores import evaluate as all_metrics
from noria.monitoring.data_checks import judge_data_quality, judge_drift, judge_volume
from noria.monitoring.declarations import (
    Calibration,
    DataQuality,
    Drift,
    EstimatedQuality,
    Monitor,
    MonitorCheck,
    Quality,
    Volume,
)
from noria.monitoring.quality_checks import Judgement, judge_calibration, judge_estimate, judge_quality
from noria.monitoring.records import CheckFinding, ColumnFinding, DecayFinding, MonitorReport
from noria.monitoring.window import LabelledRows, Past, WindowData
from noria.profiles.compare import ColumnComparison, compare
from noria.profiles.records import Profile

__all__ = ["judge"]

_LONE_ALPHA = 0.01  # where only data quality is asked for, nothing depends on it


def judge(
    monitor: Monitor,
    window: WindowData,
    *,
    profile: Profile | None,
    reference: Mapping[str, float],
    at: datetime,
    past: Past | None = None,
) -> MonitorReport:
    """Judge a window. Pure: the same values give the same report.

    Parameters
    ----------
    profile
        Of the version's training rows, or None where there is none.
    reference
        The version's metrics when the gate let it in, by name; `estimated_<metric>`, where there is one, is
        what an estimate is compared with.
    past
        What earlier evaluations left behind.

    Raises
    ------
    ValueError
        If arrays that belong together differ in length, or hold something else than outcomes and
        probabilities.
    """
    before, until = past or Past(), to_micros(at)
    since = until - int(monitor.lookback.total_seconds() * 1e6)
    labelled = LabelledRows.of(window, since=since, until=until, past=before)
    columns = _compare(monitor, window, profile)
    metrics = {"rows": float(window.size), "labelled": float(len(labelled))}
    metrics |= {f"drift:{each.column}": each.js for each in columns}
    if len(labelled):
        metrics |= {
            name: value for name, value in all_metrics(labelled.y, labelled.p).items() if name != "rows"
        }
    data = [_judge_data(check, window, columns, before) for check in monitor.checks]
    bad = any(finding is not None and finding.passed is False for finding in data)
    findings: list[CheckFinding] = []
    drift: tuple[ColumnFinding, ...] = ()
    decay: list[DecayFinding] = []
    for check, finding in zip(monitor.checks, data, strict=True):
        streak = before.streaks.get(check.name, 0)
        if finding is not None:
            findings.append(finding)
        elif bad:
            told = "not judged: the window's data are bad"
            findings.append(CheckFinding(name=check.name, passed=None, detail=told, streak=streak))
        elif isinstance(check, Drift):
            found, drift = judge_drift(check, window.size, columns, before=streak)
            findings.append(found)
        else:
            judged = _judge_quality(check, window, labelled, reference, until=until, before=streak)
            findings.append(judged.finding)
            metrics |= judged.metrics
            decay += [judged.decay] if judged.decay else []
    return MonitorReport(
        monitor=monitor.name,
        environment=window.environment,
        deployment=window.deployment,
        version=window.version.id,
        version_ref=window.version.ref,
        at=at,
        rows=window.size,
        labelled=len(labelled),
        bad=bad,
        checks=tuple(findings),
        drift=drift,
        decay=tuple(decay),
        metrics=metrics,
        streaks={each.name: each.streak for each in findings if each.streak},
        reason=_reason(window, labelled, findings),
    )


def _compare(monitor: Monitor, window: WindowData, profile: Profile | None) -> tuple[ColumnComparison, ...]:
    if profile is None or not window.size:
        return ()
    alphas = [check.alpha for check in monitor.checks if isinstance(check, Drift)]
    return compare(profile, window.columns, alpha=min(alphas, default=_LONE_ALPHA))


def _judge_data(
    check: MonitorCheck, window: WindowData, columns: Sequence[ColumnComparison], past: Past
) -> CheckFinding | None:
    """Judge what is about the data alone; None for all other checks."""
    match check:
        case Volume():
            return judge_volume(check, window.size, past=past)
        case DataQuality():
            return judge_data_quality(check, columns)
        case _:
            return None


def _judge_quality(
    check: MonitorCheck,
    window: WindowData,
    labelled: LabelledRows,
    reference: Mapping[str, float],
    *,
    until: int,
    before: int,
) -> Judgement:
    match check:
        case Quality():
            rows = labelled.within(check.window, until=until)
            return judge_quality(check, rows, reference=reference, before=before)
        case Calibration():
            rows = labelled.within(check.window, until=until)
            return judge_calibration(check, rows, before=before)
        case EstimatedQuality():
            scores = window.scores_within(check.window, until=until)
            return judge_estimate(check, scores, reference=reference, before=before)
        case _:
            raise ValueError(f"{check.name} is no check of quality")


def _reason(window: WindowData, labelled: LabelledRows, findings: Sequence[CheckFinding]) -> str:
    wrong = [f"{each.name}: {each.detail}" for each in findings if each.passed is False]
    told = "; ".join(wrong) or "nothing is out of its limits"
    return f"{window.version.ref} with {window.size} rows, {len(labelled)} outcomes: {told}"
