"""How a batch gets into the lake: conform, check, set aside, land, record.

The rows and the batch's number are one commit, made only upon the state against which its keys were held:
where another commit came first, they are held against what it brought. Rejected rows are written before it
and the records of the ledger after it, so that after a kill at any instant the same call, or the next one,
completes the batch.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any

import pyarrow as pa

from noria.checks.engine import BatchChecker
from noria.checks.verdicts import REJECTED_SCHEMA, BatchVerdict, row_json
from noria.clock import to_micros
from noria.errors import BatchBlocked, Conflict, SourceError
from noria.lake.arrival import Arrival
from noria.lake.data_files import DataFile, stem_of
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.delta import Table
from noria.lake.evolution import Reshaped, evolve, reshaped
from noria.lake.files import Files, LocalFiles
from noria.lake.incoming import Incoming
from noria.lake.kept import Kept
from noria.lake.keys import KeyIndex
from noria.lake.recording import Batch, Ingested, IngestRecords, findings_of
from noria.lake.rejected import set_aside
from noria.lake.rejected_trend import RejectedTrend
from noria.lake.replaced import WRITER, evolve_replaced, keep_replaced
from noria.lake.rewriting import Rewritten
from noria.lake.row_files import RowFiles
from noria.lake.rows import Rows
from noria.lake.rowsql import RowSql
from noria.lake.schema import INSTANT, as_table, conform, declared_schema, storable_schema
from noria.lake.settling import Settling
from noria.lake.surroundings import LakeSurroundings
from noria.lake.tables import Tables
from noria.lake.trial import Tried, tried
from noria.records import Cost, Version, sha256_hex

__all__ = ["Ingestor"]

_ATTEMPTS = 50


class Ingestor:
    """Ingests batches of datasets: of one dataset one at a time, of several at once.

    Parameters
    ----------
    guard
        Is held while an opened table is looked at or changed, never while rows are read or written.
    """

    def __init__(self, tables: Tables, records: IngestRecords | None, sql: RowSql, guard: RLock) -> None:
        self._tables = tables
        self._records = records
        self._sql = sql
        self._guard = guard
        self._checker = BatchChecker()
        self._keys: dict[tuple[str, tuple[str, ...]], KeyIndex] = {}
        self._busy: dict[str, RLock] = {}
        self.settling = Settling(tables, records)

    def ingest(self, dataset: Dataset, frame: ArrowFrame | Rows, batch: Batch) -> Ingested:
        """See `noria.lake.store.Lake.ingest`."""
        began = time.perf_counter(), time.process_time()
        incoming = Incoming(frame, name=dataset.name)
        with self.alone(dataset.name):
            before = self._landed_before(batch, incoming)
            if before is not None:
                return before
            with self.arriving(dataset, incoming, batch) as arrival:
                if arrival is None:
                    if self._records:
                        self._records.empty(batch)
                    return Ingested("empty", None, 0, 0, ())
                return self._land(dataset, arrival, batch, incoming, began)

    def check(self, dataset: Dataset, frame: ArrowFrame, *, batch: int | None, at: datetime) -> BatchVerdict:
        """See `noria.lake.store.Lake.check`."""
        rows = as_table(frame, name=dataset.name)
        if rows.num_rows == 0:
            return BatchVerdict(rows, REJECTED_SCHEMA.empty_table(), (), ())
        named = Batch(dataset.name, 0 if batch is None else batch, "check", None, at)
        with self.alone(dataset.name):
            with self._guard:
                table = self._tables.find(dataset.name)
                if table is not None and batch is not None and table.has_landed(named.app, batch):
                    table = None
            rows, schema = self._conformed(dataset, rows, named, dry=True)
            kept = Kept(schema, dataset.keys, None, stem="")
            with self._arrival(dataset, named, schema, table, kept, dry=True) as arrival:
                arrival.take(rows)
                arrival.finish()
                rejected = _joined(arrival.rejects.tables()).sort_by("row")
                return BatchVerdict(arrival.kept.table(), rejected, arrival.findings, arrival.reasons)

    def try_out(self, dataset: Dataset, rows: Rows, *, at: datetime) -> Tried:
        """See `noria.lake.store.Lake.try_out`."""
        incoming = Incoming(rows, name=dataset.name)
        batch = Batch(dataset.name, 0, "trial", None, at)
        with (
            TemporaryDirectory(prefix="noria-trial-") as folder,
            self.alone(dataset.name),
            self.arriving(dataset, incoming, batch, trial=LocalFiles(Path(folder))) as arrival,
        ):
            if arrival is None:
                return Tried()
            arrival.drop_outdated()
            return tried(arrival)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let no other thread change this table for the block."""
        with self._guard:
            lock = self._busy.setdefault(name, RLock())
        with lock:
            yield

    @contextmanager
    def arriving(
        self,
        dataset: Dataset,
        incoming: Incoming,
        batch: Batch,
        *,
        apart: bool = False,
        trial: Files | None = None,
    ) -> Iterator[Arrival | None]:
        """Take all rows of a batch in, checked; None if there is none.

        `apart`: their keys are not held against the table's, yet. `trial`: where rows go that will not land.
        """
        arrival: Arrival | None = None
        dry = trial is not None

        def begun(schema: pa.Schema) -> Arrival:
            with self._guard:
                table = None if apart else self._tables.find(dataset.name)
            rows = RowFiles(trial or self._tables.store, dataset.name, schema)
            kept = Kept(schema, dataset.keys, rows, stem=stem_of(batch.number, batch.app))
            return self._arrival(dataset, batch, schema, table, kept, dry=dry)

        try:
            for piece in incoming.pieces(self._wanted(dataset)):
                if isinstance(piece, pa.Table):
                    known = None if arrival is None else arrival.schema
                    rows, schema = self._conformed(dataset, piece, batch, known=known, dry=dry)
                    arrival = arrival or begun(schema)
                    arrival.take(rows)
                else:
                    arrival = arrival or begun(self._known_schema(dataset, incoming.label, batch, dry=dry))
                    arrival.take_broken(piece)
            if arrival is not None:
                arrival.finish()
                arrival.where = incoming.where
            yield arrival
        finally:
            if arrival is not None:
                arrival.__exit__()

    def index_of(self, dataset: Dataset) -> KeyIndex:
        """Give the keys of a dataset's table, as far as they were read."""
        key = dataset.name, dataset.keys
        if key not in self._keys:
            self._keys[key] = KeyIndex(dataset.keys, self._sql)
        return self._keys[key]

    def moved(self, name: str, old: Sequence[DataFile], new: Sequence[DataFile]) -> None:
        """Note that what is left of a table's rows in `old` is in `new` now."""
        for (table, _), index in self._keys.items():
            if table == name:
                index.moved(old, new)

    def forget_keys(self, name: str) -> None:
        """Read the keys of a table anew when they are next needed."""
        for key in [each for each in self._keys if each[0] == name]:
            del self._keys[key]

    def block(self, batch: Batch, arrival: Arrival) -> None:
        """Raise `BatchBlocked` if the batch may not land, once that is on record."""
        reasons = list(arrival.reasons)
        if not reasons:
            return
        if self._records:
            rejected = (row_json(row) for table in arrival.rejects.tables() for row in table.to_pylist())
            digest = sha256_hex(f"{arrival.rows}\n{chr(10).join(rejected)}".encode())
            self._records.blocked(batch, digest=digest, reasons=reasons, findings=arrival.findings)
        worst = max(arrival.findings, key=lambda each: each.failing)
        example = f"{worst.rule} fails for {worst.example}" if worst.example else ""
        raise BatchBlocked(
            batch.dataset,
            str(batch.number),
            reasons,
            example=f"{example}, {worst.where} of {batch.called}" if worst.where else example,
            source=batch.called if batch.is_known_by_content else None,
        )

    def record(self, batch: Batch, facts: dict[str, Any], table: Table, cost: Cost) -> Version | None:
        """Make the records of a commit that was just made."""
        return self.settling.record(batch, facts, table, cost)

    def close(self) -> None:
        """Let go of the engines."""
        self._checker.close()

    def _land(
        self,
        dataset: Dataset,
        arrival: Arrival,
        batch: Batch,
        incoming: Incoming,
        began: tuple[float, float],
    ) -> Ingested:
        index = self.index_of(dataset)
        for _ in range(_ATTEMPTS):
            with self._guard:
                found = self._tables.find(dataset.name)
                version = -1 if found is None else found.version
                files = [] if found is None else found.files
            before = self._landed_before(batch, incoming)  # as of this state or a later one, which is refused
            if before is not None:
                return before
            plan = Rewritten()
            if found is not None:
                _want_columns(found, arrival, batch)
                fresh, new = index.catch_up(found, files)
                if dataset.write == "merge":
                    plan = arrival.replacing(found, files, index)
                elif new and fresh.find_any(arrival.hashes):
                    arrival.hold_against(found, new)
            self.block(batch, arrival)
            set_aside(self._tables, self._guard, batch, arrival.rejects)
            kept_as = None
            if dataset.write == "merge":
                found, version = self._made_for(arrival, batch, found, version)
                kept_as = keep_replaced(
                    self._tables,
                    self._guard,
                    batch,
                    arrival.replaced(found, files, index),
                    arrival.schema,
                    commit=version + 1,
                )
            mine = arrival.kept.files()
            facts = batch.facts(
                "ingested",
                arrival.findings,
                accepted=sum(each.rows for each in mine),
                rejected=arrival.rejects.rows,
                repeated=arrival.repeated,
                replaced=plan.rows,
            )
            if kept_as is not None:
                facts[WRITER] = kept_as
            with self._guard:
                table = self._tables.find(dataset.name)
                if table is None:
                    table = self._tables.create(dataset.name, arrival.schema)
                    _want_columns(table, arrival, batch)
                    version = table.version if not table.files else -1
                if table.version != version or not table.commit(
                    add=[*plan.new, *mine],
                    remove=plan.old,
                    txn=(batch.app, batch.number),
                    facts=facts,
                    unless=lambda: True,
                ):
                    continue
                index.moved(plan.old, plan.new)
                index.add(arrival.hashes, mine)
                cost = Cost(cpu_s=time.process_time() - began[1], wall_s=time.perf_counter() - began[0])
                done = self.record(batch, facts, table, cost)
            counts = {name: facts[name] for name in ("accepted", "rejected", "repeated", "replaced")}
            return Ingested("landed", done, findings=arrival.findings, **counts)
        raise Conflict(f"{dataset.name!r}: other processes write to it all the time; let one of them do it")

    def _made_for(
        self, arrival: Arrival, batch: Batch, found: Table | None, version: int
    ) -> tuple[Table | None, int]:
        """Make the table already if there are rows to keep whose place others took within its first batch."""
        if found is not None or not arrival.has_outdated:
            return found, version
        with self._guard:
            table = self._tables.create(batch.dataset, arrival.schema)
            _want_columns(table, arrival, batch)
            return table, table.version

    def _landed_before(self, batch: Batch, incoming: Incoming) -> Ingested | None:
        """Give what became of a batch that has landed. Raises `Conflict` if these rows cannot be its rows."""
        with self._guard:
            table = self._tables.find(batch.dataset)
            if table is None:
                return None
            self.settling.settle(table)
            if not table.has_landed(batch.app, batch.number):
                return None
            event = None
            if self._records is not None:
                event = self._records.find(batch) or self.settling.settle_batch(table, batch)
        rows = incoming.rows
        if event is None and self._records is not None and rows != 0:
            raise Conflict(
                f"batch {batch.number} of {batch.dataset!r} never landed, and a later one has: nothing of it "
                "was written; ingest it under a number above the last one"
            )
        if event is None or self._records is None:
            return Ingested("already", None, 0, 0, ())
        told = event.payload
        came = told["accepted"] + told["rejected"] + told.get("repeated", 0)
        if rows is not None and rows != came:
            raise Conflict(
                f"batch {batch.number} of {batch.dataset!r} landed with {came} rows before, this one has "
                f"{rows}; nothing of it was written: give new rows a number of their own, above the last one"
            )
        return Ingested(
            "already",
            self._records.version_of(event),
            told["accepted"],
            told["rejected"],
            findings_of(told["findings"]),
            told.get("repeated", 0),
            told.get("replaced", 0),
        )

    def _arrival(
        self,
        dataset: Dataset,
        batch: Batch,
        schema: pa.Schema,
        table: Table | None,
        kept: Kept,
        *,
        dry: bool = False,
    ) -> Arrival:
        index, files = None, []
        rows: RowFiles | None = table
        if table is not None:
            index, files = self.index_of(dataset), table.files
            if dry and schema != table.schema:
                rows, index = Reshaped(table, dataset), KeyIndex(dataset.keys, self._sql)
            index.catch_up(rows or table, files)
        surroundings = LakeSurroundings(
            dataset, batch, tables=self._tables, guard=self._guard, records=self._records
        )
        return Arrival(
            dataset,
            schema,
            table=rows,
            files=files,
            index=index,
            checker=self._checker,
            sql=self._sql,
            kept=kept,
            surroundings=surroundings,
            trend=RejectedTrend(dataset.checks, at=batch.at, earlier=surroundings.earlier_rejected),
        )

    def _wanted(self, dataset: Dataset) -> pa.Schema | None:
        """Give the columns that a source is asked for; None where the first rows decide."""
        with self._guard:
            table = self._tables.find(dataset.name)
        schema = declared_schema(dataset) or (None if table is None else reshaped(table.schema, dataset))
        if schema is not None and dataset.known_at is None:
            return pa.schema([each for each in schema if each.name != dataset.known_at_column])
        return schema

    def _known_schema(self, dataset: Dataset, source: str, batch: Batch, *, dry: bool) -> pa.Schema:
        schema = self._table_schema(dataset, batch, dry=dry) or declared_schema(dataset)
        if schema is None:
            raise SourceError(
                f"{dataset.name!r}: the first rows of {source} could not be read, so nothing says which "
                "columns there are; declare a schema, or repair its beginning"
            )
        return schema

    def _conformed(
        self,
        dataset: Dataset,
        rows: pa.Table,
        batch: Batch,
        *,
        known: pa.Schema | None = None,
        dry: bool = False,
    ) -> tuple[pa.Table, pa.Schema]:
        """Bring rows to the table's columns and types; the declaration, or the first piece, sets them."""
        known_at = dataset.known_at_column
        if dataset.known_at is None:
            if known_at in rows.column_names:
                raise SourceError(
                    f"{dataset.name!r} has a column {known_at!r}, which the lake would add; "
                    f"declare known_at={known_at!r} to use it, or rename it"
                )
            rows = rows.append_column(known_at, _instants(batch.at, rows.num_rows))
        wanted = known or self._shaped(dataset, rows, batch, dry=dry)
        rows = conform(rows, wanted, name=dataset.name)
        for column in (*dataset.keys, dataset.event_at, known_at):
            if column not in rows.column_names:
                raise SourceError(
                    f"{dataset.name!r} lacks column {column!r}, which its declaration names; "
                    f"found {', '.join(rows.column_names)}"
                )
        for column in (dataset.event_at, known_at):
            found = rows.schema.field(column).type
            if found != INSTANT:
                raise SourceError(
                    f"{dataset.name!r}: column {column!r} is {found}, wanted {INSTANT}; "
                    "an instant needs its time zone"
                )
        return rows, wanted

    def _shaped(self, dataset: Dataset, rows: pa.Table, batch: Batch, *, dry: bool) -> pa.Schema:
        known = self._table_schema(dataset, batch, dry=dry) or declared_schema(dataset)
        return known or storable_schema(rows.schema, name=dataset.name)

    def _table_schema(self, dataset: Dataset, batch: Batch, *, dry: bool) -> pa.Schema | None:
        """Bring the table to the columns that are declared, and give them; `dry`: only give them."""
        with self._guard:
            table = self._tables.find(dataset.name)
            if table is None:
                return None
            if dry:
                return reshaped(table.schema, dataset)
            if (dataset.schema is not None or dataset.renamed) and evolve(
                table, dataset, facts=batch.facts("evolved")
            ):
                self.forget_keys(dataset.name)
                self.settling.settle_evolved(table)
            if dataset.write == "merge" and (dataset.schema is not None or dataset.renamed):
                evolve_replaced(self._tables, dataset)
            return table.schema


def _want_columns(table: Table, arrival: Arrival, batch: Batch) -> None:
    """Raise `Conflict` if the table no longer has the columns that the batch was written for."""
    for each in arrival.schema:
        if each.name not in table.schema.names or table.schema.field(each.name).type != each.type:
            raise Conflict(
                f"batch {batch.number} of {batch.dataset!r}: column {each.name!r} was changed by another "
                "process meanwhile, nothing was written; ingest the batch again"
            )


def _joined(tables: Iterator[pa.Table]) -> pa.Table:
    found = list(tables)
    return pa.concat_tables(found) if found else REJECTED_SCHEMA.empty_table()


def _instants(at: datetime, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(to_micros(at), pa.int64()), rows).cast(INSTANT)
