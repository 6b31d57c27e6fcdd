"""What models made of a subject's rows, what killed processes left, and many subjects at once."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.warehouse.small_project import SmallProject, orders

from noria.pipelines.forgetting import forget_results
from noria.pipelines.kept import read_kept
from noria.pipelines.trees import stored_in
from noria.records import Version
from noria.workspace.forgetting.records import Forgetting
from noria.workspace.transforming import open_warehouse

ZOE = "zoe.zwingli"
DECLARED = """
    import noria
    import pyarrow as pa
    sales = noria.Dataset("sales", key="id", event_at="placed_at", known_at="placed_at", schema={
        "id": "int64", "shop": "string", "amount": "int64", "placed_at": "timestamp[us, tz=UTC]"})

    @noria.step
    def drawn(rows: pa.Table) -> bytes:
        return b"a large picture" * 2_000

    @noria.pipeline
    def draw() -> None:
        drawn(sales)
"""


@pytest.fixture
def shop(tmp_path: Path) -> SmallProject:
    made = SmallProject(tmp_path / "shop")
    made.write({"noria.toml": '[project]\nname = "shop"\nmodules = ["shop"]\n', "shop.py": DECLARED})
    return made


def sell(shop: SmallProject, *rows: tuple[float, str, int]) -> None:
    sold = orders(*rows)
    with shop.open() as project:
        project.ingest("sales", sold.append_column("id", pa.array(range(len(rows)), pa.int64())))


def forget(shop: SmallProject, *who: str, dry_run: bool = False) -> Forgetting:
    with shop.open() as project:
        return project.forget("sales", "shop", who, dry_run=dry_run)


def files_with(shop: SmallProject, text: str) -> list[str]:
    return [
        each.name
        for each in sorted((shop.root / ".noria").rglob("*.parquet"))
        if text in str(pq.read_table(each).to_pylist())
    ]


def test_values_that_a_model_made_others_of_are_told_where_no_column_tells_the_rows(
    shop: SmallProject,
) -> None:
    sell(shop, (0, ZOE, 1), (1, "ann", 2))
    shop.models(
        tagged="select 'by ' || shop as who, amount from sales",
        keyed="select id, 'by ' || shop as who from sales",
        named="select shop, md5(shop) as hash, count(*) as n from sales group by all",
        counted="select placed_at, count(distinct shop) as shops from sales group by all",
    )
    shop.transform()
    for dry_run in (True, False):
        done = forget(shop, ZOE, dry_run=dry_run)
        assert {each.name for each in done.left} == {"tagged", "counted"}
        assert "who: an expression" in next(each.told for each in done.left if each.name == "tagged")
    assert {each["who"] for each in shop.rows("tagged")} == {"by ann"}
    assert len(files_with(shop, ZOE)) == 1  # of the older version of `tagged`, as was told
    assert {each.name for each in forget(shop, ZOE).left} == {"tagged", "counted"}


def test_thousands_are_forgotten_at_once(shop: SmallProject) -> None:
    many = [f"customer-{each:05d}" for each in range(3_000)]
    sell(shop, *((0, each, 1) for each in [*many, "ann"]))
    with shop.open() as project:
        project.ledger.append("person.asked", payload={"verb": "look", "reason": f"where is {many[7]}?"})
    done = forget(shop, *many)
    assert (done.rows, done.subjects) == (3_000, 3_000)
    assert [each.held for each in done.of("record")] == [1]
    assert [each["shop"] for each in shop.rows("sales")] == ["ann"]


def killed(shop: SmallProject, patch: str, work: str) -> None:
    """Do some work in a process that a patch kills."""
    code = (
        "import os, signal\nimport noria, pyarrow as pa\n"
        f"from tests.workspace.test_forgetting_in_models import ZOE, orders\n{patch}\n"
        f"with noria.open({str(shop.root)!r}) as project:\n    {work}\n"
    )
    top = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=top, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


DIES = "lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"


def test_links_of_a_killed_transform_go_even_if_its_model_is_gone(shop: SmallProject) -> None:
    sell(shop, (0, ZOE, 1), (1, "ann", 2))
    shop.models(plain="select * from sales")
    killed(
        shop, f"from noria.warehouse.session import Session\nSession.build = {DIES}", "project.transform()"
    )
    links = list((shop.root / ".noria" / "warehouse").rglob("*.parquet"))
    assert len(links) == 1
    (shop.root / "models" / "plain.sql").unlink()
    forget(shop, ZOE)
    assert files_with(shop, ZOE) == []
    assert not list((shop.root / ".noria" / "warehouse").glob("spill*"))


def test_files_that_a_killed_batch_left_are_told_and_a_vacuum_removes_them(shop: SmallProject) -> None:
    sell(shop, (0, ZOE, 1), (1, "ann", 2))
    killed(
        shop,
        f"from noria.lake.delta import Table\nTable.commit = Table.append = {DIES}",
        "project.ingest('sales', orders((2, ZOE, 3)).append_column('id', pa.array([9], pa.int64())))",
    )
    done = forget(shop, ZOE)
    assert [(each.name, each.held) for each in done.left] == [("sales", 1)]
    assert len(files_with(shop, ZOE)) == 1
    with shop.open() as project:
        project.vacuum("sales", retention=timedelta(0))
    assert forget(shop, ZOE).left == ()
    assert files_with(shop, ZOE) == []


def test_a_plan_beside_a_transform_takes_nothing_from_it(shop: SmallProject) -> None:
    sell(shop, (0, "ann", 1))
    shop.models(plain="select * from sales")
    folder = shop.root / ".noria" / "warehouse"
    with shop.open() as project:
        one, other = open_warehouse(project), open_warehouse(project)
        one._opened()
        at_work = set(folder.glob("spill-*"))
        other._opened()
        other.close()
        assert set(folder.glob("spill-*")) == at_work
        assert str(os.getpid()) in next(iter(at_work)).name
        one.close()
    assert not list(folder.glob("spill-*"))


@pytest.mark.parametrize("is_named", [True, False])
def test_bytes_that_a_model_has_too_stay_when_results_go(shop: SmallProject, is_named: bool) -> None:
    sell(shop, (0, ZOE, 1))
    with shop.open() as project:
        project.run_pipeline("draw")
        ledger, storage = project.ledger, project.storage
        with ledger.database.read() as connection:
            (kept,) = read_kept(connection)
        (part,) = stored_in(kept.entry.output)
        made: dict[str, Version | None] = {each.id: each for each in ledger.list_versions(kind="output")}
        made[kept.entry.run] = None
        named = [part.sha256] if is_named else []
        done = forget_results(ledger, storage, made, named=named, why="asked for", cause=None)
        assert (done.results, done.blobs) == (1, 0 if is_named else 1)
        assert storage.exists(part.sha256) == is_named
