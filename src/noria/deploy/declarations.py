"""What a project writes about entering an environment: gates, their checks, canaries. Light: no engine."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import timedelta
from typing import Literal

import msgspec

from noria.clock import parse_duration
from noria.errors import ConfigError

__all__ = [
    "ABTest",
    "AtLeast",
    "AtMost",
    "BeatsProduction",
    "Canary",
    "Gate",
    "GateCheck",
    "Latency",
    "NoLeakage",
    "SamplesReproduced",
    "at_least",
    "at_most",
    "beats_production",
    "latency",
    "no_leakage",
    "samples_reproduced",
]

AB_METRICS = ("brier", "conversion", "error_rate", "latency_ms", "log_loss", "value")
LATENCIES = ("p50", "p90", "p99", "mean")
LOSSES = ("auc", "brier", "log_loss")  # what two versions can be paired on


def _checked_duration(text: str, *, setting: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _check_metric(metric: str, *, setting: str) -> None:
    if metric not in LOSSES:
        raise ConfigError(
            f"{setting}: {metric!r} is no metric to compare versions on; use one of {', '.join(LOSSES)}"
        )


def _check_headers(by_header: Mapping[str, Sequence[str]], *, setting: str) -> None:
    for header, values in by_header.items():
        if not header.strip() or isinstance(values, str) or not values:
            raise ConfigError(
                f"{setting} of {header!r} is {values!r}; give the name of a header and a list of its values: "
                '{"x-tester": ["1"]}'
            )


def _check_share(value: float, *, setting: str) -> None:
    if not 0.0 < value < 1.0:
        raise ConfigError(f"{setting} is {value}; it must lie between 0 and 1")


class BeatsProduction(msgspec.Struct, frozen=True, kw_only=True, tag="beats_production"):
    """The challenger must be better than production on the same rows. See `beats_production`."""

    metric: str
    on: str = "14d"
    min_effect: float = 0.0
    confidence: float = 0.95
    tolerance: float = 0.0
    min_rows: int = 100

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _check_metric(self.metric, setting="check.beats_production metric")
        _checked_duration(self.on, setting="check.beats_production on")
        _check_share(self.confidence, setting="check.beats_production confidence")
        if self.tolerance < 0 or self.min_rows < 2:
            raise ConfigError("check.beats_production: tolerance must be 0 or more and min_rows 2 or more")

    @property
    def name(self) -> str:
        """What the check is called in results."""
        return f"beats_production({self.metric})"


class Latency(msgspec.Struct, frozen=True, kw_only=True, tag="latency"):
    """The 99th percentile of the time to answer, in milliseconds, may not pass a limit."""

    p99_ms: float

    @property
    def name(self) -> str:
        """What the check is called in results."""
        return "latency(p99_ms)"


class SamplesReproduced(msgspec.Struct, frozen=True, kw_only=True, tag="samples_reproduced"):
    """The rows stored with the version must give the stored scores again."""

    tolerance: float = 1e-6

    @property
    def name(self) -> str:
        """What the check is called in results."""
        return "samples_reproduced"


class AtLeast(msgspec.Struct, frozen=True, kw_only=True, tag="at_least"):
    """A metric of the version may not fall below a value."""

    metric: str
    value: float

    @property
    def name(self) -> str:
        """What the check is called in results."""
        return f"at_least({self.metric})"


class AtMost(msgspec.Struct, frozen=True, kw_only=True, tag="at_most"):
    """A metric of the version may not pass a value."""

    metric: str
    value: float

    @property
    def name(self) -> str:
        """What the check is called in results."""
        return f"at_most({self.metric})"


class NoLeakage(msgspec.Struct, frozen=True, kw_only=True, tag="no_leakage"):
    """No feature may be suspected of knowing the outcome. See `no_leakage`."""

    allow: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the check is called in results."""
        return "no_leakage"


GateCheck = BeatsProduction | Latency | SamplesReproduced | AtLeast | AtMost | NoLeakage


def beats_production(
    metric: str,
    *,
    on: str = "14d",
    min_effect: float = 0.0,
    confidence: float = 0.95,
    tolerance: float = 0.0,
    min_rows: int = 100,
) -> BeatsProduction:
    """Ask that a version beats production, paired on the same recent held-back rows.

    Passes where the mean improvement is at least `min_effect` **and** the lower end of its two-sided
    bootstrap interval (days resampled whole, because rows of one day are alike) lies above `-tolerance`.
    The first version is compared with always answering the base rate of its training rows.

    Parameters
    ----------
    metric
        `log_loss`, `brier` or `auc`. An improvement is positive for all three.
    on
        How far back the compared rows reach.
    min_effect
        The smallest mean improvement that is worth a change, in units of the metric.
    confidence
        Of the two-sided interval.
    tolerance
        How far below zero the interval may reach. 0 asks for proof; more lets a version in that is
        probably better and surely not much worse, where a canary judges it next.
    min_rows
        With fewer labelled rows the check fails.
    """
    return BeatsProduction(
        metric=metric,
        on=on,
        min_effect=min_effect,
        confidence=confidence,
        tolerance=tolerance,
        min_rows=min_rows,
    )


