"""Decision trees of any library as a model in LightGBM's text format.

LightGBM compares float64 with float64 by `<=` and adds the leaves of one tree after another, as scikit-learn
does, so that the sums have the same bits; it does so several times as quickly for one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from noria.serving.compiled.refusals import NotCompiled

__all__ = ["TINY", "Tree", "as_text", "constant_tree", "thresholds_at_zero"]

TINY = float(np.float32(1e-35))  # LightGBM takes a number no further from 0 than that for 0
_SEEN_TINY = 2 * TINY  # what such a number is moved to where a tree asks whether it is above 0
_MOST = np.finfo(np.float64).max
_MOST_COUNTED = 2**30
_NAN_MISSING = 2 << 2  # bits of `decision_type`
_DEFAULT_LEFT = 2
_CATEGORICAL = 1


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree: nodes by number, 0 the root. Of a leaf only `value` counts.

    Attributes
    ----------
    threshold
        At most that goes left.
    missing_left
        Whether NaN goes left.
    categories
        By node, the codes that go left, of splits on categories.
    weight
        Of the rows that the tree was grown on, by node; None where nobody knows: then what columns add
        cannot be computed.
    """

    is_leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float64]
    categories: dict[int, Sequence[int]] = field(default_factory=dict)
    weight: NDArray[np.float64] | None = None


def constant_tree(value: float) -> Tree:
    """Give the tree of one leaf."""
    zero = np.zeros(1, dtype=np.int64)
    yes = np.ones(1, dtype=np.bool_)
    return Tree(yes, zero, np.zeros(1), yes, zero, zero, np.array([value]))


def thresholds_at_zero(trees: Sequence[Tree]) -> list[int]:
    """Give the columns that a tree compares with exactly 0.

    Raises
    ------
    NotCompiled
        If one is compared with a number so close to 0 that LightGBM would not tell them apart.
    """
    found: set[int] = set()
    for tree in trees:
        splits = np.flatnonzero(~tree.is_leaf)
        splits = splits[[number not in tree.categories for number in splits.tolist()]]
        near = splits[np.abs(tree.threshold[splits]) <= _SEEN_TINY]
        if np.any(tree.threshold[near] != 0):
            raise NotCompiled("a tree compares with a number closer to 0 than 2e-35")
        found.update(tree.feature[near].tolist())
    return sorted(found)


def as_text(trees: Sequence[Tree], *, columns: int, per_iteration: int) -> bytes:
    """Give the text of a model that adds up trees.

    Parameters
    ----------
    trees
        Those of the first class, the second, and so on, again and again.
    columns
        How many the matrix has.
    per_iteration
        How many numbers it gives for a row.
    """
    texts = [f"Tree={number}\n{_tree_text(tree)}\n\n" for number, tree in enumerate(trees)]
    header = {
        "version": "v4",
        "num_class": per_iteration,
        "num_tree_per_iteration": per_iteration,
        "label_index": 0,
        "max_feature_idx": columns - 1,
        "feature_names": _spaced(f"c{each}" for each in range(columns)),
        "feature_infos": _spaced("[-inf:inf]" for _ in range(columns)),
        "tree_sizes": _spaced(len(each) for each in texts),
    }
    head = "".join(f"{name}={value}\n" for name, value in header.items())
    return f"tree\n{head}\n{''.join(texts)}end of trees\n\nparameters:\nend of parameters\n".encode()


def _tree_text(tree: Tree) -> str:
    leaves = np.flatnonzero(tree.is_leaf)
    if len(leaves) == 1:
        return (
            f"num_leaves=1\nnum_cat=0\nleaf_value={float(tree.value[leaves[0]])!r}\nis_linear=0\nshrinkage=1"
        )
    splits = np.flatnonzero(~tree.is_leaf)
    number = np.empty(len(tree.is_leaf), dtype=np.int64)
    number[splits] = np.arange(len(splits))
    number[leaves] = ~np.arange(len(leaves))
    decision = np.where(tree.missing_left[splits], _DEFAULT_LEFT, 0) | _NAN_MISSING
    threshold = np.clip(tree.threshold[splits], -_MOST, _MOST)  # infinite: all numbers go left, or right
    words: list[int] = []
    ends = [0]
    thresholds = [repr(each) for each in threshold.tolist()]
    for place, split in enumerate(splits.tolist()):
        if split in tree.categories:
            decision[place] = _CATEGORICAL
            thresholds[place] = str(len(ends) - 1)
            words += _bits(tree.categories[split])
            ends.append(len(words))
    kept = {
        "num_leaves": len(leaves),
        "num_cat": len(ends) - 1,
        "split_feature": _spaced(tree.feature[splits].tolist()),
        "split_gain": _spaced("0" for _ in splits),
        "threshold": _spaced(thresholds),
        "decision_type": _spaced(decision.tolist()),
        "left_child": _spaced(number[tree.left[splits]].tolist()),
        "right_child": _spaced(number[tree.right[splits]].tolist()),
        "leaf_value": _spaced(map(repr, tree.value[leaves].tolist())),
    }
    if words:
        kept |= {"cat_boundaries": _spaced(ends), "cat_threshold": _spaced(words)}
    if tree.weight is not None:
        counts = _counts(tree, tree.weight)
        kept |= {
            "leaf_count": _spaced(counts[leaves].tolist()),
            "internal_count": _spaced(counts[splits].tolist()),
        }
    kept |= {"is_linear": 0, "shrinkage": 1}
    return "\n".join(f"{name}={value}" for name, value in kept.items())


def _counts(tree: Tree, weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give whole numbers in the proportion of weights, for which LightGBM takes them: it adds up to 2**31."""
    leaves = weight[tree.is_leaf]
    scale = 1.0 if np.array_equal(leaves, np.rint(leaves)) else _MOST_COUNTED / leaves.sum()
    scale = min(scale, _MOST_COUNTED / leaves.sum())
    counts = np.where(tree.is_leaf, np.maximum(1, np.rint(weight * scale)), 0).astype(np.int64)
    order, at = [0], 0
    while at < len(order):  # from the root down, so that backwards children come before their parents
        node = order[at]
        if not tree.is_leaf[node]:
            order += [int(tree.left[node]), int(tree.right[node])]
        at += 1
    for node in reversed(order):
        if not tree.is_leaf[node]:
            counts[node] = counts[tree.left[node]] + counts[tree.right[node]]
    return counts


def _bits(codes: Sequence[int]) -> list[int]:
    words = [0] * (max(codes, default=0) // 32 + 1)
    for code in codes:
        words[code // 32] |= 1 << (code % 32)
    return words


def _spaced(values: object) -> str:
    return " ".join(map(str, values))  # type: ignore[call-overload]
