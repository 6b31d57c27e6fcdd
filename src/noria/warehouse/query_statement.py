"""What a statement reads, told by DuckDB's own parser, and the refusal of everything that does not read.

Of table functions only those that make rows out of nothing are let through: others read files, settings or
memory. The engine is locked as well, see `noria.warehouse.query`; this is the first of two walls, and the one
that explains itself.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb

from noria.errors import ConfigError
from noria.warehouse.hints import hinted
from noria.warehouse.named_tables import unknown_table
from noria.warehouse.query_travel import Dated, Token, read_tokens, undated

__all__ = ["Statement", "explained", "read_statement", "spelled"]

_OWN_SCHEMAS = {"information_schema", "pg_catalog"}
_MAKES_ROWS = {
    "generate_series",
    "histogram",
    "histogram_values",
    "json_each",
    "json_tree",
    "range",
    "repeat",
    "repeat_row",
    "unnest",
}
_READS = {
    "(",
    "desc",
    "describe",
    "from",
    "pivot",
    "pivot_longer",
    "pivot_wider",
    "select",
    "show",
    "summarize",
    "table",
    "unpivot",
    "values",
    "with",
}
_UNSET = re.compile(r"Values were not provided for the following parameters: (.+)")
_PIVOTS = {"pivot", "pivot_wider"}
_TABLE_FUNCTIONS = """
    select distinct function_name from duckdb_functions() where function_type in ('table', 'table_macro')
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """One reading statement.

    Attributes
    ----------
    sql
        What DuckDB is to answer.
    tables
        Names of tables that it reads, as `tables` spells them.
    dated
        Names that stand for tables as they were.
    lists_tables
        Whether it is `show tables`.
    is_traced
        Whether the parser told the tables exactly; of a PIVOT it does not.
    """

    sql: str
    tables: tuple[str, ...] = ()
    dated: Mapping[str, Dated] | None = None
    lists_tables: bool = False
    is_traced: bool = True


def read_statement(
    connection: duckdb.DuckDBPyConnection, sql: str, tables: Mapping[str, object]
) -> Statement:
    """Tell what a statement reads.

    Raises
    ------
    ConfigError
        If it is no single statement that reads, or uses a function that reaches out of the project.
    NotFound
        If it names a table that is not there; suggests the nearest, or says what makes it.
    """
    tokens = read_tokens(sql)
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    if any(each.text == ";" for each in tokens):
        raise ConfigError("one SELECT is wanted, there are several statements; ask them one by one")
    words = [each.word for each in tokens]
    if words in (["show", "tables"], ["show", "all", "tables"]):
        return Statement(sql, lists_tables=True)
    head, inner = _without_explain(sql, tokens)
    first = [each.word for each in read_tokens(inner)[:1]]
    if not first or first[0] not in _READS:
        found = f"this one begins with {first[0].upper()}" if first else "there is none"
        raise ConfigError(f"a query reads: one SELECT is wanted, {found}")
    plain, dated = undated(inner, connection)
    parsed = _parsed(connection, plain, sql)
    if parsed is None:
        return Statement(
            head + plain, _named_in(connection, plain, [*dated, *tables]), dated, is_traced=False
        )
    _refuse_functions(_functions(parsed))
    return Statement(head + plain, _tables(parsed, dated, tables), dated)


def explained(message: str, sql: str, columns: Iterable[str] = ()) -> str:
    """Give DuckDB's message as one of noria's: its first line, a hint, the statement.

    Parameters
    ----------
    columns
        Of all tables that the statement reads: the nearest to one that is not there is suggested.
    """
    first = message.strip().splitlines()[0]
    unset = _UNSET.search(first)
    if unset is not None:
        return f"{_without_value(unset[1].split(', '))}\n  {sql.strip()}"
    return f"the query cannot be answered: {hinted(message, columns)}\n  {sql.strip()}"


def _without_value(names: list[str]) -> str:
    if names[0].isdecimal():
        return (
            'the query has more "?" or numbers of parameters than values; give all in order, `params=[...]`'
        )
    given = ", ".join(f'"{each}": ...' for each in names)
    return (
        f"the query needs a value for {', '.join(f'${each}' for each in names)}; give "
        f"`{' '.join(f'--param {each}=...' for each in names)}`, in Python `params={{{given}}}`"
    )


