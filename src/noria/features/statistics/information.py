"""Bins, and what they say of each other: mutual information, Cramér's V, the correlation ratio."""

import math
from dataclasses import dataclass

import numpy as np

from noria.features.columns import Floats, Ints
from noria.features.statistics.ranks import Ranked

__all__ = [
    "Information",
    "bin_categories",
    "bin_ranks",
    "correlation",
    "correlation_ratio",
    "cramers_v",
    "information",
    "most_bins",
]

_MOST_BINS = 32
_ROWS_PER_CELL = 5
_RAREST = 5  # rows of a category that has a bin of its own


@dataclass(frozen=True, slots=True)
class Information:
    """Mutual information in bits, its standard error, and the entropy of the second of the two."""

    bits: float
    error: float
    entropy: float

    @property
    def share(self) -> float:
        """Give the share of the entropy that is known."""
        return min(self.bits / self.entropy, 1.0) if self.entropy else 0.0

    def low_share(self, z: float) -> float:
        """Give the lower bound of that share, `z` standard errors down."""
        return max((self.bits - z * self.error) / self.entropy, 0.0) if self.entropy else 0.0


def most_bins(rows: int) -> int:
    """Give into how many bins values go: so few that each pair of bins would have five of the rows."""
    return max(2, min(_MOST_BINS, math.isqrt(rows // _ROWS_PER_CELL)))


def bin_ranks(ranked: Ranked, bins: int) -> Ints:
    """Give bins of about equal size, ties together; few values are bins themselves. Missing is the last."""
    missing = ranked.places < 0
    if ranked.distinct <= bins:
        binned = ranked.places.copy()
    else:
        shares = np.where(missing, 0.5, ranked.ranks) - 0.5
        binned = (shares / ranked.present * bins).astype(np.int64)
    binned[missing] = bins
    return binned


def bin_categories(codes: Floats, bins: int) -> Ints:
    """Give the most frequent categories bins of their own, and the others one. Missing is the last."""
    missing = np.isnan(codes)
    whole = np.where(missing, 0, codes).astype(np.int64)
    counts = np.bincount(whole[~missing], minlength=1)
    kept = np.argsort(-counts, kind="stable")[: bins - 1]
    kept = kept[counts[kept] >= _RAREST]
    table = np.full(len(counts), len(kept), dtype=np.int64)
    table[kept] = np.arange(len(kept))
    binned = table[whole]
    binned[missing] = bins
    return binned


def _joint(left: Ints, right: Ints) -> Floats:
    """Count pairs; rows and columns that are empty are left out."""
    width = int(right.max(initial=0)) + 1
    height = int(left.max(initial=0)) + 1
    counts = np.bincount(left * width + right, minlength=width * height).reshape(height, width)
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    return counts.astype(np.float64)


def information(left: Ints, right: Ints) -> Information:
    """Give what `left` tells of `right`, less what as many cells show by chance.

    References
    ----------
    G. A. Miller, "Note on the bias of information estimates", Inf. Theory in Psychology (1955), 95-100.
    The error is that of the plug-in estimate: A. Basharin, Theory Prob. Appl. 4 (1959), 333-336.

    Examples
    --------
    >>> told = information(np.repeat([0, 1], 50), np.repeat([0, 1], 50))
    >>> round(told.bits, 2), told.entropy
    (1.0, 1.0)
    """
    counts = _joint(left, right)
    rows = float(counts.sum())
    if not rows:
        return Information(0.0, 0.0, 0.0)
    p = counts / rows
    px, py = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    used = p > 0
    logs = np.log2(p[used] / (px * py)[used])
    plain = float((p[used] * logs).sum())
    cells, sides = int(used.sum()), len(px) + py.shape[1]
    bias = (cells - sides + 1) / (2 * rows * math.log(2))
    variance = max(float((p[used] * logs**2).sum()) - plain**2, 0.0) / rows
    entropy = -float((py * np.log2(py)).sum())
    return Information(min(max(plain - bias, 0.0), entropy), math.sqrt(variance), max(entropy, 0.0))


def cramers_v(left: Ints, right: Ints) -> float | None:
    """Give Cramér's V, corrected for bias: 0 for independence; None where one of the two has a single value.

    References
    ----------
    W. Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", J. Korean Stat. Soc. 42 (2013), 323-328.

    Examples
    --------
    >>> cramers_v(np.repeat([0, 1], 50), np.repeat([0, 1], 50))
    1.0
    """
    counts = _joint(left, right)
    rows, (height, width) = float(counts.sum()), counts.shape
    if height < 2 or width < 2:
        return None
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / rows
    phi = float(((counts - expected) ** 2 / expected).sum()) / rows
    phi = max(phi - (height - 1) * (width - 1) / (rows - 1), 0.0)
    narrow = min(height - (height - 1) ** 2 / (rows - 1), width - (width - 1) ** 2 / (rows - 1))
    return min(math.sqrt(phi / (narrow - 1)), 1.0) if narrow > 1 else None


def correlation_ratio(groups: Ints, values: Floats) -> float | None:
    """Give how much of the values' spread lies between groups, as a correlation, corrected for bias.

    Rows without a value are left out; None where nothing spreads or there is one group.

    References
    ----------
    T. L. Kelley, "An unbiased correlation ratio measure", PNAS 21 (1935), 554-559.

    Examples
    --------
    >>> correlation_ratio(np.repeat([0, 1], 50), np.repeat([3.0, 4.0], 50))
    1.0
    """
    there = ~np.isnan(values)
    given, of = values[there], groups[there]
    sizes = np.bincount(of)
    used = int((sizes > 0).sum())
    if used < 2 or len(given) <= used:
        return None
    centred = given - given.mean()
    total = float(centred @ centred)
    if total <= 0:
        return None
    sums = np.bincount(of, weights=centred)
    between = float((sums[sizes > 0] ** 2 / sizes[sizes > 0]).sum())
    unexplained = (1 - between / total) * (len(given) - 1) / (len(given) - used)
    return math.sqrt(min(max(1 - unexplained, 0.0), 1.0))


def correlation(left: Floats, right: Floats) -> float | None:
    """Give Pearson's correlation over rows where both are finite; None where one does not vary.

    Examples
    --------
    >>> correlation(np.array([1.0, 2.0, np.nan]), np.array([2.0, 4.0, 0.0]))
    1.0
    """
    there = np.isfinite(left) & np.isfinite(right)
    if there.sum() < 2:
        return None
    a, b = left[there], right[there]
    if a.min() == a.max() or b.min() == b.max():
        return None
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # so that squares of huge numbers stay finite
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return max(-1.0, min(1.0, float((a * b).sum()) / scale)) if scale > 0 else None
