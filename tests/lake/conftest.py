from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.lake.store import Lake
from noria.ledger.store import Ledger

DAY0 = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(datetime(2014, 1, 1, tzinfo=UTC))


@pytest.fixture
def ledger(tmp_path: Path, clock: ReplayClock) -> Iterator[Ledger]:
    with Database.open(f"sqlite:///{tmp_path}/noria.db") as database:
        yield Ledger(database, clock=clock)


@pytest.fixture
def lake(tmp_path: Path, ledger: Ledger) -> Iterator[Lake]:
    opened = Lake(str(tmp_path / "lake"), ledger=ledger)
    yield opened
    opened.close()


@pytest.fixture
def reopened(tmp_path: Path, ledger: Ledger) -> Callable[[], Lake]:
    """What another process would see."""
    return lambda: Lake(str(tmp_path / "lake"), ledger=ledger)


@pytest.fixture
def day() -> Callable[..., pa.Table]:
    """Make the landings of a day: its number, how many, and columns to replace."""

    def make(number: int, rows: int = 20, **columns: Any) -> pa.Table:
        departed = [DAY0 + timedelta(days=number, minutes=10 * each) for each in range(rows)]
        made = {
            "flight": [f"{number}-{each}" for each in range(rows)],
            "carrier": ["AA", "UA"] * (rows // 2) + ["AA"] * (rows % 2),
            "distance": [100 + each for each in range(rows)],
            "delay": [float(each) for each in range(rows)],
            "departed_at": pa.array(departed, pa.timestamp("us", "UTC")),
            "landed_at": pa.array(
                [each + timedelta(hours=2) for each in departed], pa.timestamp("us", "UTC")
            ),
        }
        return pa.table({**made, **columns})

    return make
