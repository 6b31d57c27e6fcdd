"""What may be registered as the source of a version, and what a version of it consists of."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.registry.conftest import Shelf

from noria.errors import ConfigError, NotFound
from noria.records import sha256_hex
from noria.registry.catalogue_records import Stage
from noria.registry.formats import load_scorer
from noria.registry.sources import LoggedRoot, SourceRoots, checked_source

RUN, MODEL = "r1", "m-1"
ROOTS = SourceRoots(
    of_run={RUN: "mlflow-artifacts:/0/r1/artifacts", "local": "file:///data/0/local/artifacts"}.get,
    of_model={MODEL: LoggedRoot("mlflow-artifacts:/0/models/m-1/artifacts", "r2")}.get,
)
BELOW = "mlflow-artifacts:/0/r1/artifacts"
OF_MODEL = "mlflow-artifacts:/0/models/m-1/artifacts"


@pytest.mark.parametrize(
    ("source", "run", "model"),
    [
        ("runs:/r1/model", None, None),
        ("runs:/r1/model", "r2", None),
        ("runs:/r1/model", "r1", "m-1"),
        ("runs://r1/model", "r1", None),
        ("runs:/", "r1", None),
        ("runs:/r1/../r2", "r1", None),
        ("runs:/r1/%2e%2e/r2", "r1", None),
        ("runs:/r1/%252e%252e/r2", "r1", None),
        ("models:/m-1", None, None),
        ("models:/m-1", None, "m-2"),
        ("models:/m-2", None, "m-2"),
        ("models:/m-1", "r1", None),
        ("models://m-1", None, "m-1"),
        (f"{BELOW}/model", None, None),
        (f"{BELOW}/model", "r2", None),
        (f"{BELOW}/model", None, "m-1"),
        ("mlflow-artifacts:/0/r1/artifactsX", "r1", None),
        ("mlflow-artifacts:/0/r1", "r1", None),
        ("mlflow-artifacts:/", "r1", None),
        (f"{BELOW}/../../r2/artifacts", "r1", None),
        (f"{BELOW}/%2e%2e/%2e%2e/r2", "r1", None),
        (f"{BELOW}/a\\..\\b", "r1", None),
        (f"{BELOW}/a\0", "r1", None),
        (f"{BELOW}/a%00", "r1", None),
        (f"{BELOW}/.\t./x", "r1", None),
        ("mlflow-artifacts://elsewhere/0/r1/artifacts/model", "r1", None),
        ("MLFLOW-ARTIFACTS:/0/r2/artifacts", "r1", None),
        ("http://here/api/2.0/mlflow-artifacts/artifacts/0/r1/artifacts/model", "r1", None),
        ("https://here/api/2.0/mlflow%2dartifacts/artifacts/0/r2", None, None),
        ("/etc/passwd", None, None),
        ("/etc/passwd", "r1", None),
        ("file:///etc/passwd", "local", None),
        ("file:///data/0/local/artifacts/../../../etc", "local", None),
        ("model", "r1", None),
        ("C:\\models", "r1", None),
        ("", None, None),
        ("s3://bucket/../other", None, None),
        ("s3://bucket/%2E%2E/other", None, None),
        ("s3:bucket/x", None, None),
        ("http://[", None, None),
    ],
)
def test_a_source_that_leads_elsewhere_is_refused(source: str, run: str | None, model: str | None) -> None:
    with pytest.raises(ConfigError, match="Invalid model version source"):
        checked_source(source, run=run, logged_model=model, roots=ROOTS)


@pytest.mark.parametrize(
    ("source", "run", "model", "folder"),
    [
        ("runs:/r1/model", "r1", None, "0/r1/artifacts/model"),
        ("runs:/r1/a/b/", "r1", None, "0/r1/artifacts/a/b"),
        ("runs:/r1", "r1", None, "0/r1/artifacts"),
        ("runs:/unknown/model", "unknown", None, None),
        ("models:/m-1", None, "m-1", "0/models/m-1/artifacts"),
        (f"{BELOW}/größe x", "r1", None, "0/r1/artifacts/größe x"),
        (BELOW, "r1", None, "0/r1/artifacts"),
        (f"{OF_MODEL}/a", None, "m-1", "0/models/m-1/artifacts/a"),
        (f"{OF_MODEL}/a", "r9", "m-1", "0/models/m-1/artifacts/a"),
        ("file:///data/0/local/artifacts/m", "local", None, None),
        ("s3://bucket/a/b", None, None, None),
        ("s3://bucket/a+b", "anything", None, None),
        ("dbfs:/a", None, None, None),
        ("noria:/model/flights:3", None, None, None),
    ],
)
def test_any_other_source_passes(source: str, run: str | None, model: str | None, folder: str | None) -> None:
    found = checked_source(source, run=run, logged_model=model, roots=ROOTS)
    assert (found.source, found.folder) == (source, folder)
    assert found.run == (run or ("r2" if model else None))


@given(
    st.lists(
        st.sampled_from([".", "..", "%2e", "%25", "/", "\\", "a", "r2", "%2f", "%5c", "\0"]), max_size=12
    )
)
def test_no_text_leads_out_of_the_run(parts: list[str]) -> None:
    source = f"{BELOW}/{''.join(parts)}"
    try:
        found = checked_source(source, run=RUN, logged_model=None, roots=ROOTS)
    except ConfigError:
        return
    assert found.folder is not None
    assert f"{found.folder}/".startswith("0/r1/artifacts/")
    assert ".." not in found.folder.split("/")


def test_a_version_is_sealed_with_the_digests_of_its_files(shelf: Shelf) -> None:
    run = shelf.run("model/MLmodel", "model/data/model.pkl", "other.txt")
    shelf.models.create("flights")
    made = shelf.versions.register(
        "flights", f"runs:/{run}/model", run=run, description="first", run_link="http://x", tags={"a": "b"}
    )
    assert (made.number, made.run, made.location) == (1, run, f"runs:/{run}/model")
    assert (made.description, made.run_link, made.tags) == ("first", "http://x", {"a": "b"})
    version = shelf.registry.get("flights:1")
    manifest = shelf.registry.read_folder(version)
    assert sorted(manifest.files) == ["MLmodel", "data/model.pkl"]
    assert manifest.files["MLmodel"].sha256 == sha256_hex(b"model/MLmodel")
    assert manifest.files["MLmodel"].size_bytes == len("model/MLmodel")
    assert version.run == run
    assert [(each.version, each.role) for each in shelf.ledger.list_edges(run=run)] == [
        (version.id, "output")
    ]
    again = shelf.versions.register("flights", f"runs:/{run}/model", run=run)
    assert again.number == 2
    alone = shelf.versions.register("flights", f"mlflow-artifacts:/0/{run}/artifacts/other.txt", run=run)
    assert sorted(shelf.registry.read_folder(shelf.registry.get("flights:3")).files) == ["other.txt"]
    assert alone.number == 3
    assert shelf.ledger.verify().ok


def test_a_folder_is_listed_shown_and_checked_but_has_no_parts(shelf: Shelf) -> None:
    run = shelf.run("model/MLmodel")
    shelf.models.create("flights")
    shelf.versions.register("flights", f"runs:/{run}/model", run=run)
    version = shelf.registry.get("flights")
    (summary,) = shelf.registry.list_models()
    assert (summary.format, summary.metrics, summary.facts["source"]) == ("mlflow", {}, f"runs:/{run}/model")
    shown = shelf.registry.show(version)
    assert shown.signature is None
    assert sorted(shown.parts) == ["MLmodel"]
    assert shelf.registry.check(version) == 1
    for work in (shelf.registry.load, shelf.registry.read_manifest):
        with pytest.raises(ConfigError, match="a folder of MLflow, which has no parts of its own"):
            work(version)
    with pytest.raises(ConfigError, match=r"loaded by `project\.load_model`"):
        load_scorer("mlflow", b"")


def test_a_logged_model_and_its_run_are_found_by_a_version_of_it(shelf: Shelf) -> None:
    run = shelf.run()
    logged = shelf.logged.create("0", name="clf", source_run=run)
    shelf.put(f"0/models/{logged.id}/artifacts/MLmodel", "flavors")
    shelf.models.create("flights")
    made = shelf.versions.register("flights", f"models:/{logged.id}", logged_model=logged.id)
    assert (made.run, made.logged_model) == (run, logged.id)
    assert made.location == f"mlflow-artifacts:/0/models/{logged.id}/artifacts"
    assert sorted(shelf.registry.read_folder(shelf.registry.get("flights:1")).files) == ["MLmodel"]
    for source in (f"models:/{logged.id}/x", "models:/m-unknown"):
        with pytest.raises((ConfigError, NotFound)):
            shelf.versions.register("flights", source, logged_model="m-unknown")


def test_a_version_may_be_one_of_another_model(shelf: Shelf) -> None:
    run = shelf.run("model/MLmodel")
    shelf.models.create("flights")
    shelf.models.create("copy@home")
    shelf.versions.register("flights", f"runs:/{run}/model", run=run)
    shelf.made("flights")
    shelf.models.put_alias("flights", "champion", 1)
    shelf.versions.put_stage("flights", 1, Stage.STAGING)
    for source in ("models:/flights/1", "models:/flights@champion", "models:/flights/staging"):
        made = shelf.versions.register("copy@home", source)
        assert (made.source, made.run) == ("models:/flights/1", run)
        assert made.location == f"runs:/{run}/model"
        assert sorted(shelf.registry.read_folder(shelf.registry.get("copy~home")).files) == ["MLmodel"]
    made = shelf.versions.register("copy@home", "models:/copy@home/latest")
    assert made.source == "models:/copy@home/3"
    assert shelf.versions.register("copy@home", "models:/flights/latest").source == "models:/flights/2"
    for source, error in (
        ("models:/flights/3", NotFound),
        ("models:/flights@never", NotFound),
        ("models:/trains/1", NotFound),
        ("models:/flights/production", ConfigError),
        ("models:/flights/live", ConfigError),
        ("models:/flights/1/2", ConfigError),
        ("models:/flights/", ConfigError),
        ("models:/@champion", ConfigError),
    ):
        with pytest.raises(error):
            shelf.versions.register("copy@home", source)
    with pytest.raises(ConfigError, match="must match"):
        shelf.versions.register("copy@home", "models:/flights/1", run="another")


def test_files_are_found_whatever_they_are_called(shelf: Shelf) -> None:
    name = "größe %20 模型"
    run = shelf.run(f"{name}/MLmodel")
    shelf.models.create("flights")
    shelf.versions.register("flights", f"runs:/{run}/{name}", run=run)
    assert sorted(shelf.registry.read_folder(shelf.registry.get("flights:1")).files) == ["MLmodel"]
    other = shelf.run("plain x/MLmodel")
    shelf.versions.register("flights", f"runs:/{other}/{quote('plain x')}", run=other)
    assert sorted(shelf.registry.read_folder(shelf.registry.get("flights:2")).files) == ["MLmodel"]
