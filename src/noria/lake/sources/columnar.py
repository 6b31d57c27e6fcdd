"""Rows that have types already: Parquet, Arrow's files and streams, and frames."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.checks.verdicts import row_json
from noria.errors import SourceError
from noria.lake.reading import Reading
from noria.lake.schema import beyond_calendar
from noria.lake.sources.contract import Piece, broken, require
from noria.lake.sources.delimited import checked_names
from noria.lake.sources.files import SourceFile
from noria.lake.sources.standing import Standing
from noria.lake.sources.texts import Column, apart, salvage

__all__ = ["ArrowRows", "FrameRows", "ParquetRows", "frame_digest"]

_ROWS = 65_536
_MAGIC = b"ARROW1"


class ParquetRows:
    """Rows of a Parquet file; see `noria.lake.sources.contract.Source`."""

    def __init__(self, file: SourceFile, reading: Reading) -> None:
        self._file = file
        self.name = file.name
        self.size_bytes: int | None = file.size_bytes
        self.bytes_read = 0
        self._standing = Standing("row")

    def where(self, place: int) -> str | None:
        """Say which row of the file, counted from 1, something is that was given."""
        return self._standing.find(place)

    @property
    def digest(self) -> str | None:
        """The sha256 of the file."""
        return self._file.digest

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows, at most 65,536 at a time."""
        with (
            self._file.held() as path,
            _as_damage(self._file, "Parquet file"),
            pq.ParquetFile(
                path, buffer_size=1 << 20, pre_buffer=False, read_dictionary=_kept_packed(self._file)
            ) as opened,
        ):
            total = max(opened.metadata.num_rows, 1)
            seen = 0
            for batch in _bounded(opened.iter_batches(_ROWS), self._file):
                yield from _fitting(batch, wanted, self.name, seen, self._standing)
                seen += batch.num_rows
                self.bytes_read = self._file.size_bytes * seen // total


class ArrowRows:
    """Rows of an Arrow IPC file or stream; see `noria.lake.sources.contract.Source`."""

    def __init__(self, file: SourceFile, reading: Reading) -> None:
        self._file = file
        self.name = file.name
        self.size_bytes: int | None = file.size_bytes
        self.bytes_read = 0
        self._standing = Standing("row")

    def where(self, place: int) -> str | None:
        """Say which row of the file, counted from 1, something is that was given."""
        return self._standing.find(place)

    @property
    def digest(self) -> str | None:
        """The sha256 of the file."""
        return self._file.digest

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows of each record batch."""
        with self._file.held() as path, _as_damage(self._file, "Arrow file"), pa.OSFile(str(path)) as file:
            seen = 0
            for batch in _bounded(_batches(file, self._file.head), self._file):
                yield from _fitting(batch, wanted, self.name, seen, self._standing)
                seen += batch.num_rows
                self.bytes_read = file.tell()
            self.bytes_read = self._file.size_bytes


class FrameRows:
    """Rows of anything that speaks the Arrow PyCapsule interface; see `Source`.

    Parameters
    ----------
    frame
        Is read once.
    digest
        Of its rows, where it is known.
    """

    def __init__(self, frame: Any, *, name: str, digest: str | None = None) -> None:
        self._frame = frame
        self.name = name
        self.size_bytes: int | None = getattr(frame, "nbytes", None)
        self.bytes_read = 0
        self.digest = digest

    def pieces(self, wanted: pa.Schema | None) -> Iterator[Piece]:
        """Give the rows, at most 65,536 at a time."""
        seen = 0
        for batch in pa.RecordBatchReader.from_stream(self._frame):
            for begin in range(0, batch.num_rows, _ROWS):
                part = batch.slice(begin, _ROWS)
                yield from _fitting(part, wanted, self.name, seen, None)
                seen += part.num_rows
                self.bytes_read += part.nbytes

    def where(self, place: int) -> str | None:
        """Rows of a frame have no number."""
        return None


def frame_digest(table: pa.Table) -> str:
    """Give the sha256 over columns, types and rows, however the rows are held in memory."""
    digest = hashlib.sha256()
    for field in table.schema:
        digest.update(f"{field.name}\0{field.type}\0".encode())
    plain = [_without_views(each) for each in table.columns]
    whole = pa.table(plain, names=table.column_names).combine_chunks()
    sink = _Digesting(digest)
    with (
        pa.PythonFile(sink, mode="w") as file,
        pa.ipc.new_stream(file, whole.schema) as out,
    ):
        for begin in range(0, whole.num_rows, _ROWS):
            # taken apart and put together: offsets into shared buffers are no part of the content
            out.write_table(
                pa.concat_tables(
                    [whole.slice(begin, _ROWS).take(np.arange(min(_ROWS, whole.num_rows - begin)))]
                )
            )
    return digest.hexdigest()


class _Digesting:
    """A file that keeps nothing but the digest of what is written to it."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


