"""Trees of scikit-learn from files: whether every step in them leads to a node that is there.

scikit-learn follows what stands in a tree's nodes without looking: one that was made to lead elsewhere would
end the process, run for ever, or read memory that is not its own.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from noria.errors import ConfigError

__all__ = ["check_trees"]

_LEAF = -1
# Those that give rows to their trees without a look at how many columns these have.
_UNCHECKED = ("BaseForest", "BaseGradientBoosting", "IsolationForest")


def check_trees(estimator: Any) -> None:
    """Look at all trees in an estimator. Raises `ConfigError` if one is none that a training can give."""
    for holder, each in _parts(estimator):
        if type(each).__module__.startswith("sklearn.neighbors.") and hasattr(each, "get_params"):
            continue  # its tree is of another kind, and comes by itself
        if hasattr(each, "tree_") and hasattr(each, "n_features_in_"):
            _check_tree(each.tree_, _width(each, holder))
        elif hasattr(each, "_predictors") and hasattr(each, "n_features_in_"):
            for predictor in _flat(each._predictors):
                _check_predictor(predictor, int(each.n_features_in_))
        elif type(each).__module__ in ("sklearn.neighbors._kd_tree", "sklearn.neighbors._ball_tree"):
            _check_neighbours(each)


def _parts(estimator: Any) -> Iterator[tuple[Any, Any]]:
    """Give every object that an estimator holds, each once, after the estimator that holds it."""
    seen: set[int] = set()
    waiting: list[tuple[Any, Any]] = [(None, estimator)]
    while waiting:
        holder, each = waiting.pop()
        if isinstance(each, str | bytes | int | float | type | None) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            waiting.extend((holder, value) for value in each.values())
        elif isinstance(each, list | tuple | set | frozenset):
            waiting.extend((holder, value) for value in each)
        elif isinstance(each, np.ndarray):
            if each.dtype == object:
                waiting.extend((holder, value) for value in each.ravel())
        else:
            yield holder, each
            held = each if hasattr(each, "get_params") else holder
            waiting.extend((held, value) for value in getattr(each, "__dict__", {}).values())


def _flat(values: Any) -> Iterator[Any]:
    for each in values:
        if isinstance(each, list | tuple):
            yield from each
        else:
            yield each


def _width(owner: Any, holder: Any) -> int:
    """Give how many columns rows have for certain that reach an estimator's tree."""
    width = int(owner.n_features_in_)
    kinds = {each.__name__ for each in type(holder).__mro__}
    if not kinds.isdisjoint(_UNCHECKED):
        width = min(width, int(getattr(holder, "n_features_in_", 0)))
        width = min([width, *(len(each) for each in getattr(holder, "estimators_features_", ()))])
    return width


def _check_tree(tree: Any, width: int) -> None:
    if type(tree).__module__ != "sklearn.tree._tree":
        raise ConfigError(f"the model holds a {type(tree).__qualname__} where a tree is to be")
    left, right, count = tree.children_left, tree.children_right, tree.node_count
    here = np.arange(count)
    is_leaf = left == _LEAF
    onward = ~is_leaf
    leads = (left > here) & (left < count) & (right > here) & (right < count)
    reads = (tree.feature >= 0) & (tree.feature < width)
    if not count or not (leads & reads)[onward].all():
        _refuse()


def _check_predictor(predictor: Any, width: int) -> None:
    nodes, bitsets = predictor.nodes, predictor.raw_left_cat_bitsets
    here, count = np.arange(len(nodes)), len(nodes)
    left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    onward = nodes["is_leaf"] == 0
    leads = (left > here) & (left < count) & (right > here) & (right < count)
    reads = (nodes["feature_idx"] >= 0) & (nodes["feature_idx"] < width)
    finds = (nodes["is_categorical"] == 0) | (nodes["bitset_idx"] < len(bitsets))
    if not count or not (leads & reads & finds)[onward].all() or bitsets.shape[1:] != (8,):
        _refuse()


def _check_neighbours(tree: Any) -> None:
    data, order, nodes, _ = (np.asarray(each) for each in tree.get_arrays())
    inside = (order >= 0).all() and (order < len(data)).all() and len(order) == len(data)
    starts, ends = nodes["idx_start"], nodes["idx_end"]
    if not inside or not ((starts >= 0) & (starts <= ends) & (ends <= len(data))).all():
        _refuse()


def _refuse() -> None:
    raise ConfigError(
        "the model holds a tree with steps to nodes or columns that are not there, as no training gives; it "
        "was made or changed by hand, and is refused"
    )
