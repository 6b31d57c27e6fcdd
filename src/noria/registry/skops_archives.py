"""Archives of skops: any estimator as bytes, and back where every type in it may be trusted.

An archive names types and functions that are imported, called and filled while it is read. skops refuses
those that it does not know unless they are listed; whole packages are not listed here, for numpy and
scikit-learn hold functions that run a text as code, load libraries and open files.
"""

import importlib
import json
from collections.abc import Iterable
from io import BytesIO
from types import FunctionType
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import skops.io

from noria.errors import ConfigError
from noria.registry.archived_boosters import check_boosters
from noria.registry.tree_checks import check_trees
from noria.registry.zip_archives import ZIP_ERRORS, check_unpacked_size

__all__ = ["dump_archive", "load_archive", "untrusted_types"]

_SCHEMA = "schema.json"
_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "functools.partial",  # of trusted functions: each is asked for by name as well
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMModel",
        "lightgbm.sklearn.LGBMRanker",
        "lightgbm.sklearn.LGBMRegressor",
        "numpy.dtype",
        "numpy.random._generator.Generator",
        "numpy.random.mtrand.RandomState",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",  # of splines
        "scipy.interpolate._bsplines.BSpline",
        "scipy.interpolate._interpolate.interp1d",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBModel",
        "xgboost.sklearn.XGBRanker",
        "xgboost.sklearn.XGBRegressor",
        "xgboost.sklearn.XGBRFClassifier",
        "xgboost.sklearn.XGBRFRegressor",
    }
)
_CLASSES = ("sklearn.",)  # not of SciPy: its distributions run a text of theirs as code when they are read
_FUNCTIONS = (
    "sklearn.cluster.",
    "sklearn.covariance.",
    "sklearn.feature_extraction.",
    "sklearn.feature_selection.",
    "sklearn.metrics.",
    "sklearn.neighbors.",
    "sklearn.preprocessing.",
    "sklearn.svm.",
    "sklearn.utils.validation.",
)
_NEVER = (
    "sklearn._build_utils.",
    "sklearn.callback.",
    "sklearn.conftest.",
    "sklearn.datasets.",
    "sklearn.externals.",
    "sklearn.utils._testing.",
)
_OF_NUMPY = frozenset(
    {
        "abs",
        "absolute",
        "average",
        "clip",
        "log",
        "log10",
        "log1p",
        "log2",
        "max",
        "mean",
        "median",
        "min",
        "nan_to_num",
        "nanmax",
        "nanmean",
        "nanmedian",
        "nanmin",
        "nansum",
        "prod",
        "ravel",
        "reshape",
        "round",
        "sign",
        "sqrt",
        "square",
        "std",
        "sum",
        "var",
    }
)
_ERRORS: tuple[type[Exception], ...] = (*ZIP_ERRORS, TypeError, AttributeError)  # of skops too
_LOADING_ERRORS: tuple[type[Exception], ...] = (*_ERRORS, ImportError)
_METHODS = frozenset({"decision_function", "inverse_transform", "predict", "predict_proba", "transform"})


def dump_archive(estimator: object) -> tuple[bytes, tuple[str, ...]]:
    """Give the archive of an estimator, and the types in it that who loads it has to trust.

    skops names members and objects after memory addresses and stamps them with the wall clock; here they
    are counted instead, so that the same model gives the same bytes.

    Raises
    ------
    ConfigError
        If it holds what cannot be stored, or what could not be loaded again.
    """
    try:
        data = skops.io.dumps(estimator)
    except (TypeError, ValueError, AttributeError, RecursionError) as err:
        raise ConfigError(f"{type(estimator).__qualname__} cannot be stored without pickle: {err}") from err
    asked = _trusted(data)
    return _counted(data), asked


def load_archive(data: bytes) -> Any:
    """Give the estimator of an archive.

    Raises
    ------
    ConfigError
        If `data` is no such archive, or names types or functions that are not trusted.
    """
    try:
        trusted = list(_trusted(data))
        check_boosters(data, trusted)
        estimator = skops.io.loads(data, trusted=trusted)
        check_trees(estimator)
        return estimator
    except _LOADING_ERRORS as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(
            f"the bytes are no skops archive that can be loaded here: {type(err).__name__}: {err}"
        ) from err


def untrusted_types(asked: Iterable[str]) -> list[str]:
    """Give those names of types and functions that an archive may not hold."""
    return [each for each in asked if not _is_trusted(each)]


def _trusted(data: bytes) -> tuple[str, ...]:
    try:
        _check_size(data)
        asked: list[str] = skops.io.get_untrusted_types(data=data)
    except _ERRORS as err:
        raise ConfigError(f"the bytes are no skops archive: {type(err).__name__}: {err}") from err
    if refused := untrusted_types(asked):
        raise ConfigError(
            f"the model holds {', '.join(refused)}; only types of scikit-learn, LightGBM and XGBoost are "
            "stored and loaded without pickle"
        )
    return tuple(sorted(asked))


def _check_size(data: bytes) -> None:
    with ZipFile(BytesIO(data)) as archive:
        check_unpacked_size(archive, data, what="skops archive")


def _is_trusted(name: str) -> bool:
    """Look at what a name leads to; only modules of scikit-learn and numpy are imported for it."""
    home, _, last = name.rpartition(".")
    if last in _METHODS and _is_trusted(home):
        return True
    if name in _NAMES:
        return True
    if home == "numpy":
        found = getattr(np, last, None)
        is_scalar = isinstance(found, type) and issubclass(found, np.generic)
        return last in _OF_NUMPY or is_scalar or isinstance(found, np.ufunc)
    if not name.startswith(_CLASSES) or name.startswith(_NEVER) or ".tests." in name:
        return False
    try:
        found = getattr(importlib.import_module(home), last, None)
    except ImportError:
        return False
    is_own = getattr(found, "__module__", None) == home
    is_function = isinstance(found, FunctionType) and name.startswith(_FUNCTIONS)
    return is_own and (isinstance(found, type) or is_function)


def _counted(data: bytes) -> bytes:
    """Rewrite an archive: members and object ids numbered as they come in the schema, no instants."""
    with ZipFile(BytesIO(data)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    renaming = _Renaming({each for each in members if each != _SCHEMA})
    schema = renaming.renamed(json.loads(members[_SCHEMA]))
    written = BytesIO()
    with ZipFile(written, "w") as archive:
        archive.writestr(ZipInfo(_SCHEMA), json.dumps(schema))
        for old, new in renaming.members.items():
            archive.writestr(ZipInfo(new), members[old])
    return written.getvalue()


class _Renaming:
    """Counts members and object ids in the order in which a schema names them."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._ids: dict[int, int] = {}
        self.members: dict[str, str] = {}

    def renamed(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: self._id(value) if key == "__id__" else self.renamed(value)
                for key, value in node.items()
            }
        if isinstance(node, list):
            return [self.renamed(each) for each in node]
        if isinstance(node, str) and node in self._names:
            suffix = node.rpartition(".")[2]
            return self.members.setdefault(node, f"{len(self.members)}.{suffix}")
        return node

    def _id(self, value: int) -> int:
        return self._ids.setdefault(value, len(self._ids) + 1)
