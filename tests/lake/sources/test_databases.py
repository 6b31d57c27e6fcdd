"""Rows of real databases: SQLite, PostgreSQL, and bare connections."""

import datetime as dt
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
from tests.lake.sources.conftest import drain
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401  # fixtures

from noria.errors import ConfigError, SourceError
from noria.lake.reading import Reading
from noria.lake.sources.databases import DatabaseRows
from noria.lake.sources.opening import open_source


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute('create table sales (id text, n, "sold at" text)')
        connection.executemany(
            "insert into sales values (?, ?, ?)",
            [(f"k{each}", each, f"2024-01-01T00:{each % 60:02}:00Z") for each in range(25_000)],
        )
        connection.execute("insert into sales values ('bad', 'many', null)")
    yield path


def test_a_table_of_sqlite_comes_in_pieces_and_what_does_not_fit_is_kept(shop: Path) -> None:
    (source,) = open_source(f"sqlite:///{shop}", table="sales")
    pieces = list(source.pieces(None))
    sizes = [each.num_rows for each in pieces if isinstance(each, pa.RecordBatch)]
    assert (sum(sizes), max(sizes)) == (25_000, 10_000)
    (broken,) = pieces[-1]
    assert broken.reason == "'n' cannot be read as int64"
    assert (broken.payload, broken.row) == ('{"id":"bad","n":"many","sold at":null}', 25_000)
    assert source.name == f"sqlite:{shop} sales"


def test_a_query_and_what_came_since(shop: Path) -> None:
    query = "select id, n, ':x' as sign from sales where n is not 'many' -- :y\n"
    everything = drain(open_source(f"sqlite:///{shop}", query=query)[0])
    assert len(everything.rows) == 25_000
    assert everything.rows[0] == {"id": "k0", "n": 0, "sign": ":x"}
    newer = DatabaseRows(
        f"sqlite:///{shop}", Reading(), query="select id, n from sales;", since="n", above=24_990
    )
    assert [each["n"] for each in drain(newer).rows] == [*range(24_990, 25_000)]


def test_connections_of_the_db_api_are_sources(shop: Path) -> None:
    with closing(sqlite3.connect(shop)) as connection:
        assert len(drain(open_source(connection, table="sales")[0]).rows) == 25_000
        assert drain(open_source(connection, query="select 1 as one")[0]).rows == [{"one": 1}]
        with pytest.raises(SourceError, match="cannot be read: no such column: nope"):
            drain(open_source(connection, query="select nope from sales")[0])
        with pytest.raises(ConfigError, match="is no plain name of a table"):
            drain(open_source(connection, table="sales; drop table sales")[0])
        with pytest.raises(SourceError, match="answers no rows; give a SELECT"):
            drain(open_source(connection, query="create table more (n)")[0])


def test_a_column_that_the_first_rows_lack_has_the_type_of_later_ones(tmp_path: Path) -> None:
    place = tmp_path / "grown.db"
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute('create table t (id integer, "dis:count" real, never text)')
        rows = [(each, None if each < 10_500 else each / 4) for each in range(11_000)]
        connection.executemany("insert into t values (?, ?, null)", rows)
    taken = drain(open_source(f"sqlite:///{place}", table="t")[0])
    assert (len(taken.rows), taken.broken) == (11_000, [])
    assert taken.rows[-1] == {"id": 10_999, "dis:count": 10_999 / 4, "never": None}


