"""Only partitions whose inputs changed are built again, and the others keep their very files."""

from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouse.small_project import DAILY, START, SmallProject, orders

from noria.errors import ConfigError
from noria.ledger.code import capture_code


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(daily=DAILY)
    made.add(orders(*((day, shop, 1) for day in range(10) for shop in "ab")))
    made.transform()
    return made


def test_new_and_late_rows_reopen_just_their_partitions(shop: SmallProject) -> None:
    before = shop.files("daily")
    shop.add(orders((10, "a", 1), (3, "a", 5)))
    with shop.open() as project:
        plan = project.plan_transform().models[0]
        assert plan.spans is not None
        assert [(low - START).days for low, _ in plan.spans] == [3, 10]
        result = project.transform().of("daily")
        assert result.partitions is not None
        assert [(each - START).days for each in result.partitions] == [3, 10]
    after = shop.files("daily")
    assert {name for name in after if before.get(name) != after[name]} == {"20260104", "20260111"}
    assert sum(int(str(each["total"])) for each in shop.rows("daily")) == 26


def test_a_backfill_of_one_day_changes_that_day_only(shop: SmallProject) -> None:
    shop.models(daily=DAILY.replace("sum(amount)", "sum(amount) * 2"))
    before = shop.files("daily")
    assert shop.transform(since="2026-01-05", until="2026-01-06") == {"daily": "built"}
    after = shop.files("daily")
    assert {name for name in after if before.get(name) != after[name]} == {"20260105"}
    assert [each["total"] for each in shop.rows("daily")].count(2) == 2
    assert shop.plan()["daily"] == ("build", "its code changed")  # of all other days


def test_a_backfill_does_not_take_in_late_rows_of_other_days(shop: SmallProject) -> None:
    shop.add(orders((1, "a", 100), (5, "a", 100)))
    shop.transform(since="2026-01-06", until="2026-01-07")
    assert max(int(str(each["total"])) for each in shop.rows("daily")) == 101
    assert sum(int(str(each["total"])) for each in shop.rows("daily")) == 120
    assert shop.plan()["daily"][0] == "build"
    shop.transform()
    assert sum(int(str(each["total"])) for each in shop.rows("daily")) == 220


def test_a_partition_that_lost_all_rows_is_gone(shop: SmallProject) -> None:
    shop.models(daily=DAILY, kept=DAILY.replace("from orders", "from daily").replace("placed_at", "day")
                .replace("sum(amount)", "sum(total)"))  # fmt: skip
    shop.transform()
    shop.models(daily=DAILY.replace("group by all", "where placed_at >= '2026-01-03' group by all"))
    shop.transform()
    assert len(shop.rows("daily")) == len(shop.rows("kept")) == 16
    assert set(shop.files("kept")) == {f"202601{day:02}" for day in range(3, 11)}


def test_rows_of_a_table_that_counts_everywhere_build_all_of_it(shop: SmallProject) -> None:
    shop.add(pa.table({"shop": ["a", "b"], "town": ["X", "Y"]}), "shops")
    shop.models(
        placed="""
            -- materialize: incremental
            -- partition: day(placed_at)
            select o.*, s.town from orders o join shops s using (shop)
        """
    )
    assert shop.transform()["placed"] == "built"
    shop.add(orders((4, "a", 1)))
    with shop.open() as project:
        assert project.transform("placed").of("placed").partitions is not None
    shop.add(pa.table({"shop": ["c"], "town": ["Z"]}), "shops")
    with shop.open() as project:
        made = project.transform("placed").of("placed")
        assert made.partitions is None
        assert "rows of shops count in every partition" in made.reason


def test_a_window_over_days_needs_a_promise_how_far_it_reaches(shop: SmallProject) -> None:
    rolling = """
        -- materialize: incremental
        -- partition: day(day)
        select
            day, shop,
            sum(total) over (partition by shop order by day range interval 2 day preceding) as three
        from daily
    """
    shop.models(rolling=rolling)
    told = shop.reasons()["rolling"]
    assert "a window is not partitioned by the model's time" in told
    assert "lookback: 7d" in told
    shop.models(rolling=rolling.replace("-- partition", "-- lookback: 2d\n-- partition"))
    shop.transform()
    shop.add(orders((4, "a", 100)))
    with shop.open() as project:
        made = project.transform("rolling").of("rolling")
        assert made.partitions is not None
        assert [(each - START).days for each in made.partitions] == [4, 5, 6]
    incremental = shop.rows("rolling")
    shop.transform("rolling", full=True)
    assert shop.rows("rolling") == incremental


