import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

import noria
from noria.errors import StepFailed
from noria.pipelines.records import AtWork, Progress
from noria.workspace.status import project_status
from noria.workspace.tables import ledger_tables


def test_status_of_a_lived_project(tiny_lived: Path) -> None:
    with noria.open(tiny_lived) as project:
        found = project_status(project)
    assert [(each.environment, each.model, each.on_trial) for each in found.deployments] == [
        ("staging", "late_parcel:4", None),
        ("production", "late_parcel:5", None),
    ]
    assert {each.name: each.rows for each in found.datasets} == {
        "couriers": 6,
        "deliveries": 1680,
        "parcels": 1728,
    }
    (replay,) = found.replays
    assert replay.is_finished
    assert found.runs["train"] == {"finished": 5}
    assert not found.killed
    assert not found.unfinished
    (report,) = found.monitors
    assert report.version_ref == "late_parcel:5"


def test_status_of_a_fresh_project_makes_nothing(tiny: Path) -> None:
    with noria.open(tiny) as project:
        found = project_status(project)
    assert found.events == 0
    assert found.declared["trainings"] == ("late_parcel",)
    assert not (tiny / ".noria").exists()


def test_a_run_whose_process_died_is_marked(tiny: Path) -> None:
    code = (
        "import os, noria\n"
        "project = noria.open()\n"
        "run = project.ledger.start_run('train', 'late_parcel')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tiny, check=False, env={**os.environ})
    with noria.open(tiny) as project:
        found = project_status(project)
    assert [(run.kind, run.name) for run in found.killed] == [("train", "late_parcel")]
    assert found.runs == {"train": {"killed": 1}}


def test_a_trial_is_told_beside_what_stands(tiny_lived: Path, lived_copy: Path) -> None:
    from noria.deploy.environments import start_canary

    with noria.open(lived_copy) as project:
        place = project.deployment("production", "late_parcel")
        release = project.ledger.get_version("release", "late_parcel", 2)
        start_canary(place, release, share=0.3, key="a-trial")
        (production,) = [
            each for each in project_status(project).deployments if each.environment == "production"
        ]
    assert (production.model, production.on_trial, production.share) == (
        "late_parcel:5",
        "late_parcel:2",
        0.3,
    )


def test_the_ledger_answers_to_sql(tiny_lived: Path) -> None:
    with noria.open(tiny_lived) as project:
        tables = ledger_tables(project.ledger)
        assert not set(tables) & set(project.lake.names())
        counted = {name: opened().num_rows for name, opened in tables.items()}
        assert counted["ledger_events"] == project_status(project).events
        assert min(counted.values()) > 0
        joined = project.query(
            "select v.name, v.number, r.state, r.cpu_s > 0 as costs from ledger_versions v "
            "join ledger_runs r on r.id = v.run where v.kind = 'model' order by v.number"
        ).to_pylist()
        reasons = project.query(
            "select payload ->> '$.reason' as told from ledger_events where verb = 'gate.refused'"
        ).to_pylist()
    assert [row["number"] for row in joined] == [1, 2, 3, 4, 5]
    assert {row["state"] for row in joined} == {"finished"}
    assert "production_gate" in reasons[0]["told"]


PIPELINES = """
import noria


@noria.step
def fetch(n: int) -> int:
    return n


@noria.step
def check(n: int, most: int) -> int:
    if n > most:
        raise ValueError("too much")
    return n


@noria.pipeline
def weekly(n: int = 3, most: int = 5) -> int:
    return check(fetch(n), most)


by_week = noria.Trigger(noria.schedule("0 6 * * 1"), run=weekly)
by_day = noria.Trigger(noria.schedule("30 2 * * *"), run=weekly, name="by_day")
"""


@pytest.fixture
def weekly(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text(
        '[project]\nname = "weekly"\nmodules = ["status_steps"]\n[compute]\nexecutor = "inline"\n'
    )
    (tmp_path / "status_steps.py").write_text(PIPELINES)
    return tmp_path


def test_a_pipeline_that_has_not_run_is_told_with_its_next_tick(weekly: Path) -> None:
    with noria.open(weekly) as project:
        found = project_status(project)
        at = project.clock.now()
    (state,) = found.pipelines
    assert (state.name, state.is_declared, state.last) == ("weekly", True, None)
    assert state.next is not None
    assert state.next.trigger in {"by_day", "weekly"}
    assert at < state.next.at <= at + timedelta(days=1)
    assert found.declared["pipelines"] == ("weekly",)
    assert not (weekly / ".noria").exists()


def test_the_last_run_of_a_pipeline_is_told_with_its_steps(weekly: Path) -> None:
    with noria.open(weekly) as project:
        project.run_pipeline("weekly")
        project.run_pipeline("fetch", {"n": 3})
        first, second = {each.name: each.last for each in project_status(project).pipelines}.items()
        assert (first[0], second[0]) == ("weekly", "fetch")
        assert first[1] is not None and second[1] is not None
        assert (first[1].state, first[1].steps) == ("finished", {"ran": 2})
        assert second[1].steps == {"cached": 1}
        with pytest.raises(StepFailed):
            project.run_pipeline("weekly", {"most": 1})
        last = project_status(project).pipelines[0].last
        assert last is not None
        assert (last.state, last.steps, last.at_work) == ("failed", {"cached": 1, "failed": 1}, ())


def test_what_a_pipeline_is_at_is_told(weekly: Path) -> None:
    with noria.open(weekly) as project:
        with project.ledger.running("pipeline", "weekly") as run:
            at_work = AtWork(task="fetch", run=run.id, since=run.run.started_at, attempt=1, done=3, total=10)
            shown = Progress(
                run=run.id,
                pipeline="weekly",
                state="running",
                started_at=run.run.started_at,
                counts={"running": 1, "waiting": 1},
                nodes=(),
                at_work=(at_work,),
            )
            project.engine.store.put_progress(run.id, msgspec.json.encode(shown))
            last = project_status(project).pipelines[0].last
            assert last is not None
            assert (last.state, last.steps, last.at_work) == ("running", shown.counts, (at_work,))
        ended = project_status(project).pipelines[0].last
        assert ended is not None
        assert (ended.state, ended.at_work) == ("finished", ())
