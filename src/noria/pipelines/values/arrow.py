"""Tables as Arrow IPC files that are equal where the tables are, and back without a copy.

Two equal tables may differ in their chunks, in offsets of slices, in what lies under a null, in the payload
of a NaN and in the last bits of a bitmap. A file holds none of that: it has batches of `BATCH_ROWS` rows,
each column in one piece, zeros under nulls. Dictionaries are kept as they are, since their order can be seen;
those of several chunks are made one. Unions are written as they are.

A frame of pandas or polars is the same file with a word in its metadata about what it was.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.msgpack import Ext
from pyarrow import types

from noria.errors import Unreadable
from noria.pipelines.values.coding import Code, Encode, Reader, Refused, Writer, pack

__all__ = ["read_arrow", "read_table", "resolve_arrow", "resolve_frame", "write_table"]

BATCH_ROWS = 65_536
_KIND = b"noria.kind"
_OPTIONS = pa.ipc.IpcWriteOptions(compression=None, emit_dictionary_deltas=False)


def resolve_arrow(kind: type, otherwise: Encode) -> Encode:
    """Give the encoder of a type of pyarrow."""
    known = (pa.Table, pa.RecordBatch, pa.ChunkedArray, pa.Array, pa.Scalar, pa.Schema, pa.Field, pa.DataType)
    return _within if issubclass(kind, known) else otherwise


def resolve_frame(kind: type, otherwise: Encode) -> Encode:
    """Give the encoder of a type of pandas or polars."""
    if kind.__name__ == "LazyFrame":
        return _lazy
    return _within if kind.__name__ in {"DataFrame", "Series"} else otherwise


def _within(writer: Writer, value: Any) -> Any:
    sink = pa.BufferOutputStream()
    _write(value, sink)
    return Ext(Code.ARROW, pack(writer.buffer(memoryview(sink.getvalue()))))


def _lazy(_: Writer, value: Any) -> Any:
    raise Refused("a LazyFrame, whose rows may be others when it is read", "return what its collect() gives")


def read_arrow(reader: Reader, data: memoryview) -> Any:
    """Give what was within another value."""
    content = reader.buffers[reader.value(data)]
    try:
        return _restore(pa.py_buffer(content))
    except (pa.ArrowException, OSError) as err:
        raise ValueError(str(err)) from err


def write_table(value: Any, sink: BinaryIO) -> None:
    """Write a table, a batch or a frame, batch by batch. Raises `Refused`."""
    with pa.PythonFile(sink, mode="w") as file:
        _write(value, file)


def read_table(source: Path | bytes) -> Any:
    """Give back what `write_table` was given. A file is mapped, not read. Raises `Unreadable`."""
    content = pa.memory_map(str(source)) if isinstance(source, Path) else pa.py_buffer(source)
    try:
        return _restore(content)
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as err:
        raise Unreadable("a table", str(err)) from err


@dataclass(frozen=True, slots=True)
class _Shape:
    """A value as a table."""

    kind: str  # "" of a table itself
    table: pa.Table
    batch_rows: int


def _write(value: Any, sink: Any) -> None:
    try:
        shape = _shape_of(value)
        schema = _schema_of(shape)
        with pa.ipc.new_file(sink, schema, options=_OPTIONS) as writer:
            for batch in _batches(shape.table.unify_dictionaries(), schema, shape.batch_rows):
                writer.write_batch(batch)
    except pa.ArrowException as err:
        raise Refused(
            f"a {type(value).__name__} that Arrow cannot write ({err})", "change its types"
        ) from err


def _shape_of(value: Any) -> _Shape:  # noqa: PLR0911 - one line per type
    match value:
        case pa.Table():
            return _Shape("", value, BATCH_ROWS)
        case pa.RecordBatch():
            return _Shape("record_batch", pa.Table.from_batches([value]), max(value.num_rows, 1))
        case pa.ChunkedArray():
            return _Shape("chunked_array", pa.table([value], names=[""]), BATCH_ROWS)
        case pa.Array():
            return _Shape("array", pa.table([value], names=[""]), max(len(value), 1))
        case pa.Scalar():
            column = pa.array([value], value.type) if value.is_valid else pa.nulls(1, value.type)
            return _Shape("scalar", pa.table([column], names=[""]), 1)
        case pa.Schema():
            return _Shape("schema", value.empty_table(), 1)
        case pa.Field():
            return _Shape("field", pa.schema([value]).empty_table(), 1)
        case pa.DataType():
            return _Shape("type", pa.schema([pa.field("", value)]).empty_table(), 1)
    is_frame = type(value).__name__ == "DataFrame"
    if _library(type(value)) == "polars":
        table = _from_polars(value if is_frame else value.to_frame())
        return _Shape("polars" if is_frame else "polars.series", table, BATCH_ROWS)
    table = _from_pandas(value if is_frame else value.to_frame())
    kind = "pandas" if is_frame else "pandas.unnamed" if value.name is None else "pandas.series"
    return _Shape(kind, table, BATCH_ROWS)


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _from_pandas(frame: Any) -> pa.Table:
    if len({type(name) for name in frame.columns}) > 1:
        raise Refused("a pandas frame whose columns have names of several types", "name the columns by texts")
    try:
        table = pa.Table.from_pandas(frame)
    except (pa.ArrowException, TypeError, ValueError) as err:
        raise Refused(f"a pandas frame that Arrow cannot hold ({err})", "give each column one type") from err
    back = table.slice(0, 0).to_pandas()
    for name, was, comes, kind in zip(
        frame.columns, frame.dtypes, back.dtypes, table.schema.types, strict=False
    ):
        column = f"a pandas frame whose column {name!r}"
        if was != comes:
            raise Refused(f"{column} is {was} and would come back as {comes}", "use astype() on the column")
        if str(was) == "object" and types.is_nested(kind):
            raise Refused(f"{column} holds lists or dicts", "return a pyarrow table, which knows their types")
    return table


def _from_polars(frame: Any) -> pa.Table:
    polars = sys.modules["polars"]
    if unknown := [name for name, dtype in frame.schema.items() if dtype == polars.Object]:
        raise Refused(f"a polars frame whose column {unknown[0]!r} holds objects", "give it another type")
    table = frame.to_arrow(compat_level=polars.CompatLevel.oldest())
    for name, comes in polars.from_arrow(table.slice(0, 0)).schema.items():
        if frame.schema[name] != comes:
            raise Refused(
                f"a polars frame whose column {name!r} is {frame.schema[name]}, would come back as {comes}",
                "cast the column",
            )
    return table


def _schema_of(shape: _Shape) -> pa.Schema:
    schema = shape.table.schema
    fields = [each.with_metadata(_sorted(each.metadata)) for each in schema]
    kind = {_KIND: shape.kind.encode()} if shape.kind else {}
    return pa.schema(fields, metadata=_sorted({**(schema.metadata or {}), **kind}))


def _sorted(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    return dict(sorted(metadata.items())) if metadata else None


def _batches(table: pa.Table, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    if not schema:
        yield pa.RecordBatch.from_struct_array(
            pa.Array.from_buffers(pa.struct([]), table.num_rows, [None])
        ).replace_schema_metadata(schema.metadata)
        return
    for start in range(0, max(table.num_rows, 1), rows):
        piece = table.slice(start, rows).combine_chunks()
        if rows > 1 and any(each.num_chunks > 1 for each in piece.columns):  # texts of more than 2 GiB
            yield from _batches(piece, schema, rows // 2)
            continue
        columns = [each.chunk(0) if each.num_chunks else pa.array([], each.type) for each in piece.columns]
        yield pa.RecordBatch.from_arrays([_clean(each) for each in columns], schema=schema)


def _restore(source: Any) -> Any:  # noqa: PLR0911 - one line per type
    reader = pa.ipc.open_file(source)
    table = reader.read_all()
    table.validate()
    metadata = dict(table.schema.metadata or {})
    kind = metadata.pop(_KIND, b"").decode()
    if not kind:
        return table
    table = table.replace_schema_metadata(metadata or None)
    match kind:
        case "record_batch":
            return reader.get_batch(0).replace_schema_metadata(metadata or None)
        case "chunked_array":
            return table.column(0)
        case "array":
            return reader.get_batch(0).column(0)
        case "scalar":
            return table.column(0)[0]
        case "schema":
            return table.schema
        case "field":
            return table.schema.field(0)
        case "type":
            return table.schema.field(0).type
        case "polars" | "polars.series":
            frame = import_module("polars").from_arrow(table)
            return frame if kind == "polars" else frame.to_series()
        case "pandas" | "pandas.series" | "pandas.unnamed":
            frame = table.to_pandas()
            series = frame if kind == "pandas" else frame.iloc[:, 0]
            return series.rename(None) if kind == "pandas.unnamed" else series
    raise ValueError(f"it holds a {kind!r}, which is not known")


def _clean(array: pa.Array) -> pa.Array:  # noqa: PLR0911 - one line per family
    """Give an equal array with nothing in its buffers but the values.

    Each buffer gets its exact size: of a longer one, the writer of the file takes some bytes too many.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(_clean(array.storage))
    if types.is_dictionary(kind):
        indices, dictionary = _clean(array.indices), _clean(array.dictionary)
        return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=kind.ordered, safe=False)
    if types.is_struct(kind):  # flatten() makes null what lies under a null
        return _build(array, [], [_clean(each) for each in array.flatten()])
    if types.is_fixed_size_list(kind):
        return _clean_fixed_lists(array)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        return _clean_lists(array)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return _clean_list_views(array)
    if types.is_run_end_encoded(kind):
        return pc.run_end_encode(_clean(pc.run_end_decode(array)), run_end_type=kind.run_end_type)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        text = pa.large_string() if types.is_string_view(kind) else pa.large_binary()
        return _clean(array.cast(text)).cast(kind)
    if types.is_union(kind) or types.is_null(kind):
        return array
    if not len(array):
        return pa.array([], kind)
    if types.is_boolean(kind):
        return _build(array, [_bitmap(_bits(array.buffers()[1], array) & _valid(array))])
    return _clean_texts(array) if kind in _OFFSETS else _clean_fixed_width(array)


