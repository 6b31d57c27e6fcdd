"""Files that runs leave: found by their path, kept by their digest.

The bytes lie in a part of the project's storage of their own, `artifacts`: what is removed elsewhere, such as
a subject's rows, is no part of it, even where the bytes are the same. A path may be put again, or deleted:
the bytes that it named before stay until they are pruned.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, or_, select, update

from noria.database.store import Database
from noria.errors import Conflict, DigestMismatch, NotFound, SourceError
from noria.storage.contract import Storage
from noria.tracking.artifact_paths import checked_folder, checked_path
from noria.tracking.staging import StagedFile, sweep
from noria.tracking.tables import artifacts

__all__ = ["Artifact", "ArtifactStore", "ArtifactWriter", "Listed"]

_PART = "artifacts"
_FEW, _MANY = 32, 4_096  # rows read at once: where folders come, and where files alone do
_AT_ONCE = 200  # blobs that are removed in one transaction
_REMEMBERED = 4_096  # files that were verified and have not changed since

_path = artifacts.c.path
_AT = select(artifacts).where(_path == bindparam("wanted"))
_SOME_BELOW = select(_path).where(_path > bindparam("after"), _path < bindparam("end")).limit(1)
_FROM = (
    select(_path, artifacts.c.size_bytes)
    .where(_path >= bindparam("after"))
    .order_by(_path)
    .limit(bindparam("most"))
)
_NAMED = select(artifacts.c.sha256).where(artifacts.c.sha256.in_(bindparam("wanted", expanding=True)))
_WITHIN = _FROM.where(_path < bindparam("end"))


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was put."""

    path: str
    sha256: str
    size_bytes: int
    put_at: datetime  # wall


class Listed(msgspec.Struct, frozen=True):
    """A file or a folder, by its name in the folder that holds it."""

    name: str
    is_folder: bool
    size_bytes: int  # of a folder 0