def latency(*, p99_ms: float) -> Latency:
    """Ask that 99 of 100 answers take at most `p99_ms` milliseconds."""
    return Latency(p99_ms=p99_ms)


def samples_reproduced(*, tolerance: float = 1e-6) -> SamplesReproduced:
    """Ask that the sample rows stored with a version give the stored scores within `tolerance`."""
    return SamplesReproduced(tolerance=tolerance)


def at_least(metric: str, value: float) -> AtLeast:
    """Ask that a metric of the version is `value` or more."""
    return AtLeast(metric=metric, value=value)


def at_most(metric: str, value: float) -> AtMost:
    """Ask that a metric of the version is `value` or less."""
    return AtMost(metric=metric, value=value)


def no_leakage(*, allow: Sequence[str] = ()) -> NoLeakage:
    """Ask that no feature of the training set is suspected of knowing the outcome.

    Fails also where the set's statistics could not be computed.

    Parameters
    ----------
    allow
        Features that somebody has looked at, `<view>__<feature>` or a field's name: they may be suspicious.

    Raises
    ------
    ConfigError
        If `allow` is one text instead of several.
    """
    if isinstance(allow, str):
        raise ConfigError(f"check.no_leakage allow is {allow!r}; give a list of features: [{allow!r}]")
    return NoLeakage(allow=tuple(allow))


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A trial on real traffic: a share of the answers comes from the challenger, both score every row.

    Parameters
    ----------
    share
        The share of predictions that the challenger answers.
    days
        How long it lasts, by the project's clock, before it can be promoted.
    metric
        `log_loss`, `brier` or `auc`.
    max_worse
        How much worse the challenger may be. Worse than this with confidence ends the trial at once.
    confidence
        Of the two-sided bootstrap interval.
    min_rows
        Rows with an outcome that a verdict needs.
    max_days
        When the trial ends at the latest; without enough outcomes by then it is rolled back. Default: four
        times `days`.
    sticky
        What is assigned as a whole, such as the request column `customer_id`, or `header:x-user`; empty: each
        prediction by its id.
    by_header
        Requests with one of these values in a header are always answered by the challenger, such as
        `{"x-tester": ["1"]}`.
    max_error_rate, max_missing_rate
        By how much the share of requests in which the challenger fails, or gives no score for some row, may
        exceed production's; None: not guarded.
    max_latency_ratio, latency
        How many times as long as production the challenger may take, and what of the time is compared; None:
        not guarded.
    guard_confidence
        With this chance a challenger that keeps to these limits is never rolled back by its guard, however
        long the trial lasts and however often it is looked at.
    """

    share: float = 0.2
    days: float = 3.0
    metric: str = "log_loss"
    max_worse: float = 0.005
    confidence: float = 0.95
    min_rows: int = 300
    max_days: float | None = None
    sticky: str = ""
    by_header: dict[str, Sequence[str]] = {}
    max_error_rate: float | None = 0.05
    max_missing_rate: float | None = 0.05
    max_latency_ratio: float | None = None
    latency: Literal["p50", "p90", "p99", "mean"] = "p99"
    guard_confidence: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        _check_share(self.share, setting="Canary share")
        _check_share(self.guard_confidence, setting="Canary guard_confidence")
        for name in ("max_error_rate", "max_missing_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 <= rate < 1.0:
                raise ConfigError(
                    f"Canary {name} is {rate}; it is a share, 0 or more and below 1, or None for no limit"
                )
        if self.max_latency_ratio is not None and self.max_latency_ratio < 1:
            raise ConfigError(
                f"Canary max_latency_ratio is {self.max_latency_ratio}; below 1 it asks for a challenger "
                "that is quicker than production: give 1 or more, or None for no limit"
            )
        if self.latency not in LATENCIES:
            raise ConfigError(f"Canary latency is {self.latency!r}; use one of {', '.join(LATENCIES)}")
        _check_headers(self.by_header, setting="Canary by_header")
        _check_share(self.confidence, setting="Canary confidence")
        _check_metric(self.metric, setting="Canary metric")
        if self.days <= 0 or self.max_worse < 0 or self.min_rows < 2:
            raise ConfigError("Canary: days must be positive, max_worse 0 or more, min_rows 2 or more")
        if self.max_days is not None and self.max_days < self.days:
            raise ConfigError(f"Canary max_days is {self.max_days}; it may not be below days, {self.days}")

    @property
    def last_day(self) -> float:
        """Days after which the trial ends whatever is known."""
        return 4 * self.days if self.max_days is None else self.max_days


class ABTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test of several releases on real traffic, which stops as soon as it is sure.

    Parameters
    ----------
    name
        Salt of the assignment: a test of the same name assigns the same units alike.
    metric
        Of outcomes: `conversion` (0 or 1, more is better), `value` (money, more is better), `log_loss` or
        `brier`; of what releases do: `error_rate` or `latency_ms`.
    min_effect
        The smallest difference that matters, in units of the metric. Where all differences are surely
        smaller, the test ends without a winner.
    weights
        Of the arms, that of the stable release first.
    sticky
        What is assigned as a whole, such as `customer_id` or `header:x-user`; empty: each prediction by its
        id. Several rows of a unit are averaged and count as one.
    confidence
        With this chance no release is called better that is not, however often one looks.
    min_units
        Units that each arm needs before anything is said.
    max_days
        When the test ends at the latest, without a winner.

    Examples
    --------
    >>> test = ABTest(name="spring", metric="conversion", min_effect=0.01, sticky="customer_id")
    >>> test.shares
    (0.5, 0.5)
    """

    name: str
    metric: str
    min_effect: float
    weights: Sequence[float] = (0.5, 0.5)
    sticky: str = ""
    confidence: float = 0.95
    min_units: int = 200
    max_days: float = 28.0

    def __post_init__(self) -> None:
        """Refuse what can never be judged."""
        if self.metric not in AB_METRICS:
            raise ConfigError(
                f"ABTest {self.name!r}: {self.metric!r} is no metric to test on; use one of "
                f"{', '.join(AB_METRICS)}"
            )
        _check_share(self.confidence, setting=f"ABTest {self.name!r} confidence")
        if len(self.weights) < 2 or any(each <= 0 for each in self.weights):
            raise ConfigError(
                f"ABTest {self.name!r} has weights {list(self.weights)}; give two or more, all above 0, that "
                "of the stable release first"
            )
        if not self.name or self.min_effect <= 0 or self.max_days <= 0 or self.min_units < 100:
            raise ConfigError(
                f"ABTest {self.name!r}: it needs a name, min_effect and max_days above 0, and min_units 100 "
                "or more (the intervals rest on the central limit theorem)"
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, so that they add up to one."""
        return tuple(each / sum(self.weights) for each in self.weights)

    @property
    def is_less_better(self) -> bool:
        """Whether a release with a smaller value is better."""
        return self.metric not in ("conversion", "value")


@dataclass(frozen=True, slots=True)
class Gate:
    """What a version has to pass before it enters an environment.

    Parameters
    ----------
    name
        Default: the name of the variable it is declared as.
    checks
        All must pass; see `noria.check`.
    refit
        Whether the version that passed may be refitted on all rows, held-back ones included. The refit is a
        version of its own and is judged by the canary.
    canary
        The trial that follows, or None to promote at once.

    Examples
    --------
    >>> gate = Gate(checks=[beats_production("log_loss"), latency(p99_ms=50)])
    >>> [check.name for check in gate.checks]
    ['beats_production(log_loss)', 'latency(p99_ms)']
    >>> gate.named("production_gate").name
    'production_gate'
    """

    name: str = ""
    _: KW_ONLY
    checks: Sequence[GateCheck]
    refit: bool = False
    canary: Canary | None = None

    def __post_init__(self) -> None:
        """Keep the checks as a tuple; refuse a gate that is always open."""
        object.__setattr__(self, "checks", tuple(self.checks))
        if not self.checks:
            raise ConfigError(
                f"gate {self.name!r} has no checks and would let everything in; give it at least one"
            )
        if self.refit and self.canary is None:
            raise ConfigError(
                f"gate {self.name!r} allows a refit but has no canary, and nothing else judges a refit; "
                "add canary=noria.Canary(...) or take refit away"
            )
        for each in self.checks:
            if not isinstance(each, GateCheck):
                raise ConfigError(
                    f"gate {self.name!r}: {each!r} is no check of a gate; use check.beats_production, "
                    "check.latency, check.no_leakage, check.samples_reproduced, check.at_least "
                    "or check.at_most"
                )

    def named(self, name: str) -> "Gate":
        """Give this gate, called `name` where it has no name of its own."""
        return self if self.name else replace(self, name=name)
