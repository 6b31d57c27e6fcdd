"""The opened tables of a lake."""

import pyarrow as pa

from noria.errors import NotFound
from noria.lake.delta import Table, create_table, table_exists
from noria.lake.files import Files

__all__ = ["Tables"]

_PINNED = 8  # older states that stay open


class Tables:
    """Opens each table once, and keeps it up with what other processes commit."""

    def __init__(self, files: Files) -> None:
        self.store = files
        self._open: dict[str, Table] = {}
        self._pinned: dict[tuple[str, int], Table] = {}

    def find(self, name: str) -> Table | None:
        """Give a table as it is now, or None."""
        table = self._open.get(name)
        if table is not None:
            table.refresh()
            if table.is_empty and not table_exists(self.store, name):  # it was dropped
                del self._open[name]
                return None
        elif table_exists(self.store, name):
            table = self._open[name] = Table(self.store, name)
        return table

    def get(self, name: str, *, dropped: bool = False) -> Table:
        """Give a table as it is now; `dropped`: one that was dropped, too. Raises `NotFound`."""
        table = self.find(name)
        if table is None and dropped and table_exists(self.store, name, dropped=True):
            return Table(self.store, name)
        if table is None:
            raise NotFound("table", name, self.names())
        return table

    def get_at(self, name: str, version: int) -> Table:
        """Give a table as it was at Delta's own version. Raises `NotFound`."""
        at = (name, version)
        table = self._pinned.pop(at, None)
        if table is None:
            table = Table(self.store, name, version=version)
        else:
            table.refresh()
        self._pinned[at] = table
        if len(self._pinned) > _PINNED:
            del self._pinned[next(iter(self._pinned))]
        return table

    def was_dropped(self, name: str) -> bool:
        """Say whether there is a table of that name that was dropped: older versions of it can be read."""
        return not table_exists(self.store, name) and table_exists(self.store, name, dropped=True)

    def drop_pinned(self, name: str) -> None:
        """Open older states of a table anew when they are next needed."""
        self._pinned = {at: each for at, each in self._pinned.items() if at[0] != name}

    def create(self, name: str, schema: pa.Schema) -> Table:
        """Make an empty table, unless another process has just done so, and give it."""
        table = self._open[name] = create_table(self.store, name, schema)
        return table

    def names(self) -> list[str]:
        """Name the tables, sorted."""
        return [name for name in self.store.folders() if table_exists(self.store, name)]

    def exists(self, name: str) -> bool:
        """Say whether there is a table of that name."""
        opened = self._open.get(name)
        return (opened is not None and not opened.is_empty) or table_exists(self.store, name)
