"""What a person sees of a pipeline's run: while it goes, when it has ended, and later."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import noria

Say = Callable[..., Any]

WORK = """
import pandas as pd

import noria


@noria.step
def read(month: str, n: int) -> list[int]:
    return list(range(n))


@noria.step
def cost(x: int) -> float:
    return 1.5 * x


@noria.step
def total(costs: list[float]) -> float:
    return sum(costs)


@noria.step
def is_dear(total: float) -> bool:
    return total > 1000


@noria.step
def warn(total: float) -> str:
    return "dear"


@noria.pipeline
def monthly(month: str = "2026-01", n: int = 6) -> float:
    spent = total(cost.map(x=read(month, n))())
    warn.when(is_dear(spent))(spent)
    return spent


@noria.step
def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame({"number": range(n), "word": [f"w{x}" for x in range(n)]})


@noria.pipeline
def framed(n: int = 30) -> pd.DataFrame:
    return frame(n)


@noria.step(retries=1)
def flaky(word: str, run: noria.StepRun = noria.given) -> int:
    if run.attempt == 1:
        raise ValueError(f"no {word} yet")
    return 1


@noria.pipeline
def trying() -> int:
    return flaky("luck")


@noria.step(retries=1)
def hopeless(x: int) -> float:
    raise ValueError(f"bad rows:\\n{pd.DataFrame({'row': range(20)})}")


@noria.pipeline
def hopes(x: int = 1) -> float:
    return total([cost(x), hopeless(x)])
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    toml = '[project]\nname = "site"\nmodules = ["seen"]\n[compute]\nexecutor = "inline"\n'
    (tmp_path / "noria.toml").write_text(toml)
    (tmp_path / "seen.py").write_text(WORK)
    return tmp_path


def words(text: str) -> str:
    return " ".join(text.split())


