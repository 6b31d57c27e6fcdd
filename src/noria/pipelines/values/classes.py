"""Objects by what they are made of: enums, named tuples, dataclasses and structs, any other by pickle.

A class is written as the module and the name under which it is found, so it has to stand in a module that
other processes can import.
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from enum import Enum, Flag
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

from noria.pipelines.values.coding import Code, Decode, Encode, Reader, Refused, Writer, pack
from noria.pipelines.values.pickling import name_met, pickled, read_pickle

__all__ = ["CLASS_DECODERS", "resolve_class"]

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_GETSTATES = {object.__getstate__, getattr(dataclasses, "_dataclass_getstate", None)}


def resolve_class(kind: type) -> Encode:  # noqa: PLR0911 - one line per family
    """Give the encoder of the objects of a class."""
    if issubclass(kind, Enum):
        return _flag if issubclass(kind, Flag) else _enum
    if issubclass(kind, msgspec.Struct):
        return _struct
    if issubclass(kind, tuple) and hasattr(kind, "_fields") and hasattr(kind, "_make"):
        return _named_tuple
    if dataclasses.is_dataclass(kind) and _is_its_fields(kind):
        return _dataclass
    if issubclass(kind, Path):
        return _path
    if kind is Fraction:
        return _fraction
    return _zone if kind is ZoneInfo else pickled


def _is_its_fields(kind: type) -> bool:
    """Tell whether the class is made by Python alone and leaves it to Python how it is copied."""
    return (
        all(each.__flags__ & _HEAP_TYPE for each in kind.__mro__[:-1])
        and all(getattr(kind, each) is getattr(object, each) for each in ("__reduce_ex__", "__reduce__"))
        and kind.__getstate__ in _GETSTATES
    )


def _name_of(kind: type) -> tuple[str, str]:
    name_met(kind)
    module, name = kind.__module__, kind.__qualname__
    try:
        found = _look_up(sys.modules[module], name)
    except (KeyError, AttributeError):
        found = None
    if found is not kind:
        raise Refused(
            f"an object of {name}, which is not the class of this name in {module}",
            "define it with `class` at the top of the module",
        )
    return module, name


def _look_up(place: Any, name: str) -> Any:
    for part in name.split("."):
        place = getattr(place, part)
    return place


def _class_of(module: str, name: str, base: type) -> Any:
    found = _look_up(importlib.import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"{module}.{name} is no longer a class of its kind")
    return found


def _path(_: Writer, value: Path) -> Any:
    raise Refused(
        f"the path {str(value)!r} within another value",
        "give the Path by itself, then the content of its file is kept; or its text, if the name is meant",
    )


def _enum(_: Writer, value: Enum) -> Any:
    return Ext(Code.ENUM, pack([*_name_of(type(value)), value.name]))


def _read_enum(reader: Reader, data: memoryview) -> Any:
    module, name, member = reader.value(data)
    return _class_of(module, name, Enum)[member]


def _flag(writer: Writer, value: Flag) -> Any:
    return Ext(Code.FLAG, pack([*_name_of(type(value)), writer.tree(value.value)]))


def _read_flag(reader: Reader, data: memoryview) -> Any:
    module, name, bits = reader.value(data)
    return _class_of(module, name, Flag)(bits)


def _named_tuple(writer: Writer, value: Any) -> Any:
    if getattr(value, "__dict__", None):
        return pickled(writer, value)
    items = writer.named(value, dict(zip(value._fields, value, strict=True)))
    return Ext(Code.NAMED_TUPLE, pack([*_name_of(type(value)), items]))


def _read_named_tuple(reader: Reader, data: memoryview) -> Any:
    module, name, items = reader.value(data)
    return _class_of(module, name, tuple)._make(items)


def _dataclass(writer: Writer, value: Any) -> Any:
    kind = type(value)
    names = [each.name for each in dataclasses.fields(kind)]
    others = getattr(value, "__dict__", {}).keys() - set(names)
    if any(not isinstance(getattr(kind, each, None), cached_property) for each in others):
        return pickled(writer, value)  # it has a state that its fields do not tell
    fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return Ext(Code.DATACLASS, pack([*_name_of(kind), list(fields), writer.named(value, fields)]))


def _read_dataclass(reader: Reader, data: memoryview) -> Any:
    module, name, names, values = reader.value(data)
    kind = _class_of(module, name, object)
    known = {each.name for each in dataclasses.fields(kind)}
    if unknown := [each for each in names if each not in known]:
        raise TypeError(f"{module}.{name} has no field {unknown[0]!r}")
    made = object.__new__(kind)  # like a copy: what __init__ and __post_init__ did is in the fields
    for each, value in zip(names, values, strict=True):
        object.__setattr__(made, each, value)
    return made


def _struct(writer: Writer, value: msgspec.Struct) -> Any:
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return Ext(Code.STRUCT, pack([*_name_of(type(value)), list(fields), writer.named(value, fields)]))


def _read_struct(reader: Reader, data: memoryview) -> Any:
    module, name, names, values = reader.value(data)
    return _class_of(module, name, msgspec.Struct)(**dict(zip(names, values, strict=True)))


def _fraction(writer: Writer, value: Fraction) -> Any:
    return Ext(Code.FRACTION, pack([writer.tree(value.numerator), writer.tree(value.denominator)]))


def _zone(_: Writer, value: ZoneInfo) -> Any:
    if value.key is None:
        raise Refused("a time zone without a name", "make it by its name, as ZoneInfo('Europe/Berlin')")
    return Ext(Code.ZONEINFO, value.key.encode())


CLASS_DECODERS: Mapping[int, Decode] = {
    Code.ENUM: _read_enum,
    Code.FLAG: _read_flag,
    Code.NAMED_TUPLE: _read_named_tuple,
    Code.DATACLASS: _read_dataclass,
    Code.STRUCT: _read_struct,
    Code.PICKLE: read_pickle,
    Code.FRACTION: lambda reader, data: Fraction(*reader.value(data)),
    Code.ZONEINFO: lambda _, data: ZoneInfo(str(data, "utf-8")),
}
