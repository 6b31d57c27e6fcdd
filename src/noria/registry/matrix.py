"""The matrix that a model reads, made from a table of named columns."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import SourceError
from noria.registry.records import Input, Signature
from noria.registry.scorers import Matrix, Scorer

__all__ = ["Matrix", "Scorer", "column_floats", "encode"]


def encode(signature: Signature, table: pa.Table, *, rows: npt.NDArray[np.int64] | None = None) -> Matrix:
    """Encode the rows of `table` as `signature` says.

    Parameters
    ----------
    signature : Signature
    table : pa.Table
        Holds every input by name; other columns are left out.
    rows : ndarray of int64, optional
        Positions of the rows to encode, in the order wanted; all without it.

    Returns
    -------
    ndarray of shape (n, k), float64, column-major
        Missing numbers, and missing or unknown categories, are NaN.

    Raises
    ------
    SourceError
        If an input is not there, or is of a type that is no number or no text.
    """
    missing = [each for each in signature.names if each not in table.column_names]
    if missing:
        there = ", ".join(table.column_names)
        raise SourceError(f"inputs are missing: {', '.join(missing)}; the table has {there}")
    size = table.num_rows if rows is None else rows.size
    matrix = np.empty((size, len(signature.inputs)), dtype=np.float64, order="F")
    for number, column in enumerate(signature.inputs):
        values = table.column(column.name)
        floats = _codes(column, values) if column.is_text else column_floats(column.name, values)
        matrix[:, number] = floats if rows is None else floats[rows]
    return matrix


def column_floats(name: str, values: pa.ChunkedArray) -> Matrix:
    """Give a numeric or boolean column as float64, null as NaN.

    Raises
    ------
    SourceError
        If it is of another type.
    """
    kind = values.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (is_number or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise SourceError(f"column {name!r} is {kind}; wanted a number, or declare it as a category")
    floats = values.cast(pa.float64(), safe=False)
    result: Matrix = floats.to_numpy()
    if values.null_count and not pa.types.is_floating(kind):
        result = pc.fill_null(floats, float("nan")).to_numpy()
    return result


def _codes(column: Input, values: pa.ChunkedArray) -> Matrix:
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_null(kind)):
        raise SourceError(f"category {column.name!r} is {kind}; wanted text")
    vocabulary = pa.array(column.categories, pa.string())
    codes = pc.index_in(values.cast(pa.string()), value_set=vocabulary)
    result: Matrix = pc.fill_null(codes.cast(pa.float64()), float("nan")).to_numpy()
    return result
