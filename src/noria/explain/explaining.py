"""An explanation of a model over rows: importance, permutations, effects. It records nothing."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from noria.evaluation.intervals import Interval
from noria.explain.contributions import contributions_of, is_exact, sampled_contributions
from noria.explain.effects import effects_of
from noria.explain.permutation import permutation_importance
from noria.explain.records import Explanation, InputExplanation
from noria.registry.formats import load_estimator, scorer_of
from noria.registry.matrix import Matrix
from noria.registry.records import ModelFormat, Signature

__all__ = ["explain_model"]

_REPEATS = 3
_SAMPLED_ROWS, _SAMPLED_BACKGROUND, _SAMPLED_ORDERS = 20, 10, 3  # a forest takes its time


def explain_model(
    format: ModelFormat,
    data: bytes,
    signature: Signature,
    matrix: Matrix,
    *,
    model: str,
    y: npt.ArrayLike | None,
    rows: int,
    permuted_rows: int,
    seed: int,
) -> Explanation:
    """Explain a model over some of the rows of `matrix`, evenly spread.

    Parameters
    ----------
    model : str
        The digest of its version.
    y : array of shape (n,), optional
        Outcomes, where the rows were held back; without them nothing is permuted.
    rows, permuted_rows : int
        How many at most.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    if not len(matrix):
        raise ValueError("there are no rows to explain the model with")
    estimator = load_estimator(format, data)
    scorer = scorer_of(format, estimator)
    if is_exact(format, estimator):
        some = _spread(len(matrix), rows)
        found = contributions_of(format, estimator, matrix[some], background=matrix, seed=seed)
    else:
        some = _spread(len(matrix), min(rows, _SAMPLED_ROWS))
        usual = matrix[_spread(len(matrix), _SAMPLED_BACKGROUND)]
        found = sampled_contributions(scorer, matrix[some], usual, seed=seed, orders=_SAMPLED_ORDERS)
    held: Literal["held_back", "training"] = "training" if y is None else "held_back"
    permuted: tuple[Interval, ...] | None = None
    asked = _spread(len(matrix), permuted_rows)
    if y is not None:
        outcomes = np.asarray(y, dtype=np.float64)[asked]
        permuted = permutation_importance(scorer, matrix[asked], outcomes, seed=seed, repeats=_REPEATS)
    inputs = [
        InputExplanation(
            name=each.name,
            kind=each.kind,
            mean_absolute=float(np.abs(found.values[:, place]).mean()),
            permuted=None if permuted is None else permuted[place],
            effects=effects_of(each, matrix[some, place], found.values[:, place]),
        )
        for place, each in enumerate(signature.inputs)
    ]
    return Explanation(
        model=model,
        method=found.method,
        unit=found.unit,
        base=float(found.base.mean()),
        rows=len(some),
        rows_from=held,
        permuted_rows=0 if y is None else len(asked),
        repeats=0 if y is None else _REPEATS,
        seed=seed,
        inputs=tuple(sorted(inputs, key=lambda each: (-each.mean_absolute, each.name))),
    )


def _spread(rows: int, most: int) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))
    return found
