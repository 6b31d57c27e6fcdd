"""Values of steps as bytes, and back.

The key of a step's result is made from the sha256 of its arguments, so equal values have equal bytes: in
every process, on every executor. Values that differ, or have other types, have other bytes. A container is a
fresh copy at each load, an array or a table a view that cannot be written to, so a step never changes what
another one reads.

What is kept how:

value
    None, numbers, texts, bytes, containers, dates, enums, dataclasses, named tuples, `msgspec.Struct`, arrays
    of numpy, parts of Arrow, and what pickle knows, as in `coding` and its neighbours.
arrow
    A table, a record batch, or a frame of pandas or polars: an Arrow IPC file, mapped when it is read.
file, folder
    The content that a `Path` leads to; a folder is a tar.

Loading makes objects of classes and reads pickles: only what noria itself has written may be loaded.
"""

import errno
import hashlib
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from noria.errors import DiskFull, StoreError, Unreadable, Unstorable
from noria.pipelines.values.classes import CLASS_DECODERS, resolve_class
from noria.pipelines.values.coding import (
    PLAIN_DECODERS,
    PLAIN_ENCODERS,
    Code,
    Codec,
    Decode,
    Encode,
    Refused,
)
from noria.pipelines.values.files import HashingSink, hash_file, is_folder, unpack_folder, write_folder
from noria.pipelines.values.pickling import MET
from noria.records import Version, sha256_hex

__all__ = ["Format", "Payload", "Unreadable", "Unstorable", "digest", "dump", "load", "summary"]

_MAX_SUMMARY = 60
_MAX_PLACE = 80


class Format(StrEnum):
    """How a value is kept."""

    VALUE = "value"
    ARROW = "arrow"
    FILE = "file"
    FOLDER = "folder"


_WITHOUT_CLASSES = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Payload:
    """A value as bytes."""

    format: Format
    sha256: str  # of the bytes
    size_bytes: int
    data: bytes | None  # of VALUE
    path: Path | None  # a file that holds the bytes of the others: in `scratch`, or the user's own for FILE
    # Not installed modules whose classes or functions it holds: what it does depends on their code as well.
    modules: tuple[str, ...] = ()


def dump(value: object, *, scratch: Path, where: str) -> Payload:
    """Write `value` as bytes.

    Parameters
    ----------
    value
        Anything of the kinds that this module names.
    scratch
        A folder for the files of tables and folders; the caller clears it away.
    where
        Names step and output, for messages.

    Raises
    ------
    Unstorable
        If something in `value` has no bytes.
    """
    try:
        match _format_of(value):
            case Format.VALUE:
                data, modules = _encoded(value)
                return Payload(Format.VALUE, sha256_hex(data), len(data), data, None, modules)
            case Format.FILE:
                assert isinstance(value, Path)
                sha256, size_bytes = hash_file(value)
                return Payload(Format.FILE, sha256, size_bytes, None, value)
            case kept:
                with _new_file(scratch, kept) as file:
                    sink = HashingSink(file)
                    _write(value, sink, kept)
                return Payload(kept, sink.sha256, sink.size_bytes, None, Path(file.name))
    except Refused as err:
        raise _told(err, where) from err.__cause__


def _encoded(value: object) -> tuple[bytes, tuple[str, ...]]:
    """Give the bytes of a value, and the modules whose classes it holds."""
    if type(value) in _WITHOUT_CLASSES:
        return b"".join(_CODEC.encode(value)), ()
    met: set[str] = set()
    token = MET.set(met)
    try:
        data = b"".join(_CODEC.encode(value))
    finally:
        MET.reset(token)
    return data, tuple(sorted(filter(_is_of_project, met))) if met else ()


@cache
def _is_of_project(module: str) -> bool:
    """Tell whether a module is none of those that the list of distributions covers."""
    if module.partition(".")[0] in sys.stdlib_module_names | {"noria"}:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.intersection(Path(file).parts)


def load(format: Format, source: bytes | Path, *, scratch: Path | None = None) -> Any:
    """Give the value of bytes that `dump` has written.

    Parameters
    ----------
    format
        Of the payload.
    source
        The bytes, or a file that holds them. A file is mapped where that is possible: it has to stay.
    scratch
        Where a folder is unpacked; other formats need none.

    Raises
    ------
    Unreadable
        If the bytes are damaged, or a class in them is no longer what it was.
    """
    if format is Format.VALUE:
        return _CODEC.decode(_map(source) if isinstance(source, Path) else source)
    if format is Format.ARROW:
        return _arrow().read_table(source)
    if not isinstance(source, Path):
        raise TypeError(f"a {format} is loaded from a file, not from {type(source).__name__}")
    if format is Format.FILE:
        return source
    if scratch is None:
        raise TypeError("a folder is unpacked when it is loaded: name the place with `scratch`")
    with _room_in(scratch):
        return unpack_folder(source, scratch)


def digest(value: object, *, scratch: Path, where: str) -> str:
    """Give the sha256 that `dump` would give, without writing a file. Raises `Unstorable`."""
    try:
        match _format_of(value):
            case Format.VALUE:
                sha256 = hashlib.sha256()
                for block in _CODEC.encode(value):
                    sha256.update(block)
                return sha256.hexdigest()
            case Format.FILE:
                assert isinstance(value, Path)
                return hash_file(value)[0]
            case kept:
                sink = HashingSink()
                _write(value, sink, kept)
                return sink.sha256
    except Refused as err:
        raise _told(err, where) from err.__cause__


