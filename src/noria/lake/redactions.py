"""Which file is read in the place of one whose rows were taken out for good.

They lie beside a table in `_redactions/`, numbered files of JSON: path of a file that is no more -> the
files that hold what is left. An older version of the table
still names the old file, and is read through this mapping. To other readers of Delta such an older version
is gone; the table as it is now is plain Delta to everybody.

`<number>.done` beside a mapping says that no bounds of its old files are left in the log and its checkpoints.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from noria.lake.data_files import DataFile, sha256_in
from noria.lake.files import Files
from noria.records import canonical_json

__all__ = ["FOLDER", "Redactions"]

FOLDER = "_redactions"


class Redactions(Collection[str]):
    """The mapping of one table, as far as it was read: a collection of the paths that are no more."""

    def __init__(self, files: Files, name: str) -> None:
        self._store = files
        self._name = name
        self._read = 0
        self._replaced: dict[str, list[DataFile]] = {}

    def __contains__(self, path: object) -> bool:
        return path in self._replaced

    def __iter__(self) -> Iterator[str]:
        return iter(self._replaced)

    def __len__(self) -> int:
        return len(self._replaced)

    @property
    def paths(self) -> set[str]:
        """The files that are no more."""
        return set(self._replaced)

    @property
    def targets(self) -> set[str]:
        """The files that are read in the place of others."""
        return {each.path for files in self._replaced.values() for each in files} - self.paths

    def refresh(self) -> bool:
        """Read what came since; say whether anything did."""
        before = self._read
        while self._store.exists(self._path(self._read)):
            data = self._store.find(self._path(self._read)) or b"{}"
            for old, new in json.loads(data).items():
                self._replaced[old] = [_file(each) for each in new]
            self._read += 1
        return self._read > before

    def add(self, replaced: Mapping[str, Sequence[DataFile]]) -> bool:
        """Keep for good which files take the place of which.

        False, and nothing is kept, if another process has put other files in the place of one of them.
        """
        told = {old: [_told(each) for each in new] for old, new in sorted(replaced.items())}
        data = canonical_json(told)
        while not self._replaced.keys() & replaced.keys():
            if self._store.create(self._path(self._read), data):
                self.refresh()
                return True
            self.refresh()
        return False

    @property
    def is_stripped(self) -> bool:
        """Whether the log is rid of the bounds of all files that are no more."""
        return not self._read or self._store.exists(self._done(self._read - 1))

    def set_stripped(self) -> None:
        """Keep that the log is rid of them."""
        self._store.put(self._done(self._read - 1), b"")

    def finals(self, file: DataFile) -> Iterator[DataFile]:
        """Give the files that are read in the place of one; itself, if it is still there."""
        if file.path not in self._replaced:
            yield file
            return
        for each in self._replaced[file.path]:
            yield from self.finals(each)

    def applied(self, files: Iterable[DataFile]) -> Iterator[DataFile]:
        """Give each file, or what is read in its place."""
        for each in files:
            yield from self.finals(each)

    def _path(self, number: int) -> str:
        return f"{self._name}/{FOLDER}/{number:06d}.json"

    def _done(self, number: int) -> str:
        return f"{self._name}/{FOLDER}/{number:06d}.done"


def _told(file: DataFile) -> dict[str, Any]:
    return {"path": file.path, "rows": file.rows, "size": file.size_bytes, "nulls": dict(file.nulls)}


def _file(told: Mapping[str, Any]) -> DataFile:
    """Bounds are left out of the mapping: they are values of rows."""
    return DataFile(
        told["path"], told["rows"], told["size"], {}, {}, told["nulls"], sha256=sha256_in(told["path"])
    )
