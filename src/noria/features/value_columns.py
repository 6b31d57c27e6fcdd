"""Arrow columns of features: their types, known from their declaration, and what stands for no value."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.features.agreeing import differing_rows
from noria.features.columns import Bools
from noria.features.declarations import FeatureSpec, FeatureType, ViewSpec

__all__ = ["empty_columns", "feature_type", "flattened", "or_default", "unequal", "value_column"]


def feature_type(feature: FeatureSpec) -> pa.DataType:
    """Give the type of a feature's column.

    Examples
    --------
    >>> from noria.features import agg
    >>> feature_type(FeatureSpec("places", agg.top("place", 3, "7d", values=["a", "b", "c"])))
    ListType(list<item: string>)
    """
    aggregation = feature.aggregation
    match feature.type:
        case FeatureType.NUMBER:
            return pa.float64()
        case FeatureType.TEXT:
            return pa.string()
        case FeatureType.VECTOR:
            return pa.list_(pa.float32(), aggregation.dimensions)
        case FeatureType.LIST:
            return pa.list_(pa.string() if isinstance(aggregation.values[0], str) else pa.int64())


def empty_columns(specs: Iterable[ViewSpec]) -> dict[str, pa.ChunkedArray]:
    """Give columns without rows for the features of several views."""
    return {
        name: pa.chunked_array([], feature_type(feature))
        for spec in specs
        for name, feature in zip(spec.columns, spec.features, strict=True)
    }


def flattened(features: pa.Table, spec: ViewSpec) -> pa.Table:
    """Give features of a view as models read them: a column of float64 for each element of a vector.

    Lists, which no model reads, stay as they are.
    """
    made: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name, feature in zip(spec.columns, spec.features, strict=True):
        column = features.column(name)
        if feature.type != FeatureType.VECTOR:
            made[name] = column
            continue
        numbers = np.full((len(column), feature.aggregation.dimensions or 0), np.nan)
        there = np.asarray(column.is_valid().combine_chunks(), dtype=np.bool_)
        flat = pc.list_flatten(column).to_numpy()
        numbers[there] = flat.reshape(-1, numbers.shape[1])
        made |= {f"{name}_{element}": pa.array(values) for element, values in enumerate(numbers.T)}
    return pa.table(made)


def or_default(column: pa.Array, feature: FeatureSpec) -> pa.Array:
    """Give a column with the feature's default where it has no value."""
    default = feature.default
    if default is None or not column.null_count:
        return column
    given = pa.array([list(default) if isinstance(default, tuple) else default], column.type)
    # The default is one more value at the end: nested columns cannot be filled by `fill_null`.
    there = pa.array(range(len(column)), pa.int64())
    places = pc.if_else(column.is_valid(), there, pa.scalar(len(column), pa.int64()))
    return pa.concat_arrays([column, given]).take(places)


def unequal(one: pa.ChunkedArray, other: pa.ChunkedArray, tolerance: float) -> Bools:
    """Tell which values of two columns of a feature are not the same; two missing ones are."""
    if pa.types.is_floating(one.type):
        return differing_rows(one.to_numpy(), other.to_numpy(), tolerance)
    both = zip(one.to_pylist(), other.to_pylist(), strict=True)
    return np.fromiter((repr(left) != repr(right) for left, right in both), np.bool_, len(one))  # NaN is NaN


def value_column(values: Any, feature: FeatureSpec) -> pa.Array:
    """Give the column of what `FeatureReader.read_values` gives of a feature."""
    return pa.array(values, feature_type(feature))
