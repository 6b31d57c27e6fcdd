"""Files and folders as payloads: a file is its bytes, a folder a tar of what is in it.

The tar holds names, contents and whether a file may be run: no instants, owners or order of a disk, so that
equal folders have equal bytes.
"""

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from noria.errors import Unreadable
from noria.pipelines.values.coding import Refused

__all__ = ["HashingSink", "hash_file", "is_folder", "unpack_folder", "write_folder"]

_WRITE_FIRST = "return the Path of a file or folder that is there, closed, and may be read"


class HashingSink:
    """A place to write to that hashes what it is given, and passes it on where there is a file.

    Parameters
    ----------
    file
        Where the bytes go; None: nowhere, only their digest is wanted.
    """

    closed = False

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._hash.update(data)
        size = memoryview(data).nbytes
        self.size_bytes += size
        if self._file is not None:
            self._file.write(data)
        return size

    def tell(self) -> int:
        """Give how much was written."""
        return self.size_bytes

    def flush(self) -> None:
        """Do nothing: the file is closed by who opened it."""

    def close(self) -> None:
        """Do nothing: the file is closed by who opened it."""


def is_folder(path: Path) -> bool:
    """Tell a folder from a file. Raises `Refused` for what is neither."""
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise Refused(f"the path {str(path)!r}, which cannot be read ({err.strerror})", _WRITE_FIRST) from err
    if stat.S_ISDIR(mode):
        return True
    if not stat.S_ISREG(mode):
        raise Refused(f"the path {str(path)!r}, which is neither a file nor a folder", _WRITE_FIRST)
    return False


def hash_file(path: Path) -> tuple[str, int]:
    """Give the sha256 and the size of a file. Raises `Refused` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as err:
        raise Refused(f"the path {str(path)!r}, which cannot be read ({err.strerror})", _WRITE_FIRST) from err


def write_folder(folder: Path, sink: HashingSink) -> None:
    """Write what is in a folder as a tar. Raises `Refused` for links, devices and what cannot be read."""
    with tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[arg-type]
        for name, path, mode in _walk(folder, ""):
            entry = tarfile.TarInfo(name)  # of instant 0, owner 0, and without names of owners
            if stat.S_ISDIR(mode):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
                continue
            with _opened(path) as file:
                entry.size = os.fstat(file.fileno()).st_size
                entry.mode = 0o755 if mode & stat.S_IXUSR else 0o644
                _add(tar, entry, file)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path, int]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted((os.fsencode(each.name), each) for each in found)
            modes = [each.stat(follow_symlinks=False).st_mode for _, each in entries]
    except OSError as err:
        raise Refused(
            f"the folder {str(folder)!r}, which cannot be read ({err.strerror})", _WRITE_FIRST
        ) from err
    for (_, each), mode in zip(entries, modes, strict=True):
        name, path = prefix + each.name, Path(each.path)
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            what = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            raise Refused(f"a folder in which {name!r} is {what}", "put the file itself there")
        yield name, path, mode
        if stat.S_ISDIR(mode):
            yield from _walk(path, name + "/")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as err:
        raise Refused(f"the path {str(path)!r}, which cannot be read ({err.strerror})", _WRITE_FIRST) from err


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, file: BinaryIO) -> None:
    tar.addfile(entry, file)
    if file.read(1):
        raise Refused(f"a folder in which {entry.name!r} is still being written", _WRITE_FIRST)


def unpack_folder(path: Path, scratch: Path) -> Path:
    """Unpack into a new folder below `scratch`; its files are read-only. Raises `Unreadable`."""
    _check_end(path)
    folder = Path(tempfile.mkdtemp(prefix="folder_", dir=scratch))
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                _unpack(tar, entry, folder)
    except (tarfile.TarError, FileExistsError, ValueError, _BadEntry) as err:
        shutil.rmtree(folder, ignore_errors=True)
        raise Unreadable("a folder", str(err)) from err
    return folder


class _BadEntry(Exception):
    """An entry that no folder of ours has."""


def _check_end(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 2 * tarfile.BLOCKSIZE, 0))
        end = file.read()
    if size % tarfile.RECORDSIZE or end != bytes(2 * tarfile.BLOCKSIZE):
        raise Unreadable("a folder", "its end is missing")


def _unpack(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise _BadEntry(f"it has an entry outside of itself, {entry.name!r}")
    target = folder / name
    if entry.isdir():
        target.mkdir()
        return
    content = tar.extractfile(entry) if entry.isreg() else None
    if content is None:
        raise _BadEntry(f"its entry {entry.name!r} is neither a file nor a folder")
    with target.open("xb") as file:
        shutil.copyfileobj(content, file)
    target.chmod(entry.mode & 0o555)