def summary(value: object) -> str:
    """Describe `value` in at most 60 characters, for a plan or a screen; never with rows of a table.

    Examples
    --------
    >>> summary(3), summary("2013-01"), summary([1, 2])
    ('3', "'2013-01'", 'list of 2')
    """
    text = _describe(value)
    return text if len(text) <= _MAX_SUMMARY else text[: _MAX_SUMMARY - 1] + "…"


def _describe(value: object) -> str:  # noqa: PLR0911 - one line per family
    kind = type(value)
    match value:
        case Enum():
            return f"{kind.__name__}.{value.name}"
        case int() if value.bit_length() > 200:
            return f"int of {value.bit_length():,} bits"
        case str():
            return repr(value if len(value) <= _MAX_SUMMARY else value[:_MAX_SUMMARY])
        case None | int() | float() | complex():
            return repr(value)
        case bytes() | bytearray() | list() | tuple() | set() | frozenset() | dict() | range():
            return f"{kind.__name__} of {len(value):,}"
        case date() | time():
            return value.isoformat()
        case Path():
            return f"path {value.name!r}"
        case Version():
            return f"{value.kind} {value.ref}"
        case type():
            return f"class {value.__name__}"
        case FunctionType() | BuiltinFunctionType():
            return f"function {value.__name__}"
    return _describe_data(value, kind.__module__.partition(".")[0])


def _describe_data(value: Any, library: str) -> str:
    name, shape = type(value).__name__, getattr(value, "shape", ())
    match library, shape:
        case "pyarrow" | "pandas" | "polars", (rows, columns):
            return f"table of {rows:,} rows x {columns:,} columns"
        case "numpy", ():
            return f"{value!r}" if hasattr(value, "dtype") else name
        case "numpy", _:
            return f"{value.dtype} array of {' x '.join(f'{size:,}' for size in shape)}"
        case "pyarrow" | "pandas" | "polars", _ if hasattr(value, "__len__"):
            return f"{name} of {len(value):,}"
    return name


def _told(err: Refused, where: str) -> Unstorable:
    place = f"value{err.place}"
    if len(place) > _MAX_PLACE:
        place = f"{place[: _MAX_PLACE // 2]}…{place[-_MAX_PLACE // 2 :]}"
    return Unstorable(where, place, err.found, err.advice)


def _format_of(value: object) -> Format:
    kind = type(value)
    if kind in PLAIN_ENCODERS:
        return Format.VALUE
    if isinstance(value, Path):
        return Format.FOLDER if is_folder(value) else Format.FILE
    names = _TABLES.get(kind.__module__.partition(".")[0], ())
    return Format.ARROW if kind.__name__ in names else Format.VALUE


_TABLES = {
    "pyarrow": ("Table", "RecordBatch"),
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
}


def _write(value: Any, sink: HashingSink, kept: Format) -> None:
    if kept is Format.ARROW:
        _arrow().write_table(value, sink)
    else:
        write_folder(value, sink)


@contextmanager
def _new_file(scratch: Path, kept: Format) -> Iterator[Any]:
    """Give a new file; it goes again where writing it fails."""
    with (
        _room_in(scratch),
        tempfile.NamedTemporaryFile(prefix=f"{kept}_", dir=scratch, delete=False) as file,
    ):
        try:
            yield file
            file.flush()
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def _room_in(scratch: Path) -> Iterator[None]:
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as err:
        if err.errno in _NO_ROOM:
            raise DiskFull(str(scratch)) from err
        raise StoreError(f"{scratch} cannot be written to: {err}; name a folder that can") from err


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


# numpy and pyarrow are loaded when the first value of theirs is met, pandas and polars by those who use them.


def _arrays() -> ModuleType:
    from noria.pipelines.values import arrays

    return arrays


def _arrow() -> ModuleType:
    from noria.pipelines.values import arrow

    return arrow


def _resolve(kind: type) -> Encode:
    found = resolve_class(kind)
    libraries = {each.__module__.partition(".")[0] for each in kind.__mro__}
    if "numpy" in libraries:
        found = _arrays().resolve_numpy(kind, found)
    if "pyarrow" in libraries:
        found = _arrow().resolve_arrow(kind, found)
    if kind.__module__.partition(".")[0] in {"pandas", "polars"}:
        found = _arrow().resolve_frame(kind, found)
    return found


_LIBRARY_DECODERS: dict[int, Decode] = {
    Code.ARRAY: lambda reader, data: _arrays().read_array(reader, data),
    Code.OBJECTS: lambda reader, data: _arrays().read_objects(reader, data),
    Code.NUMPY_SCALAR: lambda reader, data: _arrays().read_scalar(reader, data),
    Code.DTYPE: lambda reader, data: _arrays().read_dtype(reader, data),
    Code.ARROW: lambda reader, data: _arrow().read_arrow(reader, data),
}
_CODEC = Codec(
    encoders=dict(PLAIN_ENCODERS),
    resolve=_resolve,
    decoders={**PLAIN_DECODERS, **CLASS_DECODERS, **_LIBRARY_DECODERS},
)
