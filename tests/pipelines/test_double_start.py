"""The same run started twice: one works, the other waits and finds everything done."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401  # fixtures

import noria
from noria.records import RunState

DRIVER = Path(__file__).with_name("run_driver.py")
STEPS = """
import os
import time
from pathlib import Path

import noria

SIDE = Path(__file__).parent / "side.log"

@noria.step
def count(x: int, base: int) -> int:
    side = os.open(SIDE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(side, f"{base + x}\\n".encode())
    os.close(side)
    time.sleep(0.3 if base >= 1_000 else 0.05)
    return base + x

@noria.step
def total(values: list[int]) -> int:
    return sum(values)

@noria.pipeline
def counted(base: int = 0) -> int:
    return total(count.map(x=list(range(20)))(base=base))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def root(make_project: Any, request: pytest.FixtureRequest) -> Path:
    """Give a project; with a server where there is one."""
    extra = ""
    if request.param == "postgres":
        extra = f'[stores]\ndatabase = "{request.getfixturevalue("postgres_url")}"\n'
    made: Path = make_project({"counted.py": STEPS}, extra)
    noria.open(made).close()
    return made


def start(
    root: Path, base: int = 0, key: str = "", *, executor: str = "processes"
) -> "subprocess.Popen[str]":
    params = json.dumps({"base": base})
    command = [sys.executable, str(DRIVER), str(root), "counted", executor, params, "", key]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 0, said + complained
    found: dict[str, Any] = json.loads(said)
    return found


def begun(root: Path) -> Counter[str]:
    side = root / "side.log"
    return Counter(side.read_text().split()) if side.exists() else Counter()


@pytest.mark.parametrize("key", ["", "monday"])
def test_of_two_equal_runs_one_waits_for_the_other(root: Path, key: str) -> None:
    first, second = (told(each) for each in [start(root, key=key), start(root, key=key)])
    assert set(begun(root).values()) == {1}
    assert first["outputs"] == second["outputs"]
    if key:
        assert first["run"] == second["run"]
    with noria.open(root) as project:
        assert project.ledger.verify().ok
        runs = project.ledger.list_runs(kind="pipeline")
        assert [each.state for each in runs] == [RunState.FINISHED] * (1 if key else 2)
        assert len(project.ledger.list_runs(kind="step")) == 21


def test_runs_of_other_parameters_go_side_by_side(root: Path) -> None:
    first, second = (told(each) for each in [start(root), start(root, base=100)])
    assert len(begun(root)) == 40
    with noria.open(root) as project:
        assert project.ledger.verify().ok
        ran = [project.ledger.list_runs(kind="step", parent=run["run"]) for run in (first, second)]
    spans = [(min(e.started_at for e in each), max(e.ended_at or e.at for e in each)) for each in ran]
    assert spans[0][0] < spans[1][1]
    assert spans[1][0] < spans[0][1]


@pytest.mark.parametrize("key", ["", "monday"])
def test_the_one_that_waits_takes_over_when_the_other_is_killed(root: Path, key: str) -> None:
    first = start(root, 1_000, key=key)
    wait_for(root, 1)
    second = start(root, 1_000, key=key)
    wait_for(root, 6)  # the second one is up by now, and waits
    assert (first.poll(), second.poll()) == (None, None)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    at_kill, killed_at = begun(root), time.monotonic()
    while begun(root) == at_kill:
        assert time.monotonic() - killed_at < 30, "it does not take over"
        time.sleep(0.01)
    told(second)
    assert len(begun(root)) == 20
    again = begun(root) - at_kill
    assert sum((at_kill & again).values()) <= 4, "only what was at work, or had just ended, is repeated"
    with noria.open(root) as project:
        assert project.ledger.verify().ok
        states = [each.state for each in project.ledger.list_runs(kind="pipeline", newest_first=False)]
        assert states == [RunState.KILLED, RunState.FINISHED]
        finished = project.ledger.list_runs(kind="step", state=RunState.FINISHED)
        assert set(Counter(each.name for each in finished).values()) == {1}


def wait_for(root: Path, tasks: int) -> None:
    ends = time.monotonic() + 30
    while begun(root).total() < tasks:
        assert time.monotonic() < ends
        time.sleep(0.005)
