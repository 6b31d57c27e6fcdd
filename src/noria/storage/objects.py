"""Blobs in an object store (S3, Google Cloud Storage, Azure), through obstore."""

import errno
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from noria.errors import ConfigError, DigestMismatch, DiskFull, NotFound, SourceError, StoreError
from noria.records import sha256_hex
from noria.storage.contract import Held, blob_key, blob_uri, part_key
from noria.storage.local import LocalStorage

__all__ = ["ObjectStorage"]

_CLIENT_OPTIONS = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "proxy_url",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)
# Enough for a server that is busy: one that is not there, or lets nobody in, is told of within seconds.
_RETRIES = {"max_retries": 4, "retry_timeout": timedelta(seconds=15)}


class ObjectStorage:
    """Blobs in an object store, with a local folder for fetched ones; see `Storage`.

    Parameters
    ----------
    store
        An opened store of obstore; its prefix is the storage's root.
    location
        The URL it was opened with, for messages.
    cache
        A local folder that keeps fetched blobs; None: a temporary one of this process.
    below
        What the names of its objects begin with.
    """

    def __init__(
        self, store: ObjectStore, *, location: str, cache: Path | None = None, below: str = ""
    ) -> None:
        self.location = location
        self._store = store
        self._below = below
        self._whole: Self | None = None  # whose temporary folder it shares
        if cache is None:
            cache = Path(tempfile.mkdtemp(prefix="noria-blobs-"))
            weakref.finalize(self, shutil.rmtree, cache, ignore_errors=True)
        self._cache = LocalStorage(cache)

    @classmethod
    def open(cls, url: str, *, options: Mapping[str, str], cache: Path | None) -> Self:
        """Open the object store of a URL; see `open_storage`."""
        # obstore panics if it meets one of the client's settings among those of the store
        plain = {name.lower().removeprefix("aws_"): value for name, value in options.items()}
        # an endpoint of plain HTTP is one that the user has named: there is no other way to come by one
        client = {"allow_http": "true"}
        client |= {name: plain.pop(name) for name in _CLIENT_OPTIONS & plain.keys()}
        try:
            store = from_url(url, config=plain, client_options=client, retry_config=_RETRIES)  # type: ignore[call-overload]
        except (BaseError, ValueError) as err:
            text = str(err).strip().partition("\n")[0]
            raise ConfigError(
                f"storage {url!r} cannot be opened: {text}; correct the URL or its options"
            ) from err
        return cls(store, location=url, cache=cache)

    def put(self, data: bytes) -> str:
        """Keep `data`; give its sha256 in hex."""
        sha256 = sha256_hex(data)
        if not self.exists(sha256):
            with self._translated():
                obstore.put(self._store, self._key(sha256), data)
        return sha256

    def put_file(self, path: Path) -> str:
        """Keep the content of a file; give its sha256 in hex."""
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as err:
            raise SourceError(
                f"the file {path} cannot be read: {err.strerror}; give one that exists"
            ) from err
        if not self.exists(sha256):
            with self._translated():
                obstore.put(self._store, self._key(sha256), path)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Give the bytes, verified."""
        with self._translated():
            try:
                data = bytes(obstore.get(self._store, self._key(sha256)).bytes())
            except FileNotFoundError as err:
                raise NotFound("blob", sha256) from err
        found = sha256_hex(data)
        if found != sha256:
            raise DigestMismatch(f"the blob {self._key(sha256)} of {self.location}", sha256, found)
        return data

    def fetch(self, sha256: str) -> Path:
        """Give a local copy, verified; it is read-only and kept for the next time."""
        if not self._cache.exists(sha256):
            with TemporaryDirectory(dir=self._cache.root) as folder:
                self._take(sha256, Path(folder, "blob"))
        return self._cache.fetch(sha256)

    def _take(self, sha256: str, path: Path) -> None:
        """Copy a blob into the cache, piece by piece: it may be larger than memory."""
        with self._translated():
            try:
                pieces = obstore.get(self._store, self._key(sha256)).stream()
            except FileNotFoundError as err:
                raise NotFound("blob", sha256) from err
            with path.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
        found = self._cache.put_file(path)
        if found != sha256:
            self._cache.remove(found)
            raise DigestMismatch(f"the blob {self._key(sha256)} of {self.location}", sha256, found)

    def exists(self, sha256: str) -> bool:
        """Tell whether such a blob is kept."""
        with self._translated():
            try:
                obstore.head(self._store, self._key(sha256))
            except FileNotFoundError:
                return False
        return True

    def freshen(self, sha256: str) -> bool:
        """Tell whether such a blob is kept; an object keeps the instant at which it was written."""
        return self.exists(sha256)

    def remove(self, sha256: str) -> bool:
        """Remove a blob, and what was fetched of it; False if there is none."""
        self._cache.remove(sha256)
        if not self.exists(sha256):
            return False
        with self._translated():
            obstore.delete(self._store, self._key(sha256))
        return True

    def listed(self) -> Iterator[Held]:
        """Give every blob."""
        with self._translated():
            for page in obstore.list(self._store, prefix=f"{self._below}sha256"):
                for each in page:
                    yield Held(each["path"].rpartition("/")[2], each["size"], each["last_modified"])

    def parts(self) -> Sequence[str]:
        """Name the parts, sorted."""
        above = f"{self._below}parts"
        with self._translated():
            listed = obstore.list_with_delimiter(self._store, prefix=above)
        return sorted(each.rstrip("/").rpartition("/")[2] for each in listed["common_prefixes"])

    def part(self, name: str) -> Self:
        """Give a storage of its own below this one."""
        key = part_key(name)
        made = type(self)(
            self._store, location=self.location, cache=self._cache.root / key, below=f"{self._below}{key}/"
        )
        made._whole = self
        return made

    def uri(self, sha256: str) -> str:
        """Give the blob's name for records."""
        return blob_uri(sha256)

    def _key(self, sha256: str) -> str:
        return f"{self._below}{blob_key(sha256)}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (BaseError, OSError) as err:
            if isinstance(err, OSError) and err.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(self.location) from err
            text = str(err).strip().partition("\n")[0]
            raise StoreError(
                f"the storage {self.location} cannot be used: {text}; "
                "check the URL, the credentials and that it is up"
            ) from err
