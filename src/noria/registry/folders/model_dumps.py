"""Models of every library that can be stored without pickle, as the file and the flavour of a folder."""

import pickle
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from noria.errors import ConfigError

__all__ = ["Dumped", "Serialization", "dump_model"]

Serialization = Literal["skops", "pickle"]


@dataclass(frozen=True, slots=True)
class Dumped:
    """A model as it is written.

    Attributes
    ----------
    flavor, conf
        The name of the flavour, and what is told of it in `MLmodel`.
    file, data
        The model's file.
    loader
        What `python_function` is told beside the module that loads it; None: it has no `predict`.
    distributions
        What whoever loads it needs.
    """

    flavor: str
    conf: dict[str, Any]
    file: str
    data: bytes
    loader: dict[str, Any] | None
    distributions: tuple[str, ...] = field(default=())


def dump_model(model: Any, *, serialization: Serialization = "skops") -> Dumped:
    """Give a fitted model of LightGBM, XGBoost, ONNX or scikit-learn as it is written.

    Raises
    ------
    ConfigError
        If it is of another kind, or cannot be stored without pickle.
    """
    kinds = {each.__module__.partition(".")[0] for each in type(model).__mro__}
    if "xgboost" in kinds:
        return _xgboost(model)
    if "lightgbm" in kinds:
        return _lightgbm(model, serialization)
    if "onnx" in kinds:
        return _onnx(model)
    if callable(getattr(model, "get_params", None)) and callable(getattr(model, "fit", None)):
        return _sklearn(model, serialization)
    raise ConfigError(
        f"a {_name(model)} is no model that can be stored; give a Booster or an estimator of LightGBM or "
        "XGBoost, an ONNX ModelProto, or an estimator of scikit-learn"
    )


def _xgboost(model: Any) -> Dumped:
    from noria.registry.xgboost_format import dump_native

    conf = {
        "xgb_version": _version("xgboost", "xgboost-cpu"),
        "data": "model.ubj",
        "model_class": _name(model),
        "model_format": "ubj",
        "code": None,
    }
    return Dumped(
        "xgboost", conf, "model.ubj", dump_native(model), {"data": "model.ubj"}, ("xgboost", "scikit-learn")
    )


def _lightgbm(model: Any, serialization: Serialization) -> Dumped:
    import lightgbm

    conf = {"lgb_version": lightgbm.__version__, "model_class": _name(model), "code": None}
    if isinstance(model, lightgbm.Booster):
        conf |= {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}
        text = model.model_to_string().encode()
        needs: tuple[str, ...] = ("lightgbm", "scikit-learn")
        return Dumped("lightgbm", conf, "model.lgb", text, {"data": "model.lgb"}, needs)
    file, data, told = _serialized(model, serialization)
    conf |= {"data": file, **told}
    needs = ("lightgbm", "scikit-learn", *_skops(told))
    return Dumped("lightgbm", conf, file, data, {"data": file}, needs)


def _onnx(model: Any) -> Dumped:
    import onnx

    if not isinstance(model, onnx.ModelProto):
        raise ConfigError(f"a {_name(model)} is no ONNX model; give the ModelProto")
    conf = {
        "onnx_version": onnx.__version__,
        "data": "model.onnx",
        "providers": ["CPUExecutionProvider"],
        "onnx_session_options": None,
        "code": None,
    }
    data = model.SerializeToString(deterministic=True)
    return Dumped("onnx", conf, "model.onnx", data, {"data": "model.onnx"}, ("onnx", "onnxruntime"))


def _sklearn(model: Any, serialization: Serialization) -> Dumped:
    import sklearn

    file, data, told = _serialized(model, serialization)
    conf = {"pickled_model": file, "sklearn_version": sklearn.__version__, "code": None, **told}
    loader = {"model_path": file, "predict_fn": "predict"} if hasattr(model, "predict") else None
    return Dumped("sklearn", conf, file, data, loader, ("scikit-learn", *_skops(told), *_steps(told)))


def _serialized(model: Any, serialization: Serialization) -> tuple[str, bytes, dict[str, Any]]:
    if serialization == "pickle":
        data = pickle.dumps(model, protocol=pickle.DEFAULT_PROTOCOL)
        return "model.pkl", data, {"serialization_format": "pickle", "skops_trusted_types": None}
    if serialization != "skops":
        raise ConfigError(f"serialization is {serialization!r}, wanted is 'skops' or 'pickle'")
    from noria.registry.skops_archives import dump_archive

    try:
        data, types = dump_archive(model)
    except ConfigError as err:
        raise ConfigError(
            f"{_name(model)}: {err}. Leave out what is not of those, or store it with "
            '`serialization="pickle"`, which loads only where `[registry] trust_pickle` says so'
        ) from err
    return "model.skops", data, {"serialization_format": "skops", "skops_trusted_types": list(types) or None}


def _skops(told: dict[str, Any]) -> tuple[str, ...]:
    return ("skops",) if told["serialization_format"] == "skops" else ()


def _steps(told: dict[str, Any]) -> tuple[str, ...]:
    """Name other libraries whose estimators a pipeline holds."""
    homes = {each.partition(".")[0] for each in told["skops_trusted_types"] or ()}
    return tuple(sorted(homes & {"lightgbm", "xgboost"}))


def _name(model: Any) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _version(*names: str) -> str:
    for each in names:
        try:
            return version(each)
        except PackageNotFoundError:
            continue
    return str(sys.modules[names[0]].__version__)
