"""The database that evaluates SQL over rows in memory, and tells what an expression consists of."""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from noria.checks.sql import hash_sql
from noria.checks.verdicts import Hashes
from noria.errors import ConfigError

__all__ = ["Evaluator", "Node", "first_line"]

Node = dict[str, Any]  # of DuckDB's syntax tree

_PARSED = 1_000  # expressions whose trees are kept: the same contract comes with every batch


class Evaluator:
    """One DuckDB connection in memory, which reads no files. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._duckdb = duckdb.connect(":memory:", config={"threads": 1})
        self._duckdb.execute("set enable_external_access = false")
        self._duckdb.execute("set TimeZone = 'UTC'")
        self._names = 0
        self._parsed: dict[str, list[Node]] = {}

    def close(self) -> None:
        """Let go of the connection."""
        self._duckdb.close()

    def select(self, table: pa.Table, parts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Evaluate SQL expressions over the rows of `table`, in their order."""
        with self._guard, _registered(self._duckdb, {"batch": table}):
            found = self._duckdb.execute(f"select {', '.join(parts)} from batch").fetchnumpy()
        return {name: np.ma.getdata(column) for name, column in found.items()}

    def query(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Answer SQL over `tables`."""
        with self._guard, _registered(self._duckdb, tables):
            return self._duckdb.sql(sql).to_arrow_table()

    def execute(self, sql: str, tables: Mapping[str, pa.Table] | None = None) -> list[tuple[Any, ...]]:
        """Execute SQL, and give the rows that it answers."""
        with self._guard, _registered(self._duckdb, tables or {}):
            rows: list[tuple[Any, ...]] = self._duckdb.execute(sql).fetchall()
        return rows

    def new_name(self) -> str:
        """Give a name that no table of this database has."""
        with self._guard:
            self._names += 1
            return f"kept_{self._names}"

    def hash_keys(self, table: pa.Table, columns: Sequence[str]) -> Hashes:
        """Give a 64-bit hash of `columns` for each row: equal values, equal hashes; in this process only."""
        return self.select(table, [f"{hash_sql(columns)} as h"])["h"].astype(np.uint64, copy=False)

    def hasher(self, columns: Sequence[str]) -> "partial[Hashes]":
        """Give the function that hashes `columns` of tables."""
        return partial(self.hash_keys, columns=columns)

    def nodes(self, sql: str, *, what: str) -> list[Node]:
        """Give the nodes of an expression's syntax tree, outer ones first.

        Raises
        ------
        ConfigError
            If it is no expression; `what` names it.
        """
        if sql in self._parsed:
            return self._parsed[sql]
        with self._guard:
            asked = self._duckdb.execute("select json_serialize_sql(?)", [f"select {sql}"])
            ((text,),) = asked.fetchall()
        tree = msgspec.json.decode(text)
        if tree["error"]:
            raise ConfigError(f"the check {what} ({sql}) is no SQL: {tree['error_message']}")
        node = tree["statements"][0]["node"]
        if len(tree["statements"]) != 1 or node["type"] != "SELECT_NODE" or len(node["select_list"]) != 1:
            raise ConfigError(f"the check {what} ({sql}) must be one SQL condition")
        if node["from_table"]["type"] != "EMPTY" or node["where_clause"] is not None:
            raise ConfigError(f"the check {what} ({sql}) must be a condition, not a query")
        if len(self._parsed) >= _PARSED:
            self._parsed.clear()
        self._parsed[sql] = found = _walk(node["select_list"][0])
        return found

    @cached_property
    def aggregates(self) -> frozenset[str]:
        """The names of functions that aggregate."""
        asked = "select distinct function_name from duckdb_functions() where function_type = 'aggregate'"
        return frozenset(name for (name,) in self.execute(asked))


class _registered:  # noqa: N801 - used as a function
    """Tables that SQL may name inside of the block."""

    def __init__(self, connection: Any, tables: Mapping[str, pa.Table]) -> None:
        self._connection = connection
        self._tables = tables

    def __enter__(self) -> None:
        for name, table in self._tables.items():
            self._connection.register(name, table)

    def __exit__(self, *_: object) -> None:
        for name in self._tables:
            self._connection.unregister(name)


def first_line(err: Exception) -> str:
    """Give the first line of an engine's message."""
    return str(err).strip().splitlines()[0]


def _walk(node: Any) -> "list[Node]":
    found: list[Node] = []
    if isinstance(node, dict):
        if "class" in node:
            found.append(node)
        for each in node.values():
            found += _walk(each)
    elif isinstance(node, list):
        for each in node:
            found += _walk(each)
    return found
