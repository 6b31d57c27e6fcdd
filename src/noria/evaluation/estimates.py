"""What quality to expect from scores alone, before outcomes are in.

Confidence-based performance estimation: if the scores are calibrated, a row with score p is a positive
with probability p, which gives the expectation of a metric without labels. It sees shifts of the inputs
that move the scores; it cannot see a change of the outcome given the inputs, nor a lost calibration.

References
----------
Białek, Kuberski, Perrakis and Bifet, "Estimating Model Performance Under Covariate Shift Without Labels",
arXiv:2401.08348 (2024).
"""

import numpy as np
import numpy.typing as npt

from noria.evaluation.scores import FloatArray, check_probabilities

__all__ = ["estimated_auc", "estimated_log_loss"]


def _probabilities(p: npt.ArrayLike) -> FloatArray:
    scores = np.asarray(p, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"scores have shape {scores.shape}; wanted (n,) with at least one row")
    check_probabilities(scores)
    return scores


def estimated_log_loss(p: npt.ArrayLike) -> float:
    """Give the log loss to expect if `p` is calibrated: the mean entropy of the scores, in nats.

    Raises
    ------
    ValueError
        If there is no row, or a score is not between 0 and 1.

    Examples
    --------
    >>> round(estimated_log_loss([0.5, 0.5]), 4)
    0.6931
    """
    scores = _probabilities(p)
    inside = scores[(scores > 0) & (scores < 1)]  # p log p goes to 0 at both ends
    entropy = inside * np.log(inside) + (1 - inside) * np.log1p(-inside)
    return float(max(0.0, -entropy.sum() / scores.size))


def estimated_auc(p: npt.ArrayLike) -> float:
    """Give the AUC to expect if `p` is calibrated.

    Expected pairs of a positive above a negative, ties half, over expected pairs of both; a row makes no
    pair with itself.

    Raises
    ------
    ValueError
        If a score is not between 0 and 1, or no pair of both classes is to be expected.

    Examples
    --------
    >>> estimated_auc([0.0, 0.0, 1.0])
    1.0
    >>> round(estimated_auc([0.2, 0.8]), 4)
    0.9412
    """
    scores = np.sort(_probabilities(p))
    negative = 1 - scores
    own = float(scores @ negative)
    pairs = float(scores.sum() * negative.sum()) - own
    if pairs <= 0:
        raise ValueError(f"{scores.size} scores promise no pair of both classes; the area has no value")
    cumulated = np.concatenate(([0.0], np.cumsum(negative)))
    below = cumulated[np.searchsorted(scores, scores, side="left")]
    not_above = cumulated[np.searchsorted(scores, scores, side="right")]
    above = float(scores @ (below + not_above)) / 2 - own / 2
    return min(1.0, max(0.0, above / pairs))
