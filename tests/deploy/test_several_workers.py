import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noria.deploy import environment_server
from noria.deploy.collecting import collect_predictions
from noria.deploy.supervisor import Supervisor
from noria.errors import DeploymentError, LeaseHeld, PortInUse
from noria.lake.store import Lake
from noria.serving.records import Limits, Route, WorkerConfig

MakeRoute = Callable[..., Route]
TWO = WorkerConfig(environment="production", workers=2, limits=Limits(drain_s=2.0))


@pytest.fixture
def two(tmp_path: Path, make_route: MakeRoute) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "production", TWO) as supervisor:
        supervisor.start(make_route(1))
        yield supervisor


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    yield lake
    lake.close()


class Asking:
    """Threads that ask all the time, each over a kept connection that it makes anew where it was closed."""

    def __init__(self, supervisor: Supervisor, *, threads: int = 3) -> None:
        self._address = supervisor.address
        self.answered: list[str] = []
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in "abcdef"[:threads]]

    def __enter__(self) -> "Asking":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _ask(self, name: str) -> None:
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=20)
        number = 0
        while not self._stop.is_set():
            number += 1
            body = request(f"{name}-{number}")
            try:
                connection.request("POST", "/v2/models/late/infer", body)
                response = connection.getresponse()
                assert response.status == 200, response.read()
                response.read()
                self.answered.append(f"{name}-{number}")
            except (http.client.HTTPException, OSError) as err:
                self.failures.append(err)
                connection.close()
        connection.close()


def request(prediction_id: str) -> bytes:
    inputs = [
        {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]},
        {"name": "y", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": [prediction_id]},
    ]
    return json.dumps({"inputs": inputs}).encode()


def metric(supervisor: Supervisor, name: str) -> float:
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


def wait_until(what: Callable[[], bool], *, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_are_started_anew_one_by_one_and_no_request_fails(two: Supervisor) -> None:
    before = two.pids
    with Asking(two) as asking:
        two.restart()
        time.sleep(0.1)
    assert not asking.failures
    assert len(asking.answered) > 20
    assert len(two.pids) == 2
    assert not set(before) & set(two.pids)


def test_a_worker_killed_under_load_loses_nothing_that_was_answered(
    two: Supervisor, tmp_path: Path, lake: Lake
) -> None:
    with Asking(two) as asking:
        for place in (0, 1):
            time.sleep(0.2)
            pid = two.pids[place]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: len(two.pids) == 2 and pid not in two.pids)  # type: ignore[misc]
    assert len(asking.failures) <= 2 * 3  # what was under way there; the other worker goes on
    assert metric(two, "noria_requests_total") >= len(asking.answered)
    collect_predictions(two, "late", lake)
    logged = lake.read("predictions")["prediction_id"].to_pylist()
    assert len(logged) == len(set(logged))
    assert set(asking.answered) <= set(logged)
    assert {each.name for each in two.spools("late")} == {"spool", "spool-1"}


def test_a_route_that_one_deployment_refuses_leaves_the_others(
    two: Supervisor, make_route: MakeRoute
) -> None:
    with pytest.raises(DeploymentError, match=r"'other' cannot be served: other:1: .* changed or damaged"):
        two.swap(make_route(1, "other", digest="0" * 64))
    assert two.deployments == ("late",)
    two.swap(make_route(2, "other"))
    with two.client() as client:
        assert client.infer("other", {"x": [1], "y": [2]}).versions == [2]
        assert client.infer("late", {"x": [1], "y": [2]}).versions == [1]
    two.drop("other")
    assert two.deployments == ("late",)
    assert len(two.rotate("other")) == 2  # its logs stay, and may be shipped


def test_a_worker_that_is_given_up_leaves_the_others_answering(tmp_path: Path, make_route: MakeRoute) -> None:
    with Supervisor(tmp_path / "production", TWO, restarts=0) as supervisor:
        supervisor.start(make_route(1))
        os.kill(supervisor.pids[0], signal.SIGKILL)
        wait_until(lambda: bool(supervisor.status().given_up))
        assert list(supervisor.status().given_up) == [0]
        with supervisor.client() as client:
            for number in range(6):  # each over a connection of its own
                assert client.infer("late", {"x": [number], "y": [2]}).versions == [1]
                client.close()
        supervisor.check()
        assert len(supervisor.rotate("late")) == 2


def test_an_environment_has_one_server(
    two: Supervisor,
    tmp_path: Path,
    make_route: MakeRoute,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment_server, "_NOTICED_S", 0.05)
    for wait_s, told in (
        (0.01, ""),
        (0.1, f"is served by process {os.getpid()}; waiting 0.1 s for it to end"),
    ):
        again = WorkerConfig(environment="production", lock_wait_s=wait_s)
        with pytest.raises(LeaseHeld, match="environment 'production'"):
            Supervisor(tmp_path / "production", again).start(make_route(1))
        assert caplog.text.strip().endswith(told)
    assert len(caplog.records) == 1
    elsewhere = WorkerConfig(environment="staging", workers=2, port=two.address.port)
    with pytest.raises(PortInUse):
        Supervisor(tmp_path / "staging", elsewhere).start(make_route(1))


def test_a_server_that_nobody_asks_sleeps_until_somebody_does(tmp_path: Path, make_route: MakeRoute) -> None:
    config = WorkerConfig(environment="production", workers=2, idle_stop_s=0.3)
    with Supervisor(tmp_path / "production", config) as supervisor:
        supervisor.start(make_route(1))
        wait_until(lambda: not supervisor.pids)
        assert supervisor.is_running
        assert supervisor.status().is_asleep
        assert len(supervisor.rotate("late")) == 2
        with supervisor.client() as client:
            assert client.infer("late", {"x": [1], "y": [2]}).versions == [1]
        wait_until(lambda: not supervisor.pids)
        supervisor.swap(make_route(2))
        with supervisor.client() as client:
            assert client.infer("late", {"x": [1], "y": [2]}).versions == [2]


def test_a_worker_that_stands_still_is_replaced(tmp_path: Path, make_route: MakeRoute) -> None:
    config = WorkerConfig(environment="production", hang_s=0.5)
    with Supervisor(tmp_path / "production", config) as supervisor:
        supervisor.start(make_route(1))
        (pid,) = supervisor.pids
        os.kill(pid, signal.SIGSTOP)
        with supervisor.client() as client:
            assert client.infer("late", {"x": [1], "y": [2]}, ids=["a"]).versions == [1]
        assert pid not in supervisor.pids
