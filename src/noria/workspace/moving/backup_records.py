"""What a backup consists of, as its manifest says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from noria.errors import DigestMismatch, NotFound, SourceError
from noria.records import sha256_hex
from noria.workspace.moving.table_files import TableFile, write_file

__all__ = [
    "BLOBS",
    "FORMAT",
    "LAKE_PART",
    "MANIFEST",
    "MARKER",
    "STREAM_PART",
    "Backup",
    "BackupManifest",
    "Restored",
    "list_backups",
    "read_manifest",
    "verified_manifest",
    "write_manifest",
]

FORMAT = 1
NO_BACKUPS = "name one that `noria backup FOLDER` made"
MARKER = "noria-backups.json"  # tells a folder of backups from any other
MANIFEST = "manifest.json"
BLOBS = "blobs"  # what all backups of a folder share, by digest
LAKE_PART, STREAM_PART = "of-tables", "of-streams"  # parts of it that are no parts of the project's storage


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that a backup holds.

    Attributes
    ----------
    revision
        Of the database's tables.
    head, events
        The ledger's last digest, and how many events it has: `noria ledger verify --head` holds a project
        against it.
    tables
        The database, by table.
    lake
        By table of the lake: the commit up to which it is kept.
    blobs, logs, files, streams
        Which blobs it needs; the logs of the lake's tables; their files; the streams' files.
    damaged
        What the project itself lacked, or had with other bytes than on record: it cannot be restored.
    """

    format: int
    id: str
    noria: str
    project: str
    database: str  # its kind: "sqlite" or "postgresql"
    revision: str
    taken_at: datetime
    ledger: str  # digest of its first event: which project it is
    head: str
    events: int
    tables: dict[str, TableFile]
    lake: dict[str, int]
    blobs: TableFile
    logs: TableFile
    files: TableFile
    streams: TableFile
    settings_sha256: str
    damaged: tuple[str, ...] = ()


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup, as a list shows it.

    Attributes
    ----------
    name
        When it was taken, as its folder is called.
    blobs, size_bytes
        What it needs of the shared bytes.
    copied, copied_bytes
        What of that had to be copied, as no earlier backup had it; zero in a list.
    linked
        How many of those are hard links to the project's own files.
    waiting
        Processes whose logs were not in the database yet: what they had logged last is not in it.
    """

    name: str
    folder: str
    project: str
    taken_at: datetime
    database: str
    events: int
    rows: int
    tables: int
    blobs: int
    size_bytes: int
    damaged: tuple[str, ...] = ()
    copied: int = 0
    copied_bytes: int = 0
    linked: int = 0
    waiting: int = 0
    removed: tuple[str, ...] = ()  # older ones, as was asked for


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore made."""

    backup: str
    project: str
    folder: str
    database: str
    taken_at: datetime
    rows: int
    events: int
    blobs: int
    tables: int
    revision: str
    is_upgraded: bool
    damaged: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()


def write_manifest(path: Path, manifest: msgspec.Struct) -> None:
    """Write a manifest as JSON, and its digest beside it. Raises `DiskFull`, `StoreError`."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    write_file(path, body)
    write_file(_digest_path(path), f"{sha256_hex(body)}  {path.name}\n".encode())


def verified_manifest(path: Path) -> bytes:
    """Give the JSON of a manifest, its digest computed again.

    Raises
    ------
    SourceError
        If it cannot be read.
    DigestMismatch
        If it was changed.
    """
    try:
        body, told = path.read_bytes(), _digest_path(path).read_text("utf-8", "replace")
    except OSError as err:
        raise SourceError(f"{err.filename} cannot be read: {err.strerror}; name a whole folder") from err
    found, wanted = sha256_hex(body), told.partition(" ")[0]
    if found != wanted:
        raise DigestMismatch(f"the file {path}", wanted, found)
    return body


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def read_manifest(folder: Path) -> BackupManifest:
    """Read the manifest of one backup.

    Raises
    ------
    SourceError
        If there is none, or it is of a newer noria.
    DigestMismatch
        If it was changed.
    """
    body = verified_manifest(folder / MANIFEST)
    try:
        version = msgspec.json.decode(body, type=dict)["format"]
        if version > FORMAT:
            raise SourceError(
                f"{folder} is a backup of format {version}, this noria knows up to {FORMAT}: it was made by "
                "a newer noria; upgrade noria"
            )
        return msgspec.json.decode(body, type=BackupManifest)
    except (msgspec.MsgspecError, KeyError, TypeError) as err:
        raise SourceError(f"{folder / MANIFEST} is no manifest of a backup: {err}") from err


def list_backups(folder: Path) -> list[tuple[Path, BackupManifest]]:
    """Give the backups in a folder, oldest first. Raises `NotFound` if it is no folder of backups."""
    if not (folder / MARKER).is_file():
        raise NotFound("folder of backups", str(folder), advice=NO_BACKUPS)
    found = [(each.parent, read_manifest(each.parent)) for each in folder.glob(f"[!.]*/{MANIFEST}")]
    return sorted(found, key=lambda each: each[1].taken_at)
