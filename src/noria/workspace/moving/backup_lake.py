"""The lake's tables in a backup, each up to the commit that agrees with the ledger's snapshot.

A batch is committed to its table first and put on record after that. So a table is kept up to what it had
before the snapshot was taken, or up to the newest version on record in it, whichever is later: what was
committed and is not on record is put there by whoever writes to the table next, as after a kill. Tables of
which nothing is on record are kept as they are after the snapshot.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from noria.errors import Conflict, DigestMismatch, SourceError, StoreError
from noria.lake.data_files import sha256_in
from noria.lake.redactions import FOLDER as REDACTIONS
from noria.lake.redactions import Redactions
from noria.storage.contract import blob_key
from noria.workspace.moving.backup_records import LAKE_PART
from noria.workspace.moving.checks import leaving_damaged
from noria.workspace.moving.table_files import TableFile, TableWriter, disk_faults, read_pieces

if TYPE_CHECKING:
    from noria.lake.files import Files, Stored
    from noria.workspace.moving.backup_bytes import Copied, Pool

__all__ = ["KeptTables", "copy_tables", "last_commits", "put_tables"]

_LOG = "_delta_log/"
_COMMIT = re.compile(r"_delta_log/(\d{20})\.json")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint.*\.parquet")
_LOGS = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("data", pa.binary(), nullable=False),
    ]
)
_FILES = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)


class KeptTables(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup has of the lake."""

    commits: dict[str, int]
    logs: TableFile
    files: TableFile
    size_bytes: int


def last_commits(files: Files) -> dict[str, int]:
    """Give the newest commit of each table, dropped ones too."""
    found = {}
    for name in files.folders():
        numbers = [
            int(named[1])
            for each in files.listed(f"{name}/{_LOG.rstrip('/')}")
            if (named := _COMMIT.fullmatch(each.path.removeprefix(f"{name}/")))
        ]
        if numbers:
            found[name] = max(numbers)
    return found


def copy_tables(
    files: Files,
    pool: Pool,
    folder: Path,
    copied: Copied,
    *,
    before: Mapping[str, int],
    recorded: Mapping[str, int],
) -> KeptTables:
    """Take over the lake's tables.

    Parameters
    ----------
    before
        The newest commit of each table before the snapshot was taken.
    recorded
        The newest commit of each table that is on record in the snapshot.

    Raises
    ------
    Conflict
        If files of a table were removed meanwhile, as where a subject is forgotten.
    """
    now = last_commits(files)
    commits = {
        name: min(last, max(before.get(name, -1), recorded[name])) if name in recorded else last
        for name, last in now.items()
    }
    for name, number in recorded.items():
        if now.get(name, -1) < number:
            copied.damaged.append(
                f"table {name} ends at commit {now.get(name, 'none')}, {number} is on record"
            )
    commits = {name: last for name, last in commits.items() if last >= 0}
    size = 0
    with (
        TableWriter(folder, "table_logs.parquet", _LOGS) as logs,
        TableWriter(folder, "table_files.parquet", _FILES) as data,
    ):
        for name, last in commits.items():
            for path, content in _log_of(files, name, last):
                logs.write(pa.record_batch([[name], [path], [content]], schema=_LOGS))
            for path, sha256, size_bytes in _data_of(files, pool, name, last, copied):
                data.write(pa.record_batch([[name], [path], [sha256], [size_bytes]], schema=_FILES))
                size += size_bytes
        return KeptTables(commits=commits, logs=logs.finish(), files=data.finish(), size_bytes=size)


def put_tables(
    folder: Path, pool: Pool, files: Files, *, logs: TableFile, data: TableFile, left: list[str] | None
) -> None:
    """Write the tables of a backup into an empty lake: data first, so that no commit names what is not there.

    Parameters
    ----------
    left
        Takes the names of files that are damaged; None: they are raised.

    Raises
    ------
    DigestMismatch
        If a file is not what was backed up.
    SourceError
        If the name of one leads out of the lake.
    """
    kept = pool.part(LAKE_PART)
    for rows in read_pieces(folder, data):
        for row in rows.to_pylist():
            name = _lake_name(folder, row)
            if not _is_there(files, name, row["size_bytes"]):
                with leaving_damaged(left):
                    files.put(name, kept.get(row["sha256"]))
    for rows in read_pieces(folder, logs):
        for row in rows.to_pylist():
            files.put(_lake_name(folder, row), row["data"])


