"""How what is opened becomes a table of DuckDB: Parquet files by their names, all else as Arrow.

DuckDB reads local Parquet files three times as fast as through Arrow; it is allowed exactly the files of the
tables that a statement names. The declared columns go along, so that files from before a column was added,
or made wider, fit.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

__all__ = ["View", "allowed_files", "register"]

_PATTERN = re.compile(r"[*?\[\]{}]")  # DuckDB would take such a path for a pattern
_PLAIN = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.large_binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}


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
        connection.execute(f"create view {_name(name)} as {opened.sql}")
    elif files and isinstance(opened, pads.FileSystemDataset):
        columns = ", ".join(
            f"{_text(each.name)}: {{name: {_text(each.name)}, type: {_text(_type(each.type) or '')}, "
            "default_value: NULL}"
            for each in opened.schema
        )
        listed = ", ".join(map(_text, files))
        connection.execute(
            f"create view {_name(name)} as from read_parquet([{listed}], schema = MAP {{{columns}}}, "
            "hive_partitioning = false)"
        )
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
    if opened.format.default_extname != "parquet" or any(map(_PATTERN.search, files)):
        return None
    names = [each.name for each in opened.schema]
    if not names or len({each.lower() for each in names}) < len(names):
        return None
    return files if all(_type(each.type) for each in opened.schema) else None


def _type(kind: pa.DataType) -> str | None:  # noqa: PLR0911 - one line per family
    """Give DuckDB's name of a type; None if it has none of which the two agree."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if pa.types.is_decimal128(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _type(kind.value_type)
        return inner and f"{inner}[]"
    if pa.types.is_map(kind):
        key, item = _type(kind.key_type), _type(kind.item_type)
        return f"MAP({key}, {item})" if key and item else None
    if pa.types.is_struct(kind):
        fields = {each.name: _type(each.type) for each in kind}
        if not fields or not all(fields.values()):
            return None
        return f"STRUCT({', '.join(f'{_name(name)} {inner}' for name, inner in fields.items())})"
    return None


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
