import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.records import RunState


class Workers:
    """Real processes that do ledger work."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ledger_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, url: str, acks: Path, *, seed: int, steps: int | None = None) -> int:
        """Start one; give its pid."""
        return int(self._ask({"url": url, "acks": str(acks), "seed": seed, "steps": steps}))

    def wait(self) -> list[int]:
        """Wait for all that were started; give their exit codes."""
        ends: list[int] = json.loads(self._ask({}))
        return ends

    def _ask(self, order: dict[str, Any]) -> str:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(order) + "\n")
        self._parent.stdin.flush()
        return self._parent.stdout.readline()

    def close(self) -> None:
        """End the parent of the workers."""
        self._parent.communicate(timeout=60)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


def _acknowledged(acks: Path) -> list[dict[str, Any]]:
    # a kill may end a line early: what is not whole was not acknowledged
    lines = acks.read_bytes().split(b"\n")[:-1] if acks.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.soak)])
def test_a_kill_at_any_instant_leaves_whole_changes_and_all_acknowledged_ones(
    workers: Workers, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    counts = {"before open": 0, "at work": 0, "killed runs": 0, "acknowledged": 0}
    for number in range(kills):
        if number % 4 == 0:  # so that some kills meet the making of the tables
            url, known, head = f"sqlite:///{tmp_path}/{number}/noria.db", [], None
        acks = tmp_path / f"acks-{number}"
        pid = workers.start(url, acks, seed=number)
        if number % 4:
            _wait_until_open(acks)
        time.sleep(rng.uniform(0, 0.15 if number % 4 else 0.5))
        os.kill(pid, signal.SIGKILL)
        assert workers.wait() == [-signal.SIGKILL]
        assert not Path(f"{acks}.err").exists() or Path(f"{acks}.err").read_text() == ""

        said = _acknowledged(acks)
        known += said
        with Database.open(url) as database:
            ledger = Ledger(database, clock=WallClock())
            found = ledger.verify(head=head)
            assert found.ok, found.problems
            _check_acknowledged(ledger, known)
            at_work = {run.id for run in ledger.list_runs(state=RunState.RUNNING)}
            killed = ledger.mark_killed()
            assert {run.id for run in killed} == at_work
            assert len(killed) <= 1
            after = ledger.verify(head=head)
            assert after.ok, after.problems
            head = after.head
        counts["before open"] += {"opened": True} not in said
        counts["at work"] += {"opened": True} in said
        counts["killed runs"] += len(killed)
        counts["acknowledged"] += len(said)
    print(f"{kills} kills: {counts}")
    assert counts["at work"] >= kills * 3 / 4


def _wait_until_open(acks: Path) -> None:
    patience_ends = time.monotonic() + 60
    while {"opened": True} not in _acknowledged(acks):
        assert time.monotonic() < patience_ends, "the worker does not come up"
        time.sleep(0.002)


def _check_acknowledged(ledger: Ledger, said: list[dict[str, Any]]) -> None:
    runs = {run.id: run for run in ledger.list_runs()}
    events = {event.id: event for event in ledger.list_events()}
    versions = {version.id for version in ledger.list_versions()}
    for done in said:
        match done:
            case {"event": id, "key": key}:
                assert events[id].key == key
            case {"event": id}:
                assert id in events
            case {"run": id}:
                assert id in runs
            case {"version": id}:
                assert id in versions
            case {"finished": id}:
                assert runs[id].state is RunState.FINISHED
                assert "step" in runs[id].metrics
            case {"failed": id}:
                assert runs[id].state is RunState.FAILED


@pytest.mark.parametrize(
    ("processes", "steps"), [(2, 60), (4, 60), pytest.param(6, 1_000, marks=pytest.mark.soak)]
)
def test_processes_that_write_at_once_see_no_error(
    workers: Workers, tmp_path: Path, processes: int, steps: int
) -> None:
    url = f"sqlite:///{tmp_path}/noria.db"  # not there yet: they also make it at once
    acks = [tmp_path / f"acks-{seed}" for seed in range(processes)]
    for seed in range(processes):
        workers.start(url, acks[seed], seed=seed, steps=steps)
    assert workers.wait() == [0] * processes
    assert [Path(f"{each}.err").read_text() for each in acks] == [""] * processes
    said = [done for each in acks for done in _acknowledged(each)]
    assert said.count({"ended": True}) == processes
    with Database.open(url) as database:
        ledger = Ledger(database, clock=WallClock())
        found = ledger.verify()
        assert found.ok, found.problems
        _check_acknowledged(ledger, said)
        keys = [event.key for event in ledger.list_events(verb="day.closed")]
        assert len(keys) == len(set(keys))
        numbers = [version.number for version in ledger.list_versions(name="late")]
        assert numbers == list(range(1, len(numbers) + 1))
        moves = [pointer.number for pointer in ledger.list_pointers()]
        assert sorted(moves) == list(range(1, len(moves) + 1))
        assert ledger.list_runs(state=RunState.RUNNING) == []
