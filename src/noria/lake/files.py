"""Where a lake's bytes live: a local folder, or an object store."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

import obstore
import pyarrow.fs as pafs
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from noria.errors import ConfigError, DiskFull, StoreError
from noria.lake.object_reading import reading_of

__all__ = ["Files", "LocalFiles", "ObjectFiles", "Stored", "open_files", "translated"]

# Enough for a server that is busy: one that is not there, or lets nobody in, is told of within seconds.
RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=15)}
CREDENTIALS = "check the URL, that the environment holds its credentials, and that it is up"
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
    """A bucket, or a prefix of one; needs conditional puts, as S3, GCS and Azure have.

    Who may enter is told by the environment, under the names that `object_store` knows: `AWS_…`, `AZURE_…`,
    `GOOGLE_…`.

    Raises
    ------
    ConfigError
        If the URL, or what the environment says, names no store.
    """

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        try:
            self._store = from_url(
                self.root,
                client_options={"allow_http": True},  # if the endpoint is such
                retry_config=RETRIES,
            )
        except (BaseError, ValueError) as err:
            raise ConfigError(
                f"the lake {url!r} cannot be opened: {_first_line(err)}; {CREDENTIALS}"
            ) from err
        if url.startswith(("s3://", "s3a://")):
            self._arrow, self._prefix = pafs.FileSystem.from_uri(self.root)
        else:
            self._arrow, self._prefix = reading_of(self._store), ""

    def put(self, path: str, data: bytes) -> None:
        """Write, replacing what is there."""
        with self._translated():
            obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write unless the name is taken."""
        with self._translated():
            try:
                obstore.put(self._store, path, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def find(self, path: str) -> bytes | None:
        """Give the bytes, or None."""
        with self._translated():
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

    def folders(self) -> list[str]:
        """Name the common prefixes, sorted."""
        with self._translated():
            listed = obstore.list_with_delimiter(self._store)
        return sorted(each.rstrip("/").rsplit("/", 1)[-1] for each in listed["common_prefixes"])

    def exists(self, path: str) -> bool:
        """Say whether the object is there."""
        with self._translated():
            try:
                obstore.head(self._store, path)
            except FileNotFoundError:
                return False
        return True

    def listed(self, folder: str) -> Iterator[Stored]:
        """Give every object below a prefix."""
        with self._translated():
            for page in obstore.list(self._store, prefix=folder):
                for each in page:
                    yield Stored(each["path"], each["size"], each["last_modified"])

    def delete(self, path: str) -> None:
        """Remove an object."""
        with self._translated(), suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def arrow(self, path: str) -> tuple[Any, str]:
        """Give pyarrow's view of an object."""
        return self._arrow, f"{self._prefix}/{path}" if self._prefix else path

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BaseError as err:
            raise StoreError(
                f"the lake in {self.root} cannot be read or written: {_first_line(err)}; {CREDENTIALS}"
            ) from err


def open_files(url: str) -> Files:
    """Open a path, a `file://` URL or an object store's URL."""
    if url.startswith("file://"):
        return LocalFiles(Path(unquote(urlparse(url).path)))
    return ObjectFiles(url) if "://" in url else LocalFiles(Path(url))


def translated(err: OSError | Exception, where: str) -> StoreError:
    """Give the error of `noria.errors` that tells what the driver's error means."""
    if getattr(err, "errno", None) in _NO_ROOM or any(text in str(err) for text in _NO_ROOM_TEXTS):
        return DiskFull(where)
    return StoreError(f"the lake in {where} cannot be read or written: {_first_line(err)}")


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0]
