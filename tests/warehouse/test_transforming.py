"""Models are built in order, what is not stale is left alone, and the plan says why."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouse.small_project import DAILY, SmallProject, orders

from noria.errors import ConfigError, LeaseHeld, NotFound
from noria.records import RunState

BIG = "-- materialize: view\nselect * from daily where total >= 10"
SHOPS = "-- key: shop\nselect shop, sum(total) as total from big group by shop"


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(daily=DAILY, big=BIG, shops=SHOPS)
    made.add(orders((0, "a", 10), (0.5, "b", 5), (1, "a", 20), (2, "b", 40)))
    return made


def test_models_are_built_in_the_order_of_what_they_read(shop: SmallProject) -> None:
    assert shop.transform() == {"daily": "built", "big": "view", "shops": "built"}
    assert shop.rows("shops") == [{"shop": "a", "total": 30}, {"shop": "b", "total": 40}]


def test_nothing_is_built_again_where_nothing_changed(shop: SmallProject) -> None:
    shop.transform()
    with shop.open() as project:
        before = len(project.ledger.list_events())
        result = project.transform()
        assert result.counts == {"unchanged": 2, "view": 1}
        assert result.is_well
        assert len(project.ledger.list_events()) == before


def test_comments_white_space_and_the_case_of_keywords_change_nothing(shop: SmallProject) -> None:
    shop.transform()
    shop.models(
        shops="-- key: shop\n-- words\nSELECT shop,\n  sum(total) AS total /* sum */ FROM big GROUP BY shop;"
    )
    assert shop.transform()["shops"] == "unchanged"
    shop.models(shops="-- key: shop\nselect shop, sum(total) + 1 as total from big group by shop")
    assert shop.plan()["shops"] == ("build", "its code changed")


def test_a_view_that_changed_makes_what_reads_it_stale(shop: SmallProject) -> None:
    shop.transform()
    shop.models(big=BIG.replace("10", "30"))
    assert shop.plan()["shops"] == ("build", "the view big changed")
    assert shop.plan()["daily"][0] == "unchanged"
    shop.transform()
    assert shop.rows("shops") == [{"shop": "b", "total": 40}]


def test_a_plan_says_what_may_be_built_and_builds_nothing(shop: SmallProject) -> None:
    assert {state for state, _ in shop.plan().values()} == {"build", "view"}
    shop.transform()
    shop.add(orders((1.5, "a", 1)))
    assert shop.plan()["daily"] == ("build", "orders changed once since")
    assert shop.plan()["shops"] == ("may build", "daily is built first")
    with shop.open() as project:
        assert project.lake.read("daily").num_rows == 4


def test_a_model_that_comes_out_the_same_changes_nothing_below(shop: SmallProject) -> None:
    shop.transform()
    shop.models(daily=DAILY.replace("count(*)", "count(shop)"))
    with shop.open() as project:
        result = project.transform()
        assert [result.of(each).state for each in ("daily", "shops")] == ["built", "unchanged"]
        assert result.of("daily").version == "daily:1"


def test_each_build_is_a_run_with_its_inputs_its_output_and_a_cause(shop: SmallProject) -> None:
    with shop.open() as project:
        result = project.transform()
        ledger = project.ledger
        run = ledger.get_run(result.of("shops").run or "")
        assert (run.kind, run.state, run.params["reason"]) == (
            "transform",
            RunState.FINISHED,
            "it was never built",
        )
        edges = {
            (ledger.get_version_by_id(each.version).ref, each.role) for each in ledger.list_edges(run=run.id)
        }
        assert edges == {("daily:1", "input"), ("shops:1", "output")}
        assert run.cause is not None
        assert ledger.get_event(run.cause).verb == "transform.started"
        assert run.metrics["rows"] == 2
        assert run.cost is not None
        daily = ledger.get_run(result.of("daily").run or "")
        inputs = [each.version for each in ledger.list_edges(run=daily.id) if each.role == "input"]
        assert [ledger.get_version_by_id(each).kind for each in inputs] == ["table"]
        assert ledger.verify().ok


def test_older_versions_of_a_model_can_be_read(shop: SmallProject) -> None:
    shop.transform()
    shop.add(orders((7, "c", 100)))
    shop.transform()
    with shop.open() as project:
        assert project.lake.read("shops", version=1).num_rows == 2
        assert project.lake.read("shops").num_rows == 3
        project.lake.version_digest("shops", verify=True)


def test_only_models_that_are_named_and_what_they_need_are_looked_at(shop: SmallProject) -> None:
    shop.models(other="select 1 as x")
    assert shop.transform("big") == {"daily": "built", "big": "view"}
    assert shop.transform("OTHER") == {"other": "built"}
    with (
        shop.open() as project,
        pytest.raises(NotFound, match=r"no model named 'daly'; did you mean 'daily'"),
    ):
        project.transform("daly")


def test_full_builds_what_is_named_although_it_is_not_stale(shop: SmallProject) -> None:
    shop.transform()
    assert shop.transform("shops", full=True) == {"daily": "unchanged", "big": "view", "shops": "built"}


def test_a_table_that_something_else_changed_is_built_again(shop: SmallProject) -> None:
    shop.transform()
    with shop.open() as project:
        project.lake.append("shops", pa.table({"shop": ["z"], "total": [1]}), batch=1, app_id="someone")
    assert shop.plan()["shops"][1].startswith("its table was changed since")
    shop.transform()
    assert len(shop.rows("shops")) == 2


def test_a_compaction_is_no_change(shop: SmallProject) -> None:
    shop.add(orders((5, "a", 1)))
    shop.transform()
    with shop.open() as project:
        assert project.lake.compact("orders") and project.lake.compact("daily")
    assert shop.transform() == {"daily": "unchanged", "big": "view", "shops": "unchanged"}
    shop.add(orders((0.1, "a", 1)))
    shop.transform("daily")
    assert len(shop.rows("daily")) == 5


def test_a_second_transform_at_once_is_told_who_is_at_it(shop: SmallProject) -> None:
    with shop.open() as project:
        lease = project.ledger.acquire_lease("transform", ttl_s=60)
        with pytest.raises(LeaseHeld, match="transform is in use by"):
            project.transform()
        project.ledger.release_lease(lease)
        assert project.transform().counts["built"] == 2


def test_a_project_without_models_is_told_how_to_write_one(tmp_path: Path) -> None:
    empty = SmallProject(tmp_path / "empty")
    with (
        empty.open() as project,
        pytest.raises(ConfigError, match=r"no model; write one: .* models/NAME\.sql"),
    ):
        project.transform()


def test_functions_are_models_too(shop: SmallProject) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_models"]\n',
            "shop_models.py": """
                import pyarrow as pa
                import pyarrow.compute as pc

                import noria


                @noria.model("ranked", inputs=["shops"], key="shop", tests=["place > 0"])
                def ranked(shops: pa.Table) -> pa.Table:
                    rows = shops.sort_by([("total", "descending")])
                    return rows.append_column("place", pa.array(range(1, rows.num_rows + 1)))
            """,
        }
    )
    shop.models(first="select * from ranked where place = 1")
    assert shop.transform()["first"] == "built"
    assert shop.rows("first") == [{"shop": "b", "total": 40, "place": 1}]
    assert shop.transform()["ranked"] == "unchanged"
    path = shop.root / "shop_models.py"
    path.write_text(path.read_text().replace("range(1,", "range(2 - 1,"))
    assert shop.plan()["ranked"] == ("build", "its code changed")


def test_memory_that_does_not_suffice_goes_to_the_disk_and_is_given_back(tmp_path: Path) -> None:
    large = SmallProject(tmp_path / "large")
    large.write({"noria.toml": '[project]\nname = "large"\n[warehouse]\nmemory = "64MB"\nthreads = 2\n'})
    large.models(
        wide="""
            -- key: i
            select range as i, md5(range::varchar) as a, md5((range + 1)::varchar) as b from range(1500000)
        """
    )
    assert large.transform() == {"wide": "built"}
    assert not list((large.root / ".noria/warehouse").glob("spill*"))
    large.models(
        too_wide="select list(a.i) as everything from wide a, wide b where a.i < 5000 and b.i < 5000"
    )
    assert "it needs more memory than 64MB" in large.reasons()["too_wide"]


def test_rows_of_a_model_are_read_by_queries_like_any_table(shop: SmallProject) -> None:
    shop.transform()
    with shop.open() as project:
        assert project.query("select sum(total) as t from shops").to_pylist() == [{"t": 70}]
        assert datetime(2026, 1, 3, tzinfo=UTC) in project.lake.read("daily")["day"].to_pylist()
