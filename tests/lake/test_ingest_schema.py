from collections.abc import Callable
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from noria.errors import ConfigError, SourceError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake

Day = Callable[..., pa.Table]

SCHEMA = {
    "flight": "string",
    "carrier": "string",
    "distance": "int64",
    "delay": "double",
    "departed_at": "timestamp[us, tz=UTC]",
    "landed_at": "timestamp[us, tz=UTC]",
}


def flights(**changes: Any) -> Dataset:
    given: dict[str, Any] = {"key": "flight", "event_at": "departed_at", "known_at": "landed_at", **changes}
    return Dataset("flights", **given)


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("distance", ["100", "x"], "column 'distance' is string, wanted int64"),
        ("distance", [1.5, 2.0], "column 'distance' is double, wanted int64, which cannot hold"),
        ("distance", [True, False], "column 'distance' is bool, wanted int64"),
        ("carrier", [1, 2], "column 'carrier' is int64, wanted string"),
        ("departed_at", pa.array([1, 2], pa.timestamp("us")), r"timestamp\[us\] without a time zone, wanted"),
        ("departed_at", pa.array([1, 2], pa.timestamp("ns", "UTC")), r"'departed_at' is timestamp\[ns"),
        ("departed_at", ["2013-01-01", "2013-01-02"], "column 'departed_at' is string"),
        ("delay", [2**60 + 1, 1], "'delay' is int64, wanted double, which cannot hold"),
    ],
)
def test_a_wrong_type_is_told_with_column_found_and_wanted(
    lake: Lake, day: Day, column: str, values: Any, told: str
) -> None:
    rows = day(1, 2)
    place = rows.column_names.index(column)
    rows = rows.set_column(place, column, values if isinstance(values, pa.Array) else pa.array(values))
    with pytest.raises(SourceError, match=f"'flights': .*{told}"):
        lake.ingest(flights(schema=SCHEMA), rows, batch=1)
    assert lake.names() == []


def test_types_that_lose_nothing_are_taken(lake: Lake, day: Day) -> None:
    rows = day(
        1,
        2,
        flight=pa.array(["a", "b"]).dictionary_encode(),
        carrier=pa.array(["AA", "UA"], pa.large_string()),
        distance=pa.array([7.0, float("nan")]),
        delay=pa.array([1, 2], pa.int8()),
        departed_at=pa.array([0, 1], pa.timestamp("s", "America/New_York")),
        landed_at=pa.array([0, 1_000_000_000], pa.timestamp("ns", "UTC")),
    )
    lake.ingest(flights(schema=SCHEMA), rows, batch=1)
    landed = lake.read("flights")
    assert [str(each.type) for each in landed.schema] == list(SCHEMA.values())
    assert landed["distance"].to_pylist() == [7, None]
    assert landed["departed_at"].to_pylist()[1] == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_the_first_batch_sets_the_types_where_none_are_declared(lake: Lake, day: Day) -> None:
    lake.ingest(flights(), day(1, 2, distance=pa.array([1, 2], pa.uint16())), batch=1)
    assert lake.schema("flights").field("distance").type == pa.int32()
    with pytest.raises(SourceError, match="'distance' is string, wanted int32"):
        lake.ingest(flights(), day(2, 2, distance=["x", "y"]), batch=2)
    all_null = day(2, 2, delay=pa.nulls(2))
    assert lake.ingest(flights(), all_null, batch=2).state == "landed"


def test_columns_are_neither_lost_nor_slipped_in(lake: Lake, day: Day) -> None:
    lake.ingest(flights(), day(1), batch=1)
    with pytest.raises(SourceError, match="lacks column delay; found flight"):
        lake.ingest(flights(), day(2).drop(["delay"]), batch=2)
    with pytest.raises(SourceError, match=r"has column wind.*declare it in the dataset's schema"):
        lake.ingest(flights(), day(2, wind=[1.0] * 20), batch=2)
    with pytest.raises(SourceError, match="more than once"):
        lake.ingest(flights(), day(2).append_column("delay", day(2)["delay"]), batch=2)
    assert lake.read("flights").num_rows == 20


def test_a_newly_declared_column_is_added_and_null_before(lake: Lake, day: Day) -> None:
    lake.ingest(flights(schema=SCHEMA), day(1, 2), batch=1)
    wider = flights(schema={**SCHEMA, "wind": "double"})
    lake.ingest(wider, day(2, 2, wind=[1.0, 2.0]), batch=2)
    assert lake.read("flights")["wind"].to_pylist() == [None, None, 1.0, 2.0]
    assert lake.read("flights", version=1).column_names == list(SCHEMA)
    with pytest.raises(ConfigError, match="declares 'distance' as string, its table has int64"):
        lake.ingest(flights(schema={**SCHEMA, "wind": "double", "distance": "string"}), day(3, 2), batch=3)


