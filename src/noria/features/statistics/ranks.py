"""Ranks, the area under the ROC curve, and bounds of shares and areas that hold for few rows as well."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from noria.features.columns import Bools, Floats, Ints

__all__ = ["Ranked", "area", "area_bounds", "rank", "share_bounds"]

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ranks from 1, ties sharing their mean, NaN where missing; and the place among the distinct values."""

    ranks: Floats
    places: Ints  # -1 where missing
    distinct: int
    present: int


def rank(values: Floats) -> Ranked:
    """Rank numbers.

    Examples
    --------
    >>> rank(np.array([3.0, 1.0, np.nan, 3.0])).ranks.tolist()
    [2.5, 1.0, nan, 2.5]
    """
    there = ~np.isnan(values)
    given = values[there]
    order = np.argsort(given, kind="stable")
    ordered = given[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(given) else order
    counts = np.diff(np.append(starts, len(given)))
    of_given, place = np.empty(len(given)), np.empty(len(given), dtype=np.int64)
    of_given[order] = np.repeat(starts + (counts + 1) / 2, counts)
    place[order] = np.repeat(np.arange(len(starts)), counts)
    ranks, places = np.full(len(values), np.nan), np.full(len(values), -1, dtype=np.int64)
    ranks[there], places[there] = of_given, place
    return Ranked(ranks, places, len(starts), len(given))


def area(values: Floats, positive: Bools) -> float | None:
    """Give how often a positive has the greater value than a negative, ties half; None without one of both.

    Examples
    --------
    >>> area(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    there = ~np.isnan(values)
    ups, downs = np.sort(values[there & positive]), np.sort(values[there & ~positive])
    if not len(ups) or not len(downs):
        return None
    below = np.searchsorted(downs, ups, side="left").sum() + np.searchsorted(downs, ups, side="right").sum()
    return float(below) / (2 * len(ups) * len(downs))


def area_bounds(found: float, *, positives: int, negatives: int, z: float) -> tuple[float, float]:
    """Give the confidence interval of an area under the ROC curve.

    The areas from which `found` is at most `z` standard errors away, where the error is that of the area
    supposed and not that of the one found: it does not vanish where a few rows are in perfect order.

    References
    ----------
    R. G. Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic.
    Part 2: asymptotic methods and evaluation", Statistics in Medicine 25 (2006), 559-573, method 5.

    Examples
    --------
    >>> low, high = area_bounds(1.0, positives=10, negatives=10, z=1.96)
    >>> round(low, 2), high
    (0.8, 1.0)
    """

    def fits(supposed: float) -> bool:
        spread = 1 + ((positives + negatives) / 2 - 1) * (
            (1 - supposed) / (2 - supposed) + supposed / (1 + supposed)
        )
        variance = supposed * (1 - supposed) * spread / (positives * negatives)
        return (supposed - found) ** 2 <= z * z * variance

    return _furthest(fits, found, 0.0), _furthest(fits, found, 1.0)


def _furthest(fits: Callable[[float], bool], inside: float, outside: float) -> float:
    """Halve towards the last value from `inside` to `outside` that fits."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if fits(middle):
            inside = middle
        else:
            outside = middle
    return inside


def share_bounds(count: int, rows: int, *, z: float) -> tuple[float, float]:
    """Give the confidence interval of a share (Wilson, JASA 22, 1927, 209-212).

    Examples
    --------
    >>> [round(each, 3) for each in share_bounds(0, 100, z=1.96)]
    [0.0, 0.037]
    """
    if not rows:
        return 0.0, 1.0
    share = count / rows
    middle = share + z * z / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    scale = 1 + z * z / rows
    low, high = (middle - half) / scale, (middle + half) / scale
    return min(max(low, 0.0), share), max(min(high, 1.0), share)
