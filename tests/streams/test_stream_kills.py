"""kill -9 of producers, consumers and brokers: what was acknowledged is in the table, once."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.servers.nats import NatsServer, nats_server
from tests.streams import kill_children

from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import RunState
from noria.streams.opening import open_stream

__all__ = ["nats_server"]

RANDOM = random.Random(20240502)
CHILDREN = Path(kill_children.__file__)
KILLS = pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])


class Child:
    """A process that tells how far it is; killed once it has told something since it began."""

    def __init__(self, what: str, url: str, root: Path, *more: str) -> None:
        self._command = [sys.executable, str(CHILDREN), what, url, str(root)]
        self._told = root / f"{what}-{len(list(root.glob('*.told')))}.told"
        self._more = list(more)
        self.start()

    def start(self) -> None:
        with self._told.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._command, *self._more], stdout=output, stderr=subprocess.STDOUT
            )
        self._before = self._told.stat().st_size

    def kill(self) -> None:
        deadline = time.monotonic() + 60
        while self._told.stat().st_size == self._before:
            assert self.process.poll() is None, self._told.read_text()
            assert time.monotonic() < deadline, "it does not get anything done"
            time.sleep(0.01)
        time.sleep(RANDOM.uniform(0.0, 0.5))
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert b"Traceback" not in self._told.read_bytes(), self._told.read_text()


class Producer(Child):
    """A process that appends, from behind what it was told when it was killed."""

    def __init__(self, url: str, root: Path) -> None:
        super().__init__("produce", url, root, "0")

    @property
    def acknowledged(self) -> int:
        told = self._told.read_bytes().rpartition(b"\n")[0].split()
        return int(told[-1]) if told else -1

    def kill(self) -> None:
        super().kill()
        self._more = [str(self.acknowledged + 1)]


def check(url: str, root: Path, *, acknowledged: int, once_rejected: bool = True) -> str:
    """Land the rest, and hold the table against what was acknowledged."""
    Database.open(f"sqlite:///{root}/noria.db").close()
    kill_children.consumption(url, root, with_lease=True, until_empty=True)
    with Database.open(f"sqlite:///{root}/noria.db") as database:
        ledger = Ledger(database, clock=WallClock())
        lake = Lake(str(root / "lake"), ledger=ledger)
        ids = lake.read("clicks")["id"].to_pylist()
        rejected = Counter(lake.read("clicks__rejected")["row"].to_pylist())
        stream = open_stream(url, "clicks", root=root)
        appended = stream.extent(0).waiting(after=-1)
        stream.close()
        good = [number for number in range(acknowledged + 1) if number % 50 != 49]
        assert len(ids) == len(set(ids))
        assert set(good) <= set(ids)
        assert max(ids) <= acknowledged + 5  # an append that was not acknowledged may be there
        assert len(rejected) >= acknowledged // 50
        if once_rejected:
            assert set(rejected.values()) == {1}  # by their offsets
        assert {run.state for run in ledger.list_runs(kind="ingest")} == {RunState.FINISHED}
        assert ledger.verify().ok
        lake.close()
    return f"{acknowledged + 1:,} events acknowledged, {appended:,} in the stream, {len(ids):,} in the table"


@KILLS
def test_producer_and_consumer_of_a_log_are_killed(tmp_path: Path, kills: int) -> None:
    url = "log:streams"
    producer, consumer = Producer(url, tmp_path), Child("consume", url, tmp_path, "lease")
    victims: list[Child] = [consumer, producer]
    for number in range(kills):
        victim = victims[number % 2]
        victim.kill()
        victim.start()
    consumer.kill()
    producer.kill()
    print(f"log, {kills} kills: {check(url, tmp_path, acknowledged=producer.acknowledged)}")


@KILLS
def test_two_consumers_without_a_lease_are_killed(tmp_path: Path, kills: int) -> None:
    """The commits alone decide. What is no row may be told of twice then; no row is there twice."""
    url = "log:streams"
    producer = Producer(url, tmp_path)
    consumers = [Child("consume", url, tmp_path, "none") for _ in range(2)]
    for number in range(kills):
        consumers[number % 2].kill()
        consumers[number % 2].start()
    for each in consumers:
        each.kill()
    producer.kill()
    told = check(url, tmp_path, acknowledged=producer.acknowledged, once_rejected=False)
    print(f"log, two consumers without a lease, {kills} kills: {told}")


@KILLS
def test_nats_its_producer_and_its_consumer_are_killed(
    nats_server: NatsServer, tmp_path: Path, kills: int
) -> None:
    url = nats_server.url
    producer, consumer = Producer(url, tmp_path), Child("consume", url, tmp_path, "lease")
    victims: list[Child | NatsServer] = [producer, nats_server, consumer]
    for number in range(kills):
        victim = victims[number % 3]
        victim.kill()
        time.sleep(RANDOM.uniform(0.0, 0.3))
        victim.start()
    consumer.kill()
    producer.kill()
    print(f"NATS, {kills} kills: {check(url, tmp_path, acknowledged=producer.acknowledged)}")
