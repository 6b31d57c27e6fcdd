"""One SELECT over named tables, in an in-memory DuckDB that reaches nothing else.

DuckDB's own parser says which tables a statement names; only those are opened. Then the engine is locked: no
files save those of these tables, no network, no extensions, no settings, none of the process's variables.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from noria.errors import ConfigError, QueryStopped, StoreError
from noria.warehouse.interruptible import interruptible
from noria.warehouse.named_tables import unknown_table
from noria.warehouse.query_statement import Statement, explained, read_statement, spelled
from noria.warehouse.query_tables import View, allowed_files, register
from noria.warehouse.query_travel import Dated, named_parameters

__all__ = ["Answer", "AsOf", "Limits", "Params", "Travel", "answering", "query"]

Params = Mapping[str, Any] | Sequence[Any]

_LOCK = (
    "set enable_external_access = false; set python_enable_replacements = false; "
    "set TimeZone = 'UTC'; set lock_configuration = true"
)
_ROWS_PER_BATCH = 65_536
_FREE_SHARE = 2  # a query may take half of the memory that is free
_LEAST_BYTES = 256 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AsOf:
    """Which state of a table is wanted: a version's number, or the newest at an instant."""

    version: int | None = None
    at: datetime | None = None


Travel = Callable[[str, AsOf], Any]  # a table's name and a state of it -> what is opened; raises `NotFound`


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take.

    Parameters
    ----------
    timeout
        Wall time until its last row; None: as long as it takes.
    memory
        Of DuckDB, such as `2GB`; what does not fit goes to a temporary folder, or the query is stopped.
        Empty: half of what is free.
    threads
        0: one per core. With one, equal data gives equal answers to the last digit, and in the same order.
    """

    timeout: timedelta | None = None
    memory: str = ""
    threads: int = 0


class Answer:
    """The rows of an answer, in batches, read once; see `answering`."""

    def __init__(self, reader: pa.RecordBatchReader, run: "_Run") -> None:
        self._reader, self._run = reader, run

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types."""
        return self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        batches = iter(self._reader)
        while (batch := self._run(lambda: next(batches, None))) is not None:
            yield batch


def query(
    sql: str,
    tables: Mapping[str, Callable[[], Any]],
    *,
    params: Params | None = None,
    travel: Travel | None = None,
    limits: Limits = Limits(),
) -> pa.Table:
    """Answer one SELECT with a whole table.

    Parameters
    ----------
    sql
        DuckDB's dialect; `show tables`, `describe x`, `summarize x` and `explain` are understood too.
    tables
        Name -> what opens it: an Arrow table, a `pyarrow.dataset.Dataset`, any frame that speaks the Arrow
        PyCapsule interface, or a `View`. Names do not mind the case.
    params
        Values of `$name`, or of `?` in their order.
    travel
        What opens a table as it was.
    limits
        What it may take.

    Raises
    ------
    NotFound
        If the statement names a table that is not there; suggests the nearest, or says what makes it.
    ConfigError
        If it is no single statement that reads, or DuckDB cannot answer it.
    QueryStopped
        If it takes more time or memory than `limits` say.

    Examples
    --------
    >>> query("select sum(x) as total from numbers", {"numbers": lambda: pa.table({"x": [1, 2]})}).to_pylist()
    [{'total': 3}]
    """
    with _asked(sql, tables, params, travel, limits) as (relation, run):
        return _plain_integers(run(relation.to_arrow_table))


@contextmanager
def answering(
    sql: str,
    tables: Mapping[str, Callable[[], Any]],
    *,
    params: Params | None = None,
    travel: Travel | None = None,
    limits: Limits = Limits(),
) -> Iterator[Answer]:
    """Answer one SELECT in batches, which are made as they are read. Parameters and errors as of `query`."""
    with _asked(sql, tables, params, travel, limits) as (relation, run):
        yield Answer(run(lambda: relation.to_arrow_reader(_ROWS_PER_BATCH)), run)


@contextmanager
def _asked(
    sql: str,
    tables: Mapping[str, Callable[[], Any]],
    params: Params | None,
    travel: Travel | None,
    limits: Limits,
) -> Iterator[tuple[Any, "_Run"]]:
    """Give the bound statement, and what runs its parts."""
    with tempfile.TemporaryDirectory(prefix="noria-query-", ignore_cleanup_errors=True) as folder:
        memory = limits.memory or f"{max(_free_bytes() // _FREE_SHARE, _LEAST_BYTES) // 1_000_000}MB"
        config: dict[str, Any] = {"memory_limit": memory, "temp_directory": folder}
        if limits.threads:
            config["threads"] = limits.threads
        if limits.timeout is not None:
            config["max_execution_time"] = str(max(int(limits.timeout.total_seconds() * 1_000), 1))
        try:
            connection = duckdb.connect(":memory:", config=config)
        except duckdb.Error as err:
            raise ConfigError(f"{memory!r} is no amount of memory for a query; write such as 2GB") from err
        run = _Run(connection, lambda error: _translated(error, sql, limits, memory, connection))
        try:
            statement = read_statement(connection, sql, tables)
            _want_all_named(sql, params)
            if statement.lists_tables:
                names = pa.table({"name": pa.array(sorted(tables), pa.string())})  # of all, whatever it takes
                yield connection.from_arrow(names), run
                return
            opened = _opened(connection, statement, tables, params, travel)
            if statement.is_traced:
                _allow(connection, allowed_files(opened.values()))
            connection.execute(_LOCK).fetchall()
            for name, each in opened.items():
                register(connection, name, each, natively=statement.is_traced)
            values = _values_named(connection, statement.sql, params)
            relation = run(lambda: connection.sql(statement.sql, params=values))
            if relation is None:
                raise ConfigError("a query reads: one SELECT is wanted, this statement gives no rows")
            yield relation, run
        finally:
            connection.close()


