"""What a training function is given and gives back.

Importing this loads neither numpy nor pyarrow: a project's module names these types in its annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Estimator", "TrainingRun", "TrainingSet"]


class Estimator(Protocol):
    """What a training function returns: whatever predicts.

    A `Booster` or classifier of LightGBM or XGBoost, or a classifier of scikit-learn (with `predict_proba`).
    An ONNX `ModelProto` is taken too.
    """

    def predict(self, X: Any, /) -> Any:  # noqa: N803 - the name of scikit-learn and LightGBM
        """Predict rows."""
        ...


class TrainingRun(Protocol):
    """The run that a training function works in."""

    @property
    def seed(self) -> int:
        """Seed of everything random in the function."""
        ...

    @property
    def threads(self) -> int:
        """Threads that the function may use. Models are the same only for the same number of them."""
        ...

    def lightgbm_params(self, **params: Any) -> dict[str, Any]:
        """Give LightGBM parameters under which the same rows, seed and threads give the same bytes.

        `params` are added, and logged as the run's parameters.
        """
        ...

    def log_param(self, name: str, value: Any) -> None:
        """Keep a parameter with the run."""
        ...

    def log_metric(self, name: str, value: float, *, step: int = 0) -> None:
        """Keep one value of a metric; the last of each name goes into the run's record."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled rows in a fixed order (instant, then id), as a model takes them.

    Attributes
    ----------
    X : ndarray of shape (n, k), float64
        Inputs; a category is its code, NaN is missing. Column-major, so that a column is contiguous.
    y : ndarray of shape (n,), float64
        Labels, 0 or 1.
    names : tuple of str
        Columns of `X`.
    category_columns : tuple of int
        Which of them are codes.
    at : ndarray of shape (n,), int64
        Instants of the predictions, microseconds since 1970.
    ids : pyarrow.Array
        Prediction ids.
    label : str
        The label's name.
    source, rows : pyarrow.Table, ndarray of int64
        The feature rows before encoding, and which of them these are.
    """

    X: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    names: tuple[str, ...]
    category_columns: tuple[int, ...]
    at: npt.NDArray[np.int64]
    ids: Any
    label: str
    source: Any
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.y.shape[0])

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give `arrow()` to any frame library that reads the Arrow PyCapsule interface."""
        return self.arrow().__arrow_c_stream__(requested_schema)

    def arrow(self) -> Any:
        """Give the rows before encoding as a `pyarrow.Table`, with the label as its last column."""
        import pyarrow as pa

        return self.source.take(pa.array(self.rows)).append_column(self.label, pa.array(self.y))