def _kept_packed(file: SourceFile) -> list[str] | None:
    """Give the columns whose values are unpacked only once their size is known: texts that are listed once.

    Raises `TooLarge` if the file itself says that it has more bytes than it may.
    """
    if file.most_bytes is None:
        return None
    told = pq.read_metadata(file.path)
    file.bound(sum(told.row_group(place).total_byte_size for place in range(told.num_row_groups)))
    columns = (told.schema.column(place) for place in range(told.num_columns))
    return [each.path for each in columns if each.physical_type == "BYTE_ARRAY" and each.path == each.name]


def _bounded(batches: Iterator[pa.RecordBatch], file: SourceFile) -> Iterator[pa.RecordBatch]:
    """Give batches as long as they are not more bytes than the file may have."""
    unpacked = 0
    for batch in batches:
        if file.most_bytes is None:
            yield batch
            continue
        unpacked += sum(_plain_bytes(column) for column in batch.columns)
        file.bound(unpacked)
        plain = [each.dictionary_decode() if _is_listed(each.type) else each for each in batch.columns]
        yield pa.RecordBatch.from_arrays(plain, names=batch.schema.names)


def _plain_bytes(column: pa.Array) -> int:
    if not _is_listed(column.type) or not len(column.dictionary):
        return int(column.nbytes)
    values = column.dictionary
    if pa.types.is_primitive(values.type):
        return len(column) * int(values.type.byte_width)
    lengths = pc.binary_length(values).cast(pa.int64())
    return int(column.nbytes) + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _is_listed(kind: pa.DataType) -> bool:
    if not pa.types.is_dictionary(kind):
        return False
    types, values = pa.types, kind.value_type
    texts = types.is_string(values) or types.is_large_string(values)
    return bool(
        texts or types.is_primitive(values) or types.is_binary(values) or types.is_large_binary(values)
    )


def _fitting(
    batch: pa.RecordBatch, wanted: pa.Schema | None, name: str, begin: int, standing: Standing | None
) -> Iterator[Piece]:
    """Give the rows whose values the wanted types can hold, then the others."""
    names = checked_names(batch.schema.names, name)
    require(names, wanted, name)
    columns = [
        _fitted(
            _without_views(column),
            None if wanted is None or each not in wanted.names else wanted.field(each).type,
        )
        for each, column in zip(names, batch.columns, strict=True)
    ]
    rows, wrong = apart(names, columns, np.arange(batch.num_rows))
    if standing is not None:
        standing.give_parted(np.arange(begin + 1, begin + 1 + batch.num_rows), [each for each, _ in wrong])
    if rows.num_rows:
        yield rows
    if wrong:
        taken = batch.take(pa.array([place for place, _ in wrong]))
        raw = pa.table([_writable(each) for each in taken.columns], names=names).to_pylist()
        yield [
            broken(reason, row_json(row), begin + place)
            for (place, reason), row in zip(wrong, raw, strict=True)
        ]


def _fitted(values: pa.Array, wanted: pa.DataType | None) -> Column:
    """Cast where only the values decide whether it works: other types are for the lake to refuse."""
    if wanted is None or values.type == wanted or not _is_of_kind(values.type, wanted):
        return Column(values)
    if pa.types.is_floating(values.type) and pa.types.is_integer(wanted):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return salvage(values, lambda part: part.cast(wanted), wanted)


def _writable(values: pa.Array) -> pa.Array:
    """Give instants and days as texts where some are beyond what Python can name."""
    return values if beyond_calendar(values) is None else values.cast(pa.string())


def _without_views(values: Any) -> Any:
    """Give texts in the layout that every kernel of Arrow knows, also within lists and objects."""
    if pa.types.is_run_end_encoded(values.type):
        return _without_views(pc.run_end_decode(values))
    plain = _plain_layout(values.type)
    return values if plain == values.type else values.cast(plain)


def _plain_layout(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind) or types.is_large_list(kind):
        field = kind.value_field.with_type(_plain_layout(kind.value_type))
        return pa.list_(field) if types.is_list(kind) else pa.large_list(field)
    if types.is_struct(kind):
        return pa.struct([each.with_type(_plain_layout(each.type)) for each in kind])
    return kind


def _is_of_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_timestamp(found) and types.is_timestamp(wanted):
        return (found.tz is None) == (wanted.tz is None)
    whole_or_decimal = types.is_integer(found) or types.is_decimal(found)
    if types.is_integer(wanted):
        return bool(types.is_integer(found) or types.is_floating(found))
    return bool(types.is_decimal(wanted) and whole_or_decimal)


def _batches(file: pa.NativeFile, head: bytes) -> Iterator[pa.RecordBatch]:
    if head.startswith(_MAGIC):
        opened = pa.ipc.open_file(file)
        for place in range(opened.num_record_batches):
            yield opened.get_batch(place)
    else:
        yield from pa.ipc.open_stream(file)


@contextmanager
def _as_damage(file: SourceFile, kind: str) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except (pa.ArrowException, OSError, EOFError) as err:
        raise file.damaged(err, kind) from err
