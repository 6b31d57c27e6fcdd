"""A project with something of everything in it, backed up; and whether one that was restored is whole."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import select
from tests.workspace.moving_stores import make_project, register_native

import noria
from noria.database.store import Database
from noria.tracking.run_desk import RunDesk
from noria.workspace.doctor import Health, examine
from noria.workspace.moving.backup_tables import database_tables

AT = datetime(2024, 5, 1, tzinfo=UTC)


def _dataset() -> noria.Dataset:
    return noria.Dataset("sales", key="id", event_at="at")


def _rows(batch: int) -> pa.Table:
    at = pa.array([AT + timedelta(minutes=batch)] * 3, pa.timestamp("us", "UTC"))
    return pa.table({"id": [batch * 3 + each for each in range(3)], "at": at, "eur": [float(batch)] * 3})


def ingest(project: noria.Project, batch: int) -> None:
    """Ingest three rows."""
    project.lake.ingest(_dataset(), _rows(batch), batch=batch, at=AT + timedelta(hours=batch))


def log_run(project: noria.Project, name: str) -> None:
    """Log a run with a file."""
    with project.start_run(name, experiment="moving", system_metrics=False) as run:
        run.log_metrics({"loss": float("nan"), "auc": 0.5}, step=1)
        run.log_text(f"text of {name}", "notes/a.txt")


def fill_all(root: Path, database: str | None = None) -> Path:
    """Make a project with something of everything."""
    with noria.open(make_project(root, database)) as project:
        log_run(project, "first")
        for batch in (1, 2):
            ingest(project, batch)
        register_native(project, "late", seed=1)
        RunDesk(project.ledger).start("0", name="elsewhere")
        project.streams_path().mkdir(parents=True)
        (project.streams_path() / "clicks").mkdir()
        (project.streams_path() / "clicks" / "0.log").write_bytes(b"some frames")
    return root


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project."""
    return fill_all(tmp_path_factory.mktemp("filled") / "from")


@pytest.fixture(scope="module")
def kept(filled: Path) -> Path:
    """Give the folder of its backups."""
    folder = filled.parent / "kept"
    with noria.open(filled) as project:
        assert project.backup(folder).damaged == ()
    return folder


@pytest.fixture
def copied(kept: Path, tmp_path: Path) -> Path:
    """Give a copy of that, to be damaged."""
    return Path(shutil.copytree(kept, tmp_path / "copied"))


def rows_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Read all rows of a database, but those that a restore adds."""
    with Database.open(url) as database, database.read() as connection:
        found = {}
        for table in database_tables(connection):
            rows = connection.execute(select(table).order_by(*table.primary_key.columns)).all()
            if table.name == "events":
                rows = [each for each in rows if each.verb not in {"project.restored", "project.backed_up"}]
            found[table.name] = [tuple(each) for each in rows]
        return found


def sqlite_url(root: Path) -> str:
    """Give the URL of a project's own database."""
    return f"sqlite:///{root}/.noria/noria.db"


def check_whole(root: Path) -> None:
    """Hold a restored project against its records: every file, table and model that they name can be read."""
    with noria.open(root) as project:
        assert project.ledger.verify().ok
        for each in project.artifacts.tree():
            assert project.artifacts.open(each.path).stat().st_size == each.size_bytes
        for version in project.ledger.list_versions(kind="dataset"):
            assert project.lake.version_digest(version.name, version, verify=True) == version.sha256
            assert project.lake.read(version.name, version=version).num_rows == version.facts["rows"]
        for version in project.ledger.list_versions(kind="model"):
            assert project.registry.check(version)
    found = [each for each in examine(root) if each.health is Health.FAIL and each.check != "disk"]
    assert found == []
