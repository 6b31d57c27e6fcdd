from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import noria
from noria.pipelines.records import AtWork, Progress

Say = Callable[..., Any]


def test_an_empty_project_runs(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "my-table"
    made = say("init", folder)
    assert made.code == 0
    assert "read project.py, then `noria status`" in " ".join(made.out.split())
    found = say("status", "--project", folder)
    assert found.code == 0
    assert "Project my-table" in found.out
    assert "orders" in found.out
    assert "Nothing is recorded yet" in found.out
    assert say("doctor", "--project", folder).code == 0
    assert not (folder / ".noria").exists()  # nothing was made by looking


def test_the_flights_can_be_copied(say: Say, tmp_path: Path) -> None:
    assert say("init", tmp_path / "flights", "--template", "flights").code == 0
    found = say("status", "--project", tmp_path / "flights")
    assert "Replay late_arrival: not begun" in found.out
    assert "`noria replay` begins" in found.out


def test_the_pipeline_can_be_run_at_once(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    assert "`pipeline`" in " ".join(say("init", "--help").out.split())
    made = say("init", folder, "--template", "pipeline")
    assert (made.code, "read sales.py" in made.out) == (0, True)
    before = say("status", "--project", folder)
    assert "`noria pipeline run monthly` begins" in before.out
    assert "No dataset" not in before.out
    assert say("pipeline", "run", "monthly", "--project", folder).code == 0
    after = say("status", "--project", folder)
    assert "monthly  finished" in after.out
    assert "6 ran" in after.out
    assert "`noria up` acts on schedules." in after.out
    examined = say("doctor", "--project", folder)
    assert (examined.code, "6 kept" in examined.out) == (0, True)


def test_what_a_pipeline_is_at_is_shown(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    assert say("init", folder, "--template", "pipeline").code == 0
    with noria.open(folder) as project, project.ledger.running("pipeline", "monthly") as run:
        began = run.run.started_at
        shown = Progress(
            run=run.id,
            pipeline="monthly",
            state="running",
            started_at=began,
            counts={"cached": 1, "running": 2},
            nodes=(),
            at_work=(
                AtWork(
                    task="summarize[0]", run=run.id, since=began, attempt=1, done=3, total=10, note="east"
                ),
                AtWork(task="summarize[1]", run=run.id, since=began, attempt=1),
            ),
        )
        project.engine.store.put_progress(run.id, msgspec.json.encode(shown))
        told = say("status", "--project", folder).out
    assert "running" in told
    assert "1 kept, 2 running" in told
    since = f"{began:%Y-%m-%d %H:%M}"
    assert f"At work: monthly/summarize[0] since {since}, 3 of 10: east" in told
    assert f"At work: monthly/summarize[1] since {since}\n" in told


def test_init_overwrites_nothing(say: Say, tmp_path: Path) -> None:
    assert say("init", tmp_path).code == 0
    found = say("init", tmp_path)
    assert found.code == 4
    assert "is a project already" in found.err
    other = tmp_path / "other"
    other.mkdir()
    (other / "project.py").write_text("mine = 1\n", encoding="utf-8")
    found = say("init", other)
    assert found.code == 4
    assert "project.py exists and would be overwritten" in found.err
    assert (other / "project.py").read_text(encoding="utf-8") == "mine = 1\n"
    assert not (other / "noria.toml").exists()
    found = say("init", other, "--template", "fligts")
    assert (found.code, "did you mean 'flights'?" in found.err) == (3, True)
