"""Logged models over MLflow's protocol: on the wire, and by a real client whose work is on noria's record."""

import json
from typing import Any

import pytest
from tests.api.test_mlflow_client import PROGRAMS, site  # noqa: F401 - a fixture
from tests.api.test_mlflow_tracking import API, Client, client, served  # noqa: F401 - fixtures
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture

import noria

NOBODY = "m-" + "0" * 32


class Models:
    """Asks for logged models."""

    def __init__(self, client: Client) -> None:  # noqa: F811
        self.client = client

    def make(self, **fields: Any) -> Any:
        return self.client.post("/logged-models", **{"experiment_id": "0", **fields})["model"]

    def id(self, **fields: Any) -> str:
        return str(self.make(**fields)["info"]["model_id"])

    def get(self, id: str, query: str = "") -> Any:
        status, answer = self.ask("GET", id + query)
        assert status == 200, answer
        return answer["model"]

    def ask(self, method: str, path: str, **fields: Any) -> tuple[int, Any]:
        body = json.dumps(fields).encode() if fields else None
        kind = "application/json" if fields else None
        return self.client.ask(method, f"{API}/logged-models/{path}", body, kind=kind)

    def fault(self, method: str, path: str, **fields: Any) -> tuple[int, str, str]:
        status, answer = self.ask(method, path, **fields)
        return status, answer["error_code"], answer["message"]


@pytest.fixture
def models(client: Client) -> Models:  # noqa: F811
    return Models(client)


def _texts(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs]


def test_a_model_lives_from_its_making_to_its_deletion(models: Models) -> None:
    run = models.client.run()
    made = models.make(
        name="forest", model_type="classifier", source_run_id=run,
        params=_texts(("a", "1")), tags=_texts(("t", "ü")),
    )  # fmt: skip
    info, id = made["info"], made["info"]["model_id"]
    assert info == {
        "model_id": id,
        "experiment_id": "0",
        "name": "forest",
        "creation_timestamp_ms": info["last_updated_timestamp_ms"],
        "last_updated_timestamp_ms": info["creation_timestamp_ms"],
        "artifact_uri": f"mlflow-artifacts:/0/models/{id}/artifacts",
        "status": "LOGGED_MODEL_PENDING",
        "model_type": "classifier",
        "source_run_id": run,
        "tags": _texts(("t", "ü")),
    }
    assert made["data"] == {"params": _texts(("a", "1"))}
    assert models.get(id) == made
    assert models.ask("PATCH", f"{id}/tags", tags=_texts(("t", "2"), ("u", "3")))[0] == 200
    assert models.ask("DELETE", f"{id}/tags/t") == (200, {})
    assert models.ask("POST", f"{id}/params", params=_texts(("b", "2"))) == (200, {})
    status, answer = models.ask("PATCH", id, model_id=id, status="LOGGED_MODEL_READY")
    assert (status, answer["model"]["info"]["status"]) == (200, "LOGGED_MODEL_READY")
    assert models.get(id)["info"]["tags"] == _texts(("u", "3"))
    assert models.get(id)["data"]["params"] == _texts(("a", "1"), ("b", "2"))
    assert models.ask("DELETE", id, model_id=id) == (200, {})
    assert models.ask("DELETE", id) == (200, {})
    assert models.fault("GET", id)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert models.get(id, "?allow_deleted=true")["info"]["name"] == "forest"
    assert models.fault("PATCH", f"{id}/tags", tags=_texts(("t", "2")))[:2] == (
        400,
        "INVALID_PARAMETER_VALUE",
    )


@pytest.mark.parametrize(
    ("given", "status"),
    [("LOGGED_MODEL_PENDING", "LOGGED_MODEL_PENDING"), (0, "LOGGED_MODEL_STATUS_UNSPECIFIED"),
     ("LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_UPLOAD_FAILED"), (3, "LOGGED_MODEL_UPLOAD_FAILED"),
     ("2", "LOGGED_MODEL_READY")],
)  # fmt: skip
def test_a_status_is_a_name_or_a_number(models: Models, given: object, status: str) -> None:
    id = models.id()
    assert models.ask("PATCH", id, status=given)[1]["model"]["info"]["status"] == status


@pytest.mark.parametrize("given", ["READY", "", None, 4, -1, [], 1.5])
def test_what_is_no_status_is_refused(models: Models, given: object) -> None:
    status, code, message = models.fault("PATCH", models.id(), status=given)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "status" in message


