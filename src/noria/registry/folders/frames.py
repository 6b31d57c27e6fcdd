"""Rows as users have them, as Arrow or as an array; and as the library of a model wants them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from noria.errors import SourceError

__all__ = ["Rows", "as_rows", "data_frame", "float_matrix"]

Rows = Any  # an Arrow table of named columns, or an array of numpy


def as_rows(frame: object) -> Rows:
    """Give rows of named columns as an Arrow table, and those without names as an array.

    Parameters
    ----------
    frame
        A frame of pandas, Polars, Arrow or DuckDB (whatever has the Arrow PyCapsule interface), columns by
        name, rows as mappings, or an array of two dimensions or more.

    Raises
    ------
    SourceError
        If it is something else, or a column holds values of several kinds.
    """
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, np.ndarray):
        return frame
    try:
        return _table(frame)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as err:
        raise SourceError(
            f"the rows cannot be read as columns: {err}; give each column values of one kind"
        ) from err


def _table(frame: object) -> pa.Table:
    if type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
        return _named(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame)
    if isinstance(frame, Mapping):
        return _named(pa.table({name: _column(values) for name, values in frame.items()}))
    if isinstance(frame, Sequence) and frame and all(isinstance(each, Mapping) for each in frame):
        return pa.Table.from_pylist([dict(each) for each in frame])
    raise TypeError(
        f"a {type(frame).__qualname__} is no frame of pandas, Polars or Arrow, no mapping of columns, no "
        "list of mappings and no array"
    )


def _named(table: pa.Table) -> pa.Table:
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({each for each in names if names.count(each) > 1})
        raise ValueError(f"columns have the same name: {', '.join(twice)}")
    return table


def _column(values: Any) -> Any:
    return values if isinstance(values, pa.Array | pa.ChunkedArray | np.ndarray) else pa.array(list(values))


def float_matrix(rows: Rows) -> npt.NDArray[Any]:
    """Give rows of numbers as a matrix, missing ones as NaN. Raises `SourceError` for texts."""
    from noria.registry.matrix import column_floats

    if isinstance(rows, np.ndarray):
        return rows
    matrix = np.empty((rows.num_rows, rows.num_columns))
    for number, name in enumerate(rows.column_names):
        matrix[:, number] = column_floats(name, rows.column(name))
    return matrix


def data_frame(rows: Rows) -> Any:
    """Give rows as a frame of pandas, as which most models met them; where it is not installed as they are.

    Column names, texts and missing values are what a client of MLflow would hand to the model.
    """
    if isinstance(rows, np.ndarray) or find_spec("pandas") is None:
        return rows
    return rows.to_pandas()
