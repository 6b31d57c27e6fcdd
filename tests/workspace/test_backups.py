"""A backup is of one instant, whatever is written meanwhile; what is restored is whole and verifies."""

# ruff: noqa: F811 - fixtures that are imported are named again by who asks for them

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.servers.s3 import s3_server, s3_url  # noqa: F401 - fixtures
from tests.workspace.backed_up import (  # noqa: F401 - fixtures among them
    check_whole,
    copied,
    fill_all,
    filled,
    ingest,
    kept,
    log_run,
    rows_of,
    sqlite_url,
)
from tests.workspace.moving_stores import make_project

import noria
from noria.errors import ConfigError, Conflict, NotFound, SourceError
from noria.records import RunState
from noria.storage.contract import blob_key
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore
from noria.workspace.moving.backup import backups_in
from noria.workspace.moving.checks import check_backups
from noria.workspace.moving.restoring_backup import restore_backup


def test_a_restored_project_is_what_it_was(filled: Path, kept: Path, tmp_path: Path) -> None:
    done = restore_backup(kept, tmp_path / "to")
    assert (done.database, done.tables, done.damaged) == ("sqlite:///.noria/noria.db", 1, ())
    assert rows_of(sqlite_url(tmp_path / "to")) == rows_of(sqlite_url(filled))
    check_whole(tmp_path / "to")
    with noria.open(tmp_path / "to") as project:
        assert (project.streams_path() / "clicks" / "0.log").read_bytes() == b"some frames"
        (event,) = project.ledger.list_events(verb="project.restored")
        assert event.payload["name"] == done.backup
        ingest(project, 3)  # it goes on
        assert project.lake.read("sales").num_rows == 9
        log_run(project, "after")
        assert RunDesk(project.ledger).start("0").info.experiment == "0"
    check_whole(tmp_path / "to")


@pytest.mark.soak  # a server of its own
def test_from_a_folder_to_an_object_store_and_back(
    filled: Path,
    kept: Path,
    tmp_path: Path,
    s3_url: str,
) -> None:
    restore_backup(kept, tmp_path / "store", storage=s3_url)
    check_whole(tmp_path / "store")
    with pytest.raises(Conflict, match="holds something already"):
        restore_backup(kept, tmp_path / "other", storage=s3_url)
    with noria.open(tmp_path / "store") as project:
        ingest(project, 3)
        log_run(project, "in the store")
        project.export(tmp_path / "exported")
        done = project.backup(tmp_path / "again")
        assert (done.damaged, done.linked) == ((), 0)
        assert project.backup(tmp_path / "again").copied == 1
    assert check_backups(tmp_path / "again").damaged == ()
    restore_backup(tmp_path / "again", tmp_path / "back", storage=".noria/storage")
    check_whole(tmp_path / "back")
    assert rows_of(sqlite_url(tmp_path / "back")) == rows_of(sqlite_url(tmp_path / "store"))
    with (make_project(tmp_path / "born") / "noria.toml").open("a") as settings:
        settings.write(f'[stores]\nstorage = "{s3_url}/born"\n')
    with noria.open(tmp_path / "born") as project:
        assert project.import_export(tmp_path / "exported").left == []
        assert project.backup(tmp_path / "of-born").damaged == ()
    restore_backup(tmp_path / "of-born", tmp_path / "here", storage=f"{s3_url}/here")
    check_whole(tmp_path / "here")


