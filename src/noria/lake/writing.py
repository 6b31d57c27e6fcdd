"""Everything that changes tables, put together."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import RLock
from typing import Any

import pyarrow as pa

from noria.checks.verdicts import BatchVerdict
from noria.errors import Conflict, NotFound
from noria.lake.changes import Changes, Range
from noria.lake.data_files import DataFile, FileWriter, stem_of
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.delta import Table
from noria.lake.finding import Finder, InColumn, InPayload, Subject
from noria.lake.forgetting import Forgotten, Held, Taken, forget, names_of, search
from noria.lake.incoming import Incoming
from noria.lake.ingest import Ingestor
from noria.lake.maintenance import Vacuumed, joined, neighbours, tail_of_small_files, vacuum, values_there
from noria.lake.recording import Batch, Changed, Ingested, IngestRecords
from noria.lake.rejected import rejected_name
from noria.lake.replaced import replaced_name
from noria.lake.rows import Rows
from noria.lake.rowsql import RowSql
from noria.lake.schema import fill, storable_schema
from noria.lake.tables import Tables
from noria.lake.trial import Tried
from noria.ledger.store import Ledger
from noria.records import Cost

__all__ = ["Writing"]

_ATTEMPTS = 50
_LOOK_EVERY = 8  # commits, for small files to join


class Writing:
    """The lake's verbs that change tables. See `noria.lake.store.Lake` for what each promises."""

    def __init__(self, tables: Tables, ledger: Ledger | None, guard: RLock) -> None:
        self._tables = tables
        self._ledger = ledger
        self._guard = guard
        self._sql = RowSql()
        records = None if ledger is None else IngestRecords(ledger)
        self._ingestor = Ingestor(tables, records, self._sql, guard)
        self._changes = Changes(tables, self._ingestor, records, self._sql, guard)

    def ingest(
        self,
        dataset: Dataset,
        frame: ArrowFrame | Rows,
        *,
        number: int,
        app: str,
        source: str,
        cause: str | None,
        at: datetime,
    ) -> Ingested:
        """Check a batch and land what holds."""
        done = self._ingestor.ingest(dataset, frame, Batch(dataset.name, number, source, cause, at, app))
        if done.state == "landed":
            self._tidy(dataset.name)
            if dataset.write == "merge" and self._tables.exists(replaced_name(dataset.name)):
                self._tidy(replaced_name(dataset.name))
        return done

    def check(self, dataset: Dataset, frame: ArrowFrame, *, batch: int | None, at: datetime) -> BatchVerdict:
        """Hold rows against the contract, and write nothing."""
        return self._ingestor.check(dataset, frame, batch=batch, at=at)

    def try_out(self, dataset: Dataset, rows: Rows, *, at: datetime) -> Tried:
        """Tell what an ingest would do."""
        return self._ingestor.try_out(dataset, rows, at=at)

    def append(self, name: str, frame: ArrowFrame | Rows, *, number: int, app: str) -> bool:
        """Append rows without a contract."""
        with self._ingestor.alone(name):
            with self._guard:
                table = self._tables.find(name)
                if table is not None and table.has_landed(app, number):
                    return False
            files = self._written(name, Incoming(frame, name=name), stem_of(number, app))
            for _ in range(_ATTEMPTS):
                with self._guard:
                    table = self._tables.get(name)
                    last = table.transaction(app)
                    if last is not None and number <= last:
                        return False
                    if table.commit(
                        add=files,
                        txn=(app, number),
                        facts={},
                        unless=lambda table=table, last=last: table.transaction(app) != last,  # type: ignore[misc]
                    ):
                        break
            else:
                raise Conflict(
                    f"{name!r}: other processes append as {app!r} all the time; let one of them do it"
                )
        self._tidy(name)
        return True

    def overwrite(
        self,
        target: Dataset | str,
        frame: ArrowFrame | Rows,
        *,
        span: tuple[str, Any, Any],
        number: int,
        app: str,
        source: str,
        cause: str | None,
        at: datetime,
    ) -> Changed:
        """Put rows in the place of those of a range."""
        name = target.name if isinstance(target, Dataset) else target
        return self._changes.overwrite(
            target, frame, Range(*span), Batch(name, number, source, cause, at, app)
        )

    def delete(
        self,
        name: str,
        where: str,
        *,
        reason: str,
        number: int | None,
        app: str,
        cause: str | None,
        at: datetime,
    ) -> Changed:
        """Delete the rows of a condition."""
        batch = None if number is None else Batch(name, number, "delete", cause, at, app)
        return self._changes.delete(name, where, batch, reason=reason, at=at, cause=cause)

    def forget(
        self, name: str, column: str, values: Iterable[Any], *, reason: str, cause: str | None, at: datetime
    ) -> Forgotten:
        """Take a subject's rows out for good."""
        done = {
            each: self.erase(each, find, about=about, reason=reason, cause=cause, at=at)
            for each, find, about in self._finders(name, column, values)
        }
        none = Taken(0, 0, ())
        rejected = done.get(rejected_name(name), none)
        replaced = done.get(replaced_name(name), none)
        return Forgotten(
            done[name].rows + replaced.rows,
            rejected.rows,
            done[name].files + rejected.files + replaced.files,
            (*done[name].versions, *rejected.versions, *replaced.versions),
        )

    def erase(
        self,
        name: str,
        find: Finder,
        *,
        about: dict[str, Any],
        reason: str,
        cause: str | None,
        at: datetime,
    ) -> Taken:
        """Take rows out of one table for good."""
        with self._ingestor.alone(name), self._guard:
            table = self._any(name)
            self._ingestor.settling.settle(table)
            batch = Batch(name, table.version + 1, "forget", cause, at, "forget")
            done = forget(
                table,
                find,
                self._ledger,
                facts=partial(_forgotten, batch, {"reason": reason, **about}),
                commit=self._committing(table),
            )
            self._ingestor.forget_keys(name)
            self._tables.drop_pinned(name)
        return done

    def held(
        self, name: str, column: str, values: Iterable[Any], *, columns: Collection[str] | None
    ) -> dict[str, Held]:
        """Tell what a dataset and its rejected rows hold of a subject."""
        return {
            each: self.search(each, find, columns=columns if each == name else None)
            for each, find, _ in self._finders(name, column, values)
        }

    def names_of(self, name: str, column: str) -> list[str]:
        """Give every name that a column of a table ever had."""
        with self._guard:
            return names_of(self._any(name), column)

    def search(self, name: str, find: Finder, *, columns: Collection[str] | None) -> Held:
        """Tell what one table holds."""
        with self._guard:
            return search(self._any(name), find, self._ledger, columns=columns)

    def _finders(
        self, name: str, column: str, values: Iterable[Any]
    ) -> list[tuple[str, Finder, dict[str, Any]]]:
        """Give the tables that hold a subject's rows themselves, and what finds them."""
        subject = Subject(column, values)
        with self._guard:
            table = self._any(name)
            if column not in table.schema.names:
                raise NotFound("column", column, table.schema.names)
            subject.want_type(table.schema.field(column).type)
            names = names_of(table, column)
            other = rejected_name(name)
            has_rejected = self._tables.exists(other) or self._tables.was_dropped(other)
            before = self._tables.find(replaced_name(name))
            before_names = [] if before is None else names_of(before, column)
        about = {"column": column, "subjects": len(subject.values)}
        found: list[tuple[str, Finder, dict[str, Any]]] = [(name, InColumn(subject, names), about)]
        if has_rejected:
            found.append((other, InPayload(subject, names), about))
        if before is not None:
            found.append((before.name, InColumn(subject, [*dict.fromkeys([*names, *before_names])]), about))
        return found

    def _any(self, name: str) -> Table:
        """Give a table, or one that was dropped and whose older versions can be read. Raises `NotFound`."""
        return self._tables.find(name) or self._tables.get(name, dropped=True)

    def compact(self, name: str, *, keep_newest: int, rows_per_file: int) -> int:
        """Put the rows of small files into few."""
        with self._ingestor.alone(name):
            with self._guard:
                table = self._tables.get(name)
                files = table.files
            replaced = 0
            for group in neighbours(files[: len(files) - keep_newest], rows_per_file):
                replaced += self._join(table, group)
            return replaced

    def vacuum(self, name: str, *, retention: timedelta, dry_run: bool) -> Vacuumed:
        """Remove files that nobody names."""
        with self._ingestor.alone(name), self._guard:
            table = self._tables.get(name, dropped=True)
            return vacuum(table, self._ledger, retention=retention, dry_run=dry_run, now=datetime.now(UTC))

    def values_there(self, name: str, column: str, *, without: Collection[str]) -> set[Any]:
        """Give the values of a column in every file that is still there."""
        with self._ingestor.alone(name), self._guard:
            return values_there(self._tables.get(name), column, without=without)

    def close(self) -> None:
        """Let go of the engines."""
        self._ingestor.close()
        self._sql.close()

    def _written(self, name: str, incoming: Incoming, stem: str) -> Sequence[DataFile]:
        """Write rows into files; the table gets the columns that it lacks."""
        writer: FileWriter | None = None
        schema: pa.Schema | None = None
        done: list[DataFile] = []
        for piece in incoming.pieces(None):
            if not isinstance(piece, pa.Table):
                raise Conflict(f"{name!r}: row {piece[0].row} cannot be read: {piece[0].reason}")
            with self._guard:
                table = self._grown(name, storable_schema(piece.schema, name=name))
                if writer is None or table.schema != schema:
                    done += [] if writer is None else writer.close()
                    schema, writer = table.schema, table.writer(f"{stem}-{len(done)}" if done else stem)
            writer.write(fill(piece, schema, name=name))
        if writer is None and incoming.empty_schema is not None:
            with self._guard:
                self._grown(name, storable_schema(incoming.empty_schema, name=name))
        return done if writer is None else [*done, *writer.close()]

    def _grown(self, name: str, schema: pa.Schema) -> Table:
        table = self._tables.find(name)
        if table is None:
            table = self._tables.create(name, schema)
        table.widen(schema)
        return table

    def _tidy(self, name: str) -> None:
        """Join small files, where there are many."""
        with self._ingestor.alone(name):
            with self._guard:
                table = self._tables.get(name)
                group = [] if table.version % _LOOK_EVERY else tail_of_small_files(table)
            if group:
                self._join(table, group)

    def _join(self, table: Table, group: Sequence[DataFile]) -> int:
        new = joined(table, group)
        with self._guard:
            if not {each.path for each in group} <= table.paths or not table.replace(group, new):
                return 0
            self._ingestor.moved(table.name, group, new)
        return len(group)

    def _committing(self, table: Table) -> Any:
        def commit(
            add: Sequence[DataFile], remove: Sequence[DataFile], last: int, facts: dict[str, Any]
        ) -> bool:
            if table.version != last or not table.commit(
                add=add, remove=remove, facts={**facts, "batch": last + 1}, unless=lambda: True
            ):
                table.refresh()
                return False
            batch = Batch.of_facts(table.name, {**facts, "batch": last + 1})
            self._ingestor.record(batch, facts, table, Cost(cpu_s=0.0, wall_s=0.0))
            return True

        return commit


def _forgotten(batch: Batch, more: dict[str, Any], rows: int) -> dict[str, Any]:
    return batch.facts("forgotten", more=more, removed=rows)
