"""Training sets as `project.features` keeps them: Arrow files in the storage, by version.

They are not compressed: so a set is read where it lies, by the pages that are looked at, however large it is.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from noria.errors import NotFound
from noria.ledger.redacted import expected_digest
from noria.records import Version

if TYPE_CHECKING:
    from noria.workspace.opened import Opened

__all__ = ["KIND", "SetWriter", "is_kept", "kept_sets", "read_kept", "scratch"]

KIND = "training_set"
_ROWS_PER_BATCH = 65_536
_ABANDONED_AFTER_S = 86_400


def is_kept(version: Version) -> bool:
    """Say whether a version is rows that are kept, and no recipe as that of a training."""
    return version.kind == KIND and "views" in version.facts


def kept_sets(project: "Opened", name: str | None = None) -> list[Version]:
    """Give the kept sets by number."""
    return [each for each in project.ledger.list_versions(kind=KIND, name=name) if is_kept(each)]


class SetWriter:
    """Writes rows as an Arrow file; its bytes do not tell in which pieces they came.

    Attributes
    ----------
    rows
        How many were given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._writer: Any = None
        self._waiting: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Take the next rows; all pieces have the same columns, and the first may be empty."""
        self._open(table.schema)
        self.rows += table.num_rows
        self._waiting.append(table)
        if sum(each.num_rows for each in self._waiting) >= _ROWS_PER_BATCH:
            held = pa.concat_tables(self._waiting)
            whole = held.num_rows - held.num_rows % _ROWS_PER_BATCH
            for at in range(0, whole, _ROWS_PER_BATCH):
                self._put(held.slice(at, _ROWS_PER_BATCH))
            self._waiting = [pa.concat_tables([held.slice(whole)]).combine_chunks()]  # lets go of the rest

    def close(self) -> int:
        """Write what is left; give the size of the file."""
        left = pa.concat_tables(self._waiting)
        if left.num_rows:
            self._put(left)
        self._writer.close()
        return self.path.stat().st_size

    def _open(self, schema: pa.Schema) -> None:
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self.path), schema)

    def _put(self, table: pa.Table) -> None:
        # What is copied has the same bytes, however it was cut before.
        columns = [pa.concat_arrays([pa.nulls(0, each.type), *each.chunks]) for each in table.columns]
        self._writer.write_batch(pa.record_batch(columns, schema=table.schema))


def read_kept(project: "Opened", version: Version) -> pa.Table:
    """Give the rows, as they are since the last redaction. Raises `NotFound` if nothing of them is left."""
    sha256 = expected_digest(project.ledger, version)
    if not sha256:
        raise NotFound(KIND, version.ref, [])
    return pa.ipc.open_file(pa.memory_map(str(project.storage.fetch(sha256)))).read_all()


@contextmanager
def scratch(project: "Opened") -> Iterator[Path]:
    """Give a folder for the block, on the disk of the project: `/tmp` may be memory."""
    parent = project.state / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    limit = time.time() - _ABANDONED_AFTER_S
    for each in parent.iterdir():
        if each.stat().st_mtime < limit:  # of a process that was killed
            shutil.rmtree(each, ignore_errors=True)
    with TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)
