"""What is left to run: read from the ledger, in order, one of a pipeline at a time, none forgotten."""

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.records import Event, EventId
from noria.triggers.declarations import Trigger, every
from noria.triggers.reconcile import list_decisions, reconcile
from noria.workspace.up.jobs import Runner, pipeline_argv
from noria.workspace.up.queue import Queue
from noria.workspace.up.records import Job, Outcome

START = datetime(2024, 1, 1, tzinfo=UTC)
HOURLY = Trigger(every("1h"), run=SimpleNamespace(name="clean"), cooldown=None, budget=None)
OTHER = Trigger(every("1h"), run=SimpleNamespace(name="train"), cooldown=None, budget=None)
DONE = Outcome(outcome="finished", reason="it is done", run="r")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(Database.open(f"sqlite:///{tmp_path}/noria.db"), clock=ReplayClock(START))
    reconcile(made, [HOURLY, OTHER], at=START)
    return made


def decide(ledger: Ledger, hours: int) -> None:
    reconcile(ledger, [HOURLY, OTHER], at=START + timedelta(hours=hours))


def ask(ledger: Ledger, pipeline: str, **params: object) -> Event:
    payload = {"params": params, "reason": f"{pipeline} was asked for"}
    return ledger.append("pipeline.requested", subject=pipeline, payload=payload, at=START)


def ready(queue: Queue, *busy: str, most: int = 10) -> list[str]:
    return [job.pipeline for job in queue.ready(is_busy=lambda name: name in busy, most=most)]


def test_decisions_of_these_triggers_and_requests_wait_in_their_order(ledger: Ledger) -> None:
    asked = ask(ledger, "load", month="2024-02")
    decide(ledger, 1)
    queue = Queue(ledger, {"clean"})
    assert queue.read_all() == 2
    load, clean = queue.ready(is_busy=lambda name: False, most=10)
    assert (load.key, load.pipeline, load.because, load.params) == (
        f"request:{asked.id}",
        "load",
        asked.id,
        {"month": "2024-02"},
    )
    decision = next(each for each in list_decisions(ledger) if each.trigger == "clean")
    assert (clean.key, clean.because, clean.params) == (decision.key, decision.event, {})
    assert ready(queue, most=1) == ["load"]


def test_what_a_newer_decision_does_as_well_is_overtaken(ledger: Ledger) -> None:
    queue = Queue(ledger, {"clean", "train"})
    for hours in (1, 2, 3):
        decide(ledger, hours)
        queue.read_new()
    jobs = queue.ready(is_busy=lambda _: False, most=10)
    begun = next(job for job in jobs if job.pipeline == "clean")
    found = queue.overtaken(is_at_work=lambda job: job.key == begun.key, keep={"train"})
    assert [job.pipeline for job in found] == ["clean"]
    queue.settle(found[0], Outcome(outcome="overtaken", reason="a newer one"), at=START)
    assert queue.overtaken(is_at_work=lambda job: job.key == begun.key, keep={"train"}) == []
    assert len(queue) == 5
    assert len(queue.overtaken(is_at_work=lambda job: job.key == begun.key)) == 2


def test_a_pipeline_runs_once_at_a_time(ledger: Ledger) -> None:
    decide(ledger, 1)
    decide(ledger, 2)
    queue = Queue(ledger, {"clean", "train"})
    assert queue.read_all() == 4
    assert ready(queue) == ["clean", "train"]
    assert ready(queue, "clean") == ["train"]


def test_what_is_settled_is_not_read_again_and_what_is_left_is(ledger: Ledger) -> None:
    ask(ledger, "load")
    decide(ledger, 1)
    queue = Queue(ledger, {"clean"})
    queue.read_all()
    load, clean = queue.ready(is_busy=lambda name: False, most=10)
    queue.record_election(reason="first", at=START)
    queue.settle(clean, DONE, at=START)
    queue.settle(clean, DONE, at=START)
    decide(ledger, 2)
    queue.read_new()
    assert ready(queue) == ["load", "clean"]
    following = Queue(ledger, {"clean"})
    assert following.read_all() == 2
    election = following.record_election(reason="second", at=START)
    assert election.payload["after"] == ledger.get_event(load.because).seq - 1
    following.settle(load, DONE, at=START)
    (settled,) = ledger.list_events(verb="pipeline.settled")
    assert (settled.subject, settled.cause, settled.payload["run"]) == ("load", load.because, "r")
    third = Queue(ledger, {"clean"})
    assert third.read_all() == 1
    assert third.record_election(reason="third", at=START).payload["after"] > election.payload["after"]


