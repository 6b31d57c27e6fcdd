"""Kept results that nobody needs any more are forgotten: those and no others, all at once or not at all."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from tests.pipelines.conftest import MakeProject
from tests.servers.postgres import postgres_server, postgres_url

import noria
from noria.errors import ConfigError, Conflict, StepFailed
from noria.pipelines.kept import look_at_kept
from noria.pipelines.pruning import Pruned, prune
from noria.pipelines.tables import step_cache, step_values
from noria.records import sha256_hex

__all__ = ["postgres_server", "postgres_url"]  # fixtures

DRIVER = Path(__file__).with_name("prune_driver.py")
RUN_DRIVER = Path(__file__).with_name("run_driver.py")
WORK = """
import noria


@noria.step
def texts(n: int) -> list[str]:
    print("texts of", n)
    return [f"item {number} of {n}" for number in range(n)]


@noria.step
def shout(text: str) -> str:
    return text.upper()


@noria.step
def large(n: int) -> bytes:
    return bytes([n]) * 40_000


@noria.step
def total(shouted: list[str], data: bytes) -> int:
    return len("".join(shouted)) + len(data)


@noria.step
def strict(total: int, most: int) -> int:
    if total > most:
        raise ValueError("too much")
    return total


@noria.pipeline
def work(n: int = 3) -> int:
    return total(shout.map(text=texts(n))(), large(n))


@noria.pipeline
def strictly(n: int = 3, most: int = 100_000) -> int:
    return strict(total(shout.map(text=texts(n))(), large(n)), most)
