"""What a model of each library gives for rows: the same as by a client of MLflow."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from noria.errors import ConfigError, SourceError
from noria.registry.folders.frames import Rows, data_frame, float_matrix

__all__ = ["Predictor", "predictor_of"]

Predictor = Callable[[Rows], Any]


def predictor_of(flavor: str, model: Any, *, method: str = "predict") -> Predictor:
    """Give the function that predicts rows.

    Parameters
    ----------
    flavor
        "lightgbm", "xgboost", "onnx" or "sklearn".
    model
        As its library has it; of ONNX its `ModelProto` or a session of onnxruntime.
    method
        Of estimators: what is called.

    Raises
    ------
    ConfigError
        If the model has no such method, or its library is not installed.
    """
    match flavor:
        case "lightgbm" if type(model).__name__ == "Booster":
            return _LightgbmBooster(model)
        case "xgboost":
            return _Xgboost(model)
        case "onnx":
            return _Onnx(model)
        case _:
            return _Estimator(model, method)


class _LightgbmBooster:
    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, rows: Rows) -> Any:
        return self._model.predict(float_matrix(_ordered(rows, self._model.feature_name())))


class _Xgboost:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._booster = model if type(model).__name__ == "Booster" else model.get_booster()

    def __call__(self, rows: Rows) -> Any:
        names = self._booster.feature_names
        matrix = float_matrix(_ordered(rows, names or ()))
        wanted = self._booster.num_features()
        if matrix.shape[1:] != (wanted,):
            raise SourceError(f"the rows have the shape {matrix.shape}; the model reads {wanted} columns")
        if self._booster is not self._model:
            return self._model.predict(matrix, validate_features=False)
        import xgboost

        return self._model.predict(xgboost.DMatrix(matrix), validate_features=False)


class _Onnx:
    def __init__(self, model: Any) -> None:
        from noria.registry.onnx_format import load_onnx

        is_proto = hasattr(model, "SerializeToString")
        self._session = load_onnx(model.SerializeToString()) if is_proto else model

    def __call__(self, rows: Rows) -> Any:
        inputs = self._session.get_inputs()
        if isinstance(rows, np.ndarray):
            if len(inputs) != 1:
                raise SourceError(
                    f"the model reads {', '.join(each.name for each in inputs)}; give columns of these names"
                )
            feeds = {inputs[0].name: rows}
        elif len(inputs) == 1:
            feeds = {inputs[0].name: float_matrix(rows)}
        else:
            feeds = {each.name: _feed(rows, each) for each in inputs}
        kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64}
        cast = {
            each.name: feeds[each.name].astype(kinds.get(each.type, feeds[each.name].dtype), copy=False)
            for each in inputs
        }
        from noria.registry.onnx_format import ONNX_ERRORS

        try:
            given = self._session.run(None, cast)
        except ONNX_ERRORS as err:
            raise SourceError(
                f"the ONNX model does not take the rows: {' '.join(str(err).split())[:300]}"
            ) from err
        found = {
            each.name: np.asarray(value)
            for each, value in zip(self._session.get_outputs(), given, strict=True)
        }
        return found if len(found) > 1 else next(iter(found.values()))


class _Estimator:
    def __init__(self, model: Any, method: str) -> None:
        self._method = getattr(model, method, None)
        if not callable(self._method):
            raise ConfigError(f"the model is a {type(model).__qualname__}, which has no {method!r}")
        self._names = tuple(getattr(model, "feature_names_in_", ()))

    def __call__(self, rows: Rows) -> Any:
        if isinstance(rows, np.ndarray):
            return self._method(rows)  # type: ignore[misc]
        if self._names:
            return self._method(data_frame(_ordered(rows, self._names)))  # type: ignore[misc]
        with warnings.catch_warnings():  # it was trained without names, and reads columns by place
            warnings.filterwarnings("ignore", "X has feature names, but", UserWarning)
            return self._method(data_frame(rows))  # type: ignore[misc]


def _ordered(rows: Rows, names: Any) -> Rows:
    """Give the columns that a model was trained with, in its order, where both have names."""
    if isinstance(rows, np.ndarray) or not names or not set(names) <= set(rows.column_names):
        return rows
    return rows.select(list(names))


def _feed(rows: Rows, wanted: Any) -> Any:
    if wanted.name not in rows.column_names:
        raise SourceError(f"the rows have no column {wanted.name!r}; there is {', '.join(rows.column_names)}")
    values = rows.column(wanted.name).to_numpy()
    return values.reshape(-1, 1) if len(wanted.shape) == 2 else values
