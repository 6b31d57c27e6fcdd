"""kill -9 of clients and of the server: what was acknowledged is at the server, once."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.servers.noria_up import NoriaUp, noria_up
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

import noria
from noria.records import RunId, RunState
from noria.tracking.store import TrackingStore

WORKER = Path(__file__).with_name("remote_worker.py")


@pytest.mark.parametrize(
    ("database", "processes", "metrics", "kills"),
    [
        ("sqlite", 4, 2_000, 1),
        pytest.param("sqlite", 20, 10_000, 6, marks=pytest.mark.soak),
        pytest.param("postgresql", 20, 10_000, 6, marks=pytest.mark.soak),
    ],
)
def test_all_that_is_acknowledged_is_at_the_server_once_whoever_is_killed(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    processes: int,
    metrics: int,
    kills: int,
) -> None:
    monkeypatch.setenv("NORIA_TRACKING__SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    url, rng = "", random.Random(processes)
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with noria_up(tmp_path / "site", database=url) as server:
        told = _trained(server, rng, processes=processes, metrics=metrics, kills=kills)
        ends = time.monotonic() + 60
        while not (done := noria.sync_runs()).is_whole:  # others may be at it
            assert time.monotonic() < ends, done
        assert [each for each in (tmp_path / "spool").glob("*/*") if each.is_dir()] == []
        with noria.open(server.folder) as project:
            for (run, *acknowledged), is_killed in told:
                id = run.decode().strip()
                points = TrackingStore(project.ledger.database).list_points(RunId(id), "loss")
                kept = [each.step for each in points]
                assert kept == list(range(len(kept)))  # once, and in order
                assert len(kept) >= sum(line.endswith(b"\n") for line in acknowledged)
                assert len(kept) == metrics or is_killed
                state = project.ledger.get_run(id).state
                assert state is (RunState.KILLED if is_killed else RunState.FINISHED)
            assert project.ledger.verify().ok


def _trained(
    server: NoriaUp, rng: random.Random, *, processes: int, metrics: int, kills: int
) -> list[tuple[list[bytes], bool]]:
    """Let workers log while the server is killed now and then; give what they acknowledged."""
    command = [sys.executable, "-W", "ignore", str(WORKER), server.url]
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
    for _ in range(kills):
        time.sleep(rng.uniform(0.2, 1.5))
        server.kill()
        server.start()
    for each in threads:
        each.join()
    assert [each.returncode for each in workers] == [0 if end is None else -signal.SIGKILL for end in ends]
    return list(zip(told, [end is not None for end in ends], strict=True))
