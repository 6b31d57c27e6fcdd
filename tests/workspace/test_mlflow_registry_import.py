"""Moving a registry in: what a real MLflow registered is the same when a real client reads it from noria."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.workspace.mlflow_registries import (
    TABLES,
    Registered,
    registered,  # noqa: F401 - a fixture
)
from tests.workspace.mlflow_stores import (
    PROGRAMS,
    differences,
    make_project,
    project,  # noqa: F401 - a fixture
    serving,
)
from tests.workspace.test_mlflow_import import copy_tables, rows_of

import noria
from noria.errors import NotFound
from noria.registry.catalogue import ModelCatalogue
from noria.workspace.mlflow.importing import MlflowImport

ODD, RENAMED = "Odd Name's 5% ü", "after @ work"
PROMPT = "1 prompts: they are not imported; they stay where they are"
_KILLED_IN = """
import os, signal, sys
import noria
from noria.registry.importing import RegistryImporter

root, url, place, number = sys.argv[1:]
original, calls = getattr(RegistryImporter, place), [0]

def counted(*arguments, **named):
    calls[0] += 1
    if calls[0] > int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)

setattr(RegistryImporter, place, counted)
with noria.open(root) as project:
    project.import_mlflow(url)
"""


def told_left(done: MlflowImport) -> list[str]:
    return [f"{each.what}: {each.why}" for each in done.left]


def test_a_registry_is_equal_field_by_field_and_predicts_the_same(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
) -> None:
    done = project.import_mlflow(registered.url)
    assert (done.registered_models, done.model_versions, done.runs, done.models) == (4, 12, 6, 5)
    assert [each.partition(": they are at")[0].partition(": there is")[0] for each in told_left(done)] == [
        f"files of {ODD}:4", f"files of {ODD}:5", f"files of {RENAMED}:1", PROMPT
    ]  # fmt: skip
    odd = f"models:/{ODD}"
    wanted = {
        "models:/late_arrival/1": "1", "models:/late_arrival/2": "2", "models:/late_arrival/5": "5",
        "models:/late_arrival@champion": "2", "models:/late_arrival/Staging": "5",
        f"{odd}/1": "by hand", f"{odd}/2": "by hand", f"{odd}/3": "by hand", f"{odd}/6": "2",
    }  # fmt: skip
    away = registered.files.with_name("away")
    registered.files.rename(away)  # noria has what was in it
    try:
        with serving(project) as url:
            found = json.loads(mlflow_program(PROGRAMS / "dump_registry.py", url))
            predict = PROGRAMS / "predict_registered.py"
            predicted = json.loads(mlflow_program(predict, url, json.dumps(registered.rows), *wanted))
    finally:
        away.rename(registered.files)
    assert differences(found, registered.told) == []
    assert predicted == {uri: registered.predictions[name] for uri, name in wanted.items()}


def test_versions_keep_their_numbers_in_the_ledger_too(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
) -> None:
    project.import_mlflow(registered.url)
    versions = project.ledger.list_versions(kind="model", name="late_arrival")
    assert [each.number for each in versions] == [1, 2, 3, 4, 5]
    shown = ModelCatalogue(project.ledger).get("late_arrival")
    latest = {each.number: each for each in shown.latest}
    assert latest.keys() == {1, 2, 5}
    newest = project.model("late_arrival:5")
    assert (newest.run, newest.facts["source"]) == (latest[5].run, latest[5].source)
    assert {"MLmodel", "requirements.txt"} <= project.registry.show(newest).parts.keys()
    assert [each.run for each in project.ledger.list_edges(version=newest.id)] == [newest.run]
    assert project.model(f"{ODD}:3").facts["files"] == project.model(f"{ODD}:1").facts["files"] > 2
    assert project.ledger.verify().ok


def test_a_second_import_of_a_registry_changes_nothing(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
) -> None:
    dry = project.import_mlflow(registered.url, dry_run=True)
    assert project.ledger.list_versions(kind="model") == []
    first = project.import_mlflow(registered.url)
    counted = ("registered_models", "model_versions", "models", "runs", "files", "left_count")
    assert [getattr(dry, each) for each in counted] == [getattr(first, each) for each in counted]
    before, seq = rows_of(project), project.ledger.list_events(newest_first=True, limit=1)[0].seq
    done = project.import_mlflow(registered.url)
    assert (done.registered_models, done.model_versions, told_left(done)) == (0, 0, [PROMPT])
    assert rows_of(project) == before
    assert [each.verb for each in project.ledger.list_events(after=seq)] == ["mlflow.imported"]


def test_what_was_registered_meanwhile_is_added_and_labels_follow_if_nobody_moved_them(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
    tmp_path: Path,
) -> None:
    store, catalogue = registered.copy(tmp_path / "copy"), ModelCatalogue(project.ledger)
    project.import_mlflow(store.url)
    catalogue.put_alias("late_arrival", "challenger", 1)
    catalogue.rename(ODD, "plain")
    catalogue.delete("without versions")
    store.change(
        "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source) "
        "SELECT name, 7, 5000, 6000, 'None', 's3://b/c' FROM registered_models",
        "UPDATE registered_model_aliases SET version = 7 WHERE name = 'late_arrival'",
        "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('late_arrival', 'fresh', 1)",
        "UPDATE model_versions SET current_stage = 'Archived' WHERE name = 'late_arrival' AND version = 2",
        "UPDATE registered_models SET name = 'renamed there' WHERE name LIKE 'after%'",
        "UPDATE model_versions SET name = 'renamed there' WHERE name LIKE 'after%'",
        "UPDATE registered_model_aliases SET name = 'renamed there' WHERE name LIKE 'after%'",
    )
    done = project.import_mlflow(store.url)
    assert (done.registered_models, done.model_versions) == (0, 3)
    assert [each for each in told_left(done) if not each.startswith("files of ")] == [
        "alias late_arrival@challenger: it names version 7 there; somebody let it name version 1 here",
        "1 versions of registered model 'without versions': it was deleted here",
        PROMPT,
    ]
    shown = catalogue.get("late_arrival")
    assert shown.aliases == {"champion": 7, "challenger": 1, "fresh": 1}
    catalogue.put_alias("late_arrival", "mine", 1)
    store.change("DELETE FROM registered_model_aliases WHERE name = 'late_arrival'")
    project.import_mlflow(store.url)  # what an import brought goes with it, what somebody said here does not
    assert catalogue.get("late_arrival").aliases == {"challenger": 1, "mine": 1}
    assert {each.number: each.stage.value for each in shown.latest}[2] == "Archived"
    assert catalogue.get("plain").latest[0].number == 7
    assert (catalogue.get(RENAMED).latest[0].number, catalogue.get(RENAMED).aliases) == (7, {"it": 1})
    with pytest.raises(NotFound):
        catalogue.get("without versions")
    assert project.ledger.verify().ok


@pytest.mark.parametrize(("place", "number"), [("take", 2), ("_take_version", 8)])
def test_an_import_that_was_killed_in_a_registry_goes_on(
    place: str,
    number: int,
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
    tmp_path: Path,
) -> None:
    root = make_project(tmp_path / "killed")
    command = [sys.executable, "-c", _KILLED_IN, str(root), registered.url, place, str(number)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    with noria.open(root) as killed:
        had = {each.name for each in killed.ledger.list_versions(kind="model")}
        assert 0 < len(had) < 3
        killed.import_mlflow(registered.url)
        project.import_mlflow(registered.url)
        assert rows_of(killed) == rows_of(project)
        assert killed.ledger.verify().ok


def test_a_registry_in_postgresql_is_read_and_written_alike(
    registered: Registered,  # noqa: F811
    postgres_server: Postgres,  # noqa: F811
    postgres_url: str,  # noqa: F811
    project: noria.Project,  # noqa: F811
    tmp_path: Path,
) -> None:
    source = postgres_server.create("mlflow_registry_source")
    copy_tables(registered.url, source, TABLES)
    with noria.open(make_project(tmp_path / "pg", postgres_url)) as there:
        done = there.import_mlflow(source)
        assert (done.registered_models, done.model_versions) == (4, 12)
        project.import_mlflow(registered.url)
        assert rows_of(there) == rows_of(project)
        again = there.import_mlflow(source)
        assert (again.registered_models, again.model_versions, again.left_count) == (0, 0, 1)
        assert there.ledger.verify().ok


def test_a_noria_gives_its_registry_over_http(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
    tmp_path: Path,
) -> None:
    project.import_mlflow(registered.url)
    with noria.open(make_project(tmp_path / "other")) as other:
        with serving(project) as url:
            done = other.import_mlflow(url)
        assert (done.registered_models, done.model_versions) == (4, 10)
        ids = [f"{ODD}:{number}" for number in (1, 2, 3, 6)]
        for each in ("late_arrival:5", *ids):
            mine, theirs = (opened.registry.show(opened.model(each)) for opened in (project, other))
            assert mine.parts == theirs.parts
        catalogues = [ModelCatalogue(each.ledger).get("late_arrival") for each in (project, other)]
        assert catalogues[0].aliases == catalogues[1].aliases


def test_what_cannot_be_taken_of_a_registry_is_named(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("do not copy")
    ModelCatalogue(project.ledger).create("without versions")
    store = registered.copy(tmp_path / "copy")
    store.change(
        "INSERT INTO registered_models (name, creation_time) VALUES ('a/b', 1)",
        "INSERT INTO registered_models (name, creation_time) VALUES ('never', 9000000000000000)",
        "INSERT INTO registered_models (name, creation_time) VALUES ('nul' || char(0), 1)",
        "UPDATE model_versions SET description = 'nul' || char(0) WHERE name LIKE 'late%' AND version = 1",
        "UPDATE model_versions SET current_stage = 'Unheard' WHERE name = 'late_arrival' AND version = 2",
        "UPDATE model_versions SET status = 'FAILED_REGISTRATION', status_message = 'why', user_id = 'ada' "
        "WHERE name = 'late_arrival' AND version = 5",
        f"UPDATE model_versions SET source = '{secret}', storage_location = '{secret}' WHERE version = 6",
        "UPDATE model_versions SET source = 'mlflow-artifacts:/../x/artifacts/y' WHERE source LIKE 's3:%7'",
    )
    dry = project.import_mlflow(store.url, dry_run=True)
    done = project.import_mlflow(store.url)
    told = "\n".join(told_left(done))
    assert dry.model_versions == done.model_versions
    for each in ("model version late_arrival:1: ", "model version late_arrival:2: "):
        assert each in "\n".join(told_left(dry))
    for each in (
        "registered model 'a/b': Invalid model name 'a/b'",
        "registered model 'never': 9000000000000000 ms since 1970 is no instant",
        "registered model 'nul\\x00': Invalid value for parameter 'name' supplied: it has a NUL",
        "registered model 'without versions': another model of this project has its name",
        "model version late_arrival:1: Invalid value for parameter 'description' supplied: it has a NUL",
        "model version late_arrival:2: Invalid Model Version stage: 'Unheard'",
        "alias late_arrival@champion: it names version 2, which is not here",
        f"files of {ODD}:6: the folder {secret} has no file MLmodel",
    ):
        assert each in told
    with project.ledger.database.read() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM artifacts WHERE path LIKE '%key'").scalar()
    assert kept == 0
    (shown,) = (each for each in ModelCatalogue(project.ledger).get("late_arrival").latest)
    assert (shown.number, shown.status, shown.status_message, shown.owner) == (
        5,
        "FAILED_REGISTRATION",
        "why",
        "ada",
    )
    assert project.ledger.verify().ok


def test_a_training_goes_on_with_the_numbers_of_an_imported_model(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
) -> None:
    project.import_mlflow(registered.url)
    with serving(project) as url:
        made = _register(url, "late_arrival", "s3://bucket/next")
    assert made["model_version"]["version"] == "6"
    assert project.model("late_arrival").number == 6


def test_a_version_of_elsewhere_whose_number_was_given_here_meanwhile_is_told(
    project: noria.Project,  # noqa: F811
    registered: Registered,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = registered.copy(tmp_path / "copy")
    project.import_mlflow(store.url)
    with serving(project) as url:
        _register(url, "late_arrival", "s3://bucket/mine")
    store.change(
        "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source) "
        "VALUES ('late_arrival', 6, 5000, 6000, 'Production', 's3://bucket/theirs')",
        "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('late_arrival', 'six', 6)",
    )
    before = project.models.label("late_arrival:6")
    for is_dry in (True, False):
        done = project.import_mlflow(store.url, dry_run=is_dry)
        told = told_left(done)
        assert "model version late_arrival:6: another version of this project has its number" in told
        assert done.model_versions == 0
    assert "alias late_arrival@six: it names version 6, which is not here" in told
    assert project.models.label("late_arrival:6") == before


def _register(url: str, name: str, source: str) -> Any:
    from urllib.request import Request, urlopen

    body = json.dumps({"name": name, "source": source}).encode()
    asked = Request(f"{url}/api/2.0/mlflow/model-versions/create", body, {"Content-Type": "application/json"})
    with urlopen(asked) as answer:
        return json.loads(answer.read())
