"""Fitted models as bytes and back; the library of a format is loaded when one of its models is."""

from typing import Any, assert_never

from noria.errors import ConfigError
from noria.registry.records import ModelFormat
from noria.registry.scorers import Scorer

__all__ = ["dump_estimator", "load_estimator", "load_scorer", "scorer_of"]


def dump_estimator(estimator: Any) -> tuple[ModelFormat, bytes]:
    """Give the format and the bytes of a fitted model; the same model gives the same bytes.

    Raises
    ------
    ConfigError
        If it is no model of LightGBM or XGBoost, no ONNX model and no scikit-learn classifier, or cannot be
        stored without pickle.
    """
    packages = {each.__module__.partition(".")[0] for each in type(estimator).__mro__}
    if "lightgbm" in packages:
        from noria.registry.lightgbm_format import dump_lightgbm

        return "lightgbm", dump_lightgbm(estimator)
    if "xgboost" in packages:
        from noria.registry.xgboost_format import dump_xgboost

        return "xgboost", dump_xgboost(estimator)
    if type(estimator).__module__.partition(".")[0] == "onnx" and type(estimator).__name__ == "ModelProto":
        from noria.registry.onnx_format import dump_onnx

        return "onnx", dump_onnx(estimator)
    if callable(getattr(estimator, "predict_proba", None)) and callable(
        getattr(estimator, "get_params", None)
    ):
        from noria.registry.skops_format import dump_skops

        return "skops", dump_skops(estimator)
    raise ConfigError(
        f"{type(estimator).__qualname__} cannot be registered; return a LightGBM Booster or LGBMClassifier, "
        "an XGBoost Booster or XGBClassifier, an ONNX ModelProto, or a classifier of scikit-learn"
    )


def load_estimator(format: ModelFormat, data: bytes) -> Any:
    """Give the model as its library has it: a Booster, a classifier, a session of onnxruntime.

    Raises
    ------
    ConfigError
        If the bytes are no such model, or its library is not installed.
    """
    match format:
        case "lightgbm":
            from noria.registry.lightgbm_format import load_lightgbm

            return load_lightgbm(data)
        case "xgboost":
            from noria.registry.xgboost_format import load_xgboost

            return load_xgboost(data)
        case "onnx":
            from noria.registry.onnx_format import load_onnx

            return load_onnx(data)
        case "skops":
            from noria.registry.skops_format import load_skops

            return load_skops(data)
        case "mlflow":
            raise ConfigError(
                "folders of MLflow are loaded by `project.load_model`, and served as they are by "
                "`noria deploy`"
            )
        case "python":
            raise ConfigError("a model in Python is loaded by `project.load_model`, with its code and files")
        case _:
            assert_never(format)


def scorer_of(format: ModelFormat, estimator: Any) -> Scorer:
    """Give the function that scores a matrix: one probability for each row, whatever rows are beside it.

    Raises
    ------
    ConfigError
        If the model gives other than one probability for a row.
    """
    match format:
        case "lightgbm":
            from noria.registry.lightgbm_format import lightgbm_scorer

            return lightgbm_scorer(estimator)
        case "xgboost":
            from noria.registry.xgboost_format import xgboost_scorer

            return xgboost_scorer(estimator)
        case "onnx":
            from noria.registry.onnx_format import onnx_scorer

            return onnx_scorer(estimator)
        case "skops":
            from noria.registry.skops_format import skops_scorer

            return skops_scorer(estimator)
        case "mlflow":
            raise ConfigError("a folder of MLflow has no scorer; load it by `project.load_model`")
        case "python":
            raise ConfigError("a model in Python has no scorer; load it by `project.load_model`")
        case _:
            assert_never(format)


def load_scorer(format: ModelFormat, data: bytes) -> Scorer:
    """Give the function that scores a matrix from the bytes of a model. Raises like its two parts."""
    return scorer_of(format, load_estimator(format, data))
