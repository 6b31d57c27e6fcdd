"""Whether what backups hold is still what was written, without restoring it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from noria.config import FILE_NAME
from noria.errors import DigestMismatch, NotFound, SourceError
from noria.storage.contract import blob_key
from noria.workspace.moving.backup_bytes import Pool, held_by
from noria.workspace.moving.backup_records import (
    BLOBS,
    MANIFEST,
    MARKER,
    NO_BACKUPS,
    BackupManifest,
    read_manifest,
)
from noria.workspace.moving.table_files import checked_file

__all__ = ["BackupCheck", "check_backups", "leaving_damaged"]


class BackupCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a folder of backups.

    Attributes
    ----------
    backups, files
        How many were read. What several backups share is read once.
    damaged
        What is not what was written, by name.
    """

    folder: str
    backups: int
    files: int
    damaged: tuple[str, ...] = ()


def check_backups(folder: Path) -> BackupCheck:
    """Compute every digest again, of all backups in a folder or of one. Raises `NotFound` if it is none."""
    if (folder / MANIFEST).is_file():
        places = [folder]
    elif (folder / MARKER).is_file():
        places = sorted(each.parent for each in folder.glob(f"[!.]*/{MANIFEST}"))
    else:
        raise NotFound("folder of backups", str(folder), advice=NO_BACKUPS)
    damaged: list[str] = []
    seen: set[tuple[str, bytes]] = set()
    files = 0
    for place in places:
        with leaving_damaged(damaged):
            manifest = read_manifest(place)
            for file, sha256 in _own_files(manifest):
                files += 1
                with leaving_damaged(damaged):
                    checked_file(place, file, sha256=sha256)
            pool = Pool(place.parent / BLOBS)
            for part, digest in held_by(place, manifest):
                if (part, digest) not in seen:
                    seen.add((part, digest))
                    with leaving_damaged(damaged):
                        checked_file(pool.part(part).root, blob_key(digest.hex()), sha256=digest.hex())
    return BackupCheck(
        folder=str(folder), backups=len(places), files=files + len(seen), damaged=tuple(damaged)
    )


@contextmanager
def leaving_damaged(damaged: list[str] | None) -> Iterator[None]:
    """Name what is damaged or gone in a list and go on; without a list it is raised."""
    try:
        yield
    except (DigestMismatch, NotFound, SourceError) as err:
        if damaged is None:
            raise
        damaged.append(str(err))


def _own_files(manifest: BackupManifest) -> Iterator[tuple[str, str]]:
    tables = (*manifest.tables.values(), manifest.blobs, manifest.logs, manifest.files, manifest.streams)
    for each in tables:
        yield each.file, each.sha256
    yield FILE_NAME, manifest.settings_sha256
