"""The accepted rows of a batch that has not landed: the last piece in memory, the rest in files."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from noria.lake.data_files import DataFile, FileWriter
from noria.lake.rewriting import holding, rows_like, without_keys
from noria.lake.row_files import RowFiles
from noria.lake.rowsql import RowSql

__all__ = ["Kept"]


class Kept:
    """Rows in the order in which they were kept.

    Parameters
    ----------
    rows
        Where files are written to; None: all stays in memory.
    stem
        Begins the files' names.
    """

    def __init__(self, schema: pa.Schema, keys: Sequence[str], rows: RowFiles | None, *, stem: str) -> None:
        self._schema = schema
        self._keys = keys
        self._rows = rows
        self._stem = stem
        self._held: list[pa.Table] = []
        self._writer: FileWriter | None = None
        self._files: list[DataFile] = []
        self._writers = 0

    def add(self, table: pa.Table) -> None:
        """Keep rows."""
        if not table.num_rows:
            return
        if self._rows is not None and self._held:
            self._write(self._rows)
        self._held.append(table)

    def table(self) -> pa.Table:
        """Give the rows that are in memory: all, where none are written."""
        return pa.concat_tables(self._held) if self._held else self._schema.empty_table()

    def files(self) -> list[DataFile]:
        """Write what is in memory, and give all files."""
        if self._rows is not None and self._held:
            self._write(self._rows)
        self._close()
        return self._files

    def read(self, file: DataFile) -> pa.Table:
        """Read one of the files."""
        assert self._rows is not None
        return self._rows.read_files([file], columns=self._schema.names)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Give all rows, piece by piece. What was begun as a file is written, what is in memory is not."""
        self._close()
        if self._rows is not None and self._files:
            yield from self._rows.batches(self._files)
        for each in self._held:
            yield from each.to_batches()

    def like(self, rows: pa.Table) -> Iterator[pa.RecordBatch]:
        """Give the rows that may have the key of one of `rows`, and others."""
        self._close()
        if self._rows is not None and self._files:
            files = holding(self._files, rows, self._keys[0])
            yield from rows_like(self._rows, files, rows, self._keys, self._schema)
        for each in self._held:
            yield from each.to_batches()

    def drop(self, keys: pa.Table, sql: RowSql) -> None:
        """Take the rows of these keys out again."""
        self._close()
        kept = (each.filter(pa.array(~sql.among(each, keys, keys=self._keys))) for each in self._held)
        self._held = [each for each in kept if each.num_rows]
        if self._rows is not None and self._files:
            done = without_keys(self._rows, self._files, keys, sql, columns=self._keys)
            gone = {each.path for each in done.old}
            self._files = [*(each for each in self._files if each.path not in gone), *done.new]

    def _write(self, rows: RowFiles) -> None:
        if self._writer is None:
            stem = self._stem if not self._writers else f"{self._stem}-{self._writers}"
            self._writers += 1
            self._writer = rows.writer(stem)
        for each in self._held:
            self._writer.write(each)
        self._held = []

    def _close(self) -> None:
        if self._writer is not None:
            self._files += self._writer.close()
            self._writer = None
