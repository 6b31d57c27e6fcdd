"""How far two references are from each other, from their profiles alone."""

from collections import Counter

import numpy as np

from noria.profiles.distances import js_distance
from noria.profiles.records import ColumnProfile

__all__ = ["distance_between"]


def distance_between(one: ColumnProfile, other: ColumnProfile) -> float | None:
    """Give the Jensen-Shannon distance of two profiles of a column, 0 to 1, missing values included.

    The rows are gone: those of a bin of numbers count as spread evenly over it, and categories that have no
    bin of their own as one, so it is an estimate. None where a profile has no rows, or they are of two kinds.

    Examples
    --------
    >>> from noria.profiles.build import build_profile
    >>> first, second = (build_profile({"x": np.arange(100.0) + by}, window_rows=10) for by in (0, 500))
    >>> distance_between(first.columns["x"], first.columns["x"])
    0.0
    >>> distance_between(first.columns["x"], second.columns["x"])
    1.0
    """
    if one.kind != other.kind or not one.rows or not other.rows:
        return None
    left, right = _numbers(one, other) if one.kind == "number" else _categories(one, other)
    return js_distance(np.append(left, one.missing), np.append(right, other.missing))


def _numbers(one: ColumnProfile, other: ColumnProfile) -> tuple[np.ndarray, np.ndarray]:
    """Count both into the bins of the first, with what lies below and above all of it apart."""
    if one.low is None or other.low is None or one.high is None or other.high is None:
        return np.array([float(sum(one.counts))]), np.array([float(sum(other.counts))])
    cuts = np.unique([*one.edges, one.high, np.nextafter(one.low, -np.inf)])
    return _between(one, cuts), _between(other, cuts)


def _between(column: ColumnProfile, cuts: np.ndarray) -> np.ndarray:
    assert column.low is not None and column.high is not None
    # The cumulated rows at each edge, from just below the lowest value to the highest.
    ends = np.array(
        [np.nextafter(column.low, -np.inf), *column.edges, max(column.high, *column.edges, column.low)]
    )
    below = np.concatenate([[0.0], np.cumsum(np.asarray(column.counts, dtype=np.float64))])
    places = np.interp(cuts, ends, below, left=0.0, right=below[-1])
    return np.diff(np.concatenate([[0.0], places, [below[-1]]]))


def _categories(one: ColumnProfile, other: ColumnProfile) -> tuple[np.ndarray, np.ndarray]:
    counts = [
        Counter(dict(zip(each.categories[: each.shown], each.counts[: each.shown], strict=True)))
        for each in (one, other)
    ]
    both = set(counts[0]) & set(counts[1])
    names = sorted({*counts[0], *counts[1]} if one.complete and other.complete else both)
    vectors = []
    for each, known in zip((one, other), counts, strict=True):
        own = [float(known[name]) for name in names]
        vectors.append(np.array([*own, each.rows - each.missing - sum(own)]))
    return vectors[0], vectors[1]
