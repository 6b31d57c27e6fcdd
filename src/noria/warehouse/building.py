"""Building one model: its rows are made, tested, and put into its table by one commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from noria.checks.quoting import quoted
from noria.errors import ConfigError, SourceError
from noria.lake.delta import Table
from noria.lake.files import Files
from noria.lake.schema import as_table
from noria.lake.tables import Tables
from noria.warehouse.graph import Graph
from noria.warehouse.models import Model, Models
from noria.warehouse.partitions import Partition, Span
from noria.warehouse.records import TestResult
from noria.warehouse.session import BUILT, BuildFailed, Session, within
from noria.warehouse.snapshots import Snapshot, snapshot_of
from noria.warehouse.storing import kept_outside, store
from noria.warehouse.touching import lookback_of, widened

__all__ = ["Builder", "Made"]

# What a function of a project raises when it is wrong, and what it is made of raises.
_MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError,
    RuntimeError, TypeError, ValueError, pa.ArrowException, duckdb.Error,
)  # fmt: skip
_KEPT = "__noria_kept"


@dataclass(frozen=True, slots=True)
class Made:
    """What a build has come to.

    Attributes
    ----------
    table
        As it is now; None of a view.
    read
        The tables that its rows came from.
    partitions
        Beginnings of those that were made; None: all of it.
    blocking
        Whether a test failed, so that the old table stayed.
    """

    table: Table | None
    rows: int
    read: dict[str, Snapshot]
    partitions: tuple[datetime, ...] | None
    tests: tuple[TestResult, ...]
    blocking: bool
    is_whole: bool

    @property
    def seen(self) -> dict[str, int]:
        """Delta's versions of the tables that were read."""
        return {name: table.version for name, table in self.read.items()}


