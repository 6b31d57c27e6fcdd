"""Backups: a project as it was at one instant, taken while others write to it.

The database is read in one snapshot; then comes what the snapshot needs, which never changes: blobs by their
digests, the lake's files, the segments of local streams. A backup counts once its folder has its name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
from sqlalchemy import Connection, func, select

import noria
from noria.clock import format_instant
from noria.database.revisions import current_revision
from noria.errors import ConfigError, Conflict, DigestMismatch, LeaseHeld, SourceError
from noria.lake.files import open_files
from noria.ledger.chain import GENESIS
from noria.ledger.redacted import REDACTED
from noria.ledger.tables import events, runs, versions
from noria.pipelines.tables import run_logs
from noria.storage.contract import blob_key
from noria.tracking.spools.spool import count_spools
from noria.tracking.tables import artifacts
from noria.workspace.moving.backup_bytes import Copied, Pool, copy_storage, held_by
from noria.workspace.moving.backup_lake import KeptTables, copy_tables, last_commits
from noria.workspace.moving.backup_records import (
    BLOBS,
    FORMAT,
    MANIFEST,
    MARKER,
    STREAM_PART,
    Backup,
    BackupManifest,
    list_backups,
    read_manifest,
    write_manifest,
)
from noria.workspace.moving.backup_tables import write_tables
from noria.workspace.moving.table_files import (
    TableFile,
    TableWriter,
    disk_faults,
    file_sha256,
    read_pieces,
    write_file,
)

if TYPE_CHECKING:
    from noria.workspace.opened import Opened

__all__ = ["back_up", "backups_in", "check_apart", "lake_place"]

_UNFINISHED = ".unfinished"
_LOCK = ".lock"
_STREAMS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)
_AT_ONCE = 10_000


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the database had."""

    taken_at: datetime
    kind: str
    revision: str
    ledger: str
    head: str
    events: int
    tables: dict[str, TableFile]
    recorded: dict[str, int]
    needed: list[tuple[str, bytes]]


def back_up(project: Opened, folder: Path, *, keep: int | None = None) -> Backup:
    """Take a backup; see `noria.workspace.moving.verbs.MovingVerbs.backup`."""
    if keep is not None and keep < 1:
        raise ConfigError(f"{keep} backups cannot be kept; give 1 or more")
    check_apart(project, folder)
    ledger = project.ledger
    with _alone(folder):
        _refuse_another(project, folder)
        staged = folder / _UNFINISHED
        shutil.rmtree(staged, ignore_errors=True)  # of a backup that was killed
        with disk_faults(folder):
            staged.mkdir(mode=0o700)
        try:
            pool, copied = Pool(folder / BLOBS), Copied()
            files = open_files(lake_place(project))
            before = last_commits(files)
            with ledger.database.read() as connection:
                snapshot = _take_database(connection, staged)
            lake = copy_tables(files, pool, staged, copied, before=before, recorded=snapshot.recorded)
            blobs, blob_bytes = copy_storage(project.storage, pool, staged, copied, needed=snapshot.needed)
            streams, stream_bytes = _take_streams(project.streams_path(), pool, staged, copied)
            settings = project.root / "noria.toml"
            write_file(staged / settings.name, settings.read_bytes())
            manifest = _manifest(
                project,
                snapshot,
                lake=lake,
                blobs=blobs,
                streams=streams,
                damaged=copied.damaged,
                settings_sha256=file_sha256(settings),
            )
            write_manifest(staged / MANIFEST, manifest)
            done = _settle(staged, folder, manifest)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        size = (
            blob_bytes
            + lake.size_bytes
            + stream_bytes
            + sum(each.size_bytes for each in snapshot.tables.values())
        )
        removed = () if keep is None else _keep_newest(folder, pool, keep, made=done)
    waiting, _ = count_spools(project.state / "tracking")
    told = _shown(done, manifest, size)
    told = msgspec.structs.replace(
        told,
        copied=copied.files,
        copied_bytes=copied.size_bytes,
        linked=copied.linked,
        waiting=waiting,
        removed=removed,
    )
    payload = {
        "backup": manifest.id,
        "name": told.name,
        "head": manifest.head,
        "events": manifest.events,
        "rows": told.rows,
        "blobs": told.blobs,
        "damaged": len(manifest.damaged),
    }
    ledger.append("project.backed_up", subject="project", payload=payload)
    return told


