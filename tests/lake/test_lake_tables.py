import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from noria.errors import ConfigError, DigestMismatch, NotFound, SourceError, StoreError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.warehouse.query import query

Day = Callable[..., pa.Table]

FLIGHTS = Dataset("flights", key="flight", event_at="departed_at", known_at="landed_at")


def on(number: int) -> pads.Expression:
    start = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number)
    return (pads.field("departed_at") >= start) & (pads.field("departed_at") < start + timedelta(days=1))


def test_appends_land_once_per_writer(lake: Lake, reopened: Callable[[], Lake]) -> None:
    rows = pa.table({"id": ["a"], "score": [0.5]})
    assert lake.append("log", rows, batch=3, app_id="worker/1")
    assert not lake.append("log", rows, batch=3, app_id="worker/1")
    assert not reopened().append("log", rows, batch=2, app_id="worker/1")
    assert reopened().append(
        "log", rows, batch=1, app_id="worker/2"
    )  # the same rows again, of another writer
    assert lake.read("log").num_rows == 2
    assert [lake.last_batch("log", each) for each in ("worker/1", "worker/2", "nobody")] == [3, 1, None]
    assert lake.last_batch("nothing", "worker/1") is None


def test_the_same_rows_of_another_batch_are_other_rows(lake: Lake) -> None:
    for batch in (1, 2):
        lake.append("log", pa.table({"x": [1, 1]}), batch=batch, app_id="a")
    assert lake.read("log")["x"].to_pylist() == [1, 1, 1, 1]


def test_appends_widen_the_table_and_fill_what_is_lacking(lake: Lake) -> None:
    lake.append("log", pa.table({"x": [1]}), batch=1, app_id="a")
    lake.append("log", pa.table({"y": ["new"]}), batch=2, app_id="a")
    assert lake.read("log").to_pylist() == [{"x": 1, "y": None}, {"x": None, "y": "new"}]
    with pytest.raises(SourceError, match="column 'x' is string, wanted int64"):
        lake.append("log", pa.table({"x": ["?"]}), batch=3, app_id="a")
    lake.append("log", pa.table({"x": pa.array([], pa.int64())}), batch=3, app_id="a")
    assert lake.last_batch("log", "a") == 3


def test_reading_between_two_instants_opens_only_the_files_that_matter(
    lake: Lake, tmp_path: Path, day: Day
) -> None:
    for number in range(1, 31):
        lake.ingest(FLIGHTS, day(number), batch=number)
    for path in (tmp_path / "lake" / "flights").glob("part-*.parquet"):
        if not path.name.startswith("part-000000000007-"):
            path.write_bytes(b"opening this fails")
    assert lake.read("flights", columns=["flight"], where=on(7))["flight"].to_pylist()[0] == "7-0"
    assert lake.read("flights", where=on(90)).num_rows == 0
    assert lake.read("flights", where=pads.field("flight") == "7-3").num_rows <= 1


