"""Objects that only pickle knows, as bytes that are equal where the objects are.

A pickle depends on which of its equal texts, tuples and dtypes are one object, which differs between
processes, and on the order of sets. Here they are taken out of the pickle and numbered: what cannot change by
its value, arrays and sets by their identity. What stays with the class: the order of its attributes, sets of
objects, and whatever its `__getstate__` brings in (an address, an instant). Functions and classes are written
as their names.
"""

import io
import pickle
import sys
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from math import isnan
from types import FunctionType, ModuleType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import Ext

from noria.pipelines.values.coding import SCALARS, Code, Reader, Refused, Writer, pack

__all__ = ["MET", "name_met", "pickled", "read_pickle"]

# Modules of the classes and functions that a value is met to hold while it is written.
MET: ContextVar[set[str] | None] = ContextVar("noria_met_modules", default=None)

_BY_VALUE = frozenset(
    {bytes, complex, date, datetime, time, timedelta, timezone, Decimal, Fraction, UUID, ZoneInfo}
)
_SIMPLE = SCALARS | _BY_VALUE
_FIXED_DTYPES = "biufcmMSU"  # numpy's kinds whose elements have one size and hold no objects
_PICKLE_ERRORS = (
    pickle.PickleError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_MAX_SEARCH = 20  # levels


def pickled(writer: Writer, value: object) -> Any:
    """Write any object that pickle knows; raises `Refused` for others."""
    writer.enter(value)
    stream = io.BytesIO()
    pickler = _Pickler(stream, writer)
    try:
        pickler.dump(value)
    except Refused as err:
        err.parts.append(_find_culprit(value)[0])
        raise
    except _PICKLE_ERRORS as err:
        if not writer.careful and isinstance(err, OverflowError | UnicodeEncodeError):
            raise
        place, culprit = _find_culprit(value)
        refused = Refused(f"{_describe(culprit)} ({err})", _advise(culprit))
        refused.parts.append(place)
        raise refused from err
    writer.leave()
    return Ext(Code.PICKLE, pack([stream.getvalue(), pickler.table]))


def read_pickle(reader: Reader, data: memoryview) -> Any:
    """Make the object anew; arrays in it may be written to, as they belong to it alone."""
    stream, table = reader.value(data)
    try:
        made = _Unpickler(stream, table).load()
    except pickle.PickleError as err:
        raise ValueError(str(err)) from err
    if _is_array(made):  # one with a dtype that only pickle knows
        made.flags.writeable = False
    return made


def _is_array(value: object) -> bool:
    return "numpy" in sys.modules and type(value) is sys.modules["numpy"].ndarray


def name_met(named: type | FunctionType) -> None:
    """Note the module of a class or a function; raise `Refused` if other processes do not find it there."""
    met = MET.get()
    if met is not None:
        met.add(named.__module__)
    if named.__module__ in {"__main__", "__mp_main__"}:
        raise Refused(
            f"{named.__qualname__} of the program that was started, which other processes do not find",
            "define it in a module and import it from there",
        )
    if "<" in named.__qualname__:  # <lambda>, or <locals> of a function
        raise Refused(
            f"{named.__qualname__}, which has no name in {named.__module__} by which it is found",
            "define it with `def` or `class` at the top of the module",
        )


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, writer: Writer) -> None:
        super().__init__(stream, protocol=5)
        self.table: list[Any] = []  # trees
        self._writer = writer
        self._numbers: dict[str | bytes, int] = {}  # by text, or by bytes that tell the type as well
        self._numbers_by_id: dict[int, int] = {}
        self._kept: list[object] = []  # so that nothing else gets the id of what was seen

    def persistent_id(self, each: Any) -> int | None:
        """Number what is taken out of the pickle."""
        kind = type(each)
        if kind is str:
            number = self._numbers.get(each)
            return self._add(each, self._writer.tree(each)) if number is None else number
        if kind in _BY_VALUE or (kind is float and isnan(each)):
            return self._number_by_value(each)
        if kind is tuple or kind is frozenset:
            return self._number_by_value(each) if _is_simple(each) else None
        if kind is set:
            return self._number_by_identity(each) if _is_simple(each) else None
        if kind is FunctionType or isinstance(each, type):
            name_met(each)
            return None
        return self._number_of_numpy(each) if "numpy" in sys.modules else None

    def _number_of_numpy(self, each: Any) -> int | None:
        numpy = sys.modules["numpy"]
        if _is_array(each):
            return self._number_by_identity(each) if each.dtype.kind in _FIXED_DTYPES else None
        if isinstance(each, numpy.generic):
            each_dtype = each.dtype
        elif isinstance(each, numpy.dtype):
            each_dtype = each
        else:
            return None
        return self._number_by_value(each) if each_dtype.kind in _FIXED_DTYPES else None

    def _number_by_value(self, each: object) -> int:
        tree = self._writer.tree(each)
        key = pack(tree)
        number = self._numbers.get(key)
        return self._add(key, tree) if number is None else number

    def _number_by_identity(self, each: object) -> int:
        number = self._numbers_by_id.get(id(each))
        if number is None:
            number = self._numbers_by_id[id(each)] = len(self.table)
            self.table.append(self._writer.tree(each))
            self._kept.append(each)
        return number

    def _add(self, key: str | bytes, tree: object) -> int:
        number = self._numbers[key] = len(self.table)
        self.table.append(tree)
        return number


def _is_simple(items: Collection[object]) -> bool:
    """Tell whether it makes no difference if equal items are one object."""
    kinds = set(map(type, items))
    others = kinds - _SIMPLE
    if not others:
        return True
    if not all(issubclass(kind, Enum | tuple | frozenset) for kind in others):
        return False
    return all(_is_simple(each) for each in items if isinstance(each, tuple | frozenset))


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: bytes, table: list[Any]) -> None:
        super().__init__(io.BytesIO(stream))
        self._table = table

    def persistent_load(self, number: int) -> Any:
        """Give what was taken out."""
        found = self._table[number]
        if _is_array(found) and not found.flags.writeable:
            found = self._table[number] = found.copy(order="K")
        return found


def _find_culprit(value: object) -> tuple[str, object]:
    """Find what in `value` it is that pickle does not know, and where."""
    place = ""
    for _ in range(_MAX_SEARCH):
        for part, each in _parts_of(value):
            if not _has_pickle(each):
                place, value = place + part, each
                break
        else:
            break
    return place, value


def _parts_of(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", each) for key, each in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", each) for number, each in enumerate(value))
    elif isinstance(value, ModuleType):
        return
    yield from ((f".{name}", each) for name, each in getattr(value, "__dict__", {}).items())


def _has_pickle(value: object) -> bool:
    try:
        pickle.dumps(value, protocol=5)
    except _PICKLE_ERRORS:
        return False
    return True


def _describe(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"an object of type {name}"


def _advise(value: object) -> str:
    if hasattr(value, "__next__") and not hasattr(value, "read"):
        return "return a list of its items"
    if hasattr(value, "__arrow_c_stream__"):
        return "make a table of it: pyarrow.table(it)"
    return (
        "return plain values, arrays, tables, objects that pickle can write, or a file's Path; "
        "open connections, files and locks within the step that uses them"
    )
