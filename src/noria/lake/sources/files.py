"""A local file as a source: its identity, and its bytes as they stream, unpacked."""

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from noria.errors import ConfigError, SourceError, TooLarge

__all__ = ["SourceFile", "as_utf8"]

CHUNK_BYTES = 4 << 20
_GZIP, _ZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_DAMAGES = (EOFError, OSError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, NotImplementedError)
_NAMES_ONLY = ("idna", "punycode")  # codecs of hosts' names
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class SourceFile:
    """One file, which has to stay as it is while it is read.

    Parameters
    ----------
    path
        Of a regular file; packed by gzip, zip (one file in it), bzip2, xz or zstd is fine for texts.
    digest
        Where it is known already.
    name
        What it is called where it is spoken of; by default by its path.
    most_bytes
        How many bytes it may have once it is unpacked; None: as many as it has.

    Raises
    ------
    SourceError
        If it is no file that can be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        digest: str | None = None,
        name: str | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self.path = path
        self.name = str(path) if name is None else name
        self.called = f"the file {path}" if name is None else name
        self.most_bytes = most_bytes
        self.bytes_read = 0
        if digest is not None:
            self.digest = digest
        try:
            found = path.stat()
        except OSError as err:
            raise SourceError(f"{self.called} cannot be read: {_said(err)}; give one that exists") from err
        if stat.S_ISDIR(found.st_mode):
            raise SourceError(f"{self.name} is a folder; name its files, for example by '{path}/*.csv'")
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{self.name} is no regular file; write what comes from it to a file first")
        self.size_bytes = found.st_size
        with self._read_errors(), path.open("rb") as file:
            self.head = file.read(4096)

    @cached_property
    def digest(self) -> str:
        """The sha256 of its bytes. Raises `SourceError` if they cannot be read."""
        with self._read_errors(), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Give the content, unpacked, in pieces of about 4 MiB.

        Raises
        ------
        SourceError
            If it is damaged, or is not what it was when `digest` was taken.
        TooLarge
            If it has more than `most_bytes`.
        """
        self.digest  # noqa: B018 - taken before anything is read
        self.bytes_read = 0
        with self._read_errors(), self.path.open("rb") as file:
            counted = _Counted(file, self)
            stream = self._unpacked(counted)
            unpacked = 0
            while chunk := stream.read(CHUNK_BYTES):
                unpacked += len(chunk)
                self.bound(unpacked)
                yield chunk
            if counted.sequential:
                while counted.read(CHUNK_BYTES):
                    pass
                self._compare(counted.sha256.hexdigest())
                return
        self.bytes_read = self.size_bytes
        self.verify()

    @contextmanager
    def held(self) -> Iterator[Path]:
        """Give the path for a block that reads here and there; it has to be the same file afterwards."""
        self.digest  # noqa: B018
        yield self.path
        self.verify()

    def verify(self) -> None:
        """Hold the bytes against `digest`. Raises `SourceError` if they are others."""
        before = self.digest
        del self.digest
        found, self.digest = self.digest, before
        self._compare(found)

    def grown(self, more: int) -> None:
        """Note that so many bytes were read. Raises `SourceError` if there are more than there were."""
        self.bytes_read += more
        if self.bytes_read > self.size_bytes:
            raise self._changed()

    def bound(self, unpacked: int) -> None:
        """Raise `TooLarge` if these are more bytes than it may have."""
        if self.most_bytes is not None and unpacked > self.most_bytes:
            raise TooLarge(self.called, self.most_bytes)

    def damaged(self, err: BaseException, kind: str) -> SourceError:
        """Give the error that tells that the content is not what its kind promises."""
        return SourceError(
            f"{self.called} is damaged, or no {kind}: {_said(err).replace(str(self.path), self.name)}; "
            "get it again from where it came"
        )

    def _compare(self, found: str) -> None:
        if found != self.digest:
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.called} changed while it was read, so nothing of it was taken; "
            "ingest it again once nobody writes it any more"
        )

    def _unpacked(self, file: "_Counted") -> IO[bytes]:
        raw = cast("IO[bytes]", file)
        if self.head.startswith(_GZIP):
            return cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="rb"))
        if self.head.startswith(_BZIP2):
            return cast("IO[bytes]", bz2.BZ2File(raw))
        if self.head.startswith(_XZ):
            return cast("IO[bytes]", lzma.LZMAFile(raw))
        if self.head.startswith(_ZSTD):
            return cast("IO[bytes]", pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
        if self.head.startswith(_ZIP):
            file.sequential = False
            return self._only_member(zipfile.ZipFile(raw))
        return raw

    def _only_member(self, archive: zipfile.ZipFile) -> IO[bytes]:
        members = [
            each
            for each in archive.infolist()
            if not each.is_dir() and not each.filename.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            listed = ", ".join(each.filename for each in members[:5]) or "none"
            raise SourceError(
                f"the archive {self.name} holds {len(members)} files ({listed}), wanted is one; "
                "unpack it and ingest its files"
            )
        if members[0].flag_bits & 1:
            raise SourceError(f"the archive {self.name} is locked by a password; unpack it first")
        return archive.open(members[0])

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except PermissionError as err:
            raise SourceError(
                f"{self.called} cannot be read: {_said(err)}; give this user the right to read it"
            ) from err
        except _DAMAGES as err:
            raise self.damaged(err, "file of its kind") from err


class _Counted(io.RawIOBase):
    """A file that takes the digest of what is read from it, as long as it is read from front to end."""

    def __init__(self, file: IO[bytes], told: SourceFile) -> None:
        self._file, self._told = file, told
        self.sha256 = hashlib.sha256()
        self.sequential = True

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        if self.sequential:
            self.sha256.update(data)
            self._told.grown(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return not self.sequential

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def as_utf8(chunks: Iterator[bytes], *, encoding: str | None, called: str) -> Iterator[bytes]:
    """Give text in UTF-8, without a byte order mark; bytes that are no text stay as they are.

    Parameters
    ----------
    encoding
        None: UTF-8, or what the byte order mark says.
    called
        What gives the bytes, for errors.

    Raises
    ------
    ConfigError
        If there is no such encoding.
    SourceError
        If the bytes cannot be that encoding, in a way that leaves no rows.
    """
    first = next(chunks, b"")
    marked = next((each for each in _MARKS if first.startswith(each[0])), None)
    if marked is not None and (encoding is None or encoding.lower().replace("_", "-").startswith("utf")):
        first, encoding = first[len(marked[0]) :], marked[1]
    try:
        codec = codecs.lookup(encoding or "utf-8")
        "a".encode(codec.name)  # some of Python's codecs are not of texts
        if codec.name in _NAMES_ONLY:
            raise LookupError(encoding)
    except LookupError as err:
        raise ConfigError(
            f"{encoding!r} is no encoding that Python knows; utf-8, cp1252 and utf-16 are some"
        ) from err
    if codec.name in ("utf-8", "ascii"):
        if marked is None and first[:2000].count(0) > len(first[:2000]) // 4:
            raise SourceError(
                f"{called} is no UTF-8: it is full of zero bytes. Say encoding='utf-16' "
                "(--encoding utf-16) if it is that"
            )
        yield first
        yield from chunks
        return
    decoder = codec.incrementaldecoder("surrogateescape")
    try:
        yield decoder.decode(first).encode("utf-8", "surrogateescape")
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogateescape")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")
    except UnicodeError as err:
        raise SourceError(f"{called} is no {encoding}: {err}; name its encoding") from err


def _said(err: BaseException) -> str:
    told = getattr(err, "strerror", None) or str(err) or type(err).__name__
    return str(told).strip().partition("\n")[0]
