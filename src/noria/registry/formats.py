"""Fitted models as bytes and back; the library of a format is loaded when one of its models is."""

from typing import Any, assert_never

from noria.errors import ConfigError
from noria.registry.matrix import Scorer
from noria.registry.records import ModelFormat

__all__ = ["dump_estimator", "load_scorer"]


def dump_estimator(estimator: Any) -> tuple[ModelFormat, bytes]:
    """Give the format and the bytes of a fitted model; the same model gives the same bytes.

    Raises
    ------
    ConfigError
        If it is no LightGBM model and no scikit-learn classifier, or cannot be stored without pickle.
    """
    package = type(estimator).__module__.partition(".")[0]
    if package == "lightgbm":
        from noria.registry.lightgbm_format import dump_lightgbm

        return "lightgbm", dump_lightgbm(estimator)
    if callable(getattr(estimator, "predict_proba", None)) and callable(
        getattr(estimator, "get_params", None)
    ):
        from noria.registry.skops_format import dump_skops

        return "skops", dump_skops(estimator)
    raise ConfigError(
        f"{type(estimator).__qualname__} cannot be registered; return a LightGBM Booster or LGBMClassifier, "
        "or a classifier of scikit-learn"
    )


def load_scorer(format: ModelFormat, data: bytes) -> Scorer:
    """Give the function that scores a matrix: one probability for each row, whatever rows are beside it.

    Raises
    ------
    ConfigError
        If the bytes are no such model.
    """
    match format:
        case "lightgbm":
            from noria.registry.lightgbm_format import load_lightgbm

            return load_lightgbm(data)
        case "skops":
            from noria.registry.skops_format import load_skops

            return load_skops(data)
        case "mlflow":
            raise ConfigError(
                "folders of MLflow are not served yet; register the model in it as LightGBM or scikit-learn"
            )
        case _:
            assert_never(format)
