"""`noria up` as real processes: killed, stopped, two at once, without a database. Runs are stood in for."""

import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.servers.postgres import Postgres, postgres_server, postgres_url
from tests.workspace.up_harness import Site

from noria.ledger.store import Ledger
from noria.records import Event

__all__ = ["postgres_server", "postgres_url"]  # fixtures

SECOND = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    if request.param == "postgresql":
        return Site(tmp_path, request.getfixturevalue("postgres_url"))
    return Site(tmp_path, "sqlite:///.noria/noria.db")


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Site:
    return Site(tmp_path, "sqlite:///.noria/noria.db")


def ticks(ledger: Ledger, trigger: str = "beat") -> list[datetime]:
    return [event.at for event in ledger.list_events(verb="schedule.ticked", subject=trigger)]


def settled(ledger: Ledger) -> list[Event]:
    return ledger.list_events(verb="trigger.settled")


def check_that_each_second_ran_once(site: Site, *, ticks_at_least: int) -> None:
    """Every instant has one tick, every tick one decision, every decision one run."""
    with site.ledger() as ledger:
        found = ticks(ledger)
        armed = ledger.list_events(verb="trigger.armed")
        decided = ledger.list_events(verb="trigger.decided")
        ended = settled(ledger)
        assert ledger.verify().problems == ()
    assert len(found) >= ticks_at_least
    assert found == [found[0] + SECOND * number for number in range(len(found))]
    assert len(armed) == 1
    assert armed[0].at < found[0] <= armed[0].at + SECOND
    assert [event.payload["choice"] for event in decided] == ["run"] * len(found)
    keys = [f"decision:{event.id}" for event in decided]
    done = site.keys("done")
    assert len(done) == len(set(done))
    assert done == keys[: len(done)]
    assert [event.payload["outcome"] for event in ended] == ["finished"] * len(ended)
    assert len(ended) >= len(done) - 1


def test_one_leads_and_when_it_is_killed_the_other_goes_on(site: Site) -> None:
    with site.up() as first, site.up() as second:
        first.wait_for_role("leader")
        told = second.wait_for_role("follower")
        assert f"pid {first.process.pid} on " in told["message"]
        site.wait_for("done", 2)
        first.kill()
        killed_at = time.monotonic()
        second.wait_for_role("leader")
        assert time.monotonic() - killed_at < 3  # at once: on one machine a dead process is seen to be dead
        site.wait_for("done", 5)
        assert second.stop() == 0
        assert second.errors == ""
    check_that_each_second_ran_once(site, ticks_at_least=5)
    with site.ledger() as ledger:
        assert len(ledger.list_events(verb="leader.elected")) == 2


def test_processes_that_come_and_go_lose_and_double_nothing(site: Site) -> None:
    for pause in (1.2, 0.4):
        with site.up() as one, site.up() as other:
            time.sleep(pause)
            one.kill()
            time.sleep(pause / 2)
            other.kill()
    with site.up() as last:
        last.wait_for_role("leader")
        with site.ledger() as ledger:
            decided = len(ledger.list_events(verb="trigger.decided"))
        site.wait_for("done", decided + 1)
        assert last.stop() == 0
    check_that_each_second_ran_once(site, ticks_at_least=3)


def test_a_run_outlives_the_leader_and_is_waited_for(sqlite_site: Site) -> None:
    sqlite_site.declare(period="1h", pipelines=("slow",))
    with sqlite_site.up() as first, sqlite_site.up() as second:
        leader, follower = (first, second) if first.told[-1]["facts"]["role"] == "leader" else (second, first)
        assert leader.ask("/api/noria/pipelines/slow/runs", {})[0] == 202
        sqlite_site.wait_for("began", 1)
        leader.kill()
        ended = follower.wait_for("ended")
        assert ended["facts"]["outcome"] == "finished"
        follower.stop()
    assert len(sqlite_site.keys("began")) == 1
    assert len(sqlite_site.keys("done")) == 1


