"""A ledger on each kind of database, for tests that hold on both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from noria.clock import WallClock
from noria.database.store import Database
from noria.ledger.store import Ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def either_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """Give a ledger in a fresh database."""
    url = f"sqlite:///{tmp_path / 'noria.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with Database.open(url) as database:
        yield Ledger(database, clock=WallClock())


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine of its own, without a project; and the folder of what waits for a server."""
    folder = tmp_path / "spool"
    monkeypatch.setenv("NORIA_TRACKING__SPOOL", str(folder))
    monkeypatch.setenv("NORIA_TRACKING__PATIENCE_S", "3")
    monkeypatch.chdir(tmp_path)
    return folder
