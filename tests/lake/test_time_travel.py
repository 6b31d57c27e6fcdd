"""Any state on record, by its number or by an instant, whatever was done to the table since."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from noria.errors import ConfigError, Conflict, NotFound
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger

Day = Callable[..., pa.Table]

FLIGHTS = Dataset("flights", key="flight", event_at="departed_at", known_at="landed_at")


def noon(number: int) -> datetime:
    return datetime(2013, 1, 1, 12, tzinfo=UTC) + timedelta(days=number)


def test_an_instant_gives_the_newest_version_recorded_until_then(lake: Lake, day: Day) -> None:
    for number in range(1, 5):
        lake.ingest(FLIGHTS, day(number), batch=number, at=noon(number))
    assert lake.read("flights", at=noon(2)).num_rows == 40
    assert lake.read("flights", at=noon(3) - timedelta(microseconds=1)).num_rows == 40
    assert lake.reader("flights", at=noon(90)).count_rows() == 80
    assert lake.statistics("flights", at=noon(1)).rows == 20
    assert lake.schema("flights", at=noon(1)) == lake.schema("flights")


def test_an_instant_means_the_version_of_the_latest_instant_and_of_two_the_higher_number(
    lake: Lake, ledger: Ledger, day: Day
) -> None:
    for number, at in enumerate((2, 5, 3, 3), 1):
        lake.ingest(FLIGHTS, day(number), batch=number, at=noon(at))
    ledger.record_version(
        "table", "flights", sha256="0" * 64, uri="delta:flights@1", at=noon(6)
    )  # kinds have numbers of their own
    found = [lake.read("flights", at=noon(each)).num_rows for each in (2, 3, 4, 5, 9)]
    assert found == [20, 80, 80, 40, 40]


def test_before_the_first_version_there_is_none(lake: Lake, day: Day) -> None:
    lake.ingest(FLIGHTS, day(1), batch=1, at=noon(1))
    with pytest.raises(NotFound, match="flights:1 of 2013-01-02T12:00:00"):
        lake.read("flights", at=noon(0))
    with pytest.raises(NotFound, match="there is no dataset version yet"):
        lake.read("other", at=noon(0))
    with pytest.raises(ConfigError, match="has no time zone"):
        lake.read("flights", at=datetime(2013, 1, 5))
    with pytest.raises(Conflict, match="give one of them"):
        lake.read("flights", at=noon(1), version=1)
    with pytest.raises(ConfigError, match="has no ledger"):
        Lake(lake.url, ledger=None).read("flights", at=noon(1))


def test_every_version_reads_back_after_compaction_vacuum_and_new_columns(
    lake: Lake, ledger: Ledger, reopened: Callable[[], Lake], day: Day
) -> None:
    states = {}
    for number in range(1, 6):
        lake.ingest(FLIGHTS, day(number), batch=number, at=noon(number))
        states[number] = lake.read("flights")
    lake.compact("flights")
    wider = {each.name: str(each.type) for each in day(1).schema} | {"wind": "double"}
    evolved = Dataset(
        "flights",
        key="flight",
        event_at="departed_at",
        known_at="landed_at",
        schema={**wider, "distance": "double"},
    )
    lake.ingest(evolved, day(6, wind=[1.0] * 20), batch=6, at=noon(6))
    lake.delete("flights", "carrier = 'AA'", reason="r", at=noon(7))
    lake.vacuum("flights", retention=timedelta(0))
    for number, rows in states.items():
        for each in (lake, reopened()):
            assert each.read("flights", version=number).equals(rows)
            assert each.read("flights", at=noon(number)).equals(rows)
        version = ledger.get_version("dataset", "flights", number)
        assert lake.version_digest("flights", number, verify=True) == version.sha256