def test_from_sqlite_to_postgresql_and_back(
    filled: Path,
    kept: Path,
    tmp_path: Path,
    postgres_url: str,
) -> None:
    before = rows_of(sqlite_url(filled))
    restore_backup(kept, tmp_path / "server", database=postgres_url)
    assert rows_of(postgres_url) == before
    check_whole(tmp_path / "server")
    with noria.open(tmp_path / "server") as project:
        log_run(project, "on the server")  # numbers go on where the table ends
        middle = rows_of(postgres_url)
        project.backup(tmp_path / "again")
        with pytest.raises(Conflict, match="holds records already"):
            restore_backup(kept, tmp_path / "other", database=postgres_url)
    restore_backup(tmp_path / "again", tmp_path / "file", database="sqlite:///.noria/noria.db")
    assert rows_of(sqlite_url(tmp_path / "file")) == middle
    check_whole(tmp_path / "file")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_is_of_one_instant_while_others_write(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else None
    root = make_project(tmp_path / "from", url)
    stop = threading.Event()
    faults: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with noria.open(root) as project:
                count = 0
                while not stop.is_set():
                    count += 1
                    if number:
                        ingest(project, count)
                    else:
                        log_run(project, f"run {count}")
        except BaseException as error:
            faults.append(error)
            raise

    with noria.open(root) as project:
        ingest(project, 0)
        writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for each in writers:
            each.start()
        try:
            done = [project.backup(tmp_path / "kept") for _ in range(2)]
        finally:
            stop.set()
            for each in writers:
                each.join()
    assert faults == []
    assert all(each.damaged == () for each in done)
    for number, found in enumerate(done):
        to = tmp_path / f"to{number}"
        restore_backup(Path(found.folder), to, database="sqlite:///.noria/noria.db")
        check_whole(to)
        with noria.open(to) as project:
            batches = [
                event.payload["batch"] for event in project.ledger.list_events(verb="dataset.ingested")
            ]
            ingest(project, 10_000)  # whatever was committed and not on record is put there first
            again = [event.payload["batch"] for event in project.ledger.list_events(verb="dataset.ingested")]
            assert again[: len(batches)] == batches == list(range(len(batches)))
            assert project.lake.read("sales").num_rows == 3 * len(again)


def test_only_what_is_new_is_copied_and_old_ones_go(tmp_path: Path) -> None:
    root = fill_all(tmp_path / "from")
    with noria.open(root) as project:
        first = project.backup(tmp_path / "kept")
        second = project.backup(tmp_path / "kept")
        assert first.copied > 5
        assert second.copied == 1  # the segment that may have grown
        gone = next(each for each in project.artifacts.tree())
        project.artifacts.delete(gone.path)
        project.storage.part("artifacts").remove(gone.sha256)
        third = project.backup(tmp_path / "kept", keep=1)
    assert third.removed == (first.name, second.name)
    assert [each.name for each in backups_in(tmp_path / "kept")] == [third.name]
    assert not (tmp_path / "kept" / "blobs" / "parts" / "artifacts" / blob_key(gone.sha256)).exists()
    restore_backup(tmp_path / "kept", tmp_path / "to")
    check_whole(tmp_path / "to")


def test_backups_of_another_project_are_not_counted_among_ones_own(kept: Path, tmp_path: Path) -> None:
    before = backups_in(kept)
    with noria.open(make_project(tmp_path / "other")) as other:
        log_run(other, "another")
        with pytest.raises(Conflict, match="of another project"):
            other.backup(kept, keep=1)
    assert backups_in(kept) == before


def test_tables_of_others_in_the_same_database_are_left_alone(
    tmp_path: Path,
    postgres_url: str,
) -> None:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id int, words text[])"))
        connection.execute(text("INSERT INTO theirs VALUES (1, ARRAY['a'])"))
    with noria.open(make_project(tmp_path / "from", postgres_url)) as project:
        log_run(project, "first")
        project.backup(tmp_path / "kept")
        wanted = [each.id for each in project.ledger.list_runs()]
    restore_backup(tmp_path / "kept", tmp_path / "to", database="sqlite:///.noria/noria.db")
    with noria.open(tmp_path / "to") as project:
        assert [each.id for each in project.ledger.list_runs()] == wanted
    with engine.begin() as connection:
        assert connection.execute(text("SELECT id FROM theirs")).scalars().all() == [1]
    engine.dispose()


def test_a_backup_of_a_newer_noria_is_refused(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.workspace.moving.restoring_backup.newest_revision", lambda: "0004")
    with pytest.raises(SourceError, match=r"revision .*, this noria knows up to 0004"):
        restore_backup(kept, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_backup_of_an_older_noria_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_project(tmp_path / "from")
    with monkeypatch.context() as older:
        for module in ("database.store", "database.revisions"):
            older.setattr(f"noria.{module}.newest_revision", lambda: "0004")
        with noria.open(root) as project:
            desk = RunDesk(project.ledger)
            run = desk.start("0", name="old").info.id
            TrackingStore(project.ledger.database).log(run, params={"a": 1})
            project.ledger.finish_run(run, state=RunState.FINISHED)
            project.backup(tmp_path / "kept")
    done = restore_backup(tmp_path / "kept", tmp_path / "to")
    assert done.is_upgraded
    with noria.open(tmp_path / "to") as project:
        assert project.ledger.verify().ok
        assert TrackingStore(project.ledger.database).params(run) == {"a": 1}
    engine = create_engine(sqlite_url(tmp_path / "to"))
    assert "status" in {each["name"] for each in inspect(engine).get_columns("model_versions")}
    engine.dispose()


def test_a_folder_that_holds_something_else_is_left_alone(filled: Path, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with noria.open(filled) as project:
        with pytest.raises(Conflict, match=r"letter\.txt"):
            project.backup(tmp_path / "mine")
        with pytest.raises(ConfigError, match="own stores"):
            project.backup(filled / ".noria" / "backups")
        with pytest.raises(ConfigError, match="0 backups"):
            project.backup(tmp_path / "new", keep=0)
    with pytest.raises(Conflict, match=r"letter\.txt"):
        restore_backup(kept, tmp_path / "mine")
    with pytest.raises(Conflict, match="has recorded"):
        restore_backup(kept, filled)
    with pytest.raises(NotFound, match="name one that `noria backup FOLDER` made"):
        restore_backup(tmp_path / "mine", tmp_path / "to")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_checkout_of_the_project_takes_its_records_back(kept: Path, tmp_path: Path) -> None:
    root = make_project(tmp_path / "checkout")
    (root / "steps.py").write_text("")
    with pytest.raises(ConfigError, match=r"noria\.toml says storage"):
        restore_backup(kept, root, storage="elsewhere")
    restore_backup(kept, root)
    check_whole(root)
    with pytest.raises(Conflict, match="has recorded"):
        restore_backup(kept, root)


def test_every_table_of_the_database_is_in_a_backup(filled: Path, kept: Path) -> None:
    engine = create_engine(sqlite_url(filled))
    with engine.connect() as connection:
        names = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
    engine.dispose()
    (found,) = backups_in(kept)
    files = {each.stem for each in Path(found.folder, "database").glob("*.parquet")}
    assert names - files == {"alembic_version", "leases"}
