"""Statistics of a view's features over its entities: what each looks like, and which say the same."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np
import pyarrow as pa

from noria.features.statistics.columns import Column, columns_of
from noria.features.statistics.distributions import categories, distribution, rounded
from noria.features.statistics.information import bin_categories, bin_ranks, most_bins
from noria.features.statistics.ranks import rank
from noria.features.statistics.records import ColumnShape, ViewStatistics
from noria.features.statistics.relating import REDUNDANT, Sampled, groups_of, related_pairs

__all__ = ["describe_view"]

_MOST_TOLD = 50
_LEAST, _LEAST_SPREAD = 10, 20  # of fewer values, these would be those of single entities


def describe_view(
    name: str, features: pa.Table, *, entities: int, as_of: datetime | None, busy: int = 0
) -> ViewStatistics:
    """Describe features of sampled entities.

    Parameters
    ----------
    name : str
        The view's.
    features : Table
        Feature columns only, a row for each entity that was looked at.
    entities, as_of, busy
        As told in `ViewStatistics`.
    """
    columns, left_out = columns_of(features)
    shapes, sampled = [], []
    for column in columns:
        shape, sample = _describe(column)
        shapes.append(shape)
        sampled.append(sample)
    pairs = related_pairs(sampled)
    found = ViewStatistics(
        view=name,
        entities=entities,
        sampled=features.num_rows,
        as_of=None if as_of is None else as_of.isoformat(),
        busy=busy,
        features=tuple(shapes),
        related=tuple(pairs[:_MOST_TOLD]),
        groups=groups_of(pairs, _filled(shapes)),
        redundancy=REDUNDANT,
        left_out=left_out,
    )
    return msgspec.convert(rounded(msgspec.to_builtins(found)), ViewStatistics)


def _describe(column: Column) -> tuple[ColumnShape, Sampled]:
    values = column.load()
    most = most_bins(len(values))
    missing = int(np.isnan(values).sum())
    ranks = None
    if column.kind == "category":
        bins, told = bin_categories(values, most), categories(column, values)
    else:
        ranked = rank(values)
        ranks, bins, told = ranked.ranks, bin_ranks(ranked, most), distribution(column, values)
        there = len(values) - missing
        if there < _LEAST_SPREAD:
            told.pop("quantiles", None)
        if there < _LEAST:
            told = {}
    shape = ColumnShape(name=column.name, kind=column.kind, rows=len(values), missing=missing, **told)
    return shape, Sampled(column.name, ranks, bins, most, 1 - shape.missing_share)


def _filled(shapes: Sequence[ColumnShape]) -> dict[str, float]:
    return {each.name: 1 - each.missing_share for each in shapes}
