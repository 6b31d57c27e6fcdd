"""How both databases are read: lists as one parameter, statements that stay prepared, one state."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from noria.database.lists import is_listed
from noria.database.metadata import Name
from noria.database.store import Database
from noria.errors import ConfigError

_WORDS = Table("words", MetaData(), Column("word", Name, primary_key=True))
_FOUND = select(_WORDS.c.word).where(is_listed(_WORDS.c.word, "words"))
_KEPT = ["", "a", "A", "ä", "it's", '"', "\\", "{a,b}", "NULL", "null", "1", "\U0001f642", "a,b", " ", "\n"]


@pytest.fixture(params=["sqlite", "postgresql"])
def words(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Give a database that holds some words."""
    url = f"sqlite:///{tmp_path / 'noria.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with Database.open(url) as database:
        with database.write() as connection:
            _WORDS.metadata.create_all(connection)
            connection.execute(insert(_WORDS), [{"word": each} for each in _KEPT])
        yield database


@given(st.lists(st.sampled_from([*_KEPT, "a\0", "\0"]) | st.text(st.characters(exclude_categories=["Cs"]))))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_listed_is_found_and_nothing_else(words: Database, asked: list[str]) -> None:
    with words.read() as connection:
        found = connection.execute(_FOUND, {"words": asked}).scalars().all()
    assert sorted(found) == sorted(set(asked) & set(_KEPT))


def test_what_a_reader_writes_is_nowhere(words: Database) -> None:
    with suppress(DBAPIError), words.read() as connection:
        connection.execute(insert(_WORDS), {"word": "b"})
    with words.read() as connection:
        assert connection.execute(_FOUND, {"words": ["a", "b"]}).scalars().all() == ["a"]


def test_a_text_that_is_no_unicode_is_told(words: Database) -> None:
    wanted = select(_WORDS.c.word).where(_WORDS.c.word == "a\udcffb")
    for question, asked in ((wanted, {}), (_FOUND, {"words": ["a\udcffb"]})):
        told = pytest.raises(ConfigError, match=r"is no Unicode text, at character")
        with told, words.read() as connection:
            connection.execute(question, asked)


def test_a_list_may_be_longer_than_a_statement_has_parameters(words: Database) -> None:
    with words.read() as connection:
        asked = [*map(str, range(70_000))]
        assert connection.execute(_FOUND, {"words": asked}).scalars().all() == ["1"]


def test_what_is_listed_is_looked_up_by_the_index(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path / 'noria.db'}") as database, database.write() as connection:
        _WORDS.metadata.create_all(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {_FOUND.compile(connection)}", ("[]",))
        assert any("SEARCH words" in each.detail for each in plan)


def test_postgresql_plans_a_statement_once_that_is_read_again_and_again(postgres_url: str) -> None:  # noqa: F811
    question = select(_WORDS.c.word).where(_WORDS.c.word == "a")
    with Database.open(postgres_url) as database:
        with database.write() as connection:
            _WORDS.metadata.create_all(connection)
        for _ in range(7):
            with database.read() as connection:
                connection.execute(question)
        with database.read() as connection:
            asked = text("SELECT statement FROM pg_prepared_statements")
            prepared = connection.execute(asked).scalars().all()
    assert any("FROM words" in each for each in prepared)


def test_a_reader_of_postgresql_only_reads_and_the_next_writer_writes(postgres_url: str) -> None:  # noqa: F811
    with Database.open(postgres_url) as database:
        with database.write() as connection:
            _WORDS.metadata.create_all(connection)
        with database.read() as connection, pytest.raises(DBAPIError, match="read-only"):
            connection.execute(insert(_WORDS).values(word="a"))
        with database.read() as connection:
            assert connection.execute(select(_WORDS)).all() == []
            with Database.open(postgres_url) as other, other.write() as another:
                another.execute(insert(_WORDS).values(word="b"))
            assert connection.execute(select(_WORDS)).all() == []
        with database.write() as connection:
            isolation = connection.execute(text("SHOW transaction_isolation")).scalar()
            connection.execute(insert(_WORDS).values(word="c"))
        assert isolation == "read committed"
        assert database.look(select(_WORDS.c.word).where(_WORDS.c.word == "c"), {}) == "c"
