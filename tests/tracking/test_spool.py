"""What is acknowledged is there once: after kill -9, on a full disk, while the database is away."""

import gc
import itertools
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401 - fixtures

import noria
from noria.clock import WallClock
from noria.database.store import Database
from noria.errors import StoreError
from noria.ledger.store import Ledger
from noria.records import RunId, RunState
from noria.storage.local import LocalStorage
from noria.tracking.active_run import ActiveRun
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.beginning import RunStores, WantedRun
from noria.tracking.spools.moving import EntryKeeper, move_abandoned
from noria.tracking.spools.records import Params, Points, Tags, encode
from noria.tracking.spools.spool import RunSpool, abandoned_spools
from noria.tracking.store import TrackingStore

WORKER = Path(__file__).with_name("logging_worker.py")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[RunStores]:
    with Database.open(f"sqlite:///{tmp_path / 'noria.db'}") as database:
        storage = LocalStorage(tmp_path / "storage")
        ledger = Ledger(database, storage=storage, clock=WallClock())
        artifacts = ArtifactStore(database, storage, tmp_path / "staging")
        yield RunStores(ledger, artifacts, tmp_path / "tracking")


def start(stores: RunStores) -> ActiveRun:
    return ActiveRun(nullcontext(stores), WantedRun(), system_metrics=False)


def make_project(folder: Path, database: str = "") -> Path:
    folder.mkdir()
    stores = f'[stores]\ndatabase = "{database}"\n' if database else ""
    (folder / "noria.toml").write_text(f'[project]\nname = "shop"\n{stores}')
    with noria.open(folder) as project:
        assert project.ledger.verify().ok
    return folder


def steps_of(ledger: Ledger, run: str) -> list[int]:
    return [point.step for point in TrackingStore(ledger.database).list_points(RunId(run), "loss")]


@pytest.mark.parametrize(
    ("database", "processes", "metrics"),
    [
        ("sqlite", 8, 2_000),
        pytest.param("sqlite", 20, 10_000, marks=pytest.mark.soak),
        pytest.param("postgresql", 20, 10_000, marks=pytest.mark.soak),
    ],
)
def test_all_that_is_acknowledged_is_there_once_whoever_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest, database: str, processes: int, metrics: int
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else ""
    folder, rng = make_project(tmp_path / "shop", url), random.Random(processes)
    command = [sys.executable, str(WORKER), str(folder)]
    workers = [
        subprocess.Popen([*command, str(number), str(metrics)], stdout=subprocess.PIPE)
        for number in range(processes)
    ]
    told: list[list[bytes]] = [[] for _ in workers]

    def follow(number: int, dies_after: int | None) -> None:
        """Read what a worker acknowledges; kill it in the midst of it."""
        stdout = workers[number].stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                told[number].append(line)
                if dies_after is not None and len(told[number]) == dies_after:
                    os.kill(workers[number].pid, signal.SIGKILL)
        workers[number].wait()

    ends = [rng.randrange(1, metrics) if number % 4 else None for number in range(processes)]
    threads = [threading.Thread(target=follow, args=each) for each in enumerate(ends)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.returncode for each in workers] == [0 if end is None else -signal.SIGKILL for end in ends]
    with noria.open(folder) as project:
        ledger = project.ledger
        ledger.mark_killed()
        for (run, *acknowledged), end in zip(told, ends, strict=True):
            id = run.decode().strip()
            kept = steps_of(ledger, id)
            assert kept == list(range(len(kept)))  # once, and in order
            assert len(kept) >= sum(line.endswith(b"\n") for line in acknowledged)
            assert len(kept) == metrics or end is not None
            assert ledger.get_run(id).state is (RunState.FINISHED if end is None else RunState.KILLED)
        assert ledger.verify().ok
    assert list((folder / ".noria" / "tracking").iterdir()) == []


def test_on_a_full_disk_what_was_acknowledged_is_there_and_what_was_not_is_refused(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "shop")
    size = max(each.stat().st_size for each in (folder / ".noria").iterdir())
    command = [sys.executable, str(WORKER), str(folder), "0", "1000000", str(size + 200_000)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)
    assert b"DiskFull\n" in done.stderr
    assert done.returncode == 0
    run, *acknowledged = done.stdout.split()
    with noria.open(folder) as project:
        assert steps_of(project.ledger, run.decode()) == list(range(len(acknowledged)))
        assert project.ledger.get_run(run.decode()).state is RunState.FINISHED
    assert len(acknowledged) > 1_000


