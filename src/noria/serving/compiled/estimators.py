"""Fitted classifiers and regressors of scikit-learn as heads of a plan. Only their attributes are read."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from noria.serving.compiled.frames import Frame
from noria.serving.compiled.many_rows import tables_of
from noria.serving.compiled.plan import Head, Linear, Link, Refused, Trees, packed
from noria.serving.compiled.refusals import NotCompiled
from noria.serving.compiled.transformers import is_of_sklearn, transformed
from noria.serving.compiled.tree_text import Tree, as_text, constant_tree, thresholds_at_zero

__all__ = ["Read", "classes_of", "read_estimator"]

_MOST_NODES = 4_000_000  # of an ensemble: its text would have more than about 200 MB
_LEAST_CODE = 256  # scikit-learn's categories are below

Cut = Literal["above", "from", "greatest"]


class Read:
    """A head, the columns that it reads, and how a label is chosen by it."""

    def __init__(self, head: Head, frame: Frame, refuses: Refused, cut: Cut = "greatest") -> None:
        self.head, self.frame, self.refuses, self.cut = head, frame, refuses, cut


def classes_of(estimator: Any) -> list[Any] | None:
    """Give what a classifier tells apart; None of a regressor.

    Raises
    ------
    NotCompiled
        If it gives several labels for a row.
    """
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return None
    if isinstance(classes, list) and any(isinstance(each, np.ndarray) for each in classes):
        raise NotCompiled("the classifier gives several labels for a row")
    return list(np.asarray(classes).tolist())


def read_estimator(estimator: Any, frame: Frame, *, gives: Sequence[str]) -> Read:
    """Give the head of a fitted estimator.

    Parameters
    ----------
    frame
        The columns that it reads.
    gives
        Names of the outputs that are wanted.

    Raises
    ------
    NotCompiled
        If it is not known how it scores.
    """
    name = type(estimator).__name__
    if not is_of_sklearn(estimator) or name not in _READERS:
        raise NotCompiled(f"{name} has no compiled form")
    width = getattr(estimator, "n_features_in_", len(frame.columns))
    if width != len(frame.columns):
        raise NotCompiled(f"{name} was fitted on {width} columns and gets {len(frame.columns)}")
    return _READERS[name](estimator, frame, gives)


def _linear(estimator: Any, frame: Frame, link: Link, cut: Cut = "greatest") -> Read:
    coefficients = np.asarray(estimator.coef_, dtype=np.float64)
    if frame.is_single or np.asarray(estimator.coef_).dtype != np.float64:
        raise NotCompiled(f"{type(estimator).__name__} reckons with float32")
    if coefficients.ndim == 2 and len(coefficients) > 1 and getattr(estimator, "classes_", None) is None:
        raise NotCompiled(f"{type(estimator).__name__} gives several numbers for a row")
    head = Linear(
        coefficients=packed(coefficients),
        is_transposed=coefficients.ndim == 2,
        intercept=packed(np.asarray(estimator.intercept_, dtype=np.float64)),
        link=link,
    )
    return Read(head, frame, "missing", cut)


def _of_linear_regressor(estimator: Any, frame: Frame, _: Sequence[str]) -> Read:
    return _linear(estimator, frame, "identity")


def _of_log_linear_regressor(estimator: Any, frame: Frame, _: Sequence[str]) -> Read:
    return _linear(estimator, frame, "exp")


def _of_logistic_regression(estimator: Any, frame: Frame, _: Sequence[str]) -> Read:
    if len(estimator.classes_) == 2:
        return _linear(estimator, frame, "sigmoid", "above")
    return _linear(estimator, frame, "softmax")


def _of_linear_classifier(estimator: Any, frame: Frame, gives: Sequence[str]) -> Read:
    is_log = type(estimator).__name__ == "SGDClassifier" and estimator.loss == "log_loss"
    if not is_log and tuple(gives) != ("label",):
        raise NotCompiled(f"{type(estimator).__name__} gives probabilities in a way that is not known")
    if len(estimator.classes_) == 2:
        return _linear(estimator, frame, "sigmoid", "above")
    return _linear(estimator, frame, "one_vs_rest")


def _trees(
    trees: list[Tree],
    frame: Frame,
    *,
    per_iteration: int,
    link: Link,
    refuses: Refused,
    is_single: bool,
    cut: Cut = "greatest",
    divisor: float = 1.0,
    code_of_missing: dict[int, int] | None = None,
) -> Read:
    if sum(len(each.is_leaf) for each in trees) > _MOST_NODES:
        raise NotCompiled(f"its trees have more than {_MOST_NODES:,} nodes")
    head = Trees(
        text=as_text(trees, columns=len(frame.columns), per_iteration=per_iteration),
        is_single=is_single,
        at_zero=tuple(thresholds_at_zero(trees)),
        has_infinity=any(bool(np.isinf(each.threshold).any()) for each in trees),
        code_of_missing=code_of_missing or {},
        divisor=divisor,
        link=link,
        tables=tables_of(trees, columns=len(frame.columns), per_iteration=per_iteration),
    )
    return Read(head, frame, refuses, cut)


def _of_histogram_boosting(estimator: Any, frame: Frame, _: Sequence[str]) -> Read:
    if estimator._preprocessor is not None:
        frame = _preprocessed(estimator, frame)
    baseline = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    width = int(estimator.n_trees_per_iteration_)
    code_of_missing: dict[int, int] = {}
    trees = [constant_tree(each) for each in baseline.tolist()]
    for iteration in estimator._predictors:
        trees += [_histogram_tree(each, code_of_missing) for each in iteration]
    return _trees(
        trees,
        frame,
        per_iteration=width,
        link=_link_of(estimator),
        refuses="none",
        is_single=False,
        cut="above" if width == 1 else "greatest",
        code_of_missing=code_of_missing,
    )


def _preprocessed(estimator: Any, frame: Frame) -> Frame:
    """Give the columns as the trees number them: categories first, by their codes."""
    is_category = np.asarray(estimator.is_categorical_)
    categories = frame.take(np.flatnonzero(is_category).tolist())
    numbers = frame.take(np.flatnonzero(~is_category).tolist())
    encoded = transformed(estimator._preprocessor.named_transformers_["encoder"], categories)
    columns = (*encoded.columns, *numbers.columns)
    return Frame(columns, frame.root_width)


def _histogram_tree(predictor: Any, code_of_missing: dict[int, int]) -> Tree:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    feature = nodes["feature_idx"].astype(np.int64)
    categories: dict[int, Sequence[int]] = {}
    for place in np.flatnonzero(nodes["is_categorical"].astype(np.bool_) & ~is_leaf).tolist():
        words = predictor.raw_left_cat_bitsets[int(nodes["bitset_idx"][place])]
        left = [code for code in range(32 * len(words)) if words[code // 32] >> (code % 32) & 1]
        code_of_missing[int(feature[place])] = _LEAST_CODE
        categories[place] = [*left, _LEAST_CODE] if nodes["missing_go_to_left"][place] else left
    return Tree(
        is_leaf,
        feature,
        nodes["num_threshold"].astype(np.float64),
        nodes["missing_go_to_left"].astype(np.bool_),
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["value"].astype(np.float64),
        categories,
        weight=nodes["count"].astype(np.float64),
    )


def _link_of(estimator: Any) -> Link:
    loss = type(estimator._loss).__name__
    link = _LINKS.get(loss)
    if link is None:
        raise NotCompiled(f"{type(estimator).__name__} has the loss {loss}, which is not known")
    return link


_LINKS: dict[str, Link] = {
    "AbsoluteError": "identity",
    "ExponentialLoss": "sigmoid_twice",
    "HalfBinomialLoss": "sigmoid",
    "HalfGammaLoss": "exp",
    "HalfMultinomialLoss": "softmax",
    "HalfPoissonLoss": "exp",
    "HalfSquaredError": "identity",
    "HuberLoss": "identity",
    "PinballLoss": "identity",
}


def _tree(fitted: Any, values: Any) -> Tree:
    left, right = fitted.children_left, fitted.children_right
    is_leaf = left == -1
    return Tree(
        is_leaf,
        np.where(is_leaf, 0, fitted.feature).astype(np.int64),
        np.where(is_leaf, 0, fitted.threshold).astype(np.float64),
        np.asarray(fitted.missing_go_to_left).astype(np.bool_),
        left.astype(np.int64),
        right.astype(np.int64),
        np.ascontiguousarray(values, dtype=np.float64),
        weight=np.asarray(fitted.weighted_n_node_samples, dtype=np.float64),
    )


def _of_gradient_boosting(estimator: Any, frame: Frame, _: Sequence[str]) -> Read:
    width = int(estimator.n_trees_per_iteration_)
    init = estimator.init_
    if not (isinstance(init, str) and init == "zero") and not (
        is_of_sklearn(init) and type(init).__name__ in ("DummyClassifier", "DummyRegressor")
    ):
        raise NotCompiled(f"{type(estimator).__name__} starts from another model")
    start = np.asarray(estimator._raw_predict_init(np.zeros((1, len(frame.columns)), dtype=np.float32)))
    trees = [constant_tree(each) for each in start.reshape(-1).tolist()]
    for stage in estimator.estimators_:
        for each in stage:
            values = each.tree_.value[:, 0, 0]
            trees.append(_tree(each.tree_, estimator.learning_rate * values))
    return _trees(
        trees,
        frame,
        per_iteration=width,
        link=_link_of(estimator),
        refuses="missing",
        is_single=True,
        cut="from" if width == 1 else "greatest",
    )


def _of_forest(estimator: Any, frame: Frame, gives: Sequence[str]) -> Read:
    return _averaged(estimator, [each.tree_ for each in estimator.estimators_], frame, gives)


def _of_tree(estimator: Any, frame: Frame, gives: Sequence[str]) -> Read:
    return _averaged(estimator, [estimator.tree_], frame, gives)


def _averaged(estimator: Any, fitted: list[Any], frame: Frame, gives: Sequence[str]) -> Read:
    if estimator.n_outputs_ != 1:
        raise NotCompiled(f"{type(estimator).__name__} gives several outputs for a row")
    if classes_of(estimator) is None:
        places: list[int] = [0]
    else:  # of two classes where a probability is wanted, the second is enough
        places = [1] if tuple(gives) == ("score",) else list(range(len(estimator.classes_)))
    trees = [_tree(each, each.value[:, 0, place]) for each in fitted for place in places]
    takes_missing = _takes_missing(fitted, estimator)
    return _trees(
        trees,
        frame,
        per_iteration=len(places),
        link="mean",
        refuses="infinite" if takes_missing and not frame.is_sparse else "missing",
        is_single=True,
        divisor=float(len(fitted)),
    )


def _takes_missing(fitted: list[Any], estimator: Any) -> bool:
    """Tell whether scikit-learn lets NaN in: a tree does so by its settings, whatever it was fitted on."""
    first = estimator.estimators_[0] if hasattr(estimator, "estimators_") else estimator
    tags = getattr(first, "__sklearn_tags__", None)
    return bool(tags().input_tags.allow_nan) if tags is not None else False


_READERS: dict[str, Callable[[Any, Frame, Sequence[str]], Read]] = {
    "DecisionTreeClassifier": _of_tree,
    "DecisionTreeRegressor": _of_tree,
    "ElasticNet": _of_linear_regressor,
    "ElasticNetCV": _of_linear_regressor,
    "ExtraTreeClassifier": _of_tree,
    "ExtraTreeRegressor": _of_tree,
    "ExtraTreesClassifier": _of_forest,
    "ExtraTreesRegressor": _of_forest,
    "GammaRegressor": _of_log_linear_regressor,
    "GradientBoostingClassifier": _of_gradient_boosting,
    "GradientBoostingRegressor": _of_gradient_boosting,
    "HistGradientBoostingClassifier": _of_histogram_boosting,
    "HistGradientBoostingRegressor": _of_histogram_boosting,
    "HuberRegressor": _of_linear_regressor,
    "Lasso": _of_linear_regressor,
    "LassoCV": _of_linear_regressor,
    "LinearRegression": _of_linear_regressor,
    "LinearSVC": _of_linear_classifier,
    "LinearSVR": _of_linear_regressor,
    "LogisticRegression": _of_logistic_regression,
    "LogisticRegressionCV": _of_logistic_regression,
    "Perceptron": _of_linear_classifier,
    "PoissonRegressor": _of_log_linear_regressor,
    "RandomForestClassifier": _of_forest,
    "RandomForestRegressor": _of_forest,
    "Ridge": _of_linear_regressor,
    "RidgeCV": _of_linear_regressor,
    "RidgeClassifier": _of_linear_classifier,
    "SGDClassifier": _of_linear_classifier,
    "SGDRegressor": _of_linear_regressor,
    "TheilSenRegressor": _of_linear_regressor,
}
