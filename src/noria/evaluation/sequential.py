"""Intervals that hold however often they are looked at, so that a test may stop the moment it is sure.

A 95 % interval of a fixed number of rows is wrong more and more often when one looks after every row and
stops at the first that excludes zero. The intervals here hold at *all* sizes at once: the chance that the
true value is ever outside one of them is at most `alpha`, whenever and for whatever reason one stops. They
are computed from counts and sums, so their cost does not grow with the rows.

`proportion`, `proportion_difference`, `quantile_buckets` and `BoundedMean` hold at every size. `mean` and
`mean_difference` hold asymptotically, as the central limit theorem does: for values of any size, from some
hundred rows on.

References
----------
- H. Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
  Statistics 41 (1970), 1397-1409: mixtures of likelihood ratios.
- S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
  sequences", Annals of Statistics 49 (2021), 1055-1080.
- S. R. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
  identification", Bernoulli 28 (2022), 1704-1728.
- I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal
  Statistical Society B 86 (2024), 1-27.
- I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, "Time-uniform central limit theory and
  asymptotic confidence sequences", Annals of Statistics 52 (2024), 2613-2640.
- C. Jennison, B. W. Turnbull, "Group-sequential analysis incorporating covariate information", Journal of the
  American Statistical Association 92 (1997), 1330-1341: estimates gather information like a Brownian motion.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from noria.evaluation.intervals import Interval

__all__ = [
    "BoundedMean",
    "Moments",
    "mean",
    "mean_difference",
    "proportion",
    "proportion_difference",
    "quantile_buckets",
]

_STEPS = 50  # halvings: 1e-15 of where they begin
_PRIOR = 0.5  # Jeffreys' prior mixes the likelihood ratios of proportions
_ENOUGH = 30  # rows before a central limit is spoken of at all
_BOLDEST = 0.5  # bet of a bounded mean, at most


class Moments(msgspec.Struct, frozen=True):
    """How many values, their sum, and the sum of their squares. Two add up to those of all values.

    Examples
    --------
    >>> both = Moments.of([1.0, 2.0]) + Moments.of([6.0])
    >>> both.n, both.mean, both.variance
    (3, 3.0, 7.0)
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Moments":
        """Count values. Raises `ValueError` where one is no finite number."""
        found = np.asarray(values, dtype=np.float64)
        if not np.isfinite(found).all():
            raise ValueError("values hold NaN or infinity: leave out what is not known")
        return cls(found.size, float(found.sum()), float(np.square(found).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Their mean, NaN of none."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Their sample variance, NaN of fewer than two."""
        if self.n < 2:
            return math.nan
        return max(0.0, (self.squares - self.total * self.total / self.n) / (self.n - 1))


def proportion(successes: int, trials: int, *, alpha: float) -> Interval:
    """Bound a probability by what was counted so far.

    Examples
    --------
    >>> found = proportion(5, 100, alpha=0.05)
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (0.05, 0.007, 0.156)
    """
    _check_counts(successes, trials)
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    evidence, limit, found = _against(successes, trials), _limit(alpha), successes / trials
    return Interval(
        found,
        _end(evidence, inside=found, outside=0.0, limit=limit),
        _end(evidence, inside=found, outside=1.0, limit=limit),
    )


def proportion_difference(first: tuple[int, int], second: tuple[int, int], *, alpha: float) -> Interval:
    """Bound how much the first probability is above the second.

    Each is bounded with half of `alpha`, so it holds also where both were counted on the same trials, and
    where their shares depended on what was seen. It needs more rows than `mean_difference`, which for events
    that are rare cannot be had.

    Parameters
    ----------
    first, second
        Successes and trials of each.

    Examples
    --------
    >>> found = proportion_difference((30, 200), (20, 2_000), alpha=0.05)
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (0.14, 0.053, 0.252)
    """
    one, other = (proportion(*each, alpha=alpha / 2) for each in (first, second))
    return Interval(one.mean - other.mean, one.low - other.high, one.high - other.low)


def mean(moments: Moments, *, alpha: float, tuned_at: int = 1_000) -> Interval:
    """Bound a mean of independent values, of any size, asymptotically.

    Parameters
    ----------
    tuned_at
        At about so many values the interval is narrowest, for what a sequence can be.

    Examples
    --------
    >>> found = mean(Moments.of(np.arange(400) % 5), alpha=0.05)
    >>> round(found.mean, 3), round(found.low, 2), round(found.high, 2)
    (2.0, 1.78, 2.22)
    """
    limit = _limit(alpha)
    if moments.n < _ENOUGH:
        return Interval(moments.mean, -math.inf, math.inf)
    half = _half_width(moments.variance / moments.n, limit=limit, relative=moments.n / tuned_at)
    return Interval(moments.mean, moments.mean - half, moments.mean + half)


def mean_difference(
    first: Moments, second: Moments, *, alpha: float, effect: float | None = None
) -> Interval:
    """Bound how much the first mean is above the second, for independent values, asymptotically.

    Who gets which treatment may not depend on the values seen: fixed shares, not those of a bandit.

    Parameters
    ----------
    effect
        The difference that one wants to see; the interval is narrowest when a test of fixed size would have
        80 % power for it. Default: when the smaller group holds 1,000 values.

    Examples
    --------
    >>> one, other = Moments.of(np.arange(1_000) % 5), Moments.of(np.arange(1_000) % 5 + 0.5)
    >>> found = mean_difference(other, one, alpha=0.05, effect=0.3)
    >>> round(found.mean, 3), round(found.low, 2), round(found.high, 2)
    (0.5, 0.3, 0.7)
    """
    limit = _limit(alpha)
    if min(first.n, second.n) < _ENOUGH:
        return Interval(first.mean - second.mean, -math.inf, math.inf)
    found = first.mean - second.mean
    variance = first.variance / first.n + second.variance / second.n
    if effect is None:
        relative = min(first.n, second.n) / 1_000
    elif effect > 0:
        relative = (effect / (_normal_tail(alpha / 2) + _POWER_80)) ** 2 / variance if variance else 0.0
    else:
        raise ValueError(f"effect is {effect}; it is a size, above 0")
    half = _half_width(variance, limit=limit, relative=relative)
    return Interval(found, found - half, found + half)


def quantile_buckets(counts: Sequence[int], q: float, *, alpha: float) -> tuple[int, int]:
    """Bound a quantile of values that were counted in buckets: give the first and the last it may be in.

    Examples
    --------
    >>> quantile_buckets([10, 470, 500, 90, 3], 0.5, alpha=0.05)
    (1, 2)
    """
    if not 0 < q < 1:
        raise ValueError(f"q is {q}; a quantile lies between 0 and 1")
    reached = np.cumsum(np.asarray(counts, dtype=np.int64))
    trials = int(reached[-1]) if reached.size else 0
    if trials == 0:
        return 0, max(reached.size - 1, 0)
    limit = _limit(alpha / 2)  # it can be too low in one place, too high in another

    def is_excluded(below: int) -> bool:
        return _against(below, trials)(q) >= limit

    fewest = _first(0, int(q * trials), lambda below: not is_excluded(below))
    most = _first(math.ceil(q * trials), trials + 1, lambda below: below > trials or is_excluded(below))
    low = int(np.searchsorted(reached, fewest, side="left"))
    high = int(np.searchsorted(reached, most, side="left"))
    return low, min(high, reached.size - 1)


class BoundedMean:
    """Bounds the mean of values between two bounds, at every size, from sums of batches.

    The bets of each batch are made from those before it (the predictable plug-in empirical Bernstein
    sequence of Waudby-Smith and Ramdas), so the state is six numbers. How many values a batch holds may not
    depend on them.

    Examples
    --------
    >>> bounded = BoundedMean(0.0, 10.0, alpha=0.05)
    >>> for _ in range(40):
    ...     bounded.add(Moments.of(np.arange(50) % 5))
    >>> found = bounded.interval
    >>> round(found.mean, 2), round(found.low, 1), round(found.high, 1)
    (2.0, 1.9, 2.1)
    """

    def __init__(self, lower: float, upper: float, *, alpha: float) -> None:
        if not lower < upper:
            raise ValueError(f"bounds {lower} and {upper} hold nothing between them")
        self._lower, self._width = lower, upper - lower
        self._limit = _limit(alpha / 2)
        self._seen = Moments()  # scaled to [0, 1]
        self._deviations = 0.25
        self._bets = self._won = self._spent = 0.0

    def add(self, batch: Moments) -> None:
        """Count a batch.

        Raises
        ------
        ValueError
            If its sums cannot be of values between the bounds.
        """
        if batch.n == 0:
            return
        total = (batch.total - batch.n * self._lower) / self._width
        squares = batch.squares - 2 * self._lower * batch.total + batch.n * self._lower**2
        squares /= self._width**2
        if not -1e-9 <= total <= batch.n * (1 + 1e-9) or squares > total + 1e-9 * batch.n:
            upper = self._lower + self._width
            raise ValueError(
                f"{batch.n} values have the sum {batch.total} and squares {batch.squares}, which none "
                f"between {self._lower} and {upper} have; give the bounds that hold them"
            )
        before, size = self._seen, self._seen.n + batch.n
        expected = (0.5 + before.total) / (before.n + 1)
        variance = self._deviations / (before.n + 1)
        bet = min(_BOLDEST, math.sqrt(2 * self._limit / (variance * size * math.log(1 + size))))
        deviations = max(0.0, squares - 2 * expected * total + batch.n * expected**2)
        self._seen = before + Moments(batch.n, total, squares)
        self._deviations += deviations
        self._bets += bet * batch.n
        self._won += bet * total
        self._spent += deviations * (-math.log1p(-bet) - bet)

    @property
    def interval(self) -> Interval:
        """The mean so far, and its bounds."""
        upper = self._lower + self._width
        if not self._bets:
            return Interval(math.nan, self._lower, upper)
        center, half = self._won / self._bets, (self._limit + self._spent) / self._bets
        return Interval(
            self._lower + self._width * self._seen.mean,
            max(self._lower, self._lower + self._width * (center - half)),
            min(upper, self._lower + self._width * (center + half)),
        )


_POWER_80 = 0.8416212335729143  # standard normal quantile of 0.8


def _half_width(variance: float, *, limit: float, relative: float) -> float:
    """Give half of Robbins' normal mixture interval.

    Parameters
    ----------
    variance
        Of the estimate.
    relative
        Information so far, as a share of that where the interval is to be narrowest.
    """
    if variance == 0:
        return math.inf  # values that never differ say nothing of how much they may
    spread = relative * (
        2 * limit + math.log(2 * limit) + 1
    )  # variance of the mixture, in units of the estimate's
    return math.sqrt(variance * (1 + 1 / spread) * (2 * limit + math.log1p(spread)))


def _limit(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it is a probability, above 0 and below 1")
    return -math.log(alpha)


@lru_cache(maxsize=64)
def _normal_tail(tail: float) -> float:
    """Give the point that a standard normal value passes with probability `tail`."""
    low, high = -40.0, 40.0
    for _ in range(2 * _STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) / 2 > tail else (low, middle)
    return low


def _check_counts(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(
            f"{successes} successes of {trials} trials cannot be; wanted 0 <= successes <= trials"
        )


def _against(successes: int, trials: int) -> Callable[[float], float]:
    """Give the logarithm of the evidence against each probability: of a beta mixture over its likelihood."""
    failures = trials - successes
    mixture = _log_beta(_PRIOR + successes, _PRIOR + failures) - _log_beta(_PRIOR, _PRIOR)

    def evidence(probability: float) -> float:
        found = mixture
        if successes:
            if probability <= 0:
                return math.inf
            found -= successes * math.log(probability)
        if failures:
            if probability >= 1:
                return math.inf
            found -= failures * math.log1p(-probability)
        return found

    return evidence


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _end(evidence: Callable[[float], float], *, inside: float, outside: float, limit: float) -> float:
    """Give where the evidence reaches the limit, on the way from what is inside; else `outside`."""
    if evidence(outside) < limit:
        return outside
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if evidence(middle) < limit:
            inside = middle
        else:
            outside = middle
    return outside


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Give the first whole number of [low, high) for which it holds, as for all after it; else `high`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
