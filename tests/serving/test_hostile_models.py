"""Models that raise, hang, end the process, or answer wrongly: the server goes on, and tells no row."""

import http.client
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import noria
from noria.deploy.supervisor import Address, Supervisor
from noria.serving.records import ROUTE_FILE, Route, read_record
from noria.workspace.project import Project

SECRET = 271828.0
RAISES, HANGS, CUT, WIDE, TEXTS, NAN, INFINITY, ENDS, EXITS, SLOW = range(1, 11)
SETTINGS = """\
[project]
name = "odd"
[environments.production]
request_timeout_s = 0.6
hang_s = 1.6
drain_s = 0.5
"""
MODEL = """\
import os
import time

import numpy as np


class Odd:
    def predict(self, rows):
        what, x = rows["what"][0], rows["x"]
        if what == 1:
            raise ValueError(f"no good: {x}")
        if what == 2:
            time.sleep(3600)
        if what == 3:
            return x[:-1]
        if what == 4:
            return np.ones((len(x), 3))
        if what == 5:
            return [f"secret {each}" for each in x]
        if what == 6:
            return x * np.nan
        if what == 7:
            return x * np.inf
        if what == 8:
            os._exit(3)
        if what == 9:
            raise SystemExit(f"no good: {x}")
        if what == 10:
            time.sleep(0.3)
        return x * 2
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("odd") / "project"
    root.mkdir()
    (root / "noria.toml").write_text(SETTINGS)
    (root / "odd_models.py").write_text(MODEL)
    sys.path.insert(0, str(root))
    try:
        with noria.open(root) as opened:
            given = importlib.import_module("odd_models")
            opened.models.register(given.Odd, name="odd", example={"what": [0.0, 0.0], "x": [1.0, 2.0]})
            yield opened
    finally:
        sys.path.remove(str(root))
        sys.modules.pop("odd_models", None)


@pytest.fixture(scope="module")
def supervisor(project: Project) -> Iterator[Supervisor]:
    route = project.deploy("odd", to="production").route
    with project.supervisor("production") as supervisor:
        supervisor.start(route)
        yield supervisor


def ask(
    address: Address, what: int, values: Sequence[float] = (1.0,), *, timeout_s: float = 20.0
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    try:
        rows = [{"what": what, "x": each} for each in values]
        connection.request("POST", "/models/odd/predict", json.dumps({"rows": rows}))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def works(supervisor: Supervisor) -> bool:
    status, answer = ask(supervisor.address, 0, [4.0])
    return status == 200 and [each["score"] for each in answer["rows"]] == [8.0]


def crashes(supervisor: Supervisor) -> int:
    """Tell how often a worker ended while the model scored, as the guard of a trial is told."""
    return supervisor.counts("odd").of("odd:1").crashes


def log_of(supervisor: Supervisor) -> str:
    return (supervisor.folder / "worker.log").read_text()


@pytest.mark.parametrize("what", [RAISES, CUT, WIDE, TEXTS, EXITS])
def test_a_model_that_fails_is_500_and_the_server_goes_on(supervisor: Supervisor, what: int) -> None:
    (pid,) = supervisor.pids
    status, answer = ask(supervisor.address, what, [SECRET, SECRET])
    assert (status, list(answer)) == (500, ["error"])
    assert answer["error"] == "odd:1 could not score the rows"
    assert works(supervisor)
    assert supervisor.pids == (pid,)
    for text in (json.dumps(answer), log_of(supervisor)):
        assert "271828" not in text


def test_what_is_no_number_is_answered_as_missing(supervisor: Supervisor) -> None:
    for what in (NAN, INFINITY):
        status, answer = ask(supervisor.address, what, [3.0, 5.0])
        assert status == 200, answer
        assert [each["score"] for each in answer["rows"]] == [None, None]
    assert works(supervisor)


def test_a_model_that_is_slow_holds_up_nobody_but_its_own_callers(supervisor: Supervisor) -> None:
    slow = threading.Thread(target=ask, args=(supervisor.address, SLOW))
    slow.start()
    time.sleep(0.05)
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port, timeout=5)
    started = time.monotonic()
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().status == 200
    assert time.monotonic() - started < 0.25
    connection.close()
    slow.join()


def test_a_model_that_hangs_is_504_and_its_worker_is_started_anew(supervisor: Supervisor) -> None:
    (pid,) = supervisor.pids
    started, before = time.monotonic(), crashes(supervisor)
    status, answer = ask(supervisor.address, HANGS)
    assert (status, "no answer within 0.6 s" in answer["error"]) == (504, True)
    assert time.monotonic() - started < 1.5
    assert ask(supervisor.address, 0)[0] in (503, 504)  # it waits for its turn behind the one that hangs
    until(lambda: supervisor.pids not in ((), (pid,)))
    until(lambda: answers(supervisor))
    log = log_of(supervisor)
    assert "a model of odd does not come back; the worker is started anew" in log
    assert "in predict" in log  # the stack says where it stands
    assert crashes(supervisor) == before + 1


def test_a_model_that_ends_the_process_is_not_the_end_of_the_server(supervisor: Supervisor) -> None:
    (pid,) = supervisor.pids
    before = supervisor.counts("odd").of("odd:1")
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(supervisor.address, ENDS)
    until(lambda: supervisor.pids not in ((), (pid,)))
    until(lambda: answers(supervisor))
    after = supervisor.counts("odd").of("odd:1")
    assert (after.crashes, after.errors) == (before.crashes + 1, before.errors + 1)
    assert after.requests > before.requests  # what the ended one had counted is not lost


def test_a_worker_whose_loop_stands_still_is_started_anew(supervisor: Supervisor) -> None:
    (pid,) = supervisor.pids
    before = crashes(supervisor)
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: supervisor.pids not in ((), (pid,)), within_s=30.0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    until(lambda: answers(supervisor))
    assert crashes(supervisor) == before  # nothing was asked of the model


def test_a_version_that_changed_on_the_disk_is_refused_as_a_worker_starts(
    supervisor: Supervisor,
) -> None:
    (served,) = read_record(supervisor.folder / "odd" / ROUTE_FILE, Route).models
    (pid,) = supervisor.pids
    program = next(each for each in served.files if each.name == "program.zip")
    path = Path(program.path)
    kept = path.read_bytes()
    mode = path.stat().st_mode
    path.chmod(0o644)
    try:
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        os.kill(pid, signal.SIGKILL)
        until(lambda: supervisor.pids not in ((), (pid,)))
        until(lambda: not supervisor.status().deployments["odd"].route)
        error = supervisor.status().deployments["odd"].error or ""
        assert "was changed or damaged" in error
        status, answer = ask(supervisor.address, 0)
        assert status == 503, answer
    finally:
        path.write_bytes(kept)
        path.chmod(mode)
    (pid,) = supervisor.pids
    os.kill(pid, signal.SIGKILL)
    until(lambda: supervisor.pids not in ((), (pid,)))
    until(lambda: answers(supervisor))


def answers(supervisor: Supervisor) -> bool:
    try:
        return works(supervisor)
    except (http.client.HTTPException, OSError):
        return False


def until(is_so: Callable[[], bool], *, within_s: float = 15.0) -> None:
    ends = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)