"""
TASKS = {1: 4, 2: 5, 3: 6}  # of `work`, by n


@pytest.fixture(params=["sqlite", "postgresql"])
def project(make_project: MakeProject, request: pytest.FixtureRequest) -> Iterator[noria.Project]:
    stores = ""
    if request.param == "postgresql":
        stores = f'[stores]\ndatabase = "{request.getfixturevalue("postgres_url")}"\n'
    with noria.open(make_project({"steps.py": WORK}, f'[compute]\nexecutor = "inline"\n{stores}')) as opened:
        yield opened


@pytest.fixture
def sqlite_project(make_project: MakeProject) -> Iterator[noria.Project]:
    with noria.open(make_project({"steps.py": WORK}, '[compute]\nexecutor = "inline"\n')) as opened:
        yield opened


def pruned(project: noria.Project, before: datetime, *, dry_run: bool = False) -> Pruned:
    return prune(project.ledger, project.storage, before=before, dry_run=dry_run)


def count_rows(project: noria.Project, table: Any) -> int:
    with project.ledger.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar() or 0)


def run(project: noria.Project, n: int, *, pipeline: str = "work") -> dict[str, int]:
    return project.run_pipeline(pipeline, {"n": n}).counts


def test_what_no_run_since_has_used_is_forgotten_and_made_again(project: noria.Project) -> None:
    run(project, 3)
    run(project, 2)
    mark = datetime.now(UTC)
    assert run(project, 2) == {"cached": TASKS[2]}
    values = count_rows(project, step_values)
    would = pruned(project, mark, dry_run=True)
    assert (would.results, would.kept, would.is_dry) == (TASKS[3], TASKS[2], True)
    assert count_rows(project, step_cache) == TASKS[2] + TASKS[3]
    assert project.ledger.list_events(verb="results.pruned") == []
    told = pruned(project, mark)
    assert (told.results, told.steps) == (
        TASKS[3],
        {"work/large": 1, "work/shout": 3, "work/texts": 1, "work/total": 1},
    )
    assert (told.freed_bytes, told.left_bytes) == (would.freed_bytes, would.left_bytes)
    assert told.left_bytes > 40_000
    assert told.freed_bytes > 0
    assert count_rows(project, step_cache) == told.kept == TASKS[2]
    assert count_rows(project, step_values) < values
    (event,) = project.ledger.list_events(verb="results.pruned")
    assert (event.payload["results"], event.payload["freed_bytes"]) == (told.results, told.freed_bytes)
    assert project.ledger.verify().ok
    assert run(project, 2) == {"cached": TASKS[2]}
    assert run(project, 3) == {"ran": TASKS[3]}
    assert pruned(project, mark).results == 0
    assert len(project.ledger.list_events(verb="results.pruned")) == 1


def test_what_something_else_names_stays(sqlite_project: noria.Project) -> None:
    project = sqlite_project
    first = project.run_pipeline("work", {"n": 3}, key="monday")
    log = project.runs.log(next(each for each in project.runs.steps(first.run) if each.name == "work/texts"))
    with project.ledger.database.read() as connection:
        stored = dict(connection.execute(select(step_values.c.sha256, step_values.c.data)).all())
    shouted = next(sha256 for sha256, data in stored.items() if b"ITEM 1 OF 3" in data)
    report = project.ledger.record_version("report", "mine", sha256=shouted, uri=f"values:{shouted}")
    pruned(project, datetime.now(UTC))
    store = project.engine.store
    assert store.known_values([report.sha256]) == {shouted}  # a version
    assert not store.known_values([sha256 for sha256, data in stored.items() if b"ITEM 2 OF 3" in data])
    assert log == b"texts of 3\n"
    assert store.known_values([sha256_hex(log)])  # a log
    again = project.run_pipeline("work", {"n": 3}, key="monday")  # what a run gave
    assert (again.run.id, again.value) == (first.run.id, first.value)


def test_what_a_run_that_failed_had_used_stays(sqlite_project: noria.Project) -> None:
    project = sqlite_project
    run(project, 3)
    mark = datetime.now(UTC)
    with pytest.raises(StepFailed):
        project.run_pipeline("strictly", {"n": 3, "most": 1})
    assert pruned(project, mark).results == 0
    assert pruned(project, datetime.now(UTC)).results == TASKS[3]


def test_what_a_killed_run_was_made_of_stays(sqlite_project: noria.Project) -> None:
    project = sqlite_project
    run(project, 3)
    mark = datetime.now(UTC)
    with pytest.raises(KeyboardInterrupt), project.ledger.running("pipeline", "work"):
        raise KeyboardInterrupt
    assert pruned(project, mark).results == 0


def test_while_a_pipeline_is_at_work_nothing_is_forgotten(sqlite_project: noria.Project) -> None:
    project = sqlite_project
    run(project, 3)
    with project.ledger.running("pipeline", "other") as at_work:
        with pytest.raises(Conflict, match=rf"at work: other \({at_work.id[:16]}\)"):
            pruned(project, datetime.now(UTC))
        assert pruned(project, datetime.now(UTC), dry_run=True).results == TASKS[3]
    assert count_rows(project, step_cache) == TASKS[3]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_leaves_all_of_it_or_nothing(sqlite_project: noria.Project, when: str) -> None:
    project = sqlite_project
    run(project, 3)
    done = subprocess.run([sys.executable, str(DRIVER), str(project.root), when], check=False)
    assert done.returncode == -signal.SIGKILL
    assert count_rows(project, step_cache) == (TASKS[3] if when == "before" else 0)
    assert len(project.ledger.list_events(verb="results.pruned")) == (0 if when == "before" else 1)
    assert project.ledger.verify().ok
    assert pruned(project, datetime.now(UTC)).results == (TASKS[3] if when == "before" else 0)
    assert "its kept result is gone" in project.plan_pipeline("work", {"n": 3}).items[0].reason
    assert run(project, 3) == {"ran": TASKS[3]}


def test_runs_that_start_meanwhile_give_what_they_would(sqlite_project: noria.Project) -> None:
    project = sqlite_project
    right = project.run_pipeline("work", {"n": 2}).outputs
    forgotten = refused = 0
    for _ in range(3):
        runner = subprocess.Popen(
            [sys.executable, str(RUN_DRIVER), str(project.root), "work", "inline", '{"n": 2}'],
            stdout=subprocess.PIPE,
            text=True,
        )
        while runner.poll() is None:
            try:
                forgotten += pruned(project, datetime.now(UTC)).results
            except Conflict:
                refused += 1
        assert runner.stdout is not None
        with runner.stdout as lines:
            said = json.loads(lines.read().splitlines()[-1])  # after what the step printed
        assert (runner.returncode, said["outputs"]) == (0, right), said
    assert forgotten >= TASKS[2]
    assert refused > 0
    assert project.ledger.verify().ok


def test_what_cannot_be_an_age_is_refused(sqlite_project: noria.Project) -> None:
    with pytest.raises(ConfigError, match="older_than: 'soon' is no duration"):
        sqlite_project.prune_results(older_than="soon")
    with pytest.raises(ConfigError, match="give how long ago"):
        sqlite_project.prune_results(older_than=timedelta(days=-1))
    run(sqlite_project, 2)
    assert sqlite_project.prune_results().results == 0
    assert sqlite_project.prune_results(older_than=timedelta(0)).results == TASKS[2]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    early=st.lists(st.sampled_from([1, 2, 3]), max_size=3), late=st.lists(st.sampled_from([1, 2]), max_size=2)
)
def test_runs_since_find_everything_and_others_make_it_again(
    sqlite_project: noria.Project, early: list[int], late: list[int]
) -> None:
    project = sqlite_project
    values = {n: project.run_pipeline("work", {"n": n}).value for n in early}
    mark = datetime.now(UTC)
    for n in late:
        run(project, n)
    told = pruned(project, mark)
    assert told.kept == sum(TASKS[n] for n in set(late))
    state = look_at_kept(project.engine.store, project.storage)
    assert (state.results, state.gone) == (told.kept, ())
    for n in late:
        assert project.plan_pipeline("work", {"n": n}).stale == ()
    for n, value in values.items():
        assert project.run_pipeline("work", {"n": n}).value == value
