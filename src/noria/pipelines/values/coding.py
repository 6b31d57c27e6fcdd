"""The format of a value's bytes, and how what Python itself brings is written in it.

All numbers are little-endian::

    version   u8       1
    crc32     u32      of the lengths and the body
    buffers   u32      how many
    lengths   u64 ...  of the body, then of each buffer
    body               msgpack; what msgpack does not know is an extension with a number of `Code`
    buffers            each at a multiple of 64: the content of arrays and tables, which is read in place

A value is written in one way only: containers of plain scalars go to msgspec as they are, which is quick,
and come out as they would item by item.
"""

import operator
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import isnan
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from noria.errors import Unreadable

__all__ = [
    "PLAIN_DECODERS",
    "PLAIN_ENCODERS",
    "SCALARS",
    "Code",
    "Codec",
    "Decode",
    "Encode",
    "Reader",
    "Refused",
    "Writer",
    "pack",
]

pack = msgspec.msgpack.encode

VERSION = 1
MAX_DEPTH = 100  # of containers; the interpreter allows about 1,000 calls within each other
SCALARS = frozenset({NoneType, bool, int, float, str, bytes})
_HEAD = struct.Struct("<BII")
_LENGTH = struct.Struct("<Q")
_COMPLEX = struct.Struct("<dd")
_ALIGNMENT = 64
_NAN = float("nan")


class Code:
    """The numbers of the extensions. They are on disks: a number is never given to another thing."""

    TUPLE: Final = 1
    SET: Final = 2
    FROZENSET: Final = 3
    DICT: Final = 4  # one with keys that are not plain scalars
    INT: Final = 5  # beyond 64 bits
    NAN: Final = 6
    STR: Final = 7  # one with lone surrogates
    COMPLEX: Final = 8
    BYTEARRAY: Final = 9
    DATETIME: Final = 10
    DATE: Final = 11
    TIME: Final = 12
    TIMEDELTA: Final = 13
    TIMEZONE: Final = 14
    ZONEINFO: Final = 15
    DECIMAL: Final = 16
    FRACTION: Final = 17
    UUID: Final = 18
    RANGE: Final = 19
    SLICE: Final = 20
    ENUM: Final = 30
    FLAG: Final = 31
    NAMED_TUPLE: Final = 32
    DATACLASS: Final = 33
    STRUCT: Final = 34
    PICKLE: Final = 35
    ARRAY: Final = 40
    OBJECTS: Final = 41  # an array of Python objects
    NUMPY_SCALAR: Final = 42
    DTYPE: Final = 43
    ARROW: Final = 50


