"""A transform that is killed leaves old tables as they were, and the next one does what is left."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.warehouse.small_project import DAILY, SmallProject, orders

from noria.records import RunState

# Kills itself on the way into, or out of, a function of noria while it builds a model.
_DRIVER = """
import importlib, os, sys
import noria

module, owner, name, when, model = sys.argv[2:]
thing = importlib.import_module(module)
holder = getattr(thing, owner) if owner else thing
inner = getattr(holder, name)


def killing(*arguments, **named):
    hit = any(model == getattr(each, "name", each) for each in arguments)
    if hit and when == "before":
        os.kill(os.getpid(), 9)
    answer = inner(*arguments, **named)
    if hit and when == "after":
        os.kill(os.getpid(), 9)
    return answer


setattr(holder, name, killing)
with noria.open(sys.argv[1]) as project:
    project.transform()
"""


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.models(
        daily=DAILY, shops="select shop, sum(total) as total from daily group by shop", last="from shops"
    )
    made.add(orders((0, "a", 10), (1, "b", 20)))
    made.transform()
    made.add(orders((1.5, "b", 5), (2, "c", 1)))
    return made


@pytest.mark.parametrize(
    "where",
    [
        ("noria.warehouse.building", "", "store", "before", "shops"),  # built, and not written
        ("noria.lake.delta", "Table", "commit", "before", "shops"),  # written, and not committed
        ("noria.warehouse.building", "", "store", "after", "shops"),  # committed, and not recorded
        ("noria.warehouse.building", "", "store", "after", "daily"),
        ("noria.warehouse.running", "Runner", "_record", "after", "shops"),  # recorded
    ],
)
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_and_the_next_run_completes(
    shop: SmallProject, where: tuple[str, ...]
) -> None:
    before = {name: shop.rows(name) for name in ("daily", "shops", "last")}
    killed = subprocess.run([sys.executable, "-c", _DRIVER, str(shop.root), *where], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (shop.root / ".noria/warehouse/spill-1").mkdir()  # as one that was killed while it spilled would leave
    new = [{"shop": "a", "total": 10}, {"shop": "b", "total": 25}, {"shop": "c", "total": 1}]
    assert shop.rows("last") == before["last"]
    assert shop.rows("shops") in (before["shops"], new)
    assert shop.rows("daily") == before["daily"] or len(shop.rows("daily")) == 3
    with shop.open() as project:
        assert project.transform().is_well
        runs = project.ledger.list_runs(kind="transform")
        assert RunState.RUNNING not in {each.state for each in runs}
        assert project.ledger.verify().ok
    assert shop.rows("last") == shop.rows("shops") == new
    assert shop.transform() == {"daily": "unchanged", "shops": "unchanged", "last": "unchanged"}
    assert not list((shop.root / ".noria/warehouse").glob("spill*"))
