"""Files of models as their libraries write them: told apart by what is in them, and read with care."""

import logging
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.errors import ConfigError, SourceError

__all__ = ["PICKLE", "ModelFile", "kind_of_file", "read_model_file"]

_LOG = logging.getLogger(__name__)

PICKLE = "pickle"
_SUFFIXES = {
    ".txt": "lightgbm", ".lgb": "lightgbm", ".json": "xgboost", ".ubj": "xgboost", ".onnx": "onnx",
    ".skops": "skops", ".pkl": PICKLE, ".pickle": PICKLE, ".joblib": PICKLE,
}  # fmt: skip
_KNOWN = "known are .txt (LightGBM), .json and .ubj (XGBoost), .onnx, .skops, .joblib and .pkl (scikit-learn)"
_ZIP, _PICKLED = b"PK\x03\x04", b"\x80"
_SQUEEZED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")  # by joblib
_HEAD_BYTES = 64
_UNREADABLE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError,
    OSError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a file holds.

    Attributes
    ----------
    model
        As `project.models.register` takes it.
    columns
        The names that it says it reads, in its order; none where it knows none.
    notes
        What its library says of the file, such as that another version of it wrote it.
    """

    model: Any
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def kind_of_file(path: Path) -> str:
    """Tell whose model a file is by what it begins with, where that tells nothing by its name.

    Returns
    -------
    str
        `lightgbm`, `xgboost`, `onnx`, `skops` or `pickle`.

    Raises
    ------
    SourceError
        If it cannot be read, or is empty.
    ConfigError
        If it is none that is known.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as err:
        raise SourceError(f"the model {path} cannot be read: {err.strerror}") from err
    if not head:
        raise SourceError(f"the model {path} is empty; save it again")
    suffix = path.suffix.lower()
    if head.startswith(b"tree\n"):
        return "lightgbm"
    if head[:1] == b"{":
        return "xgboost"
    if head.startswith(_ZIP) and _SUFFIXES.get(suffix) != PICKLE:
        return "skops"
    if head.startswith(_PICKLED) or (head.startswith(_SQUEEZED) and suffix not in (".onnx", ".skops")):
        return PICKLE
    if suffix not in _SUFFIXES:
        raise ConfigError(
            f"{path.name} ends with {suffix or 'nothing'}, which tells no model, and begins like none; "
            f"{_KNOWN}. Register others by `project.models.register`"
        )
    return _SUFFIXES[suffix]


def read_model_file(path: Path, *, trusts_pickle: bool = False) -> ModelFile:
    """Give the model that a file holds.

    Files of LightGBM and XGBoost are looked over before their libraries read them: one that was cut or made
    up would end the process. Nothing of a file runs as it is read, but for pickles (joblib's too) where they
    are trusted.

    Raises
    ------
    SourceError
        If the file cannot be read.
    ConfigError
        If it holds no model that is known, is cut short, its library is not installed, or it is a pickle and
        not trusted.
    """
    kind = kind_of_file(path)
    readers: dict[str, Callable[[Path], ModelFile]] = {
        "lightgbm": _lightgbm, "xgboost": _xgboost, "onnx": _onnx, "skops": _skops,
    }  # fmt: skip
    if kind != PICKLE:
        try:
            return readers[kind](path)
        except ConfigError as err:
            raise ConfigError(f"{path}: {err}") from err
    if not trusts_pickle:
        raise ConfigError(
            f"{path} is a pickle, which runs code of its writer as it is loaded, so it is refused. Save the "
            'model without, by `skops.io.dump(model, "model.skops")` or its library; or, if you '
            "know who wrote it, say `--trust-pickle` (in Python `trust_pickle=True`)"
        )
    return _pickle(path)


def _lightgbm(path: Path) -> ModelFile:
    from noria.registry.lightgbm_checks import check_text
    from noria.registry.lightgbm_format import load_lightgbm

    data = path.read_bytes().replace(b"\r\n", b"\n")  # as git writes texts on Windows
    if not data.startswith(b"tree\n"):
        raise ConfigError('it is no text of LightGBM; save the model by `booster.save_model("model.txt")`')
    check_text(data)
    booster = load_lightgbm(data)
    return ModelFile(booster, tuple(booster.feature_name()))


def _xgboost(path: Path) -> ModelFile:
    from noria.registry.xgboost_format import load_xgboost

    booster = load_xgboost(path.read_bytes())
    return ModelFile(booster, tuple(booster.feature_names or ()))


def _onnx(path: Path) -> ModelFile:
    from noria.registry.onnx_format import load_onnx

    load_onnx(path.read_bytes())
    return ModelFile(path if path.suffix == ".onnx" else _proto(path), ())


def _proto(path: Path) -> Any:
    import onnx

    return onnx.load_model_from_string(path.read_bytes())


def _skops(path: Path) -> ModelFile:
    from noria.registry.skops_archives import load_archive

    return _fitted(lambda: load_archive(path.read_bytes()))


def _pickle(path: Path) -> ModelFile:
    import joblib  # type: ignore[import-untyped]

    _LOG.warning("WARNING: %s is a pickle: code of its writer runs in this process, as you said", path)
    try:
        return _fitted(lambda: joblib.load(path))
    except _UNREADABLE as err:
        raise ConfigError(
            f"the pickle {path} cannot be read here ({type(err).__name__}: {err}); it wants the libraries, "
            "in the versions, that it was written with: install them, or save the model by skops"
        ) from err


def _fitted(load: Callable[[], Any]) -> ModelFile:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = load()
    names = getattr(model, "feature_names_in_", None)
    if names is None and callable(getattr(model, "feature_name", None)):
        names = model.feature_name()
    notes = dict.fromkeys(" ".join(str(each.message).split())[:300] for each in told)
    return ModelFile(model, () if names is None else tuple(str(each) for each in names), tuple(notes))
