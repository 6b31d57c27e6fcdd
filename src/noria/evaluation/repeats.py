"""How sure the mean of repeated runs is, and which of two that were repeated is better.

Repeats are runs of one configuration with other seeds, or on other folds of the data. Folds share most of
their training rows, so their scores are no independent draws and the plain t interval is too narrow: its
variance is corrected by what share of the rows is tested (`overlap`).

References
----------
Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003), 239-281; Bouckaert
and Frank, "Evaluating the Replicability of Significance Tests for Comparing Learning Algorithms", PAKDD
(2004); Welch, "The generalization of 'Student's' problem", Biometrika 34 (1947), 28-35.
"""

import math

import numpy as np
import numpy.typing as npt

from noria.evaluation.intervals import Interval
from noria.evaluation.scores import FloatArray

__all__ = ["fold_overlap", "repeat_interval", "unpaired_interval"]

_LEAST = 2  # repeats that have a spread


def fold_overlap(folds: int) -> float:
    """Give rows tested over rows trained on, of a cross-validation.

    Examples
    --------
    >>> fold_overlap(5)
    0.25
    """
    if folds < _LEAST:
        raise ValueError(f"{folds} fold cannot be cross-validated; wanted 2 or more")
    return 1 / (folds - 1)


def repeat_interval(
    values: npt.ArrayLike,
    *,
    overlap: float = 0.0,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> Interval | None:
    """Give the mean of repeats with Student's t interval; None of one repeat, which has no spread.

    For which of two is better, give the differences of what was repeated alike: by one seed, on one fold.

    Parameters
    ----------
    values : array of shape (n,)
        One figure a repeat.
    overlap
        Of folds: rows tested over rows trained on, see `fold_overlap`; 0: the repeats are independent.
    level
        How often such intervals hold the mean.
    bounds
        Between which the mean is for certain: the interval ends there. That takes nothing away from
        how often it holds the mean.

    Raises
    ------
    ValueError
        If there is no value, or one that is not finite.

    Examples
    --------
    >>> repeat_interval([0.7, 0.8, 0.9]).low
    0.5515862288249669
    """
    repeats = _checked(values)
    if repeats.size < _LEAST:
        return None
    mean = float(repeats.mean())
    variance = float(repeats.var(ddof=1)) * (1 / repeats.size + overlap)
    return _interval(mean, math.sqrt(variance), repeats.size - 1, level, bounds)


def unpaired_interval(
    one: npt.ArrayLike,
    other: npt.ArrayLike,
    *,
    overlaps: tuple[float, float] = (0.0, 0.0),
    level: float = 0.95,
) -> Interval | None:
    """Give the mean of `one` minus that of `other` with Welch's interval; None if one has no spread to give.

    Parameters
    ----------
    one, other : arrays of shape (n,) and (m,)
        One figure a repeat.
    overlaps
        Of either's folds, as for `repeat_interval`.
    level
        How often such intervals hold the difference.

    Raises
    ------
    ValueError
        If there is no value, or one that is not finite.

    Examples
    --------
    >>> round(unpaired_interval([1.0, 2.0, 3.0], [1.0, 3.0, 5.0]).high, 3)
    3.155
    """
    sides = _checked(one), _checked(other)
    if min(each.size for each in sides) < _LEAST:
        return None
    errors = [
        float(each.var(ddof=1)) * (1 / each.size + overlap)
        for each, overlap in zip(sides, overlaps, strict=True)
    ]
    mean = float(sides[0].mean() - sides[1].mean())
    if not sum(errors):
        return Interval(mean, mean, mean)
    shares = [error / sum(errors) for error in errors]  # of tiny variances the squares would vanish
    freedom = 1 / sum(share**2 / (each.size - 1) for share, each in zip(shares, sides, strict=True))
    return _interval(mean, math.sqrt(sum(errors)), freedom, level, None)


def _checked(values: npt.ArrayLike) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size:
        raise ValueError(f"repeats have shape {found.shape}; wanted (n,) with at least one")
    if not np.isfinite(found).all():
        raise ValueError("repeats hold a value that is not finite; leave it out first")
    return found


def _interval(
    mean: float, error: float, freedom: float, level: float, bounds: tuple[float, float] | None
) -> Interval:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(mean, low, high)
