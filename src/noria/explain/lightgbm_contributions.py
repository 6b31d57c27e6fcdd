"""Contributions of the trees of LightGBM, as the library computes them."""

import re

import lightgbm
import numpy as np

from noria.registry.matrix import Matrix

__all__ = ["has_contributions", "lightgbm_contributions"]

_SLOPE = re.compile(r"^objective=binary\b.* sigmoid:(\S+)", re.MULTILINE)


def has_contributions(booster: lightgbm.Booster) -> bool:
    """Tell whether the library computes them: not of trees with linear leaves."""
    return "\nis_linear=1\n" not in booster.model_to_string(num_iteration=1)


def lightgbm_contributions(booster: lightgbm.Booster, matrix: Matrix) -> Matrix:
    """Give the contributions of each row, the base in the last column.

    They add up to the log-odds of a binary model, to the raw score of others.
    """
    head = booster.model_to_string(num_iteration=1).partition("\nTree=")[0]
    slope = _SLOPE.search(head)
    scale = 1.0 if slope is None else float(slope[1])
    if "\naverage_output\n" in head:  # a random forest, of which the library adds up what it then averages
        scale /= booster.current_iteration()
    found: Matrix = np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1), dtype=np.float64)
    return found * scale
