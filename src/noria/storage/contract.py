"""What every storage of blobs can do."""

import re
from pathlib import Path
from typing import Protocol

__all__ = ["Storage", "blob_key", "blob_uri"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


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
