"""Schemas as MLflow writes them: of columns by name and type, or of arrays by type and shape."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from noria.errors import ConfigError
from noria.registry.folders.frames import Rows, as_rows

__all__ = ["schema_of", "schema_of_prediction"]


def schema_of(rows: Rows) -> str:
    """Give the schema of rows as the text that stands in an `MLmodel`.

    Raises
    ------
    ConfigError
        If a column is of a type that MLflow has none for.

    Examples
    --------
    >>> schema_of(pa.table({"distance": [1.5]}))
    '[{"type": "double", "name": "distance", "required": true}]'
    """
    if isinstance(rows, np.ndarray):
        return json.dumps([_tensor(rows)])
    columns = zip(rows.column_names, rows.schema.types, strict=True)
    return json.dumps([_column(name, kind) for name, kind in columns])


def schema_of_prediction(given: Any) -> str | None:
    """Give the schema of what a model gave; None if it is of no kind that has one."""
    if isinstance(given, Mapping) and all(isinstance(each, np.ndarray) for each in given.values()):
        return json.dumps([{**_tensor(each), "name": name} for name, each in given.items()])
    if isinstance(given, np.ndarray) and given.ndim:
        return json.dumps([_tensor(given)])
    if hasattr(given, "__arrow_c_stream__") and hasattr(given, "columns"):
        return schema_of(as_rows(given))
    return None


def _tensor(array: Any) -> dict[str, Any]:
    kind = {"U": "str", "S": "bytes"}.get(array.dtype.kind, str(array.dtype))
    return {"type": "tensor", "tensor-spec": {"dtype": kind, "shape": [-1, *array.shape[1:]]}}


def _column(name: str, kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_null(kind):  # nothing is known of it
        return {"type": "any", "name": name, "required": False}
    return {**_typed(name, kind), "name": name, "required": True}


def _typed(name: str, kind: pa.DataType) -> dict[str, Any]:
    types = pa.types
    if types.is_dictionary(kind):
        return _typed(name, kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return {"type": "array", "items": _typed(name, kind.value_type)}
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    is_double = types.is_float64(kind) or types.is_decimal(kind) or types.is_uint64(kind)
    is_short = types.is_integer(kind) and kind.bit_width <= 16  # also without a sign
    matching = (
        (types.is_boolean(kind), "boolean"),
        (is_short or types.is_int32(kind), "integer"),
        (types.is_int64(kind) or types.is_uint32(kind), "long"),
        (types.is_float16(kind) or types.is_float32(kind), "float"),
        (is_double, "double"),
        (is_text, "string"),
        (is_bytes, "binary"),
        (types.is_timestamp(kind) or types.is_date(kind), "datetime"),
    )
    found = next((told for is_it, told in matching if is_it), None)
    if found is None:
        raise ConfigError(
            f"column {name!r} of the example is {kind}, for which a signature of MLflow has no type; give "
            "numbers, texts, booleans, instants or lists of them"
        )
    return {"type": found}
