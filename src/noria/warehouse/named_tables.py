"""Tables by their names, as a query is given them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from noria.errors import NotFound

__all__ = ["NamedTables", "unknown_table"]


class NamedTables(Mapping[str, Callable[[], Any]]):
    """Names of tables, and what opens each; of one that is not there it may be known how to come by it."""

    @abstractmethod
    def advice(self, name: str) -> str | None:
        """Say what to do about a table that is not there; None where that is not known."""


def unknown_table(name: str, tables: Mapping[str, object]) -> NotFound:
    """Give the error of a name that no table has."""
    advice = tables.advice(name) if isinstance(tables, NamedTables) else None
    return NotFound("table", name, tables if advice is None else None, advice=advice)
