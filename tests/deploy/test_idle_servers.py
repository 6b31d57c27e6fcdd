"""Servers that end their workers while nobody asks, asked again by many, and at the worst of moments."""

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from noria.deploy.supervisor import Supervisor
from noria.serving.records import Route, WorkerConfig

MakeRoute = Callable[..., Route]
BODY = json.dumps(
    {"inputs": [{"name": name, "datatype": "FP64", "shape": [1], "data": [0.5]} for name in "xy"]}
)


def ask(supervisor: Supervisor) -> int:
    address = supervisor.address
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    try:
        connection.request("POST", "/v2/models/late/infer", BODY)
        return connection.getresponse().status
    finally:
        connection.close()


def wait_until_asleep(supervisor: Supervisor) -> None:
    deadline = time.monotonic() + 15
    while supervisor.pids:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_who_wake_a_server_at_once_are_all_answered(tmp_path: Path, make_route: MakeRoute) -> None:
    config = WorkerConfig(environment="production", workers=2, idle_stop_s=0.2)
    with Supervisor(tmp_path / "production", config) as supervisor, ThreadPoolExecutor(32) as pool:
        supervisor.start(make_route(1))
        for _ in range(2):
            wait_until_asleep(supervisor)
            assert set(pool.map(lambda _: ask(supervisor), range(64))) == {200}
        assert len(supervisor.pids) == 2


def test_who_asks_just_as_a_server_falls_asleep_is_answered(tmp_path: Path, make_route: MakeRoute) -> None:
    config = WorkerConfig(environment="production", idle_stop_s=0.1)
    pauses = [0.0, 0.8, 1.0, 1.2, 1.1]
    with Supervisor(tmp_path / "production", config) as supervisor:
        supervisor.start(make_route(1))
        for pause in pauses:  # the server looks at who is idle every second
            time.sleep(pause)
            assert ask(supervisor) == 200