class ArtifactStore:
    """Artifacts of a project. Safe to use from many threads and processes.

    Parameters
    ----------
    storage
        The project's; the bytes go to its part `artifacts`.
    staging
        A local folder for what is on its way; made when it is needed.
    """

    def __init__(self, database: Database, storage: Storage, staging: Path) -> None:
        self._database, self._whole, self._staging = database, storage, staging
        self._verified: dict[str, tuple[Path, tuple[int, ...]]] = {}
        self._lock = threading.Lock()
        self._is_swept = False

    @cached_property
    def _storage(self) -> Storage:
        return self._whole.part(_PART)

    def put_file(self, path: str, file: Path) -> Artifact:
        """Keep the content of a file under a path, whatever that named before.

        Raises
        ------
        BadPath
            If it can be no path.
        SourceError
            If the file cannot be read, is a link or no plain file, or changes while it is read.
        Conflict
            If the path is that of a folder, or leads through a file.
        """
        self.check_free(checked_path(path))
        try:
            return self.put_kept(path, *self.keep(file))
        except NotFound:  # it was there unnamed, and was removed as such at that very moment
            return self.put_kept(path, *self.keep(file))

    def keep(self, file: Path) -> tuple[str, int]:
        """Keep the content of a file that has no path yet; give its sha256 and size. Raises like `put_file`.

        Asks nothing of the database.
        """
        before = _plain_file(file)
        sha256 = self._storage.put_file(file)
        if _identity(_plain_file(file)) != _identity(before):
            raise SourceError(f"the file {file} was changed while it was read; put it once it is whole")
        return sha256, before.st_size

    def has(self, sha256: str) -> bool:
        """Tell whether such bytes are kept; then they are not pruned before somebody may name them."""
        return self._storage.freshen(sha256)

    def staged(self) -> StagedFile:
        """Give a local file for what is on its way. Raises `DiskFull` or `StoreError`."""
        with self._lock:
            if not self._is_swept:
                sweep(self._staging)
                self._is_swept = True
        return StagedFile(self._staging)

    def put_kept(self, path: str, sha256: str, size_bytes: int) -> Artifact:
        """Let a path name bytes that are kept already.

        Raises
        ------
        BadPath, Conflict
            Like `put_file`.
        NotFound
            If they are gone: bytes that nothing names are removed after a while.
        """
        return self._put_row(checked_path(path), sha256, size_bytes)

    def writing(self, path: str) -> "ArtifactWriter":
        """Give a writer of a file under a path. Raises like `put_file`, before a byte is written."""
        self.check_free(checked_path(path))
        return ArtifactWriter(self, path, self.staged())

    def find(self, path: str) -> Artifact | None:
        """Give what is known of a file, or `None`. Raises `BadPath`."""
        with self._database.read() as connection:
            row = connection.execute(_AT, {"wanted": checked_path(path)}).mappings().first()
        return None if row is None else Artifact(**row)

    def get(self, path: str) -> Artifact:
        """Give what is known of a file.

        Raises
        ------
        BadPath
            If it can be no path.
        NotFound
            If there is nothing.
        Conflict
            If it is a folder.
        """
        found = self.find(path)
        if found is not None:
            return found
        with self._database.read() as connection:
            if _is_folder(connection, path):
                raise Conflict(f"the artifact {path!r} is a folder, wanted is a file; list it, and name one")
        raise NotFound("artifact", path)

    def open(self, path: str) -> Path:
        """Give a local file with the bytes, verified; it is not to be written.

        Raises
        ------
        BadPath, NotFound, Conflict
            Like `get`; `NotFound` also if the bytes are gone.
        DigestMismatch
            If the bytes were changed.
        """
        return self.fetch(self.get(path))

    def fetch(self, artifact: Artifact) -> Path:
        """Give a local file with the bytes. Raises like `open`.

        They are read and verified once, and again if the file was touched since.
        """
        sha256 = artifact.sha256
        known = self._verified.get(sha256)
        if known is not None and _is_untouched(*known):
            return known[0]
        before = datetime.now(UTC).timestamp()
        path = self._storage.fetch(sha256)
        found = path.stat()
        if found.st_ctime < before:  # else it may have been touched after it was verified
            with self._lock:
                if len(self._verified) >= _REMEMBERED:
                    self._verified.clear()
                self._verified[sha256] = (path, _identity(found))
        return path

    def list(self, folder: str = "") -> Sequence[Listed]:
        """Give what lies directly in a folder, by name; nothing if there is no such folder.

        A step per file and folder, however much lies below a folder. Raises `BadPath`.
        """
        prefix, bounds = _bounds(checked_folder(folder))
        statement = _WITHIN if bounds else _FROM
        found: list[Listed] = []
        after, most = prefix, _FEW
        with self._database.read() as connection:
            while True:
                known = len(found)
                rows = connection.execute(statement, {**bounds, "after": after, "most": most}).all()
                for path, size in rows:
                    if path < after:
                        continue  # below a folder that is listed already
                    name, slash, _ = path[len(prefix) :].partition("/")
                    after = f"{prefix}{name}0" if slash else f"{path}\x01"  # the least that can come next
                    found.append(Listed(name, bool(slash), 0 if slash else size))
                if len(rows) < most:
                    return sorted(found, key=lambda each: each.name)
                most = min(most * 4, _MANY) if len(found) - known == len(rows) else _FEW

    def tree(self, folder: str = "") -> Sequence[Artifact]:
        """Give all files in a folder and below it, by path. Raises `BadPath`."""
        folder = checked_folder(folder)
        query = select(artifacts).order_by(_path)
        if folder:
            query = query.where(_path > f"{folder}/", _path < f"{folder}0")
        with self._database.read() as connection:
            return [Artifact(**row) for row in connection.execute(query).mappings()]

    def delete(self, path: str) -> int:
        """Forget a file, or a folder with all below it; give how many files that were.

        A slash may be at its end. Raises `BadPath`.
        """
        folder = checked_path(path.removesuffix("/"))
        with self._database.write() as connection:
            return connection.execute(delete(artifacts).where(_at_or_below(folder))).rowcount

    def prune(
        self,
        *,
        before: datetime,
        named: Callable[[], Collection[str]] = tuple,
        dry_run: bool = False,
        tell: Callable[[int, int], None] = lambda blobs, size: None,
    ) -> tuple[int, int]:
        """Remove bytes that no path names any more; give how many blobs that were, and their size.

        Those that were put since `before` stay: somebody may be about to name them.

        Parameters
        ----------
        named
            Gives the digests that are named elsewhere: before, and with every piece that is removed, in the
            transaction in which it is.
        tell
            Called with every piece that is removed, in the transaction in which it is: with blobs and bytes.
        """
        of_others = named()
        loose = [
            each for each in self._storage.listed() if each.kept_at < before and each.sha256 not in of_others
        ]
        blobs = size = 0
        for first in range(0, len(loose), _AT_ONCE):
            piece = loose[first : first + _AT_ONCE]
            block = self._database.read() if dry_run else self._database.write()
            with block as connection:
                used = set(connection.execute(_NAMED, {"wanted": [each.sha256 for each in piece]}).scalars())
                of_others = named()
                gone = [each for each in piece if each.sha256 not in used and each.sha256 not in of_others]
                if gone and not dry_run:
                    # nobody names one meanwhile: that is a write too, and finds that it is gone
                    tell(len(gone), sum(each.size_bytes for each in gone))
                    for each in gone:
                        self._storage.remove(each.sha256)
            blobs, size = blobs + len(gone), size + sum(each.size_bytes for each in gone)
        return blobs, size

    def _put_staged(self, path: str, staged: Path, sha256: str, size: int) -> Artifact:
        for is_last in (False, True):
            found = self._storage.put_file(staged)
            if found != sha256:
                raise DigestMismatch(f"what was received for {path!r}", sha256, found)
            try:
                return self._put_row(path, sha256, size)
            except NotFound:
                if is_last:
                    raise
        raise AssertionError

    def _put_row(self, path: str, sha256: str, size: int) -> Artifact:
        put_at = datetime.now(UTC)
        values = {"sha256": sha256, "size_bytes": size, "put_at": put_at}
        with self._database.write() as connection:
            if not self._storage.exists(sha256):  # whoever removes what is unnamed writes meanwhile too
                raise NotFound("blob", sha256)
            if not connection.execute(update(artifacts).where(_path == path).values(values)).rowcount:
                _refuse_clash(connection, path)
                connection.execute(insert(artifacts).values(path=path, **values))
        return Artifact(path=path, sha256=sha256, size_bytes=size, put_at=put_at)

    def check_free(self, path: str) -> None:
        """Raise `Conflict` if nothing can be put at a path: it is a folder, or leads through a file."""
        with self._database.read() as connection:
            _refuse_clash(connection, path)


