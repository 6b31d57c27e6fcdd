"""A file that its owner alone may read and change: who may ask, and what proves them."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noria.errors import ConfigError, StoreError

__all__ = ["PrivateFile"]

_MODE = 0o600


class PrivateFile:
    """Changes are made one after the other, each whole or not at all.

    Parameters
    ----------
    path
        It need not be there yet.
    of
        What it keeps, as errors say it, such as "users".
    """

    def __init__(self, path: Path, *, of: str) -> None:
        self.path, self._of = path, of

    def identity(self) -> tuple[int, ...]:
        """Give what is another one once the file has changed; empty if there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def read(self) -> bytes | None:
        """Give what it holds; None if there is no such file.

        Raises
        ------
        ConfigError
            If it cannot be read, or others than its owner may read or change it.
        """
        try:
            descriptor = os.open(
                self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )  # a pipe waits for nobody
        except FileNotFoundError:
            return None
        except OSError as err:
            raise self._unreadable(err.strerror) from err
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise self._unreadable("it is no plain file")
            if found.st_mode & 0o077:
                raise ConfigError(
                    f"the file of {self._of} {self.path} may be read or changed by others (mode "
                    f"{found.st_mode & 0o777:o}); `chmod 600` it"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        except OSError as err:
            raise self._unreadable(err.strerror) from err
        finally:
            os.close(descriptor)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let nobody else change it meanwhile. Raises `StoreError` where nothing can be written there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(
                self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE
            )
        except OSError as err:
            raise self._unwritable(err) from err
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def write(self, data: bytes) -> None:
        """Replace what it holds; on the disk when this returns. Raises `StoreError`."""
        try:
            descriptor, name = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:  # mkstemp made it for its owner alone
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                Path(name).replace(self.path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as err:
            raise self._unwritable(err) from err

    def _unreadable(self, reason: str | None) -> ConfigError:
        return ConfigError(f"the file of {self._of} {self.path} cannot be read: {reason}")

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"the file of {self._of} {self.path} cannot be written: {error}")