class _Run:
    """Runs parts of a query in a thread, so that the main one hears Ctrl-C: DuckDB does so only by chance."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, told: Callable[[Exception], Exception]) -> None:
        self._connection, self._told = connection, told

    def __call__(self, work: Callable[[], Any]) -> Any:
        """Give what `work` gives. Raises what its error means."""
        try:
            return interruptible(self._connection, work)
        except (duckdb.Error, OSError, pa.ArrowException, RuntimeError) as err:
            raise self._told(err) from err


def _opened(
    connection: duckdb.DuckDBPyConnection,
    statement: Statement,
    tables: Mapping[str, Callable[[], Any]],
    params: Params | None,
    travel: Travel | None,
) -> dict[str, Any]:
    """Open what a statement names, and what the views among it name: views last, each after what it reads."""
    opened: dict[str, Any] = {}
    underway: list[str] = []

    def see(names: Sequence[str]) -> None:
        for name in names:
            if name in opened:
                continue
            if name in underway:
                raise ConfigError(f"views go in a circle: {' -> '.join([*underway, name])}")
            found = tables[name]()
            if isinstance(found, View):
                underway.append(name)
                inner = read_statement(connection, found.sql, tables)
                if inner.dated or not inner.is_traced:
                    raise ConfigError(f"the view {name!r} travels in time or pivots; make it a table")
                see(inner.tables)
                underway.pop()
            opened[name] = found

    dated = statement.dated or {}
    see([name for name in statement.tables if name not in dated])
    for name in statement.tables:
        if name in dated:
            opened[name] = _open_dated(dated[name], tables, params, travel)
    return opened


def _open_dated(
    dated: Dated, tables: Mapping[str, object], params: Params | None, travel: Travel | None
) -> Any:
    name = spelled(dated.table, tables)
    if name is None or dated.schema.lower() not in ("", "main"):
        raise unknown_table(dated.schema, dated.table, tables)
    if travel is None:
        raise ConfigError(f"{name!r} cannot be read as it was: it is one table without versions")
    value = _evaluated(dated, params)
    if dated.unit == "version":
        return travel(name, AsOf(version=value))
    return travel(name, AsOf(at=_EPOCH + timedelta(microseconds=value)))


def _evaluated(dated: Dated, params: Params | None) -> int:
    """Compute the number of a version, or the microseconds of an instant."""
    inner = (
        f"({dated.value})::bigint" if dated.unit == "version" else f"epoch_us(({dated.value})::timestamptz)"
    )
    sql = f"select {inner}"
    with duckdb.connect(":memory:") as connection:
        connection.execute(_LOCK).fetchall()
        read_statement(connection, sql, {})
        try:
            found = connection.execute(sql, _values_named(connection, sql, params)).fetchall()[0][0]
        except duckdb.Error as err:
            if "Values were not provided" in str(err):
                raise ConfigError(explained(str(err), dated.value)) from err
            wanted = "a version's number" if dated.unit == "version" else "an instant"
            raise ConfigError(
                f"{dated.value} of {dated.table!r} is not {wanted}: {str(err).splitlines()[0]}"
            ) from err
    if found is None:
        raise ConfigError(f"{dated.value} of {dated.table!r} is null; name a {dated.unit}")
    return int(found)


def _values_named(connection: duckdb.DuckDBPyConnection, sql: str, params: Params | None) -> Any:
    """Give those of the named values that a statement names; values by order as they are."""
    if not isinstance(params, Mapping):
        return params
    named = connection.extract_statements(sql)[0].named_parameters
    return {name: value for name, value in params.items() if name in named}


def _want_all_named(sql: str, params: Params | None) -> None:
    """Refuse a value that the statement does not name."""
    unknown = sorted(set(params) - named_parameters(sql)) if isinstance(params, Mapping) else []
    if unknown:
        raise ConfigError(
            f"the query names no parameter ${unknown[0]}; leave it out, or write it into the query"
        )


def _allow(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    if files:
        connection.execute("set allowed_paths = $1", [files]).fetchall()


def _translated(
    error: Exception, sql: str, limits: Limits, memory: str, connection: duckdb.DuckDBPyConnection
) -> Exception:
    message = str(error)
    if "maximum execution time" in message:
        assert limits.timeout is not None
        return QueryStopped(
            f"the query took longer than the {limits.timeout.total_seconds():g} s it may; narrow it, or give "
            "it more time (`--timeout`, `timeout=`)"
        )
    if isinstance(error, duckdb.OutOfMemoryException) or message.startswith("Out of Memory"):
        return QueryStopped(
            f"the query needs more than the {memory} of memory it may take; narrow it, or allow more "
            "with `[query] memory` in noria.toml"
        )
    if isinstance(error, duckdb.IOException):
        return StoreError(f"a file of a table cannot be read: {message.strip().splitlines()[0]}")
    return ConfigError(explained(message, sql, _columns(connection)))


def _columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Give the columns of all tables that the statement reads."""
    asked = "select distinct column_name from duckdb_columns() where not internal"
    return [row[0] for row in connection.execute(asked).fetchall()]


def _free_bytes() -> int:
    """Give the memory that is free on this machine, or in the container that this process is in."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(int(each.split()[1]) * 1024 for each in lines if each.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 2 << 30  # no Linux
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return found  # no such file, or no limit
    return min(found, max(limit - used, 0))


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
