"""Tables by their names, as a query is given them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from noria.errors import NotFound

__all__ = ["NamedTables", "unknown_table"]


class NamedTables(Mapping[str, Callable[[], Any]]):
    """Names of tables, and what opens each; of one that is not there it may be known how to come by it."""

    @abstractmethod
    def find_advice(self, name: str) -> str | None:
        """Say what to do about a table that is not there; None where that is not known."""


def unknown_table(schema: str, name: str, tables: Mapping[str, object]) -> NotFound:
    """Give the error of a name that no table has."""
    is_plain = schema.lower() in ("", "main")
    advice = tables.find_advice(name) if is_plain and isinstance(tables, NamedTables) else None
    named = f"{schema}.{name}" if schema else name
    return NotFound("table", named, tables if advice is None else None, advice=advice)
