"""Arrays, scalars and dtypes of numpy as bytes, and back as views that cannot be written to."""

from collections.abc import Callable
from types import NoneType
from typing import Any

import numpy as np
from msgspec.msgpack import Ext

from noria.pipelines.values.coding import Code, Encode, Reader, Refused, Writer, pack

__all__ = ["read_array", "read_dtype", "read_objects", "read_scalar", "resolve_numpy"]

_KINDS = "biufcmMSUV"
_MAX_FLOAT = {
    "f": 8,
    "c": 16,
}  # bytes; what is longer has bits that mean nothing, and differs between machines


def resolve_numpy(kind: type, otherwise: Encode) -> Encode:
    """Give the encoder of a type of numpy; `otherwise` where it is none of the plain ones."""
    if kind is np.ndarray or issubclass(kind, np.memmap):
        return _with(_array, otherwise)
    if issubclass(kind, np.generic):
        return _with(_scalar, otherwise)
    return _with(_dtype, otherwise) if issubclass(kind, np.dtype) else otherwise


def _with(encode: Callable[[Writer, Any, Encode], Any], otherwise: Encode) -> Encode:
    return lambda writer, value: encode(writer, value, otherwise)


def _array(writer: Writer, value: np.ndarray[Any, Any], otherwise: Encode) -> Any:
    if value.dtype == object:
        flat = value.ravel(order="C").tolist()
        return Ext(Code.OBJECTS, pack([list(value.shape), writer.items(value, flat)]))
    described = _describe(value.dtype)
    if described is None:
        return otherwise(writer, value)
    fortran: bool = value.flags.fnc  # kept, since sums of floats depend on the order
    row = _canonical(value.T if fortran else value)
    content = row.view(np.uint8).data if row.nbytes else memoryview(b"")
    return Ext(Code.ARRAY, pack([described, list(value.shape), fortran, writer.buffer(content)]))


def _scalar(writer: Writer, value: np.generic, otherwise: Encode) -> Any:
    described = _describe(value.dtype)
    if described is None or value.dtype == object:
        return otherwise(writer, value)
    return Ext(Code.NUMPY_SCALAR, pack([described, _canonical(np.asarray(value)).tobytes()]))


def _dtype(writer: Writer, value: np.dtype[Any], otherwise: Encode) -> Any:
    described = _describe(value)
    return otherwise(writer, value) if described is None else Ext(Code.DTYPE, pack(described))


def _describe(dtype: np.dtype[Any]) -> Any:
    """Give what `_make_dtype` takes; None for a dtype that only pickle knows."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        described = _describe(base)
        return None if described is None else [described, list(shape)]
    if dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names or ()]
        described = [_describe(each[0]) for each in fields]
        titles = [each[2] if len(each) > 2 else None for each in fields]
        if None in described or dtype.hasobject or not set(map(type, titles)) <= {str, NoneType}:
            return None
        return {
            "names": list(dtype.names or ()),
            "formats": described,
            "offsets": [each[1] for each in fields],
            "titles": titles,
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if dtype.kind == "O":
        return dtype.str
    if dtype.kind not in _KINDS:
        return None
    if dtype.itemsize > _MAX_FLOAT.get(dtype.kind, dtype.itemsize):
        raise Refused(f"of dtype {dtype.name}, which differs between machines", "turn it into float64")
    return dtype.str


def _make_dtype(described: Any) -> np.dtype[Any]:
    match described:
        case str():
            return np.dtype(described)
        case [base, shape]:
            return np.dtype((_make_dtype(base), tuple(shape)))
        case _:
            fields: Any = {**described, "formats": [_make_dtype(each) for each in described["formats"]]}
            made: np.dtype[Any] = np.dtype(fields, align=fields.pop("aligned"))
            return made


def _canonical(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give the elements in C order, in one row, with one NaN and nothing between the fields."""
    if array.dtype.fields is not None:
        clean = np.zeros(array.shape, array.dtype)
        for name in array.dtype.names or ():
            clean[name] = _canonical(array[name]).reshape(array[name].shape)
        return clean.reshape(-1)
    flat = np.asarray(array, order="C").reshape(-1)
    if array.dtype.kind == "c":
        return _one_nan(flat.view(np.dtype(f"{array.dtype.str[0]}f{array.dtype.itemsize // 2}"))).view(
            array.dtype
        )
    return _one_nan(flat) if array.dtype.kind == "f" else flat


def _one_nan(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    missing = np.isnan(flat)
    if missing.any():
        flat = flat.copy()
        flat[missing] = np.nan
    return flat


def read_array(reader: Reader, data: memoryview) -> np.ndarray[Any, Any]:
    """Give a view of the bytes."""
    described, shape, fortran, number = reader.value(data)
    content = reader.buffers[number]
    return np.ndarray(tuple(shape), _make_dtype(described), content, order="F" if fortran else "C")


def read_objects(reader: Reader, data: memoryview) -> np.ndarray[Any, Any]:
    """Make an array of objects."""
    shape, items = reader.value(data)
    made = np.empty(len(items), object)
    for number, each in enumerate(items):  # not at once: numpy would look into lists
        made[number] = each
    made = made.reshape(shape)
    made.flags.writeable = False
    return made


def read_scalar(reader: Reader, data: memoryview) -> Any:
    """Make a scalar of numpy."""
    described, content = reader.value(data)
    return np.ndarray((), _make_dtype(described), content)[()]


def read_dtype(reader: Reader, data: memoryview) -> np.dtype[Any]:
    """Make a dtype."""
    return _make_dtype(reader.value(data))