def test_where_nothing_is_left_the_next_leader_begins_at_the_end(ledger: Ledger) -> None:
    decide(ledger, 1)
    queue = Queue(ledger, {"clean", "train"})
    queue.read_all()
    for job in queue.ready(is_busy=lambda name: False, most=10):
        queue.settle(job, DONE, at=START)
    following = Queue(ledger, {"clean", "train"})
    assert following.read_all() == 0
    newest = ledger.list_events(verb="trigger.decided", newest_first=True, limit=1)[0].seq
    assert following.record_election(reason="x", at=START).payload["after"] == newest


def test_a_job_that_is_ended_from_outside_waits_and_is_given_up_in_the_end(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("noria.workspace.up.queue.time.monotonic", lambda: now[0])
    ask(ledger, "load")
    queue = Queue(ledger, ())
    queue.read_all()
    (job,) = queue.ready(is_busy=lambda name: False, most=1)
    assert queue.put_off(job)
    assert ready(queue) == []
    now[0] += 1.1
    assert ready(queue) == ["load"]
    assert queue.put_off(job)
    now[0] += 1.1
    assert ready(queue) == []
    now[0] += 1.1
    assert ready(queue) == ["load"]
    assert not queue.put_off(job)


def test_a_job_is_started_as_people_would_start_it(tmp_path: Path) -> None:
    params = {"month": "2024-02", "n": 3, "days": [1, 2]}
    because = EventId("project:7")
    job = Job(key="request:project:7", pipeline="load", because=because, reason="x", params=params)
    words = pipeline_argv(tmp_path)(job)
    assert words[0] == sys.executable
    assert words[4:] == [
        *("pipeline", "run", "load", "--params-json", '{"month":"2024-02","n":3,"days":[1,2]}'),
        *("--project", str(tmp_path), "--key", "request:project:7", "--cause", "project:7", "--json"),
    ]


ANSWERS = {
    'print(\'{"run": {"id": "r"}}\')': ("finished", "run r finished", False),
    'print(\'noise\'); print(\'{"run": {"id": "r"}, "error": "no"}\'); sys.exit(10)': ("failed", "no", False),
    'print(\'{"error": {"message": "gone"}}\', file=sys.stderr); sys.exit(9)': ("failed", "gone", True),
    'print(\'{"error": {"message": "ada"}}\', file=sys.stderr); sys.exit(11)': ("cancelled", "ada", False),
    "sys.exit(3)": ("failed", "its process ended with code 3 and said nothing", False),
    "raise KeyError('x')": ("failed", "KeyError: 'x'", False),
    "os.kill(os.getpid(), 9)": ("failed", "its process was ended by SIGKILL", True),
    "sys.stdout.buffer.write(b'\\xff' * 5_000_000); sys.exit(130)": ("failed", "\ufffd", True),
}


@pytest.mark.parametrize("code", ANSWERS)
def test_how_a_process_ended_is_told(tmp_path: Path, code: str) -> None:
    runner = Runner(tmp_path, lambda job: [sys.executable, "-S", "-c", f"import os, sys; {code}"])
    job = Job(key="k", pipeline="load", because=EventId("project:1"), reason="x")
    runner.start(job, at=START)
    assert (runner.has_pipeline("load"), len(runner), runner.working()[0].key) == (True, 1, "k")
    while not (found := list(runner.reap())):
        time.sleep(0.01)
    ((ended, came),) = found
    outcome, reason, may_be_repeated = ANSWERS[code]
    assert (ended, came.outcome, came.may_be_repeated) == (job, outcome, may_be_repeated)
    assert came.reason.startswith(reason)
    assert len(runner) == 0