def test_a_run_that_fails_is_settled_with_its_error(sqlite_site: Site) -> None:
    sqlite_site.declare(pipelines=("fails", "chatty"))
    with sqlite_site.up() as up:
        ended = up.wait_for("ended", lambda told: told["facts"]["pipeline"] == "fails")
        assert ended["message"] == "fails failed: the step `clean` found no row"
        up.wait_for("ended", lambda told: told["message"].startswith("chatty finished: run run-of-decision:"))
        up.stop()
    with sqlite_site.ledger() as ledger:
        event = next(each for each in settled(ledger) if each.subject == "fails")
    assert (event.payload["outcome"], event.payload["reason"]) == (
        "failed",
        "the step `clean` found no row",
    )


def test_a_run_that_cannot_be_started_is_given_up_and_the_process_goes_on(sqlite_site: Site) -> None:
    sqlite_site.declare(period="1h", pipelines=("missing", "beat"))
    with sqlite_site.up() as up:
        up.ask("/api/noria/pipelines/missing/runs", {})
        assert "is run again: its process cannot be started" in up.wait_for("warning")["message"]
        assert up.wait_for("ended")["facts"]["outcome"] == "failed"
        up.ask("/api/noria/pipelines/beat/runs", {})
        up.wait_for("ended", lambda told: told["facts"]["pipeline"] == "beat")
        assert up.stop() == 0


