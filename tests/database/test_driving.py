"""Statements that a driver gets as they are, on both databases: the same rows, the same errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, column, select, table, text
from sqlalchemy.exc import DatabaseError, IntegrityError
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from noria.database.driving import run_all
from noria.database.lookups import Lookup
from noria.database.store import Database

NOTES = table("notes", column("id"), column("note"))
BY_ID = Lookup(select(NOTES.c.note, NOTES.c.id).where(NOTES.c.id == bindparam("id")), "id")
INSERT = "INSERT INTO notes VALUES (?, ?)"


@pytest.fixture(params=["sqlite", "postgresql"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'noria.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with Database.open(url) as database:
        with database.write() as connection:
            connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)"))
            connection.execute(text("INSERT INTO notes VALUES (1, 'one'), (2, NULL)"))
        yield database


def test_a_row_is_looked_up_in_a_transaction(notes: Database) -> None:
    with notes.write() as connection:
        assert [BY_ID.first(connection, id) for id in (1, 2, 3, 1)] == [
            ("one", 1), (None, 2), None, ("one", 1),
        ]  # fmt: skip


@pytest.fixture
def in_a_file(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'noria.db'}") as database:
        with database.write() as connection:
            connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)"))
        yield database


@pytest.mark.parametrize(
    ("statement", "kind"),
    [(INSERT, IntegrityError), ("INSERT INTO nowhere VALUES (?, ?)", DatabaseError)],
)
def test_an_error_of_the_driver_is_the_one_that_sqlalchemy_raises(
    in_a_file: Database, statement: str, kind: type[DatabaseError]
) -> None:
    with pytest.raises(kind) as ours, in_a_file.write() as connection:
        run_all(connection, statement, [(1, "one"), (1, "again")])
    with pytest.raises(kind) as theirs, in_a_file.write() as connection:
        connection.exec_driver_sql(statement, [(1, "one"), (1, "again")])
    assert type(ours.value) is type(theirs.value)
    assert str(ours.value.orig) == str(theirs.value.orig)
    with in_a_file.write() as connection:
        assert connection.execute(text("SELECT count(*) FROM notes")).scalar() == 0
