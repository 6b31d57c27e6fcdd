"""What was committed to tables since: read from Delta's own log, with nothing loaded to do so.

References
----------
Delta Transaction Log Protocol, https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.lake.files import Files

__all__ = ["Added", "Commit", "CommitLog"]


@dataclass(frozen=True, slots=True)
class Added:
    """A file of rows that a commit added, with the bounds that its statistics give."""

    path: str
    low: Mapping[str, Any]
    high: Mapping[str, Any]
    nulls: Mapping[str, int]
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit changed of the rows."""

    version: int
    added: tuple[Added, ...]
    removed: tuple[str, ...]
    facts: Mapping[str, Any]  # that noria left in it
    timestamp_ms: int = 0  # the wall's, at which it was made

    @property
    def changes_rows(self) -> bool:
        """Whether rows came or went: a compaction only moves them."""
        return bool(self.added or self.removed)


class CommitLog:
    """The logs of the tables below one URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._folder = None if "://" in url else Path(url)

    def exists(self, name: str) -> bool:
        """Say whether there is a table of that name."""
        return self._exists(_path(name, 0)) and not self._exists(f"{name}/_delta_log/_dropped")

    def names(self) -> list[str]:
        """Name the tables, sorted."""
        if self._folder is None:
            found = self._files.folders()
        else:
            found = (
                [each.name for each in self._folder.iterdir() if each.is_dir()]
                if self._folder.is_dir()
                else []
            )
        return sorted(name for name in found if self.exists(name))

    def table_id(self, name: str) -> str | None:
        """Give what tells a table from one that was made anew under its name; None if there is none."""
        data = self._read(_path(name, 0))
        for line in (data or b"").splitlines():
            said = json.loads(line).get("metaData") if b"metaData" in line else None
            if said is not None:
                return str(said["id"])
        return None

    def has_moved(self, name: str, *, since: int) -> bool:
        """Say whether there is any commit after `since`."""
        return self._exists(_path(name, since + 1))

    def since(self, name: str, version: int, *, all_commits: bool = False) -> list[Commit] | None:
        """Give the commits after `version` that changed rows; None if `version` is not there any more.

        It is not where the table was made anew, or old commits were cleaned away. `all_commits`: also those
        that changed none.
        """
        if not self._exists(_path(name, version)):
            return None
        return [each for each in self._after(name, version) if all_commits or each.changes_rows]

    def _after(self, name: str, version: int) -> Iterator[Commit]:
        while True:
            version += 1
            data = self._read(_path(name, version))
            if data is None:
                return
            yield _commit(version, data)

    def _exists(self, path: str) -> bool:
        if self._folder is None:
            return self._files.exists(path)
        return (self._folder / path).exists()

    def _read(self, path: str) -> bytes | None:
        if self._folder is None:
            return self._files.find(path)
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    @cached_property
    def _files(self) -> "Files":
        from noria.lake.files import open_files

        return open_files(self._url)


def _path(name: str, version: int) -> str:
    return f"{name}/_delta_log/{version:020d}.json"


def _commit(version: int, data: bytes) -> Commit:
    actions = [json.loads(line) for line in data.splitlines() if line.strip()]
    added, removed = [], []
    for each in actions:
        if each.get("add", {}).get("dataChange"):
            told = json.loads(each["add"].get("stats") or "{}")
            low, high, nulls = (told.get(name) or {} for name in ("minValues", "maxValues", "nullCount"))
            added.append(Added(each["add"]["path"], low, high, nulls, told.get("numRecords") or 0))
        if each.get("remove", {}).get("dataChange"):
            removed.append(each["remove"]["path"])
    info: dict[str, Any] = next((each["commitInfo"] for each in actions if "commitInfo" in each), {})
    facts, timestamp_ms = info.get("noria") or {}, int(info.get("timestamp", 0))
    return Commit(version, tuple(added), tuple(removed), facts, timestamp_ms)
