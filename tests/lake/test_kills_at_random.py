"""kill -9 at random instants of all that changes tables: in the end all is as if none had been killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.store import Lake
from noria.ledger.store import Ledger

STEPS = 18

CHILD = f"""
import sys
import pyarrow as pa
from noria.checks.declarations import between
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

root = sys.argv[1]
ledger = Ledger(Database.open(f"sqlite:///{{root}}/noria.db"), clock=WallClock())
lake = Lake(f"{{root}}/lake", ledger=ledger)
kept = Dataset("kept", key="id", event_at="t", known_at="t", max_rejected_share=1.0,
               checks=[between("x", 0, 99)])
latest = Dataset("latest", key="id", event_at="t", known_at="t", write="merge")

def rows(day, x, *ids):
    many = len(ids)
    return pa.table({{"id": [f"{{day}}-{{each}}" for each in ids], "day": [day] * many, "x": [x] * many,
                     "t": pa.array([day] * many, pa.timestamp("us", "UTC"))}})

print("ready", flush=True)
for day in range(1, {STEPS} + 1):
    table = pa.concat_tables([rows(day, 1, *range(9)), rows(day, 500, 9), rows(day, 1, 0)])
    stream = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=4))
    lake.ingest(kept, stream, batch=day)
    lake.ingest(latest, rows(0, day % 100, *range(day % 5, day % 5 + 6)), batch=day, app="stream:x/0")
    if day % 4 == 0:
        lake.overwrite(kept, rows(day, 2, *range(5)), column="day", low=day, high=day + 1, batch=day)
    if day % 6 == 0:
        lake.delete("kept", f"day = {{day - 1}}", reason="of no use", batch=day)
    if day % 9 == 0:
        lake.compact("kept")
        lake.forget("kept", "id", [f"{{day}}-3"])
print("done", flush=True)
"""


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True)


def state_of(root: Path) -> dict[str, Any]:
    with Database.open(f"sqlite:///{root}/noria.db") as database:
        ledger = Ledger(database, clock=WallClock())
        lake = Lake(f"{root}/lake", ledger=ledger)
        assert ledger.verify().ok
        for each in ledger.list_versions(kind="dataset"):
            assert lake.version_digest(each.name, each, verify=True) == lake.expected_digest(each)
        tables = {
            name: sorted(map(str, lake.read(name).drop_columns(drop).to_pylist()))
            for name, drop in [("kept", []), ("latest", []), ("kept__rejected", ["rejected_at"])]
        }
        verbs = [each.verb for each in ledger.list_events() if each.verb.startswith("dataset.")]
        return {**tables, "events": {verb: verbs.count(verb) for verb in set(verbs)}}


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_kill_9_at_any_instant_changes_nothing(tmp_path: Path, kills: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for each in (whole, killed):
        each.mkdir()
    undisturbed = start(whole)
    begun = time.monotonic()
    assert undisturbed.communicate(timeout=300)[0].endswith("done\n")
    lasts = time.monotonic() - begun
    rng = random.Random(kills)
    hits = 0
    for _ in range(kills):
        child = start(killed)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, max(lasts / 4, 0.2)))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        hits += "done" not in child.stdout.read()
        child.stdout.close()
    assert hits
    last = start(killed)
    assert last.communicate(timeout=300)[0].endswith("done\n")
    assert last.returncode == 0
    found, wanted = state_of(killed), state_of(whole)
    print(f"{hits} of {kills} kills hit; {found['events']}")
    assert found == wanted
