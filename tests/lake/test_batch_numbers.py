"""A number that has landed takes the same batch again, and no other."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.errors import Conflict
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

THINGS = Dataset("things", key="id", event_at="known_at")


def rows(*names: str) -> pa.Table:
    return pa.table({"id": list(names)})


def test_other_rows_under_a_landed_number_are_refused(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/noria.db") as database:
        ledger = Ledger(database, clock=ReplayClock(datetime(2024, 1, 1, tzinfo=UTC)))
        lake = Lake(str(tmp_path / "lake"), ledger=ledger)
        assert lake.ingest(THINGS, rows("a", "b"), batch=1).state == "landed"
        assert lake.ingest(THINGS, rows("a", "b"), batch=1).state == "already"
        with pytest.raises(Conflict, match="landed with 2 rows before, this one has 3"):
            lake.ingest(THINGS, rows("c", "d", "e"), batch=1)
        assert lake.ingest(THINGS, rows("c", "d", "e"), batch=2).accepted == 3
        assert lake.read("things").num_rows == 5
        lake.close()
