"""Files that are being written: gone when they are closed, or swept once their writer has died."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from noria.errors import DiskFull, StoreError

__all__ = ["StagedFile", "sweep"]

_PREFIX = "staged-"


class StagedFile:
    """A fresh file below a folder, which is made if it is not there; `close` removes it.

    It is locked while its process lives, so that a sweep tells it from what a killed one has left. Raises
    `DiskFull` where no room is left and `StoreError` where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with self._translated():
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor, self.path = _locked_file(folder)

    def write(self, data: bytes | bytearray) -> None:
        """Append all of `data`; it can be read by `path` when this returns."""
        left = memoryview(data)
        with self._translated():
            while left:
                left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        """Remove it. May be called again."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with self._translated():
            try:
                self.path.unlink(missing_ok=True)  # first: nobody sweeps what is not there
            finally:
                os.close(descriptor)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            if err.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(str(self._folder)) from err
            raise StoreError(
                f"the folder {self._folder} cannot be written: {err}; check it and its rights"
            ) from err


def sweep(folder: Path) -> None:
    """Remove the files whose writers died. What is no such file, as a link, stays and is not followed."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # closed meanwhile, its writer is at it, or somebody else has put it there
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _locked_file(folder: Path) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # a sweep came between the two
