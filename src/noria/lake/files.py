"""Where a lake's bytes live: a local folder, or an object store."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

import obstore
import pyarrow.fs as pafs
from obstore.exceptions import AlreadyExistsError
from obstore.store import from_url

from noria.errors import DiskFull, StoreError

__all__ = ["Files", "LocalFiles", "ObjectFiles", "Stored", "open_files", "translated"]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ROOM_TEXTS = ("No space left", "os error 28", "quota exceeded", "File too large", "os error 27")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is there."""

    path: str  # below the root
    size_bytes: int
    modified_at: datetime


class Files(Protocol):
    """Named bytes below one root. A name is never half written, whoever is killed when."""

    root: str  # as deltalake takes it

    def put(self, path: str, data: bytes) -> None:
        """Write, replacing what is there."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write unless the name is taken; False if it is. Of two writers at once one wins."""
        ...

    def find(self, path: str) -> bytes | None:
        """Give the bytes, or None if there are none."""
        ...

    def folders(self) -> list[str]:
        """Name the folders directly below the root, sorted."""
        ...

    def exists(self, path: str) -> bool:
        """Say whether there is a file of that name."""
        ...

    def listed(self, folder: str) -> Iterator[Stored]:
        """Give every file below a folder."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def arrow(self, path: str) -> tuple[Any, str]:
        """Give the pyarrow file system, and the path in it."""
        ...


class LocalFiles:
    """A folder on this machine."""

    def __init__(self, base: Path) -> None:
        self._base = base.absolute()
        self._arrow = pafs.LocalFileSystem()
        self.root = str(self._base)

    def put(self, path: str, data: bytes) -> None:
        """Write by a rename, so that readers see all or nothing."""
        temporary = self._stage(path, data)
        temporary.replace(self._base / path)

    def create(self, path: str, data: bytes) -> bool:
        """Write by a hard link, which fails where the name is taken."""
        temporary = self._stage(path, data)
        try:
            os.link(temporary, self._base / path)
        except FileExistsError:
            return False
        except OSError as err:
            raise translated(err, self.root) from err
        finally:
            temporary.unlink()
        return True

    def find(self, path: str) -> bytes | None:
        """Give the bytes, or None."""
        try:
            return (self._base / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def folders(self) -> list[str]:
        """Name the folders, sorted."""
        if not self._base.is_dir():
            return []
        return sorted(each.name for each in self._base.iterdir() if each.is_dir())

    def exists(self, path: str) -> bool:
        """Say whether the file is there."""
        return os.path.exists(f"{self.root}/{path}")  # noqa: PTH110 - asked before every read

    def listed(self, folder: str) -> Iterator[Stored]:
        """Give every file below a folder."""
        for path in sorted((self._base / folder).rglob("*")):
            with suppress(FileNotFoundError):  # another process removes files too
                found = path.stat()
                if path.is_file():
                    at = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield Stored(path.relative_to(self._base).as_posix(), found.st_size, at)

    def delete(self, path: str) -> None:
        """Remove a file."""
        try:
            (self._base / path).unlink(missing_ok=True)
        except OSError as err:
            raise translated(err, self.root) from err

    def arrow(self, path: str) -> tuple[Any, str]:
        """Give pyarrow's view of a file."""
        return self._arrow, f"{self.root}/{path}"

    def _stage(self, path: str, data: bytes) -> Path:
        folder = (self._base / path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="_staged_", suffix=".tmp", dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as err:
            raise translated(err, self.root) from err
        return Path(name)


class ObjectFiles:
    """A bucket, or a prefix of one; needs conditional puts, as S3, GCS and Azure have."""

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        self._store = from_url(self.root, client_options={"allow_http": True})  # if the endpoint is such
        self._arrow, self._prefix = pafs.FileSystem.from_uri(self.root)

    def put(self, path: str, data: bytes) -> None:
        """Write, replacing what is there."""
        obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write unless the name is taken."""
        try:
            obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def find(self, path: str) -> bytes | None:
        """Give the bytes, or None."""
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            return None

    def folders(self) -> list[str]:
        """Name the common prefixes, sorted."""
        listed = obstore.list_with_delimiter(self._store)
        return sorted(each.rstrip("/").rsplit("/", 1)[-1] for each in listed["common_prefixes"])

    def exists(self, path: str) -> bool:
        """Say whether the object is there."""
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def listed(self, folder: str) -> Iterator[Stored]:
        """Give every object below a prefix."""
        for page in obstore.list(self._store, prefix=folder):
            for each in page:
                yield Stored(each["path"], each["size"], each["last_modified"])

    def delete(self, path: str) -> None:
        """Remove an object."""
        with suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def arrow(self, path: str) -> tuple[Any, str]:
        """Give pyarrow's view of an object."""
        return self._arrow, f"{self._prefix}/{path}"


def open_files(url: str) -> Files:
    """Open a path, a `file://` URL or an object store's URL."""
    if url.startswith("file://"):
        return LocalFiles(Path(unquote(urlparse(url).path)))
    return ObjectFiles(url) if "://" in url else LocalFiles(Path(url))


def translated(err: OSError | Exception, where: str) -> StoreError:
    """Give the error of `noria.errors` that tells what the driver's error means."""
    if getattr(err, "errno", None) in _NO_ROOM or any(text in str(err) for text in _NO_ROOM_TEXTS):
        return DiskFull(where)
    return StoreError(f"the lake in {where} cannot be read or written: {err}")