def rows(text: str) -> dict[str, list[str]]:
    """Give the lines of a screen by their first word."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}


def test_a_run_of_a_pipeline_is_shown_with_its_steps_and_its_result(say: Say, site: Path) -> None:
    say("pipeline", "run", "monthly", "n=6", "--project", site)
    say("pipeline", "run", "monthly", "n=6", "month=2026-02", "--project", site)
    shown = say("run", "show", "monthly", "--project", site)
    assert "called with" in shown.out
    assert "month=2026-02 n=6" in shown.out
    assert "steps 1 ran, 8 kept, 1 skipped" in words(shown.out)
    assert "gave 22.5" in words(shown.out)
    found = rows(shown.out)
    assert found["read"][0] == "ran"
    assert found["cost"] == ["(6)", "6", "kept", "-", "-", "-"]
    assert found["total"][:1] == ["kept"]
    assert "its condition is_dear is false" in words(shown.out)
    assert "wrote output monthly/read:1" in words(shown.out)
    assert "kept output monthly/cost (6)" in words(shown.out)
    assert "outcome" not in shown.out
    assert "{" not in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines() if not line.startswith(("runtime", "key")))


def test_json_gives_every_step_and_every_version_of_a_run(say: Say, site: Path) -> None:
    say("pipeline", "run", "monthly", "--project", site)
    whole = json.loads(say("run", "show", "monthly", "--json", "--project", site).out)
    assert whole["params"] == {"month": "2026-01", "n": 6}
    assert whole["counts"] == {"ran": 9, "skipped": 1}
    assert [each["step"] for each in whole["steps"]] == [
        "read", *(f"cost[{number}]" for number in range(6)), "total", "is_dear", "warn",
    ]  # fmt: skip
    assert whole["value"] == "22.5"
    assert {each["name"] for each in whole["outputs"]} == {
        "monthly/read", "monthly/cost", "monthly/total", "monthly/is_dear",
    }  # fmt: skip
    assert (whole["inputs"], whole["kept"], whole["progress"]) == ([], [], None)


def test_a_run_of_a_step_is_shown_with_its_arguments_and_without_its_recipe(say: Say, site: Path) -> None:
    say("pipeline", "run", "monthly", "--project", site)
    (step,) = json.loads(say("run", "list", "--name", "monthly/total", "--json", "--project", site).out)
    shown = words(say("run", "show", step["id"], "--project", site).out)
    assert "function seen:total" in shown
    assert f"part of pipeline monthly {step['parent'][:16]}" in shown
    assert "Arguments costs list of 6" in shown
    assert "input output monthly/cost:1" in shown
    assert "recipe" not in shown
    assert "recipe" in step["params"]


def test_runs_of_one_pipeline_are_told_apart_in_a_list(
    say: Say, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("pipeline", "run", "monthly", "--project", site)
    say("pipeline", "run", "monthly", "month=2026-02", "--project", site)
    say("pipeline", "run", "hopes", "x=3", "--project", site)
    monkeypatch.setenv("COLUMNS", "100")
    listed = say("run", "list", "--project", site).out
    assert "month=2026-01 n=6; 9 ran, 1 skipped" in listed
    assert "month=2026-02 n=6; 1 ran, 8 kept, 1 skipped" in listed
    assert "x=3; 1 failed, 1 blocked, 1 kept; hopeless (attempt 2 of 2): ValueError: bad rows:" in words(
        listed
    )
    assert all(len(line) <= 100 for line in listed.splitlines())
    steps = say("run", "list", "--kind", "step", "--state", "failed", "--project", site).out
    assert "x=3; attempt 2; ValueError: bad rows:" in steps
    assert "Traceback" not in steps


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--kind steps", "no kind named 'steps'; did you mean 'step'?"),
        ("--kind pipelin", "did you mean 'pipeline'?"),
        ("--kind nothing", "there is pipeline, step"),
        ("--state finish", "no state named 'finish'; did you mean 'finished'?"),
        ("--state done", "there is cancelled, failed, finished, killed, running"),
    ],
)
def test_unknown_kinds_and_states_are_refused_with_the_nearest(
    say: Say, site: Path, typed: str, told: str
) -> None:
    say("pipeline", "run", "trying", "--project", site)
    found = say("run", "list", *typed.split(), "--project", site)
    assert (found.code, told in found.err) == (3, True), found.err


def test_a_kind_that_has_not_run_yet_is_no_mistake(say: Say, site: Path) -> None:
    found = say("run", "list", "--kind", "train", "--project", site)
    assert (found.code, found.out) == (0, "There is no such run.\n")


def test_attempts_are_told_while_a_step_is_tried_again_and_in_the_error(say: Say, site: Path) -> None:
    tried = say("pipeline", "run", "trying", "--project", site)
    assert tried.code == 0
    with noria.open(site) as project:
        (account,) = project.runs.account(project.runs.get("trying")).steps
        assert (account.step, account.state, account.attempts) == ("flaky", "ran", 2)
    failed = say("pipeline", "run", "hopes", "--project", site)
    assert failed.code == 10
    assert "hopeless (attempt 2 of 2): ValueError: bad rows:" in failed.err
    logs = say("run", "logs", "hopes", "--project", site).out
    assert "failed  attempt 2" in logs


def test_advice_is_on_the_screen_and_not_on_record(say: Say, site: Path) -> None:
    failed = say("pipeline", "run", "hopes", "--project", site)
    assert "`noria run logs " in failed.err
    assert "the same command goes on with what is left" in failed.err
    with noria.open(site) as project:
        run = project.runs.get("hopes")
        assert run.error is not None
        assert run.error.startswith("StepFailed: pipeline 'hopes' failed: hopeless (attempt 2 of 2): ")
        assert "noria run logs" not in run.error
        with pytest.raises(noria.errors.StepFailed) as caught:
            project.run_pipeline("hopes")
        assert any("noria run logs" in note for note in caught.value.__notes__)
    told = say("pipeline", "run", "monthly", "n=x", "--json", "--project", site).err
    assert set(json.loads(told)["error"]) == {"kind", "message", "exit_code"}


def test_errors_of_several_lines_are_shown_line_by_line_and_cut(say: Say, site: Path) -> None:
    say("pipeline", "run", "hopes", "--project", site)
    shown = say("run", "show", "hopes", "--project", site).out
    assert "\nError\n  StepFailed: pipeline 'hopes' failed: " in shown
    assert "\n      row\n  0     0\n  1     1\n" in shown
    assert "more lines\n" in shown
    assert "17   17" not in shown
    watched = say("run", "watch", "hopes", "--project", site)
    assert watched.code == 1
    assert watched.out.startswith("hopes failed after ")
    assert "\n  0     0\n" in watched.out
    assert watched.err == ""
    whole = json.loads(say("run", "show", "hopes", "--json", "--project", site).out)
    (hopeless,) = [each for each in whole["steps"] if each["step"] == "hopeless"]
    assert "17   17" in hopeless["because"]


def test_a_frame_that_a_pipeline_gives_keeps_its_lines(say: Say, site: Path) -> None:
    told = say("pipeline", "run", "framed", "n=3", "--project", site).out
    assert "It gave a DataFrame:\n     number word\n  0       0   w0\n  1       1   w1\n" in told
    long = say("pipeline", "run", "framed", "n=30", "--project", site).out
    assert "  ... 19 more lines\n" in long


def test_what_will_run_is_said_at_once_and_the_answer_alone_goes_to_stdout(site: Path) -> None:
    command = [sys.executable, "-m", "noria", "pipeline", "run", "trying", "--project", str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second, *later = done.stderr.splitlines()
    assert first.startswith("trying: 1 step; looking up what is kept (run ")
    assert second == "trying: 0 kept, at most 1 to run"
    assert "attempt 2 of 2" in "".join(later)
    assert "after ValueError: no luck yet" in "".join(later)
    assert done.stdout.startswith("trying is done in ")
    assert "attempt" not in done.stdout
