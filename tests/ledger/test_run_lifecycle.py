import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from noria.clock import WallClock
from noria.database.store import Database
from noria.errors import Conflict, LeaseHeld, NotFound
from noria.ledger import processes, running, runs
from noria.ledger.acting import acting_as
from noria.ledger.processes import Process, is_gone, this_process
from noria.ledger.store import Ledger
from noria.ledger.tables import heartbeats
from noria.records import Cost, Run, RunState

_START = """
import sys
from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger
ledger = Ledger(Database.open(sys.argv[1]), clock=WallClock())
print(ledger.start_run("train", "late", key=sys.argv[2] or None).id, flush=True)
sys.stdin.read()
"""


def _start_elsewhere(database: Database, key: str = "") -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _START, database.url, key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def _kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_a_run_comes_back_as_it_was_started(ledger: Ledger) -> None:
    cause = ledger.append("schedule.ticked")
    parent = ledger.start_run("pipeline", "nightly")
    run = ledger.start_run(
        "train", "late", cause=cause.id, parent=parent.id, experiment="1", params={"trees": 300}, seed=7
    )
    assert ledger.get_run(run.id) == run
    assert (run.state, run.attempt, run.params, run.seed) == (RunState.RUNNING, 1, {"trees": 300}, 7)
    assert (run.parent, run.cause, run.code) == (parent.id, cause.id, "none")


def test_a_finished_run_has_metrics_cost_and_an_event_that_its_start_caused(ledger: Ledger) -> None:
    run = ledger.start_run("train", "late", params={"a": 1})
    cost = Cost(cpu_s=1.5, wall_s=2.0)
    done = ledger.finish_run(
        run.id, state=RunState.FINISHED, metrics={"auc": 0.75}, params={"b": 2}, cost=cost
    )
    assert ledger.get_run(run.id) == done
    assert (done.metrics, done.params, done.cost) == ({"auc": 0.75}, {"a": 1, "b": 2}, cost)
    assert done.ended_at is not None
    started, finished = ledger.list_events(subject=f"run/{run.id}")
    assert (started.verb, finished.verb, finished.cause) == ("run.started", "run.finished", started.id)
    assert list(finished.rows) == [f"runs/{run.id}"]


def test_metrics_without_a_value_are_kept(ledger: Ledger) -> None:
    run = ledger.start_run("train", "late")
    metrics = {"auc": math.nan, "loss": math.inf, "low": -math.inf}
    done = ledger.finish_run(run.id, state=RunState.FINISHED, metrics=metrics)
    assert math.isnan(done.metrics["auc"])
    assert (done.metrics["loss"], done.metrics["low"]) == (math.inf, -math.inf)
    assert ledger.verify().ok


def test_a_run_is_closed_once(ledger: Ledger) -> None:
    run = ledger.start_run("train", "late")
    done = ledger.finish_run(run.id, state=RunState.FAILED, error="boom")
    assert ledger.finish_run(run.id, state=RunState.FAILED) == done
    with pytest.raises(Conflict, match="already failed"):
        ledger.finish_run(run.id, state=RunState.FINISHED)
    with pytest.raises(Conflict, match="already failed"):
        ledger.heartbeat(run.id)
    with pytest.raises(ValueError, match="not as running"):
        ledger.finish_run(run.id, state=RunState.RUNNING)
    assert len(ledger.list_events()) == 2


def test_an_unknown_run_is_not_found(ledger: Ledger) -> None:
    for call in (ledger.get_run, ledger.heartbeat, lambda id: ledger.finish_run(id, state=RunState.FAILED)):
        with pytest.raises(NotFound, match="no run named 'nix'"):
            call("nix")
    with pytest.raises(NotFound):
        ledger.start_run("train", "late", parent="nix")


def test_runs_are_listed_newest_first(ledger: Ledger) -> None:
    a, b = ledger.start_run("train", "late"), ledger.start_run("ingest", "flights", experiment="1")
    a = ledger.finish_run(a.id, state=RunState.FINISHED)
    assert ledger.list_runs() == [b, a]
    assert ledger.list_runs(newest_first=False, limit=1) == [a]
    assert ledger.list_runs(kind="ingest") == ledger.list_runs(experiment="1") == [b]
    assert ledger.list_runs(state=RunState.FINISHED) == ledger.list_runs(name="late") == [a]


