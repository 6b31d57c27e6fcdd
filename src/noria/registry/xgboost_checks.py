"""Models of XGBoost from files: whether every step in their trees leads to a node that is there.

XGBoost checks that lists are of one length, and follows what stands in them without looking: a tree that was
made to lead elsewhere would end the process, run for ever, or read memory that is not its own.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noria.errors import ConfigError
from noria.registry.ubjson_reading import read_ubjson

__all__ = ["check_model", "check_serialized"]

_LEAF = -1
_IS_CATEGORICAL = 1
_MOST_CATEGORY = 1 << 24  # greater ones are no whole numbers as XGBoost has them
_MOST_GROUPS = 100_000
_Named = Mapping[str, Any]


def check_model(data: bytes) -> None:
    """Look at all trees of a model in UBJSON or JSON.

    Raises
    ------
    ConfigError
        If it is none, or holds a tree that no training can give.
    """
    _checked(data, lambda said: _check_learner(said["learner"]))


def check_serialized(data: bytes) -> None:
    """Look at all trees of a `Booster` with its configuration, as it stands in pickles and archives."""
    _checked(data, lambda said: _check_learner(said["Model"]["learner"]))


def _checked(data: bytes, check: Any) -> None:
    try:
        said = _read(data)
        check(said)
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as err:
        if isinstance(err, ConfigError):
            raise
        raise _refusal(f"{type(err).__name__}: {err}") from err


def _read(data: bytes) -> Any:
    """Read it as XGBoost takes it: behind the brace a quote is JSON, else it is UBJSON."""
    if data[:1] != b"{":  # the old binary format, which reads what its lengths say
        raise _refusal("it is neither UBJSON nor JSON; save it as model.ubj again")
    if data[1:].lstrip()[:1] == b'"':
        return json.loads(data, object_pairs_hook=_each_once)
    return read_ubjson(data)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it says a key twice")
    return found


def _check_learner(learner: _Named) -> None:
    told = learner["learner_model_param"]
    width = int(told["num_feature"])
    classes, targets = int(told["num_class"]), int(told.get("num_target", 1))
    groups = max(classes, targets)
    if width < 1 or classes < 0 or targets < 1 or groups > _MOST_GROUPS:
        raise _refusal(f"it reads {width} columns and gives {groups} scores")
    booster = learner["gradient_booster"]
    if booster["name"] == "gblinear":
        if len(booster["model"]["weights"]) != (width + 1) * groups:
            raise _refusal("it has not as many weights as columns")
        return
    trees = booster["gbtree"] if booster["name"] == "dart" else booster
    count = _check_trees(trees["model"], width, groups)
    if booster["name"] == "dart" and len(booster["weight_drop"]) != count:
        raise _refusal("it has not as many weights as trees")


def _check_trees(model: _Named, width: int, groups: int) -> int:
    trees = model["trees"]
    of_groups, counted = _integers(model["tree_info"]), int(model["gbtree_model_param"]["num_trees"])
    ids = sorted(each["id"] for each in trees)  # which are places
    counts = counted == len(of_groups) == len(trees) and ids == [*range(len(trees))]
    if not counts or not _within(of_groups, 0, groups):
        raise _refusal("its trees are not as many as it says")
    bounds = _integers(model.get("iteration_indptr", []))
    if len(bounds) and (bounds[0] != 0 or bounds[-1] != counted or (np.diff(bounds) < 0).any()):
        raise _refusal("its iterations are not those of its trees")
    wide = {_check_tree(tree, width, groups, number) for number, tree in enumerate(trees)}
    if len(wide) > 1 or (trees and groups > max(counted, *wide)):
        raise _refusal(f"it gives {groups} scores, for which it has too few trees")
    return counted


def _check_tree(tree: _Named, width: int, groups: int, number: int) -> int:
    """Look at one tree; give how many scores it gives."""
    count, values = int(tree["tree_param"]["num_nodes"]), int(tree["tree_param"]["size_leaf_vector"])
    names = ("left_children", "right_children", "split_indices", "parents")
    left, right, features, parents = (_integers(tree[each]) for each in names)
    lengths = {len(each) for each in (left, right, features, parents, tree["split_conditions"])}
    if count < 1 or lengths != {count} or len(tree["default_left"]) != count:
        raise _refusal(f"tree {number} has lists of several lengths")
    onward = left != _LEAF
    children = np.concatenate([left[onward], right[onward]])
    once = len(np.unique(children)) == len(children)  # so no way leads back
    if not _within(children, 1, count) or not once:
        raise _refusal(f"tree {number} leads to nodes that are not there")
    if not _within(features[onward], 0, width):
        raise _refusal(f"tree {number} reads columns that are not there")
    if (parents[children] != np.tile(np.flatnonzero(onward), 2)).any():
        raise _refusal(f"tree {number} has nodes with other parents")
    _check_categories(tree, count, number)
    if values < 0 or (values > 1) != ("leaf_weights" in tree or len(tree["base_weights"]) > count):
        raise _refusal(f"tree {number} has leaves of other sizes")
    if values > 1 and (values != groups or not _has_weights(tree, count, values, right[~onward])):
        raise _refusal(f"tree {number} has leaves of other sizes")
    return max(values, 1)


def _has_weights(tree: _Named, count: int, values: int, leaves: Any) -> bool:
    """Whether each leaf has its scores: in place of a way to the right stands which these are."""
    if "leaf_weights" not in tree:  # as versions before 3.2 have it
        return len(tree["base_weights"]) == count * values
    return len(tree["leaf_weights"]) == len(leaves) * values and _within(leaves, 0, len(leaves))


def _check_categories(tree: _Named, count: int, number: int) -> None:
    nodes, starts, sizes, categories = (
        _integers(tree.get(each, []))
        for each in ("categories_nodes", "categories_segments", "categories_sizes", "categories")
    )
    fits = len(nodes) == len(starts) == len(sizes) and _within(nodes, 0, count)
    total = len(categories)
    fits = fits and _within(starts, 0, total + 1) and _within(sizes, 0, total + 1)
    fits = fits and bool((starts + sizes <= total).all()) and _within(categories, 0, _MOST_CATEGORY)
    kinds = _integers(tree.get("split_type", []))
    is_categorical = np.flatnonzero(kinds == _IS_CATEGORICAL)
    if not fits or len(kinds) not in (0, count) or not set(is_categorical) <= set(nodes):
        raise _refusal(f"tree {number} has categories that are not there")


def _within(values: Any, least: int, end: int) -> bool:
    return bool(((values >= least) & (values < end)).all())


def _integers(values: Sequence[Any]) -> Any:
    array = np.asarray(values)
    if not array.size:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise _refusal("a list of it holds other than whole numbers")
    return array.astype(np.int64)


def _refusal(reason: str) -> ConfigError:
    return ConfigError(
        f"the bytes are no model of XGBoost as a training gives it: {reason}; it was made or changed by "
        "hand, and is refused"
    )
