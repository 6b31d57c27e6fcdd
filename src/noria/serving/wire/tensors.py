"""Values of one tensor: from JSON, flat or nested, and to and from the bytes of the binary extension."""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.serving.requests import BadRequestError, Column, shown

__all__ = ["DATATYPES", "flat_type", "read_binary", "read_json", "write_binary"]

_SMALL_FLOATS = {"FP16": "e", "FP32": "f"}
_BINARY: Mapping[str, str] = {
    "BOOL": "u1",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
_DTYPES = {name: np.dtype(code) for name, code in _BINARY.items()}
DATATYPES = frozenset((*_BINARY, "BYTES"))
_CHECKED = frozenset((*_SMALL_FLOATS, "UINT64"))  # by more than their decoder
_MAX_UINT64 = 2**64 - 1
_LENGTH = struct.Struct("<I")


def _element(datatype: str) -> Any:
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return bool
    if datatype.startswith("FP"):
        return float
    bits = int(datatype.partition("INT")[2])
    if datatype == "UINT64":  # its upper bound is no constraint that msgspec knows; see `_check_range`
        return Annotated[int, msgspec.Meta(ge=0)]
    if datatype[0] == "U":
        return Annotated[int, msgspec.Meta(ge=0, le=2**bits - 1)]
    return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


def flat_type(datatype: str) -> Any:
    """Give the type of the `data` of a tensor that is not nested, as msgspec reads it."""
    return list[_element(datatype) | None]  # type: ignore[misc]  # a type made here


def _decoder(datatype: str, *, nested: bool) -> msgspec.json.Decoder[list[Any]]:
    flat: Any = flat_type(datatype)
    return msgspec.json.Decoder(list[flat] if nested else flat)


_FLAT = {each: _decoder(each, nested=False) for each in DATATYPES}
_NESTED = {each: _decoder(each, nested=True) for each in DATATYPES}


def read_json(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw | list[Any]) -> Column:
    """Read the `data` of a tensor of shape [n] or [n, k], row-major: flat, or nested as its shape is.

    Numbers of FP16 and FP32 are rounded to what these can hold, as they would be in binary.

    Parameters
    ----------
    name
        Of the input, for messages.
    datatype, shape
        Of `DATATYPES`; at least one row and one value in it.
    data
        The JSON, or what was read of it by `flat_type`.

    Raises
    ------
    BadRequestError
        If it is of another type, shape or range.
    """
    rows, width = shape[0], _width(shape)
    try:
        if isinstance(data, list):
            values = data
        elif len(shape) == 2:
            values = _read_lines(name, datatype, rows, width, data)
        else:
            values = _FLAT[datatype].decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise _unreadable(name, datatype, err) from err
    if len(values) != rows * width:
        raise BadRequestError(f"input {shown(name)} has shape {list(shape)} but {len(values)} values")
    if datatype in _CHECKED:
        values = _check_range(name, datatype, values)
    return Column(datatype, values, width)


def read_binary(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Column:
    """Read the bytes of a tensor: little-endian, row-major, strings after their length in four bytes.

    Raises
    ------
    BadRequestError
        If there are more or fewer bytes than the shape says, or they are no such values.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return Column(datatype, _read_strings(name, data, count), _width(shape))
    dtype = _DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise BadRequestError(
            f"input {shown(name)} is {datatype} of shape {list(shape)}, which is "
            f"{count * dtype.itemsize} bytes; its `binary_data_size` is {len(data)}"
        )
    values: NDArray[Any] = np.frombuffer(data, dtype)
    if not values.flags.aligned:
        values = values.copy()
    if datatype == "BOOL":
        if values.max() > 1:
            raise BadRequestError(f"input {shown(name)} is BOOL, but holds bytes other than 0 and 1")
        values = values.view(np.bool_)
    return Column(datatype, values, _width(shape))


def write_binary(datatype: str, values: Sequence[Any]) -> bytes:
    """Write values as the bytes of a tensor; a string that is missing as an empty one."""
    if datatype != "BYTES":
        return np.asarray(values, dtype=_DTYPES[datatype]).tobytes()
    encoded = [each.encode() if each else b"" for each in values]
    return b"".join(part for each in encoded for part in (_LENGTH.pack(len(each)), each))


def _width(shape: Sequence[int]) -> int:
    return shape[1] if len(shape) == 2 else 1


def _read_lines(name: str, datatype: str, rows: int, width: int, data: msgspec.Raw) -> list[Any]:
    text = bytes(data)
    if not text.startswith(b"[[") and not (text[1:2].isspace() and text[1:].lstrip().startswith(b"[")):
        return _FLAT[datatype].decode(data)
    lines = _NESTED[datatype].decode(data)
    if len(lines) != rows or set(map(len, lines)) != {width}:
        raise BadRequestError(f"the `data` of input {shown(name)} does not have its shape {[rows, width]}")
    return lines[0] if rows == 1 else list(chain.from_iterable(lines))


def _unreadable(name: str, datatype: str, error: Exception) -> BadRequestError:
    match error:
        case msgspec.ValidationError():
            return BadRequestError(f"the `data` of input {shown(name)} does not fit {datatype}: {error}")
        case UnicodeDecodeError():
            return BadRequestError(f"the `data` of input {shown(name)} is not UTF-8")
        case _:
            return BadRequestError(f"the `data` of input {shown(name)} is not JSON: {error}")


def _check_range(name: str, datatype: str, values: list[Any]) -> list[Any]:
    if datatype != "UINT64":
        return _round(name, datatype, values)
    if max((each for each in values if each is not None), default=0) > _MAX_UINT64:
        raise BadRequestError(f"the `data` of input {shown(name)} does not fit UINT64")
    return values


def _round(name: str, datatype: str, values: list[float | None]) -> list[float]:
    layout = f"<{len(values)}{_SMALL_FLOATS[datatype]}"
    try:
        try:
            packed = struct.pack(layout, *values)
        except struct.error:  # a value is missing
            packed = struct.pack(layout, *(math.nan if each is None else each for each in values))
    except OverflowError as err:
        raise BadRequestError(
            f"the `data` of input {shown(name)} does not fit {datatype}: out of range"
        ) from err
    return list(struct.unpack(layout, packed))


def _read_strings(name: str, data: memoryview, count: int) -> list[str]:
    whole, size, start = bytes(data), len(data), 0
    found: list[str] = []
    if size >= _LENGTH.size * count:
        for _ in range(count):
            if start + _LENGTH.size > size:
                break
            end = start + _LENGTH.size + _LENGTH.unpack_from(whole, start)[0]
            if end > size:
                break
            try:
                found.append(whole[start + _LENGTH.size : end].decode())
            except UnicodeDecodeError as err:
                raise BadRequestError(f"a string of input {shown(name)} is not UTF-8") from err
            start = end
    if len(found) != count or start != size:
        raise BadRequestError(
            f"input {shown(name)} is BYTES, but its {size} bytes are not {count} strings, each after its "
            "length in four bytes, little-endian"
        )
    return found
