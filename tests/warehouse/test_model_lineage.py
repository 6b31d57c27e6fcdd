"""Where columns come from, and which inputs count in their own partition only."""

import json
from pathlib import Path

import pytest
from tests.warehouse.small_project import DAILY, SmallProject, orders

from noria.cli import main
from noria.errors import NotFound
from noria.warehouse.locality import find_locality
from noria.warehouse.partitions import parse_partition

SCHEMAS = {
    "visits": ["id", "city", "seen_at", "length"],
    "prices": ["quoted_at", "price"],
    "cities": ["city", "name"],
}


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(
        daily=DAILY,
        big="-- materialize: view\nselect *, total / n as mean from daily where total > 1",
        shops="""
            with b as (select * from big)
            select shop, max(mean) as best, count(*) as days from b group by shop
        """,
        odd="select columns('s.*') from daily",
    )
    made.add(orders((0, "a", 10)))
    made.transform()
    return made


def test_a_column_is_followed_through_views_and_models(shop: SmallProject) -> None:
    with shop.open() as project:
        found = project.column_lineage("shops", "best")
        assert [f"{each.table}.{each.column}" for each in found.sources] == ["daily.n", "daily.total"]
        assert [f"{each.table}.{each.column}" for each in found.roots] == ["orders.amount"]
        assert not found.approximate
        assert project.column_lineage("daily", "n").sources == ()
        with pytest.raises(NotFound, match=r"did you mean 'shops\.best'"):
            project.column_lineage("shops", "bets")


def test_where_the_sql_does_not_tell_all_columns_of_the_inputs_are_named(shop: SmallProject) -> None:
    with shop.open() as project:
        found = project.column_lineage("odd", "shop")
    assert found.approximate
    assert {each.column for each in found.sources} == {"day", "shop", "n", "total"}


def test_a_table_is_shown_as_a_whole(shop: SmallProject, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "show", "shops", "--project", str(shop.root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["columns"][1] == {
        "name": "best",
        "type": "double",
        "sources": ["daily.n", "daily.total"],
        "approximate": False,
    }
    assert (told["version"], told["rows"], told["inputs"]) == ("shops:1", 1, ["big"])
    assert told["now"] == "unchanged: nothing that it depends on has changed"
    assert main(["table", "show", "big", "--project", str(shop.root)]) == 0
    assert "read by  shops" in capsys.readouterr().out
    assert main(["table", "show", "orders", "--project", str(shop.root)]) == 0
    assert main(["table", "show", "nope", "--project", str(shop.root)]) == 3


@pytest.mark.parametrize(
    ("sql", "local"),
    [
        ("select *, seen_at::date as day from visits", {"visits": "seen_at"}),
        (
            "select date_trunc('day', seen_at) as day, count(*) from visits group by all",
            {"visits": "seen_at"},
        ),
        ("select date_trunc('hour', seen_at) as day, count(*) from visits group by 1", {"visits": "seen_at"}),
        ("select date_trunc('month', seen_at) as day, count(*) from visits group by 1", {}),
        ("select city, max(seen_at) as day from visits group by 1", {}),
        ("select seen_at as day, c.name from visits join cities c using (city)", {"visits": "seen_at"}),
        ("select seen_at as day, row_number() over (order by seen_at) from visits", {}),
        (
            "select seen_at as day, row_number() over (partition by seen_at::date) from visits",
            {"visits": "seen_at"},
        ),
        (
            "select v.day, p.mean from (select seen_at::date as day from visits) v left join "
            "(select quoted_at::date as day, avg(price) as mean from prices group by 1) p using (day)",
            {"visits": "seen_at", "prices": "quoted_at"},
        ),
        (  # what a LEFT JOIN says of the kept side alone holds of no row
            "select v.seen_at as day from visits v join prices p on v.length = p.price "
            "left join cities c on c.city = v.city and v.seen_at = p.quoted_at",
            {"visits": "seen_at"},
        ),
        (
            "select p.quoted_at as day from visits v left join prices p on v.seen_at = p.quoted_at",
            {"prices": "quoted_at"},
        ),
        (
            "select v.seen_at as day, row_number() over (partition by p.quoted_at) from visits v "
            "left join prices p on v.seen_at = p.quoted_at",
            {},
        ),
        (
            "select v.seen_at as day from visits v anti join prices p on v.seen_at = p.quoted_at",
            {"visits": "seen_at", "prices": "quoted_at"},
        ),
        ("select v.seen_at as day from visits v anti join visits w on v.city = w.city and w.length > 9", {}),
        (
            "select v.seen_at as day from visits v join visits w on v.seen_at = w.seen_at "
            "left join prices p on p.quoted_at = w.seen_at",
            {"visits": "seen_at", "prices": "quoted_at"},
        ),
        ("select seen_at as day, (select max(price) from prices) from visits", {"visits": "seen_at"}),
        ("with v as (select * from visits) select seen_at as day, (select count(*) from v) from v", {}),
        (
            "select seen_at as day from visits union all select quoted_at from prices",
            {"visits": "seen_at", "prices": "quoted_at"},
        ),
        ("select seen_at as day from visits order by day limit 5", {}),
        ("select v.seen_at as day, w.id from visits v join visits w on v.city = w.city", {}),
        ("select v.seen_at as day from visits v asof join prices p on v.seen_at >= p.quoted_at", {}),
        ("select (seen_at at time zone 'America/New_York')::date as day from visits", {}),
        ("select seen_at + interval 1 day as day from visits", {}),
        ("select day, id from seen", {"visits": "seen_at"}),
    ],
)
def test_inputs_are_local_where_the_sql_keeps_to_their_time(sql: str, local: dict[str, str]) -> None:
    views = {"seen": "select id, seen_at::date as day from visits"}
    found = find_locality(sql, partition=parse_partition("day(day)"), schemas=SCHEMAS, views=views)
    assert found.columns == local
    assert local or found.reasons
