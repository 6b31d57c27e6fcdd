"""Scores rows by a plan, without scikit-learn."""

from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError
from noria.serving.compiled.many_rows import LEAST_ROWS, ManyRows
from noria.serving.compiled.plan import Linear, Link, Plan, Trees, unpacked
from noria.serving.compiled.refusals import RowsRefused, refused_numbers, refused_rows
from noria.serving.compiled.running import Floats, Strings, runner
from noria.serving.compiled.tree_text import TINY
from noria.serving.formats.booster import Booster
from noria.serving.records import Output
from noria.serving.rows import Rows, Values

__all__ = ["PlanScorer", "fitter", "load_compiled"]

_TOLERANCE = 1e-9
_FORMAT = 1
_MOST = float(np.finfo(np.float64).max)
_FLOAT32_END = float.fromhex("0x1.ffffffp+127")  # from there on a number is infinite as float32


def load_compiled(data: bytes) -> "PlanScorer":
    """Give what scores by a stored plan; neither scikit-learn nor its estimator is loaded.

    Raises
    ------
    DeploymentError
        If the bytes hold no plan, or one of another release of noria.
    """
    try:
        plan = msgspec.msgpack.decode(data, type=Plan)
    except msgspec.MsgspecError as err:
        raise DeploymentError("the bytes hold no compiled model; compile it again") from err
    if plan.format != _FORMAT:
        raise DeploymentError(
            f"the compiled model has format {plan.format}, this release reads {_FORMAT}; compile it again"
        )
    return PlanScorer(plan)


class PlanScorer:
    """A compiled estimator of scikit-learn. One thread scores at a time."""

    is_native = True
    tolerance = _TOLERANCE
    path = "compiled"
    fallback: str | None = None

    def __init__(self, plan: Plan) -> None:
        self.columns: int | None = plan.columns
        self.outputs: tuple[Output, ...] = plan.outputs
        self.plan = plan
        self._names = plan.names
        self._encode = runner(plan.step)
        self._refuses, self._refused = plan.refuses, refused_numbers(plan.refuses)
        self._sums = _linear(plan.head) if isinstance(plan.head, Linear) else _trees(plan.head)
        self._link = plan.head.link
        self._classes = plan.classes
        self._cut = plan.cut
        self._is_label = plan.outputs[0].name == "label" and bool(plan.classes)
        self._has_probability = len(plan.outputs) > 1

    def encode(self, matrix: Floats, strings: Strings) -> Floats:
        """Give the matrix that the last estimator reads: the same bits as scikit-learn's."""
        return self._encode(matrix, strings)

    def predict(self, rows: Rows) -> Sequence[Values]:
        """Give the columns of `outputs` for the rows.

        Raises
        ------
        RowsRefused
            If a value is none that scikit-learn takes.
        """
        matrix = self._encode(rows.matrix, rows.strings)
        if self._refuses != "none" and not np.isfinite(matrix).all() and self._refused(matrix).any():
            raise refused_rows(self._names, self._refused(rows.matrix), self._refuses)
        sums = self._sums(matrix)
        if self._is_label:
            return self._classified(sums)
        found = _linked(sums, self._link)
        return (found if found.ndim == 1 else np.ascontiguousarray(found[:, 1]),)

    def _classified(self, sums: Floats) -> Sequence[Values]:
        if sums.ndim == 1:
            places = (sums > 0 if self._cut == "above" else sums >= 0).astype(np.intp).tolist()
        else:
            places = np.argmax(sums, axis=1).tolist()
        classes = self._classes
        labels = [classes[each] for each in places]
        if not self._has_probability:
            return (labels,)
        probability = _linked(sums, self._link)
        if probability.ndim == 1:
            probability = np.stack([1 - probability, probability], axis=1)
        return (labels, probability)


Sums = Callable[[Floats], Floats]


def _linear(head: Linear) -> Sums:
    kept, intercept = unpacked(head.coefficients), unpacked(head.intercept)
    coefficients = kept.T if head.is_transposed else kept

    def sums(matrix: Floats) -> Floats:
        found: Floats = matrix @ coefficients + intercept
        return found.reshape(-1) if found.ndim > 1 and found.shape[1] == 1 else found

    return sums


def _trees(head: Trees) -> Sums:
    booster = Booster(head.text, is_raw=True)
    many = None if head.tables is None else ManyRows(head.tables)
    fitted, divisor = fitter(head), head.divisor

    def sums(matrix: Floats) -> Floats:
        matrix = fitted(matrix)
        found = many.sums(matrix) if many and len(matrix) >= LEAST_ROWS else booster.predict(matrix)
        if divisor != 1.0:
            found /= divisor
        return found

    def checked(matrix: Floats) -> Floats:
        size = np.abs(matrix)
        if not size.max(initial=0.0) < _FLOAT32_END and (size >= _FLOAT32_END).any():  # NaN may be there
            raise RowsRefused("a number is too large for the float32 in which the model reads it")
        return sums(matrix)

    return checked if head.is_single else sums


def fitter(head: Trees) -> Callable[[Floats], Floats]:
    """Give what lets a matrix, which it may change, go the same ways in LightGBM as in scikit-learn."""
    at_zero, has_infinity = np.array(head.at_zero, dtype=np.intp), head.has_infinity
    is_single, codes = head.is_single, tuple(head.code_of_missing.items())

    def fitted(matrix: Floats) -> Floats:
        if is_single:
            matrix = matrix.astype(np.float32).astype(np.float64)
        if has_infinity:
            np.minimum(matrix, _MOST, out=matrix)
        if len(at_zero):
            _move_from_zero(matrix, at_zero)
        for column, code in codes:
            values = matrix[:, column]
            values[np.isnan(values)] = code
        return matrix

    return fitted


def _move_from_zero(matrix: Floats, columns: NDArray[np.intp]) -> None:
    """Move numbers next to 0 so far from it that LightGBM tells them from 0."""
    values = matrix.take(columns, axis=1)
    near = (np.abs(values) <= TINY) & (values != 0)
    if near.any():
        values[near] = np.copysign(2 * TINY, values[near])
        matrix[:, columns] = values


def _linked(sums: Floats, link: Link) -> Floats:
    match link:
        case "identity" | "mean":
            return sums
        case "exp":
            with np.errstate(over="ignore"):
                return np.exp(sums)
        case "sigmoid":
            return _sigmoid(sums)
        case "sigmoid_twice":
            return _sigmoid(2 * sums)
        case "softmax":
            found = np.exp(sums - sums.max(axis=1, keepdims=True))
            return np.asarray(found / found.sum(axis=1, keepdims=True))
        case "one_vs_rest":
            found = _sigmoid(sums)
            total = found.sum(axis=1, keepdims=True)
            found[(total == 0)[:, 0]] = 1
            return np.asarray(found / found.sum(axis=1, keepdims=True))
        case _:
            assert_never(link)


def _sigmoid(sums: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(np.minimum(-sums, 709.0))))
