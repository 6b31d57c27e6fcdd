"""How good scores were, with an error that counts days rather than rows.

Rows of one day are alike, so that ten thousand rows of fourteen days say about as much as fourteen figures:
the standard errors here sum the influence of each row by day first.

References
----------
K.-Y. Liang and S. L. Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73
(1986), 13-22, for means; N. A. Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics
53 (1997), 567-578, for the area under the curve.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["Measured", "measure"]

FloatArray = npt.NDArray[np.float64]
_CLIP = 1e-15


class Measured(msgspec.Struct, frozen=True):
    """A metric and its standard error by clusters; infinite where there is only one cluster."""

    value: float
    error: float


def measure(metric: str, y: FloatArray, p: FloatArray, *, cluster: npt.NDArray[np.int64]) -> Measured:
    """Give `log_loss`, `brier` or `auc` of probabilities `p` against outcomes `y`, with its standard error.

    Raises
    ------
    ValueError
        If there are no rows, or the AUC is asked for and there is only one class.

    Examples
    --------
    >>> y, p = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.4, 0.4, 0.1])
    >>> measure("auc", y, p, cluster=np.array([1, 1, 2, 2])).value
    0.875
    """
    if not y.size:
        raise ValueError("there are no rows; a metric needs at least one")
    match metric:
        case "log_loss":
            losses = -np.log(np.maximum(np.where(y == 1, p, 1 - p), _CLIP))
        case "brier":
            losses = np.square(p - y)
        case "auc":
            area, influence = _area(y, p)
            return Measured(area, _error(influence, cluster))
        case _:
            raise ValueError(f"{metric!r} is no metric; there is log_loss, brier, auc")
    mean = float(losses.mean())
    return Measured(mean, _error((losses - mean) / losses.size, cluster))


def _area(y: FloatArray, p: FloatArray) -> tuple[float, FloatArray]:
    """Give the AUC and the influence of each row on it (the placement values of DeLong)."""
    positive = y == 1
    positives, negatives = np.sort(p[positive]), np.sort(p[~positive])
    if not positives.size or not negatives.size:
        raise ValueError(f"all {y.size} outcomes are the same; the area needs both classes")
    below = _midranks(negatives, p[positive]) / negatives.size
    above = 1 - _midranks(positives, p[~positive]) / positives.size
    area = float(below.mean())
    influence = np.empty(y.size)
    influence[positive] = (below - area) / positives.size
    influence[~positive] = (above - area) / negatives.size
    return area, influence


def _midranks(sorted_values: FloatArray, of: FloatArray) -> FloatArray:
    """Count the values below each of `of`, ties half."""
    left = np.searchsorted(sorted_values, of, side="left")
    right = np.searchsorted(sorted_values, of, side="right")
    return np.asarray((left + right) / 2, dtype=np.float64)


def _error(influence: FloatArray, cluster: npt.NDArray[np.int64]) -> float:
    _, members = np.unique(cluster, return_inverse=True)
    sums = np.bincount(members, weights=influence)
    if sums.size < 2:
        return math.inf
    return math.sqrt(float(sums @ sums) * sums.size / (sums.size - 1))
