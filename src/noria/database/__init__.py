"""The relational store: one set of SQLAlchemy Core tables for SQLite and PostgreSQL, and its migrations.

Only names are imported here; SQLAlchemy is loaded when one of them is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.database.metadata import Instant, Name, metadata
    from noria.database.store import Database

__all__ = ["Database", "Instant", "Name", "metadata"]

_HOMES = {"Database": "store", "Instant": "metadata", "Name": "metadata", "metadata": "metadata"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"noria.database.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