def _lake_name(folder: Path, row: Mapping[str, Any]) -> str:
    name = f"{row['table']}/{row['path']}"
    if any(each in {"", ".", ".."} for each in name.replace("\\", "/").split("/")) or "\0" in name:
        raise SourceError(f"{folder} names a file outside of the lake: {name!r}; nobody's backup has that")
    return name


def _is_there(files: Files, name: str, size_bytes: int) -> bool:
    return any(each.path == name and each.size_bytes == size_bytes for each in files.listed(name))


def _log_of(files: Files, name: str, last: int) -> Iterator[tuple[str, bytes]]:
    """Give the commits up to the last one, checkpoints of these, and the mappings of what was taken out."""
    small = [*files.listed(f"{name}/{_LOG.rstrip('/')}"), *files.listed(f"{name}/{REDACTIONS}")]
    for each in small:
        path = each.path.removeprefix(f"{name}/")
        numbered = _COMMIT.fullmatch(path) or _CHECKPOINT.fullmatch(path)
        if numbered is not None and int(numbered[1]) > last:
            continue
        if path == f"{_LOG}_last_checkpoint" or path.endswith(".tmp"):
            continue  # the first may name a later one; readers do without
        content = files.find(each.path)
        if content is not None:
            yield path, content


def _data_of(
    files: Files, pool: Pool, name: str, last: int, copied: Copied
) -> Iterator[tuple[str, str, int]]:
    """Take over the files that any commit up to the last one added, as far as they are there still."""
    standing, named = _named(files, name, last)
    instead = Redactions(files, name)
    instead.refresh()
    named |= instead.targets
    there = {each.path.removeprefix(f"{name}/"): each for each in files.listed(name)}
    if gone := sorted(standing - there.keys() - instead.paths):
        if last_commits(files).get(name, -1) > last:
            raise Conflict(
                f"files of table {name} were removed while it was backed up, such as {gone[0]}: a vacuum, or "
                "something was forgotten; run the same command again"
            )
        copied.damaged += [f"the file {name}/{each} is gone" for each in gone]
    for path in sorted(named & there.keys()):
        sha256 = _take(files, pool, there[path], sha256_in(path), copied)
        if sha256 is not None:
            yield path, sha256, there[path].size_bytes


def _named(files: Files, name: str, last: int) -> tuple[set[str], set[str]]:
    """Give the files that the table consists of at a commit, and all that ever were part of it until then."""
    standing: set[str] = set()
    named: set[str] = set()
    for number in range(last + 1):
        content = files.find(f"{name}/{_LOG}{number:020d}.json")
        if content is None:
            raise StoreError(
                f"commit {number} of table {name} is gone, though the lake keeps every one; "
                "restore it from a backup"
            )
        for line in content.splitlines():
            if b'"add"' not in line and b'"remove"' not in line:
                continue
            told = msgspec.json.decode(line)
            if "remove" in told:
                standing.discard(told["remove"]["path"])
            elif "add" in told:
                standing.add(told["add"]["path"])
                named.add(told["add"]["path"])
    return standing, named


def _take(files: Files, pool: Pool, file: Stored, named: str | None, copied: Copied) -> str | None:
    """Keep a file's bytes; give their digest, `None` where they are not those that its name says."""
    kept = pool.part(LAKE_PART)
    if named is not None:
        place = kept.root / blob_key(named)
        if place.is_file() and place.stat().st_size == file.size_bytes:
            return named
    content = files.find(file.path)
    if content is None:
        raise Conflict(f"the file {file.path} was removed while it was backed up; run the same command again")
    found = hashlib.sha256(content).hexdigest()
    if named is not None and found != named:
        copied.damaged.append(str(DigestMismatch(f"the file {file.path}", named, found)))
        return None
    with disk_faults(kept.root):
        kept.put(content)
    copied.files += 1
    copied.size_bytes += len(content)
    return found
