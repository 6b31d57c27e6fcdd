"""MLflow's protocol on the wire: experiments, runs, what they log, searches; limits, and what is refused."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from tests.api.test_control_plane import SINCE

import noria
from noria.api.application import application
from noria.api.mlflow.wiring import mlflow_application
from noria.api.server import ControlPlane
from noria.tracking.runs import tracked_run
from noria.workspace.up.records import Role, UpState

API = "/api/2.0/mlflow"


class Client:
    """Sends requests as MLflow's clients do."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, kind: str | None = "application/json"
    ) -> tuple[int, Any]:
        headers = {} if kind is None else {"content-type": kind}
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def post(self, path: str, **fields: Any) -> Any:
        status, answer = self.ask("POST", API + path, json.dumps(fields).encode())
        assert status == 200, answer
        return answer

    def get(self, path: str, **fields: Any) -> Any:
        status, answer = self.ask("GET", f"{API}{path}?{urlencode(fields, doseq=True)}", kind=None)
        assert status == 200, answer
        return answer

    def refused(self, path: str, **fields: Any) -> tuple[int, str, str]:
        status, answer = self.ask("POST", API + path, json.dumps(fields).encode())
        assert set(answer) == {"error_code", "message"}
        return status, answer["error_code"], answer["message"]

    def run(self, **fields: Any) -> str:
        return str(self.post("/runs/create", experiment_id="0", **fields)["run"]["info"]["run_id"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[noria.Project]:
    root = tmp_path_factory.mktemp("site")
    (root / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    with noria.open(root) as project:
        yield project


@pytest.fixture(scope="module")
def client(served: noria.Project) -> Iterator[Client]:
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(served, lambda: state, host="127.0.0.1"))
        yield Client(int(plane.url.rpartition(":")[2]))


def test_a_fresh_store_has_the_default_experiment(client: Client) -> None:
    found = client.get("/experiments/get", experiment_id="0")["experiment"]
    assert found["name"] == "Default"
    assert found["artifact_location"] == "mlflow-artifacts:/0"
    assert found["lifecycle_stage"] == "active"
    assert client.get("/experiments/get-by-name", experiment_name="Default")["experiment"] == found


def test_an_experiment_lives_from_its_making_to_its_restoring(client: Client) -> None:
    made = client.post("/experiments/create", name="life", tags=[{"key": "team", "value": "ops"}])[
        "experiment_id"
    ]
    assert isinstance(made, str)
    assert client.refused("/experiments/create", name="life")[:2] == (400, "RESOURCE_ALREADY_EXISTS")
    client.post("/experiments/set-experiment-tag", experiment_id=made, key="team", value="ml")
    client.post("/experiments/update", experiment_id=made, new_name="lived")
    assert client.refused("/experiments/update", experiment_id=made, new_name="Default")[1] == (
        "RESOURCE_ALREADY_EXISTS"
    )
    found = client.get("/experiments/get", experiment_id=made)["experiment"]
    assert (found["name"], found["tags"]) == ("lived", [{"key": "team", "value": "ml"}])
    client.post("/experiments/delete-experiment-tag", experiment_id=made, key="team")
    assert "tags" not in client.get("/experiments/get", experiment_id=made)["experiment"]
    client.post("/experiments/delete", experiment_id=made)
    assert client.get("/experiments/get", experiment_id=made)["experiment"]["lifecycle_stage"] == "deleted"
    assert client.refused("/runs/create", experiment_id=made)[:2] == (400, "INVALID_PARAMETER_VALUE")
    client.post("/experiments/restore", experiment_id=made)
    names = [each["name"] for each in client.post("/experiments/search", max_results=100)["experiments"]]
    assert "lived" in names


def test_a_run_lives_and_is_shown(client: Client) -> None:
    begun = client.post(
        "/runs/create", experiment_id="0", user_id="ada", run_name="first", start_time="1700000000000",
        tags=[{"key": "team", "value": "ops"}],
    )["run"]  # fmt: skip
    info = begun["info"]
    run = info["run_id"]
    assert (info["run_uuid"], info["status"], info["start_time"]) == (run, "RUNNING", 1_700_000_000_000)
    assert info["artifact_uri"] == f"mlflow-artifacts:/0/{run}/artifacts"
    client.post("/runs/log-metric", run_id=run, key="loss", value=0.5, timestamp="5", step="1")
    client.post("/runs/log-parameter", run_id=run, key="leaves", value="31")
    client.post("/runs/set-tag", run_id=run, key="team", value="ml")
    client.post("/runs/delete-tag", run_id=run, key="team")
    ended = client.post("/runs/update", run_id=run, status="FINISHED", end_time=1_700_000_001_000)["run_info"]
    assert (ended["status"], ended["end_time"]) == ("FINISHED", 1_700_000_001_000)
    found = client.get("/runs/get", run_id=run)["run"]
    assert found == client.get("/runs/get", run_uuid=run)["run"]
    assert found["data"] == {
        "metrics": [{"key": "loss", "value": 0.5, "timestamp": 5, "step": 1}],
        "params": [{"key": "leaves", "value": "31"}],
        "tags": [{"key": "mlflow.runName", "value": "first"}],
    }
    assert found["inputs"] == {}
    client.post("/runs/delete", run_id=run)
    assert client.get("/runs/get", run_id=run)["run"]["info"]["lifecycle_stage"] == "deleted"
    refused = client.refused("/runs/log-metric", run_id=run, key="loss", value=1, timestamp=1)
    assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")
    client.post("/runs/restore", run_id=run)


@pytest.mark.parametrize(
    ("status", "shown"),
    [("SCHEDULED", "SCHEDULED"), ("FAILED", "FAILED"), ("KILLED", "KILLED"), ("RUNNING", "RUNNING")],
)
def test_every_status_of_a_run_comes_back(client: Client, status: str, shown: str) -> None:
    run = client.run()
    assert client.post("/runs/update", run_id=run, status=status)["run_info"]["status"] == shown
    assert client.get("/runs/get", run_id=run)["run"]["info"]["status"] == shown


def test_numbers_that_json_has_not_come_back(client: Client) -> None:
    run = client.run()
    for key, value in (("n", "NaN"), ("p", "Infinity"), ("m", "-Infinity")):
        client.post("/runs/log-metric", run_id=run, key=key, value=value, timestamp=1)
    shown = {
        each["key"]: each["value"] for each in client.get("/runs/get", run_id=run)["run"]["data"]["metrics"]
    }
    assert shown == {"n": "NaN", "p": 1.7976931348623157e308, "m": -1.7976931348623157e308}


def test_a_batch_is_kept_whole_or_not_at_all(client: Client) -> None:
    run = client.run()
    point = {"key": "loss", "value": 1.5, "timestamp": 7, "step": 3}
    client.post(
        "/runs/log-batch", run_id=run, metrics=[point, point], params=[{"key": "a", "value": "1"}],
        tags=[{"key": "mlflow.runName", "value": "renamed"}],
    )  # fmt: skip
    clash = {"metrics": [{**point, "key": "late"}], "params": [{"key": "a", "value": "2"}]}
    status, code, message = client.refused("/runs/log-batch", run_id=run, **clash)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "'1' and cannot become '2'" in message
    found = client.get("/runs/get", run_id=run)["run"]
    assert (found["data"]["metrics"], found["info"]["run_name"]) == ([point], "renamed")
    assert client.get("/metrics/get-history", run_id=run, metric_key="loss")["metrics"] == [point]


def test_a_history_goes_on_in_pages(client: Client) -> None:
    run = client.run()
    points = [{"key": "loss", "value": each / 2, "timestamp": each, "step": each} for each in range(10)]
    client.post("/runs/log-batch", run_id=run, metrics=points)
    first = client.get("/metrics/get-history", run_id=run, metric_key="loss", max_results=6)
    rest = client.get(
        "/metrics/get-history",
        run_id=run,
        metric_key="loss",
        max_results=6,
        page_token=first["next_page_token"],
    )
    assert first["metrics"] + rest["metrics"] == points
    assert "next_page_token" not in rest
    thinned = client.get(
        "/metrics/get-history-bulk-interval",
        run_ids=[run],
        metric_key="loss",
        start_step=2,
        end_step=8,
        max_results=3,
    )["metrics"]
    assert [each["step"] for each in thinned] == [2, 6, 8]
    assert {each["run_id"] for each in thinned} == {run}


def test_what_a_run_read_comes_back(client: Client) -> None:
    run = client.run()
    dataset = {
        "name": "d",
        "digest": "ab",
        "source_type": "local",
        "source": "{}",
        "schema": "[1]",
        "profile": "{}",
    }
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    for _ in range(2):
        client.post("/runs/log-inputs", run_id=run, datasets=[{"dataset": dataset, "tags": tags}])
    found = client.get("/runs/get", run_id=run)["run"]["inputs"]
    assert found == {"dataset_inputs": [{"dataset": dataset, "tags": tags}]}


def test_runs_are_searched_in_pages(client: Client) -> None:
    folder = client.post("/experiments/create", name="searched")["experiment_id"]
    for each in range(5):
        run = client.post("/runs/create", experiment_id=folder, start_time=each)["run"]["info"]["run_id"]
        client.post("/runs/log-metric", run_id=run, key="auc", value=each / 10, timestamp=1)
    asked: dict[str, Any] = {
        "experiment_ids": [folder],
        "filter": "metrics.auc > 0.05",
        "order_by": ["metrics.auc DESC"],
        "max_results": 3,
    }
    first = client.post("/runs/search", **asked)
    rest = client.post("/runs/search", **asked, page_token=first["next_page_token"])
    found = [each["data"]["metrics"][0]["value"] for each in first["runs"] + rest["runs"]]
    assert found == [0.4, 0.3, 0.2, 0.1]
    assert client.post("/runs/search", experiment_ids=[]) == {}
    assert (
        client.refused("/runs/search", **{**asked, "filter": "metrics.auc"})[1] == "INVALID_PARAMETER_VALUE"
    )
    other = client.refused("/runs/search", **{**asked, "filter": ""}, page_token=first["next_page_token"])
    assert other[:2] == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/runs/log-metric", {"key": "a", "value": 1, "timestamp": 1}, "required parameter 'run_id'"),
        ("/runs/log-metric", {"run_id": "x", "value": 1, "timestamp": 1}, "required parameter 'key'"),
        ("/runs/delete", {"run_id": ""}, "Missing value for required parameter 'run_id'"),
        ("/runs/create", {"experiment_id": 7}, "Invalid value 7 for parameter 'experiment_id' supplied"),
        ("/runs/log-metric", {"run_id": "x", "key": "a", "value": "b", "timestamp": 1}, 'value "b" for'),
        ("/runs/update", {"run_id": "x", "status": "DONE"}, "Invalid value 'DONE' for parameter 'status'"),
        ("/runs/search", {"max_results": 0}, "'max_results'"),
        ("/runs/search", {"max_results": 50_001}, "'max_results'"),
        ("/experiments/create", {"name": "x" * 501}, "501 characters"),
        ("/runs/log-batch", {"run_id": "x", "metrics": [{"key": "a", "timestamp": 1}]}, "metrics"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_told(
    client: Client, path: str, fields: dict[str, Any], message: str
) -> None:
    status, code, told = client.refused(path, **fields)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert message in told


@pytest.mark.parametrize(("what", "most"), [("metrics", 1_000), ("params", 100), ("tags", 100)])
def test_a_batch_has_its_limits(client: Client, what: str, most: int) -> None:
    run = client.run()
    extra = {"timestamp": 1, "value": 1.0} if what == "metrics" else {"value": "1"}
    fields = [{"key": f"k{each}", **extra} for each in range(most + 1)]
    client.post("/runs/log-batch", run_id=run, **{what: fields[:most]})
    assert f"at most {most} {what}" in client.refused("/runs/log-batch", run_id=run, **{what: fields})[2]


def test_keys_and_values_have_their_limits(client: Client) -> None:
    run = client.run()
    for path, extra in (
        ("/runs/log-metric", {"value": 1, "timestamp": 1}),
        ("/runs/set-tag", {"value": "x"}),
    ):
        client.post(path, run_id=run, key="k" * 250, **extra)
        assert "251 characters" in client.refused(path, run_id=run, key="k" * 251, **extra)[2]
    client.post("/runs/log-parameter", run_id=run, key="long", value="v" * 6_001)
    client.post("/runs/set-tag", run_id=run, key="long", value="v" * 8_001)
    data = client.get("/runs/get", run_id=run)["run"]["data"]
    assert [len(each["value"]) for each in data["params"]] == [6_000]
    assert {each["key"]: len(each["value"]) for each in data["tags"]}["long"] == 8_000
    big = [{"key": f"k{each}", "value": "v" * 5_000} for each in range(100)]
    client.post("/runs/log-batch", run_id=run, params=big)
    status, answer = client.ask("POST", API + "/runs/log-batch", b'{"run_id": "' + b"x" * (1 << 20) + b'"}')
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"7", b'"x"', b"{} {}", b'{"run_id": "\\ud800"}'])
def test_what_is_not_json_is_told_so(client: Client, body: bytes) -> None:
    status, answer = client.ask("POST", API + "/runs/delete", body)
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_nul_is_refused_and_what_only_looks_like_one_is_kept(client: Client) -> None:
    run = client.run()
    for body in (b'{"run_id": "a\\u0000"}', b'{"run_id": "a", "x\\u0000": [{"y": "\\u0000"}]}'):
        status, answer = client.ask("POST", API + "/runs/delete", body)
        assert (status, "NUL" in answer["message"]) == (400, True)
    status, answer = client.ask("GET", API + "/runs/get?run_id=a%00", kind=None)
    assert (status, "NUL" in answer["message"]) == (400, True)
    client.post("/runs/set-tag", run_id=run, key="told", value="\\u0000 and %00")
    tags = client.get("/runs/get", run_id=run)["run"]["data"]["tags"]
    assert {"key": "told", "value": "\\u0000 and %00"} in tags


def test_another_content_type_is_refused(client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        status, answer = client.ask("POST", API + "/runs/delete", b"{}", kind=kind)
        assert status == 400
        assert "Content-Type" in answer["message"]


def test_fields_of_a_get_may_come_in_a_body(client: Client) -> None:
    status, answer = client.ask("GET", API + "/experiments/get", b'{"experiment_id": "0"}')
    assert (status, answer["experiment"]["name"]) == (200, "Default")


def test_browsers_ask_under_another_prefix(client: Client) -> None:
    status, answer = client.ask("GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", kind=None)
    assert (status, answer["experiment"]["experiment_id"]) == (200, "0")
    status, answer = client.ask("GET", "/api/3.0/mlflow/server-info", kind=None)
    assert (status, answer["artifact_serving_enabled"]) == (200, True)


@pytest.mark.parametrize(
    "path", ["/api/2.0/mlflow/nothing", "/api/2.0/other", "/api/3.0/mlflow/traces/search"]
)
def test_an_unknown_path_is_told_so(client: Client, path: str) -> None:
    status, answer = client.ask("POST", path, b"{}")
    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_unknown_ids_are_not_found(client: Client) -> None:
    for path, fields in (
        ("/runs/log-metric", {"run_id": "0" * 32, "key": "a", "value": 1, "timestamp": 1}),
        ("/runs/delete", {"run_id": "../x"}),
        ("/runs/create", {"experiment_id": "99"}),
        ("/experiments/delete", {"experiment_id": "x"}),
    ):
        assert client.refused(path, **fields)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = (  # noqa: SIM905 - as a list it takes a page
    "run_id run_uuid experiment_id experiment_ids key value timestamp step metrics params tags name "
    "new_name status end_time start_time filter order_by max_results page_token datasets metric_key "
    "run_ids run_name user_id view_type run_view_type experiment_name start_step end_step "
    "artifact_location source version alias stage description model_id"
).split()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_request_makes_the_server_fail(
    fuzzed: tuple[Client, list[tuple[str, str]]], data: st.DataObject
) -> None:
    client, endpoints = fuzzed
    run = client.run()
    known = st.sampled_from([run, "0", "loss", "Default", "1", "FINISHED", "metrics.loss > 1", "models:/a/1"])
    fields = data.draw(st.dictionaries(st.sampled_from(_NAMES), _JSON | known, max_size=8))
    body = json.dumps(fields, allow_nan=True).encode("utf-8", "surrogatepass")
    for method, path in endpoints:
        status, answer = client.ask(method, path, body)
        assert status < 500, (method, path, fields, answer)
        text = json.dumps(answer)
        assert not any(each in text for each in ("SELECT", "INSERT", "Traceback", "sqlalchemy", "sqlite")), (
            text
        )


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, list[tuple[str, str]]]]:
    root = tmp_path_factory.mktemp("fuzzed")
    (root / "noria.toml").write_text('[project]\nname = "fuzzed"\nmodules = []\n')
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        answering = mlflow_application(project, otherwise=PlainTextResponse("none of MLflow's"))
        plane.start(answering)
        yield Client(int(plane.url.rpartition(":")[2])), answering.paths()


def test_fields_that_repeat_come_as_a_list(client: Client) -> None:
    one, other = client.run(), client.run()
    for run in (one, other):
        client.post("/runs/log-metric", run_id=run, key="m", value=1, timestamp=1)
    found = client.get("/metrics/get-history-bulk-interval", run_ids=[one, other], metric_key="m")["metrics"]
    assert {each["run_id"] for each in found} == {one, other}


def test_a_native_run_is_seen_by_clients(served: noria.Project, client: Client) -> None:
    with tracked_run(served.ledger, "train", "late", params={"leaves": 31}) as tracked:
        tracked.log_metric("loss", 0.5, step=2)
        shown = client.get("/runs/get", run_id=tracked.id)["run"]
    assert (shown["info"]["run_name"], shown["info"]["status"]) == ("late", "RUNNING")
    assert shown["data"]["params"] == [{"key": "leaves", "value": "31"}]
    assert [(each["key"], each["value"], each["step"]) for each in shown["data"]["metrics"]] == [
        ("loss", 0.5, 2)
    ]
    assert client.get("/runs/get", run_id=tracked.id)["run"]["info"]["status"] == "FINISHED"
