"""kill -9 of clients and of the server: what was acknowledged is there, once."""

import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import noria
from noria.records import RunId
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore

CLIENT = Path(__file__).parent / "kill_clients.py"


class _Server:
    """`noria up`, started again after each kill, at the same port."""

    def __init__(self, site: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._site, self._log = site, site.parent / "up.log"
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "noria",
            "up",
            "--project",
            str(self._site),
            "--port",
            str(self.port),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._listens():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)


def _live(folder: Path, *, clients: int, metrics: int, kills: int, seed: int) -> str:
    site = folder / "site"
    site.mkdir()
    (site / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    with noria.open(site) as project:
        run = RunDesk(project.ledger).start("0").info.id
    chosen = random.Random(seed)
    server = _Server(site)
    notes = [folder / f"notes{who}" for who in range(clients)]

    def begin(who: int) -> subprocess.Popen[bytes]:
        """Go on behind what is noted: the last point may have arrived without being noted."""
        first = len(_noted(notes[who]))
        command = [sys.executable, "-S", str(CLIENT), str(server.port), run, f"m{who}"]
        return subprocess.Popen([*command, str(first), str(metrics), str(notes[who])])

    at_work = {who: begin(who) for who in range(clients)}
    killed_clients = killed_servers = 0
    try:
        while at_work:
            time.sleep(chosen.uniform(0.05, 0.3))
            for who, process in list(at_work.items()):
                if process.poll() is not None:
                    assert process.returncode == 0
                    del at_work[who]
            if not at_work or killed_clients + killed_servers >= kills:
                continue
            if chosen.random() < 0.4:
                server.kill()
                server.start()
                killed_servers += 1
            else:
                who = chosen.choice(sorted(at_work))
                at_work[who].kill()
                at_work[who].wait()
                at_work[who] = begin(who)
                killed_clients += 1
    finally:
        for process in at_work.values():
            process.kill()
            process.wait()
        server.stop()
    with noria.open(site) as project:
        store = TrackingStore(project.ledger.database)
        for who in range(clients):
            assert _noted(notes[who]) == list(range(metrics))
            points = store.list_points(RunId(run), f"m{who}")
            assert [(each.step, each.value) for each in points] == [
                (step, step / 3) for step in range(metrics)
            ]
            latest = store.latest_points(RunId(run))[f"m{who}"]
            assert latest.step == metrics - 1
        assert project.ledger.verify().ok
    return f"{clients} x {metrics} metrics, {killed_clients} kills of clients, {killed_servers} of the server"


def _noted(path: Path) -> list[int]:
    return [int(each) for each in path.read_text().split()] if path.exists() else []


def test_what_was_acknowledged_is_there_once(tmp_path: Path) -> None:
    _live(tmp_path, clients=4, metrics=1_500, kills=12, seed=20240229)


@pytest.mark.soak
def test_twenty_clients_and_the_server_are_killed_at_random(tmp_path: Path) -> None:
    print(_live(tmp_path, clients=20, metrics=10_000, kills=100, seed=20240229), "seed 20240229")
