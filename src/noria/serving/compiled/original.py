"""Scores by scikit-learn's own estimator, where it has no compiled form."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.serving.compiled.refusals import RowsRefused
from noria.serving.records import Input, Output
from noria.serving.rows import Rows, Values

__all__ = ["OriginalScorer"]


class OriginalScorer:
    """A fitted estimator as it is. One thread scores at a time.

    Parameters
    ----------
    reason
        Why it is not compiled.
    none_columns
        Text columns whose missing value is None; of others it is NaN, as pandas has it.
    """

    is_native = False
    tolerance = 1e-9
    path = "scikit-learn"

    def __init__(
        self,
        estimator: Any,
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        reason: str,
        none_columns: Sequence[str] = (),
    ) -> None:
        self._estimator = estimator
        self._inputs = tuple(inputs)
        self.outputs: tuple[Output, ...] = tuple(outputs)
        self.fallback: str | None = reason
        self._none_columns = frozenset(none_columns)
        self.columns: int | None = sum(each.width for each in inputs if each.kind != "string")
        fitted = getattr(estimator, "feature_names_in_", None)
        names = [each.name for each in inputs]
        self._names: dict[str, str] | None = None  # of the table, by the input that gives each
        if fitted is not None:
            wanted = [str(each) for each in fitted]
            by_name = not set(wanted).isdisjoint(names)
            self._names = {each: each for each in names} if by_name else dict(zip(names, wanted, strict=True))
        self._is_classifier = hasattr(estimator, "classes_")

    def predict(self, rows: Rows) -> Sequence[Values]:
        """Give the columns of `outputs` for the rows.

        Raises
        ------
        RowsRefused
            If scikit-learn refuses them; its message may hold values, and is not passed on.
        """
        table = self._table(rows)
        try:
            return tuple(self._output(each, table) for each in self.outputs)
        except ValueError as err:
            raise RowsRefused(self._reason(str(err))) from None

    def _output(self, output: Output, table: Any) -> Values:
        if output.name == "probability" or (output.name == "score" and self._is_classifier):
            found = np.asarray(self._estimator.predict_proba(table), dtype=np.float64)
            return found if output.name == "probability" else np.ascontiguousarray(found[:, 1])
        found = np.asarray(self._estimator.predict(table))
        if output.datatype == "FP64":
            return found.astype(np.float64)
        kind = {"BYTES": str, "BOOL": bool, "INT64": int}[output.datatype]
        return [kind(each) for each in found.tolist()]

    def _reason(self, told: str) -> str:
        texts = [each.name for each in self._inputs if each.kind == "string"]
        if "unknown categories" in told:
            where = ", ".join(map(repr, texts)) or "the columns"
            return f"a value of {where} is none of the categories that the model was fitted on"
        if "NaN" in told or "infinity" in told:
            return "a number is missing, infinite or too large, and the model takes none such"
        return "scikit-learn refused the rows; look at the columns that the model was fitted on"

    def _table(self, rows: Rows) -> Any:
        columns = dict(self._columns(rows))
        if self._names is not None:
            import pandas as pd  # type: ignore[import-untyped]

            return pd.DataFrame({self._names[name]: each for name, each in columns.items()})
        if not rows.strings:
            return rows.matrix
        table = np.empty((rows.count, len(columns)), dtype=object)
        for place, each in enumerate(columns.values()):
            table[:, place] = each
        return table

    def _columns(self, rows: Rows) -> Iterator[tuple[str, NDArray[Any]]]:
        place = 0
        for each in self._inputs:
            if each.kind == "string":
                missing = None if each.name in self._none_columns else np.nan
                values = np.empty(rows.count, dtype=object)
                values[:] = [missing if value is None else value for value in rows.strings[each.name]]
                yield each.name, values
            else:
                yield each.name, rows.matrix[:, place]
                place += each.width
