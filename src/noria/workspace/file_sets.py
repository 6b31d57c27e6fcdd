"""Folders of files that a project declares: taking in what has changed, opening what was kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO

from noria.errors import NotFound
from noria.lake.blobs import FileRows, kept_files, open_blob
from noria.lake.file_declarations import Files
from noria.lake.recording import Ingested
from noria.workspace.opened import Opened

__all__ = ["APP", "open_file_of", "take_files"]

APP = "files"  # the sequence of their batches
_LEASE_S = 3_600.0  # a dead holder's lease is free at once


def take_files(
    project: Opened, files: Files, *, cause: Callable[[], str] | None, at: datetime | None
) -> Ingested:
    """Take in what is new, changed or gone of a folder; one process at a time.

    Raises
    ------
    LeaseHeld
        If another process takes them in right now.
    """
    lease = project.ledger.acquire_lease(f"files:{files.name}", ttl_s=_LEASE_S)
    try:
        instant = at or project.clock.now()
        kept = kept_files(project.lake.read(files.name)) if project.lake.exists(files.name) else {}
        rows = FileRows(files, root=project.root, storage=project.storage, kept=kept, at=instant)
        return project.lake.ingest(
            files.dataset,
            rows,
            batch=(project.lake.last_batch(files.name, APP) or 0) + 1,
            app=APP,
            source=files.folder,
            cause=None if cause is None else cause(),
            at=instant,
        )
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
    with open_blob(name, wanted, table=table, storage=project.storage) as opened:
        yield opened
