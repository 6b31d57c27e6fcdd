"""What scores the rows of a release, by the format of its model file."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigError, DeploymentError
from noria.serving.booster import Booster
from noria.serving.xgboost_booster import XgboostBooster

__all__ = ["SERVED_FORMATS", "FileScorer", "open_scorer"]

SERVED_FORMATS = ("lightgbm", "xgboost", "onnx")


class FileScorer(Protocol):
    """A model in memory. One thread scores at a time."""

    @property
    def columns(self) -> int | None:
        """How many columns it reads; None if it does not say."""
        ...

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score the rows of `matrix`, float64 of shape (n, columns); NaN is missing."""
        ...


class _Onnx:
    def __init__(self, data: bytes) -> None:
        from noria.registry.onnx_format import input_width, load_onnx, onnx_scorer

        session = load_onnx(data)
        self.columns: int | None = input_width(session)
        self._score = onnx_scorer(session)

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._score(matrix)


def open_scorer(format: str, data: bytes) -> FileScorer:
    """Give what scores by the bytes of a model file.

    Raises
    ------
    DeploymentError
        If the format is none that is served, the bytes are no such model, or its library is not installed.
    """
    match format:
        case "lightgbm":
            return Booster(data)
        case "xgboost":
            return XgboostBooster(data)
        case "onnx":
            try:
                return _Onnx(data)
            except ConfigError as err:
                raise DeploymentError(str(err)) from err
        case _:
            raise DeploymentError(
                f"models of format {format!r} are not served; there is {', '.join(SERVED_FORMATS)}"
            )
