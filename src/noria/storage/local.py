"""Blobs in a local folder."""

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from noria.errors import DigestMismatch, DiskFull, NotFound, SourceError, StoreError
from noria.records import sha256_hex
from noria.storage.contract import Held, blob_key, blob_uri, part_key

__all__ = ["LocalStorage"]

_CHUNK_BYTES = 1 << 20
_ABANDONED_AFTER_S = 86_400
_FRESH_S = 3_600  # what was put within this time need not be marked as put again
_READ_ONLY = 0o444


class LocalStorage:
    """A folder of blobs; see `Storage`.

    A blob is written to a file of its own below `incoming`, synced, and renamed to its place, so a reader
    never sees a part of it and a kill leaves at most a stray file there, which a later opening removes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._incoming = self.root / "incoming"
        with self._translated():
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def put(self, data: bytes) -> str:
        """Keep `data`; give its sha256 in hex."""
        sha256 = sha256_hex(data)
        path = self._path(sha256)
        with self._translated():
            if not (_holds(path, sha256) and _freshen(path)):
                with self._staged() as staged:
                    staged.file.write(data)
                    staged.settle(path)
        return sha256

    def put_file(self, path: Path) -> str:
        """Keep the content of a file; give its sha256 in hex."""
        try:
            source = path.open("rb")
        except OSError as err:
            raise SourceError(
                f"the file {path} cannot be read: {err.strerror}; give one that exists"
            ) from err
        with source, self._translated(), self._staged() as staged:
            digest = hashlib.sha256()
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                staged.file.write(chunk)
            sha256 = digest.hexdigest()
            target = self._path(sha256)
            if not (_holds(target, sha256) and _freshen(target)):
                staged.settle(target)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Give the bytes, verified."""
        path = self._path(sha256)
        with self._translated():
            try:
                data = path.read_bytes()
            except FileNotFoundError as err:
                raise NotFound("blob", sha256) from err
        found = sha256_hex(data)
        if found != sha256:
            raise DigestMismatch(f"the blob {path.relative_to(self.root)}", sha256, found)
        return data

    def fetch(self, sha256: str) -> Path:
        """Give the blob's own file, verified; it is read-only."""
        path = self._path(sha256)
        with self._translated():
            try:
                found = _file_sha256(path)
            except FileNotFoundError as err:
                raise NotFound("blob", sha256) from err
        if found != sha256:
            raise DigestMismatch(f"the blob {path.relative_to(self.root)}", sha256, found)
        return path

    def exists(self, sha256: str) -> bool:
        """Tell whether such a blob is kept."""
        return self._path(sha256).is_file()

    def freshen(self, sha256: str) -> bool:
        """Tell whether such a blob is kept; it counts as put just now."""
        with self._translated():
            return _freshen(self._path(sha256))

    def remove(self, sha256: str) -> bool:
        """Remove a blob for good; False if there is none."""
        with self._translated():
            try:
                self._path(sha256).unlink()
            except FileNotFoundError:
                return False
        return True

    def listed(self) -> Iterator[Held]:
        """Give every blob, in the order of their names."""
        for path in sorted((self.root / "sha256").glob("*/*")):
            with suppress(FileNotFoundError):  # removed meanwhile
                found = path.stat()
                yield Held(path.name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def parts(self) -> Sequence[str]:
        """Name the parts, sorted."""
        with self._translated():
            return sorted(each.parent.name for each in self.root.glob("parts/*/sha256"))

    def part(self, name: str) -> Self:
        """Give a storage of its own below this one."""
        return type(self)(self.root / part_key(name))

    def uri(self, sha256: str) -> str:
        """Give the blob's name for records."""
        return blob_uri(sha256)

    def _path(self, sha256: str) -> Path:
        return self.root / blob_key(sha256)

    @contextmanager
    def _staged(self) -> Iterator["_Staged"]:
        """Give a fresh file below `incoming`; remove it again unless it was settled."""
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield _Staged(file, path)
        finally:
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed writers left, old enough that nobody still writes it."""
        limit = time.time() - _ABANDONED_AFTER_S
        for path in self._incoming.iterdir():
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
            except FileNotFoundError:
                continue  # settled or removed by another process meanwhile

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as err:
            if err.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(str(self.root)) from err
            raise StoreError(
                f"the storage {self.root} cannot be used: {err}; check the folder and its rights"
            ) from err


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file being written, and where it stands meanwhile."""

    file: IO[bytes]
    path: Path

    def settle(self, target: Path) -> None:
        """Sync what was written and give it its place."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.fchmod(self.file.fileno(), _READ_ONLY)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)


def _holds(path: Path, sha256: str) -> bool:
    """Tell whether the file is there with the right content; a damaged one is to be written again."""
    try:
        return _file_sha256(path) == sha256
    except FileNotFoundError:
        return False


def _freshen(path: Path) -> bool:
    """Mark what is there as put just now, so that nobody takes it for left over; False if it is gone."""
    try:
        if time.time() - path.stat().st_mtime > _FRESH_S:
            with suppress(PermissionError):  # of another account, which alone may
                os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
