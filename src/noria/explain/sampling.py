"""Shapley values of anything that scores rows, over sampled orders, with their standard errors; numpy alone.

Serving workers load it: nothing here may import Arrow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OutOfTime", "SampledValues", "shapley_by_orders"]

Floats = NDArray[np.float64]
LEAST_PAIRS = 2  # of orders: a standard error needs two


class OutOfTime(Exception):
    """There was no time for the least that makes an estimate."""


@dataclass(frozen=True, slots=True)
class SampledValues:
    """What inputs add to the scores of one row.

    Attributes
    ----------
    values : ndarray of shape (w, k)
        By number that the model gives, and by input: `base + values.sum(axis=1)` is the score.
    errors : ndarray of shape (w, k)
        Standard errors of the values, by the spread between pairs of orders.
    orders
        How many were walked.
    """

    values: Floats
    errors: Floats
    orders: int


def shapley_by_orders(
    means: Callable[[NDArray[np.bool_]], Floats],
    inputs: int,
    *,
    base: Floats,
    score: Floats,
    seed: int,
    pairs: int = 12,
    is_time: Callable[[], bool] = lambda: True,
) -> SampledValues:
    """Let inputs change one by one, in random orders, from usual rows to the row that is asked about.

    Each order is walked backwards as well. Base and values add up to the score whatever the orders; how it
    is shared is an estimate.

    Parameters
    ----------
    means
        Takes masks of shape (m, inputs); gives the mean score over the usual rows, of shape (m, w), where
        masked inputs are those of the row.
    base, score : ndarray of shape (w,)
        With no input, and with all of them.
    seed
        Of the orders.
    pairs
        Of orders, at most; one input needs none.
    is_time
        Asked before each pair beyond the second, and before each of these two: whether there is time.

    Raises
    ------
    OutOfTime
        If there is none for two pairs.

    References
    ----------
    R. Mitchell et al., "Sampling permutations for Shapley value estimation", Journal of Machine Learning
    Research 23 (2022), 1-46; the antithetic pairs are those of its section 4.

    Examples
    --------
    >>> found = shapley_by_orders(
    ...     lambda masks: masks @ np.array([[0.5], [0.25]]), 2,
    ...     base=np.array([0.0]), score=np.array([0.75]), seed=1,
    ... )
    >>> found.values.tolist(), found.errors.tolist(), found.orders
    ([[0.5, 0.25]], [[0.0, 0.0]], 24)
    """
    if inputs <= 1:
        values = (score - base).reshape(-1, 1)[:, :inputs]
        return SampledValues(values, np.zeros_like(values), 0)
    rng = np.random.default_rng(seed)
    found: list[Floats] = []
    for _ in range(max(pairs, LEAST_PAIRS)):
        if not is_time():
            if len(found) < LEAST_PAIRS:
                raise OutOfTime
            break
        order = rng.permutation(inputs)
        found.append(_of_pair(means, order, base, score))
    each = np.array(found)
    errors = each.std(axis=0, ddof=1) / np.sqrt(len(each))
    return SampledValues(each.mean(axis=0), errors, 2 * len(each))


def _of_pair(
    means: Callable[[NDArray[np.bool_]], Floats], order: NDArray[np.int64], base: Floats, score: Floats
) -> Floats:
    """Give the mean of what inputs add along an order, and along it backwards."""
    width = len(order)
    steps = np.zeros((2, width - 1, width), dtype=np.bool_)
    for way, walk in enumerate((order, order[::-1])):
        for step in range(width - 1):
            steps[way, step:, walk[step]] = True
    told = means(steps.reshape(-1, width)).reshape(2, width - 1, -1)
    values = np.zeros((len(base), width))
    for way, walk in enumerate((order, order[::-1])):
        path = np.concatenate([base[np.newaxis], told[way], score[np.newaxis]])
        values[:, walk] += np.diff(path, axis=0).T / 2
    return values