class Refused(Exception):
    """Something in a value has no bytes. It is told on the way out where that is."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found, self.advice = found, advice
        self.parts: list[str] = []  # innermost first

    @property
    def place(self) -> str:
        """Where inside of the value it is, as Python writes it: `['a'][3]`."""
        return "".join(reversed(self.parts))


Encode = Callable[["Writer", Any], Any]
Decode = Callable[["Reader", memoryview], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """What is known about types.

    Parameters
    ----------
    encoders
        By exact type; what `resolve` finds is added.
    resolve
        Gives the encoder of any other type.
    decoders
        By `Code`.
    """

    encoders: dict[type, Encode]
    resolve: Callable[[type], Encode]
    decoders: Mapping[int, Decode] = field(repr=False)

    def encode(self, value: object) -> list[bytes | memoryview]:
        """Give the bytes of `value` in pieces, to be hashed or joined. Raises `Refused`."""
        try:
            return self._encode(value, careful=False)
        except (OverflowError, UnicodeEncodeError):  # an int or a text that msgpack does not know
            return self._encode(value, careful=True)
        except RecursionError as err:
            raise Refused("nested too deeply", _FLATTEN) from err

    def _encode(self, value: object, *, careful: bool) -> list[bytes | memoryview]:
        writer = Writer(self, careful=careful)
        try:
            body = pack(writer.tree(value))
        except msgspec.EncodeError as err:
            raise Refused("of 4 GiB or more", "write it to a file and return its Path") from err
        lengths = _lengths(1 + len(writer.buffers)).pack(len(body), *map(len, writer.buffers))
        checksum = zlib.crc32(body, zlib.crc32(lengths))
        blocks: list[bytes | memoryview] = [_HEAD.pack(VERSION, checksum, len(writer.buffers)), lengths, body]
        if not writer.buffers:
            return blocks
        end = _HEAD.size + len(lengths) + len(body)
        for buffer in writer.buffers:
            blocks += [bytes(-end % _ALIGNMENT), buffer]
            end += -end % _ALIGNMENT + len(buffer)
        return blocks

    def decode(self, data: bytes | memoryview) -> Any:
        """Make the value anew; arrays in it are read-only views of `data`. Raises `Unreadable`."""
        try:
            body, buffers = _split(memoryview(data).toreadonly())
            return Reader(self.decoders, buffers).value(body)
        except READ_ERRORS as err:
            raise Unreadable("a value", f"{type(err).__name__}: {err}") from err


# What decoding of damaged bytes, or by changed classes, ends in.
READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    Warning,
    msgspec.MsgspecError,
    struct.error,
)
_FLATTEN = f"return something flatter: at most {MAX_DEPTH} containers may be within each other"


def _lengths(count: int) -> struct.Struct:
    return _LENGTH if count == 1 else struct.Struct(f"<{count}Q")


def _split(data: memoryview) -> tuple[memoryview, list[memoryview]]:
    if len(data) < _HEAD.size:
        raise ValueError(f"it has {len(data)} bytes, too few for a value")
    version, checksum, count = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"its format is {version}, known is {VERSION}")
    start = _HEAD.size + 8 * (1 + count)
    if len(data) < start:
        raise ValueError("it is cut off")
    length, *sizes = _lengths(1 + count).unpack_from(data, _HEAD.size)
    end = start + length
    if zlib.crc32(data[_HEAD.size : end]) != checksum:
        raise ValueError("its checksum does not match")
    body, buffers = data[start:end], []
    for size in sizes:
        start = end + -end % _ALIGNMENT
        end = start + size
        buffers.append(data[start:end])
    if end != len(data):
        raise ValueError(f"it has {len(data)} bytes, wanted are {end}")
    return body, buffers


class Writer:
    """One value on its way to bytes."""

    __slots__ = ("_codec", "_open", "buffers", "careful")

    def __init__(self, codec: Codec, *, careful: bool) -> None:
        self.careful = careful  # look at each int and text, for some are unknown to msgpack
        self.buffers: list[memoryview] = []
        self._codec = codec
        self._open: list[object] = []

    def tree(self, value: object) -> Any:
        """Give what msgpack encodes in place of `value`."""
        kind = type(value)
        encode = self._codec.encoders.get(kind)
        if encode is None:
            encode = self._codec.encoders[kind] = self._codec.resolve(kind)
        return encode(self, value)

    def enter(self, container: object) -> None:
        """Begin with the items of a container; raises `Refused` where that would never end."""
        self._open.append(container)
        if len(self._open) > MAX_DEPTH:
            if len({id(each) for each in self._open}) < len(self._open):
                raise Refused(f"a {type(container).__name__} that contains itself", "break the circle")
            raise Refused(f"nested deeper than {MAX_DEPTH} containers", _FLATTEN)

    def leave(self) -> None:
        """End with the container that was entered last."""
        self._open.pop()

    def items(self, container: object, items: Iterable[object]) -> list[Any]:
        """Give the trees of a container's items in their order."""
        self.enter(container)
        trees: list[Any] = []
        try:
            for each in items:
                trees.append(self.tree(each))
        except Refused as err:
            err.parts.append(f"[{len(trees)}]")
            raise
        self.leave()
        return trees

    def named(self, container: object, items: Mapping[str, object]) -> list[Any]:
        """Give the trees of an object's attributes."""
        self.enter(container)
        trees: list[Any] = []
        try:
            for each in items.values():
                trees.append(self.tree(each))
        except Refused as err:
            err.parts.append(f".{list(items)[len(trees)]}")
            raise
        self.leave()
        return trees

    def sequence(self, value: Collection[object]) -> Any:
        """Give `value` itself where msgpack knows all of its items, else their trees."""
        return value if not self.careful and are_plain(value) else self.items(value, value)

    def unordered(self, value: Collection[object]) -> list[Any]:
        """Give the trees of a set's items, sorted by their bytes: its own order changes with each process."""
        if not self.careful and are_plain(value):
            return [msgspec.Raw(each) for each in sorted(map(pack, value))]
        before = len(self.buffers)
        encoded = sorted(map(pack, self.items(value, value)))
        if len(self.buffers) > before:
            raise Refused("a set with arrays inside", "return a list in an order of your own")
        return [msgspec.Raw(each) for each in encoded]

    def buffer(self, content: memoryview) -> int:
        """Keep content beside the body; give its number."""
        self.buffers.append(content)
        return len(self.buffers) - 1


class Reader:
    """Bytes on their way to a value."""

    __slots__ = ("_decoders", "_unpack", "buffers")

    def __init__(self, decoders: Mapping[int, Decode], buffers: list[memoryview]) -> None:
        self._decoders = decoders
        self._unpack = msgspec.msgpack.Decoder(ext_hook=self._extension).decode
        self.buffers = buffers

    def value(self, data: memoryview) -> Any:
        """Read what was packed."""
        return self._unpack(data)

    def _extension(self, code: int, data: memoryview) -> Any:
        return self._decoders[code](self, data)


def are_plain(values: Collection[object]) -> bool:
    """Tell whether msgpack knows all the items, but for the size of ints and the surrogates of texts."""
    types = set(map(type, values))
    return types <= SCALARS and not (float in types and any(map(operator.ne, values, values)))


def _itself(_: Writer, value: object) -> object:
    return value


