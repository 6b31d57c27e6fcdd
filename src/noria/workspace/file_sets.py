"""Folders of files that a project declares: taking in what has changed, opening what was kept, clearing up.

The bytes of each folder are kept in a part of the storage of its own: what no row names there is nobody's.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO

from noria.errors import NotFound
from noria.lake.blobs import FileRows, kept_files, open_blob
from noria.lake.file_declarations import Files
from noria.lake.maintenance import Removal, Vacuumed
from noria.lake.recording import Ingested
from noria.storage.contract import Storage, blob_key
from noria.workspace.opened import Opened

__all__ = ["APP", "alone", "kept_of", "open_file_of", "take_files", "vacuum_files"]

APP = "files"  # the sequence of their batches
_LEASE_S = 3_600.0  # a dead holder's lease is free at once


def kept_of(project: Opened, name: str) -> Storage:
    """Give where the bytes of a folder of files are kept."""
    return project.storage.part(f"files-{name}")


def take_files(
    project: Opened, files: Files, *, cause: Callable[[], str] | None, at: datetime | None
) -> Ingested:
    """Take in what is new, changed or gone of a folder; one process at a time.

    Raises
    ------
    LeaseHeld
        If another process takes them in right now.
    """
    with alone(project, files.name) as hold:
        instant = at or project.clock.now()
        kept = kept_files(project.lake.read(files.name)) if project.lake.exists(files.name) else {}
        storage = kept_of(project, files.name)
        rows = FileRows(files, root=project.root, storage=storage, kept=kept, at=instant, hold=hold)
        return project.lake.ingest(
            files.dataset,
            rows,
            batch=(project.lake.last_batch(files.name, APP) or 0) + 1,
            app=APP,
            source=files.folder,
            cause=None if cause is None else cause(),
            at=instant,
        )


def vacuum_files(project: Opened, name: str, *, retention: timedelta, dry_run: bool) -> Vacuumed:
    """Remove what no version needs of the table of a folder, then the bytes that none of its rows names.

    Bytes are named as long as a file of rows is there that names them: of the newest state, of a version on
    record, or gone for less than the retention.

    Raises
    ------
    LeaseHeld
        If another process takes files in right now: it may be about to name what nobody names yet.
    """
    with alone(project, name) as hold:
        before = datetime.now(UTC) - retention
        there = project.lake.exists(name)
        if not there and project.ledger.list_versions(name=name):
            return Vacuumed(name, (), dry_run)  # what its versions name is to be read from elsewhere
        told = project.lake.vacuum(name, retention=retention, dry_run=dry_run) if there else None
        table = () if told is None else told.removed
        gone = {each.path for each in table}
        named = project.lake.values_there(name, "sha256", without=gone) if there else set()
        storage = kept_of(project, name)
        blobs = []
        for each in storage.listed():
            if each.sha256 in named or each.kept_at > before:
                continue
            hold()
            if not dry_run:
                storage.remove(each.sha256)
            blobs.append(Removal(blob_key(each.sha256), each.size_bytes, each.kept_at))
    return Vacuumed(name, (*table, *blobs), dry_run)


@contextmanager
def alone(project: Opened, name: str) -> Iterator[Callable[[], None]]:
    """Be the only one at work with a folder's files; gives what holds on to that whenever it is called."""
    lease = project.ledger.acquire_lease(f"files:{name}", ttl_s=_LEASE_S)
    renew_at = time.monotonic() + _LEASE_S / 3

    def hold() -> None:
        nonlocal lease, renew_at
        if time.monotonic() >= renew_at:
            lease = project.ledger.renew_lease(lease, ttl_s=_LEASE_S)
            renew_at = time.monotonic() + _LEASE_S / 3

    try:
        yield hold
    finally:
        project.ledger.release_lease(lease)


@contextmanager
def open_file_of(
    project: Opened, name: str, wanted: str, *, version: int | None = None
) -> Iterator[IO[bytes]]:
    """Open what was kept of a file, by its path or its sha256; see `noria.lake.blobs.open_blob`."""
    if name not in project.declarations.files:
        raise NotFound("folder of files", name, project.declarations.files)
    table = project.lake.read(name, version=version)
    with open_blob(name, wanted, table=table, storage=kept_of(project, name)) as opened:
        yield opened
