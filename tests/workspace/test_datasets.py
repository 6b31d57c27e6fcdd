"""The catalogue: what there is, where it comes from, who reads it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import noria
from noria.errors import BatchBlocked, ConfigError, NotFound
from noria.workspace.project import Project

DECLARED = """
import noria
from noria import agg, check

sales = noria.Dataset(
    "sales", key="id", event_at="sold_at", known_at="synced_at", files="data/*.csv", max_rejected_share=0.5,
    checks=[check.between("n", 0, 100)], owner="ann", description="What was sold.", tags=("money", "daily"))
nothing = noria.Dataset("nothing", key="id", event_at="at")
shop = noria.FeatureView("shop", source=sales, entity="id", features={"n_7d": agg.count(window="7d")})
"""
DAY = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["catalogue_declared"]\n')
    (tmp_path / "catalogue_declared.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        yield opened


def land(project: Project, day: int, **columns: object) -> None:
    at = DAY + timedelta(days=day)
    made = {"id": [f"{day}a", f"{day}b"], "n": [1, 2], "sold_at": [at, at], "synced_at": [at, at]}
    project.ingest("sales", pa.table({**made, **columns}), at=at)


def test_what_is_declared_and_what_has_landed_is_listed(project: Project) -> None:
    assert [(each.name, each.version) for each in project.datasets.list()] == [
        ("nothing", None),
        ("sales", None),
    ]
    assert not project.has_begun
    land(project, 0)
    land(project, 1, n=[1, 999])
    old = noria.Dataset("old", key="id", event_at="at")
    project.lake.ingest(old, pa.table({"id": [1], "at": pa.array([DAY], pa.timestamp("us", "UTC"))}), batch=1)
    nothing, before, sales = project.datasets.list()
    assert (nothing.rows, nothing.is_declared, before.name, before.is_declared) == (None, True, "old", False)
    assert (sales.version, sales.rows, sales.rejected, sales.is_blocked) == (2, 3, 1, False)
    assert (sales.owner, sales.description, sales.tags) == ("ann", "What was sold.", ("money", "daily"))
    assert sales.landed_at == DAY + timedelta(days=1)
    with pytest.raises(BatchBlocked):
        land(project, 2, n=[998, 999])
    assert project.datasets.list()[2].is_blocked
    land(project, 3)
    assert project.datasets.list()[2].is_blocked
    project.release("sales", reason="that day was sold nothing")
    assert not project.datasets.list()[2].is_blocked


def test_all_about_one_is_shown(project: Project) -> None:
    land(project, 0)
    land(project, 1)
    newest = project.ledger.get_version("dataset", "sales")
    with project.ledger.running("train", "late") as run:
        project.ledger.add_input(run.id, newest.id)
        project.ledger.record_version("model", "late", sha256="0" * 64, uri="late", run=run.id)
    shown = project.datasets.show("sales")
    assert (shown.key, shown.event_at, shown.known_at) == (("id",), "sold_at", "synced_at")
    assert shown.checks == ("between(n, 0, 100)",)
    assert shown.newest_event_at == shown.newest_known_at == DAY + timedelta(days=1)
    assert {each.name: (each.type, each.nulls) for each in shown.columns}["n"] == ("int64", 0)
    assert [each.ref for each in shown.versions] == ["sales:2", "sales:1"]
    assert [(each.version, each.source, each.accepted) for each in shown.writers] == [
        ("sales:2", "frame", 2),
        ("sales:1", "frame", 2),
    ]
    assert [(each.kind, each.name, each.versions, each.wrote) for each in shown.readers] == [
        ("feature view", "shop", (), ()),
        ("train", "late", ("sales:2",), ("late:1",)),
    ]
    assert shown.size_bytes is not None
    with pytest.raises(NotFound, match="did you mean 'sales'"):
        project.datasets.show("sale")


def test_what_has_not_landed_can_be_shown(project: Project) -> None:
    shown = project.datasets.show("nothing")
    assert (shown.columns, shown.versions, shown.writers, shown.newest_event_at) == ((), (), (), None)
    assert not project.has_begun


def test_rows_are_read_as_they_are_and_as_they_were(project: Project) -> None:
    with pytest.raises(NotFound, match="no table named 'sales'"):
        list(project.datasets.read("sales"))
    land(project, 0)
    land(project, 5)

    def ids(**when: object) -> list[str]:
        batches = project.datasets.read("sales", **when)  # type: ignore[arg-type]
        return sorted(each for batch in batches for each in batch["id"].to_pylist())

    assert ids() == ["0a", "0b", "5a", "5b"]
    assert ids(version=1) == ids(at="2024-01-03") == ids(at=DAY) == ["0a", "0b"]
    assert project.datasets.schema("sales").names == ["id", "n", "sold_at", "synced_at"]
    with pytest.raises(ConfigError, match="give one of them"):
        ids(version=1, at=DAY)
    with pytest.raises(ConfigError, match="'yesterday' is no instant"):
        ids(at="yesterday")
    with pytest.raises(NotFound):
        ids(version=9)
