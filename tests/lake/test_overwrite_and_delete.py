"""Rows that leave a table: a range that is replaced, rows of a condition."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from noria.checks.declarations import between
from noria.errors import BatchBlocked, ConfigError, NotFound, SourceError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import RunState

Day = Callable[..., pa.Table]

FLIGHTS = Dataset(
    "flights",
    key="flight",
    event_at="departed_at",
    known_at="landed_at",
    checks=[between("distance", 1, 6_000)],
    max_rejected_share=0.25,
)


def begin(number: int) -> datetime:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number)


def digests(lake: Lake) -> set[str]:
    return {each.path.rsplit("-", 1)[-1] for each in lake.reader("flights").get_fragments()}


def test_a_day_is_replaced_and_all_others_stay_as_they_are(lake: Lake, ledger: Ledger, day: Day) -> None:
    for number in range(1, 5):
        lake.ingest(FLIGHTS, day(number), batch=number)
    before = digests(lake)
    repaired = day(2, 15, delay=[7.0] * 15)
    span: dict[str, Any] = {"column": "departed_at", "low": begin(2), "high": begin(3)}
    done = lake.overwrite(FLIGHTS, repaired, batch=1, source="backfill", **span)
    assert (done.state, done.added, done.removed, done.rejected) == ("done", 15, 20, 0)
    assert len(before - digests(lake)) == len(digests(lake) - before) == 1
    assert lake.read("flights").num_rows == 75
    assert set(lake.read("flights", where=pc.field("departed_at") >= begin(4))["delay"]) == set(
        day(4)["delay"]
    )
    assert done.version is not None
    assert (done.version.number, done.version.facts["removed"]) == (5, 20)
    (event,) = ledger.list_events(verb="dataset.overwritten")
    assert (event.payload["column"], event.payload["low"], event.payload["accepted"]) == (
        "departed_at",
        "2013-01-03T00:00:00Z",
        15,
    )
    again = lake.overwrite(FLIGHTS, repaired, batch=1, **span)
    assert (again.state, again.version, again.added) == ("already", done.version, 15)
    assert lake.read("flights", version=4).num_rows == 80


def test_rows_outside_of_the_range_are_refused(lake: Lake, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    for target in (FLIGHTS, "flights"):
        with pytest.raises(SourceError, match="20 rows are not in the range"):
            lake.overwrite(target, day(2), column="departed_at", low=begin(1), high=begin(2), batch=1)
        with pytest.raises(NotFound, match="did you mean 'departed_at'"):
            lake.overwrite(target, day(1), column="departed", low=begin(1), high=begin(2), batch=1)
    with pytest.raises(ConfigError, match="is empty; low is below high"):
        lake.overwrite(FLIGHTS, day(1), column="departed_at", low=begin(2), high=begin(2), batch=1)
    with pytest.raises(ConfigError, match="is not of column 'departed_at', which is timestamp"):
        lake.overwrite(FLIGHTS, day(1), column="departed_at", low="x", high=None, batch=1)
    assert lake.read("flights").equals(day(1))


def test_the_contract_holds_and_keys_outside_of_the_range_are_taken(lake: Lake, day: Day) -> None:
    for number in (1, 2):
        lake.ingest(FLIGHTS, day(number), batch=number)
    span: dict[str, Any] = {"column": "departed_at", "low": begin(1), "high": begin(2)}
    with pytest.raises(BatchBlocked):
        lake.overwrite(FLIGHTS, day(1, distance=[0] * 20), batch=1, **span)
    clash = day(1, flight=[*day(2)["flight"].to_pylist()[:2], *day(1)["flight"].to_pylist()[2:]])
    done = lake.overwrite(FLIGHTS, clash, batch=1, **span)
    assert (done.added, done.removed, done.rejected) == (18, 20, 2)
    assert lake.read("flights__rejected")["reason"].to_pylist() == ["new_key(flight)"] * 2


def test_a_table_without_a_contract_is_replaced_in_part_or_as_a_whole(lake: Lake, ledger: Ledger) -> None:
    rows = pa.table({"day": [1, 1, 2, None], "x": ["a", "b", "c", "d"]})
    assert lake.overwrite("sums", rows, column="day", low=None, high=None, batch=1).added == 4
    done = lake.overwrite("sums", pa.table({"day": [1], "x": ["e"]}), column="day", low=1, high=2, batch=2)
    assert (done.added, done.removed, done.version) == (1, 2, None)
    assert sorted(lake.read("sums")["x"].to_pylist()) == ["c", "d", "e"]
    nothing = pa.table({"day": pa.array([], pa.int64()), "x": pa.array([], pa.string())})
    assert lake.overwrite("sums", nothing, column="day", low=2, high=None, batch=3).removed == 1
    assert lake.overwrite("sums", nothing, column="day", low=2, high=None, batch=3).state == "already"
    stream = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=1))
    assert lake.overwrite("sums", stream, column="day", low=None, high=None, batch=4).removed == 2
    assert lake.read("sums").num_rows == 4
    assert ledger.list_versions(name="sums") == []


def test_deleting_is_a_version_and_says_how_many_and_why(lake: Lake, ledger: Ledger, day: Day) -> None:
    for number in (1, 2):
        lake.ingest(FLIGHTS, day(number), batch=number)
    done = lake.delete("flights", "carrier = 'UA' and delay >= 10", reason="measured twice")
    assert (done.state, done.removed) == ("done", 10)
    assert lake.read("flights").num_rows == 30
    assert lake.read("flights", version=2).num_rows == 40
    (event,) = ledger.list_events(verb="dataset.deleted")
    assert (event.payload["reason"], event.payload["removed"]) == ("measured twice", 10)
    assert "UA" not in str(event.payload)
    (run,) = ledger.list_runs(kind="delete")
    assert run.state is RunState.FINISHED
    assert done.version is not None
    assert done.version.sha256 == lake.version_digest("flights", 3)
    assert lake.delete("flights", "carrier = 'UA' and delay >= 10", reason="again").state == "nothing"
    back = lake.ingest(FLIGHTS, day(1), batch=3)
    assert (back.accepted, back.repeated) == (5, 15)


def test_a_deletion_with_a_number_is_done_once(lake: Lake, ledger: Ledger, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    assert lake.delete("flights", "delay < 5", reason="r", batch=7).removed == 5
    lake.ingest(FLIGHTS, day(2), batch=2)
    again = lake.delete("flights", "delay < 5", reason="r", batch=7)
    assert (again.state, again.removed) == ("already", 5)
    assert lake.read("flights").num_rows == 35
    assert len(ledger.list_events(verb="dataset.deleted")) == 1


@pytest.mark.parametrize(
    "where", ["carier = 'AA'", "select 1", "1; drop table x", "count(*) > 1", "read_csv('x')", ""]
)
def test_what_is_no_condition_is_told(lake: Lake, day: Day, where: str) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1)
    with pytest.raises(ConfigError, match="is no condition over"):
        lake.delete("flights", where, reason="r")
    assert lake.read("flights").num_rows == 20


def test_what_is_not_there_cannot_be_deleted(lake: Lake) -> None:
    with pytest.raises(NotFound, match="no table named 'flights'"):
        lake.delete("flights", "true", reason="r")
