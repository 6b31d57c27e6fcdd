"""One Delta table: its state in memory, appended to by writing the log itself.

Delta's protocol for an append is one JSON file whose name must not exist yet. Writing that file here costs
less than a millisecond, where the library's commit and the reading back of its state cost twenty and grow
with the table; everything else, opening, creating, evolving, checkpoints, is the library's.

Data files are named after their content, `part-<batch>-<app>-<sha256>.parquet`: a digest of the whole
table needs no bytes to be read again, and a write that is repeated after a kill replaces itself.

References
----------
Delta Transaction Log Protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from noria.errors import NotFound, StoreError
from noria.lake.files import Files, translated
from noria.lake.schema import merged_type
from noria.records import canonical_json, sha256_hex

__all__ = ["DataFile", "Table", "create_table", "table_exists"]

ROWS_PER_FILE = 1_000_000
_ROWS_PER_GROUP = 65_536
_CHECKPOINT_EVERY = 25  # opening a table reads every commit since: 0.3 ms each
_COMMIT_ATTEMPTS = 50
_FEATURES = {"timestampNtz", "appendOnly", "invariants"}
_NAMED = re.compile(r"part-.*-([0-9a-f]{64})\.parquet")
_UNKNOWN = re.compile(r"No match for FieldRef\.Name\((.*?)\)")
_STEM_CHARACTERS = 80  # of an app id in a file name; the digest tells files apart
_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")
_BOUNDED_TYPES = (int, str, date)  # datetime is a date; bool is an int, but is left out where it is read
_TICK = timedelta(milliseconds=1)  # other writers truncate instants in statistics to this
_FORMAT = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
)


@dataclass(slots=True)
class DataFile:
    """One immutable file of rows, and what its statistics say."""

    path: str
    rows: int
    size_bytes: int
    low: Mapping[str, Any]
    high: Mapping[str, Any]
    nulls: Mapping[str, int | None]
    fragment: Any = field(default=None, repr=False)
    sha256: str | None = None


class Table:
    """One table as of its newest commit, or as of `version`, Delta's own number.

    Raises
    ------
    NotFound
        If there is no such table.
    StoreError
        If it uses features of Delta that the lake does not write.
    """

    def __init__(self, files: Files, name: str, *, version: int | None = None) -> None:
        self.name = name
        self._store = files
        self._uri = f"{files.root}/{name}"
        self._pinned = version is not None
        self._files: dict[str, DataFile] = {}
        self._load(version)

    @property
    def files(self) -> list[DataFile]:
        """The active files, in the order of their batches."""
        return [self._files[path] for path in sorted(self._files)]

    @property
    def rows(self) -> int:
        """How many rows there are, by the statistics."""
        return sum(each.rows for each in self._files.values())

    def refresh(self) -> None:
        """Take over what others have committed."""
        if not self._pinned and self._store.exists(_log_path(self.name, self.version + 1)):
            self._load(None)

    def transaction(self, app_id: str) -> int | None:
        """Give the newest batch that `app_id` has committed."""
        if app_id not in self._transactions:
            self._transactions[app_id] = self._opened.transaction_version(app_id)
        return self._transactions[app_id]

    def commit_facts(self, app_id: str, batch: int) -> dict[str, Any]:
        """Give the facts that were committed with a batch. Looks backwards from the newest commit."""
        for version in range(self.version, -1, -1):
            lines = (self._store.find(_log_path(self.name, version)) or b"").splitlines()
            actions = [json.loads(line) for line in lines]
            if any(
                each.get("txn", {}).get("appId") == app_id and each["txn"]["version"] == batch
                for each in actions
            ):
                info = next(each["commitInfo"] for each in actions if "commitInfo" in each)
                return {"version": version, **info.get("noria", {})}
        raise NotFound("batch", f"{batch} of {app_id} in {self.name}")

    def append(
        self, table: pa.Table, *, app_id: str, batch: int, after: int | None, facts: Mapping[str, Any]
    ) -> list[DataFile] | None:
        """Append rows and the batch's number in one commit.

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
        new = [
            self._put(part, f"{batch:012d}-{_UNSAFE.sub('_', app_id)[-_STEM_CHARACTERS:]}-{place}")
            for place, part in enumerate(_parts(table))
        ]
        lines = [
            {"txn": {"appId": app_id, "version": batch}},
            *(_add(each, data_change=True) for each in new),
        ]
        if not self._commit(lines, facts=facts, unless=lambda: self.transaction(app_id) != after):
            return None
        self._transactions[app_id] = batch
        self._files |= {each.path: each for each in new}
        return new

    def replace(self, old: Sequence[DataFile], table: pa.Table) -> list[DataFile] | None:
        """Put the same rows into other files; None if another process has replaced one of `old`."""
        stem = old[0].path.split("-", 2)[1]
        new = [
            self._put(part, f"{stem}-compact{len(old)}-{place}") for place, part in enumerate(_parts(table))
        ]
        lines = [*(_remove(each) for each in old), *(_add(each, data_change=False) for each in new)]
        gone = {each.path for each in old}
        if not self._commit(
            lines, facts={}, unless=lambda: not gone <= set(self._files), operation="OPTIMIZE"
        ):
            return None
        self._files = {path: each for path, each in self._files.items() if path not in gone}
        self._files |= {each.path: each for each in new}
        return new

    def delete(self, predicate: str) -> None:
        """Remove the rows of an SQL predicate."""
        try:
            DeltaTable(self._uri).delete(predicate)
        except (DeltaError, OSError) as err:
            raise translated(err, self._uri) from err
        self._load(None)

    def widen(self, schema: pa.Schema) -> None:
        """Add the columns of `schema`, and fields of its structs, that are not there: null in old rows."""
        new = [each for each in schema if each.name not in self.schema.names]
        merged = pa.schema(
            [
                each.with_type(merged_type(each.type, schema.field(each.name).type))
                if each.name in schema.names
                else each
                for each in self.schema
            ]
        )
        try:
            if not merged.equals(self.schema):
                write_deltalake(
                    DeltaTable(self._uri), merged.empty_table(), mode="append", schema_mode="merge"
                )
                self._load(None)
            if new:
                DeltaTable(self._uri).alter.add_columns(list(Schema.from_arrow(pa.schema(new)).fields))
                self._load(None)
        except (DeltaError, OSError) as err:
            raise translated(err, self._uri) from err

    def dataset(self, files: Iterable[DataFile] | None = None) -> Any:
        """Give a pyarrow dataset whose files know their bounds, so that a filter opens only those it must."""
        fragments = [self._fragment(each) for each in (self.files if files is None else files)]
        return pads.FileSystemDataset(fragments, self.schema, _FORMAT, self._store.arrow(self.name)[0])

    def read(
        self,
        files: Iterable[DataFile] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: Any = None,
    ) -> pa.Table:
        """Read rows, of all files or of `files`.

        Raises
        ------
        NotFound
            If a column is unknown.
        StoreError
            If a file is gone or damaged.
        """
        for column in columns or ():
            if column not in self.schema.names:
                raise NotFound("column", column, self.schema.names)
        try:
            return self.dataset(files).to_table(
                columns=None if columns is None else list(columns), filter=where
            )
        except pa.ArrowInvalid as err:
            unknown = _UNKNOWN.search(str(err))
            if unknown:
                raise NotFound("column", unknown[1], self.schema.names) from err
            raise translated(err, self._uri) from err
        except OSError as err:
            raise translated(err, self._uri) from err

    def digest(self) -> str:
        """Give the sha256 over the schema and the files' sha256, which are sorted."""
        return sha256_hex(
            canonical_json(
                {
                    "schema": [[each.name, str(each.type)] for each in self.schema],
                    "files": sorted(map(self.file_digest, self._files.values())),
                }
            )
        )

    def file_digest(self, file: DataFile) -> str:
        """Give a file's sha256: from its name, for a foreign file from its bytes."""
        if file.sha256 is None:
            named = _NAMED.fullmatch(file.path)
            file.sha256 = named[1] if named else self.hash_file(file)
        return file.sha256

    def hash_file(self, file: DataFile) -> str:
        """Give the sha256 of a file's bytes as they are now."""
        data = self._store.find(f"{self.name}/{file.path}")
        if data is None:
            raise StoreError(f"{self._uri}/{file.path} is gone; restore it from a backup")
        return sha256_hex(data)

    def checkpoint(self) -> None:
        """Sum up the log, so that opening the table reads one file."""
        try:
            DeltaTable(self._uri).create_checkpoint()
        except (DeltaError, OSError) as err:
            raise translated(err, self._uri) from err

    def _load(self, version: int | None) -> None:
        try:
            opened = DeltaTable(self._uri, version=version)
        except TableNotFoundError as err:
            raise NotFound("table", self.name, self._store.folders()) from err
        except (DeltaError, OSError) as err:
            raise translated(err, self._uri) from err
        _want_plain(opened, self._uri)
        self._opened = opened
        self._transactions: dict[str, int | None] = {}
        self.version: int = opened.version()
        self.schema = pa.schema(opened.schema().to_arrow()).remove_metadata()
        known = self._files
        self._files = {
            each.path: known.get(each.path, each) for each in _listed(pa.table(opened.get_add_actions()))
        }

    def _commit(
        self,
        lines: Iterable[Mapping[str, Any]],
        *,
        facts: Mapping[str, Any],
        unless: Any,
        operation: str = "WRITE",
    ) -> bool:
        info = {
            "timestamp": time.time_ns() // 1_000_000,
            "operation": operation,
            "operationParameters": {"mode": "Append"} if operation == "WRITE" else {},
            "engineInfo": "noria",
            "noria": dict(facts),
        }
        data = b"\n".join(canonical_json(line) for line in [{"commitInfo": info}, *lines]) + b"\n"
        for _ in range(_COMMIT_ATTEMPTS):
            if self._store.create(_log_path(self.name, self.version + 1), data):
                self.version += 1
                if self.version % _CHECKPOINT_EVERY == 0:
                    self.checkpoint()
                return True
            self._load(None)
            if unless():
                return False
        raise StoreError(f"{self._uri}: {_COMMIT_ATTEMPTS} commits of others came first; try again")

    def _put(self, table: pa.Table, stem: str) -> DataFile:
        sink = pa.BufferOutputStream()
        collected: list[Any] = []
        pq.write_table(
            table,
            sink,
            compression="zstd",
            row_group_size=_ROWS_PER_GROUP,
            store_schema=False,
            metadata_collector=collected,
        )
        data = sink.getvalue().to_pybytes()
        sha256 = sha256_hex(data)
        low, high, nulls = _statistics(collected[0], table.schema)
        path = f"part-{stem}-{sha256}.parquet"
        self._store.put(f"{self.name}/{path}", data)
        return DataFile(path, table.num_rows, len(data), low, high, nulls, sha256=sha256)

    def _fragment(self, file: DataFile) -> Any:
        if file.fragment is None:
            system, path = self._store.arrow(f"{self.name}/{file.path}")
            file.fragment = _FORMAT.make_fragment(
                path, system, partition_expression=_bounds(file, self.schema)
            )
        return file.fragment


