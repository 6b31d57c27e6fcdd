"""What is wrong with one model is told with its file and line, and the others are built."""

from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouse.small_project import SmallProject, orders

GOOD = "select count(*) as n from orders"


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(good=GOOD, after="select n from wrong")
    made.add(orders((0, "a", 10), (1, "b", 0)))
    return made


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "select shop\nfrom orders\nwhere amount >",
            "models/wrong.sql, line 3, column 14: syntax error at or near",
        ),
        ("select placed at\nfrom orders grop by x", "models/wrong.sql, line 2"),
        (
            "insert into orders values (1)",
            "models/wrong.sql, line 1: this is INSERT, which does not only read",
        ),
        ("create table x as select 1", "models/wrong.sql, line 1: this is CREATE"),
        ("attach 'x.db'", "models/wrong.sql, line 1: this is ATTACH"),
        ("copy orders to 'x.csv'", "models/wrong.sql, line 1: this is COPY"),
        ("select 1 as n;\n\nselect 2 as n", "models/wrong.sql, line 3: 2 statements were found"),
        ("-- nothing else", "models/wrong.sql, line 1: there is no statement"),
        (
            "select * from read_csv('/etc/passwd')",
            "models/wrong.sql, line 1: read_csv(...) reads from outside",
        ),
        ("select *\nfrom parquet_scan('x.parquet')", "line 2: parquet_scan(...) reads from outside"),
        ("select * from glob('*')", "line 1: glob(...) reads from outside"),
        ("select * from 'orders.csv'", "line 1: 'orders.csv' is a file, not a table"),
        ("select * from other.orders", "line 1: other.orders names a schema"),
        ("select n\nfrom ordrs", "models/wrong.sql, line 2: no table named 'ordrs'; did you mean 'orders'?"),
        (
            "-- materialise: table\nselect 1 as n",
            "line 1: 'materialise' is no word of a header; did you mean 'materialize'?",
        ),
        (
            "-- materialize: tabel\nselect 1 as n",
            "line 1: materialize is 'tabel'; choose table, view, incremental",
        ),
        ("-- materialize: incremental\nselect 1 as n", "line 1: it is incremental and has no partition"),
        ("-- owner: x\n-- partition: week(a)\nselect 1 as n", "line 2: 'week(a)' is no partition"),
        ("-- test: unique()\nselect 1 as n", "line 1: unique() names no column"),
        ("-- key: n\n-- key: m\nselect 1 as n", "line 2: 'key' was said in line 1 already"),
        ("-- description:\nselect 1 as n", "line 1: nothing follows `description:`"),
    ],
)
def test_a_text_that_is_no_model_is_told_with_its_line(shop: SmallProject, text: str, told: str) -> None:
    shop.models(wrong=text)
    found = shop.reasons()
    assert told in found["wrong"]
    assert found["after"].startswith("blocked by model wrong: ")
    assert shop.rows("good") == [{"n": 2}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("select 10 // amount as n from orders", "models/wrong.sql: Division by zero in expression"),
        ("select cast(shop as int) as n from orders", "Could not convert string 'a' to INT32"),
        (
            "select gone as n from orders",
            'Referenced column "gone" not found in FROM clause; there is amount, placed_at, shop '
            "(line 1: select gone as n from orders)",
        ),
        (
            "-- owner: me\nselect shop,\n  amont as n from orders",
            "did you mean 'amount'? (line 3: amont as n from orders)",
        ),
        ("-- test: amont > 0\nselect amount from orders", "test amont > 0: Referenced column"),
        ("-- test: amont > 0\nselect amount from orders", "FROM clause; did you mean 'amount'?"),
        ("-- test: unique(amont)\nselect amount from orders", "did you mean 'amount'?"),
        ("select interval 1 day as n", "cast it in the model"),
    ],
)
def test_what_goes_wrong_at_work_is_told_and_the_rest_is_built(
    shop: SmallProject, text: str, told: str
) -> None:
    shop.models(wrong="select 1 as n")
    shop.transform()
    shop.models(wrong=text)
    found = shop.reasons()
    assert told in found["wrong"]
    assert "__noria" not in found["wrong"]
    assert found["after"].startswith("blocked by model wrong: ")
    assert shop.rows("wrong") == [{"n": 1}]
    assert shop.rows("good") == [{"n": 2}]


def test_no_value_of_a_row_gets_into_the_record(shop: SmallProject) -> None:
    shop.models(wrong="select cast(shop as int) as n from orders")
    with shop.open() as project:
        run = project.ledger.get_run(project.transform().of("wrong").run or "")
        assert run.error is not None
        assert "'a'" not in run.error
        assert "Could not convert string '…'" in run.error


