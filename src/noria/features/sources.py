"""What feature views are made from beside datasets: tables of the warehouse, and SELECTs. Loads no engine."""

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

from noria.errors import ConfigError

__all__ = ["Query", "Source", "Table", "rows_of"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Source(Protocol):
    """Rows with a key and two instants; a `noria.Dataset` is one."""

    @property
    def name(self) -> str:
        """How it is called."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that name a row."""
        ...

    @property
    def event_at(self) -> str:
        """The column that says when it happened."""
        ...

    @property
    def known_at_column(self) -> str:
        """The column that says when it could be used."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a model of the warehouse makes, as the source of feature views.

    Parameters
    ----------
    name
        Of the model: an SQL file, or a function with `noria.model`.
    key
        The column, or columns, that name a row.
    event_at, known_at
        The columns that say when it happened, and when it could be used: instants with a time zone.

    Raises
    ------
    ConfigError
        If one of them is not said.

    Examples
    --------
    >>> Table("daily_totals", key=("shop", "day"), event_at="day", known_at="closed_at").keys
    ('shop', 'day')
    """

    name: str
    key: str | tuple[str, ...] = field(kw_only=True)
    event_at: str = field(kw_only=True)
    known_at: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        _check("table", self.name, self.keys, self.event_at, self.known_at)

    @property
    def keys(self) -> tuple[str, ...]:
        """The key's columns, always as a tuple."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def known_at_column(self) -> str:
        """The column that says when a row could be used."""
        return self.known_at


@dataclass(frozen=True, slots=True)
class Query:
    """The rows of a SELECT over any tables of the project, as the source of feature views.

    Parameters
    ----------
    name
        How it is called; no table may have this name.
    sql
        One SELECT in DuckDB's dialect, as `project.query` answers. It is part of the views' definition.
    key
        The column, or columns, of its answer that name a row.
    event_at, known_at
        The columns of its answer that say when it happened, and when it could be used. A row that is made of
        several is known when the last of them is.

    Raises
    ------
    ConfigError
        If one of them is not said.

    Examples
    --------
    >>> Query("late_trips", "select * from trips where late", key="id", event_at="at", known_at="at").keys
    ('id',)
    """

    name: str
    sql: str
    key: str | tuple[str, ...] = field(kw_only=True)
    event_at: str = field(kw_only=True)
    known_at: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        _check("query", self.name, self.keys, self.event_at, self.known_at)
        if not isinstance(self.sql, str) or not self.sql.strip():
            raise ConfigError(f"query {self.name!r} has no SQL; give one SELECT")

    @property
    def keys(self) -> tuple[str, ...]:
        """The key's columns, always as a tuple."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def known_at_column(self) -> str:
        """The column that says when a row could be used."""
        return self.known_at


def _check(kind: str, name: str, keys: tuple[str, ...], event_at: str, known_at: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a {kind}: use letters, digits and underscores, a letter first, "
            "so that SQL can say it"
        )
    if not keys or not all(keys):
        raise ConfigError(f"{kind} {name!r} has no key; name the column or columns that make a row unique")
    if not event_at:
        raise ConfigError(f"{kind} {name!r} has no event_at; name the column that says when a row happened")
    if not known_at:
        raise ConfigError(
            f"{kind} {name!r} has no known_at; name the column that says when a row could be used: without "
            "it a training set cannot tell what was known then (event_at again, if it was known at once)"
        )


def rows_of(view: str, given: Any) -> Any:
    """Give what has the rows of a view: of a stream its dataset. Raises `ConfigError` if nothing has."""
    source = getattr(given, "into", given)
    if not all(hasattr(source, each) for each in ("name", "keys", "event_at", "known_at_column")):
        raise ConfigError(
            f"feature view {view!r}: its source is {given!r}; give a noria.Dataset, a noria.Stream, "
            "a noria.Table (what a model of the warehouse makes) or a noria.Query"
        )
    return source
