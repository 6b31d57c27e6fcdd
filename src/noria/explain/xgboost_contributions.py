"""Contributions of the trees of XGBoost, as the library computes them."""

import numpy as np
import xgboost

from noria.registry.matrix import Matrix

__all__ = ["xgboost_contributions"]

_LARGEST = float(np.finfo(np.float32).max)


def xgboost_contributions(booster: xgboost.Booster, matrix: Matrix) -> Matrix:
    """Give the contributions of each row, the base in the last column; they add up to the margin.

    XGBoost adds up in single precision.
    """
    known = np.clip(
        matrix, -_LARGEST, _LARGEST
    )  # it scores what is infinite, and goes the same ways with these
    rows = xgboost.DMatrix(known, feature_names=booster.feature_names, feature_types=booster.feature_types)
    found: Matrix = np.asarray(booster.predict(rows, pred_contribs=True), dtype=np.float64)
    return found
