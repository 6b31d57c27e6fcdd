"""Clients that know nothing of noria ask a worker, and get what the model itself gives."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.servers.clients import RunClient, run_client  # noqa: F401
from tests.servers.mlflow_client import program_runner
from tests.serving.served import Asked, mixed, numeric, served, strings

PROGRAMS = Path(__file__).parent / "client_programs"
MODELS = ("numbers", "mixed", "strings")
TRITON = ("binary", "json", "json_in", "chosen", "pinned", "gzip", "deflate", "loaded_again")
TRITON_TOLD = ("live", "ready", "model_ready", "version_ready")
Told = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Asked]:
    folder = tmp_path_factory.mktemp("models")
    return {each.name: each for each in (numeric(folder), mixed(folder), strings(folder))}


@pytest.fixture(scope="module")
def addresses(models: dict[str, Asked], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as running:
        found = {
            name: running.enter_context(served(model, folder=folder / name)) for name, model in models.items()
        }
        yield {name: f"{each.host}:{each.port}" for name, each in found.items()}


@pytest.fixture(scope="module")
def described(
    models: dict[str, Asked], addresses: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a file that tells programs what to ask."""
    path = tmp_path_factory.mktemp("described") / "models.json"
    told = [
        {"name": name, "address": addresses[name], "columns": each.columns, "outputs": list(each.outputs)}
        for name, each in models.items()
    ]
    path.write_text(json.dumps(told))
    return path


@pytest.fixture(scope="module")
def triton(run_client: RunClient, described: Path) -> Told:  # noqa: F811
    return told(run_client("python", "-W", "ignore", PROGRAMS / "ask_triton.py", described))


@pytest.fixture(scope="module")
def kserve(run_client: RunClient, described: Path) -> Told:  # noqa: F811
    return told(run_client("python", "-W", "ignore", PROGRAMS / "ask_kserve.py", described))


