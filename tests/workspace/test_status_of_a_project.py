import os
import subprocess
import sys
from pathlib import Path

import noria
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
