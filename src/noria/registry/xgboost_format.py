"""XGBoost models in its own binary JSON (UBJSON)."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from noria.errors import ConfigError
from noria.registry.extras import import_extra
from noria.registry.scorers import Matrix, Scorer
from noria.registry.xgboost_checks import check_model

xgboost = import_extra("xgboost", extra="xgboost", what="models of XGBoost")

__all__ = ["dump_native", "dump_xgboost", "load_native", "load_xgboost", "xgboost_scorer"]

_GIVES_PROBABILITY = ("binary:logistic", "reg:logistic")
_ESTIMATORS = {
    each.__name__: each
    for each in (
        xgboost.XGBClassifier,
        xgboost.XGBModel,
        xgboost.XGBRanker,
        xgboost.XGBRegressor,
        xgboost.XGBRFClassifier,
        xgboost.XGBRFRegressor,
    )
}


def dump_xgboost(estimator: Any, *, of_any_objective: bool = False) -> bytes:
    """Give the bytes of a binary `Booster`, or of that in an `XGBClassifier` up to its best iteration.

    Raises
    ------
    ConfigError
        If it is not fitted, or gives other than one probability per row, unless it may be of any objective.
    """
    booster = _booster_of(estimator)
    learner = json.loads(booster.save_config())["learner"]
    objective, kind = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if objective not in _GIVES_PROBABILITY and not of_any_objective:
        raise ConfigError(
            f"the model of XGBoost has the objective {objective!r}, which gives no probability of one class; "
            "train it with 'binary:logistic'"
        )
    if kind not in ("gbtree", "dart"):
        raise ConfigError(
            f"the model of XGBoost is a {kind}, which its library does not score in place; train trees "
            "('gbtree' or 'dart'), or a linear model of scikit-learn"
        )
    if not isinstance(estimator, xgboost.Booster) and booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]
    return bytes(booster.save_raw(raw_format="ubj"))


def load_xgboost(data: bytes) -> Any:
    """Give the `Booster` of such bytes.

    Its trees are looked at first: the library takes lengths and ways in a file as they are, and one that was
    cut or made up ends the process.

    Raises
    ------
    ConfigError
        If they are none, or hold a tree that no training gives.
    """
    check_model(data)
    booster = xgboost.Booster({"nthread": 1})
    _load(booster, data)
    return booster


def xgboost_scorer(booster: Any) -> Scorer:
    """Give the scoring function of a binary `Booster`."""
    width = booster.num_features()

    def score(matrix: Matrix) -> Matrix:
        if matrix.shape[1] != width:
            raise ConfigError(f"the model of XGBoost reads {width} columns; the rows have {matrix.shape[1]}")
        scores = booster.inplace_predict(np.ascontiguousarray(matrix), validate_features=False)
        return np.asarray(scores, dtype=np.float64)

    return score


def dump_native(model: Any) -> bytes:
    """Give the bytes of a fitted `Booster` or estimator of XGBoost, whatever it predicts, as it saves itself.

    Raises
    ------
    ConfigError
        If it is none, or not fitted.
    """
    _booster_of(model)
    with TemporaryDirectory(prefix="noria-") as folder:
        path = Path(folder) / "model.ubj"
        model.save_model(path)
        return path.read_bytes()


def load_native(data: bytes, model_class: str) -> Any:
    """Give the model of a class that bytes from anywhere hold, UBJSON or JSON.

    Raises
    ------
    ConfigError
        If they are none, hold a tree that no training gives, or the class is none of XGBoost's.
    """
    home, _, name = model_class.rpartition(".")
    if name not in (*_ESTIMATORS, "Booster") or home.partition(".")[0] != "xgboost":
        known = ", ".join(sorted(_ESTIMATORS))
        raise ConfigError(
            f"a model of XGBoost has the class {model_class[:100]!r}; known are Booster, {known}"
        )
    if name == "Booster":
        return load_xgboost(data)
    check_model(data)
    model = _ESTIMATORS[name](n_jobs=1)
    _load(model, data)
    return model


def _load(into: Any, data: bytes) -> None:
    if not data.lstrip()[:1] == b"{":  # the old binary format, which reads what its lengths say, is refused
        raise ConfigError("the bytes are no model of XGBoost in UBJSON or JSON; save it as model.ubj again")
    try:
        into.load_model(bytearray(data))
    except (xgboost.core.XGBoostError, ValueError, TypeError, KeyError) as err:
        reason = next((each for each in str(err).splitlines() if each.strip()), type(err).__name__)
        raise ConfigError(f"the bytes are no model of XGBoost: {reason[:200]}") from err


def _booster_of(model: Any) -> Any:
    if isinstance(model, xgboost.Booster):
        return model
    if not isinstance(model, xgboost.XGBModel):
        kind = type(model).__qualname__
        raise ConfigError(f"{kind} is no model of XGBoost; give a Booster or an estimator")
    if not model.__sklearn_is_fitted__():
        raise ConfigError(f"the {type(model).__qualname__} is not fitted; fit it first")
    return model.get_booster()
