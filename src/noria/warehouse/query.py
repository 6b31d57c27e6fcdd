"""One SELECT over named tables, in an in-memory DuckDB that reaches nothing else.

DuckDB's own parser says which tables a statement names; only those are opened. Files, network,
settings and the variables of the process are out of its reach.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from noria.errors import ConfigError, NotFound

__all__ = ["query"]

_SHOW_TABLES = re.compile(r"\s*show\s+(all\s+)?tables\s*;?\s*", re.IGNORECASE)
_PIVOT = re.compile(r"\s*(un)?pivot\b", re.IGNORECASE)  # the parser does not serialize these
_OWN_SCHEMAS = {"information_schema", "pg_catalog"}


def query(sql: str, tables: Mapping[str, Callable[[], Any]]) -> pa.Table:
    """Answer one SELECT.

    Parameters
    ----------
    sql
        DuckDB's dialect; `show tables` lists what there is.
    tables
        Name -> what opens it: an Arrow table, a `pyarrow.dataset.Dataset`, or any frame that speaks the
        Arrow PyCapsule interface. Names do not mind the case.

    Raises
    ------
    NotFound
        If the statement names a table that is not there; suggests the nearest.
    ConfigError
        If it is no single SELECT, or DuckDB cannot answer it.

    Examples
    --------
    >>> query("select sum(x) as total from numbers", {"numbers": lambda: pa.table({"x": [1, 2]})}).to_pylist()
    [{'total': 3}]
    """
    if _SHOW_TABLES.fullmatch(sql):
        return pa.table({"name": pa.array(sorted(tables), pa.string())})
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(
            "set enable_external_access = false; set python_enable_replacements = false; "
            "set TimeZone = 'UTC'; set lock_configuration = true"
        ).fetchall()
        for name in _referenced(connection, sql, tables):
            opened = tables[name]()
            connection.register(name, opened if _is_scannable(opened) else pa.table(opened))
        try:
            answer = connection.sql(sql)
            found: pa.Table = answer.to_arrow_table()
        except duckdb.Error as err:
            raise ConfigError(_explained(str(err), sql)) from err
        return _plain_integers(found)
    finally:
        connection.close()


def _referenced(
    connection: duckdb.DuckDBPyConnection, sql: str, tables: Mapping[str, object]
) -> Iterator[str]:
    if _PIVOT.match(sql):
        yield from tables
        return
    rows = connection.execute("select json_serialize_sql(?::varchar)", [sql]).fetchall()
    parsed = json.loads(rows[0][0])
    if parsed["error"]:
        if "Only SELECT" in parsed["error_message"]:
            raise ConfigError("a query reads: one SELECT is wanted, this statement is something else")
        raise ConfigError(_explained(parsed["error_message"], sql))
    if len(parsed["statements"]) != 1:
        raise ConfigError(f"one SELECT is wanted, there are {len(parsed['statements'])} statements")
    own = {each.lower() for each in _names_of_ctes(parsed)}
    known = {name.lower(): name for name in tables}
    for schema, name in sorted(set(_base_tables(parsed))):
        if schema.lower() in _OWN_SCHEMAS:
            continue
        if schema.lower() in ("", "main") and name.lower() in known:
            yield known[name.lower()]
        elif name.lower() not in own:
            raise NotFound("table", f"{schema}.{name}" if schema else name, tables)


def _base_tables(node: object) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield node.get("schema_name") or "", node["table_name"]
        for each in node.values():
            yield from _base_tables(each)
    elif isinstance(node, list):
        for each in node:
            yield from _base_tables(each)


def _names_of_ctes(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for entry in (node.get("cte_map") or {}).get("map", ()):
            yield entry["key"]
        for each in node.values():
            yield from _names_of_ctes(each)
    elif isinstance(node, list):
        for each in node:
            yield from _names_of_ctes(each)


def _is_scannable(opened: object) -> bool:
    return isinstance(opened, pa.Table) or type(opened).__module__.startswith("pyarrow")


def _plain_integers(table: pa.Table) -> pa.Table:
    """Give whole decimals as int64 where they fit: JSON has no type for the 38 digits of a sum."""
    for place, each in enumerate(table.schema):
        if pa.types.is_decimal(each.type) and each.type.scale == 0:
            try:
                column = table.column(place).cast(pa.int64())
            except pa.ArrowInvalid:
                continue  # too large: it stays exact
            table = table.set_column(place, each.name, column)
    return table


def _explained(message: str, sql: str) -> str:
    first = message.strip().splitlines()[0]
    hint = ""
    if "syntax error" in first:
        hint = '; a name that is an SQL keyword, such as "at", has to be in double quotes'
    return f"the query cannot be answered: {first}{hint}\n  {sql.strip()}"
