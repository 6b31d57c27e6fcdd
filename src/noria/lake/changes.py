"""Changes that take rows out of a table: a range that is replaced, rows of a condition that are deleted.

Each is one commit, made only upon the state it was worked out on; where another commit came first, it is
worked out again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import RLock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import format_instant
from noria.errors import ConfigError, Conflict, NotFound, SourceError
from noria.lake.data_files import DataFile, may_hold, stem_of
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.delta import Table
from noria.lake.incoming import Incoming
from noria.lake.ingest import Ingestor
from noria.lake.recording import Batch, Changed, IngestRecords
from noria.lake.rejected import set_aside
from noria.lake.rewriting import Rewritten, without
from noria.lake.rows import Rows
from noria.lake.rowsql import Flags, RowSql
from noria.lake.schema import fill, storable_schema
from noria.lake.tables import Tables
from noria.records import Cost, Version

__all__ = ["Changes", "Range"]

_ATTEMPTS = 50


class Range:
    """The rows with `low <= column < high`; None leaves a side open, both: all rows, also those without."""

    def __init__(self, column: str, low: Any, high: Any) -> None:
        if low is not None and high is not None and not low < high:
            raise ConfigError(f"the range of {column!r} from {low!r} to {high!r} is empty; low is below high")
        self.column = column
        self.low = low
        self.high = high

    @property
    def told(self) -> dict[str, Any]:
        """The range as records name it."""
        return {"column": self.column, "low": _plain(self.low), "high": _plain(self.high)}

    def files(self, files: Sequence[DataFile]) -> list[DataFile]:
        """Give the files that may hold such rows."""
        return [each for each in files if self._is_all or may_hold(each, self.column, self.low, self.high)]

    def inside(self, rows: pa.Table) -> Flags:
        """Say which rows are in the range."""
        if self._is_all:
            return np.ones(rows.num_rows, dtype=bool)
        column = rows[self.column]
        flags: Flags = np.asarray(pc.is_valid(column))
        try:
            if self.low is not None:
                flags &= np.asarray(
                    pc.greater_equal(column, self._scalar(self.low, column.type)).fill_null(False)
                )
            if self.high is not None:
                flags &= np.asarray(pc.less(column, self._scalar(self.high, column.type)).fill_null(False))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as err:
            raise ConfigError(
                f"the range from {self.low!r} to {self.high!r} is not of column {self.column!r}, which is "
                f"{column.type}: {err}"
            ) from err
        return flags

    @property
    def _is_all(self) -> bool:
        return self.low is None and self.high is None

    def _scalar(self, value: Any, kind: pa.DataType) -> pa.Scalar:
        return pa.scalar(value, kind)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A table as a change was worked out on it, and the change."""

    table: Table | None
    version: int
    plan: Rewritten
    mine: Sequence[DataFile] = ()


