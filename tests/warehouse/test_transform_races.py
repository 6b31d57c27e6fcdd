"""What comes to tables while a model is decided about, built, or built in part, is not lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.warehouse.small_project import DAILY, SmallProject, orders

from noria.ledger.store import Ledger
from noria.warehouse.building import Builder


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path / "shop")


def _once_before(patch: pytest.MonkeyPatch, holder: type, name: str, action: Callable[[], None]) -> None:
    """Do something, as another process would, just before a function of noria runs."""
    inner = getattr(holder, name)

    def acting(*arguments: Any, **named: Any) -> Any:
        patch.setattr(holder, name, inner)
        action()
        return inner(*arguments, **named)

    patch.setattr(holder, name, acting)


def _totals(shop: SmallProject) -> list[object]:
    return [each["total"] for each in sorted(shop.rows("daily"), key=lambda row: str(row["day"]))]


def test_rows_that_come_between_the_decision_and_the_build_are_built_next(
    shop: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.models(daily=DAILY)
    shop.add(orders((0, "a", 1), (1, "a", 1)))
    shop.transform()
    shop.add(orders((1, "a", 5)))
    _once_before(monkeypatch, Ledger, "start_run", lambda: shop.add(orders((0, "a", 100))))
    assert shop.transform() == {"daily": "built"}
    assert _totals(shop) == [1, 6]
    assert shop.transform() == {"daily": "built"}
    assert _totals(shop) == [101, 6]
    assert shop.transform() == {"daily": "unchanged"}


def test_rows_that_come_while_a_whole_model_is_built_are_built_next(
    shop: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.models(total="select shop, sum(amount) as total from orders group by all")
    shop.write(
        {"models/tests/known.sql": "select * from total where total <> (select sum(amount) from orders)"}
    )
    shop.add(orders((0, "a", 1)))
    _once_before(monkeypatch, Builder, "_test", lambda: shop.add(orders((0, "a", 100))))
    assert shop.transform() == {"total": "built"}  # its test looks at the orders that it was made from
    assert shop.rows("total") == [{"shop": "a", "total": 1}]
    assert shop.transform() == {"total": "built"}
    assert shop.rows("total") == [{"shop": "a", "total": 101}]
    assert shop.transform() == {"total": "unchanged"}


def test_a_build_names_the_version_that_it_read(shop: SmallProject, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write(
        {
            "noria.toml": '[project]\nname = "shop"\nmodules = ["shop_data"]\n',
            "shop_data.py": """
                import noria

                visits = noria.Dataset("visits", key="id", event_at="at", known_at="at")
            """,
        }
    )

    def come(number: int) -> None:
        path = shop.root / f"{number}.csv"
        path.write_text(f"id,at\n{number},2026-01-01T00:00:00Z\n")
        with shop.open() as project:
            project.ingest("visits", path)

    def inputs() -> list[str]:
        with shop.open() as project:
            run = project.ledger.list_runs(kind="transform", limit=1)[0].id
            edges = [each for each in project.ledger.list_edges(run=run) if each.role == "input"]
            return [project.ledger.get_version_by_id(each.version).ref for each in edges]

    shop.models(many="select count(*) as n from visits")
    come(1)
    _once_before(monkeypatch, Builder, "_test", lambda: come(2))
    shop.transform()
    assert shop.rows("many") == [{"n": 1}]
    assert inputs() == ["visits:1"]
    with shop.open() as project:
        project.lake.compact("visits")
    shop.transform()
    assert shop.rows("many") == [{"n": 2}]
    assert inputs() == ["visits:2"]


def test_a_backfill_does_not_hide_that_other_days_were_changed(shop: SmallProject) -> None:
    shop.models(daily=DAILY)
    shop.add(orders((0, "a", 1), (1, "a", 1), (2, "a", 7)))
    shop.transform()
    with shop.open() as project:
        project.lake.delete("daily", "total = 7", reason="a test")
    assert shop.transform(since="2026-01-01", until="2026-01-02") == {"daily": "built"}
    assert "its table was changed since" in shop.plan()["daily"][1]
    shop.transform()
    assert _totals(shop) == [1, 1, 7]
    assert shop.transform() == {"daily": "unchanged"}


@pytest.mark.parametrize("name", ["daily", "plain"])
def test_a_model_is_built_again_after_rows_of_it_were_forgotten(shop: SmallProject, name: str) -> None:
    shop.models(daily=DAILY, plain="select * from orders")
    shop.add(orders((0, "a", 1), (0, "b", 2), (1, "b", 3)))
    shop.transform()
    for _ in range(2):
        before = shop.files(name)
        with shop.open() as project:
            assert project.lake.forget(name, "shop", ["a"]).rows == 1
        assert {each["shop"] for each in shop.rows(name)} == {"b"}
        assert shop.transform(name) == {name: "built"}
        assert sorted(str(each["shop"]) for each in shop.rows(name)) == ["a", "b", "b"]
        assert shop.transform(name) == {name: "unchanged"}
        assert shop.transform(name, full=True) == {name: "built"}
        assert shop.transform(name) == {name: "unchanged"}
        if name == "daily":  # a day without such rows keeps its very file
            assert shop.files(name)["20260102"] == before["20260102"]
    folder = shop.root / ".noria/storage/tables" / name
    holding = [each for each in folder.glob("*.parquet") if "a" in pq.read_table(each)["shop"].to_pylist()]
    assert len(holding) == 1  # what was forgotten has not come back under its old names
