"""The database in a backup: Parquet files, read in one snapshot, written back in one transaction.

The tables are asked of the database itself, so that one piece of code knows every revision and both kinds of
databases. Values are those of the database: an instant is its number of microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Boolean, Column, Connection, Float, Integer, LargeBinary, MetaData, Table, select, text
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

import noria.ledger.tables
import noria.pipelines.tables
import noria.registry.tables
import noria.tracking.tables  # noqa: F401 - these declare what is on `metadata`
from noria.database.metadata import metadata
from noria.errors import ConfigError, SourceError
from noria.workspace.moving.table_files import TableFile, TableWriter, read_pieces

__all__ = ["count_on", "database_tables", "has_rows", "load_tables", "rows_in_pieces", "write_tables"]

_AT_ONCE = 2_000  # rows that are fetched together; some hold texts of many kilobytes
_MADE = {"experiments": 1}  # rows that a new database has: the experiment "Default"
_OF_PROCESSES = {"leases"}  # rights of processes of the project that was backed up


def database_tables(connection: Connection) -> list[Table]:
    """Give the tables of a database as it tells them, those that others refer to first.

    What else is in the same database is not the project's.
    """
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in metadata.tables)
    return [*found.sorted_tables]


def has_rows(connection: Connection) -> bool:
    """Tell whether anything is on record in a database, beside what every new one has."""
    for table in database_tables(connection):
        made = _MADE.get(table.name, 0)
        found = connection.execute(select(text("1")).select_from(table).limit(made + 1)).all()
        if len(found) > made:
            return True
    return False


def write_tables(connection: Connection, folder: Path) -> dict[str, TableFile]:
    """Write every table below a folder, from what the connection's transaction sees."""
    written = {}
    for table in database_tables(connection):
        if table.name in _OF_PROCESSES:
            continue
        schema = _schema(table)
        with TableWriter(folder, f"database/{table.name}.parquet", schema) as writer:
            for rows in _fetched(connection, table, schema):
                writer.write(rows)
            written[table.name] = writer.finish()
    return written


def load_tables(connection: Connection, folder: Path, tables: Mapping[str, TableFile]) -> int:
    """Write the rows of files, which were checked, into a database that has no records; give how many.

    Raises
    ------
    SourceError
        If the files are not those of these tables.
    ConfigError
        If the database cannot hold a text: PostgreSQL has none with a NUL.
    """
    known = {each.name: each for each in database_tables(connection)}
    if strange := sorted(tables.keys() - known.keys()):
        raise SourceError(f"{folder} holds tables that its revision has not: {', '.join(strange)}")
    for table in reversed(known.values()):
        connection.execute(table.delete())  # what every new database has
    count = 0
    for name, table in known.items():
        if name not in tables:
            continue
        own = _own_references(table)
        for rows in read_pieces(folder, tables[name]):
            _insert(connection, table, rows, without=own)
            count += rows.num_rows
        if own:
            for rows in read_pieces(folder, tables[name]):
                _refer(connection, table, rows, own)
        count_on(connection, table)
    return count


def rows_in_pieces(result: Any, schema: pa.Schema, at_once: int = _AT_ONCE) -> Iterator[pa.RecordBatch]:
    """Give the rows of a result as batches of a schema."""
    for rows in result.yield_per(at_once).partitions():
        columns = zip(*rows, strict=True)
        yield pa.record_batch(
            [_array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):  # microseconds, as the database has them
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def _fetched(connection: Connection, table: Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    query = select(table).order_by(*table.primary_key.columns)
    return rows_in_pieces(connection.execute(query), schema)


def _schema(table: Table) -> pa.Schema:
    return pa.schema([(each.name, _arrow(each), bool(each.nullable)) for each in table.columns])


def _arrow(column: Column[Any]) -> pa.DataType:
    match column.type:
        case Boolean():
            return pa.bool_()
        case Integer():  # BIGINT is one of it
            return pa.int64()
        case Float():
            return pa.float64()
        case LargeBinary():
            return pa.binary()
        case _:
            return pa.string()


def _own_references(table: Table) -> list[str]:
    """Name the columns that refer to other rows of the same table: those may not be there yet."""
    return [
        each.parent.name
        for each in sorted(table.foreign_keys, key=lambda key: str(key.parent.name))
        if each.column.table is table and each.parent.nullable
    ]


def _insert(connection: Connection, table: Table, rows: pa.RecordBatch, *, without: Sequence[str]) -> None:
    names = [each.name for each in table.columns]
    if set(rows.schema.names) != set(names):
        raise SourceError(
            f"the file of table {table.name} has the columns {', '.join(rows.schema.names)}, "
            f"wanted are {', '.join(names)}"
        )
    values = [[None] * rows.num_rows if name in without else rows.column(name).to_pylist() for name in names]
    marks = ", ".join("?" if connection.dialect.positional else f"%(c{at})s" for at in range(len(names)))
    quote = connection.dialect.identifier_preparer.quote
    statement = (
        f"INSERT INTO {quote(table.name)} ({', '.join(quote(name) for name in names)}) VALUES ({marks})"
    )
    found: list[Any] = list(zip(*values, strict=True))
    if not connection.dialect.positional:
        keys = [f"c{at}" for at in range(len(names))]
        found = [dict(zip(keys, row, strict=True)) for row in found]
    if not found:
        return
    try:
        connection.exec_driver_sql(statement, found)
    except (SQLAlchemyError, ValueError) as err:
        if "NUL" in str(err):
            raise ConfigError(
                f"table {table.name} has a text with a NUL, which PostgreSQL cannot hold; restore it into "
                "SQLite, or take it out of the project first"
            ) from err
        if isinstance(err, DatabaseError) or not isinstance(err, SQLAlchemyError):
            raise
        raise SourceError(f"the rows of table {table.name} cannot be read: {err}") from err


def _refer(connection: Connection, table: Table, rows: pa.RecordBatch, own: Sequence[str]) -> None:
    keys = list(table.primary_key.columns)
    for name in own:
        wanted = [
            {f"key_{at}": row[key.name] for at, key in enumerate(keys)} | {"wanted": row[name]}
            for row in rows.select([*(key.name for key in keys), name]).to_pylist()
            if row[name] is not None
        ]
        if not wanted:
            continue
        quote = connection.dialect.identifier_preparer.quote
        where = " AND ".join(f"{quote(key.name)} = :key_{at}" for at, key in enumerate(keys))
        connection.execute(
            text(f"UPDATE {quote(table.name)} SET {quote(name)} = :wanted WHERE {where}"), wanted
        )


def count_on(connection: Connection, table: Table) -> None:
    """Let PostgreSQL number new rows from where the table ends; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    for key in table.primary_key.columns:
        sequence = connection.execute(
            text("SELECT pg_get_serial_sequence(:of, :name)"), {"of": f'"{table.name}"', "name": key.name}
        ).scalar()
        if sequence is not None:
            connection.execute(
                text(
                    f'SELECT setval(:sequence, (SELECT coalesce(max("{key.name}"), 0) + 1 '
                    f'FROM "{table.name}"), false)'
                ),
                {"sequence": sequence},
            )
