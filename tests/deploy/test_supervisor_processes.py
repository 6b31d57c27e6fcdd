import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from noria.deploy.supervisor import Supervisor
from noria.errors import DeploymentError, NoriaError
from noria.serving.logs.log import decode_frame
from noria.serving.records import Route, RouteEntry, ServedModel, WorkerConfig
from noria.streams.spool import drop_segments, read_spool

CONFIG = WorkerConfig(environment="production")


@pytest.fixture
def model(served_model: ServedModel) -> ServedModel:
    return served_model


def make_route(number: int, model: ServedModel) -> Route:
    named = msgspec.structs.replace(model, release=f"late:{number}", version=number)
    return Route(
        environment="production",
        deployment="late",
        number=number,
        id=f"route-{number}",
        entries=(RouteEntry(release=named.release),),
        models=(named,),
    )


@pytest.fixture
def supervisor(tmp_path: Path, model: ServedModel) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "production", CONFIG) as supervisor:
        supervisor.start(make_route(1, model))
        yield supervisor


def rotated(supervisor: Supervisor) -> int:
    ((_, segment),) = supervisor.rotate("late")
    return segment


def wait_until_another_runs(supervisor: Supervisor, pid: int) -> None:
    deadline = time.monotonic() + 15
    while not supervisor.pids or pid in supervisor.pids:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    supervisor.status()


def test_a_worker_imports_nothing_of_the_folder_that_it_is_started_in(
    tmp_path: Path, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orjson.py").write_text("raise RuntimeError('a module of the project')\n")
    monkeypatch.chdir(tmp_path)
    with Supervisor(tmp_path / "production", CONFIG) as supervisor:
        supervisor.start(make_route(1, model))
        assert supervisor.is_running


def test_swaps_under_requests_drop_none(supervisor: Supervisor, model: ServedModel) -> None:
    versions: list[int] = []
    failures: list[NoriaError] = []
    stop = threading.Event()

    def ask(name: str) -> None:
        with supervisor.client() as client:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    ids = [f"{name}-{number}-{row}" for row in range(4)]
                    versions.extend(client.infer("late", {"x": [1.0] * 4, "y": [0.5] * 4}, ids=ids).versions)
                except NoriaError as err:
                    failures.append(err)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for number in range(2, 12):
        supervisor.swap(make_route(number, model))
        with supervisor.client() as client:
            assert client.infer("late", {"x": [1], "y": [2]}, ids=[f"after-{number}"]).versions == [number]
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(versions)) > 3
    logged = [
        each
        for _, payload in read_spool(supervisor.folder / "late" / "spool")
        for each in decode_frame(payload).ids
    ]
    assert len(logged) == len(set(logged)) == len(versions) + 10


def test_a_killed_worker_is_restarted_at_its_address_with_its_route(
    supervisor: Supervisor, model: ServedModel
) -> None:
    address, (pid,) = supervisor.address, supervisor.pids
    supervisor.swap(make_route(2, model))
    os.kill(pid, signal.SIGKILL)
    with supervisor.client() as client:
        assert client.infer("late", {"x": [1], "y": [2]}, ids=["a"]).versions == [2]
    wait_until_another_runs(supervisor, pid)
    assert supervisor.address == address
    assert [each.pid for each in supervisor.status().workers] == [*supervisor.pids]
    assert supervisor.memory_bytes() < 120 * 2**20


def test_a_swap_while_the_worker_is_down_waits_for_it(supervisor: Supervisor, model: ServedModel) -> None:
    os.kill(supervisor.pids[0], signal.SIGKILL)
    supervisor.swap(make_route(2, model))
    assert supervisor.status().deployments["late"].route == 2


def test_starting_again_is_a_swap(supervisor: Supervisor, model: ServedModel) -> None:
    pids = supervisor.pids
    assert supervisor.start(make_route(2, model)) == supervisor.address
    assert (supervisor.pids, supervisor.status().deployments["late"].route) == (pids, 2)


def test_a_stopped_worker_starts_again(supervisor: Supervisor, model: ServedModel) -> None:
    supervisor.stop()
    assert not supervisor.is_running
    supervisor.start(make_route(3, model))
    assert supervisor.status().deployments["late"].route == 3


def test_a_worker_that_keeps_dying_is_given_up_with_its_log(tmp_path: Path, model: ServedModel) -> None:
    with Supervisor(tmp_path / "production", CONFIG, restarts=0) as supervisor:
        supervisor.start(make_route(1, model))
        os.kill(supervisor.pids[0], signal.SIGKILL)
        deadline = time.monotonic() + 10
        with pytest.raises(DeploymentError, match=r"(?s)ended with code -9; its log says:.*listening on"):
            while time.monotonic() < deadline:
                supervisor.check()
                time.sleep(0.01)


def test_a_route_refused_at_the_start_is_told(tmp_path: Path, model: ServedModel) -> None:
    broken = msgspec.structs.replace(model, digest="0" * 64)
    supervisor = Supervisor(tmp_path / "production", CONFIG)
    with pytest.raises(DeploymentError, match=r"'late' cannot be served: late:1: .* was changed or damaged"):
        supervisor.start(make_route(1, broken))
    assert not supervisor.is_running
    with supervisor:
        supervisor.start(make_route(1, model))
        assert supervisor.status().deployments["late"].state == "ready"


def test_rotating_lets_the_log_be_shipped_while_the_worker_writes(supervisor: Supervisor) -> None:
    with supervisor.client() as client:
        for number in range(3):
            client.infer("late", {"x": [1], "y": [number]}, ids=[f"r-{number}"])
            assert rotated(supervisor) == number + 1
    assert rotated(supervisor) == 3
    assert len(list(read_spool(supervisor.folder / "late" / "spool"))) == 3


def test_the_log_of_a_stopped_worker_can_be_shipped_and_is_still_known(
    supervisor: Supervisor, model: ServedModel
) -> None:
    with supervisor.client() as client:
        before = client.infer("late", {"x": [1], "y": [2]}, ids=["a"])
    supervisor.stop()
    drop_segments(supervisor.folder / "late" / "spool", through=rotated(supervisor))
    assert not list(read_spool(supervisor.folder / "late" / "spool"))
    supervisor.start(make_route(2, model))
    with supervisor.client() as client:
        again = client.infer("late", {"x": [1], "y": [2]}, ids=["a"])
    assert (again.logged, again.versions, again.scores) == (1, [1], before.scores)
