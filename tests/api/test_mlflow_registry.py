"""Registered models over MLflow's protocol: on the wire, and by a real client."""

import json
import os
import subprocess
import sys
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.test_mlflow_client import PROGRAMS, site  # noqa: F401 - a fixture
from tests.api.test_mlflow_tracking import API, Client, client, served  # noqa: F401 - fixtures
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture

import noria

MODELS, VERSIONS = "/registered-models", "/model-versions"
TAKEN = (400, "RESOURCE_ALREADY_EXISTS")
INVALID = (400, "INVALID_PARAMETER_VALUE")
UNKNOWN = (404, "RESOURCE_DOES_NOT_EXIST")


def _change(client: Client, method: str, path: str, **fields: Any) -> Any:  # noqa: F811
    status, answer = client.ask(method, API + path, json.dumps(fields).encode())
    assert status == 200, answer
    return answer


def _refused(client: Client, method: str, path: str, fields: dict[str, Any]) -> tuple[int, str, str]:  # noqa: F811
    if method == "GET":
        status, answer = client.ask(method, f"{API}{path}?{urlencode(fields, doseq=True)}", kind=None)
    else:
        status, answer = client.ask(method, API + path, json.dumps(fields).encode())
    assert set(answer) == {"error_code", "message"}
    return status, answer["error_code"], answer["message"]


def _told(project: noria.Project, *words: str) -> str:
    command = [sys.executable, "-m", "noria", *words, "--project", str(project.root)]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _model(client: Client, name: str, versions: int = 0) -> None:  # noqa: F811
    client.post(f"{MODELS}/create", name=name)
    for number in range(versions):
        client.post(f"{VERSIONS}/create", name=name, source=f"s3://bucket/{number}")


def test_objects_have_the_fields_that_clients_read_and_no_empty_ones(client: Client) -> None:  # noqa: F811
    made = client.post(f"{MODELS}/create", name="a", description="d", tags=[{"key": "k", "value": "v"}])
    model = made["registered_model"]
    assert set(model) == {"name", "creation_timestamp", "last_updated_timestamp", "description", "tags"}
    assert model["tags"] == [{"key": "k", "value": "v"}]
    version = client.post(f"{VERSIONS}/create", name="a", source="s3://b/x", run_link="http://x")
    assert set(version["model_version"]) == {
        "name", "version", "creation_timestamp", "last_updated_timestamp", "current_stage", "source",
        "status", "run_id", "run_link", "description"}  # fmt: skip
    assert version["model_version"]["version"] == "1"
    assert client.post(f"{MODELS}/alias", name="a", alias="best", version="1") == {}
    found = client.get(f"{MODELS}/get", name="a")["registered_model"]
    assert found["aliases"] == [{"alias": "best", "version": "1"}]
    assert found["latest_versions"][0]["aliases"] == ["best"]
    one = client.get(f"{VERSIONS}/get", name="a", version="1")
    assert client.get(f"{MODELS}/alias", name="a", alias="best") == one
    assert client.get(f"{VERSIONS}/get-download-uri", name="a", version="1") == {"artifact_uri": "s3://b/x"}
    latest = client.post(f"{MODELS}/get-latest-versions", name="a", stages=["none"])
    assert latest == client.get(f"{MODELS}/get-latest-versions", name="a")
    assert [each["version"] for each in latest["model_versions"]] == ["1"]
    assert client.post(f"{MODELS}/get-latest-versions", name="a", stages=["staging"]) == {}
    assert client.get(f"{MODELS}/search", filter="name = 'never'") == {}
    assert client.get(f"{VERSIONS}/search", filter="name = 'never'") == {}


