"""Explains any model that gives numbers: its inputs are replaced by those of its stored sample rows."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError
from noria.explain.sampling import shapley_by_orders
from noria.serving.explaining.records import Attributed
from noria.serving.records import Output, ServedModel
from noria.serving.rows import Rows, Scorer, Values

__all__ = ["SampledExplainer", "numbers_of", "sample_rows", "seed_of"]

Floats = NDArray[np.float64]
_BACKGROUND_ROWS = 16
_ROWS_AT_ONCE = 20_000


class SampledExplainer:
    """Shapley values of the score, by sampled orders of the inputs.

    Raises
    ------
    DeploymentError
        If the model gives no number.
    """

    def __init__(self, served: ServedModel, scorer: Scorer) -> None:
        self.scorer = scorer
        self._served = served
        self.labels = _labels(explained_output(scorer.outputs, served))
        self._seed = seed_of(served)
        usual = sample_rows(served)
        spread = np.unique(np.linspace(0, usual.count - 1, min(_BACKGROUND_ROWS, usual.count)).astype(int))
        self._usual = Rows(
            usual.matrix[spread],
            {name: [values[row] for row in spread.tolist()] for name, values in usual.strings.items()},
        )
        self._base: Floats | None = None
        self._columns: list[slice | str] = []  # of each input: where it is in the matrix, or its name
        at = 0
        for each in served.inputs:
            if each.kind == "string":
                self._columns.append(each.name)
            else:
                self._columns.append(slice(at, at + each.width))
                at += each.width

    def attribute(self, rows: Rows, *, is_time: Callable[[], bool]) -> Attributed:
        """Give what inputs add to the score itself; see `Explainer`."""
        if self._base is None:
            self._base = self._score(self._usual).mean(axis=0)
        base, scores = self._base, self._score(rows)
        found = [
            shapley_by_orders(
                lambda masks, row=row: self._means(rows, row, masks),  # type: ignore[misc]
                len(self._columns),
                base=base,
                score=scores[row],
                seed=self._seed,
                is_time=is_time,
            )
            for row in range(rows.count)
        ]
        return Attributed(
            values=np.array([each.values for each in found]),
            base=np.tile(base, (rows.count, 1)),
            scores=scores,
            unit="score",
            method="sampled_shapley",
            errors=np.array([each.errors for each in found]),
            orders=min(each.orders for each in found),
        )

    def _score(self, rows: Rows) -> Floats:
        return numbers_of(self.scorer.outputs, self.scorer.predict(rows), self._served)

    def _means(self, rows: Rows, row: int, masks: NDArray[np.bool_]) -> Floats:
        """Give mean scores where some inputs are those of a row, the others those of usual rows."""
        at_once = max(1, _ROWS_AT_ONCE // self._usual.count)
        return np.concatenate(
            [
                self._means_of_few(rows, row, masks[start : start + at_once])
                for start in range(0, len(masks), at_once)
            ]
        )

    def _means_of_few(self, rows: Rows, row: int, masks: NDArray[np.bool_]) -> Floats:
        usual = self._usual
        matrix = np.tile(usual.matrix, (len(masks), 1))
        strings: dict[str, list[str | None]] = {}
        for place, column in enumerate(self._columns):
            given = np.repeat(masks[:, place], usual.count)
            if isinstance(column, slice):
                matrix[given, column] = rows.matrix[row, column]
            else:
                asked, others = rows.strings[column][row], list(usual.strings[column]) * len(masks)
                strings[column] = [
                    asked if is_given else other
                    for is_given, other in zip(given.tolist(), others, strict=True)
                ]
        scores = self._score(Rows(matrix, strings))
        found: Floats = scores.reshape(len(masks), usual.count, -1).mean(axis=1)
        return found


def explained_output(outputs: Sequence[Output], served: ServedModel) -> Output:
    """Give the output that is explained: the first number, else the first vector of numbers.

    Raises
    ------
    DeploymentError
        If there is none.
    """
    plain = [each for each in outputs if not each.width and each.datatype in ("FP64", "BOOL")]
    vectors = [each for each in outputs if each.width and each.datatype == "FP64"]
    if not plain and not vectors:
        told = ", ".join(f"{each.name} ({each.datatype})" for each in outputs)
        raise DeploymentError(
            f"{served.model}:{served.version} gives {told}, and no number that could be shared among its "
            "inputs; a model that gives probabilities beside its label can be explained"
        )
    return (plain or vectors)[0]


def numbers_of(outputs: Sequence[Output], values: Sequence[Values], served: ServedModel) -> Floats:
    """Give the numbers that are explained, of shape (n, w): of two classes the second's alone."""
    output = explained_output(outputs, served)
    place = next(place for place, each in enumerate(outputs) if each.name == output.name)
    found = np.asarray(values[place], dtype=np.float64)
    found = found.reshape(len(found), -1)
    return found[:, -1:] if _has_two_classes(output) else found


def _labels(output: Output) -> tuple[str, ...]:
    if not output.width:
        return ()
    labels = output.labels or tuple(map(str, range(output.width)))
    return labels[-1:] if _has_two_classes(output) else labels


def _has_two_classes(output: Output) -> bool:
    return output.name == "probability" and output.width == 2


def sample_rows(served: ServedModel) -> Rows:
    """Give the rows that are stored with a model, as it reads them."""
    samples = served.samples
    count = len(samples.scores) // 8
    return Rows(np.frombuffer(samples.matrix, dtype="<f8").reshape(count, -1), samples.strings)


def seed_of(served: ServedModel) -> int:
    """Give the seed by which a version is explained: the same orders every time."""
    return int(served.digest[:12], 16)