def test_what_is_not_there_is_not_found(lake: Lake, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    with pytest.raises(NotFound, match="did you mean 'flights'"):
        lake.read("flihgts")
    with pytest.raises(NotFound, match="did you mean 'carrier'"):
        lake.read("flights", columns=["carier"])
    with pytest.raises(NotFound, match="did you mean 'carrier'"):
        lake.read("flights", where=pads.field("carier") == "AA")
    with pytest.raises(NotFound):
        lake.read("flights", version=9)
    with pytest.raises(NotFound, match="dataset version"):
        lake.read("flights__rejected", version=lake.ingest(FLIGHTS, day(2), batch=2).version)
    with pytest.raises(ConfigError, match="has no ledger"):
        Lake(lake.url, ledger=None).read("flights", version=1)
    assert (lake.exists("flights"), lake.exists("nothing")) == (True, False)


def test_older_versions_stay_readable_also_after_compaction(lake: Lake, day: Day) -> None:
    versions = [lake.ingest(FLIGHTS, day(number), batch=number).version for number in range(1, 6)]
    digests = [lake.version_digest("flights", version) for version in versions]
    assert lake.compact("flights", keep_newest=1) == 4
    assert lake.compact("flights", keep_newest=1) == 0
    for number, version in enumerate(versions, start=1):
        assert version is not None
        assert lake.read("flights", version=number).num_rows == 20 * number
        assert lake.version_digest("flights", number, verify=True) == version.sha256 == digests[number - 1]
    assert lake.read("flights").equals(
        pa.concat_tables([day(number) for number in range(1, 6)]).combine_chunks()
    )
    after = lake.ingest(FLIGHTS, day(6), batch=6).version
    assert after is not None
    assert after.number == 6
    assert after.sha256 == lake.version_digest("flights", verify=True)


def test_compaction_joins_neighbours_up_to_a_size(lake: Lake, tmp_path: Path, day: Day) -> None:
    for number in range(1, 8):
        lake.ingest(FLIGHTS, day(number), batch=number)
    before = lake.read("flights")
    assert lake.compact("flights", rows_per_file=60) == 6
    assert [each.count_rows() for each in lake.reader("flights").get_fragments()] == [60, 60, 20]
    assert lake.read("flights").equals(before)
    assert lake.read("flights", where=on(5)).num_rows == 20
    assert len(DeltaTable(tmp_path / "lake" / "flights").file_uris()) == 3


def test_a_changed_file_does_not_match_its_digest(lake: Lake, tmp_path: Path, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    (path,) = (tmp_path / "lake" / "flights").glob("part-*.parquet")
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(3, "delay", pa.array([0.0] * 20)), path)
    with pytest.raises(DigestMismatch, match="flights/part-"):
        lake.version_digest("flights", verify=True)
    path.unlink()
    with pytest.raises(StoreError, match="is gone"):
        lake.version_digest("flights", verify=True)


def test_the_tables_are_plain_delta_to_others(lake: Lake, tmp_path: Path, day: Day) -> None:
    for number in range(1, 4):
        lake.ingest(FLIGHTS, day(number, flight=[f"{number}-ü{each}" for each in range(20)]), batch=number)
    lake.compact("flights", keep_newest=1)
    table = DeltaTable(tmp_path / "lake" / "flights")
    assert (table.count(), table.version(), table.transaction_version("ingest")) == (60, 4, 3)
    actions = {row["path"]: row for row in pa.table(table.get_add_actions()).to_pylist()}
    (newest,) = (row for path, row in actions.items() if path.startswith("part-000000000003"))
    assert (newest["num_records"], newest["min"]["distance"], newest["max"]["flight"]) == (20, 100, "3-ü9")
    assert newest["min"]["departed_at"] == datetime(2013, 1, 4, tzinfo=UTC)
    assert newest["null_count"]["carrier"] == 0
    table.optimize.compact()
    table.create_checkpoint()
    assert lake.read("flights").num_rows == 60
    write_deltalake(tmp_path / "lake" / "flights", day(9), mode="append")
    assert lake.read("flights").num_rows == 80
    assert lake.check(FLIGHTS, day(9)).accepted.num_rows == 0
    assert lake.version_digest("flights", verify=True) == Lake(lake.url, ledger=None).version_digest(
        "flights"
    )


def test_a_table_of_foreign_features_is_not_written(lake: Lake, tmp_path: Path, day: Day) -> None:
    write_deltalake(tmp_path / "lake" / "other", day(1), partition_by=["carrier"])
    with pytest.raises(StoreError, match="changed by another tool"):
        lake.append("other", day(1), batch=1, app_id="a")


def test_the_log_is_summed_up_so_that_opening_stays_quick(lake: Lake, tmp_path: Path) -> None:
    for batch in range(1, 251):
        lake.append("log", pa.table({"x": [batch]}), batch=batch, app_id="a")
    checkpoints = sorted((tmp_path / "lake" / "log" / "_delta_log").glob("*.checkpoint.parquet"))
    assert [int(path.name.split(".")[0]) for path in checkpoints] == list(range(25, 251, 25))
    assert sorted(Lake(lake.url, ledger=None).read("log")["x"].to_pylist()) == list(range(1, 251))
    assert Lake(lake.url, ledger=None).last_batch("log", "a") == 250


def test_threads_may_share_a_lake(lake: Lake) -> None:
    def work(worker: int) -> None:
        for batch in range(1, 11):
            lake.append("log", pa.table({"x": [worker]}), batch=batch, app_id=f"w{worker}")
            lake.read("log")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert lake.read("log").num_rows == 40


def test_sql_answers_over_readers(lake: Lake, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    sql = "select carrier, count(*) as n from flights where landed_at >= '2013-01-02' group by 1 order by 1"
    answer = query(sql, {name: lambda name=name: lake.reader(name) for name in lake.names()})  # type: ignore[misc]
    assert answer.to_pylist() == [{"carrier": "AA", "n": 10}, {"carrier": "UA", "n": 10}]


def test_apps_whose_names_differ_in_any_character_write_files_of_other_names(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), ledger=None)
    rows = pa.table({"x": [1]})
    for app in ("a:b", "a_b", "one/" + 100 * "x", "two/" + 100 * "x"):
        assert lake.append("t", rows, batch=1, app_id=app)
    assert lake.read("t").num_rows == 4
    assert len(list(tmp_path.glob("t/*.parquet"))) == 4
