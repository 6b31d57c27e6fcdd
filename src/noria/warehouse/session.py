"""DuckDB as models are run in it: it sees the tables it is given and nothing else.

What does not fit into its memory goes into a folder of the project.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from noria.clock import format_instant
from noria.errors import ConfigError
from noria.lake.schema import storable_schema
from noria.warehouse.header import Rule
from noria.warehouse.interruptible import interruptible
from noria.warehouse.partitions import Span, as_literal
from noria.warehouse.records import TestResult

__all__ = ["BuildFailed", "Session", "quoted", "within"]

BUILT = "__noria_built"
_MADE = "__noria_made"
_EXAMPLES = 1
_BATCH_ROWS = 65_536
_WIDE = {"HUGEINT": "BIGINT", "UHUGEINT": "BIGINT"}  # a sum of integers is no integer of 64 bits to DuckDB
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
        spill.parent.mkdir(parents=True, exist_ok=True)
        self._memory = memory
        settings: dict[str, str | int] = {"temp_directory": str(spill)}
        if memory:
            settings["memory_limit"] = memory
        if threads:
            settings["threads"] = threads
        try:
            self._connection = duckdb.connect(":memory:", config=settings)
        except duckdb.Error as err:
            raise ConfigError(f"[warehouse] memory or threads: {_first(err)}") from err
        self.run(
            "set enable_external_access = false; set python_enable_replacements = false; "
            "set TimeZone = 'UTC'; set lock_configuration = true"
        )
        self._offered: dict[str, str] = {}
        self._built = ""
        self._reading: pa.RecordBatchReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement of noria's own, and give its rows."""
        try:
            found: list[tuple[Any, ...]] = self._do(lambda: self._connection.execute(sql).fetchall())
        except duckdb.Error as err:
            raise self._explained(err) from err
        return found

    def offer(self, name: str, rows: Any, *, spans: Sequence[Span] = (), column: str = "") -> None:
        """Let statements see a table under a name: all of its rows, or those within `spans` of `column`."""
        if not spans:
            self._connection.register(name, rows)
            self._offered[name] = "table"
            return
        whole = f"__noria_all_{name}"
        self._connection.register(whole, rows)
        self._offered[whole] = "table"
        self.view(name, f"select * from {quoted(whole)} where {within(column, spans)}")

    def view(self, name: str, sql: str) -> None:
        """Let statements see a SELECT under a name."""
        self.run(f"create or replace view {quoted(name)} as {_alone(sql)}")
        self._offered[name] = "view"

    def forget(self) -> None:
        """Take back all that was offered, and what was built."""
        if self._reading is not None:  # an open result, such as of a build that failed, lets nothing else run
            self._reading.close()
            self._reading = None
        if self._built:
            self.run(f"drop {self._built} if exists {BUILT}")
            self._built = ""
        self.take_back()

    def take_back(self) -> None:
        """Take back all that was offered."""
        for name, kind in reversed(list(self._offered.items())):
            if name == _MADE and self._built:
                continue
            if kind == "view":
                self.run(f"drop view if exists {quoted(name)}")
            else:
                self._connection.unregister(name)
            del self._offered[name]

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
        self.run(f"create temp {kind} {BUILT} as select * from ({_alone(sql)}\n) as model{limited}")
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
        made = self._connection.sql(f"select {self._selected()} from {BUILT} limit 0").to_arrow_table()
        try:
            return storable_schema(made.schema, name=name)
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

    def columns(self) -> dict[str, str]:
        """Give the built columns with DuckDB's types."""
        relation = self._connection.sql(f"select * from {BUILT} limit 0")
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def columns_of(self, sql: str) -> list[str]:
        """Name the columns that a SELECT gives."""
        try:
            return list(self._connection.sql(f"select * from ({_alone(sql)}\n) as model limit 0").columns)
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
        count = int(self.run(f"select count(*) from ({sql}\n) as failing")[0][0])
        if not count:
            return None
        found = self._connection.sql(f"select * from ({sql}\n) as failing limit {_EXAMPLES}").to_arrow_table()
        example = ", ".join(f"{name} = {_shown(value)}" for name, value in found.to_pylist()[0].items())
        return TestResult(name=rule.name, severity=rule.severity, failing=count, example=example[:300])

    def _do(self, work: Callable[[], T]) -> T:
        return interruptible(self._connection, work)

    def _selected(self) -> str:
        return ", ".join(
            f"cast({quoted(name)} as {_WIDE[kind]}) as {quoted(name)}" if kind in _WIDE else quoted(name)
            for name, kind in self.columns().items()
        )

    def _read(self, reader: pa.RecordBatchReader) -> Iterable[pa.RecordBatch]:
        batches = iter(reader)
        try:
            while (batch := self._do(lambda: next(batches, None))) is not None:
                yield batch
        except (duckdb.Error, pa.ArrowInvalid, OSError) as err:
            raise self._explained(err) from err

    def _explained(self, err: Exception) -> BuildFailed:
        told = _first(err)
        if isinstance(err, duckdb.OutOfMemoryException) or "Out of Memory" in told:
            limit = self._memory or "what the machine has"
            return BuildFailed(
                f"it needs more memory than {limit}: {told}; raise [warehouse] memory, or make it incremental"
            )
        if isinstance(err, duckdb.PermissionException):
            return BuildFailed(f"it reaches for something outside of the lake: {told}")
        place = re.search(r"^LINE (\d+): (.*)$", str(err), re.MULTILINE)
        more = f" ({place[2].strip()})" if place else ""
        if isinstance(
            err, duckdb.ConversionException | duckdb.InvalidInputException | duckdb.OutOfRangeException
        ):
            return BuildFailed(f"{told}{more}", f"{_VALUES.sub(chr(39) + '…' + chr(39), told)}{more}")
        return BuildFailed(f"{told}{more}")


def quoted(name: str) -> str:
    """Write a name so that SQL takes it as it is."""
    return '"' + name.replace('"', '""') + '"'


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
            return f"select * from {table} where not ({rule.sql})"
        case "query":
            return _alone(rule.sql)


def _alone(sql: str) -> str:
    """Give a statement without what ends it."""
    return sql.strip().rstrip(";").rstrip()


def _first(err: Exception) -> str:
    lines = [each.strip() for each in str(err).strip().splitlines() if each.strip()]
    told = lines[0].split(": ", 1)[-1] if lines else type(err).__name__
    hint = next((each for each in lines if each.startswith("Candidate bindings")), "")
    return f"{told} {hint}".strip()


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
