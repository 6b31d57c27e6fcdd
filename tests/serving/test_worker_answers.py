import http.client
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tests.serving.conftest import CARRIERS, NOW, VIEW, Trained

from noria.clock import format_instant, to_micros
from noria.deploy.supervisor import Supervisor
from noria.features.backends.lmdb_reading import LmdbFeatureReader
from noria.serving.client import InferError, ServingClient
from noria.serving.logs.log import PredictionFrame, decode_frame
from noria.serving.records import assignment_point
from noria.streams.spool import read_spool

ROWS: dict[str, list[Any]] = {
    "carrier": ["AA", "DL", "XX", None, "UA"],
    "distance": [100, 719.5, 3000, None, 0],
}


@pytest.fixture
def client(module_supervisor: Supervisor) -> Iterator[ServingClient]:
    with module_supervisor.client() as client:
        yield client


def logged(supervisor: Supervisor, prediction_id: str) -> PredictionFrame:
    frames = [decode_frame(payload) for _, payload in read_spool(supervisor.folder / "late" / "spool")]
    (found,) = [frame for frame in frames if prediction_id in frame.ids]
    return found


def matrix_of(online: Path) -> Any:
    with LmdbFeatureReader(online) as reader:
        features = reader.read([VIEW.spec()], {"carrier": ROWS["carrier"]}, to_micros(NOW))
    numbers = np.array(ROWS["distance"], dtype=np.float64)
    codes = [float(CARRIERS.index(each)) if each in CARRIERS else np.nan for each in ROWS["carrier"]]
    return np.column_stack([numbers, codes, features])


def test_scores_are_those_of_the_trained_model_on_the_online_features(
    client: ServingClient, online: Path, first: Trained, second: Trained
) -> None:
    answers = client.infer("late_arrival", ROWS, ids=[f"same-{row}" for row in range(5)], at=NOW)
    matrix = matrix_of(online)
    assert np.nanmin(matrix[:, 2]) < np.nanmax(matrix[:, 2])
    wanted = {1: first.booster.predict(matrix), 2: second.booster.predict(matrix)}
    assert answers.scores == [wanted[version][row] for row, version in enumerate(answers.versions)]
    assert answers.releases == [f"late_arrival:{version}" for version in answers.versions]


def test_features_are_those_of_the_requests_instant(
    client: ServingClient, module_supervisor: Supervisor
) -> None:
    columns: dict[str, list[object]] = {"carrier": ["AA"], "distance": [1]}
    for name, at in (("early", NOW - timedelta(days=30)), ("late", NOW)):
        client.infer("late", columns, ids=[f"instant-{name}"], at=at)
    early, late = (logged(module_supervisor, f"instant-{name}") for name in ("early", "late"))
    assert early.at == to_micros(NOW - timedelta(days=30))
    assert late.feature_names == ["carrier__flights_1d", "carrier__delay_7d"]
    assert late.feature_matrix()[0, 0] > 0


def test_both_versions_score_every_row_and_the_assigned_one_answers(
    client: ServingClient, module_supervisor: Supervisor, online: Path, first: Trained, second: Trained
) -> None:
    answers = client.infer("late_arrival", ROWS, ids=[f"both-{row}" for row in range(5)], at=NOW)
    frame = logged(module_supervisor, "both-0")
    assert [each.version for each in frame.releases] == [1, 2]
    matrix = matrix_of(online)
    for release, model in zip(frame.releases, (first, second), strict=True):
        np.testing.assert_array_equal(release.score_array(), model.booster.predict(matrix))
        np.testing.assert_array_equal(
            release.answered_array(), [each == release.version for each in answers.versions]
        )
    np.testing.assert_array_equal(frame.feature_matrix(), matrix[:, 2:])
    np.testing.assert_array_equal(frame.number_array("distance"), matrix[:, 0])
    assert frame.texts == {"carrier": ROWS["carrier"]}
    assert (frame.route, frame.route_number, frame.deployment) == ("route-1", 1, "late")
    assert frame.latency_us > 0


