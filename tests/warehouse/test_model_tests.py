"""A test that fails keeps the old table and holds up what reads it; the rest goes on."""

from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouse.small_project import SmallProject, orders

import noria
from noria.cli import main
from noria.errors import BatchBlocked
from noria.records import RunState


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(
        checked="-- test: amount > 0\n-- test: not_null(shop)\nselect * from orders",
        sums="select shop, sum(amount) as total from checked group by shop",
        largest="select max(total) as total from sums",
        apart="select count(*) as n from orders",
    )
    made.add(orders((0, "a", 10), (1, "b", 5)))
    made.transform()
    made.add(orders((2, "c", -1), (3, "d", -2), (4, "e", -3)))
    return made


def test_a_failing_test_keeps_the_old_table_and_blocks_all_that_is_downstream(shop: SmallProject) -> None:
    told = shop.reasons()
    assert told["checked"].startswith("test amount > 0 fails for 3 rows, for example placed_at = ")
    assert told["checked"].endswith("its old table stays")
    assert told["sums"].startswith("blocked by model checked: test amount > 0 fails for 3 rows, for example")
    assert told["largest"].startswith("blocked by model checked: test amount > 0")
    assert shop.rows("apart") == [{"n": 5}]
    assert len(shop.rows("checked")) == 2
    assert shop.transform() == {
        "checked": "failed",
        "sums": "blocked",
        "largest": "blocked",
        "apart": "unchanged",
    }


def test_what_failed_is_on_record_without_the_values_of_rows(shop: SmallProject) -> None:
    with shop.open() as project:
        result = project.transform()
        run = project.ledger.get_run(result.of("checked").run or "")
        assert run.state is RunState.FAILED
        assert run.error == "test amount > 0 fails for 3 rows"
        (event,) = project.ledger.list_events(verb="transform.blocked")
        assert event.payload["tests"] == [{"test": "amount > 0", "severity": "block", "failing": 3}]
        assert not result.is_well


def test_once_it_is_repaired_everything_goes_on(shop: SmallProject) -> None:
    shop.transform()
    shop.models(checked="-- test: amount > 0\n-- test: not_null(shop)\nselect * from orders where amount > 0")
    assert set(shop.transform().values()) == {"built", "unchanged"}
    assert shop.rows("largest") == [{"total": 10}]


def test_a_warning_is_told_and_the_table_is_built(shop: SmallProject) -> None:
    shop.models(checked="-- warn: amount > 0\nselect * from orders")
    with shop.open() as project:
        made = project.transform().of("checked")
    assert made.state == "built"
    assert [(each.name, each.severity, each.failing) for each in made.tests] == [("amount > 0", "warn", 3)]
    assert shop.rows("sums")


def test_a_test_that_is_unknown_of_a_row_holds_for_it(shop: SmallProject) -> None:
    shop.models(checked="-- test: x > 0\nselect nullif(amount, amount) as x, shop, amount from orders")
    assert shop.transform("checked") == {"checked": "built"}


def test_a_key_is_there_and_comes_once_in_the_whole_table(tmp_path: Path) -> None:
    made = SmallProject(tmp_path / "shop")
    made.models(
        keyed="-- materialize: incremental\n-- partition: day(placed_at)\n-- key: shop\nselect * from orders"
    )
    made.add(orders((0, "a", 1), (1, "b", 1)))
    assert made.transform() == {"keyed": "built"}
    made.add(orders((5, "a", 2)))  # another day: only the whole table shows it
    assert made.reasons()["keyed"].startswith(
        "test unique(shop) fails for 1 row, for example shop = 'a', rows = 2"
    )
    assert len(made.rows("keyed")) == 2


def test_queries_in_the_folder_tests_give_the_rows_that_should_not_be(shop: SmallProject) -> None:
    shop.models(checked="select * from orders")
    shop.write(
        {
            "models/tests/few_orders.sql": """
                select s.shop from sums s join apart a on a.n > 4 where total < -2
            """,
            "models/tests/small.sql": "-- severity: warn\nselect * from sums where total < 6",
        }
    )
    with shop.open() as project:
        made = project.transform().of("sums")
    assert made.reason.startswith("test few_orders fails for 1 row, for example shop = 'e'")
    assert [(each.name, each.severity) for each in made.tests] == [("few_orders", "block"), ("small", "warn")]
    assert shop.reasons()["largest"].startswith("blocked by model sums: test few_orders")


