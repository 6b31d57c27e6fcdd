"""Rows that may be there already: what SQLite and PostgreSQL say in the same words, by their dialects."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

from noria.database.driving import run_all

__all__ = ["Upsert"]


class Upsert:
    """Inserts rows of a table; what becomes of those whose primary key is there already is said once.

    Parameters
    ----------
    table
        Whose rows.
    replaced
        The columns that take the new value; none: the row that is there stays.
    if_greater
        Only where these columns of the new row, compared in order, are greater than what is there.
    """

    def __init__(self, table: Table, *, replaced: Sequence[str] = (), if_greater: Sequence[str] = ()) -> None:
        self._statements = {
            "sqlite": _on_conflict(sqlite.insert(table), table, replaced, if_greater),
            "postgresql": _on_conflict(postgresql.insert(table), table, replaced, if_greater),
        }

        self._columns = tuple(table.columns.keys())
        self._texts: dict[str, str] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, each key once."""
        if rows:
            connection.execute(self._statements[connection.dialect.name], [*rows])

    def execute_raw(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows of all columns in the table's order, as the database has them: several times as quick.

        An `Instant` is a number of microseconds then. The connection is in a transaction.
        """
        if not rows:
            return
        dialect = connection.dialect
        if dialect.name not in self._texts:
            compiled = self._statements[dialect.name].compile(dialect=dialect, column_keys=self._columns)
            assert not compiled.positional or tuple(compiled.positiontup or ()) == self._columns
            self._texts[dialect.name] = str(compiled)
        if dialect.positional:
            run_all(connection, self._texts[dialect.name], rows)
        else:
            named = [dict(zip(self._columns, row, strict=True)) for row in rows]
            connection.exec_driver_sql(self._texts[dialect.name], named)


def _on_conflict(
    insert: SqliteInsert | PostgresqlInsert, table: Table, replaced: Sequence[str], if_greater: Sequence[str]
) -> SqliteInsert | PostgresqlInsert:
    if not replaced:
        return insert.on_conflict_do_nothing()
    where = None
    if if_greater:
        new = tuple_(*(insert.excluded[each] for each in if_greater))
        where = new > tuple_(*(table.c[each] for each in if_greater))
    return insert.on_conflict_do_update(
        index_elements=[*table.primary_key.columns],
        set_={each: insert.excluded[each] for each in replaced},
        where=where,
    )