def test_a_database_that_is_locked_holds_nobody_up(stores: RunStores) -> None:
    with start(stores) as run:
        with locked(stores):
            began = time.monotonic()
            for number in range(1_000):
                run.log_metric("loss", number)
            run.put_tag("state", "still at it")
            run.log_text("found", "notes.txt")
            assert time.monotonic() - began < 5
            assert not run.flush(timeout_s=0.1)
            assert steps_of(stores.ledger, run.id) == []
        assert run.flush()
        assert steps_of(stores.ledger, run.id) == list(range(1_000))
        assert [each.path for each in stores.artifacts.tree()] == [f"0/{run.id}/artifacts/notes.txt"]
    assert TrackingStore(stores.ledger.database).list_tags(run.id)["state"] == "still at it"


@contextmanager
def locked(stores: RunStores) -> Iterator[None]:
    other = sqlite3.connect(stores.ledger.database.location, isolation_level=None)
    other.execute("begin immediate")
    yield
    other.execute("rollback")
    other.close()


def test_a_server_that_comes_back_gets_what_waited(
    tmp_path: Path,
    postgres_server: Postgres,  # noqa: F811
    postgres_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("noria.tracking.spools.moving._MUCH_BYTES", 5_000)
    with noria.open(make_project(tmp_path / "shop", postgres_url)) as project:
        with project.start_run() as run:
            run.log_metric("loss", 0)
            assert run.flush()
            postgres_server.stop()
            began = time.monotonic()
            for number in range(1, 1_000):
                run.log_metric("loss", number)
            assert time.monotonic() - began < 5
            assert not run.flush(timeout_s=2.0)
            postgres_server.start()
            assert run.flush()
            assert steps_of(project.ledger, run.id) == list(range(1_000))
        assert project.ledger.get_run(run.id).state is RunState.FINISHED
    told = [each for each in caplog.messages if "waits in" in each]
    assert 1 <= len(told) <= 2  # once, and once more that it is much
    assert "MiB by now" in told[-1]


def test_a_disk_that_takes_nothing_is_gone_round(stores: RunStores, caplog: pytest.LogCaptureFixture) -> None:
    stores.spools.write_text("a file where the folder would be")
    with start(stores) as run:
        run.log_metric("loss", 1)
        run.log_metric("loss", 2)
        assert steps_of(stores.ledger, run.id) == [0, 1]
    assert stores.ledger.get_run(run.id).metrics == {"loss": 2}
    assert sum("straight into the database" in each for each in caplog.messages) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_what_finds_no_room_on_the_disk_goes_into_the_database(
    stores: RunStores, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = RunStores(stores.ledger, stores.artifacts, small_disk / "tracking")
    metrics = {f"m{number}": number / 7 for number in range(1_000)}  # some 25 kB a call
    with start(stores) as run:
        for _ in range(20):
            run.log_metrics(metrics)
        run.log_metric("loss", 1)
        run.log_metric("loss", 2)
    assert "straight into the database" in caplog.text
    points = TrackingStore(stores.ledger.database).list_points(run.id)
    assert len(points) == 20 * 1_000 + 2
    assert sorted({each.step for each in points}) == list(range(20))
    assert stores.ledger.get_run(run.id).state is RunState.FINISHED
    assert list(stores.spools.iterdir()) == []


def test_a_disk_that_cannot_be_written_keeps_no_project_from_being_opened(
    stores: RunStores, small_disk: Path
) -> None:
    run = stores.ledger.start_run("experiment", "one")
    spool = RunSpool.create(small_disk / "tracking", run.id)
    spool.append(encode(Points([("loss", 1.0, 0, 5)])))
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="cannot be written"):
        move_abandoned(small_disk / "tracking", stores.ledger, stores.artifacts)
    with start(RunStores(stores.ledger, stores.artifacts, small_disk / "tracking")) as other:
        other.log_metric("loss", 2)
    assert other.run.metrics == {"loss": 2}
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert move_abandoned(small_disk / "tracking", stores.ledger, stores.artifacts) == 1
    assert steps_of(stores.ledger, run.id) == [0]


def test_threads_log_to_one_run(stores: RunStores) -> None:
    def log(name: str) -> None:
        for _ in range(500):
            run.log_metric(name, 1)
            run.log_metric("loss", 2)

    with start(stores) as run:
        threads = [threading.Thread(target=log, args=(f"of {number}",)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    points = TrackingStore(stores.ledger.database).list_points(run.id)
    assert sorted(each.step for each in points if each.name == "loss") == list(range(2_000))
    assert len(points) == 4_000


def forked(work: Callable[[], None]) -> int:
    """Run in a forked child; give its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_logs_to_its_parents_run(stores: RunStores) -> None:
    def train() -> None:
        for number in range(100):
            run.log_metric("child", number)  # and ends without a word

    with start(stores) as run:
        run.log_metric("loss", 1)
        assert forked(train) == 0
        run.log_metric("loss", 2)
    ended = stores.ledger.get_run(run.id)
    assert ended.metrics == {"loss": 2, "child": 99}
    assert len(TrackingStore(stores.ledger.database).list_points(run.id, "child")) == 100
    assert list(stores.spools.iterdir()) == []


def test_a_child_that_leaves_the_block_does_not_end_the_run(stores: RunStores) -> None:
    run = start(stores)
    run.__enter__()
    assert forked(lambda: run.__exit__(None, None, None)) == 0
    assert stores.ledger.get_run(run.id).state is RunState.RUNNING
    run.__exit__(None, None, None)
    assert stores.ledger.get_run(run.id).state is RunState.FINISHED


def test_the_log_of_a_living_process_is_left_alone(stores: RunStores) -> None:
    run = stores.ledger.start_run("experiment", "one")
    spool = RunSpool.create(stores.spools, run.id)
    assert move_abandoned(stores.spools, stores.ledger, stores.artifacts) == 0
    spool.append(encode(Points([("loss", 1.0, 0, 5)])))
    spool.close()
    assert move_abandoned(stores.spools, stores.ledger, stores.artifacts) == 1
    assert steps_of(stores.ledger, run.id) == [0]


def test_a_log_that_cannot_be_taken_keeps_nobody_from_the_others(stores: RunStores) -> None:
    run = stores.ledger.start_run("experiment", "one")
    (stores.spools / f"{run.id}.0" / "lock").mkdir(parents=True)
    spool = RunSpool.create(stores.spools, run.id)
    spool.append(encode(Points([("loss", 1.0, 0, 5)])))
    spool.close()
    with pytest.raises(StoreError, match="cannot be written"):
        move_abandoned(stores.spools, stores.ledger, stores.artifacts)
    assert steps_of(stores.ledger, run.id) == [0]


def test_a_log_that_was_taken_away_is_not_said_to_be_moved(
    stores: RunStores, caplog: pytest.LogCaptureFixture
) -> None:
    with start(stores) as run:
        run.log_metric("loss", 1)
        assert run.flush()
        (folder,) = stores.spools.iterdir()
        folder.rename(stores.spools.with_name("away"))
        run.log_metric("loss", 2)
        assert not run.flush(1.0)
        stores.spools.with_name("away").rename(folder)
    assert "was moved or removed while it was at work" in caplog.text
    assert steps_of(stores.ledger, run.id) == [0, 1]


@contextmanager
def few_files_more(count: int) -> Iterator[None]:
    """The limit is of a file's number, so it is set where `count` numbers below it are free."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    listed = list(Path("/proc/self/fd").iterdir())
    taken = {int(each.name) for each in listed if each.exists()}  # the list's own is closed by now
    free = (number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, count, None)), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_runs_than_files_may_be_open(stores: RunStores) -> None:
    runs = [ActiveRun(nullcontext(stores), WantedRun(), nested=True, system_metrics=False) for _ in range(30)]
    with ExitStack() as at_work:
        for each in runs:
            at_work.enter_context(each)
        with few_files_more(40):
            for number in range(3):
                for each in runs:
                    each.log_metric("loss", number)
        assert 0 < len(list(stores.spools.iterdir())) < len(runs)
    assert {each.run.state for each in runs} == {RunState.FINISHED}
    assert [steps_of(stores.ledger, each.id) for each in runs] == [[0, 1, 2]] * len(runs)
    assert list(stores.spools.iterdir()) == []


def test_without_threads_what_is_logged_goes_straight_into_the_database(
    stores: RunStores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with start(stores) as run:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            run.log_metric("loss", 1)
            run.log_metric("loss", 2)
            assert steps_of(stores.ledger, run.id) == [0, 1]
            assert list(stores.spools.iterdir()) == []
            with pytest.raises(RuntimeError, match="new thread"):
                ActiveRun(nullcontext(stores), WantedRun(), nested=True).__enter__()
        run.log_metric("loss", 3)
    assert run.run.metrics == {"loss": 3}
    assert [each.state for each in stores.ledger.list_runs()] == [RunState.FAILED, RunState.FINISHED]


def test_what_was_moved_is_not_moved_again(stores: RunStores) -> None:
    run, store = stores.ledger.start_run("experiment", "one"), TrackingStore(stores.ledger.database)
    spool = RunSpool.create(stores.spools, run.id)
    spool.append(encode(Tags({"stage": "old"})))
    entries, position = spool.read()
    EntryKeeper(stores.ledger, stores.artifacts).keep(run.id, entries)
    spool.mark_moved(position)
    spool.append(encode(Tags({"other": "new"})))
    spool.close()
    store.put_tag(run.id, "stage", "changed by somebody else")
    assert move_abandoned(stores.spools, stores.ledger, stores.artifacts) == 1
    assert store.list_tags(run.id) == {"stage": "changed by somebody else", "other": "new"}


def test_an_entry_that_cannot_be_kept_is_told_and_the_others_are_kept(
    stores: RunStores, caplog: pytest.LogCaptureFixture
) -> None:
    run, store = stores.ledger.start_run("experiment", "one"), TrackingStore(stores.ledger.database)
    store.log(run.id, params={"depth": 3})
    spool = RunSpool.create(stores.spools, run.id)
    for each in (Params({"depth": 4}), Params({"rate": 0.1}), Points([("loss", 1.0, 0, 5)])):
        spool.append(encode(each))
    spool.close()
    move_abandoned(stores.spools, stores.ledger, stores.artifacts)
    assert store.params(run.id) == {"depth": 3, "rate": 0.1}
    assert steps_of(stores.ledger, run.id) == [0]
    assert "depth" in caplog.text


def test_what_the_database_cannot_hold_keeps_nothing_else_from_it(
    either_ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = either_ledger.start_run("experiment", "one")
    artifacts = ArtifactStore(
        either_ledger.database, LocalStorage(tmp_path / "storage"), tmp_path / "staging"
    )
    spool = RunSpool.create(tmp_path / "tracking", run.id)
    for step in (0, 2**64 - 1, 1):
        spool.append(encode(Points([("loss", 1.0, step, 5)])))
    spool.close()
    assert move_abandoned(tmp_path / "tracking", either_ledger, artifacts) == 1
    assert steps_of(either_ledger, run.id) == [0, 1]
    assert "18446744073709551615" in caplog.text


@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_a_log_that_was_cut_or_damaged_gives_what_is_whole(
    stores: RunStores, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    caplog.set_level(logging.WARNING)
    run = stores.ledger.start_run("experiment", "one")
    spool = RunSpool.create(stores.spools, run.id)
    for step in range(3):
        spool.append(encode(Points([("loss", 1.0, step, 5)])))
    spool.close()
    (log,) = spool.folder.glob("*.log")
    data = bytearray(log.read_bytes())
    size = len(data) // 3
    if harm == "cut":
        log.write_bytes(data[:-3])
    else:
        data[size + 4] ^= 1
        log.write_bytes(data)
    move_abandoned(stores.spools, stores.ledger, stores.artifacts)
    left = [each.name for each in stores.spools.iterdir()]
    if harm == "cut":
        assert (steps_of(stores.ledger, run.id), left) == ([0, 1], [])
    else:
        assert (steps_of(stores.ledger, run.id), left) == ([0], [f"aside.{spool.folder.name}"])
        assert "set aside" in caplog.text
    assert move_abandoned(stores.spools, stores.ledger, stores.artifacts) == 0


def test_a_log_of_a_run_that_is_not_on_record_is_set_aside(
    stores: RunStores, caplog: pytest.LogCaptureFixture
) -> None:
    spool = RunSpool.create(stores.spools, RunId("0" * 32))
    spool.append(encode(Points([("loss", 1.0, 0, 5)])))
    spool.close()
    assert move_abandoned(stores.spools, stores.ledger, stores.artifacts) == 0
    assert list(abandoned_spools(stores.spools)) == []
    assert "set aside" in caplog.text


def test_what_lies_below_a_position_that_outlived_the_power_is_not_missed(stores: RunStores) -> None:
    """The log may be shorter than what was moved of it: nothing is left then, and nothing fails."""
    run = stores.ledger.start_run("experiment", "one")
    spool = RunSpool.create(stores.spools, run.id)
    for step in range(3):
        spool.append(encode(Points([("loss", 1.0, step, 5)])))
    spool.mark_moved(spool.read()[1])
    spool.close()
    (log,) = spool.folder.glob("*.log")
    os.truncate(log, 10)
    assert move_abandoned(stores.spools, stores.ledger, stores.artifacts) == 1


def test_a_log_that_grows_is_cut_off_behind_what_was_moved(
    stores: RunStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.tracking.spools.spool._SEGMENT_BYTES", 10_000)
    with start(stores) as run:
        for _ in range(3):
            for number in range(500):
                run.log_metric("loss", number)
            assert run.flush()
            (folder,) = stores.spools.iterdir()
            assert sum(each.stat().st_size for each in folder.iterdir()) < 25_000
    assert steps_of(stores.ledger, run.id) == list(range(1_500))