def test_a_finished_run_of_a_key_is_given_again(ledger: Ledger) -> None:
    run = ledger.start_run("train", "late", key="late/april")
    done = ledger.finish_run(run.id, state=RunState.FINISHED)
    assert ledger.start_run("train", "late", key="late/april") == done
    with pytest.raises(Conflict, match="needs a key of its own"):
        ledger.start_run("train", "other", key="late/april")


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED, RunState.KILLED])
def test_a_run_that_did_not_finish_gets_a_new_attempt(ledger: Ledger, state: RunState) -> None:
    run = ledger.start_run("train", "late", key="k")
    ledger.finish_run(run.id, state=state)
    again = ledger.start_run("train", "late", key="k")
    assert again.attempt == 2
    assert again.id != run.id


def test_a_run_at_work_is_not_started_twice(ledger: Ledger) -> None:
    ledger.start_run("train", "late", key="k")
    with pytest.raises(LeaseHeld, match=f"pid {os.getpid()}"):
        ledger.start_run("train", "late", key="k")


def test_a_block_that_ends_well_is_finished_with_its_cost(ledger: Ledger) -> None:
    with ledger.running("train", "late", params={"a": 1}) as run:
        version = ledger.record_version("dataset", "flights", sha256="a" * 64, uri="x")
        run.add_input(version)
        run.metrics["auc"] = 0.75
        run.params["rows"] = 10
        model = run.record_version("model", "late", sha256="b" * 64, uri="y")
        sum(range(200_000))
    done = ledger.get_run(run.id)
    assert run.run == done
    assert (done.state, done.metrics, done.params) == (RunState.FINISHED, {"auc": 0.75}, {"a": 1, "rows": 10})
    assert done.cost is not None
    assert 0 < done.cost.wall_s < 60
    assert model.run == done.id
    edges = {(edge.version, edge.role) for edge in ledger.list_edges(run=done.id)}
    assert edges == {(version.id, "input"), (model.id, "output")}


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (ZeroDivisionError("no rows"), RunState.FAILED, "ZeroDivisionError: no rows"),
        (KeyboardInterrupt(), RunState.CANCELLED, "KeyboardInterrupt"),
        (SystemExit(3), RunState.CANCELLED, "SystemExit: 3"),
        (ValueError("\udcff\0" + "x" * 9_000), RunState.FAILED, "ValueError: \\udcff\\0xx"),
    ],
)
def test_a_block_that_ends_badly_says_how(
    ledger: Ledger, error: BaseException, state: RunState, text: str
) -> None:
    with pytest.raises(type(error)), ledger.running("train", "late") as run:
        run.metrics["half"] = 0.5
        raise error
    done = ledger.get_run(run.id)
    assert (done.state, done.metrics) == (state, {"half": 0.5})
    assert done.error is not None
    assert done.error.startswith(text)
    assert ledger.verify().ok


def test_a_block_of_a_finished_key_tells_that_it_is_done(ledger: Ledger) -> None:
    with ledger.running("train", "late", key="k") as first:
        assert not first.is_done
    with ledger.running("train", "late", key="k") as second:
        assert second.is_done
    assert second.run == first.run
    assert len(ledger.list_events()) == 2


def test_a_run_has_no_id_before_its_block(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="`with` block"):
        _ = ledger.running("train", "late").id


