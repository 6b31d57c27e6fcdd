"""Whether the share of rows that a batch has rejected is far above what earlier batches had.

Three tests have to agree, each of which bounds how often there is an alarm for nothing: that earlier batches
and this one have one share; that their shares vary as the earlier ones do; that this one is like the others.
"""

from collections.abc import Sequence
from math import asin, exp, log, sqrt

import numpy as np

__all__ = ["FEW_BATCHES", "rejected_share_p_value"]

FEW_BATCHES = 5


def rejected_share_p_value(rejected: int, rows: int, earlier: Sequence[tuple[int, int]]) -> float:
    """Bound how probable a share as high as `rejected / rows` is, by what earlier batches had.

    Parameters
    ----------
    rejected, rows
        Of this batch.
    earlier
        `(rejected, rows)` of at least two batches with rows.

    Returns
    -------
    float
        At most the false-alarm rate, where the alarm is that it is below a limit: by Hoeffding's bound if the
        true share is one and the same; by Student's t, on two scales, if it varies from batch to batch. 1
        where any earlier batch had as high a share, so that of N + 1 exchangeable batches at most one alarms.

    References
    ----------
    W. Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58 (1963), 13-30,
    whose section 6 holds the bound for draws without replacement.

    Examples
    --------
    >>> usual = [(10, 1000)] * 20
    >>> rejected_share_p_value(30, 1000, usual) < 0.001 < rejected_share_p_value(12, 1000, usual)
    True
    """
    before, among = sum(each for each, _ in earlier), sum(each for _, each in earlier)
    if not rejected or rejected / rows <= max(some / of for some, of in earlier):
        return 1.0
    every = before + rejected
    pooled = exp(
        -max(
            every * _divergence(rejected / every, rows / (rows + among)),
            rows * _divergence(rejected / rows, every / (rows + among)),
        )
    )
    own = (rejected + 0.5) / (rows + 1)
    shares = [(some + 0.5) / (of + 1) for some, of in earlier]
    coarser = max(0.0, 1 / rows - float(np.mean([1 / of for _, of in earlier]))) / 4  # of a smaller batch
    return max(
        pooled,
        _t_tail(asin(sqrt(own)), [asin(sqrt(each)) for each in shares], more=coarser),
        _t_tail(log(own), [log(each) for each in shares], more=0.0),
    )


def _divergence(found: float, wanted: float) -> float:
    """Give the Kullback-Leibler divergence of two coins."""
    if wanted >= 1:
        return 0.0
    other = (1 - found) * log((1 - found) / (1 - wanted)) if found < 1 else 0.0
    return found * log(found / wanted) + other


def _t_tail(value: float, earlier: Sequence[float], *, more: float) -> float:
    """Give how probable so high a value is after these, if all are from one normal distribution."""
    from scipy.special import stdtr

    variance = float(np.var(earlier, ddof=1)) * (1 + 1 / len(earlier)) + more
    if variance == 0:
        return 0.0  # nothing varies: the other tests decide
    return float(stdtr(len(earlier) - 1, -(value - float(np.mean(earlier))) / sqrt(variance)))
