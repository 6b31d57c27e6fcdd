"""Who leads: one at a time; taken over when it is silent, at once where it is seen to be dead."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from noria.clock import WallClock
from noria.database.store import Database
from noria.errors import LeaseHeld, StoreError
from noria.ledger.processes import Process
from noria.ledger.store import Ledger
from noria.records import Lease
from noria.workspace.up.leadership import Leadership

PATIENCE_S = 10.0


def open_ledger(folder: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{folder}/noria.db"), clock=WallClock())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


def wait_until(holds: Callable[[], bool]) -> float:
    """Give how long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.01)
    return time.monotonic() - began


def lease_of_another_machine(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, ttl_s: float) -> Lease:
    elsewhere = Process(host="elsewhere", boot="b", pid=7, started="1")
    with monkeypatch.context() as patch:
        patch.setattr("noria.ledger.leases.this_process", lambda: elsewhere)
        return ledger.acquire_lease("up", ttl_s=ttl_s)


def test_the_first_leads_the_second_waits_and_takes_over(ledger: Ledger, tmp_path: Path) -> None:
    first, second = Leadership(ledger, ttl_s=3), Leadership(open_ledger(tmp_path), ttl_s=3)
    first.start()
    second.start()
    assert (first.is_held, second.is_held) == (True, False)
    assert second.other is not None
    assert "since" in second.other
    first.stop()
    assert not first.is_held
    wait_until(lambda: second.is_held)
    assert (first.term, second.term) == (1, 1)
    second.stop()


def test_a_lease_is_held_for_longer_than_it_lasts(ledger: Ledger, tmp_path: Path) -> None:
    first, second = Leadership(ledger, ttl_s=1.2), Leadership(open_ledger(tmp_path), ttl_s=1.2)
    first.start()
    second.start()
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert first.is_held
        assert not second.is_held
        time.sleep(0.01)
    first.stop()
    second.stop()


def test_a_leader_on_another_machine_that_went_silent_is_followed_within_its_lease(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = lease_of_another_machine(ledger, monkeypatch, ttl_s=1)
    here = Leadership(ledger, ttl_s=1)
    here.start()
    assert not here.is_held
    assert here.other is not None
    assert here.other.startswith("pid 7 on elsewhere")
    assert 0.5 < wait_until(lambda: here.is_held) < 2.5
    with pytest.raises(LeaseHeld):
        ledger.renew_lease(lease, ttl_s=1)
    here.stop()


def test_a_leader_that_was_killed_on_this_machine_is_followed_at_once(ledger: Ledger, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from noria.clock import WallClock\n"
        "from noria.database.store import Database\n"
        "from noria.ledger.store import Ledger\n"
        "ledger = Ledger(Database.open(sys.argv[1]), clock=WallClock())\n"
        "ledger.acquire_lease('up', ttl_s=600)\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/noria.db"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        here = Leadership(ledger, ttl_s=600)
        here.start()
        assert not here.is_held
        process.kill()
    assert wait_until(lambda: here.is_held) < 2
    here.stop()


def test_without_the_database_a_lease_runs_out_and_is_taken_up_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Leadership(ledger, ttl_s=0.6)
    here.start()

    def away(*_: object, **__: object) -> Lease:
        raise StoreError("the server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "renew_lease", away)
        patch.setattr(ledger, "acquire_lease", away)
        assert wait_until(lambda: not here.is_held) < 1
        wait_until(lambda: here.trouble is not None)
        assert here.other is None
    wait_until(lambda: here.is_held)  # though its own lease is still in the table
    assert here.term == 1  # nobody led in between
    wait_until(lambda: here.trouble is None)
    here.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_ends_the_thread_is_raised_where_leadership_is_asked_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Leadership(ledger, ttl_s=0.3)
    here.start()

    def broken(*_: object, **__: object) -> Lease:
        raise ZeroDivisionError

    monkeypatch.setattr(ledger, "renew_lease", broken)
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: not here.is_held and False)
    for each in threading.enumerate():  # what it dies of is told in this test, not in the next one
        if each.name == "noria-leadership":
            each.join(10)