def backups_in(folder: Path) -> list[Backup]:
    """List the backups in a folder, oldest first. Raises `NotFound`, `SourceError`, `DigestMismatch`."""
    return [_shown(path, manifest, _size_of(path, manifest)) for path, manifest in list_backups(folder)]


def lake_place(project: Opened) -> str:
    """Give where the lake's tables are."""
    url = project.settings.stores.storage
    return f"{url.rstrip('/')}/tables" if "://" in url else str(project.root / url / "tables")


def check_apart(project: Opened, folder: Path) -> None:
    """Raise `ConfigError` where a backup or an export would lie in the project's own stores."""
    inside = [project.state]
    if "://" not in project.settings.stores.storage:
        inside.append(project.root / project.settings.stores.storage)
    if any(folder.absolute().resolve().is_relative_to(each.resolve()) for each in inside):
        raise ConfigError(f"{folder} lies in the project's own stores; name a folder elsewhere")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder, unless it holds something else, and be the only one at work in it."""
    with disk_faults(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / MARKER).is_file():
            if strange := [
                each.name for each in folder.iterdir() if each.name not in {_LOCK, f".{MARKER}.part"}
            ]:
                raise Conflict(
                    f"{folder} holds something else, such as {sorted(strange)[0]!r}; name an empty folder, "
                    "one that is not there, or one of backups"
                )
            write_file(folder / MARKER, b'{"format":1,"about":"backups of noria; see noria backup list"}\n')
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise LeaseHeld(f"the folder of backups {folder}", "another backup") from err
        yield
    finally:
        os.close(descriptor)


def _refuse_another(project: Opened, folder: Path) -> None:
    """Raise `Conflict` where another project's backups are: `keep` would count them, and remove them."""
    with project.ledger.database.read() as connection:
        ledger = _first_event(connection)
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        try:
            manifest = read_manifest(path.parent)
        except (DigestMismatch, SourceError):
            continue  # this one is taken all the same; a list and `keep` name what is damaged
        known = {manifest.ledger, ledger}
        is_same = manifest.project == project.name if GENESIS in known else len(known) == 1
        if not is_same:
            raise Conflict(
                f"{folder} holds backups of another project, {manifest.project!r} ({path.parent.name}); "
                "name a folder of this one's own"
            )


def _first_event(connection: Connection) -> str:
    """Give what tells a project from any other: the digest of its first event."""
    query = select(events.c.digest).order_by(events.c.scope, events.c.seq).limit(1)
    found: str = connection.execute(query).scalar() or GENESIS
    return found


def _take_database(connection: Connection, folder: Path) -> _Snapshot:
    ledger = _first_event(connection)  # the snapshot begins here
    taken_at = datetime.now(UTC)
    last = select(events.c.digest).order_by(events.c.seq.desc()).limit(1)
    return _Snapshot(
        taken_at=taken_at,
        kind=connection.dialect.name,
        revision=current_revision(connection) or "",
        ledger=ledger,
        head=connection.execute(last).scalar() or GENESIS,
        events=connection.execute(select(func.count()).select_from(events)).scalar_one(),
        tables=write_tables(connection, folder),
        recorded=_recorded(connection),
        needed=list(_needed(connection)),
    )


def _recorded(connection: Connection) -> dict[str, int]:
    """Give the newest commit of each table of the lake that a version names."""
    found: dict[str, int] = {}
    query = select(versions.c.uri).where(versions.c.uri.like("delta:%"))
    for uri in connection.execute(query).yield_per(_AT_ONCE).scalars():
        name, _, number = uri.removeprefix("delta:").rpartition("@")
        if number.isdecimal():
            found[name] = max(found.get(name, -1), int(number))
    return found


