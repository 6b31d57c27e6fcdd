"""Plain files of an export: names that every system takes, and that people recognise."""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from noria.errors import BadPath, DigestMismatch, SourceError
from noria.records import sha256_hex
from noria.tracking.artifact_paths import checked_path
from noria.workspace.moving.table_files import disk_faults, file_sha256

if TYPE_CHECKING:
    from noria.storage.contract import Storage

__all__ = ["FileNames", "copied_blob", "export_file", "plain_name"]

_REFUSED = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_MAX_BYTES = 120


def plain_name(part: str) -> str:
    """Give a name that Windows, macOS and Linux take; one that had to be changed has a digest at its end.

    Examples
    --------
    >>> plain_name("größe.txt"), plain_name("a:b")
    ('größe.txt', 'a_b~6783a31e')
    """
    name = _REFUSED.sub("_", part)
    if _RESERVED.fullmatch(name) or name != name.rstrip(" .") or name.startswith("~"):
        name = f"_{name.rstrip(' .')}"
    if len(name.encode()) > _MAX_BYTES:
        name = name.encode()[:_MAX_BYTES].decode(errors="ignore")
    return name if name == part else f"{name}~{sha256_hex(part.encode())[:8]}"


class FileNames:
    """Gives each file of an export a name of its own, also where the case of letters is not told apart."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def name(self, folder: str, path: str) -> str:
        """Give the name of a file below a folder, by the path that it has in the project."""
        name = "/".join([folder, *map(plain_name, path.split("/"))])
        if self._key(name) in self._taken or self._is_below(name):
            name = f"{name}~{sha256_hex(path.encode())[:8]}"
        self._taken.add(self._key(name))
        return name

    def knows(self, name: str) -> bool:
        """Tell whether a file was given this name."""
        return self._key(name) in self._taken

    def _is_below(self, name: str) -> bool:
        return any(self._key(str(each)) in self._taken for each in PurePosixPath(name).parents)

    def _key(self, name: str) -> bytes:
        return bytes.fromhex(sha256_hex(name.casefold().encode()))[:12]


def copied_blob(storage: Storage, sha256: str, target: Path) -> bool:
    """Write a blob as a file; False if it is there. Raises `NotFound`, `DigestMismatch`, `DiskFull`."""
    if target.is_file() and file_sha256(target) == sha256:
        return False
    source = storage.fetch(sha256)
    staged = target.with_name(f"{target.name}.part")
    with disk_faults(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, staged)
        staged.replace(target)
    return True


def export_file(folder: Path, name: str, *, sha256: str) -> Path:
    """Give a file of an export, its digest computed again.

    Raises
    ------
    SourceError
        If the name leads out of the folder, or the file is gone or is a link.
    DigestMismatch
        If it was changed.
    """
    try:
        checked_path(name)
    except BadPath as err:
        raise SourceError(f"the export names the file {name!r}, which leads elsewhere: {err}") from err
    path = folder.joinpath(*PurePosixPath(name).parts)
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise SourceError(f"the file {name!r} of the export is a link, or leads out of {folder}")
    try:
        found = file_sha256(path)
    except OSError as err:
        raise SourceError(f"{path} cannot be read: {err.strerror}; the export is not whole") from err
    if found != sha256:
        raise DigestMismatch(f"the file {path}", sha256, found)
    return path