def test_engines_and_connections_of_sqlalchemy_are_sources(shop: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{shop}")
    assert len(drain(open_source(engine, table="sales")[0]).rows) == 25_000
    with engine.connect() as connection:
        assert len(drain(open_source(connection, query="select id from sales limit 3")[0]).rows) == 3
        assert not connection.closed
    engine.dispose()


def test_mistakes_are_told(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such table: sale"):
        drain(open_source(f"sqlite:///{shop}", table="sale")[0])
    with pytest.raises(SourceError, match="there is no database"):
        open_source(f"sqlite:///{tmp_path}/nope.db", table="sales")
    assert not (tmp_path / "nope.db").exists()
    with pytest.raises(ConfigError, match="need a query or a table"):
        open_source(f"sqlite:///{shop}")
    with pytest.raises(ConfigError, match="knows no database of the kind 'postgresql\\+nosuch'"):
        open_source("postgresql+nosuch://me:secret@host/x", table="sales")
    with pytest.raises(ConfigError, match="the driver 'cx_Oracle' of oracle\\+cx_oracle is not installed"):
        open_source("oracle+cx_oracle://me:secret@host/x", table="sales")
    with pytest.raises(SourceError, match="lacks column 'sold_at'; the nearest is 'sold at'"):
        drain(open_source(f"sqlite:///{shop}", table="sales")[0], pa.schema([("sold_at", pa.string())]))


def test_postgres_types_are_kept(postgres_url: str) -> None:  # noqa: F811
    engine = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "create table t (id uuid, n bigint, price numeric(10, 2), x double precision, ok boolean, "
                "at timestamptz, local timestamp, day date, doc jsonb, raw bytea, net cidr)"
            )
        )
        connection.execute(
            sa.text(
                "insert into t select gen_random_uuid(), g, 1.5 * g, g / 2.0, g % 2 = 0, "
                "timestamptz '2024-01-01 00:00+01' + g * interval '1 second', '2024-01-01', '2024-01-01', "
                "'{\"a\": 1}', '\\x01ff', '10.0.0.0/8' from generate_series(1, 25000) g"
            )
        )
    (source,) = open_source(postgres_url, table="public.t")
    taken = drain(source)
    assert len(taken.rows) == 25_000
    assert taken.schema is not None
    assert {each.name: str(each.type) for each in taken.schema} == {
        "id": "string", "n": "int64", "price": "decimal128(38, 2)", "x": "double", "ok": "bool",
        "at": "timestamp[us, tz=UTC]", "local": "timestamp[us]", "day": "date32[day]", "doc": "string",
        "raw": "binary", "net": "string",
    }  # fmt: skip
    first = taken.rows[0]
    assert first["at"] == dt.datetime(2023, 12, 31, 23, 0, 1, tzinfo=dt.UTC)
    assert (first["price"], first["doc"], first["raw"]) == (Decimal("1.50"), '{"a":1}', b"\x01\xff")
    since = DatabaseRows(postgres_url, Reading(), table="t", since="at", above=taken.rows[24_998]["at"])
    assert [each["n"] for each in drain(since).rows] == [24_999, 25_000]
    with pytest.raises(SourceError, match='relation "nope" does not exist'):
        drain(open_source(postgres_url, table="nope")[0])
    engine.dispose()


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    (source,) = open_source("postgresql://me:secret@127.0.0.1:1/shop", table="t")
    with pytest.raises(SourceError) as caught:
        drain(source)
    assert "cannot be read" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("above", "wanted"),
    [
        (dt.datetime(2024, 1, 1, 9, 30, 5, tzinfo=dt.UTC), ["b", "c"]),
        (dt.datetime(2024, 1, 1, 10, 30, 5, tzinfo=dt.timezone(dt.timedelta(hours=1))), ["b", "c"]),
        (dt.datetime(2024, 1, 2, 0, 0), ["a", "b", "c"]),  # where its clock stood is not known
        (dt.date(2024, 1, 2), ["c"]),
    ],
)
def test_instants_are_held_against_the_texts_that_sqlite_keeps(
    tmp_path: Path, above: dt.date, wanted: list[str]
) -> None:
    path = tmp_path / "till.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table sold (id text, at text)")
        rows = [("a", "2024-01-01T09:29Z"), ("b", "2024-01-01T09:30:05Z"), ("c", "2024-01-02T00:00:00.5Z")]
        connection.executemany("insert into sold values (?, ?)", rows)
    newer = DatabaseRows(f"sqlite:///{path}", Reading(), table="sold", since="at", above=above)
    assert [each["id"] for each in drain(newer).rows] == wanted


@pytest.mark.parametrize(
    ("content", "above"), [(["9", "100"], 20), ([9, 100], "20"), (["soon"], dt.date.max)]
)
def test_a_bound_of_another_order_is_refused(tmp_path: Path, content: list[object], above: object) -> None:
    path = tmp_path / "till.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table sold (n)")
        connection.executemany("insert into sold values (?)", [(each,) for each in content])
    source = DatabaseRows(f"sqlite:///{path}", Reading(), table="sold", since="n", above=above)
    with pytest.raises(SourceError, match=r"column 'n' holds .*ordered otherwise.*cast it in a query"):
        drain(source)


def test_a_missing_driver_of_another_database_is_not_said_to_be_in_the_extra_of_postgres(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ConfigError, match=r"is not installed; install it, or .*mysql\+DRIVER") as caught:
        open_source("mysql://me@host/x", table="sales")
    assert "postgres" not in str(caught.value)
