"""Explanations as values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from noria.serving.rows import Rows, Scorer

__all__ = ["Adds", "Attributed", "Explained", "Explainer", "Method", "OfNumber", "Unit"]

Floats = NDArray[np.float64]
Method = Literal["tree_shap", "linear_shap", "sampled_shapley"]
Unit = Literal["score", "log_odds", "log", "logits", "raw"]


@dataclass(frozen=True, slots=True)
class Attributed:
    """What the inputs of rows add to the numbers that a model gives.

    Attributes
    ----------
    values : ndarray of shape (n, w, k)
        By row, number, and input in the model's order.
    base : ndarray of shape (n, w)
        What they start from: `base + values.sum(axis=2)` is the total, in `unit`.
    scores : ndarray of shape (n, w)
        What the model gives.
    unit
        What a total is: the `score`; the `log_odds` of it; the `log` of it; of several classes `logits`,
        whose softmax the scores are; or `raw`, the sum of trees, of which the model makes the score in a way
        of its own.
    errors : ndarray of shape (n, w, k), optional
        Standard errors, where values are estimated.
    orders
        How many were sampled for a row, the fewest; 0 where values are exact.
    """

    values: Floats
    base: Floats
    scores: Floats
    unit: Unit
    method: Method
    errors: Floats | None = None
    orders: int = 0


class Explainer(Protocol):
    """Explains by one model. One thread asks at a time; the model may score in another one meanwhile.

    Attributes
    ----------
    scorer
        Its own, where the model's may be at work elsewhere.
    labels
        What its numbers are of, such as classes; empty where there is one that needs no name.
    """

    @property
    def scorer(self) -> Scorer: ...  # noqa: D102 - told above
    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102 - told above

    def attribute(self, rows: Rows, *, is_time: Callable[[], bool]) -> Attributed:
        """Give what inputs add.

        Parameters
        ----------
        is_time
            Whether there is time to go on.

        Raises
        ------
        OutOfTime
            If there is not enough.
        NoriaError
            If the model cannot score the rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Adds:
    """What one input adds.

    Attributes
    ----------
    name, kind
        As `noria.serving.records.Input` has them.
    value
        As the request gave it or as it was looked up; None or NaN where it is missing.
    error
        The standard error of `contribution`; None where that is exact.
    """

    name: str
    kind: str
    value: Any
    contribution: float
    error: float | None = None


@dataclass(frozen=True, slots=True)
class OfNumber:
    """One number that a model gave for a row: `base` and what inputs add are `total`, in the unit."""

    label: str
    score: float
    base: float
    total: float
    contributions: tuple[Adds, ...]  # the largest first


@dataclass(frozen=True, slots=True)
class Explained:
    """One row explained."""

    model: str
    version: int
    release: str
    method: Method
    unit: Unit
    numbers: tuple[OfNumber, ...]  # several of a model that tells several classes apart
    orders: int = 0
    seed: int = 0
    prediction_id: str | None = None
