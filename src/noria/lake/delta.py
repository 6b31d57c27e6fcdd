"""One Delta table: its state in memory, changed by writing the log itself.

Delta's protocol for a commit is one JSON file whose name must not exist yet. Writing that file here costs
less than a millisecond, where the library's commit and the reading back of its state cost twenty and grow
with the table; everything else, opening, creating, checkpoints, is the library's.

A file whose rows of a subject were taken out for good stands in the log of older versions still; the table's
`Redactions` say which file is read in its place.

References
----------
Delta Transaction Log Protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from noria.errors import Conflict, NotFound, StoreError
from noria.lake import log
from noria.lake.data_files import DataFile, instant_of, sha256_in, stem_of
from noria.lake.files import Files, translated
from noria.lake.redactions import Redactions
from noria.lake.row_files import RowFiles
from noria.lake.schema import merged_type
from noria.records import canonical_json, sha256_hex

__all__ = ["Table", "create_table", "table_exists"]

_CHECKPOINT_EVERY = 25  # opening a table reads every commit since: 0.3 ms each
_COMMIT_ATTEMPTS = 50


class Table(RowFiles):
    """One table as of its newest commit, or as of `version`, Delta's own number.

    Raises
    ------
    NotFound
        If there is no such table.
    StoreError
        If it uses features of Delta that the lake does not write.
    """

    def __init__(self, files: Files, name: str, *, version: int | None = None) -> None:
        self.redactions = Redactions(files, name)
        super().__init__(files, name, pa.schema([]), taken=self.redactions)
        self._pinned = version is not None
        self._files: dict[str, DataFile] = {}
        self._load(version)

    @property
    def files(self) -> list[DataFile]:
        """The active files, in the order of their batches."""
        active = self._files
        return [active[path] for path in sorted(active)]

    @property
    def paths(self) -> set[str]:
        """The paths of the active files."""
        return set(self._files)

    @property
    def is_empty(self) -> bool:
        """Whether no file is active."""
        return not self._files

    @property
    def rows(self) -> int:
        """How many rows there are, by the statistics."""
        return sum(each.rows for each in self._files.values())

    def refresh(self) -> None:
        """Take over what others have committed or taken out."""
        if self._pinned:
            if self.redactions.refresh():
                self._load(self.version)
        elif self.store.exists(log.log_path(self.name, self.version + 1)):
            self._load(None)

    def transaction(self, app_id: str) -> int | None:
        """Give the newest batch that `app_id` has committed."""
        if app_id not in self._transactions:
            try:
                found = self._opened.transaction_version(app_id)
            except (DeltaError, OSError):  # the checkpoint it was opened from has been made anew since
                self._load(None)
                found = self._transaction_of(app_id)
            self._transactions[app_id] = found
        return self._transactions[app_id]

    def has_landed(self, app_id: str, batch: int) -> bool:
        """Say whether `app_id` has committed this batch, or a later one."""
        last = self.transaction(app_id)
        return last is not None and batch <= last

    def find_commit(self, app_id: str, batch: int) -> log.Commit | None:
        """Give the commit of a batch. Looks backwards from the newest one."""
        commits = log.newest_first(self.store, self.name, last=self.version)
        return next((each for each in commits if each.moved(app_id, batch)), None)

    def append(
        self,
        table: pa.Table | Iterable[pa.Table],
        *,
        app_id: str,
        batch: int,
        after: int | None,
        facts: Mapping[str, Any],
    ) -> list[DataFile] | None:
        """Append rows and the batch's number in one commit, whatever else was committed meanwhile.

        Parameters
        ----------
        table
            Has the columns of `schema`. No rows are fine: the number is recorded.
        after
            The newest batch of `app_id` that the caller has seen.

        Returns
        -------
        list of DataFile or None
            What was written; None, and nothing is, if another process landed a batch of `app_id` since.
        """
        if self.transaction(app_id) != after:
            return None
        writer = self.writer(stem_of(batch, app_id))
        for part in (table,) if isinstance(table, pa.Table) else table:
            writer.write(part)
        new = writer.close()
        done = self.commit(
            add=new, txn=(app_id, batch), facts=facts, unless=lambda: self.transaction(app_id) != after
        )
        return new if done else None

    def commit(
        self,
        *,
        add: Sequence[DataFile] = (),
        remove: Sequence[DataFile] = (),
        facts: Mapping[str, Any],
        unless: Callable[[], bool],
        txn: tuple[str, int] | None = None,
        schema: pa.Schema | None = None,
        operation: str = "WRITE",
    ) -> bool:
        """Add and remove files, all or nothing.

        Parameters
        ----------
        facts
            Stand in the commit for good.
        unless
            Asked where another commit came first, once its state was taken over: True gives up.
        txn
            An app and its batch, whose number is recorded.
        schema
            The columns from now on.
        operation
            As Delta calls it; `OPTIMIZE` says that no row has changed.

        Returns
        -------
        bool
            Whether it was done.

        Raises
        ------
        Conflict
            If a file to add is one whose rows were taken out for good.
        StoreError
            If others commit all the time.
        """
        changes = operation != "OPTIMIZE"
        lines: list[log.Line] = []
        if txn is not None:
            lines.append({"txn": {"appId": txn[0], "version": txn[1]}})
        if schema is not None:
            lines += log.reshaped(self._opened, schema)
        lines += [log.removed(each, data_change=changes) for each in remove]
        lines += [log.added(each, data_change=changes) for each in add]
        told_as = {"mode": "Append"} if operation == "WRITE" else {}
        data = log.commit_bytes(lines, facts=facts, operation=operation, told_as=told_as)
        for _ in range(_COMMIT_ATTEMPTS):
            self._want_no_redacted(add)
            if self.store.create(log.log_path(self.name, self.version + 1), data):
                break
            self._load(None)
            if unless():
                return False
        else:
            raise StoreError(f"{self.uri}: {_COMMIT_ATTEMPTS} commits of others came first; try again")
        self.version += 1
        if txn is not None:
            self._transactions[txn[0]] = txn[1]
        gone = {each.path for each in remove}
        kept = {path: each for path, each in self._files.items() if path not in gone}
        self._files = kept | {each.path: each for each in add}
        if schema is not None:
            self._load(None)
        if self.version % _CHECKPOINT_EVERY == 0:
            self.checkpoint()
        return True

    def replace(self, old: Sequence[DataFile], new: Sequence[DataFile]) -> bool:
        """Put the same rows into other files; False if another process has replaced one of `old`."""
        gone = {each.path for each in old}
        return self.commit(
            add=new,
            remove=old,
            facts={},
            unless=lambda: not gone <= set(self._files),
            operation="OPTIMIZE",
        )

    def widen(self, schema: pa.Schema, *, facts: Mapping[str, Any] | None = None) -> bool:
        """Add the columns of `schema`, and fields of its structs, that are not there: null in old rows.

        Returns
        -------
        bool
            Whether there were any.
        """
        for _ in range(_COMMIT_ATTEMPTS):
            merged = [
                each.with_type(merged_type(each.type, schema.field(each.name).type))
                if each.name in schema.names
                else each
                for each in self.schema
            ]
            wider = pa.schema([*merged, *(each for each in schema if each.name not in self.schema.names)])
            if wider.equals(self.schema):
                return False
            if self.commit(facts=facts or {}, unless=lambda: True, schema=wider, operation="ADD COLUMN"):
                return True
        raise StoreError(f"{self.uri}: its columns are changed by others all the time; try again")

    def dataset(self) -> Any:
        """Give a pyarrow dataset of all rows."""
        return self.dataset_of(self.files)

    def read(self, *, columns: Sequence[str] | None = None, where: Any = None) -> pa.Table:
        """Read rows of all files. Raises like `read_files`."""
        return self.read_files(self.files, columns=columns, where=where)

    def digest(self) -> str:
        """Give the sha256 over the schema and the files' sha256, which are sorted."""
        return self.digest_of(self.schema, self._files.values())

    def digest_of(self, schema: pa.Schema, files: Iterable[DataFile]) -> str:
        """Give the digest that the table has, or had, with these columns and files."""
        return sha256_hex(
            canonical_json(
                {
                    "schema": [[each.name, str(each.type)] for each in schema],
                    "files": sorted(map(self.file_digest, files)),
                }
            )
        )

    def file_digest(self, file: DataFile) -> str:
        """Give a file's sha256: from its name, for a foreign file from its bytes."""
        if file.sha256 is None:
            file.sha256 = sha256_in(file.path) or self.hash_file(file)
        return file.sha256

    def hash_file(self, file: DataFile) -> str:
        """Give the sha256 of a file's bytes as they are now."""
        data = self.store.find(f"{self.name}/{file.path}")
        if data is None:
            raise StoreError(f"{self.uri}/{file.path} is gone; restore it from a backup")
        return sha256_hex(data)

    def checkpoint(self) -> None:
        """Sum up the log, so that opening the table reads one file."""
        try:
            DeltaTable(self.uri).create_checkpoint()
        except (DeltaError, OSError) as err:
            raise translated(err, self.uri) from err

    def _want_no_redacted(self, add: Sequence[DataFile]) -> None:
        """Refuse files that would be read as what is left of others of the same path."""
        self.redactions.refresh()
        again = [each.path for each in add if each.path in self.redactions]
        if again:
            raise Conflict(
                f"{self.uri}: {again[0]} is to be added, but a subject's rows were taken out of the file of "
                "that name for good; do it again, the rows then come under another name"
            )

    def _transaction_of(self, app_id: str) -> int | None:
        try:
            found: int | None = self._opened.transaction_version(app_id)
            return found
        except (DeltaError, OSError) as err:
            raise translated(err, self.uri) from err

    def _load(self, version: int | None) -> None:
        try:
            opened = DeltaTable(self.uri, version=version)
        except TableNotFoundError as err:
            raise NotFound("table", self.name, self.store.folders()) from err
        except (DeltaError, OSError) as err:
            raise translated(err, self.uri) from err
        log.want_plain(opened, self.uri)
        self._opened = opened
        self._transactions: dict[str, int | None] = {}
        self.version: int = opened.version()
        self.schema = pa.schema(opened.schema().to_arrow()).remove_metadata()
        self.redactions.refresh()
        known = self._files
        actions = pa.RecordBatchReader.from_stream(opened.get_add_actions())
        listed = self.redactions.applied(_listed(actions.read_all()))
        self._files = {each.path: known.get(each.path, each) for each in listed}


