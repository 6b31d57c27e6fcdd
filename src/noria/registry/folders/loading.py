"""Loads a model folder of MLflow without MLflow, and runs nothing of it that the project does not trust."""

import shutil
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from noria.errors import ConfigError, SourceError
from noria.registry.folders.contents import Contents, checked_member, lay_out
from noria.registry.folders.loaded import LoadedEstimator
from noria.registry.folders.mlmodel import MlModel, read_mlmodel
from noria.registry.folders.pickles import load_pickle
from noria.registry.folders.prediction import Predictor, predictor_of
from noria.registry.folders.signatures import FolderSignature
from noria.registry.folders.trust import PickleTrust

__all__ = ["load_folder"]

_METHODS = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "score_samples")
_PYFUNC = "python_function"


@dataclass(frozen=True, slots=True)
class _Folder:
    contents: Contents
    conf: Mapping[str, Any]
    trust: PickleTrust
    model: str | None

    def file(self, *keys: str) -> str:
        """Give the path of the model's file, which one of these keys names."""
        found = next((self.conf[key] for key in keys if self.conf.get(key) is not None), None)
        name = checked_member(found, f"the MLmodel of {self.contents.where}")
        if name not in self.contents.names:
            raise SourceError(
                f"{self.contents.where} has no file {name!r}, which its MLmodel names as the model; found is "
                f"{', '.join(self.contents.names[:8])}"
            )
        return name

    def check_trust(self, what: str) -> None:
        self.trust.check(self.contents.where, what, model=self.model)


def load_folder(
    contents: Contents, *, trust: PickleTrust, model: str | None = None, reference: str = ""
) -> LoadedEstimator:
    """Load a model folder.

    LightGBM, XGBoost, ONNX, scikit-learn by skops, TorchScript and safetensors are read as what they are.
    What runs code as it is read (pickles, models in Python) is loaded only where `trust` says so.

    Parameters
    ----------
    contents
        The files.
    trust
        What the project says.
    model
        The registered model of which it is a version.
    reference
        What it was asked for by.

    Raises
    ------
    ConfigError
        If it is none that is known, a file of it is none of its library, it is not trusted, or its library
        is not installed.
    SourceError
        If a file is missing.
    DigestMismatch
        If a file is not what was recorded.
    """
    said = read_mlmodel(contents)
    loaders = {
        "lightgbm": _lightgbm,
        "xgboost": _xgboost,
        "onnx": _onnx,
        "sklearn": _sklearn,
        "pytorch": _pytorch,
    }
    flavor = next((each for each in loaders if each in said.flavors), None)
    if flavor is None:
        return _without_library(contents, said, trust, model, reference)
    folder = _Folder(contents, said.flavors[flavor], trust, model)
    estimator, predictor = loaders[flavor](folder, _method(said))
    return LoadedEstimator(
        reference or contents.where, flavor, estimator, said.signature, _fitting(said.signature, predictor)
    )


def _fitting(signature: FolderSignature | None, predictor: Predictor) -> Callable[[object], Any]:
    fitted = signature or FolderSignature((), ())
    return lambda frame: predictor(fitted.fit(frame))


def _method(said: MlModel) -> str:
    method = said.flavors.get(_PYFUNC, {}).get("predict_fn") or "predict"
    if method not in _METHODS:
        raise ConfigError(f"the model says to call {str(method)[:60]!r}; known are {', '.join(_METHODS)}")
    return str(method)


def _lightgbm(folder: _Folder, method: str) -> tuple[Any, Predictor]:
    from noria.registry.lightgbm_checks import check_text
    from noria.registry.lightgbm_format import load_lightgbm

    file = folder.file("data")
    kind = folder.conf.get("model_class") or "lightgbm.basic.Booster"
    if kind == "lightgbm.basic.Booster":
        data = folder.contents.read(file)
        check_text(data)
        model = load_lightgbm(data)
    else:
        model = _serialized(folder, file, default="cloudpickle")
    return model, predictor_of("lightgbm", model, method=method)


def _xgboost(folder: _Folder, method: str) -> tuple[Any, Predictor]:
    from noria.registry.xgboost_format import load_native

    kind = folder.conf.get("model_class") or "xgboost.core.Booster"
    model = load_native(folder.contents.read(folder.file("data")), str(kind))
    return model, predictor_of("xgboost", model, method=method)