def test_what_is_missing_or_wrong_is_refused(models: Models) -> None:
    refused = models.client.refused
    id = models.id()
    for path, fields, told in (
        ("/logged-models", {}, "required parameter 'experiment_id'"),
        ("/logged-models", {"experiment_id": ""}, "required parameter 'experiment_id'"),
        ("/logged-models", {"experiment_id": 0}, "Invalid value 0 for parameter 'experiment_id'"),
        ("/logged-models", {"experiment_id": "0", "name": "a/b"}, "Invalid model name"),
        ("/logged-models", {"experiment_id": "0", "tags": [{"value": "1"}]}, "required parameter 'tags"),
        ("/logged-models", {"experiment_id": "0", "params": _texts(("a", "1"), ("a", "2"))}, "'a' twice"),
        ("/logged-models", {"experiment_id": "0", "params": "x"}, "Invalid value"),
        (f"/logged-models/{id}/params", {"params": [{"value": "1"}]}, "required parameter 'params"),
        ("/logged-models/search", {}, "required parameter 'experiment_ids'"),
        ("/logged-models/search", {"experiment_ids": [0]}, "Invalid value 0"),
        ("/logged-models/search", {"experiment_ids": ["0"], "filter": "colour = 'x'"}, "filter: found"),
        ("/logged-models/search", {"experiment_ids": ["0"], "page_token": "x"}, "page token"),
        ("/logged-models/search", {"experiment_ids": ["0"], "order_by": [{}]}, "field_name"),
        ("/logged-models/search", {"experiment_ids": ["0"], "order_by": [{"field_name": "x"}]}, "order_by"),
        ("/logged-models/search", {"experiment_ids": ["0"], "datasets": [{}]}, "dataset_name"),
        ("/logged-models/search",
         {"experiment_ids": ["0"], "order_by": [{"field_name": "metrics.a", "dataset_digest": "1"}]},
         "dataset_name"),
        ("/runs/outputs", {"run_id": "x"}, "required parameter 'models'"),
        ("/runs/outputs", {"models": []}, "required parameter 'run_id'"),
        ("/runs/log-model", {"run_id": "x"}, "required parameter 'model_json'"),
    ):  # fmt: skip
        status, code, message = refused(path, **fields)
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE"), path
        assert told in message
    for limit in (0, -1, 50_001):
        assert "max_results" in refused("/logged-models/search", experiment_ids=["0"], max_results=limit)[2]


def test_what_is_unknown_is_not_found(models: Models) -> None:
    run, id = models.client.run(), models.id()
    point = {"run_id": run, "key": "k", "value": 1.0, "timestamp": 1, "model_id": NOBODY}
    for found in (
        models.client.refused("/logged-models", experiment_id="77"),
        models.client.refused("/logged-models", experiment_id="0", source_run_id="0" * 32),
        models.client.refused("/runs/outputs", run_id="0" * 32, models=[{"model_id": id}]),
        models.client.refused("/runs/outputs", run_id=run, models=[{"model_id": NOBODY}]),
        models.client.refused("/runs/log-inputs", run_id=run, models=[{"model_id": NOBODY}]),
        models.client.refused("/runs/log-metric", **point),
        models.client.refused("/runs/log-batch", run_id=run, metrics=[point]),
        models.client.refused("/runs/log-model", run_id="0" * 32, model_json=_MODEL_JSON),
        models.fault("GET", NOBODY),
        models.fault("GET", f"{NOBODY}/artifacts/directories"),
        models.fault("DELETE", NOBODY),
        models.fault("PATCH", NOBODY, status="LOGGED_MODEL_READY"),
        models.fault("PATCH", f"{NOBODY}/tags", tags=_texts(("a", "1"))),
        models.fault("POST", f"{NOBODY}/params", params=_texts(("a", "1"))),
        models.fault("DELETE", f"{id}/tags/none"),
    ):
        assert found[:2] == (404, "RESOURCE_DOES_NOT_EXIST"), found
    assert "data" in models.client.get("/runs/get", run_id=run)["run"]
    assert "metrics" not in models.client.get("/runs/get", run_id=run)["run"]["data"]


_MODEL_JSON = json.dumps(
    {"run_id": "r", "artifact_path": "m", "utc_time_created": "x", "more": 1,
     "flavors": {"f": {"config": 1, "a": 2}}}
)  # fmt: skip


