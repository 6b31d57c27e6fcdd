"""The files of a model folder: found by their path below it, verified whenever they are read."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from noria.errors import ConfigError, DigestMismatch, NotFound, SourceError
from noria.records import sha256_hex
from noria.registry.records import Part

__all__ = ["Contents", "KeptContents", "LocalContents", "checked_member", "lay_out"]

_MOST_FILES = 10_000


class Contents(Protocol):
    """The files of a folder. Nothing outside of it is ever read."""

    where: str

    @property
    def names(self) -> tuple[str, ...]:
        """Paths below the folder, in order."""
        ...

    def read(self, name: str) -> bytes:
        """Give the bytes of a file. Raises `NotFound`; `DigestMismatch` if they are not what was recorded."""
        ...


class KeptContents:
    """Files whose digests are on record.

    Parameters
    ----------
    where
        What it is, in errors.
    files
        By path below the folder.
    fetch
        Gives a local file with the bytes.
    """

    def __init__(self, where: str, files: Mapping[str, Part], fetch: Callable[[str, Part], Path]) -> None:
        self.where, self._files, self._fetch = where, dict(files), fetch
        for each in files:
            checked_member(each, where)

    @property
    def names(self) -> tuple[str, ...]:
        """Paths below the folder, in order."""
        return tuple(sorted(self._files))

    def read(self, name: str) -> bytes:
        """Give the bytes of a file, verified."""
        part = self._files.get(name)
        if part is None:
            raise NotFound("file", f"{name} of {self.where}", self._files)
        what = f"the file {name!r} of {self.where}"
        try:
            data = self._fetch(name, part).read_bytes()
        except DigestMismatch as err:
            raise DigestMismatch(what, err.wanted, err.found) from err
        except NotFound as err:
            raise SourceError(
                f"{what} is on record, but its bytes are gone; restore them from a backup"
            ) from err
        if (found := sha256_hex(data)) != part.sha256:
            raise DigestMismatch(what, part.sha256, found)
        return data


class LocalContents:
    """Files in a local folder, whose digests nobody knows.

    Raises
    ------
    SourceError
        If it is no folder, or holds symbolic links or other than plain files.
    """

    def __init__(self, folder: Path) -> None:
        self.where, self._folder = f"the folder {folder}", folder
        if not folder.is_dir():
            raise SourceError(f"{folder} is no folder; name the one that holds an MLmodel")
        self._names = tuple(sorted(_walk(folder, folder)))

    @property
    def names(self) -> tuple[str, ...]:
        """Paths below the folder, in order."""
        return self._names

    def read(self, name: str) -> bytes:
        """Give the bytes of a file."""
        if name not in self._names:
            raise NotFound("file", f"{name} of {self.where}", self._names)
        try:
            handle = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as err:
            raise SourceError(f"{self._folder / name} cannot be read: {err.strerror}") from err
        with os.fdopen(handle, "rb") as file:
            return file.read()


def _walk(folder: Path, root: Path) -> Iterator[str]:
    for number, each in enumerate(sorted(folder.iterdir())):
        mode = each.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(each, root)
        elif stat.S_ISREG(mode):
            yield checked_member(each.relative_to(root).as_posix(), str(root))
        else:
            kind = "a symbolic link, which is not followed" if stat.S_ISLNK(mode) else "no plain file"
            raise SourceError(f"{each} is {kind}; put the file itself into the folder of the model")
        if number > _MOST_FILES:
            raise SourceError(f"{folder} holds more than {_MOST_FILES} files; it is no folder of a model")


def checked_member(name: object, where: str) -> str:
    """Give a path below a folder.

    Raises
    ------
    ConfigError
        If it is none, or leads elsewhere.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where} names the file {name!r}; wanted is a path below it")
    path = PurePosixPath(name)
    is_odd = "\\" in name or any(each < " " for each in name) or path.as_posix() != name
    if is_odd or path.is_absolute() or ".." in path.parts or ":" in (path.parts or (":",))[0]:
        raise ConfigError(
            f"{where} names the file {name[:200]!r}, which may lead out of it; wanted is a plain path "
            "below it"
        )
    return name


def lay_out(contents: Contents, folder: Path) -> None:
    """Write all files into an empty folder."""
    for name in contents.names:
        path = folder / checked_member(name, contents.where)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.read(name))
