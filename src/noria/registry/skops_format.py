"""Classifiers of scikit-learn in the skops format: an archive of arrays and a schema, nothing is executed."""

from typing import Any

import numpy as np

from noria.errors import ConfigError
from noria.registry.scorers import Matrix, Scorer
from noria.registry.skops_archives import dump_archive, load_archive

__all__ = ["dump_skops", "load_skops", "skops_scorer"]


def dump_skops(estimator: Any) -> bytes:
    """Give the archive of a fitted binary classifier; the same model gives the same bytes.

    Raises
    ------
    ConfigError
        If it has other than the classes 0 and 1, or holds what cannot be stored, or not be trusted.
    """
    classes = np.asarray(getattr(estimator, "classes_", ())).tolist()
    if classes != [0, 1]:
        raise ConfigError(f"{type(estimator).__qualname__} has classes {classes}; wanted 0 and 1, fitted")
    return dump_archive(estimator)[0]


def load_skops(data: bytes) -> Any:
    """Give the classifier of an archive.

    Raises
    ------
    ConfigError
        If `data` is no such archive, or names types that are not trusted.
    """
    return load_archive(data)


def skops_scorer(estimator: Any) -> Scorer:
    """Give the scoring function of a classifier: the probability of class 1."""

    def score(matrix: Matrix) -> Matrix:
        scores: Matrix = np.asarray(estimator.predict_proba(matrix), dtype=np.float64)[:, 1]
        return scores

    return score