def test_a_column_that_is_new_builds_it_as_a_whole(shop: SmallProject) -> None:
    shop.models(copied="-- materialize: incremental\n-- partition: month(placed_at)\nselect * from orders")
    shop.transform()
    wider = orders((2, "a", 9)).append_column("coupon", pa.array(["x"]))
    shop.add(wider)
    shop.transform("copied")
    assert [each["coupon"] for each in shop.rows("copied")].count("x") == 1
    assert shop.plan("copied")["copied"][0] == "unchanged"


@pytest.mark.parametrize(("unit", "label"), [("hour", "20260201T05"), ("month", "202602"), ("year", "2026")])
def test_partitions_are_hours_months_or_years_too(shop: SmallProject, unit: str, label: str) -> None:
    shop.models(copied=f"-- materialize: incremental\n-- partition: {unit}(placed_at)\nselect * from orders")
    shop.transform()
    shop.add(orders((31 + 5 / 24, "a", 9)))
    shop.transform("copied")
    assert label in shop.files("copied")
    assert len(shop.rows("copied")) == 21


def test_rows_without_a_time_are_refused(shop: SmallProject) -> None:
    shop.models(copied="-- materialize: incremental\n-- partition: day(placed_at)\nselect * from orders")
    shop.add(pa.table({"shop": ["a"], "amount": [1]}))
    assert "test not_null(placed_at) fails for 1 row" in shop.reasons("copied")["copied"]


def test_a_column_of_time_may_have_capitals(shop: SmallProject) -> None:
    def named(rows: pa.Table) -> pa.Table:
        return rows.rename_columns(["placedAt", "shop", "amount"])

    shop.add(named(orders((0, "a", 1), (1, "a", 1))), "sales")
    shop.models(daily=DAILY.replace("placed_at", "placedAt").replace("from orders", "from sales"))
    shop.transform()
    shop.add(named(orders((1, "a", 1))), "sales")
    with shop.open() as project:
        made = project.transform().of("daily")
        assert made.partitions is not None
        assert [(each - START).days for each in made.partitions] == [1]


def test_a_function_says_in_which_column_the_time_of_an_input_is(shop: SmallProject) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_steps"]\n',
            "shop_steps.py": """
                import noria

                sizes = []


                @noria.model(
                    "copied",
                    inputs={"orders": "placed_at"},
                    materialize="incremental",
                    partition="day(placed_at)",
                )
                def copied(orders):
                    sizes.append(orders.num_rows)
                    return orders
            """,
        }
    )
    with shop.open() as project:
        project.transform()
        sizes = project.declarations.models["copied"].function.__globals__["sizes"]
        project.lake.append("orders", orders((3, "a", 7)), batch=9, app_id="test")
        project.transform()
        assert sizes == [20, 3]
        assert project.lake.read("copied").num_rows == 21


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [("2026-01-05", "2026-01-05", "nothing lies from"), ("soon", None, "since is 'soon'; write a day")],
)
def test_bounds_that_cannot_be_are_refused(
    shop: SmallProject, since: str, until: str | None, told: str
) -> None:
    with shop.open() as project, pytest.raises(ConfigError, match=told):
        project.transform(since=since, until=until)


def test_rows_without_a_time_are_refused_by_part_as_they_are_as_a_whole(shop: SmallProject) -> None:
    shop.add(pa.table({"shop": ["a"], "amount": [1]}))
    shop.add(orders((3, "a", 1)))
    with shop.open() as project:
        by_part = project.transform().of("daily")
        whole = project.transform(full=True).of("daily")
    assert by_part.state == whole.state == "failed"
    assert "fails for 1 row" in by_part.reason
    assert by_part.tests == whole.tests


def test_a_model_that_leaves_out_rows_without_a_time_is_built_by_part_again(shop: SmallProject) -> None:
    shop.models(daily=DAILY.replace("from orders", "from orders where placed_at is not null"))
    shop.transform()
    shop.add(pa.table({"shop": ["a"], "amount": [1]}))
    assert "rows without a time are among them" in shop.reasons()["daily"]
    shop.add(orders((3, "a", 1)))
    with shop.open() as project:
        assert project.transform().of("daily").partitions is not None


