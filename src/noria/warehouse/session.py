"""DuckDB as models are run in it: it sees the tables it is given and nothing else.

Of the disk it may read one folder, in which the files of those tables are as hard links while a model is
built. What does not fit into its memory goes into the folder around that one.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import duckdb
import pyarrow as pa

from noria.checks.quoting import quoted
from noria.clock import format_instant
from noria.errors import ConfigError
from noria.lake.schema import storable_schema
from noria.warehouse.header import Rule
from noria.warehouse.hints import hinted, names_no_column
from noria.warehouse.interruptible import interruptible_in, worker
from noria.warehouse.parquet import is_plain, parquet_sql
from noria.warehouse.partitions import Span, as_literal
from noria.warehouse.records import TestResult

if TYPE_CHECKING:
    from noria.warehouse.snapshots import Snapshot

__all__ = ["BUILT", "BuildFailed", "Session", "within"]

BUILT = "__noria_built"
_MADE = "__noria_made"
_WHOLE = "__noria_all_"
_OWN = re.compile(r'"?__noria_(?:all_)?(\w+)"?')
_READ = "read"  # the folder of links
_EXAMPLES = 1
_BATCH_ROWS = 65_536
_WIDE = {"HUGEINT": "BIGINT", "UHUGEINT": "BIGINT"}  # a sum of integers is no integer of 64 bits to DuckDB
_LINE = re.compile(r"^LINE (\d+): ", re.MULTILINE)
_VALUES = re.compile(r"'[^']*'")

T = TypeVar("T")


class BuildFailed(Exception):
    """Why a model could not be built. `recorded` holds no values of rows."""

    def __init__(self, message: str, recorded: str | None = None) -> None:
        super().__init__(message)
        self.recorded = recorded or message


class Session:
    """One DuckDB for all models of a transform.

    Parameters
    ----------
    spill
        The folder for what does not fit into memory.
    memory
        DuckDB's own words, such as `2GB`; empty: four fifths of the machine's.
    threads
        0: as many as there are CPUs.
    """

    def __init__(self, *, spill: Path, memory: str = "", threads: int = 0) -> None:
        self._spill = spill
        self._memory = memory
        settings: dict[str, str | int] = {"temp_directory": str(spill)}
        if memory:
            settings["memory_limit"] = memory
        if threads:
            settings["threads"] = threads
        self._reach = spill / _READ
        self._reach.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = duckdb.connect(":memory:", config=settings)
        except duckdb.Error as err:
            raise ConfigError(f"[warehouse] memory or threads: {_first(str(err))}") from err
        self._thread = worker()
        self._connection.execute("set allowed_directories = $1", [[str(self._reach)]]).fetchall()
        self._set(
            "set enable_external_access = false; set python_enable_replacements = false; "
            "set TimeZone = 'UTC'; set lock_configuration = true"
        )
        self._offered: dict[str, str] = {}
        self._links: dict[str, Path] = {}
        self._types: dict[str, str] = {}  # of what was built
        self._model = self._built = ""
        self._reading: pa.RecordBatchReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._thread.shutdown()
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def begin(self, model: str) -> None:
        """Build a model of this name from now on: messages call it so."""
        self._model = model

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement of noria's own over what was built, and give its rows."""
        return self._run(sql)

    def offer(self, name: str, rows: "Snapshot", *, spans: Sequence[Span] = (), column: str = "") -> None:
        """Let statements see a table under a name: all of its rows, or those within `spans` of `column`."""
        if not spans:
            self._see(name, rows)
            return
        whole = f"{_WHOLE}{name}"
        self._see(whole, rows.narrowed(column, spans))
        self.view(name, f"select * from {quoted(whole)} where {within(column, spans)}")

    def view(self, name: str, sql: str) -> None:
        """Let statements see a SELECT under a name."""
        self._run(f"create or replace view {quoted(name)} as\n", sql)
        self._offered[name] = "view"

    def forget(self) -> None:
        """Take back all that was offered, and what was built."""
        if self._reading is not None:  # an open result, such as of a build that failed, lets nothing else run
            self._reading.close()
            self._reading = None
        if self._built:
            self._set(f"drop {self._built} if exists {BUILT}")
            self._built = ""
        for name, kind in reversed(list(self._offered.items())):
            if kind == "view":
                self._set(f"drop view if exists {quoted(name)}")
            else:
                self._connection.unregister(name)
            del self._offered[name]
        for link in self._links:
            Path(link).unlink(missing_ok=True)
        self._links.clear()

    def build(
        self, sql: str, *, spans: Sequence[Span] | None = None, column: str = "", keep: bool = True
    ) -> None:
        """Run a model: its rows within `spans` of `column`, and those without one, which tests refuse.

        Parameters
        ----------
        keep
            Keep the rows here, to be looked at several times; else they are made when they are asked for.
        """
        limited = "" if spans is None else f" where {within(column, spans)} or {quoted(column)} is null"
        kind = "table" if keep else "view"
        before = f"create temp {kind} {BUILT} as select * from (\n"
        self._run(before, sql, f"\n) as model{limited}")
        self._built = kind

    def take(self, rows: pa.Table, *, spans: Sequence[Span] | None = None, column: str = "") -> None:
        """Take rows that a function has made, as `build` does."""
        self._connection.register(_MADE, rows)
        self._offered[_MADE] = "table"
        self.build(f"select * from {_MADE}", spans=spans, column=column, keep=False)

    def schema(self, name: str) -> pa.Schema:
        """Give the columns that a table of the built rows has.

        Raises
        ------
        BuildFailed
            If a table cannot hold one of them.
        """
        made = self._connection.sql(f"from {BUILT} limit 0")
        self._types = dict(zip(made.columns, map(str, made.types), strict=True))
        schema = made.to_arrow_table().schema
        for place, kind in enumerate(self._types.values()):
            if kind in _WIDE:
                schema = schema.set(place, schema.field(place).with_type(pa.int64()))
        try:
            return storable_schema(schema, name=name)
        except ValueError as err:
            raise BuildFailed(f"{err}; cast it in the model") from err

    def rows(self, order: Iterable[str], schema: pa.Schema) -> pa.RecordBatchReader:
        """Give the built rows in an order, batch by batch."""
        keys = ", ".join(order)
        ordered = f" order by {keys}" if keys else ""
        try:
            selected = f"select {self._selected()} from {BUILT}{ordered}"
            reader = self._do(lambda: self._connection.sql(selected).to_arrow_reader(_BATCH_ROWS))
        except duckdb.Error as err:
            raise self._explained(err) from err
        self._reading = reader
        return pa.RecordBatchReader.from_batches(
            schema, (each for batch in self._read(reader) for each in _cast(batch, schema))
        )

    def table(self, name: str) -> pa.Table:
        """Give the rows that statements see under a name."""
        try:
            return self._connection.sql(f"select * from {quoted(name)}").to_arrow_table()
        except duckdb.Error as err:
            raise self._explained(err) from err

    def failing(self, rule: Rule, *, table: str, whole: str) -> TestResult | None:
        """Run a test; None if it holds.

        Parameters
        ----------
        table
            The rows that are new.
        whole
            All rows: what a key has to be unique in.
        """
        sql = _failing_rows(rule, table=table, whole=whole)
        text = sql if rule.kind == "query" else ""  # of the others the name says it
        count = int(self._run("select count(*) from (\n", sql, "\n) as failing", shown=text)[0][0])
        if not count:
            return None
        found = self._connection.sql(
            f"select * from (\n{sql}\n) as failing limit {_EXAMPLES}"
        ).to_arrow_table()
        example = ", ".join(f"{name} = {_shown(value)}" for name, value in found.to_pylist()[0].items())
        return TestResult(name=rule.name, severity=rule.severity, failing=count, example=example[:300])

    def _do(self, work: Callable[[], T]) -> T:
        return interruptible_in(self._thread, self._connection, work)

    def _set(self, sql: str) -> None:
        """Run a statement that takes no time, so that no thread is needed to hear Ctrl-C meanwhile."""
        try:
            self._connection.execute(sql).fetchall()
        except duckdb.Error as err:
            raise self._explained(err) from err

    def _run(
        self, before: str, sql: str = "", after: str = "", *, shown: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement around one of the project's, which begins on its second line.

        Parameters
        ----------
        shown
            The text whose lines messages tell; as a rule the project's statement.
        """
        statement = f"{before}{_alone(sql)}{after}"
        try:
            found: list[tuple[Any, ...]] = self._do(lambda: self._connection.execute(statement).fetchall())
        except duckdb.Error as err:
            raise self._explained(err, sql if shown is None else shown) from err
        return found

    def _see(self, name: str, rows: "Snapshot") -> None:
        """Show the rows of a table: files of this machine as they are, all else through Arrow."""
        links = self._linked(rows.paths)
        if links and is_plain(links, rows.schema):
            files = parquet_sql(links, rows.schema, may_hold_nan=rows.may_hold_nan)
            self._set(f"create or replace view {quoted(name)} as {files}")
            self._offered[name] = "view"
            return
        self._connection.register(name, rows.dataset() if rows.files else rows.schema.empty_table())
        self._offered[name] = "table"

    def _linked(self, paths: Sequence[Path] | None) -> list[str] | None:
        """Put files where DuckDB may read them; None where that cannot be, as between two file systems."""
        links = []
        for path in paths or ():
            link = f"{self._reach}/{len(self._links)}.parquet"
            try:
                os.link(path, link)
            except OSError:
                return None
            self._links[link] = path
            links.append(link)
        return links

    def _selected(self) -> str:
        return ", ".join(
            f"cast({quoted(name)} as {_WIDE[kind]}) as {quoted(name)}" if kind in _WIDE else quoted(name)
            for name, kind in self._types.items()
        )

    def _read(self, reader: pa.RecordBatchReader) -> Iterable[pa.RecordBatch]:
        batches = iter(reader)
        try:
            while (batch := self._do(lambda: next(batches, None))) is not None:
                yield batch
        except (duckdb.Error, pa.ArrowInvalid, OSError) as err:
            raise self._explained(err) from err

    def _explained(self, err: Exception, sql: str = "") -> BuildFailed:
        """Give an error as the model's, in the names of the project."""
        columns = self._columns() if names_no_column(str(err)) else ()
        told = self._named(_first(hinted(str(err), columns)))
        if isinstance(err, duckdb.OutOfMemoryException) or "Out of Memory" in told:
            limit = self._memory or "what the machine has"
            return BuildFailed(
                f"it needs more memory than {limit}: {told}; raise [warehouse] memory, or make it incremental"
            )
        if isinstance(err, duckdb.PermissionException):
            return BuildFailed(f"it reaches for something outside of the lake: {told}")
        more = _place(str(err), sql)
        if isinstance(
            err, duckdb.ConversionException | duckdb.InvalidInputException | duckdb.OutOfRangeException
        ):
            return BuildFailed(f"{told}{more}", f"{_VALUES.sub(chr(39) + '…' + chr(39), told)}{more}")
        return BuildFailed(f"{told}{more}")

    def _columns(self) -> list[str]:
        """Name the columns of all that was offered and built."""
        asked = "select distinct column_name from duckdb_columns() where not internal"
        return [row[0] for row in self._connection.execute(asked).fetchall()]

    def _named(self, told: str) -> str:
        """Write the project's names in the place of those that are only known here."""
        for link, path in self._links.items():
            told = told.replace(link, str(path))
        own = {"built": self._model, "made": self._model, "kept": self._model}
        return _OWN.sub(lambda found: own.get(found[1], found[1]), told)


def within(column: str, spans: Sequence[Span]) -> str:
    """Write that a column lies within spans."""
    name = quoted(column)
    parts = [f"({name} >= {as_literal(each.low)} and {name} < {as_literal(each.high)})" for each in spans]
    return f"({' or '.join(parts)})" if parts else "false"


def _failing_rows(rule: Rule, *, table: str, whole: str) -> str:
    names = [quoted(each) for each in rule.columns]
    match rule.kind:
        case "not_null":
            return f"select * from {table} where {' or '.join(f'{each} is null' for each in names)}"
        case "unique":
            keys = ", ".join(names)
            return f"select {keys}, count(*) as rows from {whole} group by {keys} having count(*) > 1"
        case "row":
            return f"select * from {table} where not (\n{rule.sql}\n)"
        case "query":
            return _alone(rule.sql)


def _alone(sql: str) -> str:
    """Give a statement without what ends it."""
    return sql.strip().rstrip(";").rstrip()


def _first(message: str) -> str:
    """Give the first line of a message without the kind of the error."""
    return message.strip().splitlines()[0].split(": ", 1)[-1].strip()


def _place(message: str, sql: str) -> str:
    """Tell the line of the project's statement that a message is about."""
    found = _LINE.search(message)
    lines = sql.splitlines()
    number = 0 if found is None else int(found[1]) - 1  # the first is of noria's own
    return f" (line {number}: {lines[number - 1].strip()})" if 0 < number <= len(lines) else ""


def _shown(value: object) -> str:
    return format_instant(value) if isinstance(value, datetime) else repr(value)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> list[pa.RecordBatch]:
    if batch.schema.equals(schema):
        return [batch]
    columns: Mapping[str, pa.ChunkedArray] = {
        each.name: column.cast(each.type)
        for each, column in zip(schema, pa.Table.from_batches([batch]).columns, strict=True)
    }
    made: list[pa.RecordBatch] = pa.table(columns, schema=schema).to_batches()
    return made
