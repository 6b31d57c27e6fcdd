"""What every storage of blobs can do."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

__all__ = ["Held", "Storage", "blob_key", "blob_uri", "part_key"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"\w[\w-]*")


@dataclass(frozen=True, slots=True)
class Held:
    """A blob that is kept."""

    sha256: str
    size_bytes: int
    kept_at: datetime  # when it was written


class Storage(Protocol):
    """Blobs by the sha256 of their content.

    A blob is there as a whole or not at all, also after a kill; it is never changed. The same bytes have one
    place, so putting them again is free of effect (and repairs a damaged copy). Safe to use from many threads
    and processes at once. Raises `DiskFull` where no room is left and `StoreError` where the place cannot be
    read or written.
    """

    def put(self, data: bytes) -> str:
        """Keep `data`; give its sha256 in hex."""
        ...

    def put_file(self, path: Path) -> str:
        """Keep the content of a file; give its sha256 in hex. Raises `SourceError` if it cannot be read."""
        ...

    def get(self, sha256: str) -> bytes:
        """Give the bytes, verified. Raises `NotFound`, or `DigestMismatch` where they were changed."""
        ...

    def fetch(self, sha256: str) -> Path:
        """Give a local file with the bytes, verified; it is not to be written. Raises like `get`."""
        ...

    def exists(self, sha256: str) -> bool:
        """Tell whether such a blob is kept (its bytes are not read)."""
        ...

    def freshen(self, sha256: str) -> bool:
        """Tell whether such a blob is kept; if so it counts as put just now, where the backend can say so."""
        ...

    def remove(self, sha256: str) -> bool:
        """Remove a blob for good; False if there is none. Whoever still names it gets `NotFound` then.

        For what has to go, such as a subject's rows: a writer of the same bytes may think at that very
        moment that they are there.
        """
        ...

    def listed(self) -> Iterator[Held]:
        """Give every blob that is kept here, those of parts left out."""
        ...

    def parts(self) -> Sequence[str]:
        """Name the parts in which something was kept, sorted."""
        ...

    def part(self, name: str) -> Self:
        """Give a storage of its own below this one: its blobs are no others', even of the same bytes."""
        ...

    def uri(self, sha256: str) -> str:
        """Give the blob's name for records. It names no place: a project may move, or change its storage."""
        ...


def blob_key(sha256: str) -> str:
    """Give the path of a blob below the root of a storage, the same in every backend.

    Raises
    ------
    ValueError
        If `sha256` is not 64 lower-case hex digits.

    Examples
    --------
    >>> blob_key("ab" * 32)[:14]
    'sha256/ab/abab'
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no sha256; wanted are 64 lower-case hex digits")
    return f"sha256/{sha256[:2]}/{sha256}"


def blob_uri(sha256: str) -> str:
    """Give the name of a blob for records.

    Examples
    --------
    >>> blob_uri("ab" * 32)[:20]
    'storage:sha256/ab/ab'
    """
    return f"storage:{blob_key(sha256)}"


def part_key(name: str) -> str:
    """Give the path of a part below the root of a storage. Raises `ValueError` if it cannot be a name."""
    if not _PART.fullmatch(name):
        raise ValueError(f"{name!r} names no part of a storage; use letters, digits, '_' and '-'")
    return f"parts/{name}"
