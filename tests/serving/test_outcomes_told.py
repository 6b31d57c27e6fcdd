"""`POST /outcomes` of a real worker."""

import http.client
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.serving.conftest import NOW, Trained, route

from noria.clock import to_micros
from noria.deploy.supervisor import Supervisor
from noria.lake.store import Lake
from noria.monitoring.outcomes import OUTCOMES, collect_outcomes
from noria.serving.logs.outcomes import decode_outcomes
from noria.serving.records import Route, WorkerConfig
from noria.streams.spool import read_spool

AT = to_micros(NOW)


def tell(supervisor: Supervisor, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """Post outcomes over a connection of its own, so to any of the workers."""
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port, timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body)
    connection.request("POST", "/outcomes", data, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def kept(supervisor: Supervisor, deployment: str = "late") -> list[tuple[str, float | str | None, int]]:
    return [
        row
        for path in sorted((supervisor.folder / deployment).glob("outcomes*"))
        for _, payload in read_spool(path)
        for frame in [decode_outcomes(payload)]
        for row in zip(frame.ids, frame.values(), frame.known_at, strict=True)
    ]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, first: Trained, worker_config: WorkerConfig
) -> Iterator[Supervisor]:
    """A server by the wall clock, with two deployments, that has answered a few requests."""
    folder = tmp_path_factory.mktemp("server") / "production"
    config = WorkerConfig(environment="production", online=worker_config.online)
    with Supervisor(folder, config) as supervisor:
        one = route(1, first.served(1))
        supervisor.start(one, _renamed(one, "other"))
        with supervisor.client() as client:
            columns: dict[str, list[object]] = {"carrier": ["AA"] * 3, "distance": [1.0] * 3}
            client.infer("late", columns, ids=["p-0", "p-1", "both"])
            client.infer("other", columns, ids=["o-0", "o-1", "both"])
        yield supervisor


def _renamed(one: Route, deployment: str) -> Route:
    return msgspec.structs.replace(one, deployment=deployment)


def test_outcomes_are_taken_one_by_one_as_rows_and_as_columns(server: Supervisor) -> None:
    before = len(kept(server))
    assert tell(server, {"prediction_id": "p-0", "outcome": 1, "known_at": "2026-07-01T12:00:00+02:00"}) == (
        200,
        {"recorded": 1, "repeated": 0, "unknown": 0},
    )
    rows = [
        {"prediction_id": "p-0", "outcome": False, "known_at": 1_800_000_000_000_000},
        {"prediction_id": "p-1", "outcome": None},
        {"prediction_id": "never", "outcome": "cancelled"},
    ]
    told = {"deployment": "late", "outcomes": rows}
    assert tell(server, told) == (200, {"recorded": 3, "repeated": 0, "unknown": 1})
    assert tell(server, told) == (200, {"recorded": 3, "repeated": 3, "unknown": 1})
    columns = {"prediction_id": ["p-0", "p-1"], "outcome": [2.5, 3], "known_at": 1_900_000_000_000_000}
    assert tell(server, columns)[1] == {"recorded": 2, "repeated": 0, "unknown": 0}
    found = kept(server)[before:]
    assert found[0] == ("p-0", 1.0, 1_782_900_000_000_000)
    assert found[1] == ("p-0", 0.0, 1_800_000_000_000_000)
    assert [row[:2] for row in found[2:4]] == [("p-1", None), ("never", "cancelled")]
    assert found[4:] == [("p-0", 2.5, 1_900_000_000_000_000), ("p-1", 3.0, 1_900_000_000_000_000)]


def test_where_several_answer_each_outcome_goes_to_whoever_answered(server: Supervisor) -> None:
    told = {"prediction_id": ["o-0", "p-0"], "outcome": [1, 0], "known_at": [11, 12]}
    assert tell(server, told)[1] == {"recorded": 2, "repeated": 0, "unknown": 0}
    assert ("o-0", 1.0, 11) in kept(server, "other")
    assert ("p-0", 0.0, 12) in kept(server)
    for unclear in ("both", "nobody"):
        status, answer = tell(server, {"prediction_id": ["o-0", unclear], "outcome": [1, 1]})
        assert status == 400
        assert answer["error"].startswith("1 of 2 outcomes are of predictions that none or several of late,")
    assert tell(server, {"prediction_id": "both", "outcome": 1}, **{"X-Noria-Model": "other"})[0] == 200
    assert tell(server, {"prediction_id": "both", "outcome": 1, "deployment": "ether"})[0] == 404