def test_a_block_beats_in_the_background(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_BEAT_EVERY_S", 0.01)
    beats: list[str] = []
    beat = ledger.heartbeat

    def counted(run_id: str) -> None:
        beat(run_id)
        beats.append(run_id)

    monkeypatch.setattr(ledger, "heartbeat", counted)
    with ledger.running("train", "late") as run:
        waits = 0
        while len(beats) < 3 and waits < 1_000:
            run._ended.wait(0.01)
            waits += 1
        assert len(beats) >= 3
    assert ledger.verify().ok


def test_a_process_is_told_from_a_later_one_with_its_pid() -> None:
    here = this_process()
    assert is_gone(here) is False
    assert is_gone(msgspec.structs.replace(here, started="1")) is True
    assert is_gone(msgspec.structs.replace(here, boot="another")) is None
    assert is_gone(msgspec.structs.replace(here, host="another")) is None


def test_an_ended_process_is_gone_even_if_nobody_has_collected_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    started = processes._started(child.pid)
    assert started is not None
    process: Process = msgspec.structs.replace(this_process(), pid=child.pid, started=started)
    assert is_gone(process) is False
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not collected: a zombie
    assert is_gone(process) is True
    child.communicate()
    assert is_gone(process) is True


def test_ps_tells_the_same_where_there_is_no_proc() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    assert processes._started_by_ps(child.pid) == processes._started_by_ps(child.pid) != None  # noqa: E711
    child.kill()
    child.communicate()
    assert processes._started_by_ps(child.pid) is None


def test_the_run_of_a_killed_process_is_marked_killed_at_once(ledger: Ledger, database: Database) -> None:
    mine = ledger.start_run("train", "mine")
    child, run_id = _start_elsewhere(database)
    assert ledger.mark_killed() == []
    _kill(child)
    with acting_as("person:ada"):  # who happens to look
        killed = ledger.mark_killed()
    assert [run.id for run in killed] == [run_id]
    assert ledger.list_events(verb="run.killed")[0].actor != "person:ada"
    assert killed[0].state is RunState.KILLED
    assert killed[0].error is not None
    assert f"pid {child.pid}" in killed[0].error
    assert ledger.get_run(mine.id).state is RunState.RUNNING
    assert ledger.mark_killed() == []
    assert ledger.verify().ok


def test_a_key_held_elsewhere_is_refused_while_it_lives_and_attempted_anew_after(
    ledger: Ledger, database: Database
) -> None:
    child, run_id = _start_elsewhere(database, "k")
    with pytest.raises(LeaseHeld, match=f"pid {child.pid}"):
        ledger.start_run("train", "late", key="k")
    _kill(child)
    again = ledger.start_run("train", "late", key="k")
    assert again.attempt == 2
    assert ledger.get_run(run_id).state is RunState.KILLED


def test_a_run_on_another_machine_is_given_up_when_it_is_silent(ledger: Ledger, database: Database) -> None:
    run = ledger.start_run("train", "late")
    elsewhere = msgspec.structs.replace(this_process(), host="elsewhere")
    _set_beat(database, run, elsewhere, datetime.now(UTC))
    assert ledger.mark_killed() == []
    _set_beat(database, run, elsewhere, datetime.now(UTC) - runs.STALE_AFTER - timedelta(seconds=1))
    assert [each.id for each in ledger.mark_killed()] == [run.id]


def _set_beat(database: Database, run: Run, process: Process, at: datetime) -> None:
    with database.write() as connection:
        connection.execute(
            heartbeats.update().where(heartbeats.c.run == run.id),
            {"holder": msgspec.json.encode(process).decode(), "beat_at": at},
        )


def test_only_runs_of_the_own_scope_are_marked(ledger: Ledger, database: Database) -> None:
    other = Ledger(database, scope="other", clock=WallClock())
    run = other.start_run("train", "late")
    _set_beat(database, run, msgspec.structs.replace(this_process(), started="1"), datetime.now(UTC))
    assert ledger.mark_killed() == []
    assert [each.id for each in other.mark_killed()] == [run.id]


def test_leases_are_held_by_one_and_die_with_their_holder(ledger: Ledger, database: Database) -> None:
    lease = ledger.acquire_lease("replay", ttl_s=60, holder="demo")
    with pytest.raises(LeaseHeld, match=rf"demo \(pid {os.getpid()} on .*\) since "):
        ledger.acquire_lease("replay", ttl_s=60)
    renewed = ledger.renew_lease(lease, ttl_s=600)
    assert renewed.expires_at > lease.expires_at + timedelta(seconds=500)
    ledger.release_lease(renewed)
    second = ledger.acquire_lease("replay", ttl_s=-1)  # run out as soon as it is taken
    third = ledger.acquire_lease("replay", ttl_s=60)
    with pytest.raises(LeaseHeld):
        ledger.renew_lease(second, ttl_s=60)
    ledger.release_lease(second)
    with pytest.raises(LeaseHeld, match="since"):
        ledger.acquire_lease("replay", ttl_s=60)
    ledger.release_lease(third)
    assert ledger.verify().events == 0


def test_the_lease_of_a_killed_process_is_free_at_once(ledger: Ledger, database: Database) -> None:
    code = _START.replace(
        'start_run("train", "late", key=sys.argv[2] or None).id', 'acquire_lease("x", ttl_s=600)'
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, database.url, ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(LeaseHeld, match=f"pid {child.pid}"):
        ledger.acquire_lease("x", ttl_s=60)
    _kill(child)
    assert ledger.acquire_lease("x", ttl_s=60).name == "x"


def test_the_face_is_light() -> None:
    packages = "noria.ledger, noria.database, noria.storage"
    code = f"import sys, {packages}; print({{'sqlalchemy', 'obstore'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    for package in (__import__("noria.ledger"), __import__("noria.database"), __import__("noria.storage")):
        for face in (package.ledger, package.database, package.storage):
            assert face.__all__ == sorted(face.__all__)
            assert all(hasattr(face, name) for name in face.__all__)
            assert Path(str(face.__file__)).name == "__init__.py"
