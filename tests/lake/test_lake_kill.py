import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import RunState

BATCHES = 40
ROWS = 25

CHILD = f"""
import sys
from datetime import UTC, datetime, timedelta
import pyarrow as pa
from noria.checks.declarations import between
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

root, batches = sys.argv[1], int(sys.argv[2])
ledger = Ledger(Database.open(f"sqlite:///{{root}}/noria.db"), clock=WallClock())
lake = Lake(f"{{root}}/lake", ledger=ledger)
dataset = Dataset("rows", key="id", event_at="happened_at", known_at="happened_at",
                  checks=[between("x", 0, 99)], max_rejected_share=0.1)
print("ready", flush=True)
for batch in range(1, batches + 1):
    at = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=batch)
    rows = pa.table({{
        "id": [f"{{batch}}-{{each}}" for each in range({ROWS})],
        "x": [500 if each == batch % {ROWS} else each for each in range({ROWS})],
        "happened_at": pa.array([at] * {ROWS}, pa.timestamp("us", "UTC")),
    }})
    lake.ingest(dataset, rows, batch=batch, at=at)
    lake.append("log", rows, batch=batch, app_id="log")
    if batch % 15 == 0:
        lake.compact("rows", keep_newest=5)
print("done", flush=True)
"""


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(BATCHES)], stdout=subprocess.PIPE, text=True
    )


def test_kill_9_at_any_instant_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(20130401)
    kills = 0
    for _ in range(8):
        child = start(tmp_path)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.25))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills += "done" not in child.stdout.read()
        child.stdout.close()
    assert kills >= 3
    last = start(tmp_path)
    assert last.communicate(timeout=60)[0].endswith("done\n")
    assert last.returncode == 0

    with Database.open(f"sqlite:///{tmp_path}/noria.db") as database:
        ledger = Ledger(database, clock=WallClock())
        lake = Lake(f"{tmp_path}/lake", ledger=ledger)
        good = sorted(f"{b}-{r}" for b in range(1, BATCHES + 1) for r in range(ROWS) if r != b % ROWS)
        assert sorted(lake.read("rows")["id"].to_pylist()) == good
        assert lake.read("log").num_rows == BATCHES * ROWS
        rejected = lake.read("rows__rejected")
        assert sorted(rejected["batch"].to_pylist()) == list(range(1, BATCHES + 1))
        events = ledger.list_events(verb="dataset.ingested")
        assert [each.payload["batch"] for each in events] == list(range(1, BATCHES + 1))
        assert [each.at for each in events] == sorted({each.at for each in events})
        versions = ledger.list_versions(kind="dataset", name="rows")
        assert [each.facts["batch"] for each in versions] == list(range(1, BATCHES + 1))
        assert [each.facts["rows"] for each in versions] == [(ROWS - 1) * b for b in range(1, BATCHES + 1)]
        for each in versions:
            assert lake.version_digest("rows", each, verify=each.number == BATCHES) == each.sha256
        assert {run.state for run in ledger.list_runs(kind="ingest")} == {RunState.FINISHED}
        assert ledger.verify().ok


@pytest.mark.parametrize("between", ["rejected and rows", "rows and records"])
def test_a_kill_between_two_stores_is_made_good(tmp_path: Path, between: str) -> None:
    """Stop exactly between the steps, where a random kill seldom hits."""
    step = {
        "rejected and rows": "noria.lake.delta.Table.commit",
        "rows and records": "noria.lake.recording.IngestRecords.changed",
    }[between]
    module, name = step.rsplit(".", 2)[0], step.rsplit(".", 2)[1:]
    trap = f"""
import os, signal, {module} as module
original = module.{name[0]}.{name[1]}
def stop(self, *args, **kwargs):
    if getattr(self, "name", "rows") == "rows":
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)
module.{name[0]}.{name[1]} = stop
"""
    killed = subprocess.run(
        [sys.executable, "-c", trap + CHILD, str(tmp_path), "3"], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    with Database.open(f"sqlite:///{tmp_path}/noria.db") as database:
        ledger = Ledger(database, clock=WallClock())
        assert ledger.list_events() == []
        lake = Lake(f"{tmp_path}/lake", ledger=ledger)
        assert lake.read("rows__rejected").num_rows == 1
        lake.close()
        subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), "3"], check=True, capture_output=True)
        first = ledger.list_events(verb="dataset.ingested")[0]
        assert (first.payload["batch"], first.payload["accepted"], first.at) == (
            1,
            ROWS - 1,
            datetime(2013, 1, 2, tzinfo=UTC),
        )
        assert len(ledger.list_events(verb="dataset.ingested")) == 3
        again = Lake(f"{tmp_path}/lake", ledger=ledger)
        assert pc.count_distinct(again.read("rows__rejected")["batch"]).as_py() == 3
        assert again.read("rows__rejected").num_rows == 3
        assert ledger.verify().ok


def test_rejected_rows_of_a_killed_attempt_are_replaced_if_the_batch_has_changed(tmp_path: Path) -> None:
    from noria.checks.declarations import between as rule
    from noria.lake.declarations import Dataset

    dataset = Dataset(
        "rows", key="id", event_at="t", known_at="t", checks=[rule("x", 0, 9)], max_rejected_share=1.0
    )
    lake = Lake(str(tmp_path), ledger=None)
    left = pa.table({"reason": ["old"], "payload": ["{}"], "row": [0], "batch": [1]})
    left = left.append_column("rejected_at", pa.array([0], pa.timestamp("us", "UTC")))
    lake.append("rows__rejected", left, batch=1, app_id="ingest")
    rows = pa.table({"id": [1, 2], "x": [5, 50], "t": pa.array([0, 0], pa.timestamp("us", "UTC"))})
    lake.ingest(dataset, rows, batch=1)
    assert lake.read("rows__rejected")["reason"].to_pylist() == ["between(x, 0, 9)"]
