"""Files written anew without some of their rows: how rows leave a table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from noria.lake.data_files import DataFile, may_hold, rewritten_stem
from noria.lake.row_files import RowFiles
from noria.lake.rowsql import Flags, RowSql

__all__ = ["Rewritten", "among", "holding", "rows_like", "without", "without_keys"]


@dataclass(slots=True)
class Rewritten:
    """What takes the place of what; `rows` have gone."""

    old: list[DataFile] = field(default_factory=list)
    new: list[DataFile] = field(default_factory=list)
    rows: int = 0


def without(
    table: RowFiles,
    files: Iterable[DataFile],
    gone: Callable[[pa.Table], Flags],
    *,
    columns: Sequence[str],
) -> Rewritten:
    """Write those of `files` anew that hold rows of which `gone` is true; it is asked about `columns`.

    Nothing is committed.
    """
    done = Rewritten()
    for file in files:
        flags = gone(table.read_files([file], columns=columns))
        count = int(flags.sum())
        if not count:
            continue
        done.old.append(file)
        done.rows += count
        if count < len(flags):
            writer = table.writer(rewritten_stem(file, "rewrite"))
            writer.write(table.read_files([file]).filter(pa.array(~flags)))
            done.new += writer.close()
    return done


def without_keys(
    table: RowFiles, files: Iterable[DataFile], keys: pa.Table, sql: RowSql, *, columns: Sequence[str]
) -> Rewritten:
    """Write files anew without the rows that have one of `keys`."""
    return without(
        table,
        holding(files, keys, columns[0]),
        lambda rows: sql.among(rows, keys, keys=columns),
        columns=columns,
    )


def holding(files: Iterable[DataFile], keys: pa.Table, column: str) -> list[DataFile]:
    """Give the files that may hold one of the keys, by the bounds of the key's first column."""
    if pa.types.is_nested(keys.schema.field(column).type):
        return list(files)
    extrema = pc.min_max(keys[column]).as_py()
    return [each for each in files if may_hold(each, column, extrema["min"], extrema["max"])]


def among(
    batches: Iterable[pa.RecordBatch], rows: pa.Table, sql: RowSql, *, keys: Sequence[str]
) -> Iterator[pa.Table]:
    """Give what of `batches` has the key of one of `rows`."""
    for each in batches:
        table = pa.Table.from_batches([each])
        found = table.filter(pa.array(sql.among(table, rows, keys=keys)))
        if found.num_rows:
            yield found


def rows_like(
    table: RowFiles, files: Iterable[DataFile], rows: pa.Table, keys: Sequence[str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Read the rows of `files` that may have the key of one of `rows`, and few others.

    Keys alone are looked through first: seldom is there any.
    """
    first = keys[0]
    where = None
    if not pa.types.is_nested(rows.schema.field(first).type):
        where = pads.field(first).isin(rows[first].unique())
    for file in files:
        if where is None or table.read_files([file], columns=[first], where=where).num_rows:
            yield from table.read_files([file], columns=schema.names, where=where).to_batches()
