"""Explains compiled estimators of scikit-learn: exactly, where each column that they make is of one input."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from noria.serving.compiled.plan import Linear, Link, Plan, Trees, unpacked
from noria.serving.compiled.running import runner
from noria.serving.compiled.scoring import PlanScorer, fitter
from noria.serving.compiled.sources import sources_of
from noria.serving.explaining.native import in_time
from noria.serving.explaining.records import Attributed, Method, Unit
from noria.serving.explaining.sampled import numbers_of, sample_rows
from noria.serving.formats.booster import Booster
from noria.serving.records import ServedModel
from noria.serving.rows import Rows, Scorer

__all__ = ["PlanExplainer", "is_separable"]

Floats = NDArray[np.float64]
_UNITS: dict[Link, Unit] = {
    "identity": "score",
    "mean": "score",
    "exp": "log",
    "sigmoid": "log_odds",
    "sigmoid_twice": "log_odds",
    "softmax": "logits",
    "one_vs_rest": "raw",
}


def is_separable(plan: Plan) -> bool:
    """Whether each column that the last estimator reads is made of one input, and its trees know weights."""
    if isinstance(plan.head, Trees) and b"\ninternal_count=" not in plan.head.text:
        return False
    return all(len(each) <= 1 for each in sources_of(plan.step, plan.names))


class PlanExplainer:
    """What inputs add to the sums of a plan's head, of which the score is made.

    Of trees they are Shapley values given the rows that the trees were grown on, as LightGBM's library
    computes them; of linear models, given the stored sample rows, whose mean is the base. What an input's
    columns add is added up.
    """

    def __init__(self, served: ServedModel, plan: Plan) -> None:
        self.scorer: Scorer = PlanScorer(plan)
        self._encode = runner(plan.step)
        self._served, self._plan = served, plan
        places = {each.name: place for place, each in enumerate(served.inputs)}
        self._input_of = np.array(
            [places[next(iter(each))] if each else -1 for each in sources_of(plan.step, plan.names)],
            dtype=np.intp,
        )
        self._columns, self._method = self._reading(plan)
        self._unit: Unit = _UNITS[plan.head.link]
        self._gives_sums = plan.outputs[0].name == "label" and len(plan.outputs) == 1 and bool(plan.classes)
        if self._gives_sums:  # no probability: the sums are what there is
            self._unit = "raw"
        self.labels = self._labels()

    def attribute(self, rows: Rows, *, is_time: Callable[[], bool]) -> Attributed:
        """Give what inputs add; see `Explainer`."""
        predicted = self.scorer.predict(rows)  # refuses what the model refuses
        encoded = self._encode(rows.matrix, rows.strings)
        by_column, start = self._columns(encoded, is_time)
        values, base = self._over_inputs(by_column, start)
        scores = values.sum(axis=2) + base
        if not self._gives_sums:
            scores = numbers_of(self.scorer.outputs, predicted, self._served)
            values, base = values[:, -scores.shape[1] :], base[:, -scores.shape[1] :]
        return Attributed(values, base, scores, self._unit, self._method)

    def _labels(self) -> tuple[str, ...]:
        classes = tuple(map(str, self._plan.classes))
        return classes[-1:] if len(classes) == 2 else classes

    def _over_inputs(self, by_column: Floats, start: Floats) -> tuple[Floats, Floats]:
        """Add up what the columns of each input add; what columns of no input add goes to the base."""
        values = np.zeros((*by_column.shape[:2], len(self._served.inputs)))
        for column, place in enumerate(self._input_of.tolist()):
            if place >= 0:
                values[:, :, place] += by_column[:, :, column]
            else:
                start = start + by_column[:, :, column]
        return values, start

    def _reading(
        self, plan: Plan
    ) -> tuple[Callable[[Floats, Callable[[], bool]], tuple[Floats, Floats]], Method]:
        if isinstance(plan.head, Linear):
            return self._of_linear(plan.head), "linear_shap"
        return _of_trees(plan.head), "tree_shap"

    def _of_linear(self, head: Linear) -> Callable[[Floats, Callable[[], bool]], tuple[Floats, Floats]]:
        kept, intercept = unpacked(head.coefficients), unpacked(head.intercept)
        coefficients = kept.T if head.is_transposed else kept
        coefficients = coefficients.reshape(len(coefficients), -1)
        scale = 2.0 if head.link == "sigmoid_twice" else 1.0
        usual = sample_rows(self._served)
        mean = self._encode(usual.matrix, usual.strings).mean(axis=0)
        base = scale * (mean @ coefficients + intercept.reshape(-1))

        def columns(encoded: Floats, _: Callable[[], bool]) -> tuple[Floats, Floats]:
            values = scale * (encoded - mean)[:, np.newaxis, :] * coefficients.T
            return values, np.tile(base, (len(encoded), 1))

        return columns


def _of_trees(head: Trees) -> Callable[[Floats, Callable[[], bool]], tuple[Floats, Floats]]:
    booster, fitted = Booster(head.text, is_raw=True), fitter(head)
    scale = (2.0 if head.link == "sigmoid_twice" else 1.0) / head.divisor

    def columns(encoded: Floats, is_time: Callable[[], bool]) -> tuple[Floats, Floats]:
        found = in_time(booster.contributions, fitted(encoded), is_time) * scale
        return found[:, :, :-1], found[:, :, -1]

    return columns
