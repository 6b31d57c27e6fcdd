"""Sums of small trees for many rows at once, by numpy, without a branch for every node.

A tree's leaves, from left to right, are the bits of a number. A node whose test fails takes away the leaves
left of it; what failed nodes of all features leave has its lowest bit at the leaf that is reached. Of one
feature, the failed nodes are those with the smallest thresholds, so that a table has what they leave
together, for every tree, by how many thresholds a number exceeds.

References
----------
C. Lucchese and others, "QuickScorer: a fast algorithm to rank documents with additive ensembles of
regression trees", SIGIR 2015.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.serving.compiled.plan import Array, FeatureTable, Tables, packed, unpacked
from noria.serving.compiled.tree_text import Tree

__all__ = ["LEAST_ROWS", "ManyRows", "tables_of"]

LEAST_ROWS = 128  # from which it is quicker than one row after another
_MOST_LEAVES = 64
_MOST_BYTES = 8 << 20  # of tables
_CHUNK = 256  # rows, so that their bits stay in the cache

Floats = NDArray[np.float64]


class ManyRows:
    """An ensemble as tables; see `tables_of`."""

    def __init__(self, tables: Tables) -> None:
        self._features = [
            (each.column, unpacked(each.thresholds), unpacked(each.tables)) for each in tables.features
        ]
        self._values, self._starts = unpacked(tables.values), unpacked(tables.starts)
        self._width = tables.width

    def sums(self, matrix: Floats) -> Floats:
        """Add the leaves of the trees, in their order: of shape (n,), or (n, width)."""
        found = np.empty((len(matrix), self._width))
        for first in range(0, len(matrix), _CHUNK):
            found[first : first + _CHUNK] = self._chunk(matrix[first : first + _CHUNK])
        return found[:, 0] if self._width == 1 else found

    def _chunk(self, matrix: Floats) -> Floats:
        rows, trees = len(matrix), len(self._starts)
        left = np.full((rows, trees), -1, dtype=self._features[0][2].dtype)
        other = np.empty_like(left)
        for column, thresholds, tables in self._features:
            values = matrix[:, column]
            exceeded = np.searchsorted(thresholds, values, side="left")
            exceeded[np.isnan(values)] = len(thresholds) + 1
            some = np.flatnonzero(exceeded)
            if 2 * len(some) < rows:
                left[some] &= tables.take(exceeded[some], axis=0)
            else:
                np.take(tables, exceeded, axis=0, out=other, mode="clip")
                np.bitwise_and(left, other, out=left)
        lowest = np.bitwise_count((left & -left) - 1)
        leaves = self._values.take(np.add(lowest, self._starts, dtype=np.intp).T)
        sums = leaves.reshape(trees // self._width, self._width, rows).sum(axis=0)  # one tree after another
        return np.asarray(sums.T)


def tables_of(trees: Sequence[Tree], *, columns: int, per_iteration: int) -> Tables | None:
    """Give the tables of trees; None where some are large, or split on categories, or tables would be."""
    most = max(int(np.count_nonzero(each.is_leaf)) for each in trees)
    if most > _MOST_LEAVES or any(each.categories for each in trees):
        return None
    kind = np.dtype("<i4" if most <= 32 else "<i8")
    nodes: list[list[_Node]] = [[] for _ in range(columns)]
    values: list[float] = []
    starts = []
    for number, tree in enumerate(trees):
        starts.append(len(values))
        values += _add_nodes(tree, number, nodes)
    distinct = [sorted({threshold for threshold, *_ in each}) for each in nodes]
    size = sum(len(each) + 2 for each in distinct if each) * len(trees) * kind.itemsize
    if not 0 < size <= _MOST_BYTES:
        return None
    return Tables(
        features=tuple(
            _feature(column, thresholds, nodes[column], len(trees), kind)
            for column, thresholds in enumerate(distinct)
            if thresholds
        ),
        values=packed(np.array(values)),
        starts=packed(np.array(starts)),
        width=per_iteration,
    )


_Node = tuple[
    float, int, int, bool
]  # threshold, tree, the bits that a failed test leaves, whether NaN passes


def _add_nodes(tree: Tree, number: int, nodes: list[list[_Node]]) -> list[float]:
    """Note every node of a tree by its column; give the values of its leaves from left to right."""
    values: list[float] = []
    begun: dict[int, int] = {}
    stack = [(0, False)]
    while stack:
        node, is_left_done = stack.pop()
        if tree.is_leaf[node]:
            values.append(float(tree.value[node]))
        elif is_left_done:
            gone = (1 << len(values)) - (1 << begun[node])
            passes = bool(tree.missing_left[node])
            nodes[int(tree.feature[node])].append((float(tree.threshold[node]), number, ~gone, passes))
            stack.append((int(tree.right[node]), False))
        else:
            begun[node] = len(values)
            stack += [(node, True), (int(tree.left[node]), False)]
    return values


def _feature(
    column: int, thresholds: list[float], nodes: list[_Node], trees: int, kind: np.dtype[Any]
) -> FeatureTable:
    tables = np.full((len(thresholds) + 2, trees), -1, dtype=kind)
    place = {each: number + 1 for number, each in enumerate(thresholds)}
    for threshold, tree, bits, passes in nodes:
        tables[place[threshold], tree] &= bits
        if not passes:
            tables[-1, tree] &= bits
    tables[:-1] = np.bitwise_and.accumulate(tables[:-1], axis=0)
    return FeatureTable(column, packed(np.array(thresholds)), Array(kind.str, tables.shape, tables.tobytes()))
