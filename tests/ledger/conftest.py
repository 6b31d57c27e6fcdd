from datetime import UTC, datetime
from pathlib import Path

import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.ledger.store import Ledger
from noria.storage.local import LocalStorage

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(NOON)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(f"sqlite:///{tmp_path}/noria.db")


@pytest.fixture
def ledger(database: Database, clock: ReplayClock, tmp_path: Path) -> Ledger:
    return Ledger(database, storage=LocalStorage(tmp_path / "storage"), clock=clock)
