"""Small files are joined by themselves, files that nobody names go, statistics need no reading."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from noria.errors import NotFound, StoreError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake

Day = Callable[..., pa.Table]

FLIGHTS = Dataset("flights", key="flight", event_at="departed_at", known_at="landed_at")


def test_many_small_batches_stay_few_files_and_every_version_readable(lake: Lake, day: Day) -> None:
    rows = pa.table({"x": [1, 2, 3]})
    for batch in range(1, 261):
        lake.append("log", rows, batch=batch, app_id="a")
    files = list(lake.reader("log").get_fragments())
    assert len(files) < 60
    assert lake.read("log")["x"].to_pylist() == [1, 2, 3] * 260
    for batch in range(1, 61):
        lake.ingest(FLIGHTS, day(batch, 3), batch=batch)
    assert len(list(lake.reader("flights").get_fragments())) < 20
    assert lake.read("flights", version=49).num_rows == 3 * 49
    assert lake.read("flights").equals(
        pa.concat_tables(day(batch, 3) for batch in range(1, 61)).combine_chunks()
    )
    assert lake.ingest(FLIGHTS, day(7, 3), batch=61).repeated == 3


def test_vacuum_removes_what_nobody_names_and_tells_it(lake: Lake, tmp_path: Path, day: Day) -> None:
    for number in range(1, 4):
        lake.ingest(FLIGHTS, day(number), batch=number)
    lake.append("flights", day(8), batch=1, app_id="unrecorded")
    lake.compact("flights")
    orphan = tmp_path / "lake" / "flights" / "part-left-behind.parquet"
    orphan.write_bytes(b"half a batch")
    assert lake.vacuum("flights").removed == ()
    told = lake.vacuum("flights", retention=timedelta(0), dry_run=True)
    names = [Path(each.path).name for each in told.removed]
    assert len(names) == 2
    assert any("unrecorded" in name for name in names)
    assert orphan.exists()
    done = lake.vacuum("flights", retention=timedelta(0))
    assert done.removed == told.removed
    assert done.size_bytes == sum(each.size_bytes for each in told.removed) > 0
    assert not orphan.exists()
    for number in range(1, 4):
        assert lake.read("flights", version=number).num_rows == 20 * number
    assert lake.read("flights").num_rows == 80


def test_what_went_lately_is_kept_for_those_at_work_with_it(lake: Lake, tmp_path: Path) -> None:
    lake.append("log", pa.table({"x": [1]}), batch=1, app_id="a")
    lake.append("log", pa.table({"x": [2]}), batch=2, app_id="a")
    lake.compact("log")
    old = tmp_path / "lake" / "log" / "part-orphan.parquet"
    old.write_bytes(b"x")
    long_ago = time.time() - timedelta(days=8).total_seconds()
    os.utime(old, (long_ago, long_ago))
    removed = lake.vacuum("log").removed
    assert [each.path for each in removed] == ["part-orphan.parquet"]
    assert len(lake.vacuum("log", retention=timedelta(0)).removed) == 2
    assert lake.read("log")["x"].to_pylist() == [1, 2]


def test_a_log_with_a_hole_is_not_vacuumed(lake: Lake, tmp_path: Path) -> None:
    for batch in (1, 2, 3):
        lake.append("log", pa.table({"x": [1]}), batch=batch, app_id="a")
    (tmp_path / "lake" / "log" / "_delta_log" / f"{1:020d}.json").unlink()
    with pytest.raises(StoreError, match="is gone, though the lake keeps every commit"):
        lake.vacuum("log", retention=timedelta(0))
    with pytest.raises(NotFound):
        lake.vacuum("nothing")


def test_statistics_are_told_without_reading_rows(lake: Lake, tmp_path: Path, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1, delay=[None, *range(19)], tags=[["a"]] * 20), batch=1)
    lake.ingest(FLIGHTS, day(2, tags=[["a"]] * 20), batch=2)
    for path in (tmp_path / "lake" / "flights").glob("part-*"):
        path.write_bytes(b"reading this fails")
    found = Lake(lake.url, ledger=lake._ledger).statistics("flights")
    assert (found.name, found.rows, found.files) == ("flights", 40, 2)
    assert found.size_bytes > 1_000
    assert (found.columns["distance"].low, found.columns["distance"].high) == (100, 119)
    assert found.columns["delay"].nulls == 1
    assert (found.columns["delay"].low, found.columns["delay"].high) == (0.0, 19.0)
    assert found.columns["departed_at"].low == datetime(2013, 1, 2, tzinfo=UTC)
    assert (found.columns["tags"].nulls, found.columns["tags"].low) == (None, None)
    assert lake.statistics("flights", version=1).rows == 20


def test_statistics_of_columns_that_came_later_of_nan_and_of_foreign_files(
    lake: Lake, tmp_path: Path
) -> None:
    lake.append("log", pa.table({"x": [1.0, float("nan")]}), batch=1, app_id="a")
    assert lake.statistics("log").columns["x"].low is None
    lake.append("log", pa.table({"x": [2.0], "y": [5]}), batch=2, app_id="a")
    told = lake.statistics("log").columns["y"]
    assert (told.nulls, told.low, told.high) == (2, 5, 5)
    again = Lake(lake.url, ledger=None).statistics("log").columns["y"]
    assert again == told
    write_deltalake(
        tmp_path / "lake" / "log",
        pa.table({"x": [3.0], "y": [None]}, schema=lake.schema("log")),
        mode="append",
    )
    assert lake.statistics("log").columns["y"].nulls == 3
    assert lake.statistics("log").rows == 4
