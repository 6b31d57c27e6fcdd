"""The loop runs on pipelines: steps are on record, models are the same on every executor and again later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import noria
from noria.records import RunState

STEPS = ["receive", "serve", "learn", "land", "ship", "materialize", "compare", "monitor", "decide", "finish"]


def models(folder: Path) -> list[tuple[str, str]]:
    with noria.open(folder) as project:
        return [(each.ref, each.sha256) for each in project.ledger.list_versions(kind="model")]


def test_every_day_is_a_run_of_its_steps(tiny_lived: Path) -> None:
    with noria.open(tiny_lived) as project:
        days = project.ledger.list_events(verb="replay.day_done")
        runs = project.ledger.list_runs(kind="pipeline", name="replay_day", newest_first=False)
        assert len(runs) == len(days) > 10
        assert {each.state for each in runs} == {RunState.FINISHED}
        steps = project.runs.steps(runs[3])
        assert [each.name.removeprefix("replay_day/") for each in steps] == STEPS
        landed = next(each for each in steps if each.name == "replay_day/land")
        made = project.ledger.list_edges(run=landed.id)
        assert {project.ledger.get_version_by_id(each.version).kind for each in made} == {"dataset"}


def test_models_are_the_same_inline_and_in_processes(tiny: Path, tiny_lived: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noria", "replay", "--project", str(tiny)],
        env={**os.environ, "NORIA_COMPUTE__EXECUTOR": "inline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert models(tiny) == models(tiny_lived)
    with noria.open(tiny) as project:
        fits = [each for each in project.ledger.list_runs(kind="step") if each.name.endswith("/fit")]
        assert {each.params["executor"] for each in fits} == {"inline"}


def test_every_model_has_statistics_and_staging_has_asked_for_them(tiny_lived: Path) -> None:
    with noria.open(tiny_lived) as project:
        for model in project.ledger.list_versions(kind="model"):
            told = project.features.statistics(model.ref)
            assert told.suspicions == ()
            assert told.labelled == model.facts["rows"]
        judged = [
            check
            for event in project.ledger.list_events(verb="gate.*")
            for check in event.payload["checks"]
            if check["name"] == "no_leakage"
        ]
        assert judged
        assert {each["detail"] for each in judged} == {"no feature is suspicious"}


@pytest.mark.parametrize("is_remark", [True, False])
def test_a_model_is_reproduced_bit_by_bit_and_an_edited_line_shows(lived_copy: Path, is_remark: bool) -> None:
    with noria.open(lived_copy) as project:
        fits = [each for each in project.ledger.list_runs(kind="train") if each.state is RunState.FINISHED]
        told = project.runs.reproduce(fits[0].id)
        assert told.verdict == "bit-equal", told
        assert told.steps == 1
    source = lived_copy / "tiny.py"
    text = source.read_text()
    assert "num_leaves=" in text
    if is_remark:
        source.write_text(text + "\n# a remark\n")
    else:
        source.write_text(text.replace("num_leaves=", "num_leaves=2 + ", 1))
    with noria.open(lived_copy) as project:
        again = project.runs.reproduce(fits[0].id)
        assert again.verdict == "bit-equal", again
        now = project.runs.reproduce(fits[0].id, current=True)
        if is_remark:
            assert now.verdict == "bit-equal"
        else:
            assert now.verdict == "different"
            assert any("num_leaves=2 + " in each for each in now.notes)
            assert "fit.model" in {each.where for each in now.differences}
