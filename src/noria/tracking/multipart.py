"""Files that come in parts, in any order and several at once: each a file of its own until all are there.

What has come outlives a restart of the server. An upload that nothing has come for in a day is swept.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from noria.errors import ConfigError, Conflict, NotFound, StoreError
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore
from noria.tracking.staging import StagedFile

__all__ = ["MAX_PARTS", "Part", "PartWriter", "PartedUploads"]

MAX_PARTS = 10_000
_ID = re.compile(r"[0-9a-f]{32}")
_TAG = re.compile(r"[0-9a-f]{16}")
_SWEPT_AFTER_S = 86_400
_SWEPT_EVERY_S = 3_600
_PIECE_BYTES = 1 << 20
_WHAT, _DONE = "upload.json", "done"


class Part(msgspec.Struct, frozen=True):
    """A part that has come, as the answer to it named it."""

    number: int
    tag: str


class _Upload(msgspec.Struct, frozen=True):
    path: str
    parts: int
    by: str


class PartedUploads:
    """Uploads in parts. Safe to use from many threads and processes.

    Parameters
    ----------
    store
        Keeps the file once it is whole.
    folder
        A local one for what has come; made when it is needed.
    """

    def __init__(self, store: ArtifactStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._swept_at = -float(_SWEPT_EVERY_S)

    def begin(self, path: str, parts: int, *, by: str) -> str:
        """Begin an upload, whose parts come from somebody, and give its id, which nobody guesses.

        Raises
        ------
        BadPath
            If it can be no path.
        Conflict
            If the path is that of a folder, or leads through a file.
        ConfigError
            If so many parts are not taken.
        """
        if not 1 <= parts <= MAX_PARTS:
            raise ConfigError(f"a file comes in 1 to {MAX_PARTS:,} parts, not in {parts}; send larger ones")
        self._store.check_free(checked_path(path))
        self._sweep()
        id = secrets.token_hex(16)
        with self._translated():
            folder = self._folder / id
            folder.mkdir(parents=True)
            written = folder / f"{_WHAT}.new"
            written.write_bytes(msgspec.json.encode(_Upload(path, parts, by)))
            written.replace(folder / _WHAT)
        return id

    def writing(self, id: str, number: int, *, by: str) -> "PartWriter":
        """Give a writer of a part. Raises `NotFound` if there is no such upload, or no such part in it."""
        folder, upload = self._get(id)
        if upload.by != by:
            raise NotFound("upload", id, [])
        if not 1 <= number <= upload.parts:
            raise NotFound("part", str(number), [f"1 to {upload.parts}"])
        with self._translated():
            return PartWriter(folder, number)

    def finish(self, id: str, path: str, parts: Sequence[Part]) -> Artifact | None:
        """Keep the parts as one file; None if that was done before.

        Raises
        ------
        NotFound
            If there is no such upload.
        ConfigError
            If it is one of another path, or the parts are not all that were sent last, each once, in order.
        Conflict
            If the path has become that of a folder, or leads through a file; or the upload is being finished.
        """
        folder, upload = self._get(id)
        _check_path(upload, path)
        if (folder / _DONE).exists():
            return None
        if [each.number for each in parts] != list(range(1, upload.parts + 1)):
            raise ConfigError(
                f"the upload has the parts 1 to {upload.parts}; name each of them once, in order"
            )
        if not all(_TAG.fullmatch(each.tag) for each in parts):
            raise ConfigError("name each part by the ETag that it was answered with")
        files = [folder / _file_name(each.number, each.tag) for each in parts]
        missing = next(
            (part.number for part, file in zip(parts, files, strict=True) if not file.is_file()), None
        )
        if missing is not None:
            raise ConfigError(
                f"part {missing} has not come, or came again since; send it, and name what it got"
            )
        whole = StagedFile(folder)
        try:
            for file in files:
                with self._translated(), file.open("rb") as source:
                    while piece := source.read(_PIECE_BYTES):
                        whole.write(piece)
            made = self._store.put_file(path, whole.path)
        except FileNotFoundError as err:
            raise Conflict("the upload is being ended by somebody else; begin another") from err
        finally:
            whole.close()
        with self._translated():
            (folder / _DONE).touch()
            for file in files:
                file.unlink(missing_ok=True)
        return made

    def abort(self, id: str, path: str) -> None:
        """Forget an upload; one that is not there is forgotten. Raises `ConfigError` like `finish`."""
        with suppress(NotFound):
            folder, upload = self._get(id)
            _check_path(upload, path)
            self._remove(folder)

    def _get(self, id: str) -> tuple[Path, _Upload]:
        if _ID.fullmatch(id):
            folder = self._folder / id
            with suppress(FileNotFoundError), self._translated():
                return folder, msgspec.json.decode((folder / _WHAT).read_bytes(), type=_Upload)
        raise NotFound("upload", id[:40], [])

    def _sweep(self) -> None:
        """Remove uploads that nothing has come for in a day; now and then."""
        now = time.monotonic()
        if now - self._swept_at < _SWEPT_EVERY_S or not self._folder.is_dir():
            return
        self._swept_at = now
        limit = time.time() - _SWEPT_AFTER_S
        for folder in self._folder.iterdir():
            with suppress(FileNotFoundError):  # somebody else sweeps too
                if _ID.fullmatch(folder.name) and folder.lstat().st_mtime < limit:
                    self._remove(folder)

    def _remove(self, folder: Path) -> None:
        with suppress(FileNotFoundError), self._translated():
            (folder / _WHAT).unlink(missing_ok=True)  # first: then it is none any more
            shutil.rmtree(folder)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, FileNotFoundError):
            raise
        except OSError as err:
            raise StoreError(
                f"the folder {self._folder} cannot be used: {err}; check it and its rights"
            ) from err


class PartWriter:
    """Takes the bytes of a part; nothing of it is there before `finish`. The last one of a number counts."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._staged = StagedFile(folder)

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises `DiskFull` or `StoreError`."""
        self._staged.write(data)

    def finish(self) -> Part:
        """Keep what was written. Raises `NotFound` if the upload has ended meanwhile."""
        tag = secrets.token_hex(8)
        older = list(self._folder.glob(_file_name(self._number, "*")))
        try:
            os.link(self._staged.path, self._folder / _file_name(self._number, tag))
        except FileNotFoundError as err:
            raise NotFound("upload", self._folder.name, []) from err
        except OSError as err:
            raise StoreError(f"the folder {self._folder} cannot be written: {err}") from err
        for each in older:
            each.unlink(missing_ok=True)
        return Part(self._number, tag)

    def close(self) -> None:
        """Remove what was staged."""
        self._staged.close()


def _file_name(number: int, tag: str) -> str:
    return f"part-{number}-{tag}"


def _check_path(upload: _Upload, path: str) -> None:
    if upload.path != path:
        raise ConfigError(f"the upload is one of {upload.path!r}, not of what the request names")
