"""What scores the rows of a release, by the format of its model file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigError, DeploymentError
from noria.serving.formats.booster import Booster
from noria.serving.formats.xgboost_booster import XgboostBooster
from noria.serving.records import SCORE, Output, ServedModel
from noria.serving.rows import Rows, Scorer, Values

__all__ = ["SERVED_FORMATS", "Rows", "Scorer", "Values", "native_scorer", "open_scorer"]

SERVED_FORMATS = ("lightgbm", "xgboost", "skops", "compiled", "onnx", "mlflow", "python")


class _Numbers(Protocol):
    """A library's model: a matrix in; out one number for a row, or `width`."""

    @property
    def columns(self) -> int | None: ...
    @property
    def width(self) -> int: ...
    @property
    def objective(self) -> str: ...

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]: ...


_CLASS = "multi:softmax"  # an objective of XGBoost by which a row gets the number of its class
_TARGETS = "reg:"  # of XGBoost, by which a row gets a number for every target


class _Native:
    """A model of trees, by native code.

    It gives one number for a row, or where it tells classes apart, the number of the likeliest and the
    probability of each.
    """

    is_native = True
    tolerance = 0.0
    path = "native"
    fallback: str | None = None

    def __init__(self, model: _Numbers) -> None:
        self._predict = model.predict
        self.columns = model.columns
        classes = tuple(map(str, range(model.width)))
        label = Output(name="label", datatype="INT64")
        self.outputs: tuple[Output, ...]
        if model.objective == _CLASS:
            self.outputs = (label,)
        elif model.width == 1:
            self.outputs = (SCORE,)
        elif model.objective.startswith(_TARGETS):
            self.outputs = (Output(name="score", width=model.width),)
        else:
            self.outputs = (label, Output(name="probability", width=model.width, labels=classes))

    def predict(self, rows: Rows) -> Sequence[Values]:
        found = self._predict(rows.matrix)
        if self.outputs[0].name == "score":
            return (found,)
        if len(self.outputs) == 1:
            return (found.astype(np.int64).tolist(),)
        return found.argmax(axis=1).tolist(), found


def native_scorer(model: Booster | XgboostBooster) -> Scorer:
    """Give what scores by a model of trees that is in memory."""
    return _Native(model)


def open_scorer(served: ServedModel, data: bytes, *, folder: Path) -> Scorer:
    """Give what scores by a model.

    Parameters
    ----------
    served
        Of which release.
    data
        The bytes of its file, verified; none where it is a folder of files.
    folder
        Where relative paths of its files start.

    Raises
    ------
    DeploymentError
        If the format is none that is served, the bytes are no such model, or its library is not installed.
    """
    match served.format:
        case "lightgbm":
            return native_scorer(Booster(data))
        case "xgboost":
            return native_scorer(XgboostBooster(data))
        case "skops":
            from noria.registry.skops_archives import load_archive
            from noria.serving.compiled import open_sklearn

            try:
                return open_sklearn(load_archive(data), served.inputs, served.outputs)
            except ConfigError as err:
                raise DeploymentError(str(err)) from err
        case "compiled":  # of scikit-learn, which is not loaded then
            from noria.serving.compiled import load_compiled

            return load_compiled(data)
        case "onnx":
            from noria.serving.formats.onnx_models import open_onnx

            return open_onnx(served, data)
        case "mlflow" | "python":
            return _open_files(served, folder)
        case _:
            raise DeploymentError(
                f"models of format {served.format!r} are not served; there is {', '.join(SERVED_FORMATS)}"
            )


def _open_files(served: ServedModel, folder: Path) -> Scorer:
    if served.format == "python":
        from noria.serving.formats.python_models import open_python

        return open_python(served, folder)
    from noria.serving.formats.mlflow_models import open_mlflow

    return open_mlflow(served, folder)
