"""Tables as they stood after each commit, whether or not that became a version on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from noria.lake import log
from noria.lake.files import open_files
from noria.lake.tables import Tables

__all__ = ["TableState", "TableStates"]


@dataclass(frozen=True, slots=True)
class TableState:
    """A table after one commit: Delta's number, and when that was made, in microseconds since 1970."""

    version: int
    committed_us: int


class TableStates:
    """The states of the tables below one URL. For one thread."""

    def __init__(self, url: str) -> None:
        self._tables = Tables(open_files(url))

    def since(self, name: str, at_us: int) -> Sequence[TableState]:
        """Give the states from the one that stood at an instant on, oldest first. Raises `NotFound`."""
        table = self._tables.get(name)
        found: list[TableState] = []
        for commit in log.newest_first(table.store, name, last=table.version):
            found.append(TableState(commit.version, commit.timestamp_ms * 1_000))
            if found[-1].committed_us < at_us:
                break
        return found[::-1]

    def read(self, name: str, *, columns: Sequence[str], where: Any, version: int) -> pa.Table:
        """Give rows of a state. Raises `NotFound`, `StoreError`."""
        table = self._tables.get(name)
        if version != table.version:
            table = self._tables.get_at(name, version)
        return table.read(columns=columns, where=where)
