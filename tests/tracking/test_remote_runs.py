"""Runs that a server keeps: as those of a project are, begun with it or without it, never in its way."""

import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.servers.noria_up import NoriaUp, noria_up

import noria
from noria.errors import ConfigError, Conflict, LeaseHeld, NotFound, ProjectNotFound, StoreError
from noria.records import Run, RunId, RunState
from noria.tracking.experiments import ExperimentBook
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore
from noria.workspace.project import Project

pytestmark = pytest.mark.usefixtures("spool")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoriaUp]:
    with noria_up(tmp_path_factory.mktemp("remote") / "site") as up:
        yield up


def waiting(spool: Path) -> list[Path]:
    return [each for each in spool.glob("*/*") if each.is_dir()]


def await_sent(spool: Path) -> None:
    """Wait until a process that has just begun has sent what others have left."""
    ends = time.monotonic() + 30
    while waiting(spool):
        assert time.monotonic() < ends
        time.sleep(0.05)


def steps_of(project: Project, run: str, name: str = "loss") -> list[int]:
    return [each.step for each in TrackingStore(project.ledger.database).list_points(RunId(run), name)]


def test_the_same_program_gives_the_same_run_here_and_there(
    server: NoriaUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noria.open(server.folder) as site:
        site.ledger.record_version("dataset", "flows", sha256="c" * 64, uri="x")
    code = tmp_path / "code"
    code.mkdir()
    (code / "noria.toml").write_text('[project]\nname = "code"\n')
    (code / "train.py").write_text("depth = 3\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=code, check=True)
    (code / "train.py").write_text("depth = 4\n")
    monkeypatch.chdir(code)
    with noria.open() as here:
        here.ledger.record_version("dataset", "flows", sha256="c" * 64, uri="x")

    def train(url: str | None) -> str:
        wanted: dict[str, Any] = {
            "params": {"depth": 4, "layers": [64, 32]},
            "tags": {"team": "ops"},
            "seed": 7,
        }
        with noria.start_run("one", experiment="parcels", server=url, system_metrics=False, **wanted) as run:
            for number in range(100):
                run.log_metric("loss", 1 / (number + 1))
            run.log_metrics({"auc": 0.7, "bad": float("nan"), "far": float("inf")}, step=9)
            run.log_param("rate", 0.1)
            run.put_tags({"why": "try", "größe": "ü"})
            run.log_text("three", "notes/verdict.txt")
            run.log_table(pa.table({"a": [1, 2]}), "rows.parquet")
            run.log_input("flows", context="training")
            with noria.start_run("inner", server=url, nested=True, system_metrics=False) as inner:
                inner.log_metric("x", 1)
        assert run.run.state is RunState.FINISHED
        return run.id

    def told(project: Project, id: str) -> dict[str, Any]:
        run = project.ledger.get_run(id)
        details = RunDesk(project.ledger).get(RunId(id))
        (inner,) = project.ledger.list_runs(parent=id)
        files = {
            each.path.partition("/artifacts/")[2]: each.sha256
            for each in project.artifacts.tree()
            if id in each.path
        }
        assert project.ledger.storage is not None
        assert run.code_diff is not None
        assert b"+depth = 4" in project.ledger.storage.get(run.code_diff)
        assert b"numpy==" in project.ledger.storage.get(run.runtime)
        points = TrackingStore(project.ledger.database).list_points(RunId(id))
        assert run.cost is not None
        return {
            "run": (run.name, run.state, run.params, {k: repr(v) for k, v in run.metrics.items()}, run.seed),
            "code": (run.code, run.code_diff, run.runtime, run.kind, run.error),
            "points": [(each.name, repr(each.value), each.step) for each in points],
            "info": (details.info.name, details.info.owner, details.info.state),
            "texts": (details.params, details.tags, details.datasets),
            "inputs": [each.version for each in project.ledger.list_edges(run=id)],
            "files": files,
            "inner": (inner.name, inner.metrics, inner.state),
        }

    ours, theirs = train(None), train(server.url)
    with noria.open() as here, noria.open(server.folder) as site:
        assert told(here, ours) == told(site, theirs)
        assert site.ledger.verify().ok


def test_a_run_goes_on_and_is_refused_as_in_a_project(server: NoriaUp, spool: Path) -> None:
    with noria.start_run("one", server=server.url, params={"depth": 3}) as run:
        run.log_metric("loss", 1)
        assert run.flush()
        with pytest.raises(LeaseHeld, match=f"pid {os.getpid()} on"):
            noria.start_run(run=run.id, server=server.url, nested=True).__enter__()
        with pytest.raises(Conflict, match="nested=True"):
            noria.start_run("other", server=server.url).__enter__()
    with noria.start_run(run=run.id, server=server.url) as again:
        again.log_metric("loss", 2)
        with pytest.raises(Conflict, match="cannot become"):
            again.log_param("depth", 4)
        again.log_text("x", "a/b")
    with noria.start_run(run=run.id, server=server.url) as again:
        assert (again.metrics, again.params) == ({"loss": 2}, {"depth": 3})
        with pytest.raises(Conflict, match="folder"):
            again.log_text("x", "a")
    with pytest.raises(NotFound, match="no run named"):
        noria.start_run(run="f" * 32, server=server.url).__enter__()
    with noria.open(server.folder) as site:
        assert steps_of(site, run.id) == [0, 1]
        book = ExperimentBook(site.ledger)
        book.delete(book.create("gone").id)
    with pytest.raises(Conflict, match="deleted"):
        noria.start_run(experiment="gone", server=server.url).__enter__()
    assert waiting(spool) == []


def test_without_project_and_server_there_is_no_run(monkeypatch: pytest.MonkeyPatch, server: NoriaUp) -> None:
    with pytest.raises(ProjectNotFound):
        noria.start_run().__enter__()
    monkeypatch.setenv("NORIA_TRACKING__SERVER", server.url)
    with noria.start_run("by the environment") as run:
        run.log_metric("loss", 1)
    with noria.open(server.folder) as site:
        assert site.ledger.get_run(run.id).metrics == {"loss": 1}


def test_a_failure_and_a_cancellation_are_told(server: NoriaUp) -> None:
    with pytest.raises(ValueError, match="went wrong"), noria.start_run(server=server.url) as failed:
        raise ValueError("it went wrong")
    with pytest.raises(KeyboardInterrupt), noria.start_run(server=server.url) as cancelled:
        raise KeyboardInterrupt
    with noria.open(server.folder) as site:
        found = site.ledger.get_run(failed.id)
        assert (found.state, found.error) == (RunState.FAILED, "ValueError: it went wrong")
        assert site.ledger.get_run(cancelled.id).state is RunState.CANCELLED


@pytest.fixture
def away(tmp_path: Path) -> Iterator[NoriaUp]:
    """Give a server that is not there yet."""
    with noria_up(tmp_path / "site", starts=False) as up:
        yield up


def train_without(url: str) -> tuple[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NORIA_TRACKING__PATIENCE_S", "0.3")
        with noria.start_run("offline", server=url, params={"depth": 3}) as run:
            run.log_metric("loss", 1)
            run.log_text("found", "notes.txt")
            with noria.start_run("within", server=url, nested=True) as inner:
                inner.log_metric("loss", 2)
    return run.id, inner.id


def test_a_run_that_began_and_ended_without_its_server_is_sent_later(
    away: NoriaUp, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    run, inner = train_without(away.url)
    assert time.monotonic() - began < 10  # four times its patience, and what else it does
    assert "begins without its server" in caplog.text
    assert f"`noria run sync {away.url}` sends it" in caplog.text
    assert len(waiting(spool)) == 2
    done = noria.sync_runs()
    assert [each.is_sent for each in done.logs] == [False, False]
    assert not done.is_whole
    with pytest.raises(StoreError, match="goes on only where its server can be asked"):
        noria.start_run(run="a" * 32, server=away.url).__enter__()
    away.start()
    command = [sys.executable, "-m", "noria", "run", "sync", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]  # at once
    told = [json.loads(each.communicate()[0]) for each in both]
    sent = {each["run"] for one in told for each in one["logs"] if each["is_sent"]}
    assert {run, inner} <= sent
    assert waiting(spool) == []
    assert noria.sync_runs().logs == []
    with noria.open(away.folder) as site:
        assert site.ledger.get_run(run).state is RunState.FINISHED
        assert site.ledger.get_run(inner).parent == run
        assert site.ledger.get_run(run).params == {"depth": 3}
        assert [each.path for each in site.artifacts.tree()] == [f"0/{run}/artifacts/notes.txt"]
        assert (steps_of(site, run), steps_of(site, inner)) == ([0], [0])
        assert site.ledger.verify().ok


def test_a_file_that_was_removed_is_set_aside_and_the_rest_is_sent(server: NoriaUp, spool: Path) -> None:
    with server.silent():
        run, _ = train_without(server.url)
        (lost,) = (each for each in spool.rglob("*.bytes") if each.read_bytes() == b"found")
        lost.unlink()
    done = next(each for each in noria.sync_runs().logs if each.run == run)
    assert (done.is_sent, done.refused) == (True, 1)
    assert "are gone" in done.why
    with noria.open(server.folder) as site:
        assert site.ledger.get_run(run).state is RunState.FINISHED
        assert steps_of(site, run) == [0]


def test_a_server_that_comes_while_a_run_is_at_work_gets_all_of_it(away: NoriaUp, spool: Path) -> None:
    left, _ = train_without(away.url)
    with noria.start_run("late", server=away.url) as run:
        run.log_metric("loss", 1)
        away.start()
        run.log_metric("loss", 2)
        assert run.flush(30)
        away.kill()
        run.log_metric("loss", 3)
        assert not run.flush(1)
        away.start()
    with noria.start_run("next", server=away.url) as following:
        following.log_metric("loss", 1)
        await_left = [each for each in waiting(spool) if each.name.startswith((left, run.id))]
        ends = time.monotonic() + 30
        while any(each.exists() for each in await_left):
            assert time.monotonic() < ends
            time.sleep(0.05)
    with noria.open(away.folder) as site:
        assert steps_of(site, run.id) == [0, 1, 2]
        states = {site.ledger.get_run(each).state for each in (left, run.id, following.id)}
        assert states == {RunState.FINISHED}


def test_a_process_that_died_is_told_by_whoever_comes_next(server: NoriaUp, spool: Path) -> None:
    worker = Path(__file__).with_name("remote_worker.py")
    command = [sys.executable, str(worker), server.url, "0", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        run = process.stdout.readline().decode().strip()
        for _ in range(500):
            process.stdout.readline()
        process.kill()
        acknowledged = 500 + process.stdout.read().count(b"\n")
    process.wait()
    told = subprocess.run(
        [sys.executable, "-m", "noria", "run", "show", run, "--project", str(server.folder)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "running" in told
    assert f"pid {process.pid} on" in told
    (done,) = noria.sync_runs(server.url).logs
    assert (done.run, done.is_sent) == (run, True)
    with noria.open(server.folder) as site:
        found = site.ledger.get_run(run)
        assert found.state is RunState.KILLED
        assert f"pid {process.pid} on" in str(found.error)
        kept = steps_of(site, run)
        assert kept == list(range(len(kept)))
        assert len(kept) >= acknowledged
    with noria.start_run(run=run, server=server.url) as again:
        again.log_metric("loss", 0)
    with noria.open(server.folder) as site:
        assert steps_of(site, run) == list(range(len(kept) + 1))


def test_threads_and_forked_children_log_to_one_run(server: NoriaUp, spool: Path) -> None:
    with noria.start_run("many", server=server.url) as run:
        run.log_metric("loss", 0)
        pid = os.fork()
        if pid == 0:
            for number in range(100):
                run.log_metric("child", number)
            run.log_text("of the child", "child.txt")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

        def log() -> None:
            for _ in range(200):
                run.log_metric("loss", 1)

        threads = [threading.Thread(target=log) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    with noria.open(server.folder) as site:
        assert sorted(steps_of(site, run.id)) == list(range(801))
        assert steps_of(site, run.id, "child") == list(range(100))
        assert site.ledger.get_run(run.id).metrics["child"] == 99
        assert site.artifacts.get(f"0/{run.id}/artifacts/child.txt").size_bytes == 12
    assert waiting(spool) == []


def test_what_the_server_refuses_is_set_aside_and_the_rest_goes_on(
    server: NoriaUp, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with noria.start_run("one", server=server.url) as run:
        run.log_metric("loss", 1)
        assert run.flush()
        with noria.open(server.folder) as site:
            TrackingStore(site.ledger.database).log(run.id, params={"depth": 2})
        for number in range(50):
            run.log_metric("loss", number)
        run.log_param("depth", 3)
        run.log_input("nowhere")
        run.log_metric("loss", 99)
    assert sum("does not take all" in each for each in caplog.messages) == 1
    (done,) = noria.sync_runs().logs
    assert (done.is_sent, done.refused) == (True, 2)
    assert "'depth'" in done.why
    told = subprocess.run(
        [sys.executable, "-m", "noria", "run", "sync"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    assert "2 refused" in told.stdout
    with noria.open(server.folder) as site:
        assert steps_of(site, run.id) == list(range(52))
        assert site.ledger.get_run(run.id).state is RunState.FINISHED
        site.ledger.record_version("dataset", "nowhere", sha256="e" * 64, uri="x")
    (done,) = noria.sync_runs(again=True).logs
    assert done.refused == 1
    with noria.open(server.folder) as site:
        assert [each.role for each in site.ledger.list_edges(run=run.id)] == ["input"]
    shutil.rmtree(spool)


class _Cutting(socketserver.BaseRequestHandler):
    """Passes on what is asked, and the answers to it while `passes` is set."""

    port = 0
    passes = threading.Event()

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            threading.Thread(target=self._back, args=(server,), daemon=True).start()
            while data := self.request.recv(65_536):
                server.sendall(data)

    def _back(self, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if self.passes.is_set():
                    self.request.sendall(data)


def test_a_run_that_has_gone_on_though_nobody_was_told_is_closed_and_goes_on(
    server: NoriaUp, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORIA_TRACKING__PATIENCE_S", "0.5")
    monkeypatch.setattr(_Cutting, "port", server.port)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Cutting) as between:
        between.daemon_threads, between.block_on_close = True, False
        threading.Thread(target=between.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{between.server_address[1]}"
        _Cutting.passes.set()
        with noria.start_run("one", server=url, system_metrics=False) as run:
            run.log_metric("loss", 1)
        for _ in range(2):
            _Cutting.passes.clear()
            with pytest.raises(StoreError, match="has not answered"):
                noria.start_run(run=run.id, server=url).__enter__()
            assert [each.name.partition(".")[0] for each in waiting(spool)] == [run.id]
            _Cutting.passes.set()
            with noria.start_run(run=run.id, server=url, system_metrics=False) as again:
                again.log_metric("loss", 2)
        between.shutdown()
    with noria.open(server.folder) as site:
        verbs = [each.verb for each in site.ledger.list_events(subject=f"run/{run.id}")]
        lost_and_gone_on = ["run.resumed", "run.killed", "run.resumed", "run.finished"]
        assert verbs == ["run.started", "run.finished", *lost_and_gone_on * 2]
        assert steps_of(site, run.id) == [0, 1, 2]
    assert waiting(spool) == []


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


def test_what_finds_no_room_is_sent_at_once(
    server: NoriaUp, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORIA_TRACKING__SPOOL", str(small_disk / "spool"))
    (tmp_path / "large").write_bytes(os.urandom(400_000))
    metrics = {f"m{number}": number / 7 for number in range(1_000)}
    with noria.start_run("one", server=server.url) as run:
        run.log_artifact(tmp_path / "large")
        for _ in range(20):
            run.log_metrics(metrics)
    with noria.open(server.folder) as site:
        points = TrackingStore(site.ledger.database).list_points(run.id)
        assert len(points) == 20 * 1_000
        assert site.ledger.get_run(run.id).state is RunState.FINISHED
        assert site.artifacts.get(f"0/{run.id}/artifacts/large").size_bytes == 400_000


def test_a_disk_that_takes_nothing_is_gone_round(
    server: NoriaUp, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool.write_text("a file where the folder would be")
    with noria.start_run("one", server=server.url) as run:
        run.log_metric("loss", 1)
        run.log_metric("loss", 2)
    with noria.open(server.folder) as site:
        found: Run = site.ledger.get_run(run.id)
        assert (found.metrics, found.state) == ({"loss": 2}, RunState.FINISHED)
    assert sum("goes straight to the server" in each for each in caplog.messages) == 1


def test_who_may_write_does_and_is_named(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noria_up(tmp_path / "site", starts=False) as up:
        with (up.folder / "noria.toml").open("a") as file:
            file.write('[server]\nusers = "users.json"\nprefix = "/team"\n')
        tokens = {}
        for role in ("write", "read"):
            for words in (["add", role, "--role", role, "--no-password"], ["token", role]):
                command = [
                    sys.executable,
                    "-m",
                    "noria",
                    "user",
                    *words,
                    "--project",
                    str(up.folder),
                    "--json",
                ]
                told = subprocess.run(command, capture_output=True, check=True).stdout
            tokens[role] = json.loads(told)["token"]
        up.start()
        url = f"{up.url}/team"
        with pytest.raises(ConfigError, match="HTTP 401"):
            noria.start_run(server=url).__enter__()
        monkeypatch.setenv("NORIA_TRACKING__TOKEN", tokens["read"])
        with pytest.raises(ConfigError, match="HTTP 403"):
            noria.start_run(server=url).__enter__()
        monkeypatch.setenv("NORIA_TRACKING__TOKEN", tokens["write"])
        with noria.start_run(server=url) as run:
            run.log_metric("loss", 1)
            run.log_text("found", "notes.txt")
        assert waiting(spool) == []
        with noria.open(up.folder) as site:
            actors = {each.actor for each in site.ledger.list_events(subject=f"run/{run.id}")}
            assert actors == {"person:write"}
            assert site.ledger.get_run(run.id).state is RunState.FINISHED


def test_a_run_goes_on_after_one_that_was_within_it(server: NoriaUp, spool: Path) -> None:
    with noria.start_run("outer", server=server.url, system_metrics=False) as run:
        with run.within("inner") as inner:
            inner.log_text("in", "inner.txt")
        run.log_text("out", "outer.txt")
        run.log_metric("after", 1)
    assert waiting(spool) == []
    with noria.open(server.folder) as site:
        states = [site.ledger.get_run(each.id).state for each in (run, inner)]
        assert states == [RunState.FINISHED] * 2
        assert site.ledger.get_run(run.id).metrics == {"after": 1.0}
        paths = [each.path for each in site.artifacts.tree()]
        assert any(each.endswith(f"{run.id}/artifacts/outer.txt") for each in paths)
        assert any(each.endswith(f"{inner.id}/artifacts/inner.txt") for each in paths)
