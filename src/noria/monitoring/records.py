"""What an evaluation finds, as values."""

from datetime import datetime

import msgspec

from noria.records import VersionId

__all__ = ["CheckFinding", "ColumnFinding", "DecayFinding", "MonitorReport"]


class CheckFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one evaluation, in numbers and in one sentence."""

    name: str
    passed: bool | None  # None: not judged, `detail` says why
    detail: str
    value: float | None = None
    limit: float | None = None
    streak: int = 0  # evaluations in a row that found it out of its limit


class ColumnFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A column that does not look as it did in training."""

    column: str
    value: float
    limit: float
    detail: str


class DecayFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A quality that fell beyond its limit."""

    kind: str  # "realized" or "estimated"
    metric: str
    value: float
    limit: float
    reference: float | None
    window: str
    rows: int
    streak: int
    reason: str


class MonitorReport(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of one monitor."""

    monitor: str
    environment: str
    deployment: str
    version: VersionId
    version_ref: str
    at: datetime
    rows: int
    labelled: int  # rows with an outcome in the monitor's window
    bad: bool  # bad data: nothing else was judged
    checks: tuple[CheckFinding, ...]
    drift: tuple[ColumnFinding, ...]
    decay: tuple[DecayFinding, ...]
    metrics: dict[str, float]
    streaks: dict[str, int]
    reason: str
