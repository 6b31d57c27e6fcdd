"""Contributions of the trees of XGBoost, as the library computes them."""

import numpy as np
import xgboost

from noria.registry.matrix import Matrix

__all__ = ["xgboost_contributions"]


def xgboost_contributions(booster: xgboost.Booster, matrix: Matrix) -> Matrix:
    """Give the contributions of each row, the base in the last column; they add up to the margin.

    XGBoost adds up in single precision.
    """
    rows = xgboost.DMatrix(matrix, feature_names=booster.feature_names, feature_types=booster.feature_types)
    found: Matrix = np.asarray(booster.predict(rows, pred_contribs=True), dtype=np.float64)
    return found
