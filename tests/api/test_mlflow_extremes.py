"""MLflow's protocol at and beyond its limits, on both databases: what a client did wrong is never a 5xx."""

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_control_plane import SINCE
from tests.api.test_mlflow_tracking import API, Client
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.workspace.up.records import Role, UpState

BEYOND = 1 << 63


@pytest.fixture(params=["sqlite", "postgresql"])
def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """Give a client of a fresh project, on each kind of database."""
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    if request.param == "postgresql":
        monkeypatch.setenv("NORIA_STORES__DATABASE", request.getfixturevalue("postgres_url"))
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with noria.open(tmp_path) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        yield Client(int(plane.url.rpartition(":")[2]))


def _wide(length: int) -> str:
    """Give letters of four bytes each, which do not compress."""
    letters = random.Random(length)
    return "".join(chr(letters.randrange(0x20000, 0x2A000)) for _ in range(length))


def test_ids_of_experiments_that_are_none_find_nothing(client: Client) -> None:
    made = client.run()
    for path, found in (("/runs/search", "runs"), ("/logged-models/search", "models")):
        assert client.post(path, experiment_ids=["9" * 5_000, "x", "-1", "٣", ""]) == {}
        status, code, message = client.refused(path, experiment_ids=["0"] * 20_001)
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert "20001 of them, at most 20000" in message
        answer = client.post(path, experiment_ids=[str(number) for number in range(20_000)])
        assert [each["info"]["run_id"] for each in answer.get(found, [])] == (
            [made] if found == "runs" else []
        )


def test_numbers_beyond_64_bits_are_refused(client: Client) -> None:
    run = client.run()
    for asked in ({"start_step": BEYOND}, {"end_step": -BEYOND - 1}):
        status, answer = client.ask(
            "GET",
            f"{API}/metrics/get-history-bulk-interval?run_ids={run}&metric_key=a&"
            + "&".join(f"{name}={value}" for name, value in asked.items()),
            kind=None,
        )
        assert status == 400 and "64 bits" in answer["message"], answer
    for place in ([BEYOND, 0, "0x0p+0", False], [0, -BEYOND - 1, "0x0p+0", False]):
        token = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
        status, answer = client.ask(
            "GET", f"{API}/metrics/get-history?run_id={run}&metric_key=a&page_token={token}", kind=None
        )
        assert status == 400 and "no page token" in answer["message"], answer


def test_a_name_of_a_run_has_a_limit(client: Client) -> None:
    run = client.run(run_name=_wide(500))
    client.post("/runs/update", run_id=run, run_name=_wide(499))
    for path, fields in (
        ("/runs/create", {"experiment_id": "0", "run_name": _wide(501)}),
        ("/runs/update", {"run_id": run, "run_name": _wide(501)}),
        ("/runs/set-tag", {"run_id": run, "key": "mlflow.runName", "value": _wide(501)}),
    ):
        status, code, message = client.refused(path, **fields)
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert "501 characters" in message
    assert client.get("/runs/get", run_id=run)["run"]["info"]["run_name"] == _wide(499)


def test_names_that_an_index_cannot_hold_are_the_fault_of_the_client(client: Client) -> None:
    run = client.run()
    model = client.post("/logged-models", experiment_id="0")["model"]["info"]["model_id"]
    fields: dict[str, Any] = {
        "run_id": run, "key": _wide(250), "value": 1.0, "timestamp": 1, "model_id": model,
        "dataset_name": _wide(500), "dataset_digest": _wide(36),
    }  # fmt: skip
    status, answer = client.ask("POST", f"{API}/runs/log-metric", json.dumps(fields).encode())
    if status != 200:  # PostgreSQL: each at its limit, together beyond it
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert answer["message"].endswith("shorten it") and "INSERT" not in answer["message"]
        assert "data" not in client.get("/runs/get", run_id=run)["run"]["data"].get("metrics", {})


@pytest.mark.parametrize("what", ["models", "datasets"])
def test_what_a_run_read_comes_in_pieces(client: Client, what: str) -> None:
    dataset = {"dataset": {"name": "d", "digest": "1", "source_type": "x", "source": "s"}}
    many = [{"model_id": "m"} if what == "models" else dataset] * 1_001
    status, code, message = client.refused("/runs/log-inputs", run_id=client.run(), **{what: many})
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert f"at most 1000 {what}, this one has 1001" in message


def test_many_keys_to_sort_by_go_on_in_pages(client: Client) -> None:
    run, keys = client.run(), [f"k{number}" for number in range(16)]
    models = []
    for place in range(5):
        model = client.post("/logged-models", experiment_id="0", source_run_id=run)["model"]["info"]
        points = [
            {"key": key, "value": float(place), "timestamp": 1, "model_id": model["model_id"]} for key in keys
        ]
        client.post("/runs/log-batch", run_id=run, metrics=points)
        models.append(model["model_id"])
        for _ in range(2):
            client.post("/runs/log-batch", run_id=client.run(), metrics=points[: 15 + place % 2])
    order = [{"field_name": f"metrics.{key}", "ascending": False} for key in keys]
    found = _all_pages(client, "/logged-models/search", "models", order_by=order)
    assert [each["info"]["model_id"] for each in found] == models[::-1]
    asked = [f"metrics.{key} DESC" for key in keys]
    found = _all_pages(client, "/runs/search", "runs", order_by=asked)
    assert len(found) == 11
    assert len({each["info"]["run_id"] for each in found}) == 11


def _all_pages(client: Client, path: str, what: str, **asked: Any) -> list[Any]:
    found, token = [], ""
    while True:
        answer = client.post(path, experiment_ids=["0"], max_results=2, page_token=token, **asked)
        found += answer[what]
        token = answer.get("next_page_token", "")
        if not token:
            return found


@pytest.mark.parametrize(
    "place",
    [
        "mlflow-artifacts:/../../etc",
        "mlflow-artifacts:/a/%2e%2e",
        "mlflow-artifacts://elsewhere:5000/a",
        "s3://" + "x" * 1_000,
    ],
)
def test_a_place_of_files_that_can_be_none_is_refused(client: Client, place: str) -> None:
    status, code, message = client.refused("/experiments/create", name="e", artifact_location=place)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "Invalid artifact location" in message


def test_places_of_files_are_taken(client: Client) -> None:
    for number, place in enumerate(
        ["mlflow-artifacts:/night/", "s3://bucket/x", "file:///a", "mlflow-artifacts:/"]
    ):
        id = client.post("/experiments/create", name=str(number), artifact_location=place)["experiment_id"]
        shown = client.get("/experiments/get", experiment_id=id)["experiment"]["artifact_location"]
        assert shown == (place.rstrip("/") if number < 3 else f"mlflow-artifacts:/{id}")


def test_an_answer_does_not_repeat_all_that_was_asked(client: Client) -> None:
    _, _, message = client.refused("/runs/delete-tag", run_id=client.run(), key="\n" * 100_000)
    assert len(message) <= 4_000


def test_the_name_of_an_experiment_that_is_not_there_names_no_other(client: Client) -> None:
    client.post("/experiments/create", name="nights")
    status, answer = client.ask("GET", f"{API}/experiments/get-by-name?experiment_name=night", kind=None)
    assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert answer["message"].startswith("Could not find experiment with name 'night'")


def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    run, much = client.run(), "x" * (4 << 20)
    status, code, message = client.refused("/runs/set-tag", run_id=run, key="a", value=much)
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "larger than 4194304 bytes" in message
    dataset = {"name": "d", "digest": "1", "source_type": "x", "source": "s", "profile": much}
    client.post("/runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])