def test_a_run_that_is_killed_again_and_again_is_given_up(sqlite_site: Site) -> None:
    sqlite_site.declare(period="1h", pipelines=("dies",))
    with sqlite_site.up() as up:
        up.ask("/api/noria/pipelines/dies/runs", {"key": "one"})
        warned = up.wait_for("warning")
        assert warned["message"] == "dies is run again: its process was ended by SIGKILL"
        ended = up.wait_for("ended")
        assert ended["message"] == "dies failed: its process was ended by SIGKILL"
        up.stop()
    assert len(sqlite_site.keys("began")) == 3
    with sqlite_site.ledger() as ledger:
        (event,) = ledger.list_events(verb="pipeline.settled")
        (asked,) = ledger.list_events(verb="pipeline.requested")
    assert (event.payload["request"], event.payload["outcome"], event.cause) == (asked.id, "failed", asked.id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_what_runs_and_the_next_one_takes_it_up(sqlite_site: Site, number: int) -> None:
    sqlite_site.declare(period="1h", pipelines=("slow", "stubborn"))
    with sqlite_site.up() as up:
        for name in ("slow", "stubborn"):
            up.ask(f"/api/noria/pipelines/{name}/runs", {})
        up.wait_for("run", lambda told: told["facts"]["pipeline"] == "slow")
        up.wait_for("run", lambda told: told["facts"]["pipeline"] == "stubborn")
        pids = [told["facts"]["pid"] for told in up.told if told["kind"] == "run"]
        sqlite_site.wait_for("began", 2)
        began = time.monotonic()
        up.process.send_signal(number)
        assert up.wait() == 0
        assert time.monotonic() - began < 4  # one second for the one that does not listen
        assert up.errors == ""
        last = up.told[-1]
        assert (last["kind"], last["facts"]["finished"], last["facts"]["waiting"]) == ("stopped", [], 0)
        assert sorted(last["facts"]["ended"]) == ["slow", "stubborn"]
        assert last["message"].endswith("handed back to the next `noria up`: the lead and 2 runs")
    assert all(is_gone(pid) for pid in pids)
    with sqlite_site.up() as up:
        assert up.wait_for_role("leader")["message"] == "this process leads; left to do: 2 runs"
        ended = up.wait_for("ended")
        assert ended["message"].startswith("slow finished")
        up.stop()


def is_gone(pid: int) -> bool:
    """Whether a process ends within seconds: who is killed as an orphan is still listed for a moment."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_second_interrupt_stops_at_once(sqlite_site: Site) -> None:
    sqlite_site.settings["stop_within_s"] = 60
    sqlite_site.declare(period="1h", pipelines=("stubborn",))
    with sqlite_site.up() as up:
        up.ask("/api/noria/pipelines/stubborn/runs", {})
        sqlite_site.wait_for("began", 1)
        pid = up.wait_for("run")["facts"]["pid"]
        up.process.send_signal(signal.SIGINT)
        up.wait_for("stopped")
        for _ in range(
            3
        ):  # Python drops an exception that a signal raises inside of a finalizer: press again
            up.process.send_signal(signal.SIGINT)
            ends = time.monotonic() + 3
            while up.process.poll() is None and time.monotonic() < ends:
                time.sleep(0.05)
            if up.process.poll() is not None:
                break
        assert up.wait() == -signal.SIGINT  # the command makes 130 of it
        assert "noria up was stopped at once" in up.errors
    assert is_gone(pid)


def freeze(pid: int) -> None:
    """Stop a process outside of transactions: one that is in one keeps SQLite's lock, and nobody leads."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        while "State:\tT" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
            time.sleep(0.001)
        locks = [each.split() for each in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        if not any(
            each[1] == "POSIX" and each[3:5] == ["WRITE", str(pid)] for each in locks if len(each) > 4
        ):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def test_a_leader_that_was_frozen_finds_that_it_does_not_lead(sqlite_site: Site) -> None:
    """A stopped process does not renew its lease; when it goes on, another one has taken it."""
    sqlite_site.settings["lease_s"] = 1
    sqlite_site.declare()
    with sqlite_site.up() as first:
        first.wait_for_role("leader")
        with sqlite_site.up() as second:
            second.wait_for_role("follower")
            freeze(first.process.pid)
            second.wait_for_role("leader")
            os.kill(first.process.pid, signal.SIGCONT)
            lost = first.wait_for_role("follower")
            assert lost["message"].startswith("this process does not lead any more")
            sqlite_site.wait_for("done", 4)
            assert first.stop() == 0
            assert second.stop() == 0
    check_that_each_second_ran_once(sqlite_site, ticks_at_least=3)


def test_a_database_that_goes_away_is_waited_for(
    tmp_path: Path, postgres_url: str, postgres_server: Postgres
) -> None:
    site = Site(tmp_path, postgres_url)
    site.settings["lease_s"] = 1
    site.declare()
    with site.up() as leader, site.up() as follower:
        site.wait_for("done", 1)
        postgres_server.stop()
        for each in (leader, follower):
            assert each.wait_for("database")["message"].endswith("noria up goes on when it is back")
            ends = time.monotonic() + 5
            while each.ask("/health")[1]["database"] == "ok" and time.monotonic() < ends:
                time.sleep(0.05)  # it is told a moment before it is shown
            status, health = each.ask("/health")
            assert (status, health["status"], health["database"] == "ok") == (200, "ok", False)
            status, answer = each.ask("/api/noria/runs")
            assert (status, answer["error"]["kind"]) == (503, "StoreError")
        time.sleep(1.5)  # longer than the lease
        postgres_server.start()
        for each in (leader, follower):
            each.wait_for("database", lambda told: "is back after" in told["message"])
        site.wait_for("done", len(site.keys("done")) + 3)
        assert [each.process.poll() for each in (leader, follower)] == [None, None]
        assert [each.stop() for each in (leader, follower)] == [0, 0]
    check_that_each_second_ran_once(site, ticks_at_least=4)


def test_of_many_missed_instants_the_newest_runs_after_a_pause(sqlite_site: Site) -> None:
    sqlite_site.declare(policy="newest")
    with sqlite_site.up() as up:
        sqlite_site.wait_for("done", 1)
        up.kill()
    time.sleep(2.2)
    with sqlite_site.up():
        sqlite_site.wait_for("done", len(sqlite_site.keys("done")) + 1)
    with sqlite_site.ledger() as ledger:
        events = ledger.list_events(verb="schedule.ticked")
    found = [event.at for event in events]
    assert found == sorted(set(found))
    assert max(event.payload["missed"] for event in events) >= 1
    assert len(found) + sum(event.payload["missed"] for event in events) == (
        1 + (found[-1] - found[0]) / SECOND + events[0].payload["missed"]
    )
