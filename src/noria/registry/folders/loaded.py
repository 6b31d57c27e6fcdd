"""A model in memory that predicts rows, however it was stored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from noria.registry.folders.signatures import FolderSignature
from noria.registry.records import Signature

__all__ = ["LoadedEstimator"]


@dataclass(frozen=True, slots=True)
class LoadedEstimator:
    """A model that was loaded, every digest on record verified.

    Attributes
    ----------
    reference
        What it was asked for by.
    flavor
        The library that loads it, as MLflow names it: "lightgbm", "xgboost", "onnx", "sklearn", "pytorch",
        "safetensors" or "python_function".
    estimator
        The model as that library has it: a Booster, an estimator, a session of onnxruntime, a module of
        torch, arrays by name.
    signature
        What it reads; None if that is not known.
    predictor
        What `predict` calls.
    """

    reference: str
    flavor: str
    estimator: Any
    signature: FolderSignature | Signature | None
    predictor: Callable[[object], Any]

    def predict(self, frame: object) -> Any:
        """Predict rows: what `mlflow.pyfunc` gives, or scores of a version that noria trained.

        Parameters
        ----------
        frame
            A frame of pandas, Polars, Arrow or DuckDB, columns by name, rows as mappings, or an array. Where
            the model has a signature, its columns are found by name and others left out.

        Raises
        ------
        SourceError
            If a column is missing, or of a type that the model does not read.
        """
        return self.predictor(frame)
