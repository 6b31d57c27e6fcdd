"""Which of two sets of scores is better on the same rows, and how sure that is."""

from collections.abc import Iterator
from typing import Literal, assert_never

import msgspec
import numpy as np
import numpy.typing as npt

from noria.evaluation.scores import FloatArray, auc, brier_losses, checked, log_losses

__all__ = ["Interval", "Metric", "paired_bootstrap"]

Metric = Literal["auc", "brier", "log_loss"]

_CHUNK_CELLS = 2_000_000  # 16 MB of draws at a time


class Interval(msgspec.Struct, frozen=True):
    """A figure and the bounds that a bootstrap gives it."""

    mean: float  # the figure on the rows as they are
    low: float
    high: float


def paired_bootstrap(
    metric: Metric,
    y: npt.ArrayLike,
    p_new: npt.ArrayLike,
    p_old: npt.ArrayLike,
    *,
    seed: int,
    n: int = 1_000,
    cluster: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Give `metric` of `p_new` minus that of `p_old` with its percentile bootstrap interval.

    Both score the same rows and are resampled together, so what is common to them cancels. For losses a
    negative difference says that the new scores are better, for the AUC a positive one.

    Parameters
    ----------
    metric : {"auc", "brier", "log_loss"}
        What is compared.
    y, p_new, p_old : arrays of shape (n,)
        Outcomes and both sets of scores.
    seed : int
        The same seed and data give the same interval.
    n : int
        Resamples.
    cluster : array of shape (n,), optional
        Rows that are not independent share a value, such as a day: whole clusters are resampled.
    level : float
        Share of resamples inside the interval.

    Raises
    ------
    ValueError
        If the rows are unfit (see `noria.evaluation.scores.checked`), the metric has no value on them,
        or there is only one cluster.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; for clusters Davison and
    Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.

    Examples
    --------
    >>> y, old = np.array([1, 0, 1, 0]), np.full(4, 0.5)
    >>> paired_bootstrap("brier", y, np.array([0.9, 0.1, 0.9, 0.1]), old, seed=1, n=50).high < 0
    True
    """
    outcomes, new = checked(y, p_new)
    _, old = checked(outcomes, p_old)
    units, members = _units(outcomes.size, cluster)
    rng = np.random.default_rng(seed)
    match metric:
        case "log_loss":
            difference = log_losses(outcomes, new) - log_losses(outcomes, old)
        case "brier":
            difference = brier_losses(outcomes, new) - brier_losses(outcomes, old)
        case "auc":
            mean = auc(outcomes, new) - auc(outcomes, old)
            gains = _auc_differences(outcomes, (new, old), members, _draws(rng, units, n, outcomes.size))
            return _interval(mean, gains, level)
        case _:
            assert_never(metric)
    return _interval(float(difference.mean()), _mean_resamples(rng, difference, units, members, n), level)


def _units(rows: int, cluster: npt.ArrayLike | None) -> tuple[int, npt.NDArray[np.intp] | None]:
    """Count what is resampled, and say to which unit each row belongs (`None`: each row is one)."""
    if cluster is None:
        return rows, None
    labels = np.asarray(cluster)
    if labels.shape != (rows,):
        raise ValueError(f"cluster has shape {labels.shape}; wanted ({rows},), one label per row")
    names, members = np.unique(labels, return_inverse=True)
    if names.size < 2:
        raise ValueError(f"all rows are of one cluster, {names[0]!r}; an interval needs several")
    return int(names.size), members


def _draws(rng: np.random.Generator, units: int, n: int, width: int) -> Iterator[npt.NDArray[np.int64]]:
    """Draw `units` of `units` with replacement, `n` times, in chunks of bounded memory."""
    chunk = max(1, _CHUNK_CELLS // max(units, width))
    for start in range(0, n, chunk):
        yield rng.integers(0, units, size=(min(chunk, n - start), units))


def _mean_resamples(
    rng: np.random.Generator,
    values: FloatArray,
    units: int,
    members: npt.NDArray[np.intp] | None,
    n: int,
) -> FloatArray:
    if members is None:
        return np.concatenate([values[draw].mean(axis=1) for draw in _draws(rng, units, n, units)])
    sums = np.bincount(members, weights=values, minlength=units)
    sizes = np.bincount(members, minlength=units)
    return np.concatenate(
        [sums[draw].sum(axis=1) / sizes[draw].sum(axis=1) for draw in _draws(rng, units, n, units)]
    )


def _auc_differences(
    y: FloatArray,
    scores: tuple[FloatArray, FloatArray],
    members: npt.NDArray[np.intp] | None,
    draws: Iterator[npt.NDArray[np.int64]],
) -> FloatArray:
    """Give the AUC difference of each resample; NaN where it drew only one class."""
    ranked = [_Ranked(y, each) for each in scores]
    found = []
    for draw in draws:
        count, units = draw.shape
        offsets = draw + np.arange(count, dtype=np.int64)[:, None] * units
        weights = np.bincount(offsets.ravel(), minlength=count * units).reshape(count, units)
        by_row = weights if members is None else weights[:, members]
        found.append(ranked[0].areas(by_row) - ranked[1].areas(by_row))
    return np.concatenate(found)


class _Ranked:
    """Rows sorted once by score, so that the AUC of any weights is a cumulated sum."""

    def __init__(self, y: FloatArray, scores: FloatArray) -> None:
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
        positive = y[order] == 1
        self._positives = order[positive]
        self._negatives = order[~positive]
        self._below = np.searchsorted(ranked[~positive], ranked[positive], side="left")
        self._not_above = np.searchsorted(ranked[~positive], ranked[positive], side="right")

    def areas(self, weights: npt.NDArray[np.int64]) -> FloatArray:
        """Give one area for each row of `weights`."""
        positives = weights[:, self._positives]
        cumulated = np.zeros((len(weights), self._negatives.size + 1), dtype=np.int64)
        np.cumsum(weights[:, self._negatives], axis=1, out=cumulated[:, 1:])
        twice = (positives * (cumulated[:, self._below] + cumulated[:, self._not_above])).sum(axis=1)
        pairs = 2.0 * positives.sum(axis=1) * cumulated[:, -1]
        areas = np.full(len(weights), np.nan)
        np.divide(twice, pairs, out=areas, where=pairs > 0)
        return areas


def _interval(mean: float, resamples: FloatArray, level: float) -> Interval:
    tail = (1 - level) / 2
    known = resamples[~np.isnan(resamples)]
    if not known.size:
        raise ValueError("no resample held both classes; the interval needs more rows")
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))