class Changes:
    """Carries out what takes rows away. Other threads may ingest meanwhile, into other tables."""

    def __init__(
        self,
        tables: Tables,
        ingestor: Ingestor,
        records: IngestRecords | None,
        sql: RowSql,
        guard: RLock,
    ) -> None:
        self._tables = tables
        self._ingestor = ingestor
        self._records = records
        self._sql = sql
        self._guard = guard

    def overwrite(
        self, target: Dataset | str, frame: ArrowFrame | Rows, span: Range, batch: Batch
    ) -> Changed:
        """See `noria.lake.store.Lake.overwrite`."""
        began = time.perf_counter(), time.process_time()
        with self._ingestor.alone(batch.dataset):
            before = self._done_before(batch, "overwritten")
            if before is not None:
                return before
            incoming = Incoming(frame, name=batch.dataset)
            if isinstance(target, Dataset):
                return self._overwrite_dataset(target, incoming, span, batch, began)
            return self._overwrite_table(incoming, span, batch)

    def delete(
        self, name: str, where: str, batch: Batch | None, *, reason: str, at: datetime, cause: str | None
    ) -> Changed:
        """See `noria.lake.store.Lake.delete`."""
        began = time.perf_counter(), time.process_time()
        with self._ingestor.alone(name):
            if batch is not None:
                before = self._done_before(batch, "deleted")
                if before is not None:
                    return before
            for _ in range(_ATTEMPTS):
                table, version, files = self._state(name)
                if table is None:
                    raise NotFound("table", name, self._tables.names())
                with self._guard:
                    self._ingestor.settling.settle(table)
                if not files:
                    self._sql.holds(table.schema.empty_table(), where)
                plan = without(
                    table, files, lambda rows: self._sql.holds(rows, where), columns=table.schema.names
                )
                if not plan.rows and batch is None:
                    return Changed("nothing", None)
                named = batch or Batch(name, version + 1, "delete", cause, at, "delete")
                facts = named.facts("deleted", more={"reason": reason}, removed=plan.rows)
                seen = _Seen(table, version, plan)
                done = self._commit(seen, named, facts, began=began, txn=batch is not None)
                if done is not None:
                    return Changed("done", done[0], removed=plan.rows)
        raise _too_busy(name)

    def _overwrite_dataset(
        self,
        dataset: Dataset,
        incoming: Incoming,
        span: Range,
        batch: Batch,
        began: tuple[float, float],
    ) -> Changed:
        with self._ingestor.arriving(dataset, incoming, batch, apart=True) as arrival:
            if arrival is not None:
                _want_column(arrival.schema, span.column)
            for piece in () if arrival is None else arrival.kept.batches():
                _want_inside(pa.Table.from_batches([piece]), span)
            schema = arrival.schema if arrival is not None else None
            index = self._ingestor.index_of(dataset)
            for _ in range(_ATTEMPTS):
                table, version, files = self._state(dataset.name)
                if table is None and arrival is None:
                    return Changed("nothing", None)
                plan = Rewritten()
                if table is not None:
                    _want_column(table.schema, span.column)
                    plan = without(table, span.files(files), span.inside, columns=[span.column])
                mine: list[DataFile] = []
                if arrival is not None:
                    if table is not None:
                        gone = {each.path for each in plan.old}
                        stay = [*(each for each in files if each.path not in gone), *plan.new]
                        arrival.hold_against(table, stay)
                    self._ingestor.block(batch, arrival)
                    set_aside(self._tables, self._guard, batch, arrival.rejects)
                    mine = arrival.kept.files()
                added = sum(each.rows for each in mine)
                rejected = 0 if arrival is None else arrival.rejects.rows
                facts = batch.facts(
                    "overwritten",
                    () if arrival is None else arrival.findings,
                    more=span.told,
                    accepted=added,
                    rejected=rejected,
                    removed=plan.rows,
                )
                seen = _Seen(table, version, plan, mine)
                done = self._commit(seen, batch, facts, began=began, schema=schema)
                if done is not None:
                    if arrival is not None:
                        index.add(arrival.hashes, mine)
                    return Changed("done", done[0], added, plan.rows, rejected)
        raise _too_busy(dataset.name)

    def _overwrite_table(self, incoming: Incoming, span: Range, batch: Batch) -> Changed:
        name = batch.dataset
        writer, schema, added = None, None, 0
        for piece in incoming.pieces(None):
            if not isinstance(piece, pa.Table):
                raise SourceError(f"{name!r}: row {piece[0].row} cannot be read: {piece[0].reason}")
            with self._guard:
                table = self._tables.find(name)
                if table is None:
                    table = self._tables.create(name, storable_schema(piece.schema, name=name))
                table.widen(storable_schema(piece.schema, name=name))
                if writer is None:
                    schema = table.schema
                    writer = table.writer(stem_of(batch.number, batch.app))
            _want_column(piece.schema, span.column)
            rows = fill(piece, schema, name=name)
            _want_inside(rows, span)
            writer.write(rows)
            added += rows.num_rows
        mine = [] if writer is None else writer.close()
        for _ in range(_ATTEMPTS):
            table, version, files = self._state(name)
            if table is None:
                return Changed("nothing", None)
            _want_column(table.schema, span.column)
            plan = without(table, span.files(files), span.inside, columns=[span.column])
            if self._commit(_Seen(table, version, plan, mine), batch, {}) is not None:
                return Changed("done", None, added, plan.rows)
        raise _too_busy(name)

    def _commit(
        self,
        seen: "_Seen",
        batch: Batch,
        facts: dict[str, Any],
        *,
        began: tuple[float, float] | None = None,
        txn: bool = True,
        schema: pa.Schema | None = None,
    ) -> tuple[Version | None] | None:
        """Commit upon the state that was seen; None if it is not that state any more.

        `began`: wall and CPU at which the work began, where it is recorded.
        """
        version = seen.version
        with self._guard:
            if seen.table is None and schema is not None:
                made = self._tables.create(batch.dataset, schema)
                version = made.version if not made.files else -1
            table = self._tables.get(batch.dataset)
            if table.version != version or not table.commit(
                add=[*seen.plan.new, *seen.mine],
                remove=seen.plan.old,
                txn=(batch.app, batch.number) if txn else None,
                facts=facts,
                unless=lambda: True,
            ):
                return None
            self._ingestor.moved(batch.dataset, seen.plan.old, seen.plan.new)
            if began is None:
                return (None,)
            cost = Cost(cpu_s=time.process_time() - began[1], wall_s=time.perf_counter() - began[0])
            return (self._ingestor.record(batch, facts, table, cost),)

    def _state(self, name: str) -> tuple[Table | None, int, list[DataFile]]:
        with self._guard:
            table = self._tables.find(name)
            return (None, -1, []) if table is None else (table, table.version, table.files)

    def _done_before(self, batch: Batch, verb: str) -> Changed | None:
        with self._guard:
            table = self._tables.find(batch.dataset)
            if table is None:
                return None
            self._ingestor.settling.settle(table)
            if not table.has_landed(batch.app, batch.number):
                return None
            event = None
            if self._records is not None:
                event = self._records.find(batch, verb=verb)
                event = event or self._ingestor.settling.settle_batch(table, batch, verb=verb)
        if event is None or self._records is None:
            return Changed("already", None)
        told = event.payload
        version = self._records.version_of(event)
        return Changed("already", version, told.get("accepted", 0), told["removed"], told.get("rejected", 0))


def _want_column(schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise NotFound("column", column, schema.names)


def _want_inside(rows: pa.Table, span: Range) -> None:
    outside = int((~span.inside(rows)).sum())
    if outside:
        raise SourceError(
            f"{outside} rows are not in the range that is overwritten ({span.column!r} from {span.low!r} to "
            f"below {span.high!r}); nothing was written: leave them out, or make the range wider"
        )


def _too_busy(name: str) -> Conflict:
    return Conflict(f"{name!r}: other processes write to it all the time; let one of them do it")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_instant(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)