class Builder:
    """Builds models in one session, over the tables of one lake."""

    def __init__(self, models: Models, graph: Graph, tables: Tables, files: Files, session: Session) -> None:
        self._models, self._graph = models, graph
        self.tables = tables
        self._files, self._session = files, session

    def build(self, name: str, *, spans: Sequence[Span] | None, run: str) -> Made:
        """Build a model, or the partitions of it within spans.

        Raises
        ------
        BuildFailed
            If it cannot be built. Its table is as it was.
        """
        model = self._graph.models[name]
        self._session.begin(name)
        try:
            if model.is_view:
                return self._look_at(model)
            if model.header.materialize == "incremental":
                self._want_local(model)
            made = self._build(model, spans, run) or self._build(model, None, run)
            assert made is not None  # as a whole it always comes to something
            return made
        except (SourceError, ConfigError) as err:
            raise BuildFailed(str(err)) from err
        finally:
            self._session.forget()

    def local_columns(self, model: Model) -> tuple[dict[str, str], str]:
        """Give the inputs that count in their own partition only, by column, and why others do not."""
        header = model.header
        assert header.partition is not None
        if model.language == "python":
            return dict(header.inputs), "the model says of no input in which column its time is"
        changing = self._graph.changing_of(model.name)
        if changing:
            return dict(header.inputs), f"{changing} gives something else each time"
        from noria.warehouse.locality import find_locality  # it loads sqlglot, which others do without

        found = find_locality(
            model.sql,
            partition=header.partition,
            schemas={each: self.tables.get(each).schema.names for each in self._graph.inputs_of(model.name)},
            views={each: self._graph.models[each].sql for each in self._graph.views_of(model.name)},
            waive_windows=bool(header.lookback),
        )
        return found.columns | header.inputs, "; ".join(found.reasons)

    def _want_local(self, model: Model) -> None:
        columns, why = self.local_columns(model)
        if not columns and self._graph.inputs_of(model.name):
            raise BuildFailed(
                f"it is incremental, but rows of no input count in their own partition only ({why}); make it "
                "a table, or promise it: `input: TABLE(COLUMN)`, `lookback: 7d`"
            )

    def _build(self, model: Model, spans: Sequence[Span] | None, run: str) -> Made | None:
        """Build a model; None if the columns have changed, so that it has to be built as a whole."""
        session, header = self._session, model.header
        partition = header.partition if header.materialize == "incremental" else None
        read = self._offer(model, spans)
        column = "" if partition is None else partition.column
        if model.language == "python":
            session.take(self._called(model), spans=spans, column=column)
        else:
            is_tested = bool(model.rules or self._graph.tests.get(model.name))
            keep = partition is not None or is_tested or "pivot" in model.sql.lower()  # DuckDB keeps no pivot
            session.build(model.sql, spans=spans, column=column, keep=keep)
        schema = session.schema(model.name)
        if partition is not None:
            partition = _named(partition, schema)
        table = self.tables.find(model.name)
        if spans is not None and (table is None or not table.schema.equals(schema)):
            if table is not None and table.files:
                session.forget()
                return None
            table = None
        tests = self._test(model, table, partition, spans, read)
        if any(each.severity == "block" for each in tests):
            return Made(table, 0, read, None, tests, blocking=True, is_whole=spans is None)
        partitions = None if spans is None or partition is None else self._partitions(partition)
        reader = session.rows(self._order(model, partition, schema), schema)
        stored = store(
            self.tables,
            self._files,
            model.name,
            reader,
            partition=partition,
            spans=spans,
            facts={"model": model.path, "digest": model.digest, "run": run},
        )
        return Made(
            stored.table, stored.table.rows, read, partitions, tests, blocking=False, is_whole=spans is None
        )

    def _look_at(self, model: Model) -> Made:
        """Test a view."""
        read = self._offer(model, None)
        self._session.view(model.name, model.sql)
        name = quoted(model.name)
        tests = self._run_tests(model, table=name, whole=name)
        rows = int(self._session.run(f"select count(*) from {name}")[0][0])
        blocking = any(each.severity == "block" for each in tests)
        return Made(None, rows, read, None, tests, blocking=blocking, is_whole=True)

    def _offer(self, model: Model, spans: Sequence[Span] | None) -> dict[str, Snapshot]:
        """Let the session see what a model reads, and give it."""
        columns: dict[str, str] = {}
        if spans is not None:
            columns, _ = self.local_columns(model)
        wide = widened(spans or (), lookback_of(model.header.lookback))
        read = {}
        for name in self._graph.inputs_of(model.name):
            table = self.tables.get(name)
            read[name] = snapshot_of(table)
            limited = wide if name in columns else ()
            column = next(
                (each for each in table.schema.names if each.lower() == columns.get(name, "").lower()), ""
            )
            if limited and not column:
                raise BuildFailed(
                    f"{name} has no column {columns[name]!r}; it has {', '.join(table.schema.names)}"
                )
            self._session.offer(name, read[name], spans=limited, column=column)
        for name in self._graph.views_of(model.name):
            try:
                self._session.view(name, self._graph.models[name].sql)
            except BuildFailed as err:
                raise BuildFailed(f"the view {name}: {err}", f"the view {name}: {err.recorded}") from err
        return read

    def _called(self, model: Model) -> pa.Table:
        function = self._models.functions[model.name]
        tables = [self._session.table(each) for each in function.inputs]
        try:
            made = function(*tables)
        except _MISTAKES as err:
            raise BuildFailed(
                f"{model.path}: {type(err).__name__}: {err}", f"{model.path}: {type(err).__name__}"
            ) from err
        return as_table(made, name=model.name)

    def _test(
        self,
        model: Model,
        table: Table | None,
        partition: Partition | None,
        spans: Sequence[Span] | None,
        read: Mapping[str, Snapshot],
    ) -> tuple[TestResult, ...]:
        session = self._session
        queries = self._graph.tests.get(model.name, ())
        rules = [*model.rules, *(each.rule for each in queries)]
        whole = BUILT
        if any(each.kind in ("unique", "query") for each in rules):
            if spans is not None and partition is not None and table is not None:
                kept, split = kept_outside(table, partition, spans)
                session.offer(_KEPT, snapshot_of(table, [*kept, *split]))
                outside = f"not {within(partition.column, spans)}"
                whole = f"(select * from {_KEPT} where {outside} union all by name select * from {BUILT})"
            if queries:
                self._offer_for_tests(model, f"select * from {whole}", read)
                whole = quoted(model.name)
        return self._run_tests(model, table=BUILT, whole=whole)

    def _offer_for_tests(self, model: Model, sql: str, read: Mapping[str, Snapshot]) -> None:
        """Let the session see all that test queries name: all rows of it, not those of some partitions."""
        self._session.view(model.name, sql)
        wanted: dict[str, None] = {}
        for test in self._graph.tests[model.name]:
            for each in test.tables:
                for other in self._with_views(each.name):
                    wanted[other] = None
        for name in wanted:
            if name == model.name:
                continue
            if name in self._graph.models and self._graph.models[name].is_view:
                self._session.view(name, self._graph.models[name].sql)
            elif name in read:
                self._session.offer(name, read[name])
            elif self.tables.find(name) is not None:
                self._session.offer(name, snapshot_of(self.tables.get(name)))

    def _with_views(self, name: str) -> list[str]:
        if name not in self._graph.models or not self._graph.models[name].is_view:
            return [name]
        return [*self._graph.inputs_of(name), *self._graph.views_of(name), name]

    def _run_tests(self, model: Model, *, table: str, whole: str) -> tuple[TestResult, ...]:
        found = []
        for rule in (*model.rules, *(each.rule for each in self._graph.tests.get(model.name, ()))):
            try:
                failed = self._session.failing(rule, table=table, whole=whole)
            except BuildFailed as err:
                raise BuildFailed(f"test {rule.name}: {err}", f"test {rule.name}: {err.recorded}") from err
            if failed is not None:
                found.append(failed)
        return tuple(found)

    def _partitions(self, partition: Partition) -> tuple[datetime, ...]:
        column = f"date_trunc('{partition.unit}', {quoted(partition.column)}::timestamptz)"
        rows = self._session.run(f"select distinct {column}::timestamp as start from {BUILT} order by 1")
        return tuple(each[0].replace(tzinfo=UTC) for each in rows if each[0] is not None)

    def _order(self, model: Model, partition: Partition | None, schema: pa.Schema) -> list[str]:
        """Give what rows are sorted by, so that the same rows are the same files."""
        if partition is None and model.is_ordered:
            return []
        keys = [quoted(each) for each in model.header.key]
        if not keys:  # a hash of all is sorted faster than all, and equal rows have no order
            columns = [quoted(each) for each in schema.names]
            keys = [columns[0], f"hash({', '.join(columns)})"]
        if partition is None:
            return keys
        return [f"date_trunc('{partition.unit}', {quoted(partition.column)})", *keys]


def _named(partition: Partition, schema: pa.Schema) -> Partition:
    """Give a partition with its column as the table writes it."""
    for each in schema.names:
        if each.lower() == partition.column.lower():
            return Partition(partition.unit, each)
    raise BuildFailed(
        f"its partition is {partition}, and it gives no column {partition.column!r}; "
        f"it gives {', '.join(schema.names)}"
    )