def test_another_outcome_of_the_same_instant_is_a_conflict(server: Supervisor) -> None:
    told = {"deployment": "late", "prediction_id": "p-1", "outcome": 1, "known_at": 44}
    assert tell(server, told)[0] == 200
    status, answer = tell(server, told | {"outcome": 0})
    assert status == 409
    assert "later `known_at`" in answer["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "no JSON object of outcomes"),
        ({}, "field 'prediction_id' is missing"),
        ({"prediction_id": "a"}, "field 'outcome' is missing"),
        ({"prediction_id": "a", "outcome": 1, "otcome": 1}, "there is no field 'otcome'"),
        ({"prediction_id": 4, "outcome": 1}, "`prediction_id` takes the id of a prediction"),
        ({"prediction_id": "", "outcome": 1}, "`prediction_id` takes the id of a prediction"),
        ({"prediction_id": "x" * 257, "outcome": 1}, "`prediction_id` is longer than 256 bytes"),
        ({"prediction_id": "\ud800", "outcome": 1}, "the body is not JSON"),
        ({"prediction_id": "a", "outcome": {"x": 1}}, "`outcome` takes a number, true or false"),
        ({"prediction_id": "a", "outcome": "x" * 1_025}, "`outcome` is longer than 1024 bytes"),
        (b'{"prediction_id": "a", "outcome": 1e999}', "Number out of range"),
        (b'{"prediction_id": "a", "outcome": 1%s}' % (b"0" * 400), "`outcome` takes a number|not JSON"),
        ({"prediction_id": "a", "outcome": 1, "known_at": "soon"}, "`known_at` is no instant"),
        ({"prediction_id": "a", "outcome": 1, "known_at": True}, "`known_at` is no instant"),
        ({"prediction_id": "a", "outcome": 1, "known_at": 1.5}, "`known_at` is no instant"),
        ({"outcomes": []}, "there are no rows"),
        ({"outcomes": 3}, "`outcomes` takes a list of objects"),
        ({"outcomes": [3]}, "outcome 1: an outcome is a JSON object"),
        ({"outcomes": [], "known_at": 3}, "beside `outcomes` there is no field 'known_at'"),
        ({"outcomes": [{"prediction_id": "a", "outcome": 1}, {"outcome": 1}]}, "outcome 2: field"),
        ({"prediction_id": ["a"], "outcome": [1, 0]}, "1 values of `prediction_id`, 2 of `outcome`"),
        ({"prediction_id": ["a"], "outcome": 1}, "are lists of the same length, or neither"),
        ({"prediction_id": ["a", "a"], "outcome": [1, 0]}, "outcome 2: the same prediction"),
        ({"prediction_id": ["a"] * 100_001, "outcome": [1] * 100_001}, "there are 100001 rows"),
        ({"deployment": 4, "outcomes": []}, "`deployment` takes the name"),
    ],
)
def test_what_is_no_outcome_is_refused_by_name(server: Supervisor, body: Any, message: str) -> None:
    before = kept(server)
    status, answer = tell(server, body)
    assert status == (413 if message.startswith("there are 100001") else 400)
    assert re.search(message, answer["error"])
    assert list(answer) == ["error"]
    assert kept(server) == before


def test_another_method_or_a_path_below_is_not_taken(server: Supervisor) -> None:
    connection = http.client.HTTPConnection(server.address.host, server.address.port)
    for method, path, status in (("GET", "/outcomes", 405), ("POST", "/outcomes/late", 404)):
        connection.request(method, path, b"")
        response = connection.getresponse()
        assert "error" in json.loads(response.read())
        assert response.status == status
    connection.close()


def test_a_replay_wants_the_instant_or_knows_it(supervise: Callable[..., Supervisor], first: Trained) -> None:
    supervisor = supervise(using=WorkerConfig(environment="production", clock="replay"))
    supervisor.start(route(1, first.served(1)))
    status, answer = tell(supervisor, {"prediction_id": "a", "outcome": 1})
    assert (status, "send `known_at`" in answer["error"]) == (400, True)
    assert tell(supervisor, {"prediction_id": "a", "outcome": 1, "known_at": AT})[0] == 200
    assert kept(supervisor) == [("a", 1.0, AT)]


def test_two_workers_record_an_outcome_once_and_it_is_moved_into_the_lake_once(
    supervise: Callable[..., Supervisor], first: Trained, worker_config: WorkerConfig, tmp_path: Path
) -> None:
    config = WorkerConfig(environment="production", workers=2, online=worker_config.online)
    supervisor = supervise(using=config)
    supervisor.start(route(1, first.served(1)))
    lake = Lake(str(tmp_path / "lake"), ledger=None)
    ids = [f"p-{number}" for number in range(12)]
    repeated = 0
    for each in ids:
        for _ in range(3):  # to whichever of both
            repeated += tell(supervisor, {"prediction_id": each, "outcome": 1})[1]["repeated"]
    assert repeated == 24
    spools = [path.name for path in (supervisor.folder / "late").glob("outcomes*")]
    assert sorted(spools) == ["outcomes", "outcomes-1"]
    assert collect_outcomes(supervisor, "late", lake) == 12
    assert tell(supervisor, {"prediction_id": ids[0], "outcome": 0})[1]["repeated"] == 0
    supervisor.stop()  # what is left is moved without workers, too
    assert collect_outcomes(supervisor, "late", lake) == 1
    assert collect_outcomes(supervisor, "late", lake) == 0
    rows = lake.read(OUTCOMES).to_pylist()
    lake.close()
    assert sorted(row["prediction_id"] for row in rows) == sorted([*ids, ids[0]])
    assert {row["deployment"] for row in rows} == {"production/late"}


def test_outcomes_are_counted_and_those_of_unknown_predictions_told(server: Supervisor) -> None:
    def metric(name: str) -> float:
        connection = http.client.HTTPConnection(server.address.host, server.address.port)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))

    names = ("noria_outcomes_total", "noria_unknown_outcomes_total")
    before = [metric(each) for each in names]
    columns = {"deployment": "late", "prediction_id": ["p-0", "x"], "outcome": [1, 1], "known_at": 99}
    assert tell(server, columns)[1]["unknown"] == 1
    assert tell(server, columns)[1]["repeated"] == 2
    assert [metric(each) - was for each, was in zip(names, before, strict=True)] == [2, 2]
    assert metric("noria_spool_bytes") > 0
    assert metric("noria_log_bytes_total") > 0
