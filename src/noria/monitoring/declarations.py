"""What a project writes about watching a model in production. Light: no engine.

How each check judges, and how often it is wrong, is said at its function.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Protocol

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError

__all__ = [
    "Calibration",
    "DataQuality",
    "Drift",
    "EstimatedQuality",
    "Monitor",
    "MonitorCheck",
    "Named",
    "Quality",
    "Volume",
    "calibration",
    "data_quality",
    "drift",
    "estimated_quality",
    "quality",
    "volume",
]

METRICS = ("auc", "brier", "log_loss")
ESTIMABLE = ("auc", "log_loss")


class Named(Protocol):
    """Anything declared under a name, such as a training."""

    @property
    def name(self) -> str:
        """The name it is declared under."""
        ...


def _checked_duration(text: str, *, setting: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


class Volume(msgspec.Struct, frozen=True, kw_only=True, tag="volume"):
    """The day's rows against the median of the days before. See `volume`."""

    low: float = 0.5
    high: float = 2.0
    history: int = 28
    min_days: int = 7

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _require(
            0 <= self.low < 1 < self.high and 0 < self.min_days <= self.history,
            "check.volume: low must be below 1 and high above, min_days between 1 and history",
        )

    @property
    def name(self) -> str:
        """What the check is called in reports."""
        return "volume"


class DataQuality(msgspec.Struct, frozen=True, kw_only=True, tag="data_quality"):
    """Missing values and unseen categories against the training profile. See `data_quality`."""

    max_missing_rise: float = 0.25
    max_unseen: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _require(
            0 <= self.max_missing_rise <= 1 and 0 <= self.max_unseen <= 1,
            "check.data_quality: shares lie between 0 and 1",
        )

    @property
    def name(self) -> str:
        """What the check is called in reports."""
        return "data_quality"


class Drift(msgspec.Struct, frozen=True, kw_only=True, tag="drift"):
    """The day's distributions against the training profile. See `drift`."""

    alpha: float = 0.01
    days: int = 1
    min_rows: int = 100

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _require(
            0 < self.alpha < 1 and self.days >= 1 and self.min_rows >= 1,
            "check.drift: alpha lies between 0 and 1; days and min_rows are 1 or more",
        )

    @property
    def name(self) -> str:
        """What the check is called in reports."""
        return "drift"


class Quality(msgspec.Struct, frozen=True, kw_only=True, tag="quality"):
    """A metric of the outcomes against the reference of the gate. See `quality`."""

    metric: str
    window: str = "14d"
    max_drop: float = 0.01
    confidence: float = 0.95
    days: int = 1
    min_rows: int = 1_000

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _require(self.metric in METRICS, f"check.quality: {self.metric!r} is none of {', '.join(METRICS)}")
        _checked_duration(self.window, setting="check.quality window")
        _require(
            self.max_drop >= 0 and 0.5 <= self.confidence < 1 and self.days >= 1 and self.min_rows >= 2,
            "check.quality: max_drop 0 or more, confidence in [0.5, 1), days 1 or more, min_rows 2 or more",
        )

    @property
    def name(self) -> str:
        """What the check is called in reports."""
        return f"quality({self.metric})"


class Calibration(msgspec.Struct, frozen=True, kw_only=True, tag="calibration"):
    """Predicted over observed positives. See `calibration`."""

    low: float = 0.8
    high: float = 1.25
    window: str = "7d"
    days: int = 1
    min_rows: int = 1_000

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _checked_duration(self.window, setting="check.calibration window")
        _require(
            0 <= self.low < 1 < self.high and self.days >= 1 and self.min_rows >= 2,
            "check.calibration: low must be below 1 and high above, days 1 or more, min_rows 2 or more",
        )

    @property
    def name(self) -> str:
        """What the check is called in reports."""
        return "calibration"


class EstimatedQuality(msgspec.Struct, frozen=True, kw_only=True, tag="estimated_quality"):
    """A metric estimated from the scores alone. See `estimated_quality`."""

    metric: str = "auc"
    window: str = "14d"
    max_drop: float = 0.03
    days: int = 3
    min_rows: int = 1_000

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _require(
            self.metric in ESTIMABLE,
            f"check.estimated_quality: {self.metric!r} is none of {', '.join(ESTIMABLE)}",
        )
        _checked_duration(self.window, setting="check.estimated_quality window")
        _require(
            self.max_drop >= 0 and self.days >= 1 and self.min_rows >= 2,
            "check.estimated_quality: max_drop is 0 or more, days 1 or more, min_rows 2 or more",
        )

    @property
    def name(self) -> str:
        """What the check is called in reports."""
        return f"estimated_quality({self.metric})"


MonitorCheck = Volume | DataQuality | Drift | Quality | Calibration | EstimatedQuality


def volume(*, low: float = 0.5, high: float = 2.0, history: int = 28, min_days: int = 7) -> Volume:
    """Watch the number of rows: a day outside `low` to `high` times the median of the last days is bad data.

    Not judged before `min_days` days are known. Bad days do not enter the median.
    """
    return Volume(low=low, high=high, history=history, min_days=min_days)


