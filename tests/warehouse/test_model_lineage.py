"""Where columns come from, and which inputs count in their own partition only."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouse.small_project import DAILY, START, SmallProject, orders

from noria.cli import main
from noria.errors import NotFound
from noria.warehouse.forms import Form
from noria.warehouse.lineage import Lineage
from noria.warehouse.locality import find_locality
from noria.warehouse.partitions import parse_partition
from noria.warehouse.records import SourceColumn
from noria.workspace.transforming import open_warehouse

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


X, Y, Z, NAME = "a.x", "a.y", "b.z", "a.name"


SOURCES: list[tuple[str, str, list[str] | None]] = [
    ("with b as (select id, x as z from a) select z from b", "z", [X]),
    ("with t(p, q) as (select x, y from a) select q from t", "q", [Y]),
    ("select z from (with b as (select x as z from a) select z from b) q", "z", [X]),
    ("select x + 1 as y, y * 2 as q from a", "q", [Y]),
    ("select x + 1 as m, m * 2 as q from a", "q", [X]),
    ("select x as v, name from a union all select z, name from b", "v", [X, Z]),
    ("select x as v, name as n from a union all by name select name as n, z as v from b", "v", None),
    ("select sum(x) over (partition by name order by y) as r from a", "r", [NAME, X, Y]),
    ("select t.m from a, lateral (select max(z) as m from b where b.id = a.id) t", "m", None),
    ("select t.m from a, lateral (select a.x + 1 as m) t", "m", [X]),
    ("select name from a join b using (id, name)", "name", [NAME, "b.name"]),
    ("select name from a natural join b", "name", [NAME, "b.name"]),
    ("select a.s.f as f from a", "f", ["a.s"]),
    ("select b.s.f as f from a as b", "f", ["a.s"]),
    ("select a as r from a", "r", None),
    ("select (select max(z) from b where b.id = a.id) as m from a", "m", [Z]),
    ("select (select max(x) from b) as m from a", "m", None),
    ("select (select a.x) as m from a", "m", None),
    ("select a.x + g.i as q from a, generate_series(1, 3) g(i)", "q", [X]),
    ("select g.i as q from a, generate_series(1, a.x) g(i)", "q", None),
    ("select u.e from a, unnest(a.l) as u(e)", "e", ["a.l"]),
    ("select * from (select name, x from a) pivot (sum(x) for name in ('p', 'q'))", "q", [X]),
    ("select val from (select x, y from a) unpivot (val for nm in (x, y))", "val", [X, Y]),
    (
        "with recursive r as (select x as v from a union all select v + 1 from r) select v from r limit 9",
        "v",
        None,
    ),
    ("select * exclude (x) replace (y + x as y) from a", "y", [X, Y]),
    ("select columns('x|y') from a", "x", None),
    ("select unnest(s) from a", "f", None),
]


def test_no_column_is_named_that_another_does_not_come_from(tmp_path: Path) -> None:
    """Where `SOURCES` has None, it has to say that it does not know."""
    at = pa.array([START], pa.timestamp("us", "UTC"))
    made = SmallProject(tmp_path / "shop")
    made.add(
        pa.table({"id": [1], "x": [1], "y": [3], "name": ["p"], "s": [{"f": 1}], "l": [[1]], "at": at}), "a"
    )
    made.add(pa.table({"id": [1], "z": [1], "name": ["p"]}), "b")
    made.models(**{f"m{place}": sql for place, (sql, _, _) in enumerate(SOURCES)})
    assert set(made.transform().values()) == {"built"}
    with made.open() as project:
        for place, (sql, column, wanted) in enumerate(SOURCES):
            told = project.column_lineage(f"m{place}", column)
            found = (
                None if told.approximate else sorted(f"{each.table}.{each.column}" for each in told.sources)
            )
            assert (sql, found) == (sql, wanted)


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


def test_in_what_form_a_column_holds_what_it_comes_from(tmp_path: Path) -> None:
    shop = SmallProject(tmp_path / "forms")
    shop.add(orders((0, "a", 10)))
    shop.models(
        renamed="-- materialize: view\nselect 'shop ' || shop as tag, shop from orders",
        forms="""
            select
                upper(trim(a.shop)) as same,
                min(a.shop) as least,
                list(a.shop) as every,
                case when a.shop = 'a' then a.shop end as one,
                count(distinct a.shop) as many,
                md5(a.shop) as hashed,
                max(v.tag) as tag,
                count(v.tag) as tags,
                case when v.shop like 'x%' then 1 else 0 end as flag,
                coalesce((select min(shop) from orders), '') as inner_one,
                'x' || (select min(shop) from orders) as inner_other
            from orders a join renamed v using (shop) group by all
        """,
        several="select shop as it from orders union all select split_part(shop, ' ', 1) from orders",
    )
    assert set(shop.transform().values()) <= {"built", "view"}
    with shop.open() as project:
        lineage = Lineage(open_warehouse(project).graph, lambda name: project.lake.schema(name).names)
        names = lineage.columns("forms")
        root = SourceColumn("orders", "shop")
        told = {name: lineage.forms("forms", name)[root].name for name in names}
        assert told == {
            "same": "SAME",
            "least": "AMONG",
            "every": "AMONG",
            "one": "AMONG",
            "many": "COUNTED",
            "hashed": "CHANGED",
            "tag": "CHANGED",
            "tags": "COUNTED",
            "flag": "COUNTED",
            "inner_one": "AMONG",
            "inner_other": "CHANGED",
        }
        assert lineage.forms("several", "it") == {root: Form.CHANGED}
