"""What is exported is open to anybody, and comes back as it was."""

import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.workspace.moving_stores import PLANS, differences, fill, make_project, register_native, tables

import noria
from noria.errors import ConfigError, Conflict, DigestMismatch, NotFound, SourceError
from noria.ledger.redacted import record_redacted
from noria.records import RunState, new_id
from noria.registry.cards import CardBook
from noria.tracking.experiments import ExperimentBook
from noria.tracking.run_desk import PARENT_TAG, RunDesk
from noria.tracking.store import TrackingStore
from noria.workspace.moving.exporting_records import MANIFEST, OF_RUNS, SCHEMAS

RUN = {
    "name": "first", "experiment": 0, "parent": None, "points": [(float("nan"), 1, 5), (2.0, 2, 6)],
    "param": 0.5, "tag": "ü", "file": "b:c?.txt", "state": RunState.FINISHED,
    "is_deleted": False, "with_model": True,
}  # fmt: skip
MODEL = {
    "versions": 3,
    "deleted": {2},
    "renamed": True,
    "is_deleted": False,
    "alias": 3,
    "text": "what it is",
}
PLAN: dict[str, Any] = {
    "runs": [RUN, {**RUN, "parent": 0, "experiment": 1, "is_deleted": True}],
    "models": [MODEL],
    "names": ["a", "b"],
    "deleted": True,
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project with something of everything."""
    root = make_project(tmp_path_factory.mktemp("filled") / "from")
    with noria.open(root) as project:
        runs = fill(project, PLAN)
        for seed in (1, 2):
            register_native(project, "late", seed=seed, run=runs[0])
        with project.start_run("held", experiment="own", params={"depth": 3}, seed=7) as run:
            run.log_metric("loss", float("inf"))
            run.log_text("by itself", "notes/a.txt")
    return root


@pytest.fixture(scope="module")
def exported(filled: Path) -> Path:
    folder = filled.parent / "exported"
    with noria.open(filled) as project:
        assert project.export(folder).left == ()
    return folder


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=PLANS)
def test_any_store_comes_back_equal_field_by_field(
    plan: dict[str, Any], database: str, request: pytest.FixtureRequest
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, url = Path(name), None
        if database == "postgresql":
            url = request.getfixturevalue("postgres_server").create(f"e{new_id()}")
        with noria.open(make_project(folder / "from")) as source:
            fill(source, plan)
            source.export(folder / "one")
        with noria.open(make_project(folder / "to", url)) as target:
            done = target.import_export(folder / "one")
            assert (done.left, done.runs) == ([], len(plan["runs"]))
            assert target.ledger.verify().ok
            target.export(folder / "two")
            again = target.import_export(folder / "one")
        assert differences(folder / "one", folder / "two") == []
        new = ("runs", "points", "files", "models", "model_versions", "logged_models", "experiments")
        assert [getattr(again, each) for each in new] == [0] * len(new)


def test_tables_are_read_without_noria(exported: Path) -> None:
    points = exported / "tables" / "points.parquet"
    assert duckdb.sql(f"SELECT count(*), max(value) FROM '{points}' WHERE name = 'loss'").fetchall() == [
        (1, float("inf"))
    ]
    assert polars.read_parquet(points).schema["recorded_at"] == polars.Datetime("us", "UTC")
    files = pq.read_table(exported / "tables" / "artifacts.parquet").to_pylist()
    note = next(each for each in files if each["path"].endswith("notes/a.txt"))
    assert (exported / note["file"]).read_text() == "by itself"
    odd = [each["file"] for each in files if each["path"].endswith("b:c?.txt")]
    assert odd and all(":" not in each and "?" not in each for each in odd)


def test_the_manifest_tells_every_table_with_its_digest(exported: Path) -> None:
    told = json.loads((exported / MANIFEST).read_text())
    assert set(told["tables"]) == set(SCHEMAS)
    assert {name: each["rows"] for name, each in told["tables"].items()} == {
        name: len(rows) for name, rows in tables(exported).items()
    }
    assert {sum(told["batches"][name]) - told["tables"][name]["rows"] for name in ("runs", *OF_RUNS)} == {0}


def test_models_come_back_as_versions_with_their_digests(
    exported: Path, tmp_path: Path, filled: Path
) -> None:
    with noria.open(make_project(tmp_path / "to")) as target, noria.open(filled) as source:
        target.import_export(exported)
        for number in (1, 2):
            was, now = (each.registry.get(f"late:{number}") for each in (source, target))
            assert (now.sha256, now.id, now.run, now.facts) == (was.sha256, was.id, was.run, was.facts)
            assert target.registry.load(now).sample_error() == 0
        assert [each.number for each in target.ledger.list_versions(kind="model", name="model 0")] == [
            1,
            2,
            3,
        ]


def test_cards_and_reports_come_with_their_models(exported: Path, tmp_path: Path, filled: Path) -> None:
    with noria.open(make_project(tmp_path / "to")) as target, noria.open(filled) as source:
        target.import_export(exported)
        cards = [CardBook(each.ledger, each.storage) for each in (source, target)]
        model = source.ledger.list_versions(kind="model", name="model 0")[0]
        was, now = (each.history(model) for each in cards)
        assert [(each.sections, each.by, each.at) for each in now] == [
            (each.sections, each.by, each.at) for each in was
        ]
        assert len(now) == 2
        report = source.ledger.list_versions(kind="explanation")[0]
        here = target.ledger.get_version_by_id(report.id)
        assert (here.run, target.registry.read_report(here)) == (report.run, b'{"of":0}')
        kept = CardBook(target.ledger, target.storage).put(model, {"Intended use": "ours"})
        assert target.import_export(exported).versions == 0
        assert CardBook(target.ledger, target.storage).find(model) == kept


def test_a_run_names_the_data_of_elsewhere_that_it_read(exported: Path, tmp_path: Path, filled: Path) -> None:
    with noria.open(make_project(tmp_path / "to")) as target, noria.open(filled) as source:
        target.import_export(exported)
        assert target.ledger.list_versions(kind="dataset") == []  # there are no rows of it here
        for was in source.ledger.list_versions(kind="dataset"):
            (now,) = (
                v for v in target.ledger.list_versions(kind="imported_dataset") if v.sha256 == was.sha256
            )
            assert now.facts["origin"]["version"] == was.id
            assert {(each.run, each.role) for each in target.ledger.list_edges(version=now.id)} == {
                (each.run, each.role) for each in source.ledger.list_edges(version=was.id)
            }
        assert target.backup(tmp_path / "kept").damaged == ()
        before = len(source.ledger.list_versions())
        target.export(tmp_path / "back")
        assert source.import_export(tmp_path / "back").versions == 0
        assert len(source.ledger.list_versions()) == before


def test_a_part_of_a_run_of_another_experiment_comes_without_it(tmp_path: Path) -> None:
    with noria.open(make_project(tmp_path / "from")) as project:
        desk, book = RunDesk(project.ledger), ExperimentBook(project.ledger)
        whole = desk.start(book.create("one").id).info.id
        part = desk.start(book.create("two").id, tags={PARENT_TAG: whole}).info.id
        assert project.export(tmp_path / "out", experiments=["two"]).rows["runs"] == 1
    with noria.open(make_project(tmp_path / "to")) as target:
        (left,) = target.import_export(tmp_path / "out").left
        assert (left.what, whole in left.why) == (f"run {part}", True)


def test_what_a_project_has_of_its_own_stays(exported: Path, tmp_path: Path) -> None:
    with noria.open(make_project(tmp_path / "to")) as target:
        with target.start_run("mine", experiment="own") as mine:
            mine.log_text("mine", "x.txt")
        register_native(target, "late", seed=5)
        first = target.registry.get("late:1").sha256
        done = target.import_export(exported)
        named = {each.what: each.why for each in done.left}
        assert "another model of this project has its name" in named["model late"]
        assert set(named) == {"model late", "2 edges"}
        assert target.registry.get("late:1").sha256 == first
        assert target.ledger.verify().ok
        runs = {each.name for each in target.ledger.list_runs(kind="experiment")}
        assert {"mine", "held", "first"} <= runs
        with pytest.raises(Conflict):
            target.export(exported)


def test_another_run_of_the_same_id_is_named_and_left(exported: Path, tmp_path: Path) -> None:
    id = tables(exported)["runs"][0]["id"]
    with noria.open(make_project(tmp_path / "to")) as target:
        from noria.ledger import runs as ledger_runs
        from noria.ledger.code import CodeState

        with target.ledger.change(None) as change:
            ledger_runs.start_run(
                change, kind="other", name="other", cause=None, parent=None, experiment=None, params=None,
                seed=None, key=None, code=CodeState("none", None, "unknown"), id=id, is_held=False,
            )  # fmt: skip
        dry, done = target.import_export(exported, dry_run=True), target.import_export(exported)
        assert f"run {id}" in {each.what for each in done.left}
        assert (dry.runs, dry.points) == (done.runs, done.points)
        assert target.ledger.get_run(id).kind == "other"
        assert target.ledger.verify().ok


def test_a_dry_run_tells_what_an_import_takes_and_takes_nothing(exported: Path, tmp_path: Path) -> None:
    with noria.open(make_project(tmp_path / "to")) as target:
        dry = target.import_export(exported, dry_run=True)
        assert target.ledger.list_events() == []
        done = target.import_export(exported)
    counted = (
        "experiments",
        "runs",
        "points",
        "params",
        "tags",
        "inputs",
        "files",
        "logged_models",
        "models",
        "versions",
    )
    for name in counted:
        assert getattr(dry, name) == getattr(done, name) > 0, name


def test_a_run_at_work_is_brought_up_to_date_by_a_later_export(tmp_path: Path) -> None:
    with (
        noria.open(make_project(tmp_path / "from")) as source,
        noria.open(make_project(tmp_path / "to")) as target,
    ):
        desk, store = RunDesk(source.ledger), TrackingStore(source.ledger.database)
        run = desk.start("0", name="long").info.id
        source.export(tmp_path / "one")
        target.import_export(tmp_path / "one")
        assert target.ledger.get_run(run).state is RunState.RUNNING
        store.put_tag(run, "late", "yes")
        desk.update(run, name="longer")
        source.ledger.finish_run(run, state=RunState.FINISHED, metrics={"a": 1.0})
        source.export(tmp_path / "two")
        done = target.import_export(tmp_path / "two")
        assert (done.runs, done.runs_continued, done.tags) == (0, 1, 2)
        assert target.ledger.get_run(run).metrics == {"a": 1.0}
        assert target.ledger.verify().ok
        target.export(tmp_path / "three")
    assert differences(tmp_path / "two", tmp_path / "three") == []


def test_chosen_experiments_come_alone(filled: Path, tmp_path: Path) -> None:
    with noria.open(filled) as project:
        done = project.export(tmp_path / "own", experiments=["own"])
        assert (done.rows["experiments"], done.rows["runs"], done.rows["models"]) == (1, 1, 0)
        with pytest.raises(NotFound, match="own"):
            project.export(tmp_path / "other", experiments=["owm"])
    with noria.open(make_project(tmp_path / "to")) as target:
        assert target.import_export(tmp_path / "own").runs == 1


def test_what_an_export_could_not_hold_is_named_by_it_and_by_who_takes_it(tmp_path: Path) -> None:
    with noria.open(make_project(tmp_path / "from")) as source:
        version = register_native(source, "late", seed=1)
        manifest = source.registry.read_manifest(version)
        part = next(iter(manifest.parts.values()))
        source.storage.remove(part.sha256)
        (left,) = source.export(tmp_path / "one").left
        assert part.sha256 in left[1]
    with noria.open(make_project(tmp_path / "to")) as target:
        done = target.import_export(tmp_path / "one")
        assert [each.what for each in done.left] == [left[0]]
        assert target.registry.get("late:1").sha256 == version.sha256


def test_what_was_taken_out_of_a_model_stays_out(tmp_path: Path) -> None:
    with noria.open(make_project(tmp_path / "from")) as source:
        version = register_native(source, "late", seed=1)
        data = source.storage.get(version.sha256)
        other = source.storage.put(data.replace(b'"seed":1', b'"seed":9'))
        record_redacted(source.ledger, version, other, why="asked for", cause=None)
        source.export(tmp_path / "one")
    with noria.open(make_project(tmp_path / "to")) as target:
        target.import_export(tmp_path / "one")
        assert target.registry.read_manifest(target.registry.get("late:1")).facts == {"seed": 9}


def test_an_export_is_of_one_instant_while_others_write(tmp_path: Path) -> None:
    with noria.open(make_project(tmp_path / "from")) as project:
        desk, store = RunDesk(project.ledger), TrackingStore(project.ledger.database)
        run = desk.start("0", name="long").info.id
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                with project.ledger.database.write():
                    store.put_tag(run, "count", str(number))
                    store.put_tag(desk.start("0", name=str(number)).info.id, "count", str(number))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(2):
                project.export(tmp_path / str(number))
        finally:
            stop.set()
            writer.join()
    for number in range(2):
        found = tables(tmp_path / str(number))
        counts = [
            int(each["value"]) for each in found["tags"] if each["name"] == "count" and each["run"] == run
        ]
        assert len(found["runs"]) - 1 == (counts[0] if counts else 0)


def _tampered(exported: Path, folder: Path) -> Path:
    subprocess.run(["cp", "-r", str(exported), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("what", ["tables/points.parquet", MANIFEST, "artifact"])
def test_a_changed_file_is_named(exported: Path, tmp_path: Path, what: str) -> None:
    folder = _tampered(exported, tmp_path / "changed")
    name = tables(exported)["artifacts"][0]["file"] if what == "artifact" else what
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with noria.open(make_project(tmp_path / "to")) as target, pytest.raises(DigestMismatch) as caught:
        target.import_export(folder)
    assert str(folder / name) in str(caught.value)


def _say(folder: Path, **changed: Any) -> None:
    """Write another manifest, with its digest."""
    from noria.records import sha256_hex

    told = {**json.loads((folder / MANIFEST).read_text()), **changed}
    body = json.dumps(told).encode()
    (folder / MANIFEST).write_bytes(body)
    (folder / f"{MANIFEST}.sha256").write_text(f"{sha256_hex(body)}  {MANIFEST}\n")


def test_a_newer_format_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = _tampered(exported, tmp_path / "newer")
    _say(folder, format=99)
    with noria.open(make_project(tmp_path / "to")) as target:
        with pytest.raises(SourceError, match="format 99, this noria knows up to 1"):
            target.import_export(folder)
        with pytest.raises(SourceError, match="is no export"):
            target.import_export(tmp_path)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "C:\\x", "a%2f..%2f..%2fb", "link/x"]
)
def test_a_file_that_leads_elsewhere_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    folder = _tampered(exported, tmp_path / "wrong")
    (folder / "link").symlink_to(tmp_path)
    told = json.loads((folder / MANIFEST).read_text())
    told["tables"]["points"]["file"] = name
    (tmp_path / "x").write_bytes((folder / "tables/points.parquet").read_bytes())
    _say(folder, tables=told["tables"])
    with noria.open(make_project(tmp_path / "to")) as target, pytest.raises(SourceError):
        target.import_export(folder)


def test_an_export_goes_neither_over_what_is_there_nor_into_the_stores(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "mine.txt").write_text("mine")
    with noria.open(filled) as project:
        with pytest.raises(Conflict, match="holds something already"):
            project.export(tmp_path / "held")
        with pytest.raises(ConfigError, match="own stores"):
            project.export(filled / ".noria" / "storage" / "export")
    assert [each.name for each in (tmp_path / "held").iterdir()] == ["mine.txt"]
