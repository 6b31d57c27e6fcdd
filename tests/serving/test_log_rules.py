"""What is kept of each prediction, how surely, and how much of it: the rules of the log, by real workers."""

import errno
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving.conftest import NOW, Trained, route, train

from noria.clock import to_micros
from noria.deploy.collecting import collect_predictions
from noria.deploy.supervisor import Supervisor
from noria.lake.store import Lake
from noria.serving.client import InferError
from noria.serving.jobs import Job
from noria.serving.logs.log import PredictionFrame, decode_frame
from noria.serving.models import load_route
from noria.serving.process.hosting import Hosted
from noria.serving.records import Input, LogRules, WorkerConfig
from noria.serving.requests import Column, InferRequest, RequestError
from noria.streams.spool import read_spool

COLUMNS: dict[str, list[object]] = {"carrier": ["SECRET-AA"] * 2, "distance": [12345.625, 1.0]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Serve = Callable[..., Supervisor]


@pytest.fixture
def serve(supervise: Serve, first: Trained, worker_config: WorkerConfig) -> Serve:
    """Serve one model under rules."""

    def start(rules: LogRules, *, workers: int = 1) -> Supervisor:
        config = WorkerConfig(
            environment="production", online=worker_config.online, clock="replay", log=rules, workers=workers
        )
        supervisor = supervise(using=config)
        supervisor.start(route(1, first.served(1)))
        return supervisor

    return start


def frames(supervisor: Supervisor) -> list[PredictionFrame]:
    spools = supervisor.spools("late")
    return [decode_frame(payload) for path in spools for _, payload in read_spool(path)]


def metric(supervisor: Supervisor, name: str) -> float:
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def test_what_is_redacted_is_nowhere_on_the_disk(serve: Serve, tmp_path: Path) -> None:
    supervisor = serve(LogRules(redact=("carrier", "distance", "carrier__flights_1d")))
    with supervisor.client() as client:
        answers = client.infer("late", COLUMNS, ids=["a", "b"], at=NOW)
        again = client.infer("late", COLUMNS, ids=["a", "b"], at=NOW)
        assert (again.logged, again.scores) == (2, answers.scores)  # its digest is kept
    (frame,) = frames(supervisor)
    assert frame.texts == {"carrier": [None, None]}
    assert np.isnan(frame.number_array("distance")).all()
    flights = frame.feature_names.index("carrier__flights_1d")
    assert np.isnan(frame.feature_matrix()[:, flights]).all()
    assert frame.releases[0].score_array().tolist() == answers.scores
    number = np.float64(12345.625).tobytes()
    written = [each for each in supervisor.folder.rglob("*") if each.is_file()]
    assert len(written) > 5
    assert not [each for each in written if b"SECRET" in each.read_bytes() or number in each.read_bytes()]
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    collect_predictions(supervisor, "late", lake)
    rows = lake.read("predictions").to_pylist()
    lake.close()
    assert [row["inputs"] for row in rows] == [{"carrier": None, "distance": None}] * 2


def test_features_are_kept_but_those_that_are_redacted(serve: Serve) -> None:
    supervisor = serve(LogRules(redact=("carrier__flights_1d",)))
    with supervisor.client() as client:
        client.infer("late", {"carrier": ["AA"], "distance": [1.0]}, ids=["a"], at=NOW)
    (frame,) = frames(supervisor)
    values = dict(zip(frame.feature_names, frame.feature_matrix()[0], strict=True))
    assert np.isnan(values["carrier__flights_1d"])
    assert np.isfinite(values["carrier__delay_7d"])


def test_a_sample_is_logged_and_all_are_answered_once(serve: Serve) -> None:
    supervisor = serve(LogRules(sample=0.3))
    ids = [f"id-{number}" for number in range(200)]
    with supervisor.client() as client:
        first = [client.infer("late", {"carrier": ["AA"], "distance": [1.0]}, ids=[i], at=NOW) for i in ids]
        assert not any(each.logged for each in first)
        again = [client.infer("late", {"carrier": ["AA"], "distance": [1.0]}, ids=[i], at=NOW) for i in ids]
    assert all(each.logged for each in again)
    logged = {each.ids[0] for each in frames(supervisor)}
    assert 35 <= len(logged) <= 85  # 60 expected; the ids decide, so it is the same each time
    assert len(frames(supervisor)) == len(logged)


def request(number: float) -> InferRequest:
    values: dict[str, Column] = {f"c{each}": Column("FP64", [number]) for each in range(2)}
    return InferRequest(rows=1, columns=values, prediction_ids=[f"p-{number}"])


@pytest.fixture
def hosted(tmp_path: Path, two_columns: Trained) -> Iterator[Hosted]:
    rules = LogRules(synchronous=True)
    with Hosted(
        tmp_path / "late", environment="production", deployment="late", worker=0, clock="wall",
        features=None, log=rules,
    ) as made:  # fmt: skip
        inputs = [Input(name=f"c{each}", kind="number") for each in range(2)]
        served = two_columns.served(1, inputs=inputs, views=())
        made.predictor.switch(load_route(route(1, served), folder=tmp_path))
        yield made


@pytest.fixture(scope="module")
def two_columns(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("models") / "two.txt", seed=3, columns=2)


def answered(hosted: Hosted, number: float) -> Job:
    loaded = hosted.loaded
    assert loaded is not None
    job = Job(request(number), loaded, loaded.targets["late"], time.perf_counter_ns())
    assert hosted.predictor.answer([job]) == []
    return job


def test_a_synchronous_answer_leaves_after_its_log_is_on_the_disk(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    write, sync = os.write, os.fdatasync

    def writing(file: int, data: bytes) -> int:
        done.append("write")
        return write(file, data)

    def syncing(file: int) -> None:
        sync(file)
        done.append("sync")

    monkeypatch.setattr(os, "write", writing)
    monkeypatch.setattr(os, "fdatasync", syncing)
    assert answered(hosted, 1.0).prediction is not None
    assert done == ["write", "sync"]
    assert hosted.predictor.waits_for_disk  # so that the server answers in a thread


def test_what_does_not_reach_the_disk_is_neither_answered_nor_logged(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        error = answered(hosted, 1.0).error
    assert isinstance(error, RequestError)
    assert error.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert list(read_spool(hosted.folder / "spool")) == []
    job = answered(hosted, 1.0)
    assert job.prediction is not None
    assert job.prediction.logged == 0
    assert len(list(read_spool(hosted.folder / "spool"))) == 1


def test_a_synchronous_worker_that_is_killed_keeps_what_it_answered(serve: Serve) -> None:
    supervisor = serve(LogRules(synchronous=True))
    ids = [f"id-{number}" for number in range(30)]
    with supervisor.client() as client:
        for number, each in enumerate(ids):
            client.infer("late", {"carrier": ["AA"], "distance": [1.0]}, ids=[each], at=NOW)
            if number % 10 == 9:
                os.kill(supervisor.pids[0], signal.SIGKILL)
        again = client.infer("late", {"carrier": ["AA"] * 30, "distance": [1.0] * 30}, ids=ids, at=NOW)
    assert again.logged == 30
    assert [each.ids[0] for each in frames(supervisor)] == ids


def test_where_nothing_moves_the_log_away_new_requests_are_refused_until_it_is(
    serve: Serve, tmp_path: Path
) -> None:
    supervisor = serve(LogRules(max_spool_bytes=20_000))
    answers = 0
    with supervisor.client() as client:
        columns: dict[str, list[object]] = {"carrier": ["AA"] * 20, "distance": [1.0] * 20}
        with pytest.raises(InferError, match="`max_spool_bytes`") as caught:
            for number in range(200):
                client.infer("late", columns, ids=[f"{number}-{row}" for row in range(20)], at=NOW)
                answers += 1
        assert caught.value.status == 503
        size = sum(each.stat().st_size for each in (supervisor.folder / "late" / "spool").glob("*.log"))
        assert 20_000 <= size < 25_000
        again = client.infer("late", columns, ids=[f"0-{row}" for row in range(20)], at=NOW)
        assert again.logged == 20  # what was answered still is
        told: dict[str, Any] = {"prediction_id": "0-0", "outcome": 1, "known_at": 5}
        connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port)
        connection.request("POST", "/outcomes", json.dumps(told))
        assert connection.getresponse().status == 503
        connection.close()
        assert metric(supervisor, "noria_spool_bytes") == pytest.approx(size, rel=0.01)
        assert metric(supervisor, "noria_log_bytes_total") == pytest.approx(size, rel=0.02)
        lake = Lake(str(tmp_path / "lake"), ledger=None)
        assert collect_predictions(supervisor, "late", lake) == 20 * answers
        lake.close()
        deadline = time.monotonic() + 10
        while metric(supervisor, "noria_spool_bytes") > 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.infer("late", columns, ids=[f"z-{row}" for row in range(20)], at=NOW).logged == 0


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f" 00-{TRACE}-00f067aa0ba902b7-00\t", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-what-comes-later", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[:-1]}-00f067aa0ba902b7-01", None),
        ("", None),
        ("x" * 5_000, None),
        (None, None),
    ],
)
def test_the_trace_of_a_request_is_logged_and_a_malformed_one_ignored(
    module_supervisor: Supervisor, header: str | None, trace: str | None
) -> None:
    supervisor = module_supervisor
    before = len(frames(supervisor))
    body = {"carrier": "AA", "distance": 1.0, "at": to_micros(NOW)}
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port)
    headers = {} if header is None else {"traceparent": header}
    connection.request("POST", "/models/late/predict", json.dumps(body), headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200
    assert [each.trace for each in frames(supervisor)[before:]] == [trace]
