"""The lake: tables that batches go into, each batch exactly once, each state a version."""

import threading
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from noria.clock import Clock, WallClock
from noria.errors import ConfigError, Conflict, DigestMismatch, NotFound
from noria.lake.data_files import ROWS_PER_FILE
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.delta import Table
from noria.lake.files import open_files
from noria.lake.rows import Rows
from noria.lake.tables import Tables
from noria.lake.versions import stored_at, stored_versions
from noria.ledger.store import Ledger
from noria.records import Version

if TYPE_CHECKING:
    from noria.checks.verdicts import BatchVerdict
    from noria.lake.finding import Finder
    from noria.lake.forgetting import Forgotten, Held, Taken
    from noria.lake.maintenance import Vacuumed
    from noria.lake.recording import Changed, Ingested
    from noria.lake.statistics import TableStatistics
    from noria.lake.trial import Tried
    from noria.lake.writing import Writing

__all__ = ["Lake"]


class Lake:
    """Delta tables below one URL. Threads may share it; processes each open their own.

    Parameters
    ----------
    url
        A folder or an object store's URL.
    ledger
        Records what happens as runs, versions and events; None: nothing is recorded.
    clock
        Tells the instant of a change that is given none.
    """

    def __init__(self, url: str, *, ledger: Ledger | None, clock: Clock | None = None) -> None:
        self.url = url
        self._ledger = ledger
        self._clock = clock or (WallClock() if ledger is None else ledger.clock)
        self._guard = threading.RLock()
        self._tables = Tables(open_files(url))

    @cached_property
    def _writing(self) -> "Writing":
        """What changes tables: with it DuckDB is loaded, which reading does without."""
        from noria.lake.writing import Writing

        return Writing(self._tables, self._ledger, self._guard)

    def ingest(
        self,
        dataset: Dataset,
        frame: ArrowFrame | Rows,
        *,
        batch: int,
        app: str = "ingest",
        source: str = "batch",
        cause: str | None = None,
        at: datetime | None = None,
    ) -> "Ingested":
        """Check a batch and land what holds, in one commit; the same number again does nothing.

        Rows that break the contract, and what could not be read as a row, go to `<dataset>__rejected` with
        their reason. A row that is there already with equal content is dropped and counted as repeated.
        Streams and the rows of a source are never whole in memory.

        Parameters
        ----------
        frame
            The rows, with the columns of the dataset; `known_at` may be left to the lake.
        batch
            Its number; each has to be above the last one of `app` that landed.
        app
            The sequence to which the number belongs.
        source
            Where it came from, for the record.
        cause
            The event that led to it.
        at
            The project's instant, by default the clock's.

        Raises
        ------
        SourceError
            If columns or types are not those of the table (says column, found and wanted), or the source
            cannot be read to its end.
        ConfigError
            If the declaration lacks a column of the table, or wants a type that is not a wider one.
        BatchBlocked
            If too many rows, or a rule of severity `block`, fail. The table is untouched, and the
            repaired batch may come under the same number.
        Conflict
            If the number has landed with another count of rows: these would be lost.
        DiskFull, StoreError
            If it cannot be written; run it again.
        """
        return self._writing.ingest(
            dataset, frame, number=batch, app=app, source=source, cause=cause, at=self._at(at)
        )

    def check(
        self, dataset: Dataset, frame: ArrowFrame, *, batch: int | None = None, at: datetime | None = None
    ) -> "BatchVerdict":
        """Hold rows against the contract as `ingest` would, and write nothing.

        Parameters
        ----------
        batch
            The number under which the rows will come: if it has landed, keys of the table are no longer
            held against them.

        Raises
        ------
        SourceError
            If columns or types are not those of the table.
        """
        return self._writing.check(dataset, frame, batch=batch, at=self._at(at))

    def try_out(self, dataset: Dataset, rows: Rows, *, at: datetime | None = None) -> "Tried":
        """Tell what `ingest` would do with these rows, however many they are, and write nothing."""
        return self._writing.try_out(dataset, rows, at=self._at(at))

    def append(self, name: str, table: ArrowFrame | Rows, *, batch: int, app_id: str) -> bool:
        """Append rows without a contract; False if `app_id` has landed this batch, or a later one, before.

        A table that is not there is made. Columns it does not have, and fields of structs, are added;
        those that `table` does not have are null.

        Raises
        ------
        SourceError
            If a column has another type than the table.
        """
        return self._writing.append(name, table, number=batch, app=app_id)

    def overwrite(
        self,
        target: Dataset | str,
        frame: ArrowFrame | Rows,
        *,
        column: str,
        low: Any,
        high: Any,
        batch: int,
        app: str = "overwrite",
        source: str = "overwrite",
        cause: str | None = None,
        at: datetime | None = None,
    ) -> "Changed":
        """Put rows in the place of exactly those with `low <= column < high`, in one commit.

        Parameters
        ----------
        target
            A dataset, whose contract holds and whose change is recorded as a version; or a table's name.
        low, high
            None leaves a side open; both: all rows are replaced.
        batch, app
            As of `ingest`: the same number again does nothing.

        Raises
        ------
        SourceError
            If a row is outside of the range, or not of the table's columns and types.
        NotFound
            If there is no such column.
        BatchBlocked
            As of `ingest`.
        """
        return self._writing.overwrite(
            target,
            frame,
            span=(column, low, high),
            number=batch,
            app=app,
            source=source,
            cause=cause,
            at=self._at(at),
        )

    def delete(
        self,
        name: str,
        where: str,
        *,
        reason: str,
        batch: int | None = None,
        app: str = "delete",
        cause: str | None = None,
        at: datetime | None = None,
    ) -> "Changed":
        """Delete the rows of which an SQL condition is true, in one commit. Older versions keep them.

        Parameters
        ----------
        where
            A condition over one row's columns. It is not recorded, as it may hold values of rows.
        reason
            Is recorded.
        batch, app
            Given a number, the same one again does nothing.

        Raises
        ------
        NotFound
            If there is no such table.
        ConfigError
            If it is no condition over these columns.
        """
        return self._writing.delete(
            name, where, reason=reason, number=batch, app=app, cause=cause, at=self._at(at)
        )

    def forget(
        self,
        name: str,
        column: str,
        values: Iterable[Any],
        *,
        reason: str = "asked for",
        cause: str | None = None,
        at: datetime | None = None,
    ) -> "Forgotten":
        """Take a subject's rows out of a table, of its rejected rows and of all older versions, for good.

        Older versions stay readable and give what is left; an event `redacted` tells the old and the new
        digest of each. No value stands in any event. Killed in between, the same call completes it.

        Parameters
        ----------
        column, values
            The subject's rows are those in which the column has one of these values.

        Raises
        ------
        NotFound
            If there is no such table or column.
        ConfigError
            If there is no value, or one that is missing.
        """
        return self._writing.forget(name, column, values, reason=reason, cause=cause, at=self._at(at))

    def held(
        self, name: str, column: str, values: Iterable[Any], *, columns: Sequence[str] | None = None
    ) -> "dict[str, Held]":
        """Tell what a dataset, its rejected rows and all older versions hold of a subject, by table.

        Nothing is changed. With `columns` the rows found in the dataset come along. Raises as `forget`.
        """
        return self._writing.held(name, column, values, columns=columns)

    def names_of(self, name: str, column: str) -> list[str]:
        """Give every name that a column of a table ever had. Raises `NotFound`."""
        return self._writing.names_of(name, column)

    def search(self, name: str, find: "Finder", *, columns: Sequence[str] | None = None) -> "Held":
        """Tell what one table and its older versions hold of rows, with `columns` the rows too."""
        return self._writing.search(name, find, columns=columns)

    def erase(
        self,
        name: str,
        find: "Finder",
        *,
        about: dict[str, Any] | None = None,
        reason: str = "asked for",
        cause: str | None = None,
        at: datetime | None = None,
    ) -> "Taken":
        """Take rows out of one table and of all its older versions for good, as `forget` does.

        Parameters
        ----------
        find
            Which; see `noria.lake.finding`.
        about
            What else is recorded of it; no value of a row.
        """
        return self._writing.erase(name, find, about=about or {}, reason=reason, cause=cause, at=self._at(at))

    def last_batch(self, name: str, app_id: str = "ingest") -> int | None:
        """Give the newest batch that landed; None if there is none."""
        with self._guard:
            table = self._tables.find(name)
            return None if table is None else table.transaction(app_id)

    def read(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: Any = None,
        version: Version | int | None = None,
        at: datetime | None = None,
    ) -> pa.Table:
        """Give the rows of a table, in the order of their batches.

        Parameters
        ----------
        columns
            Only these, in this order.
        where
            A `pyarrow.dataset` expression; files whose statistics rule it out are not opened.
        version
            A version of a dataset, or its number; None: as it is now.
        at
            An instant: the newest version that was recorded for it or before.

        Raises
        ------
        NotFound
            If there is no such table, column or version.
        """
        return self._table(name, version, at).read(columns=columns, where=where)

    def history(self, name: str, *, columns: Sequence[str], where: Any, version: Any = None) -> pa.Table:
        """Give rows as `read` does and those that others replaced: see `noria.lake.replaced`."""
        from noria.lake.replaced import with_replaced

        return with_replaced(self._tables, self._guard, self._table(name, version), columns, where)

    def reader(self, name: str, *, version: Version | int | None = None, at: datetime | None = None) -> Any:
        """Give a `pyarrow.dataset.Dataset`, which DuckDB and others scan lazily. Raises `NotFound`."""
        return self._table(name, version, at).dataset()

    def schema(
        self, name: str, *, version: Version | int | None = None, at: datetime | None = None
    ) -> pa.Schema:
        """Give a table's columns and types. Raises `NotFound`."""
        return self._table(name, version, at).schema

    def statistics(
        self, name: str, *, version: Version | int | None = None, at: datetime | None = None
    ) -> "TableStatistics":
        """Tell rows, size and files of a table, and of each column what is missing and its bounds.

        Nothing is read but the log. Raises `NotFound`.
        """
        from noria.lake.statistics import statistics_of

        return statistics_of(self._table(name, version, at))

    def names(self) -> list[str]:
        """Name the tables, sorted."""
        return self._tables.names()

    def exists(self, name: str, *, dropped: bool = False) -> bool:
        """Say whether there is a table of that name; `dropped`: or one that was dropped."""
        return self._tables.exists(name) or (dropped and self._tables.was_dropped(name))

    def version_digest(self, name: str, version: Version | int | None = None, *, verify: bool = False) -> str:
        """Compute the digest of a table, or of a version of it, from its files.

        Parameters
        ----------
        verify
            Read the bytes of every file too, and hold them against the digest in its name.

        Raises
        ------
        DigestMismatch
            If a file is not what was written.
        """
        table = self._table(name, version)
        if verify:
            for each in table.files:
                found = table.hash_file(each)
                if found != table.file_digest(each):
                    raise DigestMismatch(f"{name}/{each.path}", table.file_digest(each), found)
        return table.digest()

    def expected_digest(self, version: Version) -> str:
        """Give the digest that a version has to have: the recorded one, or that of its newest redaction."""
        from noria.ledger.redacted import expected_digest

        return expected_digest(self._recorder(version.name), version)

    def record_version(
        self, name: str, *, kind: str, cause: str | None = None, at: datetime | None = None
    ) -> Version:
        """Record a table that is no dataset as a version, as it is now; the same rows are the same version.

        Raises
        ------
        NotFound
            If there is no such table.
        ConfigError
            If this lake has no ledger.
        """
        ledger = self._recorder(name)
        with self._guard:
            table = self._table(name, None)
            facts = {"rows": table.rows, "files": len(table.files)}
            uri = f"delta:{table.name}@{table.version}"
            digest = table.digest()
        return ledger.record_version(kind, name, sha256=digest, uri=uri, facts=facts, cause=cause, at=at)

    def compact(self, name: str, *, keep_newest: int = 0, rows_per_file: int = ROWS_PER_FILE) -> int:
        """Put the rows of small files into few; give how many files were replaced.

        The rows and their order stay, no version is made, and older versions stay readable. Batches do so
        by themselves now and then.

        Parameters
        ----------
        keep_newest
            So many of the newest files are left alone.
        rows_per_file
            Neighbouring files are joined up to this.
        """
        return self._writing.compact(name, keep_newest=keep_newest, rows_per_file=rows_per_file)

    def vacuum(
        self, name: str, *, retention: timedelta = timedelta(days=7), dry_run: bool = False
    ) -> "Vacuumed":
        """Remove files that are no part of a table, nor of any version of it on record.

        Parameters
        ----------
        retention
            What went, or was written and never landed, stays so long: others may be at work with it.
        dry_run
            Tell what would be removed, and remove nothing.

        Raises
        ------
        NotFound
            If there is no such table.
        """
        return self._writing.vacuum(name, retention=retention, dry_run=dry_run)

    def values_there(self, name: str, column: str, *, without: Collection[str] = ()) -> set[Any]:
        """Give the values of a column in the newest state and in whatever older one can still be read.

        Parameters
        ----------
        without
            Files of the table that are left out, as a vacuum names them.

        Raises
        ------
        NotFound
            If there is no such table.
        """
        return self._writing.values_there(name, column, without=without)

    def close(self) -> None:
        """Let go of what is open."""
        if "_writing" in self.__dict__:
            self._writing.close()

    def _at(self, at: datetime | None) -> datetime:
        return self._clock.now() if at is None else at

    def _recorder(self, name: str) -> Ledger:
        if self._ledger is None:
            raise ConfigError(f"a version of {name!r} is asked for, but this lake has no ledger")
        return self._ledger

    def _table(self, name: str, version: Version | int | None, at: datetime | None = None) -> Table:
        if version is not None and at is not None:
            raise Conflict(f"{name!r} is asked for by version and by instant; give one of them")
        if at is not None:
            version = self._version_at(name, at)
        elif isinstance(version, int):
            version = self._recorder(name).get_version("dataset", name, version)
        with self._guard:
            if version is None:
                return self._tables.get(name)
            table, _, number = version.uri.removeprefix("delta:").rpartition("@")
            if not version.uri.startswith("delta:") or table != name or not number.isdecimal():
                raise NotFound("dataset version", f"{version.ref} ({version.uri}) of table {name}")
            return self._tables.get_at(name, int(number))

    def _version_at(self, name: str, at: datetime) -> Version:
        if at.tzinfo is None:
            raise ConfigError(f"{at!r} has no time zone; noria speaks aware UTC only")
        versions = stored_versions(self._recorder(name), name)
        if not versions:
            raise NotFound("dataset version", f"{name} at {at.isoformat()}", ())
        found = stored_at(versions, at)
        if found is None:
            first = min(versions, key=lambda each: each.at)
            raise NotFound(
                "dataset version", f"{name} at {at.isoformat()}", (f"{first.ref} of {first.at.isoformat()}",)
            )
        return found