def test_missing_declared_columns_and_odd_frames_are_told(lake: Lake, day: Day) -> None:
    with pytest.raises(SourceError, match="lacks column 'departed_at', which its declaration names"):
        lake.ingest(flights(), day(1).drop(["departed_at"]), batch=1)
    with pytest.raises(SourceError, match=r"'departed_at' is timestamp\[us\], wanted"):
        lake.ingest(flights(), day(1, 1, departed_at=pa.array([0], pa.timestamp("us"))), batch=1)
    with pytest.raises(SourceError, match="given a list, which is no frame"):
        lake.ingest(flights(), [1, 2], batch=1)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="nothing but nulls; declare its type"):
        lake.ingest(flights(), day(1, 2, delay=pa.nulls(2)), batch=1)
    with pytest.raises(SourceError, match="'delay' is time64"):
        lake.ingest(flights(), day(1, 1, delay=pa.array([1], pa.time64("us"))), batch=1)
    with pytest.raises(SourceError, match="declare known_at='known_at'"):
        plain = Dataset("flights", key="flight", event_at="departed_at")
        lake.ingest(plain, day(1, 1, known_at=["x"]), batch=1)
    assert lake.names() == []


def test_any_arrow_frame_is_taken(lake: Lake, day: Day) -> None:
    source = day(1)
    relation = duckdb.connect().from_arrow(source)
    assert lake.ingest(flights(), relation, batch=1).accepted == 20
    (record_batch,) = day(2).to_batches()
    assert lake.ingest(flights(), record_batch, batch=2).accepted == 20


def test_local_clock_times_dates_lists_and_bytes_are_kept(lake: Lake, day: Day) -> None:
    extra = {
        "local": pa.array([1, 2], pa.timestamp("ms")),
        "born": pa.array([0, 86_400_000], pa.date64()),
        "tags": pa.array([["a"], None], pa.large_list(pa.string())),
        "raw": pa.array([b"\x00", None], pa.large_binary()),
        "price": pa.array([1, 2], pa.decimal128(10, 2)),
        "flag": pa.array(np.array([True, False])),
    }
    lake.ingest(flights(), day(1, 2, **extra), batch=1)
    lake.ingest(flights(), day(2, 2, **extra), batch=2)
    kept = lake.read("flights")
    assert kept["tags"].to_pylist() == [["a"], None] * 2
    assert str(kept.schema.field("local").type) == "timestamp[us]"


def test_declarations_that_cannot_be_are_refused() -> None:
    for wrong in ("9lives", "a b", "flights__x", ""):
        with pytest.raises(ConfigError, match="cannot name a dataset"):
            Dataset(wrong, key="k", event_at="t")
    with pytest.raises(ConfigError, match="give one pattern as a text"):
        Dataset("d", key="k", event_at="t", files=["a/*.csv", "b/*.csv"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has no key"):
        Dataset("d", key=(), event_at="t")
    with pytest.raises(ConfigError, match="max_rejected_share is 2"):
        Dataset("d", key="k", event_at="t", max_rejected_share=2)
    with pytest.raises(ConfigError, match="looks at no rows"):
        Dataset("d", key="k", event_at="t", checks=["between"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="the schema lacks k, t"):
        Dataset("d", key="k", event_at="t", schema={"x": "int64"})


def test_a_type_that_is_none_is_told(lake: Lake, day: Day) -> None:
    with pytest.raises(ConfigError, match=r"flights\.distance: 'integer64' is no column type"):
        lake.ingest(flights(schema={**SCHEMA, "distance": "integer64"}), day(1), batch=1)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pa.array([{}, {}], pa.struct([])), "holds objects without any field"),
        (pa.nulls(2, reduce(lambda kind, _: pa.list_(kind), range(17), pa.int64())), "is nested 17 levels"),
        (pa.array([1, 2]).cast(pa.decimal256(60, 2)), r"is decimal256\(60, 2\), which a table cannot hold"),
    ],
)
def test_what_no_table_can_hold_is_told(lake: Lake, day: Day, values: pa.Array, told: str) -> None:
    with pytest.raises(SourceError, match=f"column 'more' {told}"):
        lake.ingest(flights(), day(1, 2).append_column("more", values), batch=1)
    assert lake.names() == []