_OFFSETS = {
    pa.string(): np.int32,
    pa.binary(): np.int32,
    pa.large_string(): np.int64,
    pa.large_binary(): np.int64,
}


def _build(array: pa.Array, buffers: list[Any], children: list[pa.Array] | None = None) -> pa.Array:
    """Make an array of the type, length and nulls of `array`, from buffers without an offset."""
    validity = _bitmap(_valid(array)) if array.null_count else None
    return pa.Array.from_buffers(
        array.type, len(array), [validity, *buffers], array.null_count, 0, children=children
    )


def _bits(buffer: pa.Buffer, array: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=array.offset + len(array), bitorder="little")
    return bits[array.offset :].view(np.bool_)


def _valid(array: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    return _bits(array.buffers()[0], array)


def _bitmap(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(bits, bitorder="little"))


def _clean_texts(array: pa.Array) -> pa.Array:
    if array.null_count:
        filled = array.fill_null(
            "" if types.is_string(array.type) or types.is_large_string(array.type) else b""
        )
    else:
        filled = array
    _, offsets, data = filled.buffers()
    ends = np.frombuffer(offsets, _OFFSETS[array.type])[filled.offset :][: len(array) + 1]
    size = int(ends[-1] - ends[0])
    content = data.slice(int(ends[0]), size) if size else pa.py_buffer(b"")
    return _build(array, [pa.py_buffer(ends - ends[0]), content])


def _clean_fixed_width(array: pa.Array) -> pa.Array:
    width = array.type.bit_width // 8
    content = array.buffers()[1].slice(array.offset * width, len(array) * width)
    data = np.frombuffer(content, np.uint8)
    if types.is_floating(array.type):
        missing = np.isnan(data.view(np.dtype(f"f{width}")))
        if missing.any():
            data = data.copy()
            data.view(np.dtype(f"f{width}"))[missing] = np.nan
    if array.null_count:
        data = data.copy()
        data.view(np.dtype((np.void, width)))[~_valid(array)] = bytes(width)
    return _build(array, [pa.py_buffer(data)])


def _clean_fixed_lists(array: pa.Array) -> pa.Array:
    size = array.type.list_size
    values = array.values.slice(array.offset * size, len(array) * size)
    if array.null_count:
        kept = np.repeat(_valid(array), size)
        values = values.take(pa.array(np.arange(len(values)), mask=~kept))
    return _build(array, [], [_clean(values)])


def _clean_lists(array: pa.Array) -> pa.Array:
    offsets = array.offsets.to_numpy() if len(array) else np.zeros(1, np.int32)
    if types.is_large_list(array.type):
        offsets = offsets.astype(np.int64)
    sizes = np.where(_valid(array), np.diff(offsets), 0)
    ends, values = _compact(array.values, offsets[:-1], sizes)
    return _build(array, [pa.py_buffer(ends.astype(offsets.dtype))], [_clean(values)])


def _clean_list_views(array: pa.Array) -> pa.Array:
    dtype = np.int64 if types.is_large_list_view(array.type) else np.int32
    sizes = np.where(_valid(array), array.sizes.to_numpy(), 0).astype(dtype)
    ends, values = _compact(array.values, array.offsets.to_numpy(), sizes)
    buffers = [pa.py_buffer(each) for each in (ends[:-1].astype(dtype), sizes)]
    return _build(array, buffers, [_clean(values)])


def _compact(values: pa.Array, starts: Any, sizes: Any) -> tuple[Any, pa.Array]:
    """Put the items of lists one after the other, without what belongs to none; give where they end."""
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    used = np.flatnonzero(sizes)
    if not len(used):
        return ends, values.slice(0, 0)
    moves = starts - ends[:-1]
    first = moves[used[0]]
    if (moves[used] == first).all():
        return ends, values.slice(int(first), int(ends[-1]))
    return ends, values.take(pa.array(np.repeat(moves, sizes) + np.arange(ends[-1])))
