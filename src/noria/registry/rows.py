"""Rows of named columns as any model reads them: numbers and vectors in a matrix, and texts."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from noria.errors import SourceError
from noria.registry.matrix import encode
from noria.registry.records import Input, Signature
from noria.registry.scorers import Matrix

__all__ = ["column_texts", "column_values", "encode_rows", "input_of", "output_column"]

_DATATYPES = {
    pa.bool_(): "BOOL",
    pa.int8(): "INT8",
    pa.int16(): "INT16",
    pa.int32(): "INT32",
    pa.int64(): "INT64",
    pa.uint8(): "UINT8",
    pa.uint16(): "UINT16",
    pa.uint32(): "UINT32",
    pa.uint64(): "UINT64",
    pa.float16(): "FP16",
    pa.float32(): "FP32",
}


def input_of(name: str, values: pa.ChunkedArray) -> Input:
    """Give the input that a column of an example is: a number, a vector of numbers, or a string.

    Raises
    ------
    SourceError
        If it is of a type that no request can bring.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind):
        return Input(name, "string")
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Input(name, "number", width=_vectors(name, values).shape[1])
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (is_number or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise SourceError(
            f"column {name!r} of the example is {kind}; a request brings numbers, texts and vectors of "
            "numbers: give instants as text or as a number, and read them in the model"
        )
    datatype = _DATATYPES.get(kind)
    return Input(name, "number") if datatype is None else Input(name, "number", datatype=datatype)


def encode_rows(signature: Signature, table: pa.Table) -> tuple[Matrix, dict[str, list[str | None]]]:
    """Encode rows as a signature says: the matrix of all inputs but strings, and the strings by name.

    Raises
    ------
    SourceError
        If an input is not there, or of another type.
    """
    if missing := [each for each in signature.names if each not in table.column_names]:
        raise SourceError(
            f"inputs are missing: {', '.join(missing)}; the rows have {', '.join(table.column_names)}"
        )
    parts: list[Matrix] = []
    strings: dict[str, list[str | None]] = {}
    for each in signature.inputs:
        values = table.column(each.name)
        if each.kind == "string":
            strings[each.name] = column_texts(each.name, values)
        elif each.columns > 1 or _is_list(values.type):
            vectors = _vectors(each.name, values)
            if vectors.shape[1] != each.columns:
                raise SourceError(
                    f"column {each.name!r} has vectors of {vectors.shape[1]}; wanted are {each.columns}"
                )
            parts.append(vectors)
        else:
            alone = Signature((each,), f"{each.name} ")  # an output that is no input
            parts.append(encode(alone, table))
    matrix = np.hstack(parts) if parts else np.empty((table.num_rows, 0))
    return np.ascontiguousarray(matrix, dtype=np.float64), strings


def column_texts(name: str, values: pa.ChunkedArray) -> list[str | None]:
    """Give a column of texts, None where one is missing. Raises `SourceError` if it is of another type."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (_is_text(kind) or pa.types.is_null(kind)):
        raise SourceError(f"column {name!r} is {kind}; wanted is text")
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    return texts


def output_column(values: object) -> pa.Array:
    """Give what a model gave as a column: numbers, texts, or vectors of numbers."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(values).ravel()), values.shape[1]
        )
    return pa.array(values)


def column_values(name: str, values: pa.ChunkedArray) -> Matrix | list[str | None]:
    """Give a column of what a model gave: texts, or float64 of shape (n,) or (n, width)."""
    if _is_text(values.type):
        return column_texts(name, values)
    if _is_list(values.type):
        return _vectors(name, values)
    floats: Matrix = np.asarray(values.cast(pa.float64()).to_numpy())
    return floats


def _vectors(name: str, values: pa.ChunkedArray) -> Matrix:
    rows: Sequence[Sequence[float | None] | None] = values.to_pylist()
    widths = {-1 if each is None else len(each) for each in rows}
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise _no_vectors(name, widths) from err
    if len(widths) != 1 or matrix.ndim != 2 or 0 in matrix.shape:
        raise _no_vectors(name, widths)
    return matrix


def _no_vectors(name: str, widths: set[int]) -> SourceError:
    told = "some are missing" if -1 in widths else f"lengths are {', '.join(map(str, sorted(widths)[:4]))}"
    return SourceError(f"column {name!r} holds no vectors of numbers of one length: {told}")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
