"""How much worse a model gets when it is told nothing of an input."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from noria.evaluation.intervals import Interval
from noria.evaluation.scores import checked, log_loss
from noria.registry.matrix import Matrix, Scorer

__all__ = ["permutation_importance"]

_LEVEL = 0.95


def permutation_importance(
    scorer: Scorer, matrix: Matrix, y: npt.ArrayLike, *, seed: int, repeats: int = 3
) -> tuple[Interval, ...]:
    """Give by how much the log loss rises when each column is put in random order, all others as they are.

    Of columns that say the same each may look unimportant: the model reads the other one.

    Parameters
    ----------
    scorer
        Gives a probability for each row, such as `LoadedModel.score`.
    matrix : array of shape (n, k)
    y : array of shape (n,)
        Outcomes, 0 or 1.
    seed : int
        The same seed and data give the same figures.
    repeats : int
        Orders tried; two or more, for the interval over them (Student's t, 95 %).

    Returns
    -------
    tuple of k Interval
        The mean rise over the repeats, and its interval.

    Raises
    ------
    ValueError
        If there are no rows, too few repeats, or lengths differ.

    References
    ----------
    L. Breiman, "Random Forests", Machine Learning 45 (2001), 5-32, section 10.

    Examples
    --------
    >>> rows = np.array([[0.1, 5.0], [0.9, 6.0], [0.2, 7.0], [0.8, 8.0]])
    >>> first, second = permutation_importance(lambda rows: rows[:, 0], rows, [0, 1, 0, 1], seed=3)
    >>> first.mean > 0, second.mean
    (True, 0.0)
    """
    if repeats < 2:
        raise ValueError(f"{repeats} repeats; an interval needs two or more")
    known = np.array(matrix, dtype=np.float64, order="F")
    outcomes, scores = checked(y, scorer(known))
    before = log_loss(outcomes, scores)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(known)) for _ in range(repeats)]
    factor = float(stdtrit(repeats - 1, (1 + _LEVEL) / 2)) / math.sqrt(repeats)
    found = []
    for column in range(known.shape[1]):
        after = [log_loss(outcomes, each) for each in _without(scorer, known, column, orders)]
        rises = np.array(after) - before
        mean, reach = float(rises.mean()), float(rises.std(ddof=1)) * factor
        found.append(Interval(mean, mean - reach, mean + reach))
    return tuple(found)


def _without(
    scorer: Scorer, matrix: Matrix, column: int, orders: list[npt.NDArray[np.int64]]
) -> Iterator[Matrix]:
    kept = matrix[:, column].copy()
    for order in orders:
        matrix[:, column] = kept[order]
        yield scorer(matrix)
    matrix[:, column] = kept
