"""How a batch gets into the lake: conform, check, set aside, land, record.

The rows and the batch's number are one commit. Rejected rows are written before it and the records of the
ledger after it, so that after a kill at any instant the same call, or the next one, completes the batch.
"""

import time
from datetime import datetime

import pyarrow as pa
import pyarrow.dataset as pads

from noria.checks.declarations import Rule, expression, not_null, unique
from noria.checks.engine import REJECTED_SCHEMA, BatchChecker, BatchVerdict, row_json
from noria.clock import to_micros
from noria.errors import BatchBlocked, ConfigError, Conflict, SourceError
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.delta import DataFile, Table
from noria.lake.keys import KeyIndex
from noria.lake.recording import Batch, Ingested, IngestRecords, findings_of
from noria.lake.schema import INSTANT, as_table, conform, declared_schema, storable_schema
from noria.lake.tables import INGEST, Tables
from noria.records import Cost, Version, sha256_hex

__all__ = ["Ingestor"]

_ATTEMPTS = 10


class Ingestor:
    """Ingests batches of datasets. One thread at a time."""

    def __init__(self, tables: Tables, records: IngestRecords | None) -> None:
        self._tables = tables
        self._records = records
        self._checker = BatchChecker()
        self._keys: dict[str, KeyIndex] = {}
        self._settled: set[str] = set()

    def ingest(self, dataset: Dataset, frame: ArrowFrame, batch: Batch) -> Ingested:
        """See `noria.lake.store.Lake.ingest`."""
        began = time.perf_counter(), time.process_time()
        for _ in range(_ATTEMPTS):
            table, last = self._tables.find(dataset.name), None
            if table is not None:
                self._settle(table)
                last = table.transaction(INGEST)
                if _has_landed(table, batch.number):
                    if last == batch.number:  # another process may be about to record it
                        self._settled.discard(table.name)
                        self._settle(table)
                    return self._landed_before(batch, as_table(frame, name=dataset.name).num_rows)
            rows = as_table(frame, name=dataset.name)
            if rows.num_rows == 0:
                if self._records:
                    self._records.empty(batch)
                return Ingested("empty", None, 0, 0, ())
            rows = self._conformed(dataset, table, rows, batch.at)
            verdict = self._judge(dataset, table, rows)
            if verdict.blocked:
                self._block(batch, rows, verdict)
            self._set_aside(batch, verdict.rejected)
            table = table or self._tables.create(dataset.name, rows.schema)
            facts = batch.facts(verdict.accepted.num_rows, verdict.rejected.num_rows, verdict.findings)
            new = table.append(verdict.accepted, app_id=INGEST, batch=batch.number, after=last, facts=facts)
            if new is not None:
                if verdict.key_hashes is not None:
                    self._keys[dataset.name].add(verdict.key_hashes, new)
                cost = Cost(cpu_s=time.process_time() - began[1], wall_s=time.perf_counter() - began[0])
                version = self._record(batch, facts, table, cost)
                counts = verdict.accepted.num_rows, verdict.rejected.num_rows
                return Ingested("landed", version, *counts, verdict.findings)
        raise Conflict(
            f"{dataset.name!r}: other processes ingest into it all the time; let one of them do it"
        )

    def check(self, dataset: Dataset, frame: ArrowFrame, *, batch: int | None, at: datetime) -> BatchVerdict:
        """See `noria.lake.store.Lake.check`."""
        table = self._tables.find(dataset.name)
        rows = as_table(frame, name=dataset.name)
        if rows.num_rows == 0:
            return BatchVerdict(rows, REJECTED_SCHEMA.empty_table(), (), ())
        rows = self._conformed(dataset, table, rows, at)
        if batch is not None and table is not None and _has_landed(table, batch):
            table = None
        return self._judge(dataset, table, rows)

    def moved(self, name: str, old: list[DataFile], new: list[DataFile]) -> None:
        """Note that a table's rows in `old` are in `new` now."""
        if name in self._keys:
            self._keys[name].moved(old, new)

    def close(self) -> None:
        """Let go of the engine."""
        self._checker.close()

    def _settle(self, table: Table) -> None:
        """Make the records of a batch that landed just before a kill."""
        if self._records is None or table.name in self._settled:
            return
        last = table.transaction(INGEST)
        if last is not None and self._records.find_landed(table.name, last) is None:
            facts = table.commit_facts(INGEST, last)
            batch = Batch.of_facts(table.name, last, facts)
            then = self._tables.get_at(table.name, facts["version"])
            self._record(batch, facts, then, Cost(cpu_s=0.0, wall_s=0.0))
        self._settled.add(table.name)

    def _landed_before(self, batch: Batch, rows: int) -> Ingested:
        """Give what became of a batch. Raises `Conflict` if `rows` rows cannot be those that came then."""
        event = None if self._records is None else self._records.find_landed(batch.dataset, batch.number)
        if event is None and self._records is not None and rows:
            raise Conflict(
                f"batch {batch.number} of {batch.dataset!r} never landed, and a later one has: nothing of it "
                "was written; ingest it under a number above the last one"
            )
        if event is None or self._records is None:
            return Ingested("already", None, 0, 0, ())
        told = event.payload
        came = told["accepted"] + told["rejected"]
        if rows != came:
            raise Conflict(
                f"batch {batch.number} of {batch.dataset!r} landed with {came} rows before, this one has "
                f"{rows}; nothing of it was written: give new rows a number of their own, above the last one"
            )
        version = self._records.version_of(event)
        return Ingested("already", version, told["accepted"], told["rejected"], findings_of(told["findings"]))

    def _conformed(self, dataset: Dataset, table: Table | None, rows: pa.Table, at: datetime) -> pa.Table:
        """Bring rows to the table's columns and types; the declaration, or the first batch, sets them."""
        known_at = dataset.known_at_column
        if dataset.known_at is None:
            if known_at in rows.column_names:
                raise SourceError(
                    f"{dataset.name!r} has a column {known_at!r}, which the lake would add; "
                    f"declare known_at={known_at!r} to use it, or rename it"
                )
            rows = rows.append_column(known_at, _instants(at, rows.num_rows))
        declared = declared_schema(dataset)
        if table is None:
            wanted = declared or storable_schema(rows.schema, name=dataset.name)
        else:
            wanted = table.schema if declared is None else _widened(table, declared)
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
        return rows

    def _judge(self, dataset: Dataset, table: Table | None, rows: pa.Table) -> BatchVerdict:
        taken = None
        if table is not None:
            taken = self._keys.get(dataset.name)
            if taken is None:
                taken = self._keys[dataset.name] = KeyIndex(table, dataset.keys, self._checker)
        rules = _contract(dataset)
        return self._checker.check(rows, rules, max_rejected_share=dataset.max_rejected_share, taken=taken)

    def _block(self, batch: Batch, rows: pa.Table, verdict: BatchVerdict) -> None:
        if self._records:
            digest = sha256_hex("\n".join(map(row_json, rows.to_pylist())).encode())
            self._records.blocked(batch, digest=digest, reasons=verdict.reasons, findings=verdict.findings)
        worst = max(verdict.findings, key=lambda each: each.failing)
        reasons = [*verdict.reasons, f"{worst.rule} fails for example for {worst.example}"]
        raise BatchBlocked(batch.dataset, str(batch.number), reasons)

    def _set_aside(self, batch: Batch, rejected: pa.Table) -> None:
        """Keep rejected rows; what a killed attempt at this batch left there is replaced."""
        name = f"{batch.dataset}__rejected"
        table = self._tables.find(name)
        if table is not None and _has_landed(table, batch.number):
            before = table.read(columns=rejected.column_names, where=pads.field("batch") == batch.number)
            if before.equals(rejected):
                return
            table.delete(f"batch = {batch.number}")
        if rejected.num_rows:
            number = pa.repeat(pa.scalar(batch.number, pa.int64()), rejected.num_rows)
            rows = rejected.append_column("batch", number)
            rows = rows.append_column("rejected_at", _instants(batch.at, rejected.num_rows))
            table = table or self._tables.create(name, rows.schema)
            last = table.transaction(INGEST)
            table.append(rows, app_id=INGEST, batch=batch.number, after=last, facts={})

    def _record(self, batch: Batch, facts: dict[str, object], table: Table, cost: Cost) -> Version | None:
        if self._records is None:
            return None
        return self._records.landed(
            batch,
            facts,
            table={"rows": table.rows, "files": len(table.files)},
            uri=f"delta:{table.name}@{table.version}",
            digest=table.digest(),
            cost=cost,
        )


def _has_landed(table: Table, batch: int) -> bool:
    last = table.transaction(INGEST)
    return last is not None and batch <= last


def _contract(dataset: Dataset) -> list[Rule]:
    """Give what holds of every dataset, and what this one declares."""
    event_at, known_at = dataset.event_at, dataset.known_at_column
    rules = [not_null(*dataset.keys), not_null(event_at)]
    if known_at != event_at:
        in_order = f'"{known_at}" >= "{event_at}"'
        rules += [not_null(known_at), expression(in_order, name=f"{known_at} not before {event_at}")]
    rules += [unique(*dataset.keys), *dataset.checks]
    return list({rule.name: rule for rule in rules}.values())


def _widened(table: Table, declared: pa.Schema) -> pa.Schema:
    for each in declared:
        if each.name in table.schema.names and table.schema.field(each.name).type != each.type:
            raise ConfigError(
                f"dataset {table.name!r} declares {each.name!r} as {each.type}, "
                f"its table has {table.schema.field(each.name).type}; a column keeps its type"
            )
    table.widen(declared)
    return table.schema


def _instants(at: datetime, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(to_micros(at), pa.int64()), rows).cast(INSTANT)
