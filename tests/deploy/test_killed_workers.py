"""Workers of one server killed at random instants: what was answered is logged once, whoever answered."""

import http.client
import json
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noria.deploy.collecting import collect_predictions
from noria.deploy.supervisor import Address, Supervisor
from noria.lake.store import Lake
from noria.serving.logs.log import decode_frame
from noria.serving.records import Limits, Route, WorkerConfig
from noria.streams.spool import read_spool

MakeRoute = Callable[..., Route]
TWO = WorkerConfig(environment="production", workers=2, limits=Limits(drain_s=2.0))
_SEED = 20260101


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    yield lake
    lake.close()


class Insisting:
    """A thread that asks under ids of its own, and asks again under the same ones until it is answered.

    Each try after a lost one is over a new connection, so that it may reach the other worker.
    """

    def __init__(self, address: Address, name: str, rows: int) -> None:
        self._name, self._rows = name, rows
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        self.answered: dict[str, float] = {}
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _ask(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            ids = [f"{self._name}-{number}-{row}" for row in range(self._rows)]
            body = request(ids, [float(number)] * self._rows)
            while (scores := self._try(body)) is None:
                self.failures += 1
            self.answered |= dict(zip(ids, scores, strict=True))

    def _try(self, body: bytes) -> list[float] | None:
        try:
            self._connection.request("POST", "/v2/models/late/infer", body)
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (http.client.HTTPException, OSError):
            self._connection.close()
            return None
        assert response.status == 200, answer
        return next(list(each["data"]) for each in answer["outputs"] if each["name"] == "score")


def request(ids: list[str], x: list[float]) -> bytes:
    shape = [len(ids)]
    inputs = [
        {"name": "x", "datatype": "FP64", "shape": shape, "data": x},
        {"name": "y", "datatype": "FP64", "shape": shape, "data": [0.5] * len(ids)},
        {"name": "prediction_id", "datatype": "BYTES", "shape": shape, "data": ids},
    ]
    return json.dumps({"inputs": inputs}).encode()


def ask(address: Address, body: bytes) -> int:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    connection.request("POST", "/v2/models/late/infer", body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_what_is_answered_while_workers_are_killed_is_logged_once(
    tmp_path: Path, make_route: MakeRoute, lake: Lake, kills: int
) -> None:
    rng = random.Random(_SEED)
    with Supervisor(tmp_path / "production", TWO, restarts=2 * kills) as supervisor:
        supervisor.start(make_route(1))
        asking = [
            Insisting(supervisor.address, name, rows) for name, rows in (("a", 1), ("b", 500), ("c", 1_500))
        ]
        try:
            for number in range(kills):
                time.sleep(rng.uniform(0.0, 0.25))
                pids = supervisor.pids
                if pids:
                    os.kill(rng.choice(pids), signal.SIGKILL)
                if number % 4 == 2:
                    collect_predictions(supervisor, "late", lake)  # also while they are away
        finally:
            for each in asking:
                each.stop()
        answered = {name: score for each in asking for name, score in each.answered.items()}
        collect_predictions(supervisor, "late", lake)
        rows = lake.read("predictions", columns=["prediction_id", "score", "answered"])
        logged = rows["prediction_id"].to_pylist()
        assert len(logged) == len(set(logged))
        scores = dict(zip(logged, rows["score"].to_pylist(), strict=True))
        assert {name: scores.get(name) for name in answered} == answered
        assert all(rows["answered"].to_pylist())
        some = [name for each in asking for name in [*each.answered][::999]][:9]
        other = request(some, [-1.0] * len(some))
        assert {ask(supervisor.address, other) for _ in range(6)} == {409}  # by whichever worker
        assert {each.name for each in supervisor.spools("late")} == {"spool", "spool-1"}
    failures = sum(each.failures for each in asking)
    print(f"\n{kills} kills: {len(answered)} rows answered, {failures} tries lost, {len(logged)} logged")


def test_what_two_workers_have_logged_is_in_the_lake_once(
    tmp_path: Path, make_route: MakeRoute, lake: Lake
) -> None:
    """One cannot enter what it logged, as its index may not grow, and is killed; the other answers anew."""
    with Supervisor(tmp_path / "production", TWO) as supervisor:
        supervisor.start(make_route(1))
        connections = [
            http.client.HTTPConnection(supervisor.address.host, supervisor.address.port) for _ in range(12)
        ]
        by_worker: dict[str, http.client.HTTPConnection] = {}
        for number, each in enumerate(connections):
            each.request("POST", "/v2/models/late/infer", request([f"first-{number}"], [1.0]))
            each.getresponse().read()
            by_worker[_logged_by(supervisor, f"first-{number}")[0]] = each
        assert sorted(by_worker) == ["spool", "spool-1"]
        index = supervisor.folder / "late" / "index" / "data.mdb"
        resource.prlimit(supervisor.pids[0], resource.RLIMIT_FSIZE, (index.stat().st_size, -1))
        ids = [
            f"x-{row}" for row in range(600)
        ]  # their log is smaller than the index is, their entries are not
        asked = request(ids, [1.0] * len(ids))
        scores = []
        for name in ("spool", "spool-1"):
            by_worker[name].request("POST", "/v2/models/late/infer", asked)
            response = by_worker[name].getresponse()
            assert response.status == 200
            answer = json.loads(response.read())
            scores.append(next(each["data"] for each in answer["outputs"] if each["name"] == "score"))
            if name == "spool":
                os.kill(supervisor.pids[0], signal.SIGKILL)
        for each in connections:
            each.close()
        assert _logged_by(supervisor, "x-7") == ["spool", "spool-1"]
        assert scores[0] == scores[1]
        collect_predictions(supervisor, "late", lake)
        logged = lake.read("predictions", columns=["prediction_id"])["prediction_id"].to_pylist()
        assert sorted(logged) == sorted([*ids, *(f"first-{number}" for number in range(12))])


def _logged_by(supervisor: Supervisor, prediction_id: str) -> list[str]:
    """Name the spools that hold an id."""
    return [
        path.name
        for path in supervisor.spools("late")
        if any(prediction_id in decode_frame(payload).ids for _, payload in read_spool(path))
    ]
