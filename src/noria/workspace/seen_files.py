"""Which files were looked at, so that those that have landed are not read through again to be known."""

import os
import tempfile
import time
from pathlib import Path

import msgspec

__all__ = ["SeenFiles"]

_SETTLED_AFTER_NS = 2_000_000_000  # a file written later may change again within one tick of its clock


class _Seen(msgspec.Struct, frozen=True, array_like=True):
    size_bytes: int
    written_ns: int
    inode: int
    sha256: str


class SeenFiles:
    """The files of one dataset, with their digests as of the last look; a lost list costs time only.

    Parameters
    ----------
    path
        Where the list is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old = self._read()
        self._new: dict[str, _Seen] = {}

    def find(self, path: Path) -> str | None:
        """Give the digest of a file that is as it was, by size, instant and place on the disk."""
        known = self._old.get(str(path))
        if known is None:
            return None
        try:
            found = path.stat()
        except OSError:
            return None  # whoever opens it will tell
        same = (known.size_bytes, known.written_ns, known.inode)
        return known.sha256 if (found.st_size, found.st_mtime_ns, found.st_ino) == same else None

    def note(self, path: Path, found: os.stat_result, sha256: str) -> None:
        """Note the digest of a file; `found` was told before it was read."""
        if time.time_ns() - found.st_mtime_ns > _SETTLED_AFTER_NS:
            self._new[str(path)] = _Seen(found.st_size, found.st_mtime_ns, found.st_ino, sha256)

    def keep(self) -> None:
        """Write the list of those that were noted in place of the old one."""
        if self._new == self._old:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as file:
            file.write(msgspec.json.encode(self._new))
        Path(file.name).replace(self._path)

    def _read(self) -> dict[str, _Seen]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Seen])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}
