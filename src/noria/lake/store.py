"""The lake: tables that batches are appended to, each batch exactly once."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from noria.clock import Clock, WallClock
from noria.errors import ConfigError, Conflict, DigestMismatch, NotFound
from noria.lake.declarations import ArrowFrame, Dataset
from noria.lake.delta import ROWS_PER_FILE, DataFile, Table
from noria.lake.files import open_files
from noria.lake.schema import as_table, fill, storable_schema
from noria.lake.tables import INGEST, Tables
from noria.ledger.store import Ledger
from noria.records import Version

if TYPE_CHECKING:
    from noria.checks.engine import BatchVerdict
    from noria.lake.ingest import Ingestor
    from noria.lake.recording import Ingested

__all__ = ["Lake"]

_ATTEMPTS = 10


class Lake:
    """Delta tables below one URL. Threads may share it; processes each open their own.

    Parameters
    ----------
    url
        A folder or an object store's URL.
    ledger
        Records ingests as runs, versions and events; None: nothing is recorded.
    clock
        Tells the instant of an ingest that is given none.
    """

    def __init__(self, url: str, *, ledger: Ledger | None, clock: Clock | None = None) -> None:
        self.url = url
        self._ledger = ledger
        self._clock = clock or (WallClock() if ledger is None else ledger.clock)
        self._guard = threading.RLock()
        self._tables = Tables(open_files(url))

    @cached_property
    def _ingestor(self) -> "Ingestor":
        """Who checks and lands batches: with it DuckDB is loaded, which reading does without."""
        from noria.lake.ingest import Ingestor
        from noria.lake.recording import IngestRecords

        return Ingestor(self._tables, None if self._ledger is None else IngestRecords(self._ledger))

    def ingest(
        self,
        dataset: Dataset,
        frame: ArrowFrame,
        *,
        batch: int,
        source: str = "batch",
        cause: str | None = None,
        at: datetime | None = None,
    ) -> "Ingested":
        """Check a batch and append what holds; the same number again does nothing.

        Rows that break the contract go to `<dataset>__rejected` with their reason.

        Parameters
        ----------
        frame
            The rows, with the columns of the dataset; `known_at` may be left to the lake.
        batch
            Its number; each has to be above the last one that landed.
        source
            Where it came from, for the record.
        cause
            The event that led to it.
        at
            The project's instant, by default the clock's.

        Raises
        ------
        SourceError
            If columns or types are not those of the table; says column, found and wanted.
        BatchBlocked
            If too many rows, or a rule of severity `block`, fail. The table is untouched, and the
            repaired batch may come under the same number.
        Conflict
            If the number has landed with another count of rows: these would be lost.
        DiskFull, StoreError
            If it cannot be written; run it again.
        """
        from noria.lake.recording import Batch

        named = Batch(dataset.name, batch, source, cause, self._clock.now() if at is None else at)
        with self._guard:
            return self._ingestor.ingest(dataset, frame, named)

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
        with self._guard:
            return self._ingestor.check(dataset, frame, batch=batch, at=at or self._clock.now())

    def append(self, name: str, table: ArrowFrame, *, batch: int, app_id: str) -> bool:
        """Append rows without a contract; False if `app_id` has landed this batch, or a later one, before.

        A table that is not there is made. Columns it does not have, and fields of structs, are added;
        those that `table` does not have are null.

        Raises
        ------
        SourceError
            If a column has another type than the table.
        """
        rows = as_table(table, name=name)
        with self._guard:
            target = self._tables.find(name)
            if target is None:
                target = self._tables.create(name, storable_schema(rows.schema, name=name))
            for _ in range(_ATTEMPTS):
                last = target.transaction(app_id)
                if last is not None and batch <= last:
                    return False
                target.widen(storable_schema(rows.schema, name=name))
                ready = fill(rows, target.schema, name=name)
                if target.append(ready, app_id=app_id, batch=batch, after=last, facts={}) is not None:
                    return True
        raise Conflict(f"{name!r}: other processes append as {app_id!r} all the time; let one of them do it")

    def last_batch(self, name: str, app_id: str = INGEST) -> int | None:
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

        Raises
        ------
        NotFound
            If there is no such table, column or version.
        """
        return self._table(name, version).read(columns=columns, where=where)

    def reader(self, name: str, *, version: Version | int | None = None) -> Any:
        """Give a `pyarrow.dataset.Dataset`, which DuckDB and others scan lazily. Raises `NotFound`."""
        return self._table(name, version).dataset()

    def schema(self, name: str) -> pa.Schema:
        """Give a table's columns and types. Raises `NotFound`."""
        return self._table(name, None).schema

    def names(self) -> list[str]:
        """Name the tables, sorted."""
        return self._tables.names()

    def exists(self, name: str) -> bool:
        """Say whether there is a table of that name."""
        return self._tables.exists(name)

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
        if self._ledger is None:
            raise ConfigError(f"a version of {name!r} is to be recorded, but this lake has no ledger")
        table = self._table(name, None)
        facts = {"rows": table.rows, "files": len(table.files)}
        uri = f"delta:{table.name}@{table.version}"
        return self._ledger.record_version(
            kind, name, sha256=table.digest(), uri=uri, facts=facts, cause=cause, at=at
        )

    def compact(self, name: str, *, keep_newest: int = 0, rows_per_file: int = ROWS_PER_FILE) -> int:
        """Put the rows of small files into few; give how many files were replaced.

        The rows and their order stay, no version is made, and older versions stay readable.

        Parameters
        ----------
        keep_newest
            So many of the newest files are left alone.
        rows_per_file
            Neighbouring files are joined up to this.
        """
        with self._guard:
            table = self._table(name, None)
            files = table.files
            replaced = 0
            for group in _neighbours(files[: len(files) - keep_newest], rows_per_file):
                new = table.replace(group, table.read(group))
                if new is not None:
                    replaced += len(group)
                    self._ingestor.moved(name, group, new)
            return replaced

    def close(self) -> None:
        """Let go of what is open."""
        if "_ingestor" in self.__dict__:
            self._ingestor.close()

    def _table(self, name: str, version: Version | int | None) -> Table:
        with self._guard:
            if version is None:
                return self._tables.get(name)
            if isinstance(version, int):
                if self._ledger is None:
                    raise ConfigError(
                        f"version {version} of {name!r} is asked for, but this lake has no ledger"
                    )
                version = self._ledger.get_version("dataset", name, version)
            table, _, number = version.uri.removeprefix("delta:").rpartition("@")
            if not version.uri.startswith("delta:") or table != name or not number.isdecimal():
                raise NotFound("dataset version", f"{version.ref} ({version.uri}) of table {name}")
            return self._tables.get_at(name, int(number))


def _neighbours(files: Sequence[DataFile], rows: int) -> Iterator[list[DataFile]]:
    """Group small files that follow one another, up to `rows` together."""
    group: list[DataFile] = []
    for each in files:
        if group and sum(one.rows for one in group) + each.rows > rows:
            if len(group) > 1:
                yield group
            group = []
        group.append(each)
    if len(group) > 1:
        yield group
