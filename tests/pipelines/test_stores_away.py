"""The database away, the disk full, results gone, clocks that jump: a run bears it, or says what is wrong."""

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401  # fixtures

import noria
from noria.database.store import Database
from noria.errors import DiskFull, StepFailed, StoreError
from noria.pipelines.recording import Recorder
from noria.pipelines.run_loop import RunLoop
from noria.records import RunState

STEPS = """
import os
import time
from pathlib import Path

import noria

SIDE = Path(__file__).parent / "side.log"

def trace(told):
    side = os.open(SIDE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(side, f"{told}\\n".encode())
    os.close(side)

@noria.step
def count(x: int, pause: float) -> int:
    trace(x)
    time.sleep(pause)
    return x

@noria.step
def large(x: int) -> bytes:
    trace(x)
    return bytes([x]) * 200_000

@noria.step
def total(values: list[int]) -> int:
    return sum(values)

@noria.step
def sizes(values: list[bytes]) -> list[int]:
    return [len(each) for each in values]

@noria.pipeline
def counted(tasks: int = 30, pause: float = 0.05) -> int:
    return total(count.map(x=list(range(tasks)))(pause=pause))

@noria.pipeline
def large_ones(tasks: int = 10) -> list[int]:
    return sizes(large.map(x=list(range(tasks)))())
"""
BOTH = pytest.mark.parametrize("executor", ["inline", "processes"])


@pytest.fixture
def root(make_project: Any) -> Path:
    made: Path = make_project({"counted.py": STEPS})
    return made


def begun(root: Path) -> Counter[str]:
    side = root / "side.log"
    return Counter(side.read_text().split()) if side.exists() else Counter()


def check(project: noria.Project, tasks: int) -> None:
    """Nothing is lost, nothing is doubled."""
    assert set(begun(project.root).values()) == {1}
    assert len(begun(project.root)) == tasks
    steps = project.ledger.list_runs(kind="step")
    assert {each.state for each in steps} == {RunState.FINISHED}
    assert len({each.name for each in steps}) == len(steps) == tasks + 1
    found = project.ledger.verify()
    assert found.ok, found.problems
    assert project.ledger.list_runs(state=RunState.RUNNING) == []
    (total,) = [each for each in steps if each.name.endswith(("/total", "/sizes"))]
    assert len(project.ledger.list_edges(run=total.id)) == tasks + 1


def break_database(monkeypatch: pytest.MonkeyPatch, *, after_s: float, for_s: float) -> None:
    """Let the database be away for a while."""
    begins = time.monotonic() + after_s

    def wrap(work: Any) -> Any:
        def broken(self: Database) -> Any:
            if begins < time.monotonic() < begins + for_s:
                raise StoreError("no route to the database")
            return work(self)

        return broken

    for name in ("read", "write"):
        monkeypatch.setattr(Database, name, wrap(getattr(Database, name)))


