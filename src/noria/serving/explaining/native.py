"""Explains trees by the libraries that grew them: exact Shapley values, in the space of the trees' sums."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from noria.explain.sampling import OutOfTime
from noria.serving.explaining.records import Attributed, Unit
from noria.serving.formats.booster import Booster
from noria.serving.formats.scorers import native_scorer
from noria.serving.formats.xgboost_booster import XgboostBooster
from noria.serving.records import ServedModel
from noria.serving.rows import Rows, Scorer

__all__ = ["LightgbmExplainer", "XgboostExplainer", "in_time", "over_inputs"]

Floats = NDArray[np.float64]
_LIGHTGBM_UNITS: dict[str, Unit] = {
    "": "score",
    "binary": "log_odds",
    "cross_entropy": "log_odds",
    "multiclass": "logits",
    "multiclassova": "log_odds",
    "poisson": "log",
    "gamma": "log",
    "tweedie": "log",
    "cross_entropy_lambda": "raw",
}  # of others the sum is the score
_XGBOOST_UNITS: dict[str, Unit] = {
    "binary:logistic": "log_odds",
    "reg:logistic": "log_odds",
    "multi:softprob": "logits",
    "multi:softmax": "logits",
    "count:poisson": "log",
    "reg:gamma": "log",
    "reg:tweedie": "log",
    "survival:cox": "log",
    "survival:aft": "log",
    "binary:hinge": "raw",
}


class LightgbmExplainer:
    """A model of LightGBM in memory once more: its library scores one row of a model at a time."""

    def __init__(self, served: ServedModel, data: bytes) -> None:
        self._booster = Booster(data)
        self.scorer: Scorer = native_scorer(self._booster)
        self.labels = _labels(self._booster.width, served)
        self._widths = [each.width for each in served.inputs]
        objective = self._booster.objective
        self._unit = _LIGHTGBM_UNITS.get(objective, "score")
        if b"\nobjective=" + objective.encode() + b" sqrt" in data.partition(b"\nTree=0\n")[0]:
            self._unit = "raw"  # the square of the sum is the score
        scales = objective in ("binary", "multiclassova")
        self._scale = (self._booster.slope if scales else 1.0) / self._booster.averaged

    def attribute(self, rows: Rows, *, is_time: Callable[[], bool]) -> Attributed:
        """Give what inputs add; see `Explainer`."""
        found = in_time(self._booster.contributions, rows.matrix, is_time) * self._scale
        return Attributed(
            values=over_inputs(found[:, :, :-1], self._widths),
            base=found[:, :, -1],
            scores=self._booster.predict(rows.matrix).reshape(rows.count, -1),
            unit=self._unit,
            method="tree_shap",
        )


class XgboostExplainer:
    """A model of XGBoost in memory once more. The library adds up in single precision."""

    def __init__(self, served: ServedModel, data: bytes) -> None:
        self._booster = XgboostBooster(data)
        self.scorer: Scorer = native_scorer(self._booster)
        self._widths = [each.width for each in served.inputs]
        self._unit = _XGBOOST_UNITS.get(self._booster.objective, "score")
        self._is_class = self._booster.objective == "multi:softmax"
        self.labels = _labels(self._booster.groups, served)

    def attribute(self, rows: Rows, *, is_time: Callable[[], bool]) -> Attributed:
        """Give what inputs add; see `Explainer`."""
        found = in_time(self._booster.contributions, rows.matrix, is_time)
        if self._is_class:  # it gives the class alone
            sums = found.sum(axis=2)
            scores = np.exp(sums - sums.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        else:
            scores = self._booster.predict(rows.matrix).reshape(rows.count, -1)
        return Attributed(
            values=over_inputs(found[:, :, :-1], self._widths),
            base=found[:, :, -1],
            scores=scores,
            unit=self._unit,
            method="tree_shap",
        )


def in_time(explain: Callable[[Floats], Floats], matrix: Floats, is_time: Callable[[], bool]) -> Floats:
    """Explain one row after another, while there is time. Raises `OutOfTime`."""
    found: list[Floats] = []
    for row in range(len(matrix)):
        if not is_time():
            raise OutOfTime
        found.append(explain(matrix[row : row + 1]))
    return np.concatenate(found)


def over_inputs(values: Floats, widths: Sequence[int]) -> Floats:
    """Add up the columns of each input: a vector is one."""
    if all(each == 1 for each in widths):
        return values
    starts = np.cumsum([0, *widths[:-1]])
    found: Floats = np.add.reduceat(values, starts, axis=2)
    return found


def _labels(width: int, served: ServedModel) -> tuple[str, ...]:
    if width == 1:
        return ()
    told = next((each.labels for each in served.outputs if len(each.labels) == width), ())
    return told or tuple(map(str, range(width)))
