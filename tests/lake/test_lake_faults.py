import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from noria.errors import DiskFull, StoreError
from noria.lake.declarations import Dataset
from noria.lake.files import LocalFiles, open_files, translated
from noria.lake.store import Lake

Day = Callable[..., pa.Table]

WRITER = """
import sys
import pyarrow as pa
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

root, who, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = Ledger(Database.open(f"sqlite:///{root}/noria.db"), clock=WallClock())
lake = Lake(f"{root}/lake", ledger=ledger)
dataset = Dataset("rows", key="id", event_at="t", known_at="t")
print("ready", flush=True)
sys.stdin.readline()
states = []
for batch in range(1, batches + 1):
    rows = pa.table({"id": [f"{batch}-{each}" for each in range(20)],
                     "t": pa.array([batch] * 20, pa.timestamp("us", "UTC"))})
    states.append(lake.ingest(dataset, rows, batch=batch).state)
    lake.append("log", rows, batch=batch, app_id=who)
print(states.count("landed"))
"""

FULL = """
import resource, sys
import pyarrow as pa
from noria.errors import DiskFull
from noria.lake.declarations import Dataset
from noria.lake.store import Lake

lake = Lake(sys.argv[1], ledger=None)
dataset = Dataset("rows", key="id", event_at="t", known_at="t")
def rows(batch, many):
    return pa.table({"id": [f"{batch}-{each}" for each in range(many)],
                     "t": pa.array([batch] * many, pa.timestamp("us", "UTC"))})
lake.ingest(dataset, rows(1, 10), batch=1)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (2_000, 100):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for work in (lambda: lake.ingest(dataset, rows(2, 5_000), batch=2),
                 lambda: lake.append("other", rows(2, 5_000), batch=1, app_id="a"),
                 lambda: lake.compact("rows") or lake.append("rows2", rows(1, 1), batch=1, app_id="a")):
        try:
            work()
        except DiskFull as err:
            print("full", err, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert lake.read("rows").num_rows == 10
print(lake.ingest(dataset, rows(2, 5_000), batch=2).state)
print(lake.read("rows").num_rows)
"""


def test_two_processes_ingest_the_same_batches_at_once_and_each_lands_once(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), who, "15"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("one", "two")
    ]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    told = []
    for each in both:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in both:
        told.append(int(each.communicate(timeout=60)[0]))
        assert each.returncode == 0
    assert sum(told) == 15
    lake = Lake(f"{tmp_path}/lake", ledger=None)
    ids = lake.read("rows")["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 15 * 20
    assert lake.read("log").num_rows == 2 * 15 * 20


def test_a_full_disk_is_told_and_the_rerun_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *full, state, rows = done.stdout.splitlines()
    assert len(full) == 4
    assert all("no space left on the disk" in each for each in full)
    assert (state, rows) == ("landed", "5010")


def test_a_file_that_vanished_is_a_store_error(lake: Lake, tmp_path: Path, day: Day) -> None:
    lake.ingest(
        Dataset("flights", key="flight", event_at="departed_at", known_at="landed_at"), day(1), batch=1
    )
    (path,) = (tmp_path / "lake" / "flights").glob("part-*.parquet")
    path.unlink()
    with pytest.raises(StoreError, match=r"part-.*"):
        lake.read("flights")
    path.write_bytes(b"no parquet")
    with pytest.raises(StoreError, match=r"part-.*"):
        lake.read("flights")


def test_what_a_killed_create_left_behind_is_no_table(tmp_path: Path, day: Day) -> None:
    (tmp_path / "flights" / "_delta_log").mkdir(parents=True)
    (tmp_path / "flights" / "_delta_log" / "_staged_x.tmp").write_bytes(b"half")
    lake = Lake(str(tmp_path), ledger=None)
    assert lake.names() == []
    dataset = Dataset("flights", key="flight", event_at="departed_at", known_at="landed_at")
    assert lake.ingest(dataset, day(1), batch=1).state == "landed"
    assert lake.names() == ["flights"]


def test_files_are_put_created_found_and_listed(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.put("a/x", b"1")
    files.put("a/x", b"2")
    assert files.create("a/y", b"3")
    assert not files.create("a/y", b"4")
    assert (files.find("a/x"), files.find("a/y"), files.find("b/z")) == (b"2", b"3", None)
    assert (files.exists("a/y"), files.exists("a/z"), files.folders()) == (True, False, ["a"])


def test_drivers_texts_of_a_full_disk_are_known(tmp_path: Path) -> None:
    assert isinstance(translated(OSError(28, "No space left on device"), "x"), DiskFull)
    assert isinstance(
        translated(OSError("Generic error: No space left on device (os error 28)"), "x"), DiskFull
    )
    assert not isinstance(translated(OSError("else"), "x"), DiskFull)
    assert open_files(f"file://{tmp_path}").root == str(tmp_path)
