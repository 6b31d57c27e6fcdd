"""LightGBM models as their own text."""

from typing import Any

import lightgbm
import numpy as np

from noria.errors import ConfigError
from noria.registry.scorers import Matrix, Scorer

__all__ = ["dump_lightgbm", "lightgbm_scorer", "load_lightgbm"]


def dump_lightgbm(estimator: Any, *, of_any_objective: bool = False) -> bytes:
    """Give the text of a `Booster`, or of the one inside an `LGBMClassifier`, up to its best iteration.

    Raises
    ------
    ConfigError
        If it is none, or gives other than one score per row, unless it may be of any objective.
    """
    booster = estimator if isinstance(estimator, lightgbm.Booster) else getattr(estimator, "booster_", None)
    if not isinstance(booster, lightgbm.Booster):
        raise ConfigError(f"{type(estimator).__qualname__} is no fitted LightGBM model")
    if booster.num_model_per_iteration() != 1 and not of_any_objective:
        width = booster.num_model_per_iteration()
        raise ConfigError(f"the model gives {width} scores per row; train it with a binary objective")
    text: str = booster.model_to_string()
    return text.encode()


def load_lightgbm(data: bytes) -> Any:
    """Give the `Booster` of a text model.

    Raises
    ------
    ConfigError
        If `data` is none, or cut short: the library checks no lengths itself.
    """
    header, gap, trees = data.partition(b"\nTree=0\n")
    sizes = next((line[11:] for line in header.splitlines() if line.startswith(b"tree_sizes=")), b"")
    wanted = sum(int(each) for each in sizes.split() if each.isdigit())
    has_trees = bool(gap) and bool(sizes)
    if not data.startswith(b"tree\n") or (has_trees and len(trees) + len(b"Tree=0\n") < wanted):
        raise ConfigError("the bytes are no LightGBM text model, or one that is cut short")
    if b"\nend of trees" not in data:
        raise ConfigError("the bytes are no LightGBM text model, or one that is cut short")
    try:
        return lightgbm.Booster(model_str=data.decode())
    except (lightgbm.basic.LightGBMError, ValueError) as err:
        raise ConfigError(f"the bytes are no LightGBM text model: {err}") from err


def lightgbm_scorer(booster: Any) -> Scorer:
    """Give the scoring function of a model with one score per row.

    One thread: rows are scored alike whatever their number, and a batch of a few is quicker so.
    """

    def score(matrix: Matrix) -> Matrix:
        scores: Matrix = np.asarray(booster.predict(matrix, num_threads=1), dtype=np.float64)
        return scores

    return score
