"""Served values held against offline: equal, late, or wrong, and each told from the others."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from noria import agg
from noria.errors import NotFound
from noria.features.declarations import FeatureView
from noria.features.joining import join_features
from noria.features.parity import ViewParity, verify_view
from noria.lake.declarations import Dataset
from noria.lake.states import TableStates
from noria.lake.store import Lake

INSTANT = pa.timestamp("us", "UTC")
TRIPS = Dataset("trips", key="id", event_at="ended_at", known_at="synced_at")
VIEW = FeatureView(
    "courier",
    source=TRIPS,
    entity="courier",
    features={
        "trips_1d": agg.count("1d"),
        "minutes_1d": agg.mean("minutes", "1d"),
        "last": agg.last("minutes"),
        "lately": agg.decayed_sum("minutes", "6h"),
    },
)
MINUTE_US = 60_000_000


def trips(first: int, number: int, at: datetime, courier: str = "ada") -> pa.Table:
    return pa.table(
        {
            "id": [f"t{first + each}" for each in range(number)],
            "ended_at": pa.array([at] * number, INSTANT),
            "synced_at": pa.array([at] * number, INSTANT),
            "courier": [courier] * number,
            "minutes": pa.array([10 + first + each for each in range(number)], pa.int64()),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    opened = Lake(str(tmp_path / "lake"), ledger=None)
    yield opened
    opened.close()


def land(lake: Lake, batch: int, rows: pa.Table) -> datetime:
    """Append a batch, and give an instant after its commit and before the next one."""
    lake.append("trips", rows, batch=batch, app_id="test")
    time.sleep(0.02)
    between = datetime.now(UTC)
    time.sleep(0.02)
    return between


def served(
    lake: Lake, at: datetime, *, couriers: list[str | None], missing: tuple[str, ...] = ()
) -> pa.Table:
    """Give what a store would serve that lacks the rows `missing`."""
    spine = pa.table(
        {"courier": pa.array(couriers, pa.string()), "at": pa.array([at] * len(couriers), INSTANT)}
    )

    def read(name: str, /, *, columns: Sequence[str], where: Any) -> pa.Table:
        rows = lake.read(name, columns=columns, where=where)
        return rows.filter(pa.array([each not in missing for each in rows["id"].to_pylist()], pa.bool_()))

    return join_features(spine, [VIEW], read=read)


def verify(lake: Lake, rows: pa.Table, *, limit_us: int = MINUTE_US) -> ViewParity:
    return verify_view(VIEW.spec(), rows, read=lake.read, states=TableStates(lake.url), limit_us=limit_us)


def test_what_offline_gives_agrees(lake: Lake) -> None:
    now = datetime.now(UTC)
    land(lake, 1, trips(0, 3, now - timedelta(hours=2)))
    after = land(lake, 2, trips(3, 2, now - timedelta(hours=1), "ben"))
    found = verify(lake, served(lake, after, couriers=["ada", "ben", "zoe", None]))
    assert (found.rows, found.differing, found.late_us, found.columns) == (4, (), (), ())


def test_a_store_that_was_behind_is_late_and_not_wrong(lake: Lake) -> None:
    now = datetime.now(UTC)
    land(lake, 1, trips(0, 3, now - timedelta(hours=2)))
    before_ben = land(lake, 2, trips(3, 1, now - timedelta(hours=1), "ben"))
    land(lake, 3, trips(4, 1, now - timedelta(minutes=10)))
    after = land(lake, 4, trips(5, 1, now - timedelta(minutes=5)))
    rows = served(lake, after, couriers=["ada", "ben"], missing=("t4", "t5"))
    found = verify(lake, rows)
    assert found.differing == ()
    (late_us,) = found.late_us  # since the commit of t4, the first that ada lacks
    assert 0 < late_us < (after - before_ben) / timedelta(microseconds=1) + 1_000


def test_rows_in_an_order_in_which_they_never_stood_are_wrong(lake: Lake) -> None:
    now = datetime.now(UTC)
    land(lake, 1, trips(0, 3, now - timedelta(hours=2)))
    land(lake, 2, trips(4, 1, now - timedelta(minutes=10)))
    after = land(lake, 3, trips(5, 1, now - timedelta(minutes=5)))
    found = verify(lake, served(lake, after, couriers=["ben", "ada"], missing=("t4",)))  # t5 without t4
    assert found.differing == (1,)
    assert found.columns == ("courier__lately", "courier__minutes_1d", "courier__trips_1d")


def test_a_wrong_value_is_wrong_whatever_the_state(lake: Lake) -> None:
    now = datetime.now(UTC)
    after = land(lake, 1, trips(0, 3, now - timedelta(hours=2)))
    rows = served(lake, after, couriers=["ada", "ada"])
    place = rows.column_names.index("courier__last")
    rows = rows.set_column(place, "courier__last", pa.array([12.0, 12.000001]))
    found = verify(lake, rows)
    assert (found.differing, found.columns, found.late_us) == ((1,), ("courier__last",), ())


def test_a_store_further_behind_than_the_limit_is_wrong(lake: Lake) -> None:
    now = datetime.now(UTC)
    land(lake, 1, trips(0, 3, now - timedelta(hours=2)))
    land(lake, 2, trips(3, 1, now - timedelta(minutes=10)))
    time.sleep(0.3)
    after = land(lake, 3, trips(4, 1, now - timedelta(minutes=5)))
    rows = served(lake, after, couriers=["ada"], missing=("t3", "t4"))
    assert verify(lake, rows).differing == ()
    assert verify(lake, rows, limit_us=100_000).differing == (0,)


def test_a_row_that_happened_while_the_store_was_read_counts_as_known(lake: Lake) -> None:
    now = datetime.now(UTC)
    land(lake, 1, trips(0, 2, now - timedelta(hours=2)))
    asked = datetime.now(UTC)
    later = asked + timedelta(milliseconds=3)
    land(lake, 2, trips(2, 1, later))
    with_it = served(lake, later, couriers=["ada"])
    assert with_it["courier__trips_1d"].to_pylist() == [3]
    at_once = with_it.set_column(1, "at", pa.array([asked], INSTANT))
    assert verify(lake, at_once).differing == ()
    much_later = asked + timedelta(seconds=2)
    land(lake, 3, trips(3, 1, much_later))
    with_more = served(lake, much_later, couriers=["ada"]).set_column(1, "at", pa.array([asked], INSTANT))
    assert verify(lake, with_more).differing == (0,)


def test_many_differing_rows_are_counted_and_not_all_looked_into(lake: Lake) -> None:
    now = datetime.now(UTC)
    after = land(lake, 1, trips(0, 3, now - timedelta(hours=2)))
    rows = served(lake, after, couriers=["ada"] * 60)
    place = rows.column_names.index("courier__last")
    found = verify(lake, rows.set_column(place, "courier__last", pa.array([1.0] * 60)))
    assert (len(found.differing), found.unexamined) == (50, 10)


def test_a_source_that_is_gone_is_said(lake: Lake) -> None:
    now = datetime.now(UTC)
    after = land(lake, 1, trips(0, 1, now - timedelta(hours=2)))
    rows = served(lake, after, couriers=["ada"])
    other = Lake(f"{lake.url}_other", ledger=None)
    with pytest.raises(NotFound, match="trips"):
        verify(other, rows)


def test_nothing_served_is_nothing_compared(lake: Lake) -> None:
    land(lake, 1, trips(0, 1, datetime.now(UTC) - timedelta(hours=2)))
    empty = served(lake, datetime.now(UTC), couriers=["ada"]).slice(0, 0)
    assert verify(lake, empty).rows == 0