def _onnx(folder: _Folder, _: str) -> tuple[Any, Predictor]:
    from noria.registry.onnx_format import load_onnx

    file = folder.file("data")
    home = file.rpartition("/")[0]
    beside = [each for each in folder.contents.names if each != file and each.rpartition("/")[0] == home]
    known = (".yaml", ".txt", ".json", "MLmodel")
    weights = {
        each.rpartition("/")[2]: folder.contents.read(each) for each in beside if not each.endswith(known)
    }
    session = load_onnx(folder.contents.read(file), weights=weights)
    return session, predictor_of("onnx", session)


def _sklearn(folder: _Folder, method: str) -> tuple[Any, Predictor]:
    file = folder.file("pickled_model")
    model = _serialized(folder, file, default="pickle")
    return model, predictor_of("sklearn", model, method=method)


def _serialized(folder: _Folder, file: str, *, default: str) -> Any:
    kind = folder.conf.get("serialization_format") or default
    if kind == "skops":
        from noria.registry.skops_archives import load_archive

        return load_archive(folder.contents.read(file))
    if kind not in ("pickle", "cloudpickle"):
        raise ConfigError(
            f"{folder.contents.where} is serialized as {str(kind)[:60]!r}; known are skops, pickle and "
            "cloudpickle"
        )
    data = folder.contents.read(file)
    folder.check_trust(f"a {kind} of Python objects")
    return load_pickle(data, folder.contents.where)


def _pytorch(folder: _Folder, _: str) -> tuple[Any, Predictor]:
    from noria.registry.folders.scripts import read_script
    from noria.registry.folders.torch_models import load_module, load_script, torch_predictor

    home = checked_member(folder.conf.get("model_data"), f"the MLmodel of {folder.contents.where}")
    file = f"{home}/model.pth"
    if file not in folder.contents.names:
        raise ConfigError(
            f"{folder.contents.where} has no {file!r}; of PyTorch TorchScript modules are loaded: save "
            "`torch.jit.script(model)`, or the weights as safetensors"
        )
    data = folder.contents.read(file)
    script = read_script(data)
    if script is None:
        folder.check_trust("no whole TorchScript module, but a pickle of PyTorch")
        module = load_module(data)
    else:
        if script.opens_files:
            folder.check_trust("a TorchScript module that names files to be opened")
        module = load_script(script.archive)
    return module, torch_predictor(module)


def _without_library(
    contents: Contents, said: MlModel, trust: PickleTrust, model: str | None, reference: str
) -> LoadedEstimator:
    """Load weights alone, or by MLflow itself what no library of its own loads."""
    weights = [each for each in contents.names if each.endswith(".safetensors")]
    if _PYFUNC not in said.flavors and weights:
        return _weights(contents, weights, said, reference)
    if _PYFUNC not in said.flavors:
        raise ConfigError(
            f"{contents.where} has the flavors {', '.join(sorted(said.flavors))[:200]}; loaded are lightgbm, "
            "xgboost, onnx, sklearn, pytorch (TorchScript), weights in safetensors, and models in Python "
            "where MLflow is installed"
        )
    loader = str(said.flavors[_PYFUNC].get("loader_module"))[:100]
    what = f"a model in Python (loaded by {loader})"
    if trust.covers(model) and find_spec("mlflow") is None:
        raise ConfigError(
            f"{contents.where} is {what}, which only MLflow itself loads; `pip install mlflow` beside noria"
        )
    trust.check(contents.where, what, model=model)
    loaded = _load_by_mlflow(contents)
    from noria.registry.folders.frames import as_rows, data_frame

    return LoadedEstimator(
        reference or contents.where,
        _PYFUNC,
        loaded.unwrap_python_model() if loader == "mlflow.pyfunc.model" else loaded,
        said.signature,
        lambda frame: loaded.predict(data_frame(as_rows(frame))),
    )


def _load_by_mlflow(contents: Contents) -> Any:
    """Let MLflow load a folder, which stays as long as the model: it may read files of it later."""
    pyfunc = import_module("mlflow.pyfunc")
    folder = Path(mkdtemp(prefix="noria-model-"))
    try:
        lay_out(contents, folder)
        loaded = pyfunc.load_model(str(folder))
        weakref.finalize(loaded, shutil.rmtree, folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return loaded


def _weights(contents: Contents, names: list[str], said: MlModel, reference: str) -> LoadedEstimator:
    from noria.registry.folders.torch_models import read_weights

    arrays: dict[str, Any] = {}
    for each in names:
        arrays |= read_weights(contents.read(each), f"the file {each!r} of {contents.where}")

    def refuse(_: object) -> Any:
        raise ConfigError(
            f"{contents.where} holds weights alone, {len(arrays)} arrays; put them into a module of yours: "
            "`.estimator` has them by name"
        )

    return LoadedEstimator(reference or contents.where, "safetensors", arrays, said.signature, refuse)
