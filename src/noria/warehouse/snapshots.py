"""A table as it was when it was read, whatever is committed to it later."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from noria.lake.data_files import DataFile, sha256_in
from noria.lake.delta import Table
from noria.warehouse.parquet import holds_reals
from noria.warehouse.partitions import Span
from noria.warehouse.storing import may_hold_rows_of

__all__ = ["Snapshot", "snapshot_of"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files that a table had, or some of them.

    Attributes
    ----------
    version
        Delta's own.
    """

    table: Table
    version: int
    schema: pa.Schema
    files: tuple[DataFile, ...]

    @property
    def digest(self) -> str:
        """The digest that the table had."""
        return self.table.digest_of(self.schema, self.files)

    @property
    def count(self) -> int:
        """How many rows it had."""
        return sum(each.rows for each in self.files)

    @property
    def paths(self) -> list[Path] | None:
        """Where its files lie on this machine; None where they lie elsewhere."""
        return self.table.local_paths(self.files)

    @property
    def may_hold_nan(self) -> bool:
        """Whether a NaN may lie beyond the bounds that the files tell of themselves."""
        return any(
            holds_reals(column.type) and not _is_bounded(file, column)
            for column in self.schema
            for file in self.files
        )

    def dataset(self) -> Any:
        """Give its rows as a dataset of pyarrow."""
        return self.table.dataset_of(self.files, schema=self.schema)

    def narrowed(self, column: str, spans: Sequence[Span]) -> "Snapshot":
        """Leave out files that hold no row within spans of a column."""
        kind = self.schema.field(column).type
        if not pa.types.is_date(kind) and not pa.types.is_timestamp(kind):
            return self
        files = (
            each
            for each in self.files
            if any(may_hold_rows_of(each, column, self.schema, span) for span in spans)
        )
        return Snapshot(self.table, self.version, self.schema, tuple(files))


def snapshot_of(table: Table, files: Sequence[DataFile] | None = None) -> Snapshot:
    """Give a table as it is now, or some of its files."""
    return Snapshot(table, table.version, table.schema, tuple(table.files if files is None else files))


def _is_bounded(file: DataFile, column: pa.Field) -> bool:
    """Tell whether the bounds of a column hold for all rows of a file, as those that noria writes do."""
    if not file.rows or file.nulls.get(column.name) == file.rows:
        return True
    return sha256_in(file.path) is not None and file.low.get(column.name) is not None
