from pathlib import Path
from typing import NoReturn

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from noria.errors import ConfigError, NotFound
from noria.warehouse.query import query

FLIGHTS = pa.table({"id": [1, 2, 3], "carrier": ["AA", "UA", "AA"], "at": [10, 20, 30]})


def never() -> NoReturn:
    raise AssertionError("opened a table that the statement does not name")


TABLES = {"flights": lambda: FLIGHTS, "planes": never, "late_arrival": never}


def test_only_named_tables_are_opened_and_names_do_not_mind_the_case() -> None:
    assert query("select count(*) as n from Flights", TABLES).to_pylist() == [{"n": 3}]


def test_whole_sums_come_out_as_integers() -> None:
    answer = query("select sum(id) as total, avg(id) as mean from flights", TABLES)
    assert answer.schema.types == [pa.int64(), pa.float64()]


def test_a_sum_that_does_not_fit_stays_exact() -> None:
    big = {"big": lambda: pa.table({"x": [2**62, 2**62, 2**62]})}
    assert int(query("select sum(x) as s from big", big)["s"][0].as_py()) == 3 * 2**62


def test_datasets_and_foreign_frames_are_scanned(tmp_path: Path) -> None:
    pads.write_dataset(FLIGHTS, tmp_path, format="parquet")
    own = duckdb.connect()
    tables = {
        "stored": lambda: pads.dataset(tmp_path),
        "frame": lambda: own.sql("select 2 as id, 'x' as tag"),
    }
    joined = query("select s.carrier, f.tag from stored s join frame f using (id) where s.id > 1", tables)
    assert joined.to_pylist() == [{"carrier": "UA", "tag": "x"}]


def test_common_table_expressions_are_no_tables_even_where_they_shadow_one() -> None:
    sql = """
        with flights as (select * from flights where id > 1), b as (select 7 as x)
        select count(*) as n from flights, b
    """
    assert query(sql, TABLES).to_pylist() == [{"n": 2}]
    recursive = """
        with recursive r as (select 1 as x union all select x + 1 from r where x < 3)
        select sum(x) as s from r
    """
    assert query(recursive, {}).to_pylist() == [{"s": 6}]


def test_tables_are_listed() -> None:
    assert query(" SHOW tables;", TABLES)["name"].to_pylist() == ["flights", "late_arrival", "planes"]
    assert query("describe flights", TABLES).num_rows == 3


def test_a_pivot_statement_works() -> None:
    assert query("pivot t on x using count(*)", {"t": lambda: pa.table({"x": [1, 2]})}).num_rows == 1


def test_an_unknown_table_is_not_found_and_the_nearest_is_named() -> None:
    with pytest.raises(NotFound, match="did you mean 'flights'"):
        query("select * from flihgts", TABLES)
    with pytest.raises(NotFound, match=r"other\.flights"):
        query("select * from other.flights", TABLES)


@pytest.mark.parametrize(
    "sql",
    [
        "drop table flights",
        "insert into flights values (1)",
        "copy (select 1) to 'x.csv'",
        "set threads = 1",
        "attach 'x.db'",
        "load httpfs",
        "explain select 1",
        "select 1; select 2",
        "",
        "-- nothing",
    ],
)
def test_what_is_no_single_select_is_refused(sql: str) -> None:
    with pytest.raises(ConfigError, match="SELECT is wanted"):
        query(sql, TABLES)


@pytest.mark.parametrize("sql", ["select * from read_csv('{file}')", "select * from glob('{folder}/*')"])
def test_files_are_out_of_reach(sql: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(ConfigError, match="cannot be answered"):
        query(sql.format(file=secret, folder=tmp_path), {})
    with pytest.raises(NotFound):
        query(f"select * from '{secret}'", {})


def test_the_variables_of_the_process_are_out_of_reach() -> None:
    hidden = pa.table({"x": [1]})
    with pytest.raises(NotFound):
        query("select * from hidden", {})
    assert hidden.num_rows == 1


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="carier"):
        query("select carier from flights", TABLES)
    with pytest.raises(ConfigError, match="double quotes"):
        query("select at from flights", TABLES)
    assert query('select max("at") as latest from flights', TABLES).to_pylist() == [{"latest": 30}]