def test_models_that_wait_for_each_other_are_told_the_way(shop: SmallProject) -> None:
    shop.models(wrong="select n from second", second="select n from third", third="select n from wrong")
    found = shop.reasons()
    assert "models wait for each other in a circle: wrong -> second -> third -> wrong" in found["wrong"]
    assert "third -> wrong -> second -> third" in found["third"]
    assert found["after"].startswith("blocked by model wrong: models/wrong.sql: models wait for each other")
    assert shop.rows("good") == [{"n": 2}]


def test_a_model_that_reads_itself_is_a_circle(shop: SmallProject) -> None:
    shop.models(wrong="select n + 1 as n from wrong")
    assert "in a circle: wrong -> wrong" in shop.reasons()["wrong"]
    shop.models(
        wrong="-- materialize: view\nselect * from wrong",
        first="-- materialize: view\nselect * from second",
        second="-- materialize: view\nselect * from first",
    )
    told = shop.reasons()
    assert "in a circle: wrong -> wrong" in told["wrong"]
    assert "in a circle: first -> second -> first" in told["first"]


def test_two_models_of_one_name_are_both_refused(shop: SmallProject) -> None:
    shop.write({"models/wrong.sql": "select 1 as n", "models/more/wrong.sql": "select 2 as n"})
    told = shop.reasons()
    assert "two models have the name 'wrong': models/more/wrong.sql and models/wrong.sql" in told["wrong"]
    assert told["after"].startswith("blocked by model wrong")


def test_a_model_named_as_a_dataset_is_refused(shop: SmallProject) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_named"]\n',
            "shop_named.py": 'import noria\n\nwrong = noria.Dataset("wrong", key="id", event_at="t")\n',
        }
    )
    shop.models(wrong="select 1 as n", orders="select 1 as n")
    told = shop.reasons()
    assert "models/wrong.sql: 'wrong' is the name of a dataset; rename the model" in told["wrong"]
    assert "'orders' is the name of a table that no model has made" in told["orders"]
    assert len(shop.rows("orders")) == 2


def test_a_column_that_vanishes_upstream_fails_what_reads_it(shop: SmallProject) -> None:
    shop.models(wrong="select shop, amount from orders", after="select amount from wrong")
    shop.transform()
    shop.models(wrong="select shop from orders")
    found = shop.reasons()
    assert 'models/after.sql: Referenced column "amount" not found' in found["after"]
    assert len(shop.rows("after")) == 2


def test_a_file_whose_name_sql_cannot_say_is_refused(shop: SmallProject) -> None:
    shop.write({"models/two words.sql": "select 1 as n"})
    assert "'two words' cannot be said in SQL" in shop.reasons()["two words"]


def test_a_function_that_fails_is_told_with_its_place(shop: SmallProject) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_failing"]\n',
            "shop_failing.py": """
                import noria


                @noria.model("wrong", inputs=["orders"])
                def wrong(orders):
                    return orders["nope"]


                @noria.model("text", inputs=["orders"])
                def text(orders):
                    return "a text"
            """,
        }
    )
    found = shop.reasons()
    assert found["wrong"].startswith("shop_failing.py, line 4: ")
    assert "KeyError" in found["wrong"]
    assert "'text' was given a str, which is no frame" in found["text"]
    assert found["after"].startswith("blocked by model wrong")


def test_statements_that_sqlglot_does_not_know_are_run_all_the_same(shop: SmallProject) -> None:
    shop.models(
        wide="pivot orders on shop using sum(amount) group by placed_at",
        columns="select columns('a.*') from orders",
    )
    assert {each: state for each, state in shop.transform("wide", "columns").items() if each != "orders"} == {
        "wide": "built",
        "columns": "built",
    }
    assert set(shop.rows("wide")[0]) == {"placed_at", "a", "b"}
    shop.add(orders((3, "c", 4)))
    assert shop.transform("wide") == {"wide": "built"}
    assert "c" in shop.rows("wide")[0]


def test_a_test_of_an_unknown_table_is_told_and_the_models_are_built(shop: SmallProject) -> None:
    shop.write({"models/tests/odd.sql": "select *\nfrom nothing"})
    found = shop.reasons()
    assert "models/tests/odd.sql, line 2: no table named 'nothing'" in found["tests/odd"]
    assert shop.rows("good") == [{"n": 2}]


def test_keywords_as_names_get_a_hint(shop: SmallProject) -> None:
    shop.add(pa.table({"at": [1]}), "events")
    shop.models(wrong="select max(at) as n from events")
    assert 'such as "at", has to be in double quotes' in shop.reasons()["wrong"]
