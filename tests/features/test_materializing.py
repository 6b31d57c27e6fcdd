"""Feature rows in the lake, day by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from noria.errors import SourceError
from noria.features import FeatureView, agg
from noria.features.materialize import materialize, with_features
from noria.lake.declarations import Dataset
from noria.lake.store import Lake

START = datetime(2013, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
VISITS = Dataset("visits", key="id", event_at="event_at", known_at="known_at")
WEATHER = Dataset("weather", key="id", event_at="event_at", known_at="known_at")
BY_PLACE = FeatureView(
    "by_place",
    source=VISITS,
    entity="place",
    features={"n_1d": agg.count("1d"), "mean_4d": agg.mean("size", "4d"), "age": agg.age(max_age="1d")},
)
SKY = FeatureView(
    "sky", source=WEATHER, entity="place", features={"size": agg.last("size"), "age": agg.age()}
)


@dataclass(frozen=True)
class Columns:
    id: str = "visit"
    at: str = "asked_at"


@dataclass(frozen=True)
class Request:
    spine: Columns
    features: tuple[FeatureView, ...]


REQUEST = Request(Columns(), (BY_PLACE, SKY))


def events(size: int, seed: int) -> pa.Table:
    draw = Random(seed)
    happened = [START + timedelta(hours=draw.random() * 24 * 12) for _ in range(size)]
    return pa.table(
        {
            "id": pa.array(range(size)),
            "event_at": pa.array(happened, INSTANT),
            "known_at": pa.array(
                [each + timedelta(hours=draw.choice((0, 1, 90))) for each in happened], INSTANT
            ),
            "place": pa.array([draw.choice("abc") for _ in range(size)]),
            "size": pa.array([draw.randrange(9) for _ in range(size)]),
        }
    )


def spine_rows(first: int, last: int) -> pa.Table:
    at = [START + timedelta(days=first, hours=hour) for hour in range(0, 24 * (last - first), 2)]
    return pa.table(
        {
            "visit": pa.array([f"{each:%d %H}" for each in at]),
            "asked_at": pa.array(at, INSTANT),
            "place": pa.array(["abcd"[index % 4] for index in range(len(at))]),
            "guests": pa.array(range(len(at))),
        }
    )


class Tables:
    """Sources in memory that note what was read of them."""

    def __init__(self, tables: dict[str, pa.Table]) -> None:
        self.tables, self.rows_read = tables, 0

    def __call__(self, name: str, /, *, columns: Sequence[str], where: ds.Expression) -> pa.Table:
        found = ds.dataset(self.tables[name]).to_table(columns=list(columns), filter=where)
        self.rows_read += found.num_rows if name == "visits" else 0
        return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), ledger=None)


def same(left: pa.Table, right: pa.Table) -> bool:
    """Compare all bytes: a NaN equals itself here."""
    return all(repr(left[name].to_pylist()) == repr(right[name].to_pylist()) for name in COLUMNS)


def feature_rows(lake: Lake) -> pa.Table:
    return lake.read("rows").sort_by([("at", "ascending"), ("id", "ascending")]).select(COLUMNS)


COLUMNS = ["id", "at", "place", *BY_PLACE.columns, *SKY.columns]


def test_day_by_day_is_all_at_once_and_a_day_again_adds_nothing(lake: Lake) -> None:
    sources = Tables({"visits": events(900, 1), "weather": events(100, 2)})
    for day in (*range(12), 5, 11):
        made = materialize(lake, "rows", spine_rows(day, day + 1), REQUEST, batch=day, read=sources)
        assert made.column_names[:4] == ["id", "at", "place", "guests"]
    assert same(feature_rows(lake), with_features(spine_rows(0, 12), REQUEST, read=sources))


def test_later_events_change_no_feature_row(lake: Lake) -> None:
    visits, weather = events(900, 1), events(100, 2)
    end = pa.scalar(START + timedelta(days=6), INSTANT)
    known = {
        "visits": visits.filter(pc.field("known_at") < end),
        "weather": weather.filter(pc.field("known_at") < end),
    }
    before = with_features(spine_rows(0, 6), REQUEST, read=Tables(known))
    after = with_features(spine_rows(0, 6), REQUEST, read=Tables({"visits": visits, "weather": weather}))
    assert same(before, after)


def test_only_rows_that_a_window_can_hold_are_read() -> None:
    sources = Tables({"visits": events(900, 1), "weather": events(100, 2)})
    with_features(spine_rows(11, 12), REQUEST, read=sources)
    assert 0 < sources.rows_read < 900 * 7 / 12


def test_the_lake_itself_is_read_without_a_reader(lake: Lake) -> None:
    for name, rows in (("visits", events(300, 1)), ("weather", events(50, 2))):
        lake.append(name, rows, batch=1, app_id="test")
    made = materialize(lake, "rows", spine_rows(3, 4), REQUEST, batch=3)
    assert made["by_place__n_1d"].null_count == 0
    assert lake.last_batch("rows", "features") == 3


def test_no_rows_are_no_batch(lake: Lake) -> None:
    nothing = materialize(lake, "rows", spine_rows(0, 0), REQUEST, batch=1, read=Tables({}))
    assert nothing.num_rows == 0
    assert nothing.column_names == ["id", "at", "place", "guests", *BY_PLACE.columns, *SKY.columns]


def test_a_spine_without_its_columns_is_a_source_error(lake: Lake) -> None:
    wrong: Any = spine_rows(0, 1).drop_columns(["visit"])
    with pytest.raises(SourceError, match="'visit'"):
        materialize(lake, "rows", wrong, REQUEST, batch=1, read=Tables({}))
