"""Answers as files and streams: CSV, JSON, JSON lines, Parquet, Arrow. A file is whole or not there."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from noria.errors import ConfigError, DiskFull, StoreError

__all__ = ["Format", "format_of", "json_rows", "whole_file", "write_rows"]

_SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
}
_INT64 = range(-(2**63), 2**63)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class Format(StrEnum):
    """How rows are written."""

    ARROW = "arrow"  # an IPC stream
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"

    @classmethod
    def read(cls, name: str) -> "Format":
        """Give the format of that name. Raises `ConfigError`."""
        try:
            return cls(name)
        except ValueError as err:
            raise ConfigError(f"there is no format {name!r}; there is {', '.join(cls)}") from err

    @property
    def is_text(self) -> bool:
        """Whether a terminal can show it."""
        return self in (Format.CSV, Format.JSON, Format.JSONL)


def format_of(path: Path) -> Format:
    """Give the format that a file's name tells.

    Raises
    ------
    ConfigError
        If it tells none.

    Examples
    --------
    >>> format_of(Path("late.parquet"))
    <Format.PARQUET: 'parquet'>
    """
    name = _SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ConfigError(
            f"the name {path.name!r} tells no format; end it with one of {', '.join(_SUFFIXES)}, or name one "
            f"of {', '.join(Format)} by `--format`"
        )
    return Format(name)


def write_rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema, format: Format, sink: IO[bytes]) -> int:
    """Write rows as they come, and give how many there were.

    CSV has texts of JSON where a value is nested; whole decimals are integers in JSON as far as 64 bits go.
    """
    match format:
        case Format.CSV:
            flat = pa.schema([(each.name, _flat_type(each.type)) for each in schema])
            with pacsv.CSVWriter(pa.PythonFile(sink, mode="w"), flat) as csv:
                return _each(_flattened(batches, flat), csv.write_batch)
        case Format.JSONL:
            return _each(batches, lambda batch: sink.write(_ENCODER.encode_lines(json_rows(batch))))
        case Format.JSON:
            return _write_array(batches, sink)
        case Format.PARQUET:
            held = pa.schema([(each.name, _parquet_type(each.type)) for each in schema])
            with pq.ParquetWriter(sink, held, compression="zstd") as parquet:
                return _each(_flattened(batches, held), parquet.write_batch)
        case Format.ARROW:
            with pa.ipc.new_stream(sink, schema) as arrow:
                return _each(batches, arrow.write_batch)


def json_rows(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Give rows of which every value has a place in JSON."""
    rows: list[dict[str, Any]] = batch.to_pylist()
    whole = [each.name for each in batch.schema if pa.types.is_decimal(each.type) and each.type.scale == 0]
    for name in whole:
        for row in rows:
            value = row[name]
            if isinstance(value, Decimal) and int(value) in _INT64:
                row[name] = int(value)
    return rows


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file beside the wanted one, which takes its place at the end; it goes if the block fails.

    Raises
    ------
    DiskFull, StoreError
        If it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as err:
        raise _untold(err, path) from err
    staged = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        staged.chmod(0o666 & ~_umask())
        staged.replace(path)
    except OSError as err:
        if isinstance(err, StoreError):
            raise
        raise _untold(err, path) from err
    finally:
        staged.unlink(missing_ok=True)


def _untold(err: OSError, path: Path) -> StoreError:
    if err.errno in _NO_ROOM:
        return DiskFull(str(path))
    return StoreError(f"{path} cannot be written: {err.strerror or err}; name another file")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _each(batches: Iterable[pa.RecordBatch], write: Any) -> int:
    written = 0
    for batch in batches:
        write(batch)
        written += batch.num_rows
    return written


def _write_array(batches: Iterable[pa.RecordBatch], sink: IO[bytes]) -> int:
    """Write one array, a row on a line."""
    written = 0
    for batch in batches:
        for row in json_rows(batch):
            sink.write(b",\n  " if written else b"[\n  ")
            sink.write(_ENCODER.encode(row))
            written += 1
    sink.write(b"\n]\n" if written else b"[]\n")
    return written


def _flat_type(kind: pa.DataType) -> pa.DataType:
    plain = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_temporal,
        pa.types.is_decimal,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    is_span = pa.types.is_interval(kind) or pa.types.is_duration(kind)
    return kind if any(test(kind) for test in plain) and not is_span else pa.string()


def _parquet_type(kind: pa.DataType) -> pa.DataType:
    """Give a type that Parquet has: text for spans of time and for unions."""
    return pa.string() if pa.types.is_interval(kind) or pa.types.is_union(kind) else kind


def _flattened(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        columns = [
            column if column.type == wanted.type else _as_text(column)
            for column, wanted in zip(batch.columns, schema, strict=True)
        ]
        yield pa.record_batch(columns, schema=schema)


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type) or pa.types.is_null(column.type):
        return pc.cast(column, pa.string())
    values = column.to_pylist()
    return pa.array([None if each is None else _text(each) for each in values], pa.string())


def _text(value: Any) -> str:
    encoded = _ENCODER.encode(value).decode()
    return str(msgspec.json.decode(encoded)) if encoded.startswith('"') else encoded
