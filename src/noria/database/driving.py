"""Statements that a driver gets as they are: what SQLAlchemy does around one takes longer than SQLite."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

__all__ = ["run_all", "run_one"]


def run_one(connection: Connection, text: str, values: Sequence[Any] = ()) -> Any:
    """Run a statement on SQLite, in the transaction of a connection that has begun; give the driver's cursor.

    Raises
    ------
    DBAPIError
        As SQLAlchemy raises it.
    """
    try:
        return _driver(connection).execute(text, values)
    except _errors(connection) as err:
        raise _told(connection, text, values, err) from err


def run_all(connection: Connection, text: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement for each row, likewise."""
    try:
        _driver(connection).executemany(text, rows)
    except _errors(connection) as err:
        raise _told(connection, text, rows, err) from err


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _errors(connection: Connection) -> type[Exception]:
    return connection.dialect.loaded_dbapi.Error


def _told(connection: Connection, text: str, values: Any, err: Exception) -> BaseException:
    return DBAPIError.instance(text, values, err, _errors(connection), dialect=connection.dialect)
