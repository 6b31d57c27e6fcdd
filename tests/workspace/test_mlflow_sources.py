"""Where an MLflow store may be: behind a server, with its files elsewhere; and what is none."""

import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.mlflow_client import RunProgram, mlflow_program  # noqa: F401 - a fixture
from tests.servers.mlflow_server import mlflow_server
from tests.workspace.mlflow_registries import (
    TABLES,
    Registered,
    registered,  # noqa: F401 - a fixture
)
from tests.workspace.mlflow_stores import (
    Filled,
    differences,
    filled,  # noqa: F401 - a fixture
    made,  # noqa: F401 - a fixture
    make_project,
    project,  # noqa: F401 - a fixture
    read_back,
    serving,
)
from tests.workspace.test_mlflow_import import rows_of

import noria
from noria.errors import ConfigError, SourceError, StoreError, StoreMissing
from noria.workspace.mlflow.importing import MlflowImport

PROMPT = "1 prompts: they are not imported; they stay where they are"
OTHERS = (
    "INSERT INTO registered_models (name) VALUES ('somebody')",
    "INSERT INTO registered_model_tags (name, key, value) "
    "VALUES ('somebody', 'mlflow.prompt.is_prompt', 'true')",
)


def test_a_server_is_read_like_its_database(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    registered: Registered,  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    add_registry(store, registered)
    with mlflow_server(store.url, store.folder) as url:
        done = project.import_mlflow(f"{url}/")
        assert (done.runs, done.files, done.source) == (9, 5, url)
        assert (done.registered_models, done.model_versions) == (4, 10)
        assert told(done).splitlines()[-1] == PROMPT
        again = project.import_mlflow(url)
        assert (again.runs_known, again.registered_models, told(again)) == (9, 0, PROMPT)
    assert differences(read_back(project, mlflow_program), filled.told) == []
    with noria.open(make_project(tmp_path / "other")) as other:
        other.import_mlflow(store.url)
        found, wanted = rows_of(project), rows_of(other)
    for table in ("registered_models", "model_tags", "model_aliases"):
        assert found[table] == wanted[table]
    for table in ("model_versions", "model_version_tags"):  # a server does not tell of what was deleted
        gone = ("late_arrival:3'", "late_arrival:4'")
        rows = [each for each in wanted[table] if not each[0].endswith(gone)]
        place = 4 if table == "model_versions" else None  # in folders of the server's machine, some of them
        assert [_without(each, place) for each in found[table]] == [_without(each, place) for each in rows]


def _without(row: tuple[Any, ...], place: int | None) -> tuple[Any, ...]:
    return tuple(each for number, each in enumerate(row) if number != place)


def add_registry(store: Filled, registered: Registered) -> None:  # noqa: F811
    """Register in a store what is registered in another."""
    with sqlite3.connect(store.database) as connection:
        connection.execute("ATTACH ? AS other", [str(registered.folder / "mlflow.db")])
        for table in TABLES:
            connection.execute(f"INSERT INTO {table} SELECT * FROM other.{table}")


def test_a_noria_is_taken_in_over_http(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    mlflow_program: RunProgram,  # noqa: F811
    tmp_path: Path,
) -> None:
    project.import_mlflow(filled.url)
    with noria.open(make_project(tmp_path / "other")) as other:
        with serving(project) as url:
            done = other.import_mlflow(url)
        assert (done.runs, done.files, done.left) == (9, 5, [])
        assert differences(read_back(other, mlflow_program), filled.told) == []


def change(store: Filled, *statements: str) -> None:
    with sqlite3.connect(store.database) as connection:
        for each in statements:
            connection.execute(each)


def told(done: MlflowImport) -> str:
    return "\n".join(f"{each.what}: {each.why}" for each in done.left)


@pytest.mark.parametrize(
    "scheme", ["mlflow-artifacts:/", "mlflow-artifacts://host:80/", "s3://bucket/place/"]
)
def test_files_that_are_elsewhere_come_from_a_copy(
    scheme: str,
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    with sqlite3.connect(store.database) as connection:
        (uri,) = connection.execute("SELECT artifact_uri FROM runs WHERE name = 'outer'").fetchone()
    place = Path(uri).parents[2]
    shutil.copytree(place, tmp_path / "files")
    for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
        change(store, f"UPDATE {table} SET {column} = replace({column}, '{place}/', '{scheme}')")
    without = project.import_mlflow(store.url)
    assert (without.files, without.left_count) == (0, 13)
    assert "--artifacts" in told(without) and scheme in told(without)
    done = project.import_mlflow(store.url, artifacts=tmp_path / "files")
    assert (done.files, done.runs_known) == (5, 9)
    assert all("has no files, or they are elsewhere" in each.why for each in done.left)
    (version,) = project.ledger.list_versions(kind="logged_model")  # it waited for its files
    assert version.facts["files"] == 1
    with pytest.raises(ConfigError, match="is no folder"):
        project.import_mlflow(store.url, artifacts=tmp_path / "none")


def test_no_link_is_followed(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    outer, inner, _ = store.runs
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("do not tell")
    for run in (outer, inner):
        (tmp_path / "files" / "1" / run).mkdir(parents=True)
    folder = tmp_path / "files" / "1" / outer / "artifacts"
    folder.mkdir()
    (folder / "fine.txt").write_text("fine")
    (folder / "key").symlink_to(secret / "key")
    (folder / "all").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    (folder / "back\\slash").write_text("no")
    (folder / os.fsdecode(b"raw\xff")).write_text("no")
    (tmp_path / "files" / "1" / inner / "artifacts").symlink_to(secret)
    change(
        store,
        f"UPDATE runs SET artifact_uri = '{secret}' WHERE name = 'broken'",
        "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/../secret/' || run_uuid || '/artifacts' "
        "WHERE name = 'killed'",
        f"UPDATE runs SET artifact_uri = '{tmp_path}/files/1/' || run_uuid || '/artifacts' "
        f"WHERE run_uuid IN ('{outer}', '{inner}')",
    )
    done = project.import_mlflow(store.url)
    paths = [each.path for each in project.artifacts.tree() if outer in each.path or inner in each.path]
    assert [each.rpartition("/")[2] for each in paths] == ["fine.txt"]
    for part in ("key: it is a symbolic link", "all: it is a symbolic link", "pipe: it is no plain file"):
        assert f"{outer}/{part}" in told(done)
    assert "it has a backslash" in told(done) and "it is no Unicode text" in told(done)
    assert f"its files are at {secret}, which does not end in" in told(done)
    assert all(b"do not tell" not in each.read_bytes() for each in project.state.rglob("*") if each.is_file())


def test_a_run_that_cannot_be_taken_is_named_and_the_others_are_taken(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    _, inner, _ = store.runs
    project.ledger.start_run("experiment", "mine", id=inner)
    change(
        store,
        f"UPDATE runs SET start_time = {1 << 62} WHERE name = 'broken'",
        "UPDATE runs SET run_uuid = '../up' WHERE name = 'killed'",
        f"UPDATE metrics SET timestamp = {1 << 62} WHERE key = 'tiny'",
    )
    done = project.import_mlflow(store.url)
    assert done.runs == 6
    assert f"run {inner}: another run of this project has its id" in told(done)
    assert "run '../up': its id can be none of a run" in told(done)
    assert "is no instant that a date has" in told(done)
    assert "1 points whose instant no database holds" in told(done)
    assert project.ledger.get_run(inner).name == "mine"


def test_the_command_tells_what_was_taken_and_what_was_not(
    filled: Filled,  # noqa: F811
    noria: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    store, root = filled.copy(tmp_path / "copy"), make_project(tmp_path / "shop")
    change(store, *OTHERS, "UPDATE runs SET run_uuid = '../up' WHERE name = 'killed'")
    dry = noria("import", "mlflow", store.url, "--dry-run", cwd=root)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout.startswith("Would take from sqlite:///")
    done = noria("import", "mlflow", store.url, cwd=root)
    assert done.stdout.startswith("Took from sqlite:///")
    assert "Not taken: 2." in done.stdout and "its id can be none of a run" in done.stdout
    again = json.loads(noria("import", "mlflow", store.url, "--json", cwd=root).stdout)
    assert (again["runs"], again["runs_known"], again["left_count"]) == (0, 8, 2)
    wrong = noria("import", "mlflow", "mlruns", cwd=root)
    assert wrong.returncode == 2
    assert "'mlruns' is no URL; write sqlite:///PATH/mlflow.db" in wrong.stderr


def test_what_is_no_store_is_refused(project: noria.Project, tmp_path: Path) -> None:  # noqa: F811
    other, text = tmp_path / "other.db", tmp_path / "text.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE pets (name)")
    text.write_text("this is no database at all, though it is long enough to be looked at as if it were one")
    with pytest.raises(SourceError, match="is no MLflow database: it has pets, wanted are experiments"):
        project.import_mlflow(f"sqlite:///{other}")
    with pytest.raises(StoreError, match="is not a database"):
        project.import_mlflow(f"sqlite:///{text}")
    with pytest.raises(StoreMissing, match="there is no file"):
        project.import_mlflow(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(StoreMissing, match="there is no file"):
        project.import_mlflow("sqlite://")
    with pytest.raises(ConfigError, match="mlflow server --backend-store-uri"):
        project.import_mlflow(str(tmp_path / "mlruns"))
    with pytest.raises(ConfigError, match="a database of mysql is not read"):
        project.import_mlflow("mysql+pymysql://root:secret@127.0.0.1/mlflow")
    with pytest.raises(ConfigError, match="leave `artifacts` out"):
        project.import_mlflow("http://127.0.0.1:1", artifacts=tmp_path)
    for wrong in ("http://", "http://127.0.0.1:port", "nonsense://host/place"):
        with pytest.raises(ConfigError):
            project.import_mlflow(wrong)
    assert project.ledger.list_events(verb="mlflow.imported") == []


def test_an_older_store_is_refused_with_its_revision(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    change(
        store,
        "DROP TABLE input_tags",
        "DROP INDEX idx_experiments_workspace_creation_time",
        "ALTER TABLE experiments DROP COLUMN creation_time",
        "UPDATE alembic_version SET version_num = '97727af70f4d'",
    )
    with pytest.raises(SourceError, match=r"revision 97727af70f4d, which lacks .*input_tags.* db upgrade"):
        project.import_mlflow(store.url)


def test_a_store_before_workspaces_is_taken(
    project: noria.Project,  # noqa: F811
    filled: Filled,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = filled.copy(tmp_path / "copy")
    change(store, "ALTER TABLE runs DROP COLUMN deleted_time")
    assert project.import_mlflow(store.url).runs == 9


def test_databases_that_are_away_are_told_without_their_password(project: noria.Project) -> None:  # noqa: F811
    with pytest.raises(StoreError, match="cannot be used") as caught:
        project.import_mlflow("postgresql://me:secret@127.0.0.1:1/mlflow")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        project.import_mlflow("http://me:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b"nothing here", "answers 404 'nothing here'; check that the URL"),
        (200, b"<html>hello</html>", "does not answer like an MLflow server"),
        (200, b"[1, 2]", "does not answer like an MLflow server"),
        (401, b"", "write the account into the URL"),
        (302, b"", "answers 302"),
        (500, b"{}", "answers 500"),
    ],
)
def test_a_server_that_is_none_is_refused(
    status: int,
    body: bytes,
    message: str,
    project: noria.Project,  # noqa: F811
) -> None:
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    for server in _listening(Handler):
        with pytest.raises(SourceError) as caught:
            project.import_mlflow(f"http://me:se%40cret@127.0.0.1:{server.server_port}/below")
        assert message in str(caught.value)
        assert "cret" not in str(caught.value)
        assert asked == ["Basic bWU6c2VAY3JldA=="]


def _listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
