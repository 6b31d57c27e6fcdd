"""The table of a model that was removed can be dropped, where nothing reads it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouse.small_project import SmallProject, orders

import noria
from noria.cli.entry import main
from noria.errors import Conflict, NotFound


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(daily="select shop, amount from orders", total="select sum(amount) as total from daily")
    made.add(orders((0, "a", 10), (1, "b", 5)))
    made.transform()
    return made


def remove(shop: SmallProject, *models: str) -> None:
    for each in models:
        (shop.root / "models" / f"{each}.sql").unlink()


def test_a_dropped_table_is_gone_and_its_versions_stay_readable(shop: SmallProject) -> None:
    remove(shop, "total")
    with shop.open() as project:
        project.query("select * from total")
        done = project.drop_table("total", reason="nobody reads it")
        assert (done.rows, done.versions) == (1, ("total:1",))
        assert "total" not in project.lake.names()
        with pytest.raises(NotFound, match="no table named 'total'"):
            project.query("select * from total")
        project.lake.vacuum("total", retention=timedelta(0))
        assert project.lake.read("total", version=1).to_pylist() == [{"total": 15}]
        event = project.ledger.list_events(verb="table.dropped")[0]
        assert (event.subject, event.payload["rows"], event.payload["reason"]) == (
            "total",
            1,
            "nobody reads it",
        )
        assert project.ledger.verify().ok
        with pytest.raises(NotFound, match="no table named 'total'"):
            project.drop_table("total", reason="again")


def test_a_model_of_the_name_of_a_dropped_table_begins_anew(shop: SmallProject) -> None:
    remove(shop, "total")
    with shop.open() as project:
        project.drop_table("total", reason="to be counted, not summed")
        shop.models(total="select count(*) as n, 'x' as what from daily")
        assert project.transform().of("total").state == "built"
        assert project.lake.read("total").to_pylist() == [{"n": 2, "what": "x"}]
        assert project.lake.read("total", version=1).to_pylist() == [{"total": 15}]
        assert project.transform().of("total").state == "unchanged"


def test_a_dataset_of_the_name_of_a_dropped_table_has_columns_of_its_own(shop: SmallProject) -> None:
    at = pa.array([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    counted = noria.Dataset("total", key="total", event_at="at")
    remove(shop, "total")
    with shop.open() as project:
        project.drop_table("total", reason="it is counted elsewhere")
        (done,) = project.ingest(counted, pa.table({"total": ["fifteen"], "at": at}))
        assert (done.state, done.accepted) == ("landed", 1)
        assert project.lake.schema("total").names == ["total", "at", "known_at"]
        assert project.lake.read("total")["total"].to_pylist() == ["fifteen"]
        assert project.lake.read("total", version=1).to_pylist() == [{"total": 15}]
        assert done.version is not None
        assert done.version.ref == "total:2"
        assert project.ledger.verify().ok


def test_the_same_model_again_is_built_though_nothing_changed(shop: SmallProject) -> None:
    text = (shop.root / "models" / "total.sql").read_text()
    remove(shop, "total")
    with shop.open() as project:
        project.drop_table("total", reason="by mistake")
    shop.write({"models/total.sql": text})
    assert shop.transform("total")["total"] == "built"
    assert shop.rows("total") == [{"total": 15}]


def test_what_others_read_is_not_dropped(shop: SmallProject) -> None:
    remove(shop, "daily")
    with shop.open() as project, pytest.raises(Conflict, match=r"models/total\.sql still read the table"):
        project.drop_table("daily", reason="x")
    remove(shop, "total")
    shop.write(
        {
            "models/other.sql": "select 1 as n",
            "models/tests/none.sql": "select d.* from daily d, other o where d.amount < o.n",
        }
    )
    with shop.open() as project, pytest.raises(Conflict, match=r"models/tests/none\.sql still read"):
        project.drop_table("daily", reason="x")
    (shop.root / "models" / "tests" / "none.sql").unlink()
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_views"]\n',
            "shop_views.py": """
                import noria
                from noria import agg, check

                daily = noria.Dataset("daily", key="shop", event_at="at")
                shops = noria.FeatureView("shops", source=daily, entity="shop",
                                          features={"n": agg.count(window="1d")})
                """,
        }
    )
    with shop.open() as project, pytest.raises(Conflict, match="the feature view 'shops' still read"):
        project.drop_table("daily", reason="x")
    shop.write(
        {
            "shop_views.py": """
                import noria
                from noria import check

                known = check.references("shop", "daily", "shop")
                sales = noria.Dataset("sales", key="shop", event_at="at", checks=[known])
                """
        }
    )
    with shop.open() as project, pytest.raises(Conflict, match="a check of the dataset 'sales' still read"):
        project.drop_table("daily", reason="x")


def test_only_tables_whose_model_is_gone_are_dropped(shop: SmallProject) -> None:
    with shop.open() as project:
        with pytest.raises(
            Conflict, match=r"models/total\.sql makes the table 'total'.*remove the model first"
        ):
            project.drop_table("total", reason="x")
        with pytest.raises(
            Conflict, match=r"no model has made the table 'orders'.*noria dataset delete orders"
        ):
            project.drop_table("orders", reason="x")
        with pytest.raises(NotFound, match="did you mean 'total'"):
            project.drop_table("totl", reason="x")
        assert project.lake.read("total").num_rows == 1
        assert not project.ledger.list_events(verb="table.dropped")


def test_the_command_wants_a_reason_and_records_who_asked(
    shop: SmallProject, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(shop, "total")
    command = ["table", "drop", "total", "--project", str(shop.root)]
    assert main(command) == 2
    assert "--reason" in capsys.readouterr().err
    assert main([*command, "--reason", "not needed"]) == 0
    told = capsys.readouterr().out
    assert "The table total with 1 row is dropped. 1 version on record can be read still" in told
    assert "noria dataset read total --version 1" in " ".join(told.split())
    with shop.open() as project:
        dropped = project.ledger.list_events(verb="table.dropped")[0]
        asked = project.ledger.get_event(dropped.cause or "")
        assert (asked.verb, asked.payload["reason"]) == ("person.asked", "not needed")
    assert main(["dataset", "read", "total", "--version", "1", "--project", str(shop.root)]) == 0
    assert "15" in capsys.readouterr().out