def test_assignment_is_a_hash_of_prediction_id_and_route(client: ServingClient) -> None:
    ids = [f"share-{row}" for row in range(2_000)]
    columns: dict[str, list[object]] = {"carrier": ["AA"] * 2_000, "distance": [500.0] * 2_000}
    answers = client.infer("late", columns, ids=ids, at=NOW)
    assert answers.versions == [1 if assignment_point("route-1", each) < 0.8 else 2 for each in ids]
    assert 0.77 < Counter(answers.versions)[1] / 2_000 < 0.83
    assert [assignment_point("route-2", each) for each in ids] != [
        assignment_point("route-1", each) for each in ids
    ]


def test_a_version_in_the_path_answers_alone(client: ServingClient, module_supervisor: Supervisor) -> None:
    answers = client.infer("late_arrival", ROWS, ids=[f"pin-{row}" for row in range(5)], at=NOW, version=2)
    assert answers.versions == [2] * 5
    assert [each.version for each in logged(module_supervisor, "pin-0").releases] == [2]


def test_ids_come_from_the_client_or_the_request_or_are_made(client: ServingClient) -> None:
    columns: dict[str, list[object]] = {"carrier": ["AA", "DL"], "distance": [1, 2]}
    assert client.infer("late", columns, ids=["own-a", "own-b"], at=NOW).ids == ["own-a", "own-b"]
    first, second = client.infer("late", columns, at=NOW).ids
    assert (first[-2:], second[-2:], first[:-2]) == ("-0", "-1", second[:-2])
    body = infer_body([["carrier", "BYTES", ["AA"]], ["distance", "FP64", [1]]])
    made = client.post("/v2/models/late/infer", body)["outputs"][1]["data"][0]
    assert len(made) == 32


def test_an_answer_echoes_the_id_and_gives_the_outputs_that_were_asked_for(client: ServingClient) -> None:
    body = infer_body(
        [["carrier", "BYTES", [["DL"]], [1, 1]], ["distance", "INT64", [[7]], [1, 1]]],
        id="echo",
        outputs=[{"name": "score"}],
        parameters={"at": format_instant(NOW), "content_type": "pd"},
    )
    answer = client.post("/v2/models/late_arrival/versions/1/infer", body)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("echo", "late_arrival", "1")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP64", [1])


def test_without_an_instant_a_replayed_deployment_asks_for_it(client: ServingClient) -> None:
    with pytest.raises(InferError, match="clock is 'replay'"):
        client.infer("late", {"carrier": ["AA"], "distance": [1]}, ids=["no-instant"])


def test_a_model_tells_its_columns(client: ServingClient) -> None:
    told = client.get("/v2/models/late_arrival")
    assert told["versions"] == ["1", "2"]
    assert told["platform"] == "noria_lightgbm"
    assert told["inputs"] == [
        {"name": "distance", "datatype": "FP64", "shape": [-1]},
        {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [each["name"] for each in told["outputs"]] == ["score", "prediction_id", "release", "version"]
    assert client.get("/v2/models/late_arrival/versions/2")["versions"] == ["2"]


def test_health_and_metrics_are_there(client: ServingClient, module_supervisor: Supervisor) -> None:
    assert client.get("/v2")["name"] == "noria"
    assert client.get("/v2/health/live") == {"live": True}
    ready = client.get("/v2/health/ready")
    assert ready["ready"] is True
    assert ready["parameters"]["late"]["route"] == 1
    assert client.get("/v2/models/late_arrival/ready") == {"name": "late_arrival", "ready": True}
    assert client.get("/v2/models/late_arrival/versions/2/ready")["ready"] is True
    client.infer("late", {"carrier": ["AA"], "distance": [1]}, ids=["metered"], at=NOW)
    text = read_text(module_supervisor, "/metrics")
    labels = 'deployment="late",environment="production",model="late",status="200"'
    assert f"noria_requests_total{{{labels}}}" in text
    assert 'noria_route{deployment="late",environment="production"} 1.0' in text


def read_text(supervisor: Supervisor, path: str) -> str:
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def infer_body(tensors: list[list[Any]], **more: Any) -> bytes:
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape[0] if shape else [len(data)], "data": data}
        for name, datatype, data, *shape in tensors
    ]
    return orjson.dumps({"parameters": {"at": to_micros(NOW)}, **more, "inputs": inputs})