def test_a_warning_about_rows_without_a_time_does_not_let_them_in(shop: SmallProject) -> None:
    shop.models(daily=DAILY.replace("-- key: day, shop", "-- warn: not_null(day)"))
    shop.add(pa.table({"shop": ["a"], "amount": [1]}))
    assert "rows have no 'day'" in shop.reasons()["daily"]


def test_a_join_of_kept_rows_only_says_nothing_of_days(shop: SmallProject) -> None:
    shop.models(
        paid="""
            -- materialize: incremental
            -- partition: day(day)
            select date_trunc('day', o.placed_at) as day, o.shop, f.amount as fee, g.amount as gift
            from orders o
            join fees f on o.shop = f.shop
            left join gifts g
                on g.shop = o.shop and date_trunc('day', o.placed_at) = date_trunc('day', f.placed_at)
        """
    )
    shop.add(orders((0, "a", 5)), "fees")
    shop.add(orders((0, "a", 9)), "gifts")
    shop.transform()
    shop.add(orders((1, "a", 7)), "fees")
    shop.transform()
    by_part = sorted(map(repr, shop.rows("paid")))
    shop.transform(full=True)
    assert sorted(map(repr, shop.rows("paid"))) == by_part


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("now()", "now()"),
        ("current_date", "current_date"),
        ("Current_Timestamp", "current_timestamp"),
        ("random()", "random()"),
        ("uuid()", "uuid()"),
        ("age(placed_at)", "age()"),
    ],
)
def test_what_gives_something_else_each_time_is_always_stale(
    shop: SmallProject, column: str, told: str
) -> None:
    shop.models(stamped=f"select shop, ({column})::varchar as x from orders")
    shop.transform()
    assert shop.plan("stamped")["stamped"] == (
        "build",
        f"it has {told}, which gives something else each time",
    )
    shop.models(
        stamped="select shop, x from v",
        v=f"-- materialize: view\nselect shop, ({column})::varchar as x from orders",
    )
    shop.transform()
    assert told in shop.plan("stamped")["stamped"][1]
    shop.models(
        stamped="-- materialize: incremental\n-- partition: day(placed_at)\n"
        f"select *, {column} as x from orders"
    )
    assert f"({told} gives something else each time)" in shop.reasons("stamped")["stamped"]


def test_a_sample_is_always_stale(shop: SmallProject) -> None:
    shop.models(few="select * from orders using sample 3 rows")
    shop.transform()
    assert shop.plan("few")["few"][1].startswith("it has a sample")


@pytest.mark.parametrize(
    "value", ["'now()'", "o.current_date", '"current_date"', "age(placed_at, '2020-01-01'::timestamptz)"]
)
def test_names_and_texts_that_look_like_a_clock_are_none(shop: SmallProject, value: str) -> None:
    inner = 'select *, shop as "current_date" from orders'
    shop.models(stamped=f"select shop, ({value})::varchar as x from ({inner}) as o")
    shop.transform()
    assert shop.plan("stamped")["stamped"][0] == "unchanged"


def test_a_function_is_stale_when_installed_distributions_change(
    shop: SmallProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_made"]\n',
            "shop_made.py": """
                import noria


                @noria.model("copied", inputs=["orders"])
                def copied(orders):
                    return orders
            """,
        }
    )
    assert shop.transform()["copied"] == "built"
    assert shop.plan("copied")["copied"][0] == "unchanged"
    told = tmp_path / "site" / "maker-2.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: maker\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(told.parent)
    capture_code.cache_clear()  # as in another process
    request.addfinalizer(capture_code.cache_clear)
    assert shop.plan("copied")["copied"] == ("build", "installed distributions changed")
    assert shop.plan("daily")["daily"][0] == "unchanged"


def test_rows_that_a_function_makes_without_a_time_are_refused_by_part_too(shop: SmallProject) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_lost"]\n',
            "shop_lost.py": """
                import noria
                import pyarrow as pa


                @noria.model(
                    "copied",
                    inputs={"orders": "placed_at"},
                    materialize="incremental",
                    partition="day(placed_at)",
                )
                def copied(orders):
                    if 7 not in orders["amount"].to_pylist():
                        return orders
                    lost = pa.array([None] * orders.num_rows, orders["placed_at"].type)
                    return pa.concat_tables([orders, orders.set_column(0, "placed_at", lost)])
            """,
        }
    )
    assert shop.transform("copied") == {"copied": "built"}
    shop.add(orders((3, "a", 7)))
    assert "test not_null(placed_at) fails for" in shop.reasons("copied")["copied"]