def data_quality(*, max_missing_rise: float = 0.25, max_unseen: float = 0.25) -> DataQuality:
    """Watch for missing values and unseen categories: a column beyond a limit makes the day bad data.

    Parameters
    ----------
    max_missing_rise
        How far the missing share of a column may rise above that of the training profile.
    max_unseen
        The largest share of values that training never saw in a category column.
    """
    return DataQuality(max_missing_rise=max_missing_rise, max_unseen=max_unseen)


def drift(*, alpha: float = 0.01, days: int = 1, min_rows: int = 100) -> Drift:
    """Watch the distributions of the columns against the stored profile: an alert, never a retraining.

    Parameters
    ----------
    alpha
        The share of unchanged windows in which at least one column is called drifted: over **all** columns
        together (Holm), not per column. With a window a day, `365 * alpha` false alarms a year are expected
        at most.
    days
        Windows in a row that must show drift before it is reported; k of them bring the rate below `alpha`.
    min_rows
        With fewer rows the check is not judged.
    """
    return Drift(alpha=alpha, days=days, min_rows=min_rows)


def quality(
    metric: str,
    *,
    window: str = "14d",
    max_drop: float = 0.01,
    confidence: float = 0.95,
    days: int = 1,
    min_rows: int = 1_000,
) -> Quality:
    """Watch a metric of the outcomes that arrived: a drop beyond the reference is (realized) decay.

    Decay is found where the metric is worse than the reference that the gate recorded by more than
    `max_drop`, and the drop is above zero with one-sided `confidence` by an error that counts days, not rows.

    Parameters
    ----------
    metric
        `log_loss`, `brier` or `auc`.
    window
        How far back the judged predictions reach.
    max_drop
        In units of the metric; positive means worse for all three.
    confidence
        0.5 asks for `max_drop` only.
    days
        Evaluations in a row that must find it.
    min_rows
        With fewer labelled rows the check is not judged.
    """
    return Quality(
        metric=metric, window=window, max_drop=max_drop, confidence=confidence, days=days, min_rows=min_rows
    )


def calibration(
    *, low: float = 0.8, high: float = 1.25, window: str = "7d", days: int = 1, min_rows: int = 1_000
) -> Calibration:
    """Watch predicted over observed positives: outside `low` to `high` is (realized) decay.

    `days` evaluations in a row must find it, over a trailing `window` each.
    """
    return Calibration(low=low, high=high, window=window, days=days, min_rows=min_rows)


def estimated_quality(
    metric: str = "auc",
    *,
    window: str = "14d",
    max_drop: float = 0.03,
    days: int = 3,
    min_rows: int = 1_000,
) -> EstimatedQuality:
    """Watch a metric estimated from scores alone, before outcomes are in: a drop is (estimated) decay.

    Confidence-based: it trusts the scores to be calibrated and cannot see a change of the relation between
    features and outcome. Use it beside `quality`, never instead. The reference is the same estimate on the
    rows that the gate held back, so `window` should be about as long as those reach: an AUC over many unlike
    days is higher than that of any one of them.
    """
    return EstimatedQuality(metric=metric, window=window, max_drop=max_drop, days=days, min_rows=min_rows)


@dataclass(frozen=True, slots=True)
class Monitor:
    """How a model is watched.

    Parameters
    ----------
    training
        What made the model.
    every
        How often it is evaluated.
    checks
        See `noria.check`. Default: volume, data quality, drift and log loss.
    window
        The longest look back over labelled rows; checks may look back less.
    name
        Default: the name of the training.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> watch = Monitor(SimpleNamespace(name="late_arrival"), checks=[drift(), quality("log_loss")])
    >>> watch.name, [check.name for check in watch.checks]
    ('late_arrival', ['drift', 'quality(log_loss)'])
    """

    training: Named
    _: KW_ONLY
    every: str = "1d"
    checks: Sequence[MonitorCheck] = (Volume(), DataQuality(), Drift(), Quality(metric="log_loss"))
    window: str = "14d"
    name: str = ""

    def __post_init__(self) -> None:
        """Name it, keep the checks as a tuple, refuse what can never be judged."""
        object.__setattr__(self, "checks", tuple(self.checks))
        object.__setattr__(self, "name", self.name or self.training.name)
        _checked_duration(self.every, setting=f"monitor {self.name!r} every")
        longest = _checked_duration(self.window, setting=f"monitor {self.name!r} window")
        seen: set[str] = set()
        for each in self.checks:
            if not isinstance(each, MonitorCheck):
                raise ConfigError(
                    f"monitor {self.name!r}: {each!r} is no check of a monitor; use check.volume, "
                    "check.data_quality, check.drift, check.quality, check.calibration or "
                    "check.estimated_quality"
                )
            if each.name in seen:
                raise ConfigError(f"monitor {self.name!r} has {each.name} twice; keep one")
            seen.add(each.name)
            if (
                isinstance(each, Quality | Calibration | EstimatedQuality)
                and parse_duration(each.window) > longest
            ):
                raise ConfigError(
                    f"monitor {self.name!r}: {each.name} looks back {each.window}, the monitor only "
                    f"{self.window}; make the monitor's window as long"
                )

    @property
    def every_s(self) -> float:
        """Seconds between two evaluations."""
        return parse_duration(self.every).total_seconds()

    @property
    def lookback(self) -> timedelta:
        """How far back labelled rows are needed."""
        return parse_duration(self.window)
