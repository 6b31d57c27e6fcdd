"""The bytes of a backup: blobs of the storage, files of the lake's tables, local streams.

Backups of one folder share them, by their digests: what an earlier one has is not copied again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from noria.errors import DigestMismatch, NotFound
from noria.storage.contract import blob_key
from noria.storage.local import LocalStorage
from noria.workspace.moving.backup_records import LAKE_PART, STREAM_PART
from noria.workspace.moving.table_files import TableFile, TableWriter, read_pieces

if TYPE_CHECKING:
    from noria.storage.contract import Held, Storage
    from noria.workspace.moving.backup_records import BackupManifest

__all__ = ["BLOB_ROWS", "Copied", "Pool", "copy_storage", "held_by"]

BLOB_ROWS = pa.schema(
    [
        pa.field("part", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)
_AT_ONCE = 1_000


@dataclass(slots=True)
class Copied:
    """What came into the shared bytes."""

    files: int = 0
    size_bytes: int = 0
    linked: int = 0
    damaged: list[str] = field(default_factory=list)


class Pool:
    """The bytes that all backups of a folder share."""

    def __init__(self, folder: Path) -> None:
        self._whole = LocalStorage(folder)

    def part(self, name: str) -> LocalStorage:
        """Give a part; that without a name is the project's own storage."""
        return self._whole.part(name) if name else self._whole

    def take(self, part: str, held: Held, source: Storage, copied: Copied) -> bool:
        """Take over a blob of the project; False if it is gone or has other bytes than its digest says."""
        kept = self.part(part)
        place = kept.root / blob_key(held.sha256)
        if _size(place) == held.size_bytes:
            return True
        try:
            file = source.fetch(held.sha256)  # verified
        except NotFound:
            return False
        except DigestMismatch as err:
            copied.damaged.append(str(err))
            return False
        if isinstance(source, LocalStorage) and _linked(file, place):
            copied.linked += 1
        elif (found := kept.put_file(file)) != held.sha256:
            kept.remove(found)
            copied.damaged.append(str(DigestMismatch(f"the blob {held.sha256}", held.sha256, found)))
            return False
        copied.files += 1
        copied.size_bytes += held.size_bytes
        return True

    def clear(self, needed: dict[str, set[bytes]]) -> int:
        """Remove what no backup needs; give how many bytes that were."""
        gone = 0
        for name in ("", *self._whole.parts()):
            part, held = self.part(name), needed.get(name, set())
            for each in part.listed():
                if bytes.fromhex(each.sha256) not in held:
                    part.remove(each.sha256)
                    gone += each.size_bytes
        return gone


def copy_storage(
    storage: Storage, pool: Pool, folder: Path, copied: Copied, *, needed: Iterable[tuple[str, bytes]]
) -> tuple[TableFile, int]:
    """Take over all blobs of a storage, those of its parts too; give the list of them, and their size.

    Parameters
    ----------
    needed
        What is known to be needed, by part: what is not there is told as damage.
    """
    missing: dict[str, set[bytes]] = {}
    for part, digest in needed:
        missing.setdefault(part, set()).add(digest)
    size = 0
    with TableWriter(folder, "blobs.parquet", BLOB_ROWS) as writer:
        for name in ("", *storage.parts()):
            source = storage.part(name) if name else storage
            for some in _pieces(source.listed()):
                taken = [each for each in some if pool.take(name, each, source, copied)]
                size += sum(each.size_bytes for each in taken)
                missing.get(name, set()).difference_update(bytes.fromhex(each.sha256) for each in some)
                columns = [
                    pa.array([name] * len(taken), pa.string()),
                    pa.array([each.sha256 for each in taken], pa.string()),
                    pa.array([each.size_bytes for each in taken], pa.int64()),
                ]
                writer.write(pa.record_batch(columns, schema=BLOB_ROWS))
        for name, digests in missing.items():
            where = f" of {name}" if name else ""
            copied.damaged += [f"the blob {each.hex()}{where} is gone" for each in sorted(digests)]
        return writer.finish(), size


def held_by(path: Path, manifest: BackupManifest) -> Iterator[tuple[str, bytes]]:
    """Give the shared bytes that a backup needs, by their part and digest."""
    for rows in read_pieces(path, manifest.blobs):
        for part, sha256 in zip(rows["part"].to_pylist(), rows["sha256"].to_pylist(), strict=True):
            yield part, bytes.fromhex(sha256)
    for part, table in ((LAKE_PART, manifest.files), (STREAM_PART, manifest.streams)):
        for rows in read_pieces(path, table):
            for sha256 in rows["sha256"].to_pylist():
                yield part, bytes.fromhex(sha256)


def _linked(file: Path, place: Path) -> bool:
    """Make a hard link: a blob is never written to, whoever names it. False where the disk is another one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.unlink(missing_ok=True)  # of another size: damaged
        os.link(file, place)
    except OSError:
        return False
    return True


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _pieces(found: Iterable[Held]) -> Iterator[list[Held]]:
    some: list[Held] = []
    for each in found:
        some.append(each)
        if len(some) >= _AT_ONCE:
            yield some
            some = []
    yield some