@BOTH
def test_a_database_that_is_away_for_a_while_holds_no_step_up(
    root: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []
    with noria.open(root) as project:
        project.run_pipeline("counted", {"tasks": 1, "pause": 0.0}, executor=executor)  # warm
        (root / "side.log").unlink()
        began = time.monotonic()
        break_database(monkeypatch, after_s=0.5, for_s=1.2)
        at: dict[float, int] = {}

        def tell(progress: Any) -> None:
            told.append(progress.waiting_for)
            at[time.monotonic() - began] = len(begun(root))

        result = project.run_pipeline("counted", {"tasks": 40, "pause": 0.06}, executor=executor, tell=tell)
        assert result.value == sum(range(40))
        steps = project.ledger.list_runs(kind="step", parent=result.run.id)
        assert len(steps) == 41 - result.counts.get("cached", 0)
        assert set(begun(root).values()) == {1}
        assert project.ledger.verify().ok
    assert any(each is not None and "the database is away" in each for each in told)
    assert told[-1] is None
    during = [count for instant, count in at.items() if 0.6 < instant < 1.6]
    assert max(during) - min(during) >= 3


@pytest.mark.parametrize("is_kept", [True, False])
@BOTH
def test_a_commit_that_reports_an_error_is_neither_lost_nor_doubled(
    root: Path, executor: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was made to last or not: the connection went away in between."""
    write, commit, count = Recorder._write, Connection.commit, iter(range(1_000))
    is_recording = threading.local()

    def writing(*args: Any) -> Any:
        is_recording.now = True
        try:
            return write(*args)
        finally:
            is_recording.now = False

    def failing(self: Connection) -> None:
        if not getattr(is_recording, "now", False) or next(count) % 2:
            commit(self)
            return
        if is_kept:
            commit(self)
        raise OperationalError("COMMIT", {}, Exception("the connection was lost"))

    monkeypatch.setattr(Recorder, "_write", writing)
    monkeypatch.setattr(Connection, "commit", failing)
    with noria.open(root) as project:
        result = project.run_pipeline("counted", {"tasks": 12, "pause": 0.1}, executor=executor)
        assert result.value == sum(range(12))
        assert next(count) >= 2
        check(project, 12)


@BOTH
def test_a_server_that_is_started_again_in_the_middle(
    make_project: Any,
    executor: str,
    postgres_server: Postgres,  # noqa: F811
    postgres_url: str,  # noqa: F811
) -> None:
    root = make_project({"counted.py": STEPS}, f'[stores]\ndatabase = "{postgres_url}"\n')

    def restart() -> None:
        while len(begun(root)) < 5:
            time.sleep(0.01)
        postgres_server.stop()
        time.sleep(1)
        postgres_server.start()

    thread = threading.Thread(target=restart)
    with noria.open(root) as project:
        thread.start()
        try:
            result = project.run_pipeline("counted", {"pause": 0.1}, executor=executor)
        finally:
            thread.join()
        assert result.value == sum(range(30))
        check(project, 30)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1200k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@BOTH
def test_a_full_disk_for_results_is_told_and_the_same_command_goes_on(
    make_project: Any, small_disk: Path, executor: str
) -> None:
    root = make_project({"counted.py": STEPS}, f'[stores]\nstorage = "{small_disk}/storage"\n')
    with noria.open(root) as project:
        with pytest.raises(StepFailed, match=r"no space left on the disk of .*; free some and run"):
            project.run_pipeline("large_ones", executor=executor)
        assert project.ledger.verify().ok
        assert list((small_disk / "storage" / "incoming").iterdir()) == []
        kept = {each.name for each in project.ledger.list_runs(kind="step", state=RunState.FINISHED)}
        assert 0 < len(kept) < 10
        subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
        result = project.run_pipeline("large_ones", executor=executor)
        assert result.value == [200_000] * 10
        assert result.counts == {"cached": len(kept), "ran": 11 - len(kept)}
        finished = project.ledger.list_runs(kind="step", state=RunState.FINISHED)
        assert len({each.name for each in finished}) == len(finished) == 11


@BOTH
def test_a_full_disk_for_the_database_is_told_and_the_same_command_goes_on(
    make_project: Any, small_disk: Path, executor: str
) -> None:
    root = make_project({"counted.py": STEPS}, f'[stores]\ndatabase = "sqlite:///{small_disk}/noria.db"\n')
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    with noria.open(root) as project:
        project.run_pipeline("counted", {"tasks": 1, "pause": 0.0}, executor=executor)
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            file.write(b"x" * (shutil.disk_usage(small_disk).free - 150_000))
        with pytest.raises(DiskFull, match="free some"):
            project.run_pipeline("counted", {"tasks": 300, "pause": 0.0}, executor=executor)
        filler.unlink()
        assert project.ledger.verify().ok
        result = project.run_pipeline("counted", {"tasks": 300, "pause": 0.0}, executor=executor)
        assert result.value == sum(range(300))
        assert project.ledger.verify().ok
        finished = project.ledger.list_runs(kind="step", state=RunState.FINISHED)
        assert set(Counter(each.name for each in finished if "count[" in each.name).values()) == {1}


@BOTH
def test_a_result_that_goes_away_in_the_middle_is_made_again(
    root: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noria.open(root) as project:
        project.run_pipeline("large_ones", executor=executor)
        assert project.run_pipeline("large_ones", executor=executor).counts == {"cached": 11}
        blobs = [each for each in (root / ".noria" / "storage").rglob("*") if each.is_file()]
        (blob,) = [each for each in blobs if bytes([3]) * 200_000 in each.read_bytes()]
        blob.unlink()
        result = project.run_pipeline("large_ones", executor=executor, force=["sizes"])
        assert result.value == [200_000] * 10
        assert begun(root)["3"] == 2
        assert begun(root).total() == 11

        damaged: list[str] = []

        def damage(self: RunLoop, attempt: Any) -> Any:
            if attempt.task.id == "sizes" and not damaged:
                damaged.append(attempt.run)
                blob.chmod(0o644)
                blob.write_bytes(b"damaged")
            return work(self, attempt)

        work = RunLoop._work
        monkeypatch.setattr(RunLoop, "_work", damage)
        result = project.run_pipeline("large_ones", executor=executor, force=["sizes"])
        assert result.value == [200_000] * 10
        assert begun(root)["3"] == 3
        assert project.ledger.get_run(damaged[0]).state is RunState.CANCELLED
        assert project.ledger.verify().ok
        assert project.ledger.list_runs(state=RunState.RUNNING) == []


@pytest.mark.parametrize("jump", [timedelta(days=-3), timedelta(days=3)])
@BOTH
def test_a_clock_that_jumps_does_no_harm(
    root: Path, executor: str, jump: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = time.time
    jumps_at = time.monotonic() + 0.8

    def jumping() -> float:
        return wall() + (jump.total_seconds() if time.monotonic() > jumps_at else 0.0)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(jumping(), tz)

    for name in clock_users():
        monkeypatch.setattr(f"{name}.datetime", Jumping)
    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    began = time.monotonic()
    with noria.open(root) as project:
        result = project.run_pipeline("counted", {"tasks": 16, "pause": 0.1}, executor=executor)
        assert result.value == sum(range(16))
        assert time.monotonic() - began < 15
        check(project, 16)
        for each in project.ledger.list_runs(kind="step"):
            assert each.ended_at is not None
            assert timedelta(0) <= each.ended_at - each.started_at < timedelta(seconds=5)
        again = project.run_pipeline("counted", {"tasks": 16, "pause": 0.1}, executor=executor)
        assert again.counts == {"cached": 17}


def clock_users() -> list[str]:
    return [
        "noria.ledger.leases",
        "noria.ledger.store",
        "noria.pipelines.attempts",
        "noria.pipelines.recording",
        "noria.pipelines.store",
        "noria.clock",
    ]
