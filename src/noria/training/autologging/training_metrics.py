"""How well an estimator fits what it was fitted on, under the names that MLflow gives."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier, is_regressor

from noria.training.autologging.described_data import row_count, some_rows, spread

__all__ = ["MOST_ROWS", "training_metrics"]

FloatArray = npt.NDArray[Any]

MOST_ROWS = 2_000  # of the training data, evenly spread: predictions of all may take longer than the fit


def training_metrics(estimator: Any, data: Any, targets: Any, weights: Any = None) -> dict[str, float]:
    """Give the metrics of a fitted estimator on its training data.

    Parameters
    ----------
    targets
        None: there are none; then there is only what its own `score` gives.
    weights
        Of rows, as they were given to `fit`.
    """
    rows = row_count(data)
    if rows is not None and rows > MOST_ROWS:
        chosen = spread(rows, MOST_ROWS)
        data, targets, weights = (
            None if each is None else some_rows(each, chosen) for each in (data, targets, weights)
        )
    found: dict[str, float] = {}
    if targets is not None and hasattr(estimator, "predict") and np.ndim(targets) == 1:
        if is_classifier(estimator):
            found = _of_classifier(estimator, data, np.asarray(targets), weights)
        elif is_regressor(estimator):
            found = _of_regressor(estimator, data, targets, weights)
    score = _score(estimator, data, targets, weights, found)
    return found if score is None else {"training_score": score, **found}


def _score(estimator: Any, data: Any, targets: Any, weights: Any, known: dict[str, float]) -> float | None:
    """Give what the estimator's own `score` does, without predicting again where that is known."""
    method = getattr(type(estimator), "score", None)
    for mixin, name in (
        (ClassifierMixin, "training_accuracy_score"),
        (RegressorMixin, "training_r2_score"),
    ):
        if method is mixin.score and name in known:
            return known[name]
    if not hasattr(estimator, "score"):
        return None
    given = (data,) if targets is None else (data, targets)
    if weights is not None and method in (ClassifierMixin.score, RegressorMixin.score):
        return float(estimator.score(*given, sample_weight=weights))
    return float(estimator.score(*given))


def _of_classifier(estimator: Any, data: Any, targets: Any, weights: Any) -> dict[str, float]:
    predicted = np.asarray(estimator.predict(data))
    given = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    classes, places = np.unique(np.concatenate([targets, predicted]), return_inverse=True)
    true, found = np.split(places.ravel(), 2)
    count = len(classes)
    table = np.bincount(true * count + found, weights=given, minlength=count * count).reshape(count, count)
    right, of_true, of_found = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    shares = of_true / of_true.sum()
    metrics = {
        "training_accuracy_score": right.sum() / table.sum(),
        "training_precision_score": (shares * _ratio(right, of_found)).sum(),
        "training_recall_score": (shares * _ratio(right, of_true)).sum(),
        "training_f1_score": (shares * _ratio(2 * right, of_true + of_found)).sum(),
    }
    known = getattr(estimator, "classes_", None)
    if hasattr(estimator, "predict_proba") and known is not None and np.ndim(known) == 1:
        probabilities = np.asarray(estimator.predict_proba(data), dtype=np.float64)
        column = np.searchsorted(known, targets)
        least = np.finfo(np.float64).eps
        chosen = probabilities[np.arange(len(targets)), column].clip(least, 1 - least)
        metrics["training_log_loss"] = -np.average(np.log(chosen), weights=given)
        present = np.bincount(column, minlength=len(known))
        if (present > 0).all() and len(known) > 1 and weights is None:
            metrics["training_roc_auc"] = _weighted_auc(column, probabilities, present)
    return {name: float(value) for name, value in metrics.items()}


def _weighted_auc(column: FloatArray, probabilities: FloatArray, present: FloatArray) -> float:
    """Give the area of each class against all others, weighted by how often it is; of two, of the second."""
    if probabilities.shape[1] == 2:
        return _auc(column == 1, probabilities[:, 1])
    areas = [_auc(column == each, probabilities[:, each]) for each in range(probabilities.shape[1])]
    return float(np.average(areas, weights=present))


def _auc(is_one: FloatArray, scores: FloatArray) -> float:
    """Give the area under the ROC curve by mean ranks; ties count half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places.ravel()]
    ones = int(is_one.sum())
    return float((ranks[is_one].sum() - ones * (ones + 1) / 2) / (ones * (len(scores) - ones)))


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def _of_regressor(estimator: Any, data: Any, targets: Any, weights: Any) -> dict[str, float]:
    true = np.asarray(targets, dtype=np.float64)
    error = true - np.asarray(estimator.predict(data), dtype=np.float64).ravel()
    squared = np.average(error**2, weights=weights)
    spread_of_true = np.average((true - np.average(true, weights=weights)) ** 2, weights=weights)
    if spread_of_true > 0:
        explained = float(1 - squared / spread_of_true)
    else:
        explained = 1.0 if squared == 0 else 0.0
    return {
        "training_mean_squared_error": float(squared),
        "training_root_mean_squared_error": float(np.sqrt(squared)),
        "training_mean_absolute_error": float(np.average(np.abs(error), weights=weights)),
        "training_r2_score": float(explained),
    }
