"""Contributions of the trees of LightGBM, as the library computes them."""

import lightgbm
import numpy as np

from noria.registry.matrix import Matrix

__all__ = ["lightgbm_contributions"]


def lightgbm_contributions(booster: lightgbm.Booster, matrix: Matrix) -> Matrix:
    """Give the contributions of each row, the base in the last column; they add up to the raw score."""
    found: Matrix = np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1), dtype=np.float64)
    return found