@pytest.fixture(scope="module")
def mlflow(described: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    run = program_runner(tmp_path_factory.mktemp("mlflow") / "client")
    found: Told = json.loads(run(PROGRAMS / "ask_mlflow.py", "", str(described)))
    return found


def told(done: "subprocess.CompletedProcess[str]") -> Told:
    assert done.returncode == 0, done.stderr[-4000:]
    found: Told = json.loads(done.stdout.splitlines()[-1])
    return found


def given(told: Told, check: str) -> Any:
    assert "gave" in told[check], f"{check}: {told[check]['raised']}"
    return told[check]["gave"]


def assert_same(found: Mapping[str, Any], model: Asked) -> None:
    assert set(found) == set(model.outputs)
    for name, wanted in model.outputs.items():
        if isinstance(wanted[0], str):
            assert list(found[name]) == wanted
        else:
            np.testing.assert_allclose(np.array(found[name], dtype=float), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("check", TRITON)
def test_tritonclient_gets_the_models_answers(
    triton: Told, models: dict[str, Asked], name: str, check: str
) -> None:
    assert_same(given(triton, f"{name}/{check}"), models[name])


def test_tritonclient_sends_a_whole_matrix(triton: Told, models: dict[str, Asked]) -> None:
    assert_same(given(triton, "numbers/matrix"), models["numbers"])


@pytest.mark.parametrize("name", MODELS)
def test_tritonclient_learns_what_is_there(triton: Told, models: dict[str, Asked], name: str) -> None:
    assert all(given(triton, f"{name}/{check}") is True for check in TRITON_TOLD)
    assert {"binary_tensor_data", "model_repository"} <= set(given(triton, f"{name}/server")["extensions"])
    metadata = given(triton, f"{name}/metadata")
    assert (metadata["name"], metadata["versions"]) == (name, ["1"])
    assert metadata["platform"].startswith("noria_")
    takes = {each["name"]: (each["datatype"], each["shape"]) for each in metadata["inputs"]}
    assert takes == {each: (kind, [-1]) for each, (kind, _) in models[name].columns.items()}
    assert (
        list(models[name].outputs)
        == [each["name"] for each in metadata["outputs"]][: len(models[name].outputs)]
    )
    index = given(triton, f"{name}/index")
    assert [(each["name"], each["version"], each["state"]) for each in index] == [(name, "1", "READY")]
    echoed = given(triton, f"{name}/echoed")
    assert echoed == {"id": "asked-1", "model_name": name, "model_version": "1"}


@pytest.mark.parametrize("name", MODELS)
def test_tritonclient_is_told_why(triton: Told, name: str) -> None:
    refused, unknown = given(triton, f"{name}/refused"), given(triton, f"{name}/unknown")
    assert refused["status"] == "400"
    assert "nothing-like-it" in refused["message"] or "takes" in refused["message"]
    assert unknown["status"] == "404"
    assert "nobody" in unknown["message"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("check", ["v2_json", "v2_binary"])
def test_kserve_speaks_the_second_protocol(
    kserve: Told, models: dict[str, Asked], name: str, check: str
) -> None:
    for ready in ("v2_live", "v2_ready", "v2_model_ready"):
        assert given(kserve, f"{name}/{ready}") is True
    assert_same(given(kserve, f"{name}/{check}"), models[name])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("check", ["v1_named", "v1_lists"])
def test_kserve_speaks_the_first_protocol(
    kserve: Told, models: dict[str, Asked], name: str, check: str
) -> None:
    for ready in ("v1_live", "v1_model_ready"):
        assert given(kserve, f"{name}/{ready}") is True
    assert_same(by_output(given(kserve, f"{name}/{check}")["predictions"], models[name]), models[name])


@pytest.mark.parametrize("name", MODELS)
def test_kserve_asks_why(kserve: Told, models: dict[str, Asked], name: str) -> None:
    answer, outputs = given(kserve, f"{name}/v1_explain"), models[name].outputs
    wanted = outputs.get("score") or outputs["probability"]
    np.testing.assert_allclose(answer["predictions"], wanted, rtol=1e-9)
    assert [each["version"] for each in answer["explanations"]] == [1] * len(wanted)


@pytest.mark.parametrize("name", MODELS)
def test_mlflows_scoring_client_gets_the_models_answers(
    mlflow: Told, models: dict[str, Asked], name: str
) -> None:
    assert given(mlflow, f"{name}/ping") is None
    assert given(mlflow, f"{name}/version")
    assert_same(by_output(given(mlflow, f"{name}/invoke"), models[name]), models[name])
    assert given(mlflow, f"{name}/predictions")
    assert "400" in mlflow[f"{name}/refused"]["raised"]


def by_output(predictions: list[Any], model: Asked) -> dict[str, list[Any]]:
    """Give predictions, values or records, as columns."""
    if isinstance(predictions[0], dict):
        return {name: [each[name] for each in predictions] for name in model.outputs}
    return {next(iter(model.outputs)): predictions}


class Curl:
    """curl, with a body and options."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address, self._folder = address, folder

    def __call__(self, path: str, *options: str, body: bytes | None = None) -> tuple[int, bytes]:
        answer = self._folder / "answer"
        command = ["curl", "--silent", "--output", str(answer), "--write-out", "%{http_code}", *options]
        command += ["--data-binary", "@-"] if body is not None else []
        url = f"http://{self._address}{path}"
        done = subprocess.run([*command, url], input=body, capture_output=True, check=True, timeout=30)
        return int(done.stdout), answer.read_bytes()


@pytest.fixture(params=MODELS)
def asked(request: pytest.FixtureRequest, models: dict[str, Asked]) -> Asked:
    return models[request.param]


@pytest.fixture
def curl(asked: Asked, addresses: dict[str, str], tmp_path: Path) -> Curl:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install -y --no-install-recommends curl")
    return Curl(addresses[asked.name], tmp_path)


def rows_of(asked: Asked) -> list[dict[str, Any]]:
    columns = [values for _, values in asked.columns.values()]
    rows = [dict(zip(asked.columns, row, strict=True)) for row in zip(*columns, strict=True)]
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def test_curl_asks_by_named_fields(curl: Curl, asked: Asked) -> None:
    status, answer = curl(f"/models/{asked.name}/predict", body=json.dumps({"rows": rows_of(asked)}).encode())
    assert status == 200, answer
    found = json.loads(answer)["rows"]
    for name, wanted in asked.outputs.items():
        values = [list(each[name].values()) if isinstance(each[name], dict) else each[name] for each in found]
        assert_same({name: values}, Asked(asked.name, asked.served, {}, {name: wanted}))
    status, answer = curl(f"/models/{asked.name}/predict", body=json.dumps(rows_of(asked)[0]).encode())
    assert status == 200, answer
    assert json.loads(answer)["prediction_id"]


def test_curl_sends_csv_to_invocations(curl: Curl, asked: Asked) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asked.columns))
    writer.writeheader()
    writer.writerows(rows_of(asked))
    status, answer = curl("/invocations", "-H", "Content-Type: text/csv", body=text.getvalue().encode())
    assert status == 200, answer
    assert_same(by_output(json.loads(answer)["predictions"], asked), asked)
    status, answer = curl("/invocations", "-H", "Content-Type: image/png", body=b"x")
    assert status == 415, answer


def test_curl_gets_answers_compressed(curl: Curl, asked: Asked) -> None:
    body = json.dumps({"instances": rows_of(asked)}).encode()
    status, plain = curl(f"/v1/models/{asked.name}:predict", body=body)
    assert status == 200, plain
    status, inflated = curl(f"/v1/models/{asked.name}:predict", "--compressed", body=body)
    assert (status, json.loads(inflated)) == (200, json.loads(plain))


def test_no_generated_request_makes_the_server_fail(
    models: dict[str, Asked],
    tmp_path: Path,
    run_client: RunClient,  # noqa: F811
) -> None:
    with served(*models.values(), folder=tmp_path) as address:
        schemathesis(str(address), run_client)


def schemathesis(url: str, run_client: RunClient) -> None:  # noqa: F811
    limits = ("--max-examples", 3, "--seed", 7, "--no-shrink", "--generation-database", "none")
    done = run_client(
        "schemathesis", "run", f"{url}/openapi.json", "--url", url, "--checks", "not_a_server_error", *limits,
        "--phases", "examples,coverage,fuzzing", "--no-color", "--warnings", "off",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
