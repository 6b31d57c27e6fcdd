"""What a folder of MLflow reads as inputs of a served model, and rows of a server as it reads them."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import UNSET

from noria.errors import ConfigError, SourceError
from noria.registry.folders.signatures import ColumnSpec, FolderSignature, TensorSpec
from noria.registry.records import Input
from noria.registry.whole_numbers import are_whole

__all__ = ["ARRAY", "folder_inputs", "folder_rows"]

ARRAY = "input"  # what the only array of a model is called that has no name
_DATATYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
_KINDS = {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP64"}
_ARROW = {"boolean": pa.bool_(), "integer": pa.int32(), "long": pa.int64(), "float": pa.float32()}


def folder_inputs(signature: FolderSignature | None, where: str) -> tuple[Input, ...]:
    """Give what a folder reads as inputs.

    Raises
    ------
    ConfigError
        If it does not say, or reads what no request brings.
    """
    if signature is None or not signature.inputs:
        raise ConfigError(
            f"{where} does not say what columns it reads; log the model with a signature (`signature=` or "
            "`input_example=`), or register the model in it with `project.models.register(..., example=rows)`"
        )
    return tuple(_input(place, each, where) for place, each in enumerate(_specs(signature)))


def folder_rows(
    signature: FolderSignature,
    matrix: npt.NDArray[np.float64],
    strings: Mapping[str, Sequence[str | None]],
) -> Any:
    """Give rows as a folder reads them: a table of its types, an array, or arrays by name.

    Raises
    ------
    SourceError
        If a value is missing, or no whole number of its type, where the model reads whole numbers.
    """
    columns: dict[str, Any] = {}
    at = 0
    is_array = False
    for place, each in enumerate(_specs(signature)):
        read = _input(place, each, "the model")
        if read.kind == "string":
            given: Any = strings[read.name]
        else:
            given = matrix[:, at : at + read.columns]
            at += read.columns
        if isinstance(each, ColumnSpec):
            columns[read.name] = _column(given, each, read.name)
            continue
        is_array = True
        columns[read.name] = _array(given, each, read.name)
    if not is_array:
        return pa.table(columns)
    only = signature.inputs[0]
    return columns[ARRAY] if len(columns) == 1 and only.name is None else columns


def _specs(signature: FolderSignature) -> tuple[ColumnSpec | TensorSpec, ...]:
    return tuple(signature.inputs)


def _input(place: int, spec: ColumnSpec | TensorSpec, where: str) -> Input:
    if isinstance(spec, ColumnSpec):
        name = spec.name if spec.name is not None else str(place)
        optional = UNSET if spec.is_required else True
        if spec.type == "string":
            return Input(name, "string", optional=optional)
        if spec.type not in _DATATYPES:
            raise ConfigError(
                f"column {name!r} of {where} is of type {spec.type}, which no request brings; numbers and "
                "texts are served"
            )
        return Input(name, "number", datatype=_DATATYPES[spec.type], optional=optional)
    name = spec.name if spec.name is not None else ARRAY
    width = prod(spec.shape[1:])
    if not spec.shape or spec.shape[0] != -1 or width < 1 or -1 in spec.shape[1:]:
        raise ConfigError(
            f"array {name!r} of {where} has the shape {spec.shape}; served are rows of a fixed width, "
            "such as (-1, 20)"
        )
    try:
        kind: str = np.dtype(spec.dtype).kind
    except TypeError:
        kind = "?"
    if kind in "UO" and width == 1:
        return Input(name, "string")
    if kind not in _KINDS:
        raise ConfigError(f"array {name!r} of {where} is of {spec.dtype[:40]}, which no request brings")
    return Input(name, "number", width=width, datatype=_KINDS[kind])


def _column(given: Any, spec: ColumnSpec, name: str) -> pa.Array:
    if spec.type == "string":
        return pa.array(given, pa.string())
    values = given[:, 0]
    if spec.type == "double":
        return pa.array(values)
    if spec.type == "float":
        return pa.array(values.astype(np.float32))
    missing = np.isnan(values)
    wanted = _ARROW[spec.type]
    if not are_whole(values[~missing], wanted.to_pandas_dtype()).all():
        what = "neither true nor false" if spec.type == "boolean" else "no whole number, or too large"
        raise SourceError(f"input {name!r} has a value that is {what}; the model reads {spec.type}")
    if missing.any() and spec.is_required:
        raise SourceError(f"input {name!r} lacks a value; the model reads {spec.type}")
    whole = np.where(missing, 0, values).astype(np.int64)
    return pa.array(whole, mask=missing).cast(wanted, safe=False)


def _array(given: Any, spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    if not isinstance(given, np.ndarray):
        given = np.array(given, dtype=object)
    kind = np.dtype(spec.dtype)
    if kind.kind in "iub" and not are_whole(given, kind).all():
        raise SourceError(
            f"input {name!r} lacks a value, or has one that is no {kind.name}, as the model reads"
        )
    array = given if kind.kind in "UO" else given.astype(kind)
    return np.ascontiguousarray(array.reshape(len(array), *spec.shape[1:]))
