"""How what is opened becomes a table of DuckDB: Parquet files by their names, all else as Arrow.

DuckDB is allowed exactly the files of the tables that a statement names.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from noria.checks.quoting import quoted
from noria.warehouse.parquet import holds_reals, is_plain, parquet_sql

__all__ = ["View", "allowed_files", "register"]


@dataclass(frozen=True, slots=True)
class View:
    """A table that is a SELECT over others."""

    sql: str


def allowed_files(opened: Iterable[object]) -> list[str]:
    """Give the files that DuckDB has to read by itself."""
    return [file for each in opened for file in _files(each) or ()]


def register(connection: duckdb.DuckDBPyConnection, name: str, opened: object, *, natively: bool) -> None:
    """Make a table of what was opened; `natively`: DuckDB may read the files that `allowed_files` names."""
    files = _files(opened) if natively else None
    if isinstance(opened, View):
        connection.execute(f"create view {quoted(name)} as {opened.sql}")
    elif files and isinstance(opened, pads.FileSystemDataset):
        reals = any(holds_reals(each.type) for each in opened.schema)
        rows = parquet_sql(files, opened.schema, may_hold_nan=reals)
        connection.execute(f"create view {quoted(name)} as {rows}")
    elif isinstance(opened, pa.Table) or type(opened).__module__.startswith("pyarrow"):
        connection.register(name, opened)
    else:
        connection.register(name, pa.table(opened))


def _files(opened: object) -> list[str] | None:
    """Give a dataset's files if DuckDB can read them as they are."""
    if not isinstance(opened, pads.FileSystemDataset) or not isinstance(
        opened.filesystem, pafs.LocalFileSystem
    ):
        return None
    files: list[str] = opened.files
    if opened.format.default_extname != "parquet":
        return None
    return files if is_plain(files, opened.schema) else None
