"""Rows that are looked up all the time: the text of the statement is made once for each kind of database."""

from typing import Any

from sqlalchemy import Connection, Select

from noria.database.driving import run_one

__all__ = ["Lookup"]


class Lookup:
    """A statement whose first row comes as the driver has it, at a fraction of what the statement costs.

    Parameters
    ----------
    parameters
        The names of those that it has, in the order in which it has them.
    """

    def __init__(self, statement: Select[Any], *parameters: str) -> None:
        self._statement, self._parameters = statement, parameters
        self._texts: dict[str, str] = {}

    def first(self, connection: Connection, *values: Any) -> tuple[Any, ...] | None:
        """Give the first row for these values, None if there is none; an `Instant` is in microseconds.

        The connection is in a transaction.
        """
        dialect = connection.dialect
        if dialect.name not in self._texts:
            compiled = self._statement.compile(dialect=dialect)
            assert not compiled.positional or tuple(compiled.positiontup or ()) == self._parameters
            self._texts[dialect.name] = str(compiled)
        text = self._texts[dialect.name]
        if dialect.positional:
            found: tuple[Any, ...] | None = run_one(connection, text, values).fetchone()
            return found
        row = connection.exec_driver_sql(text, dict(zip(self._parameters, values, strict=True))).first()
        return None if row is None else tuple(row)