def _int(writer: Writer, value: int) -> Any:
    if not writer.careful or -(1 << 63) <= value < 1 << 64:
        return value
    return Ext(Code.INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _float(_: Writer, value: float) -> Any:
    return Ext(Code.NAN, b"") if isnan(value) else value


def _str(writer: Writer, value: str) -> Any:
    if not writer.careful:
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(Code.STR, value.encode("utf-8", "surrogatepass"))
    return value


def _complex(_: Writer, value: complex) -> Any:
    return Ext(
        Code.COMPLEX, _COMPLEX.pack(*(_NAN if isnan(each) else each for each in (value.real, value.imag)))
    )


def _list(writer: Writer, value: list[object]) -> Any:
    return writer.sequence(value)


def _tuple(writer: Writer, value: tuple[object, ...]) -> Any:
    return Ext(Code.TUPLE, pack(writer.sequence(value)))


def _set(writer: Writer, value: set[object]) -> Any:
    return Ext(Code.SET, pack(writer.unordered(value)))


def _frozenset(writer: Writer, value: frozenset[object]) -> Any:
    return Ext(Code.FROZENSET, pack(writer.unordered(value)))


def _dict(writer: Writer, value: dict[object, object]) -> Any:
    plain_keys = not writer.careful and are_plain(value)
    if plain_keys and are_plain(value.values()):
        return value
    writer.enter(value)
    keys = list(value) if plain_keys else [writer.tree(key) for key in value]
    trees: list[Any] = []
    try:
        for each in value.values():
            trees.append(writer.tree(each))
    except Refused as err:
        name = repr(list(value)[len(trees)])
        err.parts.append(f"[{name if len(name) <= 40 else name[:39] + '…'}]")
        raise
    writer.leave()
    if all(type(key) in SCALARS for key in keys):
        return dict(zip(keys, trees, strict=True))
    pairs = [each for pair in zip(keys, trees, strict=True) for each in pair]
    return Ext(Code.DICT, pack(pairs))


def _datetime(writer: Writer, value: datetime) -> Any:
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Ext(Code.DATETIME, pack([*day, *clock, writer.tree(value.tzinfo)]))


def _time(writer: Writer, value: time) -> Any:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Ext(Code.TIME, pack([*clock, writer.tree(value.tzinfo)]))


def _timezone(_: Writer, value: timezone) -> Any:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
    return Ext(Code.TIMEZONE, pack([offset.days, offset.seconds, offset.microseconds, *name]))


def _range(writer: Writer, value: range) -> Any:
    return Ext(Code.RANGE, pack(writer.items(value, (value.start, value.stop, value.step))))


def _slice(writer: Writer, value: slice) -> Any:
    return Ext(Code.SLICE, pack(writer.items(value, (value.start, value.stop, value.step))))


PLAIN_ENCODERS: Mapping[type, Encode] = {
    NoneType: _itself,
    bool: _itself,
    bytes: _itself,
    int: _int,
    float: _float,
    str: _str,
    complex: _complex,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _frozenset,
    dict: _dict,
    bytearray: lambda _, value: Ext(Code.BYTEARRAY, bytes(value)),
    datetime: _datetime,
    date: lambda _, value: Ext(Code.DATE, pack(value.toordinal())),
    time: _time,
    timedelta: lambda _, value: Ext(Code.TIMEDELTA, pack([value.days, value.seconds, value.microseconds])),
    timezone: _timezone,
    Decimal: lambda _, value: Ext(Code.DECIMAL, str(value).encode()),
    UUID: lambda _, value: Ext(Code.UUID, value.bytes),
    range: _range,
    slice: _slice,
}


def _read_dict(reader: Reader, data: memoryview) -> dict[Any, Any]:
    items = iter(reader.value(data))
    return dict(zip(items, items, strict=True))


def _read_datetime(reader: Reader, data: memoryview) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = reader.value(data)
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _read_time(reader: Reader, data: memoryview) -> time:
    hour, minute, second, microsecond, fold, zone = reader.value(data)
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _read_timezone(reader: Reader, data: memoryview) -> timezone:
    days, seconds, microseconds, *name = reader.value(data)
    return timezone(timedelta(days, seconds, microseconds), *name)


PLAIN_DECODERS: Mapping[int, Decode] = {
    Code.TUPLE: lambda reader, data: tuple(reader.value(data)),
    Code.SET: lambda reader, data: set(reader.value(data)),
    Code.FROZENSET: lambda reader, data: frozenset(reader.value(data)),
    Code.DICT: _read_dict,
    Code.INT: lambda _, data: int.from_bytes(data, "little", signed=True),
    Code.NAN: lambda _, __: _NAN,
    Code.STR: lambda _, data: str(data, "utf-8", "surrogatepass"),
    Code.COMPLEX: lambda _, data: complex(*_COMPLEX.unpack(data)),
    Code.BYTEARRAY: lambda _, data: bytearray(data),
    Code.DATETIME: _read_datetime,
    Code.DATE: lambda reader, data: date.fromordinal(reader.value(data)),
    Code.TIME: _read_time,
    Code.TIMEDELTA: lambda reader, data: timedelta(*reader.value(data)),
    Code.TIMEZONE: _read_timezone,
    Code.DECIMAL: lambda _, data: Decimal(str(data, "ascii")),
    Code.UUID: lambda _, data: UUID(bytes=bytes(data)),
    Code.RANGE: lambda reader, data: range(*reader.value(data)),
    Code.SLICE: lambda reader, data: slice(*reader.value(data)),
}
