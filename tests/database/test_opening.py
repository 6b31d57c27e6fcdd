import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text

import noria.ledger.tables
import noria.pipelines.tables
import noria.registry.tables
import noria.tracking.tables
from noria.database import revisions, store
from noria.database.metadata import metadata
from noria.database.store import Database
from noria.errors import ConfigError, DiskFull, StoreError


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(f"sqlite:///{tmp_path}/noria.db")


def _count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM notes")).scalar_one())


@pytest.fixture
def notes(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE notes (note TEXT)"))
    return database


def _note(connection: Connection, note: str = "a") -> None:
    connection.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})


def test_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    ledger, tracking = noria.ledger.tables.runs, noria.tracking.tables.experiments
    pipelines, registry = noria.pipelines.tables.step_cache, noria.registry.tables.registered_models
    assert {each.metadata for each in (ledger, tracking, pipelines, registry)} == {metadata}
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_newest_revision_is_the_one_head_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(revisions.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [revisions.newest_revision()]


def test_opening_an_up_to_date_database_is_quick_and_loads_no_alembic(database: Database) -> None:
    code = """
import sys, time
from noria.database.store import Database
began = time.perf_counter()
Database.open(sys.argv[1])
print("alembic" in sys.modules, time.perf_counter() - began)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, database.url], capture_output=True, text=True, check=True
    )
    loaded, seconds = done.stdout.split()
    assert loaded == "False"
    assert float(seconds) < 0.5  # 0.01 measured on an idle machine


def test_the_folder_is_made_and_the_place_stays_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database.open("sqlite:///a/b/noria.db")
    monkeypatch.chdir("/")
    database.close()
    with database.read() as connection:
        assert revisions.current_revision(connection) == revisions.newest_revision()
    assert (tmp_path / "a" / "b" / "noria.db").is_file()


def test_a_database_of_a_newer_noria_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="upgrade noria"):
        Database.open(database.url)


def test_an_older_database_is_upgraded_in_place(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / "noria.db")
    raw.execute("CREATE TABLE mine (x INTEGER)")
    raw.close()
    database = Database.open(f"sqlite:///{tmp_path}/noria.db")
    with database.read() as connection:
        assert revisions.current_revision(connection) == revisions.newest_revision()
        assert connection.execute(text("SELECT count(*) FROM mine")).scalar_one() == 0


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://localhost/x", "nosuchdb://x", "sqlite://", "sqlite:///:memory:", ""]
)
def test_urls_that_name_no_usable_database_are_config_errors(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///PATH"):
        Database.open(url)


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "noria.db").write_text("these are not the bytes of a database, but they are enough\n" * 50)
    with pytest.raises(StoreError, match="not a database"):
        Database.open(f"sqlite:///{tmp_path}/noria.db")


def test_a_folder_in_the_place_of_the_file_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Database.open(f"sqlite:///{tmp_path}")


def test_a_file_in_the_place_of_the_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Database.open(f"sqlite:///{tmp_path}/folder/noria.db")


def test_an_error_rolls_everything_back(notes: Database) -> None:
    with pytest.raises(KeyboardInterrupt), notes.write() as connection:
        _note(connection)
        raise KeyboardInterrupt
    with notes.read() as connection:
        assert _count(connection) == 0


def test_an_inner_write_joins_the_outer_one(notes: Database) -> None:
    with pytest.raises(ZeroDivisionError), notes.write() as outer:
        with notes.write() as inner:
            assert inner is outer
            _note(inner)
        with notes.read() as reader:
            assert _count(reader) == 1
        raise ZeroDivisionError
    with notes.read() as connection:
        assert _count(connection) == 0


def test_a_joined_write_that_failed_cannot_be_committed_by_halves(notes: Database) -> None:
    with pytest.raises(RuntimeError, match="nothing is committed"), notes.write() as outer:
        _note(outer)
        try:
            with notes.write() as inner:
                _note(inner)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    with notes.write() as connection:
        assert _count(connection) == 0
        _note(connection)


def test_a_reader_sees_one_state_and_waits_for_nobody(notes: Database) -> None:
    with notes.read() as reader:
        assert _count(reader) == 0
        writer = threading.Thread(target=_write_one, args=(notes,))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert _count(reader) == 0
    with notes.read() as reader:
        assert _count(reader) == 1


def _write_one(database: Database) -> None:
    with database.write() as connection:
        _note(connection)


def test_threads_write_at_once(notes: Database) -> None:
    def write_many() -> None:
        for _ in range(25):
            _write_one(notes)

    threads = [threading.Thread(target=write_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with notes.read() as connection:
        assert _count(connection) == 200


def test_a_writer_waits_for_a_foreign_one(notes: Database) -> None:
    foreign = sqlite3.connect(notes.location, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.4, lambda: foreign.execute("COMMIT"))
    timer.start()
    began = time.monotonic()
    _write_one(notes)
    assert time.monotonic() - began > 0.3
    timer.join()
    foreign.close()


def test_a_busy_database_is_tried_again_when_one_wait_has_run_out(
    notes: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.database.store._BUSY_S", 0.05)
    impatient = Database.open(notes.url)
    foreign = sqlite3.connect(notes.location, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.5, lambda: foreign.execute("COMMIT"))
    timer.start()
    _write_one(impatient)
    timer.join()
    monkeypatch.setattr("noria.database.store._PATIENCE_S", 0.2)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process has been writing"):
        _write_one(impatient)
    foreign.execute("ROLLBACK")
    _write_one(impatient)
    foreign.close()


def test_a_full_disk_is_said_and_what_was_committed_stays(notes: Database) -> None:
    _write_one(notes)
    with notes.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DiskFull, match="free some"), notes.write() as connection:
        _note(connection, "x" * 100_000)
    with notes.write() as connection:
        assert _count(connection) == 1
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    with notes.write() as connection:
        _note(connection, "x" * 100_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here; SQLite's page limit is tested instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_database_that_fills_its_disk_says_so_and_stays_whole(small_disk: Path) -> None:
    database = Database.open(f"sqlite:///{small_disk}/noria.db")
    with database.write() as connection:
        connection.execute(text("CREATE TABLE notes (note TEXT)"))
    committed = 0
    with pytest.raises(DiskFull, match=r"noria\.db"):
        for _ in range(100):
            with database.write() as connection:
                _note(connection, "x" * 50_000)
            committed += 1
    with database.read() as connection:
        assert _count(connection) == committed > 0
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    database.close()


def test_a_database_on_a_disk_that_others_have_filled_says_so(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/noria.db"
    Database.open(url).close()
    with pytest.raises(OSError, match="No space"), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4_096)
    with pytest.raises(DiskFull, match="free some"):  # not even its side files find room
        Database.open(url)
    with pytest.raises(DiskFull, match="free some"):
        Database.open(f"sqlite:///{small_disk}/other/noria.db")
    (small_disk / "ballast").unlink()
    Database.open(url).close()


def test_a_damaged_database_is_a_store_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/noria.db"
    Database.open(url).close()
    size = (tmp_path / "noria.db").stat().st_size
    with (tmp_path / "noria.db").open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(size - 100))
    with pytest.raises(StoreError, match="damaged"):
        Database.open(url)


def test_a_wrong_statement_stays_a_fault_of_the_code(database: Database) -> None:
    from sqlalchemy.exc import OperationalError

    with pytest.raises(OperationalError, match="no such table"), database.read() as connection:
        connection.execute(text("SELECT * FROM nowhere"))


def test_a_forked_child_has_connections_of_its_own(notes: Database) -> None:
    _write_one(notes)
    with notes.write() as connection:  # even in the middle of the parent's transaction
        _note(connection)
        child = os.fork()
        if child == 0:
            with notes.read() as mine:
                seen = _count(mine)
            os._exit(10 + seen)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 11
        _note(connection)
    with notes.read() as connection:
        assert _count(connection) == 3


def test_a_look_sees_what_is_committed_and_inside_of_a_write_what_that_has_written(notes: Database) -> None:
    count = text("SELECT count(*) FROM notes")
    with notes.write() as connection:
        _note(connection)
        assert notes.look(count, {}) == 1
        elsewhere: list[object] = []
        other = threading.Thread(target=lambda: elsewhere.append(notes.look(count, {})))
        other.start()
        other.join()
        assert elsewhere == [0]
    assert notes.look(count, {}) == 1
    assert notes.look(text("SELECT note FROM notes WHERE note = :note"), {"note": "b"}) is None
    with notes.write() as connection:  # it left nothing open
        _note(connection)
    assert notes.look(count, {}) == 2


def test_nothing_is_left_of_what_was_deleted_once_the_file_is_scrubbed(
    notes: Database, tmp_path: Path
) -> None:
    def held() -> int:
        return sum(each.read_bytes().count(b"secret") for each in tmp_path.iterdir() if each.is_file())

    with notes.write() as connection:
        for number in range(300):
            connection.execute(text(f"INSERT INTO notes VALUES ('note {number} {'secret ' * 20}')"))
    with notes.write() as connection:
        connection.execute(text("DELETE FROM notes WHERE note LIKE 'note 1%'"))
        connection.execute(text("UPDATE notes SET note = 'kept'"))
    assert held()
    assert notes.scrub()
    assert held() == 0
    with notes.read() as connection:
        assert _count(connection) == 189


def test_a_scrub_while_somebody_reads_an_older_state_says_that_it_is_not_done(notes: Database) -> None:
    other = Database.open(notes.url)
    with other.read() as connection:
        assert _count(connection) == 0
        with notes.write() as writing:
            writing.execute(text("INSERT INTO notes VALUES ('new')"))
        assert not notes.scrub()
        assert _count(connection) == 0
    assert notes.scrub()


def test_what_ctrl_c_cut_off_keeps_nobody_from_writing(notes: Database, tmp_path: Path) -> None:
    def interrupt(_connection: Connection, _cursor: object, statement: str, *_others: object) -> None:
        if "RETURNING" in statement:
            raise KeyboardInterrupt

    engine = notes._opened.engine
    event.listen(engine, "after_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt) as held, notes.write() as connection:
        connection.execute(text("INSERT INTO notes VALUES ('b') RETURNING note"))
    event.remove(engine, "after_cursor_execute", interrupt)
    other = sqlite3.connect(tmp_path / "noria.db", timeout=0.0)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    assert held.traceback  # has held the statement all the time
    with notes.write() as connection:
        _note(connection)
        assert _count(connection) == 1


def test_who_opens_a_database_again_finds_its_statements_compiled(tmp_path: Path) -> None:
    url, count = f"sqlite:///{tmp_path}/noria.db", text("SELECT count(*) FROM runs")
    with Database.open(url) as first, first.read() as connection:
        connection.execute(count)
        engine = first._opened.engine
    first.close()  # twice
    with Database.open(url) as again, Database.open(url) as beside:
        assert again._opened.engine is engine
        assert beside._opened.engine is not engine  # one that is at work is nobody else's
        for each in (again, beside):
            with each.write() as connection:
                assert connection.execute(count).scalar() == 0


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/noria.db"
    with Database.open(url) as database, database.write() as connection:
        connection.execute(text("CREATE TABLE notes (note TEXT)"))
    for each in tmp_path.iterdir():
        each.unlink()
    with Database.open(url) as database, database.write() as connection:
        connection.execute(text("CREATE TABLE notes (note TEXT)"))


def test_few_closed_databases_are_remembered(tmp_path: Path) -> None:
    for number in range(8):
        Database.open(f"sqlite:///{tmp_path}/{number}.db", are_tables_made=False).close()
    assert [Path(each.database or "").name for each in store._CLOSED] == ["4.db", "5.db", "6.db", "7.db"]