@pytest.mark.parametrize(
    ("method", "path", "fields", "expected"),
    [
        ("POST", f"{MODELS}/create", {}, INVALID),
        ("POST", f"{MODELS}/create", {"name": ""}, INVALID),
        ("POST", f"{MODELS}/create", {"name": " "}, INVALID),
        ("POST", f"{MODELS}/create", {"name": 3}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "a/b"}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "a\0b"}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "x" * 257}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "y", "tags": [{"key": "k" * 251}]}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "y", "tags": [{"value": "v"}]}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "y", "description": "\0"}, INVALID),
        ("POST", f"{MODELS}/create", {"name": "known"}, TAKEN),
        ("POST", f"{MODELS}/rename", {"name": "known", "new_name": "other"}, TAKEN),
        ("POST", f"{MODELS}/rename", {"name": "known"}, INVALID),
        ("POST", f"{MODELS}/rename", {"name": "never", "new_name": "z"}, UNKNOWN),
        ("PATCH", f"{MODELS}/update", {"name": "never"}, UNKNOWN),
        ("DELETE", f"{MODELS}/delete", {"name": "never"}, UNKNOWN),
        ("POST", f"{MODELS}/get-latest-versions", {"name": "never"}, UNKNOWN),
        ("POST", f"{MODELS}/get-latest-versions", {"name": "known", "stages": ["x"]}, INVALID),
        ("POST", f"{MODELS}/set-tag", {"name": "known", "key": "k", "value": "v" * 100_001}, INVALID),
        ("POST", f"{MODELS}/set-tag", {"name": "never", "key": "k"}, UNKNOWN),
        ("POST", f"{MODELS}/alias", {"name": "known", "alias": "v1", "version": "1"}, INVALID),
        ("POST", f"{MODELS}/alias", {"name": "known", "alias": "a b", "version": "1"}, INVALID),
        ("POST", f"{MODELS}/alias", {"name": "known", "alias": "a", "version": "x"}, INVALID),
        ("POST", f"{MODELS}/alias", {"name": "known", "alias": "a", "version": 1}, INVALID),
        ("POST", f"{MODELS}/alias", {"name": "known", "alias": "a", "version": "9"}, UNKNOWN),
        ("POST", f"{VERSIONS}/create", {"name": "never", "source": "s3://b/x"}, UNKNOWN),
        ("POST", f"{VERSIONS}/create", {"name": "known"}, INVALID),
        ("POST", f"{VERSIONS}/create", {"name": "known", "source": "/etc/passwd"}, INVALID),
        ("POST", f"{VERSIONS}/create", {"name": "known", "source": "s3://b/%2e%2e/x"}, INVALID),
        ("POST", f"{VERSIONS}/create", {"name": "known", "source": "s3://b", "run_id": "r" * 257}, INVALID),
        ("POST", f"{VERSIONS}/transition-stage", {"name": "known", "version": "1", "stage": "live"}, INVALID),
        ("POST", f"{VERSIONS}/transition-stage", {"name": "known", "version": "7", "stage": "none"}, UNKNOWN),
        ("DELETE", f"{VERSIONS}/delete", {"name": "known", "version": "-1"}, UNKNOWN),
        ("DELETE", f"{VERSIONS}/delete", {"name": "known", "version": "1.0"}, INVALID),
        ("DELETE", f"{VERSIONS}/delete", {"name": "known", "version": "9" * 50}, UNKNOWN),
        ("PATCH", f"{VERSIONS}/update", {"name": "known", "version": "3"}, UNKNOWN),
        ("POST", f"{VERSIONS}/set-tag", {"name": "known", "version": "1", "key": ""}, INVALID),
        ("GET", f"{MODELS}/get", {"name": "never"}, UNKNOWN),
        ("GET", f"{MODELS}/get", {}, INVALID),
        ("GET", f"{MODELS}/alias", {"name": "known", "alias": "never"}, INVALID),
        ("GET", f"{MODELS}/alias", {"name": "never", "alias": "never"}, UNKNOWN),
        ("GET", f"{MODELS}/search", {"max_results": 0}, INVALID),
        ("GET", f"{MODELS}/search", {"max_results": 1_001}, INVALID),
        ("GET", f"{MODELS}/search", {"filter": "name = 'a' OR name = 'b'"}, INVALID),
        ("GET", f"{MODELS}/search", {"order_by": ["name SIDEWAYS"]}, INVALID),
        ("GET", f"{MODELS}/search", {"page_token": "e30="}, INVALID),
        ("GET", f"{VERSIONS}/search", {"max_results": 200_001}, INVALID),
        ("GET", f"{VERSIONS}/search", {"page_token": "?"}, INVALID),
        ("GET", f"{VERSIONS}/get", {"name": "known", "version": "x"}, INVALID),
        ("GET", f"{VERSIONS}/get-download-uri", {"name": "known", "version": "2"}, UNKNOWN),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_protocol(
    client: Client,  # noqa: F811
    method: str,
    path: str,
    fields: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    if client.ask("GET", f"{API}{MODELS}/get?name=known")[0] == 404:
        _model(client, "known", 1)
        _model(client, "other")
    status, code, told = _refused(client, method, path, fields)
    assert (status, code) == expected, told
    assert "INSERT" not in told
    assert len(told) < 1_000


def test_the_most_that_may_be_asked_for_is_answered(client: Client) -> None:  # noqa: F811
    _model(client, "most", 3)
    first = client.get(f"{VERSIONS}/search", filter="name = 'most'", max_results=2)
    assert [each["version"] for each in first["model_versions"]] == ["3", "2"]
    token = first["next_page_token"]
    rest = client.get(f"{VERSIONS}/search", filter="name = 'most'", max_results=2, page_token=token)
    assert [each["version"] for each in rest["model_versions"]] == ["1"]
    assert "next_page_token" not in rest
    assert client.get(f"{MODELS}/search", max_results=1_000)["registered_models"]
    assert client.get(f"{VERSIONS}/search", max_results=200_000)["model_versions"]
    long = {"key": "k" * 250, "value": "v" * 100_000}
    assert client.post(f"{MODELS}/set-tag", name="most", **long) == {}
    assert client.get(f"{MODELS}/get", name="most")["registered_model"]["tags"] == [long]
    assert _change(client, "DELETE", f"{MODELS}/delete-tag", name="most", key=long["key"]) == {}
    assert _change(client, "DELETE", f"{MODELS}/delete-tag", name="most", key="never") == {}
    assert _change(client, "DELETE", f"{MODELS}/alias", name="most", alias="never") == {}


_ENDPOINTS = [
    *(
        ("POST", f"{MODELS}/{each}")
        for each in ("create", "rename", "get-latest-versions", "set-tag", "alias")
    ),
    *(("DELETE", f"{MODELS}/{each}") for each in ("delete", "delete-tag", "alias")),
    *(("GET", f"{MODELS}/{each}") for each in ("get", "search", "alias", "get-latest-versions")),
    *(("POST", f"{VERSIONS}/{each}") for each in ("create", "transition-stage", "set-tag")),
    *(("DELETE", f"{VERSIONS}/{each}") for each in ("delete", "delete-tag")),
    *(("GET", f"{VERSIONS}/{each}") for each in ("get", "search", "get-download-uri")),
    *(("PATCH", f"{each}/update") for each in (MODELS, VERSIONS)),
]
_VALUES = st.one_of(
    st.sampled_from(["fuzzed", "1", "2", "Production", "champion", "name = 'a'", "models:/fuzzed/1", "\0"]),
    st.text(max_size=12),
    st.none(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.one_of(st.text(max_size=5), st.fixed_dictionaries({"key": st.text(max_size=3)})), max_size=3),
)
_FIELDS = [
    "name", "new_name", "version", "source", "run_id", "model_id", "tags", "key", "value", "alias", "stage",
    "stages", "archive_existing_versions", "filter", "order_by", "max_results", "page_token",
    "description"]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(_ENDPOINTS), st.dictionaries(st.sampled_from(_FIELDS), _VALUES))
