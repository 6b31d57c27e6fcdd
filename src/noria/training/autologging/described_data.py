"""Training data as MLflow describes it: digest, shape, schema; and a few rows of it."""

import hashlib
import sys
from typing import Any

import msgspec
import numpy as np

from noria.tracking.records import LoggedDataset

__all__ = ["described", "example_of", "row_count", "some_rows"]

_CELLS = 500_000  # hashed at most; of more rows evenly spread ones
_LEAST_ROWS = 256
_EXAMPLE_ROWS = 5
_DIGEST_CHARS = 16
_KINDS = {"b": "boolean", "U": "string", "S": "binary", "O": "string", "M": "datetime"}


def described(
    data: Any, targets: Any = None, *, context: str = "train", name: str = "dataset"
) -> LoggedDataset:
    """Describe what a model is trained on: a frame, an array, a sparse matrix, or a list.

    The digest is of shape, types, names and values; of more than half a million values it takes in rows
    that are evenly spread, as the profile tells.
    """
    rows = row_count(data)
    width = _width(data)
    most = max(_LEAST_ROWS, _CELLS // max(width, 1))
    chosen = None if rows is None or rows <= most else spread(rows, most)
    digest = hashlib.sha256()
    for each in (data, targets):
        if each is not None:
            _feed(digest, each if chosen is None else some_rows(each, chosen))
    digest.update(repr((rows, width)).encode())
    profile = {"num_rows": rows, "num_columns": width, "num_rows_digested": rows if chosen is None else most}
    source = {"tags": {"mlflow.source.name": sys.argv[0] if sys.argv else ""}}
    return LoggedDataset(
        name=name,
        digest=digest.hexdigest()[:_DIGEST_CHARS],
        source_type="code",
        source=msgspec.json.encode(source).decode(),
        schema=msgspec.json.encode(_schema(data, targets)).decode(),
        profile=msgspec.json.encode(profile).decode(),
        context=context,
    )


def example_of(data: Any) -> Any:
    """Give the first rows, as a copy; None where they cannot be told."""
    rows = row_count(data)
    if not rows:
        return None
    if _is_sparse(data):
        return data[:_EXAMPLE_ROWS].toarray()
    few = some_rows(data, np.arange(min(rows, _EXAMPLE_ROWS)))
    if _columns(few) is None:
        few = np.asarray(few)
        return few if few.ndim == 2 and few.dtype.kind in "bifu" else None
    return few.copy() if hasattr(few, "copy") else few


def spread(rows: int, count: int) -> "np.ndarray[Any, np.dtype[np.intp]]":
    """Give so many places among rows, evenly spread, the first and the last among them."""
    return np.linspace(0, rows - 1, count).astype(np.intp)


def row_count(data: Any) -> int | None:
    """Give how many rows there are; None where that cannot be told."""
    shape = getattr(data, "shape", None)
    if isinstance(shape, tuple) and shape:
        return int(shape[0])
    return len(data) if isinstance(data, (list, tuple)) else None


def some_rows(data: Any, places: "np.ndarray[Any, np.dtype[np.intp]]") -> Any:
    """Give the rows at some places."""
    if hasattr(data, "iloc"):
        return data.iloc[places]
    if isinstance(data, (list, tuple)):
        return [data[each] for each in places]
    return data[places]


def _is_sparse(data: Any) -> bool:
    return hasattr(data, "tocsr") and hasattr(data, "nnz")


def _columns(data: Any) -> list[str] | None:
    """Give the names of a frame's columns."""
    found = getattr(data, "columns", None)
    return None if found is None else [str(each) for each in found]


def _width(data: Any) -> int:
    shape = getattr(data, "shape", None)
    if isinstance(shape, tuple):
        return int(np.prod(shape[1:])) if len(shape) > 1 else 1
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], (list, tuple, np.ndarray)):
        return len(data[0])
    return 1


def _feed(digest: Any, data: Any) -> None:
    columns = _columns(data)
    if columns is not None:
        for place, name in enumerate(columns):
            digest.update(name.encode("utf-8", "backslashreplace"))
            column = data.iloc[:, place] if hasattr(data, "iloc") else data[name]
            _feed_array(digest, column)
    elif _is_sparse(data):
        whole = data.tocsr()
        for each in (whole.data, whole.indices, whole.indptr):
            _feed_array(digest, each)
    else:
        _feed_array(digest, data)


def _feed_array(digest: Any, data: Any) -> None:
    array = _array(data)
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    if array.dtype.hasobject:
        digest.update("\x1f".join(map(str, array.ravel().tolist())).encode("utf-8", "backslashreplace"))
    else:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")


def _schema(data: Any, targets: Any) -> dict[str, Any]:
    """Give the schema as MLflow writes it."""
    columns = _columns(data)
    if columns is None:
        told = {"features": msgspec.json.encode([_tensor(data)]).decode()}
        if targets is not None:
            told["targets"] = msgspec.json.encode([_tensor(targets)]).decode()
        return {"mlflow_tensorspec": told}
    found: list[dict[str, Any]] = []
    for place, name in enumerate(columns):
        column = data.iloc[:, place] if hasattr(data, "iloc") else data[name]
        found.append({"type": _kind(column), "name": name, "required": True})
    return {"mlflow_colspec": found}


def _kind(column: Any) -> str:
    dtype = getattr(column, "dtype", None)
    kind = getattr(dtype, "kind", None)
    if not isinstance(kind, str):  # of Polars or Arrow
        dtype = np.asarray(column[:1]).dtype
        kind = dtype.kind
    if kind in "iu":
        return "long" if getattr(dtype, "itemsize", 8) > 4 else "integer"
    if kind == "f":
        return "double" if getattr(dtype, "itemsize", 8) > 4 else "float"
    return _KINDS.get(kind, "string")


def _tensor(data: Any) -> dict[str, Any]:
    shape = getattr(data, "shape", None)
    dtype = getattr(data, "dtype", None)
    if not isinstance(shape, tuple) or dtype is None:
        array = _array(data[:_EXAMPLE_ROWS])
        shape, dtype = array.shape, array.dtype
    return {"type": "tensor", "tensor-spec": {"dtype": str(dtype), "shape": [-1, *map(int, shape[1:])]}}


def _array(data: Any) -> Any:
    """Give an array; of rows that differ in length, one of objects."""
    try:
        return np.asarray(data)
    except ValueError:
        array = np.empty(len(data), dtype=object)
        array[:] = data
        return array
