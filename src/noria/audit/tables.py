"""Reading a few rows out of large tables, with the files that they lie in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from sqlalchemy import select

from noria.audit.records import FileLine
from noria.clock import to_micros
from noria.errors import DigestMismatch, NotFound, StoreError
from noria.lake.store import Lake
from noria.ledger.rows import to_version
from noria.ledger.store import Ledger
from noria.ledger.tables import versions
from noria.records import Version, sha256_hex

__all__ = ["OpenTable", "Tables", "instant_scalar", "plain", "rows_digest"]

_FILENAME = "__filename"  # pyarrow's name for the column that says where a row was read
_NAMED = re.compile(r"([0-9a-f]{64})\.parquet$")
_CHUNK_BYTES = 1 << 22
_INSTANT = pa.timestamp("us", "UTC")
_ENCODER = msgspec.json.Encoder(order="deterministic")


class OpenTable:
    """A table, as it is now or as of a version.

    Parameters
    ----------
    name
        The table's.
    version
        The dataset's version, None for the newest state.
    reader
        A `pyarrow.dataset.FileSystemDataset`.
    """

    def __init__(self, name: str, version: Version | None, reader: Any) -> None:
        self.name, self.version, self._reader = name, version, reader
        self._sha256: dict[str, str] = {}

    @property
    def schema(self) -> pa.Schema:
        """Columns and types."""
        return self._reader.schema

    def read(self, where: ds.Expression, columns: Sequence[str] | None = None) -> "Found":
        """Give the rows for which `where` holds, with their files.

        Raises
        ------
        StoreError
            If a file cannot be read.
        """
        wanted = self.schema.names if columns is None else list(columns)
        try:
            table = self._reader.to_table(columns=[*wanted, _FILENAME], filter=where)
        except (OSError, pa.ArrowException) as err:
            raise StoreError(f"rows of {self.name!r} cannot be read, a file of it is damaged: {err}") from err
        return Found(table.select(wanted), table[_FILENAME])

    def verify(self, found: "Found") -> None:
        """Hold the files of rows against their digests: a changed byte can give rows that look right.

        Raises
        ------
        DigestMismatch
            If a file is not what was written.
        """
        for each in self.file_lines(found.paths):
            now = self.hash_file(each.path)
            if now != each.sha256:
                raise DigestMismatch(f"{self.name}/{each.path}", each.sha256, now)

    def read_one(self, column: str, value: pa.Scalar, narrow: str) -> "Found":
        """Give the rows where `column` holds `value`, as `read` does.

        Only two columns are read where they cannot be; `narrow` names an instant by which rows are ordered.
        """
        same = ds.field(column) == value
        bounds = pc.min_max(self.read(same, [narrow]).rows[narrow])
        low, high = bounds["min"], bounds["max"]
        if not low.is_valid:
            return self.read(ds.scalar(False))
        return self.read(same & (ds.field(narrow) >= low) & (ds.field(narrow) <= high))

    def head(self, column: str, rows: int) -> list[Any]:
        """Give some values of a column."""
        values: list[Any] = self._reader.head(rows, columns=[column])[column].to_pylist()
        return values

    def file_lines(self, paths: pa.ChunkedArray) -> tuple[FileLine, ...]:
        """Give the files of rows, by how many of the rows lie in each."""
        counted = paths.value_counts().to_pylist()
        return tuple(self._file_line(each["values"], each["counts"]) for each in counted)

    def candidates(self, where: ds.Expression) -> tuple[FileLine, ...]:
        """Give the files that could hold rows for which `where` holds."""
        return tuple(self._file_line(each.path, 0) for each in self._reader.get_fragments(filter=where))

    def hash_file(self, name: str) -> str:
        """Give the sha256 of a file's bytes as they are now. Raises `OSError` if it is gone."""
        if name not in self._sha256:
            self._sha256[name] = self._hash(name)
        return self._sha256[name]

    def _hash(self, name: str) -> str:
        folder = str(self._reader.files[0]).rpartition("/")[0]
        digest = sha256()
        with self._reader.filesystem.open_input_stream(f"{folder}/{name}") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _file_line(self, path: str, rows: int) -> FileLine:
        name = path.rpartition("/")[2]
        named = _NAMED.search(name)
        return FileLine(
            table=self.name,
            path=name,
            sha256=named[1] if named else self.hash_file(name),
            rows=rows,
            size_bytes=self._reader.filesystem.get_file_info(path).size or 0,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, and the path of the file of each."""

    rows: pa.Table
    paths: pa.ChunkedArray

    def dicts(self) -> list[dict[str, Any]]:
        """Give the rows as Python has them. Raises `StoreError` if it has no such values."""
        try:
            rows: list[dict[str, Any]] = self.rows.to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as err:
            raise StoreError(f"rows hold values that cannot be, a file of them is damaged: {err}") from err
        return rows


class Tables:
    """The tables of a lake as of an instant: opened once each.

    A dataset is opened at its first version after the instant, which holds all that was known then.
    """

    def __init__(self, ledger: Ledger, lake: Lake, at: datetime) -> None:
        self._ledger, self._lake, self._at = ledger, lake, at
        self._open: dict[str, OpenTable] = {}

    def dataset(self, name: str) -> OpenTable:
        """Open a dataset as of the instant. Raises `NotFound`."""
        if name not in self._open:
            version = self._version(name)
            self._open[name] = OpenTable(name, version, self._lake.reader(name, version=version))
        return self._open[name]

    def log(self, name: str) -> OpenTable:
        """Open a table that has no versions, as it is now. Raises `NotFound`."""
        if name not in self._open:
            self._open[name] = OpenTable(name, None, self._lake.reader(name))
        return self._open[name]

    def any(self, name: str) -> OpenTable:
        """Open a table in whatever state: for its files, which stay where they are."""
        return self._open.get(name) or self.log(name)

    def find_log(self, name: str) -> OpenTable | None:
        """Open a table that may not be there."""
        try:
            return self.log(name)
        except NotFound:
            return None

    def _version(self, name: str) -> Version | None:
        """Find the first version after the instant, else the newest one."""
        of_name = select(versions).where(
            versions.c.scope == self._ledger.scope, versions.c.kind == "dataset", versions.c.name == name
        )
        later = of_name.where(versions.c.at > self._at).order_by(versions.c.number).limit(1)
        newest = of_name.order_by(versions.c.number.desc()).limit(1)
        with self._ledger.database.read() as connection:
            row = (
                connection.execute(later).mappings().first() or connection.execute(newest).mappings().first()
            )
        return None if row is None else to_version(row)


def instant_scalar(instant: datetime) -> pa.Scalar:
    """Give an instant as the tables hold it."""
    return pa.scalar(to_micros(instant), pa.int64()).cast(_INSTANT)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Give a row as JSON has it: instants as texts, what is missing or no number as None."""
    found: dict[str, Any] = msgspec.to_builtins({name: _finite(value) for name, value in row.items()})
    return found


def rows_digest(rows: pa.Table) -> str:
    """Give the sha256 of rows as JSON lines: the names of the columns, then an array for each row.

    Instants are microseconds since 1970; null is what is missing or no number.
    """
    columns = [_values(rows[name]) for name in rows.column_names]
    return sha256_hex(_ENCODER.encode_lines([rows.column_names, *zip(*columns, strict=True)]))


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    elif pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    elif pa.types.is_nested(column.type):
        return [_finite(each) for each in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return value
