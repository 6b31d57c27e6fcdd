"""Aggregations of a feature view: `agg.count("1d")`, `agg.mean("late", "7d")`, `agg.quantile(...)`."""

from noria.features.agg import age, count, last, max, mean, min, quantile, sum
from noria.features.declarations import Aggregation

__all__ = ["Aggregation", "age", "count", "last", "max", "mean", "min", "quantile", "sum"]