def _without_explain(sql: str, tokens: list[Token]) -> tuple[str, str]:
    """Split off `EXPLAIN [ANALYZE] [(options)]`."""
    if not tokens or tokens[0].word != "explain":
        return "", sql
    place = 1
    if place < len(tokens) and tokens[place].word in ("analyze", "analyse"):
        place += 1
    if place < len(tokens) and tokens[place].text == "(" and tokens[place + 1 : place + 2]:
        inside = tokens[place + 1].word
        if inside in ("format", "analyze", "analyse"):
            place = next((at for at, each in enumerate(tokens) if each.text == ")"), place) + 1
    data = sql.encode()
    cut = tokens[place].start if place < len(tokens) else len(data)
    return data[:cut].decode(), data[cut:].decode()


def _parsed(connection: duckdb.DuckDBPyConnection, plain: str, sql: str) -> Any:
    """Give the syntax tree; None for a PIVOT that makes its columns from what it finds."""
    rows = connection.execute("select json_serialize_sql(?::varchar)", [plain]).fetchall()
    parsed = json.loads(rows[0][0])
    if not parsed["error"]:
        return parsed
    message = parsed["error_message"]
    if "Only SELECT" in message:
        words = {each.word for each in read_tokens(plain) if not each.is_quoted}
        if words & _PIVOTS:
            return None
        raise ConfigError("a query reads: one SELECT is wanted, this statement does something else")
    raise ConfigError(explained(message, sql))


def _nodes(parsed: Any) -> Iterator[dict[str, Any]]:
    waiting = [parsed]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _tables(parsed: Any, dated: Mapping[str, object], tables: Mapping[str, object]) -> tuple[str, ...]:
    own: set[str] = set()
    named: set[tuple[str, str]] = set()
    for node in _nodes(parsed):
        own.update(each["key"].lower() for each in (node.get("cte_map") or {}).get("map", ()))
        if node.get("type") == "BASE_TABLE":
            catalog = node.get("catalog_name") or ""
            schema = node.get("schema_name") or ""
            named.add((f"{catalog}.{schema}" if catalog else schema, node["table_name"]))
    found = set()
    for schema, name in sorted(named):
        if schema.lower() in _OWN_SCHEMAS:
            continue
        is_own = not schema and name.lower() in own
        is_plain = schema.lower() in ("", "main")
        at = (name if name in dated else spelled(name, tables, quickly=is_own)) if is_plain else None
        if at is not None:
            found.add(at)
        elif not is_own:
            raise unknown_table(schema, name, tables)
    return tuple(sorted(found))


def spelled(name: str, tables: Mapping[str, object], *, quickly: bool = False) -> str | None:
    """Give a table's name as it is kept; `quickly`: without a look at all that there are."""
    if name in tables:
        return name
    if name.lower() in tables:
        return name.lower()
    if quickly:
        return None
    return next((each for each in tables if each.lower() == name.lower()), None)


def _functions(parsed: Any) -> Iterator[str]:
    for node in _nodes(parsed):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"]["function_name"])


def _refuse_functions(names: Iterator[str]) -> None:
    for name in names:
        if name.lower() not in _MAKES_ROWS:
            raise ConfigError(
                f"a query reads the project's tables only, and {name}(...) reaches beyond them; "
                f'`noria query "show tables"` lists what there is, `noria.Dataset` brings in what is not'
            )


def _named_in(connection: duckdb.DuckDBPyConnection, plain: str, known: Iterable[str]) -> tuple[str, ...]:
    """Give every table whose name occurs; refuse every function of tables that occurs."""
    tokens = read_tokens(plain)
    functions = {row[0] for row in connection.execute(_TABLE_FUNCTIONS).fetchall()}
    called = (before.word.lower() for before, after in pairwise(tokens) if after.text == "(")
    _refuse_functions(name for name in called if name in functions)
    words = {each.word.lower() for each in tokens}
    words |= {each.text[1:-1].lower() for each in tokens if each.kind == "string_const"}
    return tuple(sorted(name for name in known if name.lower() in words))
