"""What `noria transform` says, and the code it ends with."""

from pathlib import Path

import pytest
from tests.warehouse.small_project import SmallProject, orders

from noria.cli.entry import main

DAILY = """
-- materialize: incremental
-- partition: day(day)
select date_trunc('day', placed_at) as day, sum(amount) as total from orders group by all
"""


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(plain="select shop, amount from orders", daily=DAILY)
    made.add(orders((0, "a", 10), (1, "b", 5)))
    return made


def test_a_plan_ends_as_the_run_would(shop: SmallProject) -> None:
    command = ["transform", "--plan", "--project", str(shop.root)]
    assert main(command) == 0
    shop.models(wrong="select n from nowhere", after="select n from wrong")
    assert main(command) == 1
    assert main([*command, "--json"]) == 1
    assert main([*command, "plain"]) == 0
    assert main(["transform", "--project", str(shop.root)]) == 1


def test_a_time_for_a_model_without_partitions_is_told(
    shop: SmallProject, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.transform()
    command = ["transform", "--project", str(shop.root), "--since", "2026-01-01"]
    assert main([*command, "plain"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "plain is not incremental: a time (--since, --until) chooses partitions" in told
    assert "build it as a whole by --full, or make it incremental (`-- materialize: incremental`" in told
    assert main([*command, "plain", "--plan"]) == 0
    assert "plain is not incremental" in capsys.readouterr().out
    assert main([*command, "daily"]) == 0
    assert "not incremental" not in capsys.readouterr().out
    assert main(command) == 0
    assert "incremental" not in capsys.readouterr().out
    (shop.root / "models" / "daily.sql").unlink()
    assert main(command) == 0
    assert "no model is incremental" in capsys.readouterr().out


def test_a_test_over_several_tables_that_cannot_be_run_is_told_with_its_line(shop: SmallProject) -> None:
    shop.write({"models/tests/odd.sql": "-- about amounts\nselect *\nfrom plain\nwhere amont < 0"})
    told = shop.reasons()["plain"]
    assert "test odd: Referenced column" in told
    assert "did you mean 'amount'? (line 4: where amont < 0)" in told
    assert "__noria" not in told
