"""Datasets that go stale between their batches: told at once, on record once, and a reason to fetch."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest
from tests.workspace.up_harness import Up

import noria
from noria.clock import ReplayClock
from noria.errors import ConfigError, StoreError
from noria.records import Event
from noria.replay.declarations import Replay
from noria.triggers.reconcile import Choice, reconcile
from noria.workspace.doctor import Health, examine
from noria.workspace.freshness import FreshnessWatch, standing_at, told_stale
from noria.workspace.project import Project
from noria.workspace.status import project_status
from noria.workspace.up.records import Notice

DECLARED = """
import noria
from noria import check

sales = noria.Dataset(
    "sales", key="id", event_at="sold_at", checks=[check.fresh("{age}"), check.fresh("30d", severity="warn")])
shops = noria.Dataset("shops", key="id", event_at="sold_at")

@noria.step
def look_there() -> int:
    return 1

@noria.pipeline
def fetch() -> None:
    look_there()

again = noria.Trigger(noria.stale(sales), run=fetch)
"""
AT = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make(folder: Path, age: str) -> Path:
    (folder / "noria.toml").write_text(
        '[project]\nname = "shop"\nmodules = ["fresh_declared"]\n[server]\nport = 0\nlook_every_s = 0.25\n'
    )
    (folder / "fresh_declared.py").write_text(DECLARED.replace("{age}", age))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with noria.open(make(tmp_path, "2h")) as opened:
        opened.follow(ReplayClock(AT))
        yield opened


def feed(project: Project, name: str, at: datetime) -> None:
    kind = pa.timestamp("us", "UTC")
    project.ingest("sales", pa.table({"id": [name], "sold_at": pa.array([at], kind)}), at=at)
    project.ingest("shops", pa.table({"id": [name], "sold_at": pa.array([at], kind)}), at=at)


def on_record(project: Project) -> list[Event]:
    events = project.ledger.list_events(verb="dataset.*")
    return [each for each in events if each.verb in {"dataset.stale", "dataset.fresh"}]


def test_a_dataset_is_stale_once_and_fresh_once_it_is_fed(project: Project) -> None:
    told: list[Notice] = []
    first, second = (FreshnessWatch(project, tell=told.append) for _ in range(2))
    first.look()
    feed(project, "a", AT)
    for passed in (0, 1, 2):
        project.follow(ReplayClock(AT + passed * HOUR))
        first.look()
    assert on_record(project) == []  # two hours is what is allowed
    for minutes in (1, 2, 3):
        project.follow(ReplayClock(AT + 2 * HOUR + timedelta(minutes=minutes)))
        first.look()
        second.look()  # of another process that leads since
    (event,) = on_record(project)
    assert (event.verb, event.subject, event.at) == ("dataset.stale", "sales", AT + timedelta(minutes=121))
    assert event.payload == {
        "reason": "dataset sales is stale: the newest sold_at is 2:01:00 old, wanted at most 2:00:00",
        "age_s": 7_260,
        "max_age_s": 7_200.0,
    }
    assert event.cause is not None
    assert project.ledger.get_event(event.cause).verb == "dataset.ingested"
    feed(project, "late", AT + timedelta(seconds=1))  # older than wanted: it stays stale
    first.look()
    feed(project, "b", AT + 2 * HOUR)
    for _ in range(2):
        first.look()
        second.look()
    assert [each.verb for each in on_record(project)] == ["dataset.stale", "dataset.fresh"]
    project.follow(ReplayClock(AT + 5 * HOUR))
    first.look()
    assert [each.verb for each in on_record(project)] == ["dataset.stale", "dataset.fresh", "dataset.stale"]
    assert [each.message.split(":")[0] for each in told] == [
        "dataset sales is stale", "dataset sales is fresh", "dataset sales is stale",
    ]  # fmt: skip
    assert project.ledger.verify().ok


def test_the_status_is_told_though_a_table_cannot_be_read(project: Project) -> None:
    feed(project, "a", AT)
    log = project.state / "storage" / "tables" / "sales" / "_delta_log"
    (log / f"{2:020d}.json").write_text("{torn")
    with noria.open(project.root) as opened:
        shops, sales = sorted(project_status(opened).datasets, key=lambda each: each.name, reverse=True)
        assert (shops.unreadable, sales.rows, sales.stale) == (None, 1, None)
        assert sales.unreadable is not None
        assert "cannot be read" in sales.unreadable
        assert "\n" not in sales.unreadable
        with pytest.raises(StoreError, match="cannot be read"):
            opened.datasets.list()


def test_it_shows_at_once_without_anything_that_runs(project: Project) -> None:
    assert {each.stale for each in project_status(project).datasets} == {None}
    feed(project, "a", AT)
    assert {each.stale for each in project_status(project).datasets} == {None}
    project.follow(ReplayClock(AT + 3 * HOUR))
    told = "the newest sold_at is 3:00:00 old, wanted at most 2:00:00"
    assert {each.name: each.stale for each in project_status(project).datasets} == {
        "sales": told,
        "shops": None,
    }
    assert project.datasets.show("sales").summary.stale == told
    assert {each.name: each.stale for each in project.datasets.list()} == {"sales": told, "shops": None}
    assert on_record(project) == []
    (found,) = [each for each in examine(project.root) if each.check == "freshness"]  # by the wall's clock
    assert found.health is Health.WARN
    assert found.found.startswith("dataset sales is stale: the newest sold_at is ")
    assert "noria dataset show sales" in found.todo


def test_what_a_replay_takes_in_is_as_old_as_the_replay_says(project: Project) -> None:
    """From its first event on, while history is taken in: else `noria up` would tell of decades."""
    watch = FreshnessWatch(project, tell=lambda notice: None)
    project.declarations.replays["past"] = cast("Replay", object())
    past = datetime(1999, 5, 1, tzinfo=UTC)
    for verb, at, stale in (
        ("replay.began", past, set()),
        ("replay.day_done", past + HOUR, set()),
        ("replay.day_done", past + 4 * HOUR, {"sales"}),
        ("replay.began", past + HOUR, set()),
    ):
        project.ledger.append(verb, subject="past", payload={"reason": "so it is"}, at=at)
        if not project.lake.exists("sales"):
            feed(project, "a", past)
        assert standing_at(project) == at
        assert set(told_stale(project)) == stale
        watch.look()
    assert [each.verb for each in on_record(project)] == ["dataset.stale", "dataset.fresh"]


def test_a_trigger_runs_once_for_each_time_that_it_goes_stale(project: Project) -> None:
    trigger = project.declarations.triggers["fetch"]
    watch = FreshnessWatch(project, tell=lambda notice: None)
    made = []
    for hours, is_fed in ((0, True), (3, False), (4, False), (5, True), (6, False), (9, False)):
        at = AT + hours * HOUR
        project.follow(ReplayClock(at))
        if is_fed:
            feed(project, f"fed at {hours}", at)
        watch.look()
        made += [(hours, each) for each in reconcile(project.ledger, [trigger], at=at)]
    assert [(hours, each.choice) for hours, each in made] == [(3, Choice.RUN), (9, Choice.RUN)]
    assert made[0][1].reason.startswith(
        "run fetch: dataset sales is stale: the newest sold_at is 3:00:00 old"
    )
    (armed,) = project.ledger.list_events(verb="trigger.armed")
    assert armed.payload["datasets"] == ["sales"]


def test_no_training_is_run_because_data_is_missing(project: Project) -> None:
    class Model:
        name = "late_arrival"

    with pytest.raises(ConfigError, match="run a pipeline that fetches it"):
        noria.Trigger(noria.stale(project.declarations.dataset("sales")), run=Model())


def test_noria_up_notices_it_and_fetches(tmp_path: Path) -> None:
    with noria.open(make(tmp_path, "6s")) as project:
        feed(project, "a", datetime.now(UTC))
        up = Up([sys.executable, "-m", "noria", "up", "--json", "--project", str(tmp_path)], cwd=tmp_path)
        try:
            trigger = up.wait_for("trigger")
            assert trigger["message"] == "fetch runs fetch when sales is stale"
            up.wait_for("data", lambda told: "sales is stale" in told["message"])
            ended = up.wait_for("ended")
            assert (ended["facts"]["pipeline"], ended["facts"]["outcome"]) == ("fetch", "finished")
            feed(project, "b", datetime.now(UTC) + timedelta(hours=1))
            up.wait_for("data", lambda told: "sales is fresh" in told["message"])
            assert up.stop() == 0
            assert up.errors == ""
        finally:
            up.kill()
        assert [each.verb for each in on_record(project)] == ["dataset.stale", "dataset.fresh"]