class ArtifactWriter:
    """Takes the bytes of one file in pieces; nothing is there before `finish`, all of it afterwards.

    As a `with` block it finishes at its end, and leaves nothing where that ends with an error.
    """

    def __init__(self, store: ArtifactStore, path: str, staged: StagedFile) -> None:
        self._store, self._path, self._staged = store, path, staged
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises `DiskFull` or `StoreError`."""
        self._staged.write(data)
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> Artifact:
        """Keep what was written. Raises `Conflict` like `put_file`, `DiskFull` or `StoreError`."""
        return self._store._put_staged(self._path, self._staged.path, self._digest.hexdigest(), self._size)

    def close(self) -> None:
        """Remove what was staged."""
        self._staged.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.close()


def _bounds(folder: str) -> tuple[str, dict[str, str]]:
    """Give what the paths below a folder begin with, and where they end."""
    return (f"{folder}/", {"end": f"{folder}0"}) if folder else ("", {})  # '0' comes after '/'


def _at_or_below(path: str) -> ColumnElement[bool]:
    return or_(_path == path, and_(_path > f"{path}/", _path < f"{path}0"))


def _is_folder(connection: Connection, path: str) -> bool:
    bounds = {"after": f"{path}/", "end": f"{path}0"}
    return connection.execute(_SOME_BELOW, bounds).first() is not None


def _refuse_clash(connection: Connection, path: str) -> None:
    """Raise `Conflict` where a path cannot be that of a file."""
    if _is_folder(connection, path):
        raise Conflict(
            f"the artifact {path!r} is a folder; give its file a name below it, or delete it first"
        )
    above = list(_above(path))
    found = connection.execute(select(_path).where(_path.in_(above))).scalar() if above else None
    if found is not None:
        raise Conflict(
            f"nothing can be put at {path!r}: the artifact {found!r} is a file; choose another folder, or "
            "delete that file first"
        )


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _plain_file(file: Path) -> os.stat_result:
    try:
        found = file.lstat()
    except OSError as err:
        raise SourceError(f"the file {file} cannot be read: {err.strerror}; give one that exists") from err
    if stat.S_ISLNK(found.st_mode):
        raise SourceError(f"{file} is a symbolic link, which is not followed; put the file that it names")
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{file} is no plain file; put the files of a folder one by one")
    return found


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_untouched(path: Path, identity: tuple[int, ...]) -> bool:
    try:
        return _identity(path.stat()) == identity
    except FileNotFoundError:
        return False