def table_exists(files: Files, name: str) -> bool:
    """Say whether there is a table of that name."""
    return files.exists(_log_path(name, 0))


def create_table(files: Files, name: str, schema: pa.Schema) -> Table:
    """Create an empty table, or open the one that is there."""
    try:
        DeltaTable.create(
            f"{files.root}/{name}",
            schema=Schema.from_arrow(schema),
            mode="ignore",
            configuration={"delta.enableExpiredLogCleanup": "false"},
        )
    except (DeltaError, OSError) as err:
        if not table_exists(files, name):  # else another process was faster
            raise translated(err, files.root) from err
    return Table(files, name)


def _log_path(name: str, version: int) -> str:
    return f"{name}/_delta_log/{version:020d}.json"


def _want_plain(opened: DeltaTable, uri: str) -> None:
    protocol = opened.protocol()
    features = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
    plain = protocol.min_writer_version <= 2 or (protocol.min_writer_version == 7 and features <= _FEATURES)
    if not plain or opened.metadata().partition_columns:
        raise StoreError(
            f"{uri} was changed by another tool: it is partitioned or uses features the lake does not write "
            f"({', '.join(sorted(features - _FEATURES)) or 'an older writer version'}); "
            "copy its rows to a new table"
        )


def _listed(actions: pa.Table) -> Iterator[DataFile]:
    for row in actions.to_pylist():
        yield DataFile(
            row["path"],
            row.get("num_records") or 0,
            row["size_bytes"],
            row.get("min") or {},
            row.get("max") or {},
            row.get("null_count") or {},
        )


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, ROWS_PER_FILE):
        yield table.slice(start, ROWS_PER_FILE)


