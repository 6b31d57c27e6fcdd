"""What came to a table since: told by its log, and read from the files that commits added, and no others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import pyarrow as pa

from noria.errors import NotFound, SourceError, StoreError
from noria.lake.data_files import DataFile
from noria.lake.files import open_files
from noria.lake.replaced import replaced_name, with_replaced
from noria.lake.tables import Tables
from noria.warehouse.commits import CommitLog

__all__ = ["Growth", "TableChanges"]


@dataclass(frozen=True, slots=True)
class Growth:
    """Commits of one table, one after the other.

    Attributes
    ----------
    version
        The newest of them.
    paths
        The files that they added.
    rows
        How many rows are in these.
    since_ms
        The wall's instant of the first that changed rows; None if none did.
    is_rewritten
        Whether one took rows away, or put others in their place.
    """

    version: int
    paths: tuple[str, ...]
    rows: int
    since_ms: int | None
    is_rewritten: bool


class TableChanges:
    """Follows the tables below one URL. For one thread.

    Every method raises `NotFound` if there is no such table or column, `SourceError` if it cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._log = CommitLog(url)
        self._tables, self._guard = Tables(open_files(url)), RLock()

    def table_id(self, name: str) -> str:
        """Tell a table from one that was made anew under its name."""
        with _reading(name):
            found = self._log.table_id(name) if self._log.exists(name) else None
            if found is None:
                raise NotFound("table", name, self._log.names())
            return found

    def exists(self, name: str) -> bool:
        """Say whether there is such a table."""
        with _reading(name):
            return self._log.exists(name)

    def has_moved(self, name: str, *, since: int) -> bool:
        """Say whether there is any commit after `since`: one look at one file's name."""
        with _reading(name):
            return self._log.has_moved(name, since=since)

    def growth(self, name: str, *, since: int) -> Growth | None:
        """Tell what was committed after `since`; None if that commit is not there."""
        with _reading(name):
            commits = self._log.since(name, since, all_commits=True)
        if commits is None:
            return None
        changed = [each for each in commits if each.changes_rows]
        return Growth(
            version=commits[-1].version if commits else since,
            paths=tuple(added.path for each in changed for added in each.added),
            rows=sum(added.rows for each in changed for added in each.added),
            since_ms=changed[0].timestamp_ms if changed else None,
            is_rewritten=any(each.removed for each in changed),
        )

    def rows(self, name: str) -> int:
        """Give how many rows a table has now."""
        with _reading(name):
            return self._tables.get(name).rows

    def read_newest(self, name: str, *, columns: Sequence[str]) -> tuple[int, pa.Table]:
        """Give the newest version of a table, and its rows with those that were replaced in it.

        Where any was, a column `noria.lake.schema.REPLACED_AT` says until when it was what was known.
        """
        with _reading(name):
            table = self._tables.get(name)
            return table.version, with_replaced(self._tables, self._guard, table, columns, None)

    def keeps_replaced(self, name: str) -> bool:
        """Say whether rows of a table may have been replaced by others of their key."""
        with _reading(name):
            return self._log.exists(replaced_name(name))

    def read_at(self, name: str, version: int, *, columns: Sequence[str], where: Any) -> pa.Table:
        """Give rows of a table as of one of its versions, with columns that it has now."""
        with _reading(name):
            table = self._tables.get(name)
            files = (table if version == table.version else self._tables.get_at(name, version)).files
            return table.read_files(files, columns=columns, where=where)

    def read_files(self, name: str, paths: Sequence[str], *, columns: Sequence[str]) -> pa.Table:
        """Give the rows of files that were added, also of those that were joined with others since."""
        files = [DataFile(each, 0, 0, {}, {}, {}) for each in paths]
        with _reading(name):
            return self._tables.get(name).read_files(files, columns=columns)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise SourceError(f"the table {name!r} cannot be read: {error}") from error
