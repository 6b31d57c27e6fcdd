"""`noria pipeline …` and `noria run …` as people type them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import noria

Say = Callable[..., Any]

WORK = """
import time

import noria


@noria.step
def numbers(n: int) -> list[int]:
    print("counting to", n)
    return list(range(n))


@noria.step
def square(x: int, run: noria.StepRun = noria.given) -> int:
    run.progress(1, 2, "half way")
    return x * x


@noria.step
def total(xs: list[int]) -> int:
    return sum(xs)


@noria.pipeline
def squares(n: int = 4) -> int:
    return total(square.map(x=numbers(n))())


@noria.step
def fails(x: int) -> int:
    print("about to fail")
    raise ValueError(f"no {x}")


@noria.pipeline
def failing() -> int:
    return total([fails(1), fails(2)])


@noria.step
def naps(run: noria.StepRun = noria.given) -> int:
    print("asleep", flush=True)
    for number in range(600):
        run.progress(number, 600, "napping")
        time.sleep(0.1)
    return 1


@noria.pipeline
def slow() -> int:
    return naps()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\nmodules = ["work"]\n')
    (tmp_path / "work.py").write_text(WORK)
    return tmp_path


def test_a_pipeline_is_listed_shown_planned_and_run(say: Say, site: Path) -> None:
    listed = say("pipeline", "list", "--project", site).out
    assert "squares" in listed
    assert "n: int = 4" in listed
    shown = say("pipeline", "show", "squares", "n=3", "--project", site).out
    assert "square (for each)" in shown
    plan = say("pipeline", "run", "squares", "--plan", "--project", site).out
    assert "of 3 would run" in plan
    assert "it has never run" in plan
    ran = say("pipeline", "run", "squares", "n=3", "--project", site)
    assert ran.code == 0
    assert "squares is done" in ran.out
    assert "5 ran" in ran.out
    assert "It gave 5" in ran.out
    again = json.loads(say("pipeline", "run", "squares", "n=3", "--json", "--project", site).out)
    assert again["counts"] == {"cached": 5}
    assert again["value"] == 5
    assert (
        "0 steps of 5 would run, 5 are up to date."
        in say("pipeline", "run", "squares", "n=3", "--plan", "--project", site).out
    )
    part = json.loads(say("pipeline", "run", "squares/numbers", "n=3", "--json", "--project", site).out)
    assert part["counts"] == {"cached": 1}
    alone = json.loads(say("pipeline", "run", "total", "xs=[1, 2]", "--json", "--project", site).out)
    assert alone["value"] == 3


def test_runs_are_listed_without_their_steps_unless_asked(say: Say, site: Path) -> None:
    say("pipeline", "run", "squares", "--project", site)
    runs = json.loads(say("run", "list", "--json", "--project", site).out)
    assert [each["kind"] for each in runs] == ["pipeline"]
    steps = json.loads(say("run", "list", "--kind", "step", "--json", "--project", site).out)
    assert len(steps) == 6
    shown = say("run", "show", steps[0]["id"][:16], "--project", site).out
    assert "squares/total" in shown
    assert "memory_peak_bytes" in shown


def test_what_steps_printed_and_how_they_failed(say: Say, site: Path) -> None:
    failed = say("pipeline", "run", "failing", "--project", site)
    assert failed.code == 10
    assert "fails: ValueError: no 1" in failed.err
    told = json.loads(say("pipeline", "run", "failing", "--json", "--project", site).out)
    assert told["run"]["state"] == "failed"
    logs = say("run", "logs", "failing", "--project", site).out
    assert logs.count("about to fail") == 2
    assert 'raise ValueError(f"no {x}")' in logs
    only = say("run", "logs", "failing", "--step", "fails_2", "--project", site).out
    assert only.count("about to fail") == 1
    say("pipeline", "run", "squares", "--project", site)
    assert "counting to 4" in say("run", "logs", "squares", "--project", site).out


def test_retry_from_a_step(say: Say, site: Path) -> None:
    say("pipeline", "run", "squares", "--project", site)
    again = json.loads(say("run", "retry", "squares", "--from", "square", "--json", "--project", site).out)
    assert again["counts"] == {"ran": 5, "cached": 1}
    assert say("run", "retry", "squares", "--from", "sqare", "--project", site).code == 2


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        ("pipeline run squars", 3, "did you mean 'squares'"),
        ("pipeline run squares n=x", 2, "'n' is 'x', wanted is int"),
        ("pipeline run squares m=1", 2, "has no parameter 'm'"),
        ("pipeline run squares n", 2, "write NAME=VALUE"),
        ("pipeline run squares/totl", 2, "has no step 'totl'"),
        ("pipeline run squares --executor cloud", 2, "no executor 'cloud'"),
        ("run watch nothing", 3, "no run named 'nothing'"),
        ("run cancel squares", 3, "no run named 'squares'"),
        ("pipline list", 2, 'Did you mean "pipeline"?'),
    ],
)
def test_what_is_wrong_is_told(say: Say, site: Path, typed: str, code: int, told: str) -> None:
    found = say(*typed.split(), "--project", site)
    assert (found.code, told in found.err) == (code, True), found.err


def test_a_run_is_watched_and_cancelled_from_elsewhere(site: Path) -> None:
    command = [sys.executable, "-m", "noria", "pipeline", "run", "slow", "--project", str(site)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with noria.open(site) as project:
            ends = time.monotonic() + 60
            while time.monotonic() < ends:
                runs = project.ledger.list_runs(kind="step")
                if runs and project.runs.log(runs[0]):
                    break
                time.sleep(0.1)
            assert project.runs.log(runs[0]) == b"asleep\n"
            watch = project.runs.watch("slow")
            told = next(watch)
            while not (isinstance(told, noria.pipelines.records.Progress) and told.at_work):
                told = next(watch)
            assert told.at_work[0].note == "napping"
            project.runs.cancel("slow", reason="enough")
            last = list(watch)[-1]
            assert last.state == "cancelled"
        out, err = process.communicate(timeout=30)
        assert process.returncode == 11, (out, err)
        assert "was cancelled by person:" in err
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()


def test_lineage_events_of_every_run(site: Path) -> None:
    environment = {**os.environ, "NORIA_COMPUTE__LINEAGE": "lineage.jsonl"}
    command = [sys.executable, "-m", "noria", "pipeline", "run", "squares", "n=2", "--project", str(site)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    events = [json.loads(line) for line in (site / "lineage.jsonl").read_text().splitlines()]
    ended = {each["job"]["name"]: each for each in events if each["eventType"] == "COMPLETE"}
    assert set(ended) == {
        "pipeline/squares", "step/squares/numbers", "step/squares/square[0]", "step/squares/square[1]",
        "step/squares/total",
    }  # fmt: skip
    total = ended["step/squares/total"]
    assert len(total["inputs"]) == 2
    parent = total["run"]["facets"]["parent"]["run"]["runId"]
    assert parent == ended["pipeline/squares"]["run"]["runId"]
