"""Files of a folder as blobs in the storage, and the rows that say what has become of each.

A file's bytes go to the storage as they stream, under their sha256; the same bytes have one place. The rows
go the way of all rows, so a table of files has versions, time travel and rejected rows like any dataset.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from glob import glob
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import from_micros
from noria.errors import NotFound, SourceError
from noria.lake.file_declarations import Files
from noria.lake.media_types import HEAD_BYTES, media_type_of
from noria.lake.rows import Broken
from noria.lake.schema import INSTANT
from noria.lake.sources.contract import broken
from noria.records import canonical_json
from noria.storage.contract import Storage

__all__ = ["FileRows", "Kept", "kept_files", "open_blob"]

_ROWS = 1_000
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("revision", pa.int64()),
        ("state", pa.string()),
        ("sha256", pa.string()),
        ("media_type", pa.string()),
        ("size_bytes", pa.int64()),
        ("event_at", INSTANT),
        ("metadata", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one path: its newest row."""

    revision: int
    is_present: bool
    sha256: str
    media_type: str
    size_bytes: int
    event_at: datetime


class FileRows:
    """The changes of a folder since its table was last written; see `noria.lake.rows.Rows`.

    A file of the same size that was written at the same instant as the one that is kept is taken for the
    same. One that cannot be read is told as broken, the others go on.

    Parameters
    ----------
    root
        The project's folder.
    kept
        What is known already.
    at
        The project's instant: nothing is written later.
    hold
        Is called for each file, and before the last rows are given: raises where somebody else may be at work
        with these files by now.
    """

    def __init__(
        self,
        files: Files,
        *,
        root: Path,
        storage: Storage,
        kept: dict[str, Kept],
        at: datetime,
        hold: Callable[[], None],
    ) -> None:
        self.name = files.folder
        self._hold = hold
        self._files, self._root, self._storage, self._kept, self._at = files, root, storage, kept, at

    def pieces(self, wanted: pa.Schema | None) -> Iterator[pa.RecordBatch | Sequence[Broken]]:
        """Give rows of files that are new, changed or gone, and what could not be read."""
        rows: list[dict[str, Any]] = []
        wrong: list[Broken] = []
        seen: set[str] = set()
        for place, path in enumerate(self._paths()):
            name = path.relative_to(self._root).as_posix()
            seen.add(name)
            self._hold()
            try:
                row = self._changed(path, name)
            except (OSError, SourceError) as err:  # gone meanwhile, or not for this user
                reason = f"the file cannot be read: {getattr(err, 'strerror', None) or err}"
                wrong.append(broken(reason, os.fsencode(name), place))
                continue
            if row is not None:
                rows.append(row)
            if len(rows) >= _ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)
                rows = []
        gone = [name for name, kept in self._kept.items() if kept.is_present and name not in seen]
        rows += [self._removed(name, self._kept[name]) for name in gone]
        self._hold()
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)
        if wrong:
            yield wrong

    def _paths(self) -> Iterator[Path]:
        found = glob(self._files.folder, root_dir=self._root, recursive=True)  # noqa: PTH207 - leaves out `.noria`
        for name in sorted(found):
            path = self._root / name
            if path.is_file():
                yield path

    def _changed(self, path: Path, name: str) -> dict[str, Any] | None:
        """Keep a file that is new or other than before; None for one that is the same."""
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise SourceError("its name is no UTF-8 text; rename it")
        before = self._kept.get(name)
        found = path.stat()
        written_at = min(from_micros(found.st_mtime_ns // 1_000), self._at)
        there = before if before is not None and before.is_present else None
        if there is not None and (there.size_bytes, there.event_at) == (found.st_size, written_at):
            return None
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        sha256 = self._storage.put_file(path)
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            raise SourceError("it changed while it was read; it is taken the next time")
        if there is not None and there.sha256 == sha256:
            return None
        metadata = {} if self._files.describe is None else dict(self._files.describe(path))
        return {
            "path": name,
            "revision": 1 if before is None else before.revision + 1,
            "state": "present",
            "sha256": sha256,
            "media_type": media_type_of(head, name),
            "size_bytes": found.st_size,
            "event_at": written_at,
            "metadata": canonical_json(metadata).decode(),
        }

    def _removed(self, name: str, kept: Kept) -> dict[str, Any]:
        return {
            "path": name,
            "revision": kept.revision + 1,
            "state": "removed",
            "sha256": kept.sha256,
            "media_type": kept.media_type,
            "size_bytes": kept.size_bytes,
            "event_at": self._at,
            "metadata": "{}",
        }


def kept_files(table: pa.Table) -> dict[str, Kept]:
    """Give the newest row of each path of a table of files."""
    found: dict[str, Kept] = {}
    columns = ("path", "revision", "state", "sha256", "media_type", "size_bytes", "event_at")
    for batch in table.select(list(columns)).to_batches():
        for path, revision, state, *rest in zip(*(each.to_pylist() for each in batch.columns), strict=True):
            if path not in found or found[path].revision < revision:
                found[path] = Kept(revision, state == "present", *rest)
    return found


@contextmanager
def open_blob(files: str, wanted: str, *, table: pa.Table, storage: Storage) -> Iterator[IO[bytes]]:
    """Open the content of a file for the block; its digest is verified first.

    Parameters
    ----------
    table
        The rows of the folder.
    wanted
        A path, or a sha256 that one of the files has, or had.

    Raises
    ------
    NotFound
        If there is no such file, or it was removed; says the nearest.
    DigestMismatch
        If the bytes are not those that were kept.
    """
    kept = kept_files(table)
    found = kept.get(wanted)
    if found is not None and found.is_present:
        sha256 = found.sha256
    elif pc.any(pc.equal(table["sha256"], wanted)).as_py():
        sha256 = wanted
    else:
        there = [path for path, each in kept.items() if each.is_present]
        raise NotFound(f"file of {files}", wanted, get_close_matches(wanted, there, n=3) or there[:8])
    with storage.fetch(sha256).open("rb") as file:
        yield file
