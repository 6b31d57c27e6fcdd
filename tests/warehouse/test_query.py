from pathlib import Path
from typing import NoReturn

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from noria.errors import ConfigError, NotFound
from noria.warehouse.query import answering, query
from noria.warehouse.query_tables import View

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
        "explain copy (select 1) to 'x.csv'",
        "with a as (select 1) insert into b select * from a",
        "call range(3)",
        "pragma version",
        "create table a as select 1",
        "select 1; select 2",
        "",
        "-- nothing",
    ],
)
def test_what_is_no_single_select_is_refused(sql: str) -> None:
    with pytest.raises(ConfigError, match="SELECT is wanted"):
        query(sql, TABLES)


def test_a_plan_is_explained() -> None:
    plan = query("explain select carrier, count(*) from flights group by 1", TABLES)
    assert plan.column_names == ["explain_key", "explain_value"]
    measured = query("explain analyze select count(*) from flights", TABLES)
    assert "Total Time" in measured["explain_value"][0].as_py()
    formatted = query("explain (format json) select 1 as x", TABLES)
    assert formatted["explain_value"][0].as_py().startswith("[")
    with pytest.raises(NotFound):
        query("explain select * from nothing", TABLES)


def test_tables_are_summarized() -> None:
    told = {row["column_name"]: row for row in query("summarize flights", TABLES).to_pylist()}
    assert told["id"]["max"] == "3" and told["carrier"]["approx_unique"] == 2


def test_values_are_given_by_name_or_in_their_order() -> None:
    by_name = query(
        "select id from flights where carrier = $c and id > $n", TABLES, params={"c": "AA", "n": 1}
    )
    in_order = query("select id from flights where carrier = ? and id > ?", TABLES, params=["AA", 1])
    assert by_name == in_order == pa.table({"id": [3]})
    with pytest.raises(ConfigError, match=r"names no parameter \$m"):
        query("select $n as n", TABLES, params={"n": 1, "m": 2})
    with pytest.raises(ConfigError, match=r"needs a value for \$n; give `--param n="):
        query("select $n as n", TABLES)


def test_a_view_is_a_select_over_what_is_there() -> None:
    tables = {
        **TABLES,
        "american": lambda: View("select id from flights where carrier = 'AA'"),
        "late_american": lambda: View("select max(id) as last from american"),
    }
    assert query("select last from late_american", tables).to_pylist() == [{"last": 3}]


def test_views_in_a_circle_are_refused_with_the_path() -> None:
    tables = {"a": lambda: View("from b"), "b": lambda: View("from a")}
    with pytest.raises(ConfigError, match="a -> b -> a"):
        query("from a", tables)


def test_a_view_reaches_no_further_than_a_query() -> None:
    with pytest.raises(ConfigError, match=r"read_text\(\.\.\.\)"):
        query("from v", {"v": lambda: View("select * from read_text('/etc/hostname')")})


def test_an_answer_comes_in_batches_as_it_is_read() -> None:
    with answering("select range as n from range(200_000)", {}) as answer:
        sizes = [batch.num_rows for batch in answer]
    assert sum(sizes) == 200_000 and len(sizes) > 2 and answer.schema.names == ["n"]


def test_a_fault_in_a_later_row_is_told() -> None:
    sql = "select cast(case when range < 150_000 then '1' else 'x' end as int) as n from range(200_000)"
    with answering(sql, {}) as answer, pytest.raises(ConfigError, match="Could not convert string 'x'"):
        list(answer)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="carier"):
        query("select carier from flights", TABLES)
    with pytest.raises(ConfigError, match="double quotes"):
        query("select at from flights", TABLES)
    assert query('select max("at") as latest from flights', TABLES).to_pylist() == [{"latest": 30}]
