"""What a model of a folder reads, and rows brought into that shape: by name, in order, of these types."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from noria.errors import ConfigError, SourceError
from noria.registry.folders.frames import Rows, as_rows, float_matrix

__all__ = ["ColumnSpec", "FolderSignature", "TensorSpec", "read_signature"]

_ARROW = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "datetime": pa.timestamp("ns"),
}
_AS_THEY_ARE = ("array", "object", "map", "any", "sparkml_vector")


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column that a model reads: its type as MLflow names it; None as a name: by its place."""

    name: str | None
    type: str
    is_required: bool


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An array that a model reads; -1 in its shape: any."""

    name: str | None
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FolderSignature:
    """What a model reads and gives, as its folder says.

    Attributes
    ----------
    inputs, outputs
        Columns, or arrays; none if it does not say.
    """

    inputs: tuple[ColumnSpec, ...] | tuple[TensorSpec, ...]
    outputs: tuple[ColumnSpec, ...] | tuple[TensorSpec, ...]

    def fit(self, frame: object) -> Any:
        """Give rows as the model reads them: other columns left out, in its order, of its types.

        Raises
        ------
        SourceError
            If a column is missing, or holds what its type cannot without a change of value.
        """
        if not self.inputs:
            return as_rows(frame)
        first = self.inputs[0]
        if isinstance(first, TensorSpec):
            return self._tensors(frame)
        rows = as_rows(frame)
        columns = [each for each in self.inputs if isinstance(each, ColumnSpec)]
        if isinstance(rows, np.ndarray):
            return _by_place(rows, columns)
        if first.name is None:
            if rows.num_columns != len(columns):
                raise SourceError(f"the rows have {rows.num_columns} columns; the model reads {len(columns)}")
            return rows
        return _by_name(rows, columns)

    def _tensors(self, frame: object) -> Any:
        specs = [each for each in self.inputs if isinstance(each, TensorSpec)]
        if specs[0].name is None:
            rows = as_rows(frame)
            array = rows if isinstance(rows, np.ndarray) else float_matrix(rows)
            return _tensor(array, specs[0])
        if not isinstance(frame, Mapping):
            rows = as_rows(frame)
            if isinstance(rows, np.ndarray) and len(specs) == 1:
                return {specs[0].name: _tensor(rows, specs[0])}
            names = () if isinstance(rows, np.ndarray) else rows.column_names
            frame = {each: rows.column(each).to_numpy() for each in names}
        _check_there([str(each.name) for each in specs], frame)
        return {each.name: _tensor(np.asarray(frame[each.name]), each) for each in specs}


def read_signature(said: Any, where: str) -> FolderSignature:
    """Read the signature of an `MLmodel`. Raises `ConfigError` if it is none."""
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where}: the signature is no mapping")
    return FolderSignature(_specs(said.get("inputs"), where), _specs(said.get("outputs"), where))


def _specs(text: Any, where: str) -> Any:
    if text is None:
        return ()
    try:
        said = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{where}: the signature is no JSON: {err}") from err
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise ConfigError(f"{where}: the signature is no list of columns or arrays")
    specs = [_spec(each, where) for each in said]
    names = [each.name for each in specs if each.name is not None]
    if len({type(each) for each in specs}) > 1 or len(set(names)) < len(names):
        raise ConfigError(f"{where}: the signature mixes columns and arrays, or names one twice")
    if names and len(names) < len(specs):
        raise ConfigError(f"{where}: the signature gives names to some columns only")
    return tuple(specs)


def _spec(said: dict[str, Any], where: str) -> ColumnSpec | TensorSpec:
    name, kind = said.get("name"), said.get("type")
    if name is not None and not isinstance(name, str):
        name = str(name)  # a column of a frame that was named by a number
    if kind == "tensor":
        told = said.get("tensor-spec")
        shape = told.get("shape") if isinstance(told, dict) else None
        is_shape = isinstance(shape, list) and all(type(each) is int and each >= -1 for each in shape)
        if not isinstance(told, dict) or not isinstance(told.get("dtype"), str) or not is_shape:
            raise ConfigError(f"{where}: an array of the signature has no dtype and shape")
        return TensorSpec(name, told["dtype"], tuple(shape or ()))
    if not isinstance(kind, str) or kind not in (*_ARROW, *_AS_THEY_ARE):
        known = ", ".join(_ARROW)
        raise ConfigError(f"{where}: the signature has the type {str(kind)[:60]!r}; known are {known}")
    is_required = said.get("required", not said.get("optional", False))
    return ColumnSpec(name, kind, bool(is_required))


def _check_there(wanted: Sequence[str], there: Any) -> None:
    if missing := [each for each in wanted if each not in there]:
        found = ", ".join(map(str, there)) or "nothing"
        raise SourceError(f"inputs are missing: {', '.join(missing)}; the rows have {found}")


def _by_name(rows: Rows, columns: Sequence[ColumnSpec]) -> Rows:
    _check_there([str(each.name) for each in columns if each.is_required], rows.column_names)
    there = [each for each in columns if each.name in rows.column_names]
    cast = [_cast(rows.column(each.name), str(each.name), each.type) for each in there]
    return pa.table(cast, names=[str(each.name) for each in there])


def _by_place(array: Any, columns: Sequence[ColumnSpec]) -> Rows:
    """Take an array as columns, as a client of MLflow does; names that are numbers stand for places there."""
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise SourceError(f"the rows have the shape {array.shape}; the model reads {len(columns)} columns")
    named = [each.name if each.name is not None else str(place) for place, each in enumerate(columns)]
    if all(each.name is None for each in columns):
        return array
    return _by_name(pa.table([pa.array(array[:, n]) for n in range(len(columns))], names=named), columns)


def _cast(values: Any, name: str, kind: str) -> Any:
    wanted = _ARROW.get(kind)
    found = values.type
    if wanted is None or found == wanted or pa.types.is_null(found):
        return values
    if pa.types.is_dictionary(found):
        return _cast(values.cast(found.value_type), name, kind)
    is_number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    is_bytes = pa.types.is_large_binary(found) or pa.types.is_binary_view(found)
    is_time = pa.types.is_timestamp(found) or pa.types.is_date(found)
    is_narrower = not (kind == "float" and pa.types.is_float64(found))  # else values would be rounded
    fits = {
        "integer": is_number,
        "long": is_number,
        "float": is_number and is_narrower,
        "double": is_number,
        "string": is_text,
        "binary": is_bytes,
        "datetime": is_time,
    }
    if not fits.get(kind, False):
        raise SourceError(f"column {name!r} is {found}; the model reads {kind}")
    if kind == "datetime" and getattr(found, "tz", None):
        raise SourceError(f"column {name!r} has instants of a time zone; the model reads {kind} without one")
    if kind in ("integer", "long") and pa.types.is_floating(found):
        values = _without_nan(values)
    try:
        return values.cast(wanted, safe=True)
    except pa.ArrowInvalid as err:
        raise SourceError(
            f"column {name!r} is {found}, and holds values that are no {kind}, which the model reads: {err}"
        ) from err


def _without_nan(values: Any) -> Any:
    """Give floats with those that are no number as missing."""
    import pyarrow.compute as pc

    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _tensor(array: Any, spec: TensorSpec) -> Any:
    wanted = spec.shape
    same = array.ndim == len(wanted) and all(
        each in (-1, found) for each, found in zip(wanted, array.shape, strict=True)
    )
    what = f"the array {spec.name!r}" if spec.name else "the array"
    if not same:
        raise SourceError(f"{what} has the shape {array.shape}; the model reads {wanted}")
    try:
        kind = np.dtype(spec.dtype)
    except TypeError as err:
        raise ConfigError(
            f"the signature names the dtype {spec.dtype[:60]!r}, which numpy does not know"
        ) from err
    if array.dtype.kind == kind.kind and kind.kind in "USO":
        return array
    if not np.can_cast(array.dtype, kind, "safe"):
        raise SourceError(f"{what} is {array.dtype}; the model reads {kind}: convert it if no value changes")
    return array.astype(kind, copy=False)