def _statistics(
    metadata: Any, schema: pa.Schema
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int | None]]:
    """Read bounds and null counts off what the Parquet writer has collected anyway."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int | None] = {}
    unknown = set()
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for place in range(columns.num_columns):
            column = columns.column(place)
            name, found = column.path_in_schema, column.statistics
            if found is None or name not in schema.names:
                continue
            if found.has_null_count:
                nulls[name] = (nulls.get(name) or 0) + found.null_count
            if not found.has_min_max:
                if found.null_count != found.num_values + found.null_count:
                    unknown.add(name)
                continue
            if isinstance(found.min, bool) or not isinstance(found.min, _BOUNDED_TYPES):
                continue
            low[name] = min(low.get(name, found.min), found.min)
            high[name] = max(high.get(name, found.max), found.max)
    for name in unknown:
        low.pop(name, None)
        high.pop(name, None)
    return low, high, nulls


def _add(file: DataFile, *, data_change: bool) -> dict[str, Any]:
    stats = {
        "numRecords": file.rows,
        "minValues": {name: _told(value) for name, value in file.low.items()},
        "maxValues": {name: _told(value) for name, value in file.high.items()},
        "nullCount": dict(file.nulls),
    }
    return {
        "add": {
            "path": file.path,
            "partitionValues": {},
            "size": file.size_bytes,
            "modificationTime": time.time_ns() // 1_000_000,
            "dataChange": data_change,
            "stats": canonical_json(stats).decode(),
        }
    }


def _remove(file: DataFile) -> dict[str, Any]:
    return {
        "remove": {
            "path": file.path,
            "deletionTimestamp": time.time_ns() // 1_000_000,
            "dataChange": False,
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": file.size_bytes,
        }
    }


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        text = value.strftime("%Y-%m-%dT%H:%M:%S.%f")
        return text if value.tzinfo is None else text + "Z"
    return value.isoformat() if isinstance(value, date) else value


def _bounds(file: DataFile, schema: pa.Schema) -> Any:
    """Say in pyarrow's terms what the statistics promise of every row of `file`."""
    promise = pads.scalar(True)
    for each in schema:
        name = each.name
        low, high = file.low.get(name), file.high.get(name)
        if isinstance(low, bool) or not isinstance(low, _BOUNDED_TYPES) or high is None:
            continue
        if isinstance(high, datetime):
            high += _TICK
        column = pads.field(name)
        held = (column >= pa.scalar(low, each.type)) & (column <= pa.scalar(high, each.type))
        if file.nulls.get(name) != 0:
            held = held | column.is_null()
        promise = promise & held
    return promise
