"""Checks of the traffic itself: how much came, whether it is sound, whether it looks as in training."""

from collections.abc import Sequence
from statistics import median

from noria.monitoring.declarations import DataQuality, Drift, Volume
from noria.monitoring.records import CheckFinding, ColumnFinding
from noria.monitoring.window import Past
from noria.profiles.compare import ColumnComparison

__all__ = ["judge_data_quality", "judge_drift", "judge_volume"]

_SHOWN = 5  # drifted columns that the sentence names; the report holds all


def judge_volume(check: Volume, rows: int, *, past: Past) -> CheckFinding:
    """Judge the number of rows by the median of earlier windows."""
    volumes = past.volumes[: check.history]
    if len(volumes) < check.min_days:
        told = f"{len(volumes)} windows are known, {check.min_days} are needed"
        return CheckFinding(name=check.name, passed=None, detail=told, value=float(rows))
    usual = float(median(volumes))
    low, high = check.low * usual, check.high * usual
    passed = low <= rows <= high
    told = (
        f"{rows} rows are {'within' if passed else 'outside'} {low:.0f} to {high:.0f} "
        f"(the median of {len(volumes)} windows is {usual:.0f})"
    )
    limit = low if rows < usual else high
    return CheckFinding(name=check.name, passed=passed, detail=told, value=float(rows), limit=limit)


def judge_data_quality(check: DataQuality, columns: Sequence[ColumnComparison]) -> CheckFinding:
    """Judge missing values and unseen categories by what training saw."""
    if not columns:
        return CheckFinding(
            name=check.name, passed=None, detail="there are no rows, or no profile of training"
        )
    missing = [
        f"{each.column} is missing in {each.missing:.1%} of rows, in training in {each.usual_missing:.1%}"
        for each in columns
        if each.missing - each.usual_missing > check.max_missing_rise
    ]
    unseen = [
        f"{each.unseen:.1%} of {each.column} was never seen in training"
        for each in columns
        if each.unseen > check.max_unseen
    ]
    rise = max(each.missing - each.usual_missing for each in columns)
    strange = max(each.unseen for each in columns)
    value, limit = (strange, check.max_unseen) if unseen and not missing else (rise, check.max_missing_rise)
    told = "; ".join((*missing, *unseen)) or (
        f"missing values rose by at most {max(rise, 0.0):.1%}, unseen categories reach {strange:.1%}"
    )
    return CheckFinding(
        name=check.name, passed=not (missing or unseen), detail=told, value=value, limit=limit
    )


def judge_drift(
    check: Drift, rows: int, columns: Sequence[ColumnComparison], *, before: int
) -> tuple[CheckFinding, tuple[ColumnFinding, ...]]:
    """Judge the distributions; `before` counts the windows in a row that showed drift until now."""
    if rows < check.min_rows or not columns:
        told = f"{rows} rows in {len(columns)} profiled columns are too few"
        return CheckFinding(name=check.name, passed=None, detail=told, streak=before), ()
    drifted = sorted(
        (each for each in columns if each.drifted), key=lambda each: each.js - each.threshold, reverse=True
    )
    streak = before + 1 if drifted else 0
    found = bool(drifted) and streak >= check.days
    told = f"{len(drifted)} of {len(columns)} columns do not look as in training"
    if drifted:
        told += f" ({'; '.join(f'{each.column}: {each.detail}' for each in drifted[:_SHOWN])})"
    if drifted and not found:
        told += f", in {streak} of {check.days} windows in a row"
    told += f"; unchanged windows show any in at most {check.alpha:.2%} of cases"
    finding = CheckFinding(
        name=check.name, passed=not found, detail=told, value=float(len(drifted)), limit=0.0, streak=streak
    )
    columns_found = tuple(
        ColumnFinding(column=each.column, value=each.js, limit=each.threshold, detail=each.detail)
        for each in drifted
    )
    return finding, columns_found if found else ()
