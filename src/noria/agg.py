"""Aggregations of a feature view: `agg.count("1d")`, `agg.mean("late", "7d")`, `agg.quantile(...)`."""

from noria.features.agg import (
    age,
    by,
    count,
    decayed_count,
    decayed_mean,
    decayed_sum,
    distinct,
    first,
    last,
    max,
    mean,
    min,
    quantile,
    std,
    sum,
)
from noria.features.declarations import Aggregation, Grouped

__all__ = [
    "Aggregation",
    "Grouped",
    "age",
    "by",
    "count",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "quantile",
    "std",
    "sum",
]
