"""Moving in: what a real MLflow has written is the same when a real client reads it back from noria."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, select
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.workspace.mlflow_stores import (
    POINTS,
    Filled,
    differences,
    filled,  # noqa: F401 - a fixture
    made,  # noqa: F401 - a fixture
    make_project,
    project,  # noqa: F401 - a fixture
    read_back,
)

import noria
from noria.records import RunState, new_id
from noria.tracking.experiments import ExperimentBook

_KILLED_AT = """
import os, signal, sys
import noria
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.importing import RunImporter
from noria.tracking.importing_models import ModelImporter

root, url, place, number = sys.argv[1:]
owners = {"put_file": ArtifactStore, "finish": ModelImporter}
owner = owners.get(place, RunImporter)
original, calls = getattr(owner, place), [0]

def counted(*arguments, **named):
    calls[0] += 1
    if calls[0] > int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)

setattr(owner, place, counted)
with noria.open(root) as project:
    project.import_mlflow(url)
"""


def test_a_store_is_equal_field_by_field_when_it_is_read_back(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
) -> None:
    done = project.import_mlflow(filled.url)
    assert (done.left, done.runs_known) == ([], 0)
    assert (done.experiments, done.runs, done.models, done.files) == (3, 9, 4, 5)
    assert differences(read_back(project, mlflow_program), filled.told) == []
    assert project.ledger.verify().ok
    outer, inner, _ = filled.runs
    assert [each.id for each in project.ledger.list_runs(parent=outer)] == [inner]
    assert project.ledger.get_run(outer).params["leaves"] == "31"
    (event,) = project.ledger.list_events(verb="mlflow.imported")
    assert (event.payload["runs"], event.payload["source"]) == (9, filled.url)


def test_a_second_import_takes_nothing_and_changes_nothing(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
) -> None:
    project.import_mlflow(filled.url)
    before, seq = rows_of(project), project.ledger.list_events(newest_first=True, limit=1)[0].seq
    done = project.import_mlflow(filled.url)
    assert (done.experiments, done.runs, done.points, done.files) == (0, 0, 0, 0)
    assert (done.runs_known, done.left) == (9, [])
    assert rows_of(project) == before
    assert [each.verb for each in project.ledger.list_events(after=seq)] == ["mlflow.imported"]


def test_what_is_new_meanwhile_is_added(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    project.import_mlflow(store.url)
    book = ExperimentBook(project.ledger)
    book.rename(book.get("night shift").id, "day shift")
    outer, inner, _ = store.runs
    with sqlite3.connect(store.database) as connection:
        (at_work,) = connection.execute("SELECT run_uuid FROM runs WHERE name = 'at work'").fetchone()
        for run in (at_work, outer):
            connection.execute("INSERT INTO metrics VALUES ('late', 2.5, 1000, ?, 7, 0)", [run])
            connection.execute("INSERT INTO latest_metrics VALUES ('late', 2.5, 1000, 7, 0, ?)", [run])
        connection.execute("INSERT INTO params VALUES ('more', 'x', ?)", [at_work])
        connection.execute("UPDATE runs SET status = 'FINISHED', end_time = 5000 WHERE name = 'at work'")
        connection.execute("UPDATE tags SET value = 'changed' WHERE run_uuid = ?", [inner])
        added = new_id()
        connection.execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, artifact_uri, "
            "experiment_id) SELECT ?, 'added', user_id, 'FINISHED', start_time, 'active', '', experiment_id "
            "FROM runs WHERE run_uuid = ?",
            [added, outer],
        )
    done = project.import_mlflow(store.url)
    assert (done.experiments, book.find("night shift")) == (0, None)
    assert (done.runs, done.runs_known, done.runs_continued) == (1, 9, 2)  # "to come" is at work still
    run = project.ledger.get_run(at_work)
    assert (run.state, run.metrics, run.params) == (RunState.FINISHED, {"late": 2.5}, {"more": "x"})
    assert project.ledger.get_run(added).name == "added"
    tags = project.query(f"SELECT value FROM tracking_tags WHERE run = '{inner}' AND value = 'changed'")
    assert tags.num_rows == 0
    late = project.query("SELECT run FROM tracking_metrics WHERE name = 'late'").to_pylist()
    assert late == [{"run": at_work}]
    assert project.ledger.verify().ok


def test_a_run_that_goes_on_here_is_left_alone(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
) -> None:
    project.import_mlflow(filled.url)
    (run,) = (each for each in project.ledger.list_runs(kind="experiment") if each.name == "broken")
    project.ledger.resume_run(run.id, is_held=False)
    done = project.import_mlflow(filled.url)
    assert (done.runs_known, done.runs_continued) == (9, 2)
    assert project.ledger.get_run(run.id).state is RunState.RUNNING


@pytest.mark.parametrize(("place", "number"), [("take", 4), ("_close", 2), ("put_file", 2), ("finish", 1)])
def test_an_import_that_was_killed_goes_on(
    place: str,
    number: int,
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    root = make_project(tmp_path / "killed")
    command = [sys.executable, "-c", _KILLED_AT, str(root), filled.url, place, str(number)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    with noria.open(root) as killed:
        first = killed.import_mlflow(filled.url)
        assert 0 < first.runs_known < 9 or place in {"put_file", "finish"}
        project.import_mlflow(filled.url)
        assert rows_of(killed) == rows_of(project)
        assert killed.ledger.verify().ok


def test_a_dry_run_counts_and_writes_nothing(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
) -> None:
    before = rows_of(project)
    told = project.import_mlflow(filled.url, dry_run=True)
    assert rows_of(project) == before
    assert project.ledger.list_events(verb="mlflow.imported") == []
    done = project.import_mlflow(filled.url)
    assert (told.experiments, told.runs, told.points, told.params, told.tags, told.datasets, told.files) == (
        done.experiments,
        done.runs,
        done.points,
        done.params,
        done.tags,
        done.datasets,
        done.files,
    )
    assert done.points > POINTS


def test_postgresql_is_read_and_written_alike(
    filled: Filled,  # noqa: F811
    postgres_server: Postgres,  # noqa: F811
    postgres_url: str,  # noqa: F811
    project: noria.Project,  # noqa: F811
    tmp_path: Path,
) -> None:
    source = postgres_server.create("mlflow_source")
    copy_tables(filled.url, source)
    with noria.open(make_project(tmp_path / "pg", postgres_url)) as there:
        done = there.import_mlflow(source.replace("postgresql://", "postgresql+psycopg2://"))
        assert (done.runs, done.left) == (9, [])
        project.import_mlflow(filled.url)
        assert rows_of(there) == rows_of(project)
        assert there.ledger.verify().ok


def test_what_postgresql_cannot_hold_is_named(
    filled: Filled,  # noqa: F811
    postgres_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    store, nul = filled.copy(tmp_path / "copy"), "|| char(0) || 'b'"
    with sqlite3.connect(store.database) as connection:
        connection.execute(f"UPDATE params SET value = 'a' {nul} WHERE key = 'depth'")
        connection.execute("UPDATE params SET value = ? WHERE key = 'text'", ["no \\u0000 at all"])
        connection.execute(f"UPDATE experiments SET name = name {nul} WHERE name = 'Default'")
        connection.execute(f"UPDATE experiment_tags SET value = value {nul} WHERE key = 'ä'")
        connection.execute(f"UPDATE logged_models SET name = name {nul} WHERE name = 'half done'")
        connection.execute(f"UPDATE logged_model_tags SET tag_value = 'a' {nul} WHERE tag_key = 't'")
    with noria.open(make_project(tmp_path / "pg", postgres_url)) as there:
        dry = there.import_mlflow(store.url, dry_run=True)
        done = there.import_mlflow(store.url)
        assert there.ledger.verify().ok
    told = sorted(f"{each.what.partition(' ')[0]}: {each.why[-66:]}" for each in done.left)
    why = "which PostgreSQL cannot hold; take it out of a copy of the store, "
    assert (done.experiments, done.runs, done.models, len(dry.left)) == (2, 7, 1, 3)
    assert [each.partition(":")[0] for each in told] == [
        "experiment", "experiment", "logged", "logged", "logged", "run", "run", "run", "run", "run"
    ]  # fmt: skip
    assert sum(why in each.why for each in done.left) == 5


def test_whoever_writes_meanwhile_does_not_wait(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    stop, written, faults = threading.Event(), [0], []

    def write() -> None:
        connection = sqlite3.connect(store.database, timeout=0.5)
        while not stop.is_set():
            try:
                with connection:
                    connection.execute(
                        "INSERT INTO metrics VALUES ('curve', 0.5, ?, ?, 100000, 0)",
                        [written[0], store.runs[0]],
                    )
            except sqlite3.OperationalError as error:
                faults.append(error)
            written[0] += 1
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = project.import_mlflow(store.url)
    finally:
        stop.set()
        writer.join()
    assert (done.runs, done.left) == (9, [])
    assert written[0] > 1
    assert faults == []


def rows_of(opened: noria.Project) -> dict[str, list[Any]]:
    """Give what is kept, without when it was taken in."""
    found: dict[str, list[Any]] = {}
    tables = MetaData()
    with opened.ledger.database.read() as connection:
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if table.name in {"events", "alembic_version", "heartbeats", "leases"}:
                continue
            unlike = {"at", "put_at", "recorded_at", "updated_at", "deleted_at"}
            if table.name == "metric_points":
                unlike = set()
            columns = [each for each in table.columns if each.name not in unlike]
            if table.name == "runs":  # of one that is at work: when it was taken in
                columns = [each for each in columns if each.name != "started_at"]
            rows = connection.execute(select(*columns)).all()
            found[table.name] = sorted(tuple(map(repr, row)) for row in rows)
    return found


def copy_tables(source: str, target: str, others: Collection[str] = ()) -> None:
    """Make in PostgreSQL what MLflow has made in SQLite."""
    tables = MetaData()
    wanted = {"experiments", "experiment_tags", "runs", "metrics", "latest_metrics", "params", "tags",
              "datasets", "inputs", "input_tags", "alembic_version", "logged_models", "logged_model_metrics",
              "logged_model_params", "logged_model_tags", *others}  # fmt: skip
    read, write = create_engine(source), create_engine(target)
    tables.reflect(read, only=lambda name, _: name in wanted)
    for table in tables.tables.values():
        table.constraints = {each for each in table.constraints if "CHECK" not in type(each).__name__.upper()}
        for column in table.columns:
            column.server_default = None
    with read.connect() as before, write.begin() as after:
        tables.create_all(after)
        for table in tables.sorted_tables:
            rows = before.execute(select(table)).mappings().all()
            if rows:
                after.execute(table.insert(), [dict(row) for row in rows])
    read.dispose()
    write.dispose()