def test_a_query_of_an_incremental_model_sees_all_its_rows(tmp_path: Path) -> None:
    made = SmallProject(tmp_path / "shop")
    made.models(copied="-- materialize: incremental\n-- partition: day(placed_at)\nselect * from orders")
    made.write(
        {
            "models/tests/complete.sql": """
                select c.n from (select count(*) as n from copied) c, (select count(*) as n from orders) o
                where c.n <> o.n
            """
        }
    )
    made.add(orders((0, "a", 1), (1, "b", 1)))
    made.transform()
    made.add(orders((1.5, "a", 2)))
    assert made.transform() == {"copied": "built"}
    assert len(made.rows("copied")) == 3


def test_a_view_is_tested_where_it_has_tests(shop: SmallProject) -> None:
    shop.models(checked="-- materialize: view\n-- test: amount > 0\nselect * from orders")
    told = shop.reasons()
    assert told["checked"].startswith("test amount > 0 fails for 3 rows")
    assert told["sums"].startswith("blocked by model checked")
    shop.models(checked="-- materialize: view\n-- test: amount > -9\nselect * from orders")
    assert shop.transform()["checked"] == "built"
    assert shop.transform()["checked"] == "unchanged"


def test_tests_that_were_added_are_run_although_no_row_changed(shop: SmallProject) -> None:
    shop.models(checked="select * from orders")
    shop.transform()
    shop.models(checked="-- test: amount > 0\nselect * from orders")
    assert shop.plan()["checked"] == ("build", "its tests changed (amount > 0)")


def test_a_test_that_cannot_be_asked_is_told(shop: SmallProject) -> None:
    shop.models(checked="-- test: not_null(nope)\nselect * from orders")
    assert 'test not_null(nope): Referenced column "nope" not found' in shop.reasons()["checked"]


def test_a_blocked_batch_blocks_what_reads_its_dataset(tmp_path: Path) -> None:
    made = SmallProject(tmp_path / "shop")
    made.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_data"]\n',
            "shop_data.py": """
                import noria
                from noria import check

                sales = noria.Dataset(
                    "sales",
                    key="id",
                    event_at="sold_at",
                    known_at="sold_at",
                    checks=[check.between("amount", 0, 9)],
                )
            """,
        }
    )
    made.models(totals="select sum(amount) as total from sales", apart="select 1 as x")

    def batch(first: int, amount: int) -> pa.Table:
        rows = orders(*((0, "a", amount) for _ in range(3))).rename_columns(["sold_at", "shop", "amount"])
        return rows.append_column("id", pa.array([f"{first + each}" for each in range(3)]))

    with noria.open(made.root) as project:
        sales = project.declarations.datasets["sales"]
        project.lake.ingest(sales, batch(0, 1), batch=1)
        assert project.transform().is_well
        with pytest.raises(BatchBlocked):
            project.lake.ingest(sales, batch(10, 99), batch=2)
        told = project.transform().of("totals")
        assert told.state == "blocked"
        assert told.reason.startswith("blocked by dataset sales: its batch 2 is blocked (")
        assert "--ignore-blocked" in told.reason
        assert project.transform(ignore_blocked=True).is_well
        project.lake.ingest(sales, batch(20, 0), batch=7, app="elsewhere")
        assert project.transform().of("totals").state == "blocked"
        project.lake.ingest(sales, batch(10, 2), batch=2)
        assert project.transform().is_well
        assert project.lake.read("totals").to_pylist() == [{"total": 9}]


def test_the_command_ends_with_1_and_says_which_row(
    shop: SmallProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transform", "--project", str(shop.root)]) == 1
    told = capsys.readouterr().out
    assert "test amount > 0 fails for 3 rows" in " ".join(told.split())
    assert "4 models: 1 built, 1 failed, 2 blocked." in told
