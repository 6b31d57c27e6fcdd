"""Lines of JSON appended to a file by several processes: whole lines, whatever is killed when."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import msgspec

from noria.errors import ConfigError, DiskFull, StoreError

__all__ = ["FileSink", "append_line", "locked", "mend", "translated"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HEAD = b'{"eventType":'  # what every line begins with that was written here
_BLOCK = 1 << 16


class FileSink:
    """Events go to a file, one write(2) each. The file is opened anew each time, so it may be rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False

    @classmethod
    def open(cls, url: str, *, root: Path) -> "FileSink":
        """Open `file:PATH`, `file:///PATH` or a path; see `LineageEmitter.open`."""
        path = root / _path_of(url)
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(_open(path))  # now rather than at the first event
        return cls(path)

    def write(self, line: bytes) -> None:
        """Append one line."""
        if self._closed:
            raise StoreError(f"the lineage file {self._path} is closed; open it again")
        append_line(self._path, line)

    def pending(self) -> int:
        """Give 0: what was written has arrived."""
        return 0

    def close(self, *, timeout_s: float) -> None:
        """Take no more; nothing is left to wait for."""
        del timeout_s
        self._closed = True


def append_line(path: Path, line: bytes) -> None:
    """Append a line by one write(2), and first mend what a kill cut off.

    Raises
    ------
    DiskFull
        If there is no room; the file is as it was.
    StoreError
        If it cannot be written.
    """
    with translated(path), locked(path) as file:
        if not stat.S_ISREG(os.fstat(file).st_mode):  # a pipe or a terminal
            os.write(file, line)
            return
        end = mend(file)
        try:
            written = os.write(file, line)
            while written < len(line):  # a nearly full disk
                written += os.write(file, line[written:])
        except OSError:
            os.ftruncate(file, end)
            raise


def mend(file: int) -> int:
    """Let a locked file end with a whole line, and give its size.

    A write that a kill cut off never returned: what there is of it goes, unless only its end is missing.
    A last line of somebody else's gets its end and stays.
    """
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    tail = _last_line(file, size)
    if _HEAD.startswith(tail[: len(_HEAD)]) and not _is_whole(tail):
        os.ftruncate(file, size - len(tail))
        return size - len(tail)
    os.write(file, b"\n")
    return size + 1


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the only right to change a file; give its descriptor."""
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise `DiskFull` or `StoreError` for what the disk is to blame for."""
    try:
        yield
    except StoreError:
        raise
    except OSError as err:
        if err.errno in _NO_ROOM:
            raise DiskFull(str(path)) from err
        raise StoreError(
            f"the lineage file {path} cannot be used: {err.strerror or err}; check its folder and its rights"
        ) from err


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _last_line(file: int, size: int) -> bytes:
    tail = b""
    while len(tail) < size and b"\n" not in tail:
        start = max(0, size - len(tail) - _BLOCK)
        tail = os.pread(file, size - len(tail) - start, start) + tail
    return tail.rpartition(b"\n")[2]


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True


def _path_of(url: str) -> str:
    path = url
    if url.lower().startswith("file:"):
        path = url[len("file:") :]
        if path.startswith("//"):
            host, slash, rest = path[2:].partition("/")
            if host.lower() not in ("", "localhost"):
                raise ConfigError(
                    f"lineage {url!r} names a file on the host {host!r}; "
                    "write file:PATH for a path in the project, file:///PATH for an absolute one"
                )
            path = unquote(slash + rest)
    elif "://" in url:
        kind = url.partition("://")[0]  # behind it there may be a password
        raise ConfigError(f"lineage {kind}://… is of no known kind; give file:PATH, http://… or https://…")
    if not path or "\0" in path:
        raise ConfigError(f"lineage {url!r} names no file; give file:PATH, http://… or https://…")
    return path
