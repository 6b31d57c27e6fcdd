"""Parquet files of a table's rows, read and written a few thousand rows at a time, known by their digests."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from noria.errors import DigestMismatch, DiskFull, SourceError, StoreError

__all__ = [
    "TableFile",
    "TableWriter",
    "checked_file",
    "disk_faults",
    "file_sha256",
    "read_pieces",
    "synced",
    "write_file",
]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GROUP_BYTES = 16 << 20  # in memory, of one group of rows
_GROUP_ROWS = 131_072
_PIECE_ROWS = 16_384


class TableFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of rows: where it is below its folder, and what it holds."""

    file: str
    rows: int
    size_bytes: int
    sha256: str


class TableWriter:
    """Writes one Parquet file; at its end it is on the disk.

    Rows come as batches of the schema. A `with` block leaves nothing open.
    """

    def __init__(self, folder: Path, file: str, schema: pa.Schema) -> None:
        self.rows = 0
        self._folder, self._name, self._schema = folder, file, schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = self._waiting_rows = 0
        with disk_faults(folder):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._sink: BinaryIO = self._path.open("wb")
            self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", compression_level=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._sink.closed:
            with suppress(OSError, pa.ArrowException):  # what is written counts for nothing
                self._writer.close()
            with suppress(OSError):
                self._sink.close()

    @property
    def _path(self) -> Path:
        return self._folder / self._name

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows. Raises `DiskFull`, `StoreError`."""
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        self._waiting_rows += rows.num_rows
        if self._waiting_bytes >= _GROUP_BYTES or self._waiting_rows >= _GROUP_ROWS:
            self._put()

    def finish(self) -> TableFile:
        """Write what is left, and give what the file holds. Raises `DiskFull`, `StoreError`."""
        self._put()
        with disk_faults(self._folder):
            self._writer.close()
            synced(self._sink)
            self._sink.close()
            return TableFile(
                file=self._name,
                rows=self.rows,
                size_bytes=self._path.stat().st_size,
                sha256=file_sha256(self._path),
            )

    def _put(self) -> None:
        if not self._waiting:
            return
        with disk_faults(self._folder):
            self._writer.write_table(
                pa.Table.from_batches(self._waiting, self._schema), row_group_size=_GROUP_ROWS
            )
        self.rows += self._waiting_rows
        self._waiting, self._waiting_bytes, self._waiting_rows = [], 0, 0


def read_pieces(folder: Path, table: TableFile) -> Iterator[pa.RecordBatch]:
    """Give the rows of a file, a few thousand at a time. Raises `SourceError` if it is none."""
    try:
        with pq.ParquetFile(folder / table.file) as opened:
            for number in range(opened.num_row_groups):
                yield from opened.iter_batches(_PIECE_ROWS, row_groups=[number])
    except (pa.ArrowException, OSError) as err:
        raise SourceError(f"{folder / table.file} cannot be read as Parquet: {err}") from err


def checked_file(folder: Path, file: str, *, sha256: str) -> Path:
    """Give a file whose digest was computed again.

    Raises
    ------
    SourceError
        If it is gone, is a link, or cannot be read.
    DigestMismatch
        If it is not what was written.
    """
    path = folder / file
    if path.is_symlink():
        raise SourceError(f"{path} is a link, wanted is the file itself")
    try:
        found = file_sha256(path)
    except OSError as err:
        raise SourceError(f"{path} cannot be read: {err.strerror}; the folder is not whole") from err
    if found != sha256:
        raise DigestMismatch(f"the file {path}", sha256, found)
    return path


def file_sha256(path: Path) -> str:
    """Give the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all. Raises `DiskFull`, `StoreError`."""
    staged = path.with_name(f".{path.name}.part")
    with disk_faults(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            file.write(data)
            synced(file)
        staged.replace(path)


def synced(file: Any) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def disk_faults(place: Path | str) -> Iterator[None]:
    """Raise `DiskFull` or `StoreError` for what the disk of a place is to blame for."""
    try:
        yield
    except StoreError:
        raise
    except OSError as err:
        if err.errno in _NO_ROOM or any(text in str(err) for text in _texts()):
            raise DiskFull(str(place)) from err
        raise StoreError(f"{place} cannot be written: {err}; check the folder and its rights") from err


def _texts() -> Iterable[str]:
    return (os.strerror(each) for each in _NO_ROOM)  # pyarrow's errors have the number in their text alone
