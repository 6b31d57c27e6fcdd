"""Dropping a table: its rows go in one commit, and its name is free; versions on record stay readable."""

from collections.abc import Mapping
from typing import Any

from noria.errors import Conflict
from noria.lake.log import dropped_path
from noria.lake.tables import Tables

__all__ = ["drop"]


def drop(tables: Tables, name: str, *, facts: Mapping[str, Any]) -> None:
    """Drop a table. Killed in between, it is there with no rows, and is dropped by the same call again.

    Parameters
    ----------
    facts
        Stand in the commit for good.

    Raises
    ------
    NotFound
        If there is no such table.
    Conflict
        If somebody else changes it meanwhile.
    """
    table = tables.get(name)
    if not table.is_empty and not table.commit(
        remove=table.files, facts=facts, unless=lambda: True, operation="DELETE"
    ):
        raise Conflict(f"the table {name!r} was changed by another process while it was dropped; do it again")
    tables.store.put(dropped_path(name), b"")