def table_exists(files: Files, name: str, *, dropped: bool = False) -> bool:
    """Say whether there is a table of that name; `dropped`: one that was dropped counts, too."""
    return files.exists(log.log_path(name, 0)) and (dropped or not files.exists(log.dropped_path(name)))


def create_table(files: Files, name: str, schema: pa.Schema) -> Table:
    """Create an empty table, or open the one that is there; one that was dropped comes back, empty.

    What was dropped comes back with these columns, and counts as dropped until it has them.
    """
    try:
        DeltaTable.create(
            f"{files.root}/{name}",
            schema=Schema.from_arrow(schema),
            mode="ignore",
            configuration={"delta.enableExpiredLogCleanup": "false"},
        )
    except (DeltaError, OSError) as err:
        if not table_exists(files, name, dropped=True):  # else another process was faster
            raise translated(err, files.root) from err
    table = Table(files, name)
    if files.exists(log.dropped_path(name)):
        if table.is_empty and not table.schema.equals(schema):
            table.commit(facts={}, unless=lambda: True, schema=schema, operation="REPLACE")
        files.delete(log.dropped_path(name))
    return table


def _listed(actions: pa.Table) -> Iterator[DataFile]:
    names = ("path", "num_records", "size_bytes", "min", "max", "null_count")
    columns = [
        _values(actions.column(each)) if each in actions.column_names else [None] * actions.num_rows
        for each in names
    ]
    for path, rows, size_bytes, low, high, nulls in zip(*columns, strict=True):
        yield DataFile(path, rows or 0, size_bytes, low or {}, high or {}, nulls or {})


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Give values as `to_pylist` does, which would load pandas for instants."""
    return [value for chunk in column.chunks for value in _of_array(chunk)]


def _of_array(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_struct(kind):
        names = [each.name for each in kind]
        fields = (_of_array(array.field(place)) for place in range(kind.num_fields))
        rows = zip(*fields, strict=True) if names else ((),) * len(array)
        return [
            dict(zip(names, row, strict=True)) if valid else None
            for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)
        ]
    if pa.types.is_timestamp(kind):
        micros = array.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).to_pylist()
        return [None if each is None else instant_of(each, kind) for each in micros]
    values: list[Any] = array.to_pylist()
    return values
