"""What is damaged, hostile or in the way is told, and nothing of it is hidden."""

# ruff: noqa: F811 - fixtures that are imported are named again by who asks for them

import json
import resource
import signal
import sys
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.servers.postgres import Postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.workspace.backed_up import (  # noqa: F401 - fixtures among them
    copied,
    fill_all,
    filled,
    kept,
)

import noria
from noria.errors import ConfigError, DigestMismatch, DiskFull, NotFound, SourceError
from noria.storage.contract import blob_key
from noria.workspace.moving import restoring_backup
from noria.workspace.moving.backup import backups_in
from noria.workspace.moving.checks import check_backups
from noria.workspace.moving.restoring_backup import restore_backup


def test_a_damaged_blob_of_the_project_is_told(tmp_path: Path) -> None:
    root = fill_all(tmp_path / "from")
    with noria.open(root) as project:
        (artifact,) = project.artifacts.tree()
        place = root / ".noria" / "storage" / "parts" / "artifacts" / blob_key(artifact.sha256)
        place.chmod(0o644)
        place.write_bytes(b"damaged")
        done = project.backup(tmp_path / "kept")
        assert artifact.sha256 in done.damaged[0]
        place.unlink()
        again = project.backup(tmp_path / "kept")
        assert again.damaged == (f"the blob {artifact.sha256} of artifacts is gone",)
    assert restore_backup(tmp_path / "kept", tmp_path / "to").damaged == again.damaged


def test_a_restore_to_a_server_with_a_password_goes_on_and_does_not_write_it(
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
) -> None:
    url = postgres_url.replace("postgres@", "postgres:secret@")
    with monkeypatch.context() as killed:
        killed.setattr("noria.workspace.moving.restoring_backup.load_tables", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            restore_backup(kept, tmp_path / "to", database=url)
    assert (tmp_path / "to" / "noria.toml").exists()
    done = restore_backup(kept, tmp_path / "to", database=url)
    settings = (tmp_path / "to" / "noria.toml").read_text()
    assert f'database = "{postgres_url}"' in settings
    assert "secret" not in settings + done.database
    assert "NORIA_STORES__DATABASE" in done.todo[0]


def test_what_is_damaged_in_a_backup_is_named_and_the_rest_is_restored(copied: Path, tmp_path: Path) -> None:
    assert check_backups(copied).damaged == ()
    (model,) = (copied / "blobs" / "parts" / "artifacts" / "sha256").glob("*/*")
    data = next((copied / "blobs" / "parts" / "of-tables" / "sha256").glob("*/*"))
    model.chmod(0o644)
    model.write_bytes(b"x" * model.stat().st_size)  # of the same size
    data.unlink()
    found = check_backups(copied)
    assert [name for name in (model.name, data.name) if any(name in each for each in found.damaged)] == [
        model.name,
        data.name,
    ]
    assert len(found.damaged) == 2
    with pytest.raises(DigestMismatch, match=model.name):
        restore_backup(copied, tmp_path / "to")
    done = restore_backup(copied, tmp_path / "to", leave_damaged=True)
    assert len(done.damaged) == 2
    with noria.open(tmp_path / "to") as project:
        assert project.ledger.verify().ok
        (artifact,) = project.artifacts.tree()
        with pytest.raises(NotFound):
            project.artifacts.open(artifact.path)
        assert project.registry.check(project.registry.get("late:1"))


@pytest.mark.parametrize("table", ["table_logs", "table_files", "streams"])
def test_a_backup_that_leads_out_of_its_folder_is_refused(copied: Path, tmp_path: Path, table: str) -> None:
    (found,) = backups_in(copied)
    place = Path(found.folder)
    rows = pq.read_table(place / f"{table}.parquet")
    paths = [f"../../../../{'x' * 9}", *rows["path"].to_pylist()[1:]]
    rows = rows.set_column(
        rows.schema.get_field_index("path"), rows.schema.field("path"), pa.array(paths, pa.string())
    )
    pq.write_table(rows, place / f"{table}.parquet")
    manifest = json.loads((place / "manifest.json").read_text())
    told = {"table_logs": "logs", "table_files": "files", "streams": "streams"}[table]
    manifest[told]["sha256"] = sha256((place / f"{table}.parquet").read_bytes()).hexdigest()
    body = json.dumps(manifest).encode()
    (place / "manifest.json").write_bytes(body)
    (place / "manifest.json.sha256").write_text(sha256(body).hexdigest())
    with pytest.raises(SourceError, match="names a file outside"):
        restore_backup(copied, tmp_path / "deep" / "to")
    assert not list(tmp_path.rglob("x" * 9))


@pytest.mark.parametrize(
    "settings",
    [
        '[ stores ]\n"storage" = "a"\n',
        '[stores]\nstorage = "a" # there\n',
        "",
        "[project]\n[environments.a]\n",
    ],
)
def test_a_store_is_written_into_settings_of_any_form(settings: str) -> None:
    text = restoring_backup._with_store(settings, "storage", "b")
    assert tomllib.loads(text)["stores"] == {"storage": "b"}
    with pytest.raises(ConfigError, match="leave out --storage"):
        restoring_backup._with_store(f'stores = {{database = "d"}}\n{settings}', "storage", "b")


@pytest.mark.parametrize("what", ["blob", "table", "manifest"])
def test_a_changed_backup_is_not_restored(copied: Path, tmp_path: Path, what: str) -> None:
    (found,) = backups_in(copied)
    files = {
        "blob": next((copied / "blobs" / "sha256").glob("*/*")),
        "table": Path(found.folder) / "database" / "events.parquet",
        "manifest": Path(found.folder) / "manifest.json",
    }
    files[what].chmod(0o644)
    with files[what].open("ab") as file:
        file.write(b" ")
    with pytest.raises(DigestMismatch, match=files[what].name):
        restore_backup(copied, tmp_path / "to")
    assert not (tmp_path / "to" / ".noria" / "noria.db").exists()


@pytest.fixture
def little_room() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_told_and_leaves_no_backup(
    filled: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with noria.open(filled) as project:
        project.ledger.list_events()
        request.getfixturevalue("little_room")
        with pytest.raises(DiskFull):
            project.backup(tmp_path / "kept")
        with pytest.raises(DiskFull):
            project.export(tmp_path / "exported")
    assert backups_in(tmp_path / "kept") == []
    assert not (tmp_path / "exported").exists()
