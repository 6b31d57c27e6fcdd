"""A run that is cancelled ends within a second, with its workers, and keeps what had ended."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import noria
from noria.errors import RunCancelled
from noria.pipelines.records import Progress
from noria.records import RunState

STEPS = Path(__file__).with_name("bad_steps.py")
DRIVER = Path(__file__).with_name("run_driver.py")
BOTH = pytest.mark.parametrize("executor", ["inline", "processes"])


@pytest.fixture
def root(make_project: Any) -> Path:
    made: Path = make_project({"bad.py": STEPS.read_text()})
    noria.open(made).close()
    return made


def start(root: Path, executor: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(DRIVER), str(root), "some_slow", executor]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(met: Callable[[], Any], within_s: float = 20.0) -> None:
    ends = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < ends
        time.sleep(0.01)


def at_work(project: noria.Project) -> bool:
    """Tell whether a slow step is on record as running, and the quick ones as finished."""
    steps = project.ledger.list_runs(kind="step")
    return {"running", "finished"} <= {each.state.value for each in steps}


def children(pid: int) -> list[int]:
    return [int(n) for each in Path(f"/proc/{pid}/task").glob("*/children") for n in each.read_text().split()]


@BOTH
def test_a_request_by_another_process_ends_the_run(root: Path, executor: str) -> None:
    process = start(root, executor)
    with noria.open(root) as project:
        wait_until(lambda: at_work(project))
        workers = children(process.pid)
        (run,) = project.ledger.list_runs(kind="pipeline")
        project.runs.cancel(run.id)
        asked = time.monotonic()
        wait_until(lambda: project.ledger.get_run(run.id).state is not RunState.RUNNING)
        assert time.monotonic() - asked < 1.5
        said, complained = process.communicate(timeout=10)
        assert "RunCancelled" in said, complained
        check_cancelled(project, root, workers)
        assert project.runs.log(run) == b""


@BOTH
def test_ctrl_c_ends_the_run(root: Path, executor: str) -> None:
    process = start(root, executor)
    with noria.open(root) as project:
        wait_until(lambda: at_work(project))
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        _, complained = process.communicate(timeout=10)
        assert time.monotonic() - asked < 2.5
        assert "KeyboardInterrupt" in complained
        check_cancelled(project, root, workers)


def check_cancelled(project: noria.Project, root: Path, workers: list[int]) -> None:
    ledger = project.ledger
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert ledger.verify().ok
    assert ledger.list_runs(state=RunState.RUNNING) == []
    (run,) = ledger.list_runs(kind="pipeline")
    assert run.state is RunState.CANCELLED
    states: dict[str, set[str]] = {}
    for each in ledger.list_runs(kind="step"):
        states.setdefault(each.name.partition("/")[2].partition("[")[0], set()).add(each.state.value)
    assert states == {"fine": {"finished"}, "slow": {"cancelled"}}
    scratch = root / ".noria" / "pipelines"
    assert [each for each in scratch.rglob("*") if not each.is_dir()] == []
    result = project.run_pipeline("some_slow", {"seconds": 0.0}, executor="inline")
    assert result.counts["cached"] == 3


@BOTH
def test_a_run_in_a_thread_is_cancelled_as_well(root: Path, executor: str) -> None:
    """Of one inline, the step at work comes to its end first."""
    found: list[BaseException] = []
    with noria.open(root) as project:

        def work() -> None:
            try:
                project.run_pipeline("some_slow", {"seconds": 2.0}, executor=executor)
            except RunCancelled as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: at_work(project))
        (run,) = project.ledger.list_runs(kind="pipeline")
        project.runs.cancel(run.id)
        thread.join(10)
        assert len(found) == 1
        assert project.ledger.get_run(run.id).state is RunState.CANCELLED


@BOTH
def test_how_far_it_is_is_told_while_it_runs(root: Path, executor: str) -> None:
    told: list[Progress] = []
    with noria.open(root) as project:
        project.run_pipeline("says_how_far", executor=executor, tell=told.append)
        notes = {(each.done, each.total, each.note) for progress in told for each in progress.at_work}
        assert any(done == 2 and total == 4 and note == "half" for done, total, note in notes)
        (run,) = project.ledger.list_runs(kind="pipeline")
        last = project.runs.progress(run)
        assert last is not None
        assert last.counts == {"ran": 1}


@BOTH
def test_the_log_of_a_step_at_work_is_there(root: Path, executor: str) -> None:
    found: list[bytes] = []
    with noria.open(root) as project:

        def look(progress: Progress) -> None:
            runs = {each.id: each for each in project.ledger.list_runs(kind="step")}
            found.extend(project.runs.log(runs[each.run]) for each in progress.at_work if each.run in runs)

        project.run_pipeline("says_how_far", executor=executor, tell=look)
        (step,) = project.ledger.list_runs(kind="step")
        assert project.runs.log(step) == b"begins\nby a child\nends\n"
    assert b"begins\nby a child\n" in found


@BOTH
def test_an_error_of_whoever_is_told_ends_the_run(root: Path, executor: str) -> None:
    def tell(progress: Progress) -> None:
        if progress.at_work:
            raise ZeroDivisionError("the screen is broken")

    with noria.open(root) as project:
        with pytest.raises(ZeroDivisionError):
            project.run_pipeline("some_slow", executor=executor, tell=tell)
        (run,) = project.ledger.list_runs(kind="pipeline")
        assert run.state is RunState.FAILED
        assert project.ledger.list_runs(state=RunState.RUNNING) == []