def test_deleted_experiments_and_runs_take_no_models(models: Models) -> None:
    post, refused = models.client.post, models.client.refused
    folder = post("/experiments/create", name="models of old")["experiment_id"]
    run, id = models.client.run(), models.id(experiment_id=folder)
    post("/experiments/delete", experiment_id=folder)
    post("/runs/delete", run_id=run)
    of_run = {"run_id": run, "models": [{"model_id": id}]}
    for found in (
        refused("/logged-models", experiment_id=folder),
        refused("/logged-models", experiment_id="0", source_run_id=run),
        refused("/runs/outputs", **of_run),
        refused("/runs/log-inputs", **of_run),
        refused("/runs/log-model", run_id=run, model_json=_MODEL_JSON),
    ):
        assert found[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert models.get(id)["info"]["experiment_id"] == folder


def test_limits_hold_at_their_ends(models: Models) -> None:
    made = models.make(
        name="n" * 500, model_type="t" * 500,
        tags=_texts(("k" * 255, "v" * 100_000)), params=_texts(("k" * 255, "")),
    )  # fmt: skip
    id = made["info"]["model_id"]
    many = _texts(*((f"p{each}", "1") for each in range(1_001)))
    assert models.ask("POST", f"{id}/params", params=many[:1_000])[0] == 200
    for path, fields in (
        ("/logged-models", {"name": "n" * 501}),
        ("/logged-models", {"model_type": "t" * 501}),
        ("/logged-models", {"tags": _texts(("k" * 256, ""))}),
        ("/logged-models", {"tags": _texts(("k", "v" * 100_001))}),
        ("/logged-models", {"params": _texts(("k" * 256, ""))}),
        (f"/logged-models/{id}/params", {"params": many}),
        ("/runs/outputs", {"run_id": "x", "models": [{"model_id": NOBODY}] * 1_001}),
        ("/runs/outputs", {"run_id": "x", "models": [{"model_id": NOBODY, "step": 1 << 63}]}),
    ):
        found = models.client.refused(path, **{"experiment_id": "0", **fields})
        assert found[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_metrics_reach_a_model_one_by_one_and_in_batches(models: Models) -> None:
    run, id = models.client.run(), models.id()
    post = models.client.post
    on_data = {"dataset_name": "d" * 500, "dataset_digest": "1" * 36}
    post("/runs/log-metric", run_id=run, key="acc", value=0.5, timestamp=7, step=1, model_id=id, **on_data)
    post("/runs/log-metric", run_id=run, key="acc", value=0.5, timestamp=7, step=1, model_id=id, **on_data)
    post("/runs/log-batch", run_id=run, metrics=[
        {"key": "bad", "value": "NaN", "timestamp": 7, "model_id": id},
        {"key": "far", "value": "Infinity", "timestamp": 7, "model_id": id},
        {"key": "run only", "value": 1, "timestamp": 7},
    ])  # fmt: skip
    of_all = {"timestamp": 7, "model_id": id, "run_id": run}
    assert models.get(id)["data"]["metrics"] == [
        {"key": "acc", "value": 0.5, "step": 1, **of_all, **on_data},
        {"key": "bad", "value": "NaN", "step": 0, **of_all},
        {"key": "far", "value": 1.7976931348623157e308, "step": 0, **of_all},
    ]
    of_run = models.client.get("/runs/get", run_id=run)["run"]["data"]["metrics"]
    assert [each["key"] for each in of_run] == ["acc", "bad", "far", "run only"]
    point = {"run_id": run, "key": "acc", "value": 1, "timestamp": 1, "model_id": id}
    for wrong in ({"dataset_name": "d" * 501}, {"dataset_digest": "1" * 37}):
        assert models.client.refused("/runs/log-metric", **point, **wrong)[0] == 400
        assert models.client.refused("/runs/log-batch", run_id=run, metrics=[{**point, **wrong}])[0] == 400


def test_a_batch_with_one_unknown_model_keeps_nothing(models: Models) -> None:
    run, id = models.client.run(), models.id()
    points = [{"key": "k", "value": 1, "timestamp": 1, "model_id": each} for each in (id, NOBODY)]
    assert models.client.refused("/runs/log-batch", run_id=run, metrics=points)[0] == 404
    assert "metrics" not in models.get(id)["data"]
    assert "metrics" not in models.client.get("/runs/get", run_id=run)["run"]["data"]


def test_runs_tell_what_models_they_read_and_made(models: Models) -> None:
    run, made, read = models.client.run(), models.id(), models.id()
    models.client.post("/runs/outputs", run_id=run, models=[{"model_id": made, "step": "4"}])
    models.client.post("/runs/outputs", run_id=run, models=[{"model_id": made, "step": 5}])
    models.client.post("/runs/outputs", run_id=run, models=[])
    models.client.post("/runs/log-inputs", run_id=run, models=[{"model_id": read}])
    for found in (
        models.client.get("/runs/get", run_id=run)["run"],
        models.client.post("/runs/search", experiment_ids=["0"], filter=f"run_id = '{run}'")["runs"][0],
    ):
        assert found["outputs"] == {"model_outputs": [{"model_id": made, "step": 5}]}
        assert found["inputs"] == {"model_inputs": [{"model_id": read}]}


def test_models_are_found_page_by_page(models: Models) -> None:
    folder = models.client.post("/experiments/create", name="models to find")["experiment_id"]
    run = models.client.run()
    ids = [models.id(experiment_id=folder, name=name) for name in "abc"]
    for id, value in zip(ids, (0.1, 0.3, 0.2), strict=True):
        models.client.post("/runs/log-metric", run_id=run, key="acc", value=value, timestamp=1, model_id=id,
                           dataset_name="test", dataset_digest="1")  # fmt: skip
    asked = {
        "experiment_ids": [folder, "x", "9" * 30],
        "filter": "metrics.acc > 0.15",
        "datasets": [{"dataset_name": "test"}],
        "order_by": [{"field_name": "metrics.acc", "ascending": False, "dataset_name": "test"}],
        "max_results": 1,
    }
    first = models.client.post("/logged-models/search", **asked)
    last = models.client.post("/logged-models/search", **asked, page_token=first["next_page_token"])
    assert [each["info"]["name"] for each in (*first["models"], *last["models"])] == ["b", "c"]
    assert "next_page_token" not in last
    assert models.client.post("/logged-models/search", experiment_ids=[]) == {}
    assert models.client.post("/logged-models/search", experiment_ids=[folder], filter="name = 'z'") == {}


def test_files_of_a_model_are_listed(models: Models) -> None:
    id = models.id()
    put = f"/api/2.0/mlflow-artifacts/artifacts/0/models/{id}/artifacts"
    for name in ("MLmodel", "data/model.txt"):
        assert models.client.ask("PUT", f"{put}/{name}", b"abc") == (200, {})
    status, listed = models.ask("GET", f"{id}/artifacts/directories")
    assert (status, listed["root_uri"]) == (200, f"mlflow-artifacts:/0/models/{id}/artifacts")
    assert listed["files"] == [
        {"path": "MLmodel", "is_dir": False, "file_size": 3},
        {"path": "data", "is_dir": True},
    ]
    below = models.ask("GET", f"{id}/artifacts/directories?artifact_directory_path=data")[1]
    assert below["files"] == [{"path": "data/model.txt", "is_dir": False, "file_size": 3}]
    found = models.fault("GET", f"{id}/artifacts/directories?artifact_directory_path=../x")
    assert found[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert "Invalid path" in found[2]
    far = models.client.post("/experiments/create", name="far", artifact_location="s3://b/x")["experiment_id"]
    assert models.fault("GET", f"{models.id(experiment_id=far)}/artifacts/directories")[0] == 400


def test_what_older_clients_tell_of_models_is_a_tag(models: Models) -> None:
    run = models.client.run()
    for _ in range(2):
        models.client.post("/runs/log-model", run_id=run, model_json=_MODEL_JSON)
    tags = {
        each["key"]: each["value"]
        for each in models.client.get("/runs/get", run_id=run)["run"]["data"]["tags"]
    }
    told = {"run_id": "r", "artifact_path": "m", "utc_time_created": "x", "flavors": {"f": {"a": 2}}}
    assert json.loads(tags["mlflow.log-model.history"]) == [told, told]
    for wrong in ("{", "[]", '"x"', "{}", "NaN", "[" * 100_000):
        found = models.client.refused("/runs/log-model", run_id=run, model_json=wrong)
        assert found[:2] == (400, "INVALID_PARAMETER_VALUE")
    models.client.post("/runs/set-tag", run_id=run, key="mlflow.log-model.history", value="none")
    assert models.client.refused("/runs/log-model", run_id=run, model_json=_MODEL_JSON)[0] == 400


def test_a_real_client_logs_loads_and_finds_models(
    site: tuple[noria.Project, str],  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
) -> None:
    project, url = site
    run, later, auto = mlflow_program(PROGRAMS / "logged_models.py", url).split()[-3:]
    versions = {each.ref: each for each in project.ledger.list_versions(kind="logged_model")}
    assert sorted(versions) == ["elsewhere:1", "logit:1", "model:1", "trees:1"]
    logit = versions["logit:1"]
    assert (logit.run, logit.facts["type"]) == (run, "classifier")
    assert logit.facts["files"] > 3
    edges = {(each.run, each.role) for each in project.ledger.list_edges(version=logit.id)}
    assert edges == {(run, "output"), (later, "input")}
    assert versions["model:1"].run == auto
    assert project.ledger.verify().ok