def test_whatever_is_asked_is_answered_or_refused(
    client: Client,  # noqa: F811
    endpoint: tuple[str, str],
    fields: dict[str, Any],
) -> None:
    method, path = endpoint
    fields = {"name": "fuzzed", "version": "1"} | fields
    if client.ask("GET", f"{API}{MODELS}/get?name=fuzzed")[0] == 404:
        _model(client, "fuzzed", 2)
    if method == "GET":
        query = urlencode({name: value for name, value in fields.items() if value is not None}, doseq=True)
        status, answer = client.ask(method, f"{API}{path}?{query}", kind=None)
    else:
        status, answer = client.ask(method, API + path, json.dumps(fields).encode())
    assert status in {200, 400, 404}, answer
    if status != 200:
        assert set(answer) == {"error_code", "message"}


def test_a_file_of_a_version_is_sent_as_it_was_registered(client: Client) -> None:  # noqa: F811
    run = client.run()
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/MLmodel"
    for text in (b'"first"', b'"second"'):
        assert client.ask("PUT", path, text, kind="text/plain") == (200, {})
        if text == b'"first"':
            _model(client, "sealed")
            client.post(f"{VERSIONS}/create", name="sealed", source=f"runs:/{run}/model", run_id=run)
    assert client.ask("GET", path, kind=None) == (200, "second")

    def asked(**fields: str) -> tuple[int, Any]:
        return client.ask("GET", f"/model-versions/get-artifact?{urlencode(fields)}", kind=None)

    assert asked(name="sealed", version="1", path="MLmodel") == (200, "first")
    for path, expected in (("other", UNKNOWN), ("../x", INVALID), ("%2e%2e/x", INVALID), ("", INVALID)):
        status, answer = asked(name="sealed", version="1", path=path)
        assert (status, answer["error_code"]) == expected
    assert asked(name="sealed", version="2", path="MLmodel")[0] == 404


def test_a_day_of_registered_models(
    site: tuple[noria.Project, str],  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
) -> None:
    project, url = site
    run = mlflow_program(PROGRAMS / "registry.py", url).split()[-1]
    refs = [each.ref for each in project.registry.list_models()]
    assert refs == ["copied:1", "flights:1", "flights:2", "flights:3", "planes:1"]
    made = {each.version for each in project.ledger.list_edges(run=run) if each.role == "output"}
    assert {f"project/model/flights:{number}" for number in (1, 2, 3)} <= made
    files = project.registry.read_folder(project.registry.get("flights:3")).files
    assert "MLmodel" in files
    verbs = [each.verb for each in project.ledger.list_events(verb="model.*")]
    assert verbs.count("model.created") == 4
    assert {"model.renamed", "model.deleted", "model.alias_set", "model.alias_removed"} <= set(verbs)
    listed = _told(project, "model", "list")
    assert "registered from s3://bucket/model" in listed
    assert "MLmodel" in _told(project, "model", "show", "flights:3")
    assert json.loads(_told(project, "model", "show", "flights:1", "--json"))["details"]["signature"] is None
    assert "of 5 model versions have the digests on record" in _told(project, "doctor")
    assert project.ledger.verify().ok
