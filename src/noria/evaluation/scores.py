"""Metrics of predicted probabilities against binary outcomes.

Outcomes are 0 or 1, of any numeric or boolean type. A NaN anywhere is refused, because an unseen outcome
is not a zero: leave unlabelled rows out first.
"""

import numpy as np
import numpy.typing as npt

__all__ = [
    "FloatArray",
    "auc",
    "auc_pairs",
    "brier",
    "brier_losses",
    "calibration_ratio",
    "checked",
    "evaluate",
    "log_loss",
    "log_losses",
]

FloatArray = npt.NDArray[np.float64]

_CLIP = 1e-15  # a probability of exactly 0 or 1 costs 34.5 where it is wrong, not infinity


def checked(
    y: npt.ArrayLike, p: npt.ArrayLike, *, probabilities: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Give outcomes and scores as float64 arrays of one length.

    Raises
    ------
    ValueError
        If they are empty, differ in length, an outcome is neither 0 nor 1, a score is NaN, or (with
        `probabilities`) lies outside 0 to 1.
    """
    outcomes = np.asarray(y, dtype=np.float64)
    scores = np.asarray(p, dtype=np.float64)
    if outcomes.ndim != 1 or outcomes.shape != scores.shape:
        raise ValueError(
            f"outcomes have shape {outcomes.shape}, scores {scores.shape}; wanted two equal (n,)"
        )
    if not outcomes.size:
        raise ValueError("there are no rows; a metric needs at least one")
    if not ((outcomes == 0) | (outcomes == 1)).all():
        raise ValueError("outcomes hold something other than 0 and 1; leave unlabelled rows out")
    if probabilities:
        check_probabilities(scores)
    elif np.isnan(scores).any():
        raise ValueError("scores hold a NaN")
    return outcomes, scores


def check_probabilities(scores: FloatArray) -> None:
    """Raise `ValueError` unless all `scores` lie between 0 and 1; a NaN does not."""
    if not (scores.min() >= 0 and scores.max() <= 1):  # a NaN fails both comparisons
        raise ValueError(f"scores reach from {scores.min()} to {scores.max()}; wanted probabilities, 0 to 1")


def log_losses(y: FloatArray, p: FloatArray) -> FloatArray:
    """Give the negative log-likelihood of each row, in nats, probabilities clipped to 1e-15 from 0 and 1."""
    likelihood = np.where(y == 1, p, 1 - p)
    np.maximum(likelihood, _CLIP, out=likelihood)
    np.log(likelihood, out=likelihood)
    return np.negative(likelihood, out=likelihood)


def brier_losses(y: FloatArray, p: FloatArray) -> FloatArray:
    """Give the squared error of each row."""
    error = p - y
    return np.square(error, out=error)


def log_loss(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Give the mean negative log-likelihood, in nats; probabilities are clipped to 1e-15.

    Parameters
    ----------
    y : array of shape (n,)
        Outcomes, 0 or 1.
    p : array of shape (n,)
        Predicted probabilities of 1.

    Raises
    ------
    ValueError
        See `checked`.

    Examples
    --------
    >>> round(log_loss([1, 0], [0.8, 0.4]), 4)
    0.367
    """
    return float(log_losses(*checked(y, p)).mean())


def brier(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Give the mean squared error of predicted probabilities (Brier, Monthly Weather Review 78, 1950).

    Raises
    ------
    ValueError
        See `checked`.

    Examples
    --------
    >>> round(brier([1, 0], [0.8, 0.4]), 3)
    0.1
    """
    return float(brier_losses(*checked(y, p)).mean())


def calibration_ratio(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Give mean predicted over mean actual: 1 is calibrated in the large, above 1 promises too much.

    Raises
    ------
    ValueError
        See `checked`; also if no outcome is 1, where the ratio has no value.

    Examples
    --------
    >>> round(calibration_ratio([1, 0], [0.8, 0.4]), 2)
    1.2
    """
    outcomes, scores = checked(y, p)
    actual = outcomes.sum()
    if not actual:
        raise ValueError("no outcome is 1, so the ratio of predicted to actual has no value")
    return float(scores.sum() / actual)


def auc_pairs(negatives: FloatArray, positives: FloatArray) -> int:
    """Count twice the pairs in which the positive scores higher, and once the ties; both sorted."""
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return int(below.sum()) + int(not_above.sum())


def auc(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Give the area under the ROC curve: how often a random positive scores above a random negative.

    Ties count half. Counted in integers, so the result does not depend on the order of rows. Only the
    order of scores matters: any finite or infinite numbers will do.

    Raises
    ------
    ValueError
        See `checked`; also if there is only one class, where the area has no value.

    References
    ----------
    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC)
    curve", Radiology 143 (1982), 29-36.

    Examples
    --------
    >>> auc([1, 0, 1, 0], [0.9, 0.4, 0.4, 0.1])
    0.875
    """
    outcomes, scores = checked(y, p, probabilities=False)
    positive = outcomes == 1
    positives = np.sort(scores[positive])
    negatives = np.sort(scores[~positive])
    if not positives.size or not negatives.size:
        raise ValueError(f"all {outcomes.size} outcomes are {int(outcomes[0])}; the area needs both classes")
    return auc_pairs(negatives, positives) / (2 * positives.size * negatives.size)


def evaluate(y: npt.ArrayLike, p: npt.ArrayLike) -> dict[str, float]:
    """Give all metrics that have a value on these rows, by name.

    `log_loss` and `brier` always; `calibration_ratio` where an outcome is 1; `auc` where there are both
    classes; `rows` and `base_rate` beside them.

    Raises
    ------
    ValueError
        See `checked`.

    Examples
    --------
    >>> sorted(evaluate([0, 0], [0.1, 0.2]))
    ['base_rate', 'brier', 'log_loss', 'rows']
    """
    outcomes, scores = checked(y, p)
    base_rate = float(outcomes.mean())
    metrics = {
        "rows": float(outcomes.size),
        "base_rate": base_rate,
        "log_loss": log_loss(outcomes, scores),
        "brier": brier(outcomes, scores),
    }
    if base_rate > 0:
        metrics["calibration_ratio"] = calibration_ratio(outcomes, scores)
    if 0 < base_rate < 1:
        metrics["auc"] = auc(outcomes, scores)
    return metrics
