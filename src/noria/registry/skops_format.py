"""Classifiers of scikit-learn in the skops format: an archive of arrays and a schema, nothing is executed."""

import json
from io import BytesIO
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
import skops.io

from noria.errors import ConfigError
from noria.registry.matrix import Matrix, Scorer

__all__ = ["dump_skops", "load_skops"]

_SCHEMA = "schema.json"
_TRUSTED_PACKAGES = ("numpy.", "scipy.", "sklearn.")  # beyond what skops trusts by itself
_TRUSTED = frozenset({"functools.partial"})  # of trusted functions: each is asked for by name as well


def dump_skops(estimator: Any) -> bytes:
    """Give the archive of a fitted binary classifier.

    skops names members and objects after memory addresses and stamps them with the wall clock; here they
    are counted instead, so that the same model gives the same bytes.

    Raises
    ------
    ConfigError
        If it has other than the classes 0 and 1, or holds what cannot be stored, or not be trusted.
    """
    classes = np.asarray(getattr(estimator, "classes_", ())).tolist()
    if classes != [0, 1]:
        raise ConfigError(f"{type(estimator).__qualname__} has classes {classes}; wanted 0 and 1, fitted")
    try:
        data = skops.io.dumps(estimator)
    except TypeError as err:
        raise ConfigError(f"{type(estimator).__qualname__} cannot be stored without pickle: {err}") from err
    _trusted_types(data)
    return _counted(data)


def load_skops(data: bytes) -> Scorer:
    """Give the scoring function: the probability of class 1.

    Raises
    ------
    ConfigError
        If `data` is no such archive, or names types outside scikit-learn, SciPy and numpy.
    """
    try:
        estimator = skops.io.loads(data, trusted=_trusted_types(data))
    except (BadZipFile, KeyError) as err:
        raise ConfigError(f"the bytes are no skops archive: {err}") from err

    def score(matrix: Matrix) -> Matrix:
        scores: Matrix = np.asarray(estimator.predict_proba(matrix), dtype=np.float64)[:, 1]
        return scores

    return score


def _trusted_types(data: bytes) -> list[str]:
    try:
        asked: list[str] = skops.io.get_untrusted_types(data=data)
    except BadZipFile as err:
        raise ConfigError(f"the bytes are no skops archive: {err}") from err
    refused = [each for each in asked if not each.startswith(_TRUSTED_PACKAGES) and each not in _TRUSTED]
    if refused:
        raise ConfigError(
            f"the model holds {', '.join(refused)}; only types of scikit-learn, SciPy and numpy are loaded"
        )
    return asked


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
