"""Distances between two vectors of counts."""

import math
from typing import Any

import numpy as np

__all__ = [
    "chi_square",
    "js_distance",
    "js_distances",
    "js_noise",
    "nested_chi_squares",
    "population_stability",
]

_Counts = np.ndarray[Any, np.dtype[np.float64]]
_RARE = 5.0  # expected counts below this share one bin: Cochran's rule


def js_distance(left: _Counts, right: _Counts) -> float:
    """Give the Jensen-Shannon distance in base 2: 0 for equal shares, 1 for disjoint ones.

    References
    ----------
    D. M. Endres, J. E. Schindelin, "A new metric for probability distributions", IEEE Trans. Inf.
    Theory 49 (2003), 1858-1860.

    Examples
    --------
    >>> js_distance(np.array([1.0, 0.0]), np.array([0.0, 5.0]))
    1.0
    """
    return float(js_distances(left, right[np.newaxis])[0])


def js_distances(reference: _Counts, windows: _Counts) -> _Counts:
    """Give the Jensen-Shannon distance in base 2 of each row of `windows`, shape (n, bins)."""
    p, q = reference / reference.sum(), windows / windows.sum(axis=1, keepdims=True)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    distances: _Counts = np.sqrt(np.maximum(bits.sum(axis=1) / 2, 0.0))
    return distances


def js_noise(bins: int, left_rows: int, right_rows: int) -> float:
    """Give the expected squared distance of two samples of one distribution."""
    return max(bins - 1, 1) / (8 * math.log(2)) * (1 / left_rows + 1 / right_rows)


def population_stability(left: _Counts, right: _Counts) -> float:
    """Give the population stability index, half a row added to each bin so that an empty one is finite."""
    p = (left + 0.5) / (left.sum() + 0.5 * len(left))
    q = (right + 0.5) / (right.sum() + 0.5 * len(right))
    return float(((p - q) * np.log(p / q)).sum())


def nested_chi_squares(reference: _Counts, windows: _Counts) -> tuple[_Counts, int]:
    """Give the chi-square statistic of windows of equal size whose rows are among the reference's.

    Parameters
    ----------
    windows : ndarray of shape (n, bins)

    Returns
    -------
    tuple of ndarray of shape (n,) and int
        The statistics and their degrees of freedom; rare bins share one.
    """
    m, n = reference.sum(), windows[0].sum()
    rare = reference / m * n < _RARE
    if rare.any():
        reference = np.append(reference[~rare], reference[rare].sum())
        windows = np.column_stack([windows[:, ~rare], windows[:, rare].sum(axis=1)])
    share = reference / m
    used = share > 0
    difference = windows[:, used] / n - share[used]
    scale, freedom = 1 / n - 1 / m, max(int(used.sum()) - 1, 1)
    if scale <= 0:
        return np.zeros(len(windows)), freedom
    return (difference**2 / share[used]).sum(axis=1) / scale, freedom


def chi_square(reference: _Counts, window: _Counts) -> tuple[float, int]:
    """Give the two-sample chi-square statistic and its degrees of freedom; rare bins share one."""
    m, n = reference.sum(), window.sum()
    pooled = reference + window
    expected = pooled / pooled.sum() * n
    rare = expected < _RARE
    if rare.any():
        pooled = np.append(pooled[~rare], pooled[rare].sum())
        reference = np.append(reference[~rare], reference[rare].sum())
        window = np.append(window[~rare], window[rare].sum())
    share = pooled / pooled.sum()
    used = share > 0
    difference = window[used] / n - reference[used] / m
    return float((difference**2 / share[used]).sum() / (1 / n + 1 / m)), max(int(used.sum()) - 1, 1)
