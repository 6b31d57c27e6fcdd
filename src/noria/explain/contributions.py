"""What each input adds to the score of a row: exactly for trees, by sampled orders for other models."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.explain.records import Method, Unit
from noria.registry.formats import scorer_of
from noria.registry.matrix import Matrix, Scorer
from noria.registry.records import ModelFormat

__all__ = ["Contributions", "contributions_of", "is_exact", "sampled_contributions", "unit_of"]

_ORDERS = 12  # of the inputs, for each row; each is walked forwards and backwards
_BACKGROUND_ROWS = 50
_CELLS_AT_ONCE = 4_000_000  # of rows that are scored together, 32 MB
_CLOSE = 1e-5  # XGBoost adds up in single precision


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the inputs of rows add.

    Attributes
    ----------
    values : ndarray of shape (n, k)
        By row and input.
    base : ndarray of shape (n,)
        What they start from: `base + values.sum(axis=1)` is the row's total, in `unit`.
    scores : ndarray of shape (n,)
        What the model gives.
    unit, method
        See `noria.explain.records.Explanation`.
    """

    values: Matrix
    base: Matrix
    scores: Matrix
    unit: Unit
    method: Method

    @property
    def totals(self) -> Matrix:
        """What base and contributions add up to, by row."""
        totals: Matrix = self.base + self.values.sum(axis=1)
        return totals


def contributions_of(
    format: ModelFormat, estimator: Any, matrix: Matrix, *, background: Matrix, seed: int = 0
) -> Contributions:
    """Give what each input adds to the score of each row.

    LightGBM and XGBoost compute Shapley values of their trees exactly, in log-odds where the score is the
    logistic function of the trees' sum. For other models see `sampled_contributions`, also
    for trees of LightGBM with linear leaves.

    Parameters
    ----------
    format, estimator
        The model as `noria.registry.formats.load_estimator` gives it.
    matrix : array of shape (n, k)
        Rows as the model reads them.
    background : array of shape (m, k)
        Rows that stand for what is usual, for models that are no trees.
    seed : int
        Of what is sampled.

    References
    ----------
    S. M. Lundberg et al., "From local explanations to global understanding with explainable AI for trees",
    Nature Machine Intelligence 2 (2020), 56-67.
    """
    scorer = scorer_of(format, estimator)
    known = np.ascontiguousarray(matrix, dtype=np.float64)
    if not len(known):
        nothing = np.empty(0)
        method: Method = "tree_shap" if is_exact(format, estimator) else "sampled_shapley"
        return Contributions(np.empty(known.shape), nothing, nothing, "raw", method)
    if not is_exact(format, estimator):
        return sampled_contributions(scorer, known, background, seed=seed)
    if format == "lightgbm":
        from noria.explain.lightgbm_contributions import lightgbm_contributions

        found = lightgbm_contributions(estimator, known)
    else:
        from noria.explain.xgboost_contributions import xgboost_contributions

        found = xgboost_contributions(estimator, known)
    scores = scorer(known)
    return Contributions(found[:, :-1], found[:, -1], scores, unit_of(found.sum(axis=1), scores), "tree_shap")


def is_exact(format: ModelFormat, estimator: Any) -> bool:
    """Tell whether the library of a model computes its Shapley values."""
    if format == "lightgbm":
        from noria.explain.lightgbm_contributions import has_contributions

        return has_contributions(estimator)
    return format == "xgboost"


def unit_of(totals: Matrix, scores: Matrix) -> Unit:
    """Tell what totals are of scores.

    Examples
    --------
    >>> unit_of(np.array([0.0]), np.array([0.5])), unit_of(np.array([0.5]), np.array([0.5]))
    ('log_odds', 'score')
    """
    with np.errstate(over="ignore"):
        if np.abs(1 / (1 + np.exp(-totals)) - scores).max() < _CLOSE:
            return "log_odds"
    return "score" if np.abs(totals - scores).max() < _CLOSE else "raw"


def sampled_contributions(
    scorer: Scorer, matrix: Matrix, background: Matrix, *, seed: int, orders: int = _ORDERS
) -> Contributions:
    """Estimate Shapley values of the score: inputs change one by one from a usual row to the one asked.

    Whatever the orders, base and contributions add up to the score exactly; how it is shared among inputs is
    an estimate. The base is the mean score of the background.

    Parameters
    ----------
    background : array of shape (m, k)
        Usual rows, at most 50 of which are used.
    orders : int
        How many are drawn for each row; each is walked backwards as well.

    Raises
    ------
    ValueError
        If there is no background.

    References
    ----------
    E. Štrumbelj, I. Kononenko, "Explaining prediction models and individual predictions with feature
    contributions", Knowledge and Information Systems 41 (2014), 647-665.

    Examples
    --------
    >>> usual = np.array([[0.0, 0.0], [0.2, 0.0]])
    >>> asked = np.array([[0.5, 0.3]])
    >>> found = sampled_contributions(lambda rows: rows.sum(axis=1) / 2, asked, usual, seed=1)
    >>> found.values.round(6).tolist(), found.base.round(6).tolist()
    ([[0.2, 0.15]], [0.05])
    """
    if not len(background):
        raise ValueError("there are no rows to compare with; give a background")
    spread = np.linspace(0, len(background) - 1, min(_BACKGROUND_ROWS, len(background))).astype(np.int64)
    usual = np.ascontiguousarray(background[np.unique(spread)], dtype=np.float64)
    rng = np.random.default_rng(seed)
    width = matrix.shape[1]
    drawn = [rng.permutation(width) for _ in range(orders)]
    walks = [each for order in drawn for each in (order, order[::-1])]
    base = float(scorer(usual).mean())
    scores = scorer(matrix)
    values = np.zeros(matrix.shape)
    together = max(_CELLS_AT_ONCE // max(width * width * len(usual), 1), 1)
    for number, row in enumerate(matrix):
        for some in (walks[start : start + together] for start in range(0, len(walks), together)):
            # Every step of these walks at once: all inputs up to it are the row's, the others stay usual.
            steps = np.repeat(usual[np.newaxis], len(some) * width, axis=0)
            for place, walk in enumerate(some):
                for step, column in enumerate(walk):
                    steps[place * width + step : (place + 1) * width, :, column] = row[column]
            means = scorer(steps.reshape(-1, width)).reshape(len(some) * width, len(usual)).mean(axis=1)
            for place, walk in enumerate(some):
                told = np.concatenate([[base], means[place * width : (place + 1) * width]])
                values[number, walk] += np.diff(told)
    return Contributions(values / len(walks), np.full(len(matrix), base), scores, "score", "sampled_shapley")
