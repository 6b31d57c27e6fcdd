"""Saved models of every kind as services: a real server for each, swaps, logs, and what is refused."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import duckdb
import numpy as np
import orjson
import pytest
import skops.io
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tests.workspace.light_models import LATE, MIXED, NUMBERS, save_models, trees

import noria
from noria.errors import (
    ConfigError,
    Conflict,
    LeaseHeld,
    NotFound,
    PortInUse,
    SourceError,
    StoreError,
)
from noria.registry.folders.writing import write_model_folder
from noria.serving.client import InferError
from noria.workspace.light.examples import fitting, read_example
from noria.workspace.light.folders import name_of, service_folder
from noria.workspace.light.listing import list_services, read_log
from noria.workspace.light.service import LightService
from noria.workspace.models.model_files import kind_of_file, read_model_file


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    MIXED.head(5).to_csv(folder / "rows.csv", index=False)
    MIXED.head(5).to_parquet(folder / "rows.parquet")
    (folder / "rows.json").write_text(MIXED.head(5).to_json(orient="records"))
    (folder / "rows.jsonl").write_text(MIXED.head(5).to_json(orient="records", lines=True))
    return folder


@pytest.fixture(scope="module")
def expected(repository: Path) -> dict[str, Any]:
    return save_models(repository)


@pytest.fixture(scope="module")
def served(repository: Path, expected: dict[str, Any]) -> Iterator[LightService]:
    """Give the service of trees that tests ask which change nothing."""
    with noria.light(repository / "trees.txt", port=0) as service:
        yield service


@pytest.fixture
def trees_file(repository: Path, expected: dict[str, Any], tmp_path: Path) -> Path:
    return Path(shutil.copy(repository / "trees.txt", tmp_path / "trees.txt"))


@pytest.mark.parametrize(
    "name", ["trees.txt", "categories.txt", "grown.json", "classes.ubj", "pipeline.skops", "pipeline.joblib"]
)
def test_a_saved_model_answers_as_its_library(
    repository: Path,
    expected: dict[str, Any],
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trusts = name.endswith("joblib")
    with noria.light(repository / name, folder=tmp_path, port=0, trust_pickle=trusts) as service:
        named = list(service.columns)
        rows = MIXED if named == ["a", "b", "c"] else NUMBERS if named == ["a", "b"] else NUMBERS.to_numpy()
        answers = service.predict(rows)
        if name == "classes.ubj":
            found = [list(each["probability"].values()) for each in answers]
        else:
            found = [each["score"] for each in answers]
        np.testing.assert_allclose(found, expected[name], rtol=1e-6)
        assert set(service.predict(service.example())) >= {"prediction_id", "release", "version"}
        assert service.predictions().num_rows == len(rows) + 1
    assert ("is a pickle: code of its writer runs" in caplog.text) == trusts


def test_an_onnx_model_of_a_tensor_answers(
    repository: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    with noria.light(repository / "linear.onnx", folder=tmp_path, port=0) as service:
        assert service.columns == {"x": "number[3]"}
        assert service.predict({"x": [1.0, 2.0, 4.0]})["score"] == 2.0
        assert [each["score"] for each in service.predict(np.eye(3))] == [2.0, -1.0, 0.5]


def test_every_protocol_and_page_answers(served: LightService) -> None:
    with served._running.client() as client:
        assert client.get("/v2/models/trees")["inputs"][0]["name"] == "a"
        rows = {"dataframe_records": [{"a": 0.5, "b": 1}]}
        (score,) = client.post("/invocations", orjson.dumps(rows))["predictions"]
        assert score == served.predict({"a": 0.5, "b": 1})["score"]
    for page, word in (("/docs", b"trees"), ("/metrics", b"noria_")):
        with urlopen(served.address + page, timeout=10) as answer:
            assert word in answer.read()


def test_what_it_answered_is_in_files_that_duckdb_reads(served: LightService) -> None:
    id = served.predict({"a": 0.25, "b": 2})["prediction_id"]
    assert id in served.predictions()["prediction_id"].to_pylist()
    files = f"read_parquet('{served.log}/**/*.parquet')"
    query = f"select model, version, inputs.a from {files} where prediction_id = ?"
    assert duckdb.connect().execute(query, [id]).fetchall() == [("trees", 1, 0.25)]
    newest = read_log(served.folder.parent, None, limit=1)
    assert [each["prediction_id"] for each in newest] == [id]
    (listed,) = list_services(served.folder.parent)
    assert (listed.name, listed.model, listed.address) == ("trees", "trees:1", served.address)


def test_a_request_that_does_not_fit_is_told_what_does(served: LightService) -> None:
    with pytest.raises(InferError, match=r"there is no field 'z'; 'trees' wants a \(number\), b \(number\)"):
        served.predict({"z": 1.0})


def test_its_folder_is_a_project_that_git_leaves_out(served: LightService) -> None:
    assert served.folder.parent.name == ".noria-light"
    assert (served.folder.parent / ".gitignore").read_text() == "*\n"
    with noria.open(served.folder) as project:
        assert project.model("trees@production").ref == "trees:1"


def test_nobody_else_serves_the_same_from_there(served: LightService, repository: Path) -> None:
    with pytest.raises(LeaseHeld, match="the service 'trees'"):
        noria.light(repository / "trees.txt", port=0)
    assert served.predict({"a": 0.0, "b": 0})["version"] == 1


def test_another_model_of_that_name_leaves_what_answers_as_it_is(
    served: LightService, repository: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copy(repository / "grown.json", tmp_path / "trees.json"))
    with pytest.raises(LeaseHeld, match="the service 'trees'"):
        noria.light(other, folder=served.folder.parent, port=0)
    with noria.open(served.folder) as project:
        assert len(project.ledger.list_versions(kind="model", name="trees")) == 1
        assert project.model("trees@production").ref == "trees:1"


def test_a_changed_file_is_the_next_version_and_the_same_is_not(trees_file: Path) -> None:
    for count, version in ((4, 1), (7, 2), (4, 1)):
        trees(count).booster_.save_model(trees_file)
        with noria.light(trees_file, port=0) as service:
            assert (service.version.number, service.predict({"a": 0.5, "b": 1})["version"]) == (
                version,
                version,
            )
    (listed,) = list_services(trees_file.parent / ".noria-light")
    assert (listed.versions, listed.address, listed.predictions) == (2, None, 3)


def test_a_watched_file_is_swapped_without_a_failed_request(trees_file: Path) -> None:
    told: list[str] = []
    answers: list[dict[str, Any]] = []
    done = threading.Event()
    with noria.light(trees_file, port=0, watch=True, tell=told.append) as service, ExitStack() as stack:

        def ask() -> None:
            while not done.is_set():
                answers.append(service.predict({"a": 0.5, "b": 1}))
                time.sleep(0.01)

        asking = threading.Thread(target=ask)
        asking.start()
        stack.callback(asking.join)
        stack.callback(done.set)
        whole = trees_file.read_bytes()
        trees_file.write_bytes(whole[: len(whole) // 2])
        _until(lambda: any("is not taken, trees:1 goes on" in each for each in told))
        trees(7).booster_.save_model(trees_file)
        _until(lambda: bool(answers) and answers[-1]["version"] == 2)
        with noria.open(service.folder) as project:  # as `noria rollback` does
            project.rollback("trees@production", reason="worse")
        _until(lambda: answers[-1]["version"] == 1)
        assert asking.is_alive()  # none of them failed
    versions = [each["version"] for each in answers]
    assert sum(before != after for before, after in pairwise(versions)) == 2
    assert len(read_log(service.folder.parent, "trees", limit=0)) == len(answers)


def _until(holds: Any) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("rows", ["rows.csv", "rows.parquet", "rows.json", "rows.jsonl"])
def test_names_and_types_come_from_an_example(
    repository: Path, expected: dict[str, Any], rows: str, tmp_path: Path
) -> None:
    found = fitting(read_model_file(repository / "pipeline.skops"), read_example(repository / rows))
    assert found.to_pandas().round(9).equals(MIXED.head(5).round(9))


def test_a_model_that_knows_no_columns_is_served_by_an_example(tmp_path: Path) -> None:
    texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(MIXED.c * 2, LATE)
    skops.io.dump(texts, tmp_path / "texts.skops")
    with pytest.raises(ConfigError, match=r"texts\.skops does not say what columns it reads.*--example"):
        noria.light(tmp_path / "texts.skops", port=0)


def test_a_version_of_a_project_is_copied_with_its_bytes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "noria.toml").write_text('[project]\nname = "home"\n')
    with noria.open(home) as project:
        version = project.models.register(trees(), name="late", example=NUMBERS.head(3))
    with noria.light("late:1", project=home, port=0) as service:
        assert service.folder == home / ".noria-light" / "late"
        np.testing.assert_allclose(
            [each["score"] for each in service.predict(NUMBERS)], trees().predict_proba(NUMBERS)[:, 1]
        )
        assert service.version.facts["copied_from"] == version.ref
    with noria.light("late", project=home, port=0) as service:
        assert service.version.number == 1
    with pytest.raises(NotFound, match="late:7"):
        noria.light("late:7", project=home, port=0)


def test_a_folder_of_mlflow_gives_what_mlflow_gives(tmp_path: Path) -> None:
    folder = tmp_path / "logged"
    folder.mkdir()
    write_model_folder(trees(), folder, example=NUMBERS.head(4), serialization="skops")
    with noria.light(folder, port=0) as service:
        assert list(service.columns) == ["a", "b"]
        answer = service.predict({"a": 2.0, "b": 1})
        assert answer["version"] == 1
        kept = service.version
    with noria.light(folder, port=0) as service:
        assert service.version == kept
    (folder / "MLmodel").unlink()
    with pytest.raises(ConfigError, match="a folder without an MLmodel"):
        noria.light(folder, port=0)


def test_a_port_that_is_taken_is_told_and_another_is_found_where_none_was_chosen(
    trees_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            noria.light(trees_file, port=port)
        monkeypatch.setattr("noria.workspace.light.service._PORT", port)
        with noria.light(trees_file) as service:
            assert service.predict({"a": 0.0, "b": 0})["version"] == 1


def test_a_path_of_any_letters_is_served(trees_file: Path) -> None:
    odd = trees_file.parent / "späte Züge — 晚点"
    odd.mkdir()
    moved = trees_file.rename(odd / "modèle (2).txt")
    with noria.light(moved, port=0) as service:
        assert (service.name, service.predict({"a": 0.0, "b": 0})["version"]) == ("modele_2", 1)
    assert name_of(Path("晚点.onnx")) == "model"
    assert name_of(Path("2024.txt")) == "model_2024"


@pytest.mark.usefixtures("expected")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, "there is no model file .*gone.txt"),
        ("empty.txt", b"", "is empty; save it again"),
        ("cut.txt", "trees.txt", "LightGBM"),
        ("cut.json", "grown.json", "XGBoost"),
        ("cut.ubj", "classes.ubj", "XGBoost"),
        ("cut.onnx", "linear.onnx", "onnxruntime does not load the model"),
        ("cut.skops", "pipeline.skops", "skops archive"),
        ("cut.joblib", "pipeline.joblib", "cannot be read here"),
        ("notes.md", b"# notes\n", "ends with .md, which tells no model"),
        ("numbers.txt", b"1 2 3\n", "no text of LightGBM"),
        ("some.json", b'{"a": 1}', "XGBoost"),
    ],
)
def test_a_file_that_holds_no_model_is_told_why(
    repository: Path,
    expected: dict[str, Any],
    tmp_path: Path,
    name: str,
    content: str | bytes | None,
    message: str,
) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        whole = (repository / content).read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ConfigError, SourceError), match=message):
        noria.light(path, port=0, trust_pickle=True)


def test_a_pickle_is_loaded_only_where_it_is_trusted(repository: Path, expected: dict[str, Any]) -> None:
    path = repository / "pipeline.joblib"
    assert kind_of_file(path) == "pickle"
    with pytest.raises(ConfigError, match=r"is a pickle, which runs code.*--trust-pickle"):
        noria.light(path, port=0)


def test_a_model_of_a_library_that_is_not_here_is_told(tmp_path: Path) -> None:
    (tmp_path / "of_elsewhere.pkl").write_bytes(b"\x80\x04cnot_a_library.of_this_machine\nModel\n.")
    with pytest.raises(ConfigError, match=r"ModuleNotFoundError: .*not_a_library.*install them"):
        noria.light(tmp_path / "of_elsewhere.pkl", port=0, trust_pickle=True)


def test_an_example_that_does_not_fit_is_told_what_is_missing(trees_file: Path) -> None:
    with pytest.raises(SourceError, match="the example lacks 'a', which the model reads; it has b, z"):
        noria.light(trees_file, port=0, example={"b": [1], "z": [2]})
    with pytest.raises(SourceError, match=r"there is no example .*rows\.csv"):
        noria.light(trees_file, port=0, example=trees_file.parent / "rows.csv")


def test_a_folder_that_cannot_be_written_is_told(trees_file: Path) -> None:
    (trees_file.parent / "taken").write_text("")
    with pytest.raises(Conflict, match="taken is a file; name another folder"):
        noria.light(trees_file, port=0, folder=trees_file.parent / "taken")
    with pytest.raises(StoreError, match=r"cannot be written: .*name another folder"):
        noria.light(trees_file, port=0, folder="/proc/self/nowhere")


def test_a_name_and_a_service_that_are_none_are_told(trees_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'a/b' can be no service's name"):
        noria.light(trees_file, name="a/b")
    with pytest.raises(SourceError, match="no project in"):
        noria.light("late:1", project=tmp_path)
    with pytest.raises(NotFound, match="`noria light MODEL_FILE` makes one"):
        service_folder(tmp_path / ".noria-light", None)


def test_beyond_this_machine_it_answers_only_whom_its_settings_let_in(trees_file: Path) -> None:
    with pytest.raises(ConfigError, match="strangers") as refused:
        noria.light(trees_file, host="0.0.0.0", port=0)
    settings = trees_file.parent / ".noria-light" / "trees" / "noria.toml"
    assert str(settings.parent) in refused.value.__notes__[-1]
    settings.write_text(settings.read_text() + 'strangers = "allow"\n')
    with noria.light(trees_file, host="0.0.0.0", port=0) as service:
        assert service.predict({"a": 0.0, "b": 0})["version"] == 1
