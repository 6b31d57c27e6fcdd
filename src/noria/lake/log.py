"""A Delta table's log: the lines of a commit, and the commits there were.

References
----------
Delta Transaction Log Protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema

from noria.errors import StoreError
from noria.lake.data_files import DataFile, told
from noria.lake.files import Files
from noria.records import canonical_json

__all__ = [
    "FEATURES",
    "Commit",
    "State",
    "added",
    "commit_bytes",
    "commits",
    "dropped_path",
    "log_path",
    "newest_first",
    "removed",
    "reshaped",
    "states",
    "want_plain",
]

FEATURES = {"timestampNtz", "appendOnly", "invariants"}  # of Delta, that the lake writes
_LOCAL_INSTANTS = "timestampNtz"

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: what it added and removed, and the facts that the lake left in it."""

    version: int
    lines: Sequence[Line]

    @property
    def info(self) -> Line:
        """Who did what, when."""
        return next((each["commitInfo"] for each in self.lines if "commitInfo" in each), {})

    @property
    def facts(self) -> dict[str, Any]:
        """What the lake noted; nothing in commits of others."""
        return dict(self.info.get("noria", {}))

    @property
    def timestamp_ms(self) -> int:
        """The wall's milliseconds at which it was made."""
        return int(self.info.get("timestamp", 0))

    @property
    def added(self) -> list[str]:
        """The paths of files that came."""
        return [each["add"]["path"] for each in self.lines if "add" in each]

    @property
    def removed(self) -> list[str]:
        """The paths of files that went."""
        return [each["remove"]["path"] for each in self.lines if "remove" in each]

    def moved(self, app_id: str, batch: int) -> bool:
        """Say whether it landed this batch."""
        return any(
            each.get("txn", {}).get("appId") == app_id and each["txn"]["version"] == batch
            for each in self.lines
        )


def log_path(name: str, version: int) -> str:
    """Give where a commit lies."""
    return f"{name}/_delta_log/{version:020d}.json"


def dropped_path(name: str) -> str:
    """Give where it stands that a table was dropped: other readers of Delta pass over it."""
    return f"{name}/_delta_log/_dropped"


def commits(files: Files, name: str, *, last: int) -> Iterator[Commit]:
    """Give every commit up to `last`, oldest first.

    Raises
    ------
    StoreError
        If one is gone: the lake never removes any.
    """
    for version in range(last + 1):
        yield _commit(files, name, version)


def newest_first(files: Files, name: str, *, last: int) -> Iterator[Commit]:
    """Give every commit from `last` down. Raises `StoreError` like `commits`."""
    for version in range(last, -1, -1):
        yield _commit(files, name, version)


@dataclass(frozen=True, slots=True)
class State:
    """A table as of one commit: the paths of its files, and its columns."""

    commit: Commit
    paths: set[str]  # that of the next state, once that is asked for
    schema: pa.Schema


def states(files: Files, name: str, *, last: int) -> Iterator[State]:
    """Follow the whole log, oldest first. Raises `StoreError` like `commits`."""
    paths: set[str] = set()
    schema = pa.schema([])
    for commit in commits(files, name, last=last):
        paths.difference_update(commit.removed)
        paths.update(commit.added)
        for line in commit.lines:
            if "metaData" in line:
                told_as = Schema.from_json(line["metaData"]["schemaString"])
                schema = pa.schema(told_as.to_arrow()).remove_metadata()
        yield State(commit, paths, schema)


def commit_bytes(
    lines: Iterable[Line], *, facts: Mapping[str, Any], operation: str, told_as: Mapping[str, str]
) -> bytes:
    """Write a commit."""
    info = {
        "timestamp": time.time_ns() // 1_000_000,
        "operation": operation,
        "operationParameters": dict(told_as),
        "engineInfo": "noria",
        "noria": dict(facts),
    }
    return b"\n".join(canonical_json(line) for line in [{"commitInfo": info}, *lines]) + b"\n"


def added(file: DataFile, *, data_change: bool) -> Line:
    """Say that a file came."""
    stats = {
        "numRecords": file.rows,
        "minValues": {name: told(value) for name, value in file.low.items()},
        "maxValues": {name: told(value) for name, value in file.high.items()},
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


def removed(file: DataFile, *, data_change: bool) -> Line:
    """Say that a file went."""
    return {
        "remove": {
            "path": file.path,
            "deletionTimestamp": time.time_ns() // 1_000_000,
            "dataChange": data_change,
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": file.size_bytes,
        }
    }


def reshaped(opened: DeltaTable, schema: pa.Schema) -> list[Line]:
    """Say that the table has these columns from now on."""
    now = opened.metadata()
    lines: list[Line] = [
        {
            "metaData": {
                "id": str(now.id),
                "name": now.name,
                "description": now.description,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": Schema.from_arrow(schema).to_json(),
                "partitionColumns": [],
                "createdTime": now.created_time,
                "configuration": dict(now.configuration),
            }
        }
    ]
    protocol = opened.protocol()
    features = {*(protocol.writer_features or ())}
    if _has_local_instants(schema) and _LOCAL_INSTANTS not in features:
        lines.append(
            {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": [_LOCAL_INSTANTS],
                    "writerFeatures": sorted({*features, _LOCAL_INSTANTS}),
                }
            }
        )
    return lines


def want_plain(opened: DeltaTable, uri: str) -> None:
    """Raise `StoreError` if the table uses what the lake does not write."""
    protocol = opened.protocol()
    features = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
    plain = protocol.min_writer_version <= 2 or (protocol.min_writer_version == 7 and features <= FEATURES)
    if not plain or opened.metadata().partition_columns:
        raise StoreError(
            f"{uri} was changed by another tool: it is partitioned or uses features the lake does not write "
            f"({', '.join(sorted(features - FEATURES)) or 'an older writer version'}); "
            "copy its rows to a new table"
        )


def _commit(files: Files, name: str, version: int) -> Commit:
    data = files.find(log_path(name, version))
    if data is None:
        raise StoreError(
            f"{files.root}/{log_path(name, version)} is gone, though the lake keeps every commit; "
            "restore it from a backup"
        )
    return Commit(version, [json.loads(line) for line in data.splitlines() if line.strip()])


def _has_local_instants(kind: pa.Schema | pa.DataType) -> bool:
    types = pa.types
    if isinstance(kind, pa.Schema) or types.is_struct(kind):
        return any(_has_local_instants(each.type) for each in kind)
    if types.is_list(kind):
        return _has_local_instants(kind.value_type)
    return bool(types.is_timestamp(kind) and kind.tz is None)
