"""Every code of an error that a client knows, provoked; and every limit, at and beyond it."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_control_plane import SINCE
from tests.api.test_mlflow_tracking import API, Client
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

import noria
from noria.api.application import application
from noria.api.mlflow import held_bodies
from noria.api.server import ControlPlane
from noria.workspace.up.records import Role, UpState

INVALID, ABSENT = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("secret-place")
    (root / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        made = Client(int(plane.url.rpartition(":")[2]))
        made.post("/experiments/create", name="taken")
        made.post("/registered-models/create", name="taken")
        made.post("/experiments/create", name="gone")
        made.post("/experiments/delete", experiment_id="2")
        yield made


@pytest.fixture(scope="module")
def ids(client: Client) -> dict[str, str]:
    """Give a run that lives, one that is deleted, and a logged model."""
    run, gone = client.run(), client.run()
    client.post("/runs/log-parameter", run_id=run, key="p", value="1")
    client.post("/runs/delete", run_id=gone)
    model = client.post("/logged-models", experiment_id="0")["model"]["info"]["model_id"]
    client.post("/model-versions/create", name="taken", source="s3://x/y")
    return {"RUN": run, "GONE": gone, "MODEL": model}


TABLE: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("POST", "/runs/log-metric", {"run_id": "RUN"},
     400, INVALID, "Missing value for required parameter 'key'"),
    ("POST", "/runs/log-metric", {"key": "a", "value": 1, "timestamp": 1},
     400, INVALID, "required parameter 'run_id'"),
    ("POST", "/runs/create", {"experiment_id": 0},
     400, INVALID, "Invalid value 0 for parameter 'experiment_id'"),
    ("POST", "/runs/log-metric", {"run_id": "RUN", "key": "../a", "value": 1, "timestamp": 1}, 400, INVALID,
     "Invalid metric name"),
    ("POST", "/runs/log-parameter", {"run_id": "RUN", "key": "p", "value": "2"}, 400, INVALID, "p"),
    ("POST", "/runs/log-parameter", {"run_id": "GONE", "key": "q", "value": "2"}, 400, INVALID, "deleted"),
    ("POST", "/runs/create", {"experiment_id": "2"}, 400, INVALID, "deleted"),
    ("POST", "/runs/search", {"experiment_ids": ["0"], "filter": "a OR b"}, 400, INVALID, "filter"),
    ("POST", "/runs/search", {"experiment_ids": ["0"], "page_token": "x"}, 400, INVALID, "page"),
    ("POST", "/runs/search", {"experiment_ids": ["0"], "max_results": 0}, 400, INVALID, "max_results"),
    ("POST", "/runs/search", {"experiment_ids": ["0"], "order_by": ["a UP"]}, 400, INVALID, "order_by"),
    ("POST", "/runs/update", {"run_id": "RUN", "status": "ODD"}, 400, INVALID, "'status'"),
    ("POST", "/experiments/create", {"name": "taken"}, 400, "RESOURCE_ALREADY_EXISTS", "taken"),
    ("POST", "/experiments/update", {"experiment_id": "0", "new_name": "taken"},
     400, "RESOURCE_ALREADY_EXISTS", "taken"),
    ("POST", "/registered-models/create", {"name": "taken"}, 400, "RESOURCE_ALREADY_EXISTS", "taken"),
    ("POST", "/registered-models/create", {"name": "a/b"}, 400, INVALID, "a/b"),
    ("GET", "/experiments/get", {"experiment_id": "99"}, 404, ABSENT, "99"),
    ("GET", "/experiments/get-by-name", {"experiment_name": "none"}, 404, ABSENT, "none"),
    ("GET", "/runs/get", {"run_id": "none"}, 404, ABSENT, "none"),
    ("GET", "/registered-models/get", {"name": "none"}, 404, ABSENT, "none"),
    ("GET", "/registered-models/alias", {"name": "taken", "alias": "none"},
     400, INVALID, "alias none not found"),
    ("GET", "/model-versions/get", {"name": "taken", "version": "9"}, 404, ABSENT, "9"),
    ("GET", "/model-versions/get", {"name": "taken", "version": "x"}, 400, INVALID, "must be an integer"),
    ("GET", "/logged-models/m-none", {}, 404, ABSENT, "m-none"),
    ("POST", "/runs/delete-tag", {"run_id": "RUN", "key": "none"}, 404, ABSENT, "none"),
    ("POST", "/model-versions/create", {"name": "taken", "source": "/etc"},
     400, INVALID, "Invalid model version source"),
    ("POST", "/runs/log-model", {"run_id": "RUN", "model_json": "{"}, 400, INVALID, "Malformed model info"),
    ("GET", "/metrics/get-history-bulk", {"metric_key": "a", "run_id": ["RUN"] * 101},
     400, INVALID, "101 runs"),
    ("POST", "/experiments/search-datasets", {"experiment_ids": []}, 400, INVALID, "1 to 20"),
    ("POST", "/experiments/search-datasets", {"experiment_ids": ["0"] * 21}, 400, INVALID, "Received 21"),
    ("POST", "/traces", {}, 404, "ENDPOINT_NOT_FOUND", "/traces"),
    ("GET", "/runs/create", {}, 404, "ENDPOINT_NOT_FOUND", "GET /runs/create"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "fields", "status", "code", "text"), TABLE)
def test_a_fault_is_told_by_its_code(
    client: Client,
    ids: dict[str, str],
    method: str,
    path: str,
    fields: dict[str, Any],
    status: int,
    code: str,
    text: str,
) -> None:
    told = json.loads(_named(json.dumps(fields), ids))
    if method == "GET":
        from urllib.parse import urlencode

        found, answer = client.ask(method, f"{API}{path}?{urlencode(told, doseq=True)}", kind=None)
    else:
        found, answer = client.ask(method, API + path, json.dumps(told).encode())
    assert (found, answer["error_code"]) == (status, code), answer
    assert text in answer["message"]


def _named(text: str, ids: dict[str, str]) -> str:
    for name, id in ids.items():
        text = text.replace(f'"{name}"', f'"{id}"')
    return text


@pytest.mark.parametrize(
    "path", ["/graphql", "/api/2.0/mlflow/traces/search", "/api/3.0/mlflow/datasets/create"]
)
def test_what_is_not_answered_is_not_found(client: Client, path: str) -> None:
    status, answer = client.ask("POST", path, b"{}")
    assert status == 404 and ("error_code" in answer or "error" in answer)


def test_each_of_several_faults_at_once_leaves_nothing(client: Client) -> None:
    run = client.run()
    for metrics in ([{"key": "a", "value": 1, "timestamp": 1}, {"key": "../b", "value": 1, "timestamp": 1}],):
        assert client.refused("/runs/log-batch", run_id=run, metrics=metrics)[1] == INVALID
    assert "metrics" not in client.get("/runs/get", run_id=run)["run"]["data"]


LIMITS: list[tuple[str, dict[str, Any], str, int]] = [
    ("/experiments/create", {}, "name", 500),
    ("/runs/set-tag", {"run_id": "RUN", "value": ""}, "key", 250),
    ("/runs/log-parameter", {"run_id": "RUN", "value": ""}, "key", 250),
    ("/runs/log-metric", {"run_id": "RUN", "value": 1, "timestamp": 1}, "key", 250),
    ("/experiments/set-experiment-tag", {"experiment_id": "0", "value": ""}, "key", 250),
    ("/experiments/set-experiment-tag", {"experiment_id": "0", "key": "k"}, "value", 20_000),
    ("/registered-models/set-tag", {"name": "taken", "value": ""}, "key", 250),
    ("/registered-models/set-tag", {"name": "taken", "key": "k"}, "value", 100_000),
    ("/model-versions/set-tag", {"name": "taken", "version": "1", "value": ""}, "key", 250),
    ("/model-versions/set-tag", {"name": "taken", "version": "1", "key": "k"}, "value", 100_000),
    ("/registered-models/alias", {"name": "taken", "version": "1"}, "alias", 255),
]


@pytest.mark.parametrize(("path", "fields", "name", "most"), LIMITS)
def test_a_text_has_a_limit(
    client: Client, ids: dict[str, str], path: str, fields: dict[str, Any], name: str, most: int
) -> None:
    fields = json.loads(_named(json.dumps(fields), ids))
    for length in (most - 1, most):
        client.post(path, **fields, **{name: "a" * length})
    status, code, message = client.refused(path, **fields, **{name: "a" * (most + 1)})
    assert (status, code) == (400, INVALID)
    assert str(most) in message.replace(",", "") and "a" * 600 not in message


@pytest.mark.parametrize(
    ("path", "most", "fields"),
    [
        ("/runs/search", 50_000, {"experiment_ids": ["0"]}),
        ("/experiments/search", 50_000, {}),
        ("/registered-models/search", 1_000, None),
        ("/model-versions/search", 200_000, None),
    ],
)
def test_a_page_has_a_limit(client: Client, path: str, most: int, fields: dict[str, Any] | None) -> None:
    for results, status in ((1, 200), (most, 200), (most + 1, 400), (0, 400), (-1, 400)):
        if fields is None:
            found, answer = client.ask("GET", f"{API}{path}?max_results={results}", kind=None)
        else:
            found, answer = client.ask(
                "POST", API + path, json.dumps({**fields, "max_results": results}).encode()
            )
        assert found == status, (results, answer)


def test_files_of_the_page_and_of_logged_models(client: Client, ids: dict[str, str]) -> None:
    ask = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={ids['RUN']}&path="
    assert client.ask("POST", f"{ask}notes/a.txt", b"hello", kind="text/x-notes") == (200, {})
    status, answer = client.ask("POST", f"{ask}b.txt", b"x" * ((10 << 20) + 1), kind="text/x-notes")
    assert (status, answer["error_code"]) == (400, INVALID) and "Max size is 10MB" in answer["message"]
    for path, kind in (
        ("../b", "a/b"),
        ("", "a/b"),
        ("c", "text/plain"),
        ("c", "multipart/form-data; boundary=x"),
    ):
        assert client.ask("POST", f"{ask}{path}", b"x", kind=kind)[1]["error_code"] == INVALID
    listed = client.ask("GET", f"{API}/artifacts/list?run_id={ids['RUN']}", kind=None)[1]["files"]
    assert [each["path"] for each in listed] == ["notes"]
    below = f"/api/2.0/mlflow-artifacts/artifacts/0/models/{ids['MODEL']}/artifacts/MLmodel"
    assert client.ask("PUT", below, b"{}", kind=None)[0] == 200
    of_model = f"/ajax-api/2.0/mlflow/logged-models/{ids['MODEL']}/artifacts/files?artifact_file_path="
    assert client.ask("GET", f"{of_model}MLmodel", kind=None) == (200, {})
    assert client.ask("GET", f"{of_model}none", kind=None)[1]["error_code"] == ABSENT
    assert client.ask("GET", f"{of_model}../x", kind=None)[1]["error_code"] == INVALID


def test_datasets_of_experiments_are_summed_up(client: Client) -> None:
    folder = client.post("/experiments/create", name="read")["experiment_id"]
    dataset = {"name": "d", "digest": "1", "source_type": "x", "source": "s"}
    tags = [{"key": "mlflow.data.context", "value": "train"}]
    runs = [client.post("/runs/create", experiment_id=folder)["run"]["info"]["run_id"] for _ in range(3)]
    for run, given in zip(runs, ({"tags": tags}, {"tags": tags}, {}), strict=True):
        client.post("/runs/log-inputs", run_id=run, datasets=[{"dataset": dataset, **given}])
    found = client.post("/experiments/search-datasets", experiment_ids=[folder])["dataset_summaries"]
    one = {"experiment_id": folder, "name": "d", "digest": "1"}
    assert sorted(found, key=len) == [one, {**one, "context": "train"}]
    for run in runs:
        client.post("/runs/delete", run_id=run)
    assert client.post("/experiments/search-datasets", experiment_ids=[folder]) == {}


def test_histories_of_several_runs(client: Client) -> None:
    runs = sorted(client.run() for _ in range(2))
    for run in runs:
        points = [{"key": "m", "value": float(step), "timestamp": step, "step": step} for step in range(3)]
        client.post("/runs/log-batch", run_id=run, metrics=points)
    found = client.get("/metrics/get-history-bulk", run_id=runs, metric_key="m", max_results=5)["metrics"]
    assert [(each["run_id"], each["step"]) for each in found] == [
        *((runs[0], step) for step in range(3)),
        *((runs[1], step) for step in range(2)),
    ]


def test_a_database_that_is_away_is_told_without_where_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: Any,  # noqa: F811
    postgres_url: str,  # noqa: F811
) -> None:
    import psycopg

    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    monkeypatch.setenv("NORIA_STORES__DATABASE", postgres_url)
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    name = postgres_url.rpartition("/")[2]
    with noria.open(tmp_path) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        client = Client(int(plane.url.rpartition(":")[2]))
        run = client.run()
        with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            for path in (f"{API}/runs/get?run_id={run}", "/api/noria/runs"):
                status, answer = client.ask("GET", path, kind=None)
                assert status == 503
                told = answer.get("message") or answer["error"]["message"]
                assert "a store of the server cannot be used" in told
                assert str(postgres_server.port) not in told and name not in told
            admin.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')
        assert client.get("/runs/get", run_id=run)["run"]["info"]["run_id"] == run


def test_large_bodies_wait_for_each_other_and_too_many_are_sent_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_bodies, "_LARGE_WAITING", 1)
    monkeypatch.setattr(held_bodies, "_LARGE_WAIT_S", 0.3)
    run, port = client.run(), client._port
    head = f"POST {API}/runs/log-inputs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
    try:
        for each in held:  # they take both places, and do not go on
            each.sendall(f"{head}content-length: {20 << 20}\r\n\r\n".encode() + b" " * (5 << 20))
        time.sleep(0.3)
        dataset = {"name": "d", "digest": "1", "source_type": "x", "source": "s", "profile": "x" * (5 << 20)}
        body = json.dumps({"run_id": run, "datasets": [{"dataset": dataset}]}).encode()

        def send() -> tuple[int, str | None]:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
                connection.request(
                    "POST", f"{API}/runs/log-inputs", body, {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                return answer.status, answer.headers["retry-after"]

        with ThreadPoolExecutor(3) as pool:
            assert {each.result() for each in [pool.submit(send) for _ in range(3)]} == {(503, "5")}
        assert client.get("/runs/get", run_id=run)["run"]["info"]["run_id"] == run  # others go on meanwhile
    finally:
        for each in held:
            each.close()
    monkeypatch.setattr(held_bodies, "_LARGE_WAIT_S", 20.0)
    assert send() == (200, None)


def test_a_body_that_trickles_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bodies, "_WITHIN_S", 0.2)
    with socket.create_connection(("127.0.0.1", client._port), timeout=20) as connection:
        connection.sendall(
            f"POST {API}/runs/create HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{".encode()
        )
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400 ")


def test_all_bodies_together_have_a_limit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bodies, "_MOST_BYTES", 1_000_000)
    run = client.run()
    status, code, _ = client.refused("/runs/set-tag", run_id=run, key="a", value="x" * 2_000_000)
    assert (status, code) == (503, "TEMPORARILY_UNAVAILABLE")
    client.post("/runs/set-tag", run_id=run, key="a", value="x")
    monkeypatch.undo()
    client.post("/runs/set-tag", run_id=run, key="a", value="x" * 2_000_000)