def _needed(connection: Connection) -> Iterator[tuple[str, bytes]]:
    """Give the blobs that are named by what is on record, by the part of the storage."""
    redacted = select(events.c.subject).where(events.c.verb == REDACTED)
    questions: list[tuple[str, Any]] = [
        ("artifacts", select(artifacts.c.sha256).distinct()),
        ("", select(runs.c.code_diff).where(runs.c.code_diff.is_not(None)).distinct()),
        ("", select(run_logs.c.sha256)),
        (
            "",
            select(versions.c.sha256)
            .where(versions.c.uri.like("storage:%"), versions.c.name.not_in(redacted))
            .distinct(),
        ),
    ]
    for part, query in questions:
        for sha256 in connection.execute(query).yield_per(_AT_ONCE).scalars():
            yield part, bytes.fromhex(sha256)


def _take_streams(streams: Path, pool: Pool, folder: Path, copied: Copied) -> tuple[TableFile, int]:
    """Take over the segments of local streams; an end that is being written is cut away when it is read."""
    size, kept = 0, pool.part(STREAM_PART)
    with TableWriter(folder, "streams.parquet", _STREAMS) as writer:
        for path in sorted(streams.rglob("*")) if streams.is_dir() else ():
            if not path.is_file() or path.is_symlink():
                continue
            try:
                sha256 = kept.put_file(path)
            except SourceError:
                if path.exists():
                    raise
                continue  # all readers were beyond it, and it went meanwhile
            size_bytes = (kept.root / blob_key(sha256)).stat().st_size
            name = path.relative_to(streams).as_posix()
            writer.write(pa.record_batch([[name], [sha256], [size_bytes]], schema=_STREAMS))
            copied.files += 1
            copied.size_bytes += size_bytes
            size += size_bytes
        return writer.finish(), size


def _manifest(
    project: Opened,
    snapshot: _Snapshot,
    *,
    lake: KeptTables,
    blobs: TableFile,
    streams: TableFile,
    damaged: Sequence[str],
    settings_sha256: str,
) -> BackupManifest:
    return BackupManifest(
        format=FORMAT,
        id=os.urandom(16).hex(),
        noria=noria.__version__,
        project=project.name,
        database=snapshot.kind,
        revision=snapshot.revision,
        taken_at=snapshot.taken_at,
        ledger=snapshot.ledger,
        head=snapshot.head,
        events=snapshot.events,
        tables=snapshot.tables,
        lake=lake.commits,
        blobs=blobs,
        logs=lake.logs,
        files=lake.files,
        streams=streams,
        settings_sha256=settings_sha256,
        damaged=tuple(damaged),
    )


def _settle(staged: Path, folder: Path, manifest: BackupManifest) -> Path:
    """Give the backup its name, which is when it was taken."""
    name = format_instant(manifest.taken_at).replace(":", "-")
    with disk_faults(folder):
        done = staged.rename(folder / name)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return done


def _keep_newest(folder: Path, pool: Pool, keep: int, *, made: Path) -> tuple[str, ...]:
    """Remove all but the newest backups, then the bytes that none of them needs."""
    found = sorted(
        list_backups(folder), key=lambda each: each[0] == made
    )  # also where the clock was put back
    removed = []
    for path, _ in found[:-keep]:
        gone = path.with_name(f".{path.name}.removed")
        path.rename(gone)
        shutil.rmtree(gone)
        removed.append(path.name)
    for left in folder.glob(".*.removed"):
        shutil.rmtree(left)
    if removed:
        needed: dict[str, set[bytes]] = {}
        for path, manifest in found[-keep:]:
            for part, digest in held_by(path, manifest):
                needed.setdefault(part, set()).add(digest)
        pool.clear(needed)
    return tuple(removed)


def _size_of(path: Path, manifest: BackupManifest) -> int:
    size = sum(each.size_bytes for each in manifest.tables.values())
    for table in (manifest.blobs, manifest.files, manifest.streams):
        for rows in read_pieces(path, table):
            size += sum(rows["size_bytes"].to_pylist())
    return size


def _shown(path: Path, manifest: BackupManifest, size: int) -> Backup:
    return Backup(
        name=path.name,
        folder=str(path),
        project=manifest.project,
        taken_at=manifest.taken_at,
        database=manifest.database,
        events=manifest.events,
        rows=sum(each.rows for each in manifest.tables.values()),
        tables=len(manifest.lake),
        blobs=manifest.blobs.rows,
        size_bytes=size,
        damaged=manifest.damaged,
    )
