"""One definition, three ways to its value: from the definition in plain Python, offline, and online."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import blake2b
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from noria.clock import from_micros, to_micros
from noria.features import FeatureView, agg
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.declarations import Aggregation, ViewSpec
from noria.features.layout import TierLayout
from noria.features.offline import point_in_time
from noria.features.online import OnlineStore
from noria.lake.declarations import Dataset

HOUR, DAY = 3_600_000_000, 86_400_000_000
ORIGIN = to_micros(datetime(2013, 3, 8, tzinfo=UTC))
INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "event_at": INSTANT,
        "known_at": INSTANT,
        "who": pa.string(),
        "where": pa.int64(),
        "delay": pa.int64(),
        "late": pa.bool_(),
        "price": pa.float64(),
    }
)
FLIGHTS = Dataset("flights", key="id", event_at="event_at", known_at="known_at")
FEATURES: dict[str, Aggregation] = {
    "n_1h": agg.count("1h"),
    "n_90m": agg.count("90m"),
    "n_2d": agg.count("2d"),
    "n_3d": agg.count("3d"),
    "late_6h": agg.mean("late", "6h"),
    "late_5d": agg.mean("late", "5d"),
    "sum_1d": agg.sum("delay", "1d"),
    "sum_7d": agg.sum("delay", "7d"),
    "least_1d": agg.min("delay", "1d"),
    "most_4d": agg.max("delay", "4d"),
    "p90_7d": agg.quantile("delay", 0.9, "7d", low=-20, high=44, width=4),
    "p50_1d": agg.quantile("delay", 0.5, "1d", low=-20, high=44, width=4),
    "p0_3d": agg.quantile("delay", 0, "3d", low=-20, high=44, width=5),
    "price_3d": agg.mean("price", "3d", scale=100),
    "p70_price": agg.quantile("price", 0.7, "4d", low=-1, high=1, width=0.25, scale=100),
    "std_1d": agg.std("delay", "1d"),
    "std_6d": agg.std("price", "6d", scale=100),
    "std_late_3d": agg.std("delay", "3d", where=[("late", "==", True)]),
    "different_2d": agg.distinct("delay", "2d", buckets=16),
    "different_5d": agg.distinct("id", "5d", where=[("price", ">", 0)]),
    "different_prices": agg.distinct("price", "3d", buckets=64),
    "first_2d": agg.first("price", "2d"),
    "first_6d": agg.first("delay", "6d", where=[("late", "!=", True)]),
    "first_late_6d": agg.first("price", "6d", where=[("late", "!=", True)]),
    "late_2d": agg.count("2d", where=[("late", "==", True), ("price", "<=", 0.5)]),
    "mean_some_4d": agg.mean("delay", "4d", where=[("id", "not in", ["a7", "3"])]),
    "most_positive_1d": agg.max("delay", "1d", where=[("price", ">=", 0.01)]),
    "p40_late": agg.quantile("delay", 0.4, "5d", low=-20, high=44, width=4, where=[("late", "==", False)]),
    "last_late": agg.last("delay", max_age="8d", where=[("late", "==", True)]),
    "age_late": agg.age(where=[("late", "==", True)]),
    "faded_n": agg.decayed_count("1d"),
    "faded_late": agg.decayed_count("6h", where=[("late", "==", True)]),
    "faded_price": agg.decayed_sum("price", "2d"),
    "faded_mean": agg.decayed_mean("price", "3h"),
    "last": agg.last("delay"),
    "last_6h": agg.last("price", max_age="6h"),
    "age": agg.age(),
}
BY_WHO = FeatureView("by_who", source=FLIGHTS, entity="who", features=FEATURES)
BY_BOTH = FeatureView("by_both", source=FLIGHTS, entity=("who", "where"), features=FEATURES)
VIEWS = (BY_WHO, BY_BOTH)

Row = Mapping[str, Any]


# --- the definition, as plainly as it can be written --------------------------------------------------


def reference(view: FeatureView, rows: Sequence[Row], spine: Sequence[Row]) -> list[list[float]]:
    """Features straight from the text of `noria.agg`."""
    spec = view.spec()
    features = [each.aggregation for each in spec.features]
    found = []
    for at in spine:
        who, t = _entity(at, spec), at["at"]
        if None in who:
            found.append([math.nan] * len(features))
            continue
        known = [row for row in rows if row["known_at"] <= t and _entity(row, spec) == who]
        found.append([_feature(each, known, t) for each in features])
    return found


def _entity(row: Row, spec: ViewSpec) -> tuple[Any, ...]:
    return tuple(row[name] for name in spec.entity)


def _feature(what: Aggregation, known: Sequence[Row], t: int) -> float:
    visible = [row for row in known if _counts(row, what)] if what.where else known
    if what.half_life_s is not None:
        return _faded(what, visible, t)
    if what.window_s is None:
        return _of_newest(what, visible, t)
    resolution = HOUR if what.window_s <= 172_800 else DAY
    start = (t - what.window_s * 1_000_000) // resolution * resolution
    inside = [row for row in visible if row["event_at"] >= start]
    if what.kind == "count":
        return len(inside)
    if what.kind == "first":
        if not inside:
            return math.nan
        first = min(inside, key=lambda row: (row["event_at"], row["id"].encode()))[str(what.column)]
        return math.nan if first is None else float(first)
    if what.kind == "distinct":
        return _different(
            what, [row[str(what.column)] for row in inside if row[str(what.column)] is not None]
        )
    present: list[float] = [row[str(what.column)] for row in inside if row[str(what.column)] is not None]
    values = sorted(round(value * what.scale) for value in present)
    if what.kind == "sum":
        return sum(values) / what.scale
    if not values:
        return math.nan
    match what.kind:
        case "mean":
            return sum(values) / (len(values) * what.scale)
        case "std":
            if len(values) == 1:
                return math.nan
            mean = Fraction(sum(values), len(values))
            return math.sqrt(sum((each - mean) ** 2 for each in values) / (len(values) - 1)) / what.scale
        case "min":
            return values[0] / what.scale
        case "max":
            return values[-1] / what.scale
    assert what.low is not None and what.width is not None and what.q_millionths is not None
    bins = sorted(min(max((value - what.low) // what.width, 0), what.bins - 1) for value in values)
    rank = max(math.ceil(Fraction(what.q_millionths * len(bins), 1_000_000)), 1)
    return (what.low + bins[rank - 1] * what.width) / what.scale


HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "not in": lambda value, several: value not in several,
}


def _counts(row: Row, what: Aggregation) -> bool:
    return all(
        row[each.column] is not None and HOLDS[each.comparison](row[each.column], each.value)
        for each in what.where
    )


def _different(what: Aggregation, present: Sequence[Any]) -> float:
    assert what.buckets is not None
    texts = (
        {str(int(value)) if value == int(value) else str(value) for value in present}
        if (present and not isinstance(present[0], str))
        else {*present}
    )
    held = {
        int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") % what.buckets
        for text in texts
    }
    return round(-what.buckets * math.log(max(what.buckets - len(held), 0.5) / what.buckets))


def _faded(what: Aggregation, visible: Sequence[Row], t: int) -> float:
    assert what.half_life_s is not None
    weights, total = 0.0, 0.0
    for row in visible:
        value = 1.0 if what.column is None else row[what.column]
        if value is not None:
            weight = 0.5 ** ((t - row["event_at"]) / 1e6 / what.half_life_s)
            weights, total = weights + weight, total + weight * value
    if what.kind != "decayed_mean":
        return total
    return total / weights if weights else math.nan


def _of_newest(what: Aggregation, visible: Sequence[Row], t: int) -> float:
    if not visible:
        return math.nan
    newest = max(visible, key=lambda row: (row["event_at"], row["id"].encode()))
    if what.max_age_s is not None and newest["event_at"] < t - what.max_age_s * 1_000_000:
        return math.nan
    if what.kind == "age":
        return float((t - newest["event_at"]) / 60e6)
    value = newest[str(what.column)]
    return math.nan if value is None else float(value)


# --- random histories ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    rows: list[Row]
    instants: list[int]
    loads: list[bool]  # before which instants the store is loaded anew from what was known then
    slices: list[int]  # how many rows are applied at a time


moments = st.one_of(
    st.integers(0, 14 * 24).map(lambda hours: ORIGIN + hours * HOUR),  # exactly on the edges of tiles
    st.integers(0, 14).map(lambda days: ORIGIN + days * DAY),
    st.integers(0, 14 * DAY).map(lambda micros: ORIGIN + micros),
    st.tuples(st.integers(0, 14 * 24), st.sampled_from((-1, 1))).map(
        lambda each: ORIGIN + each[0] * HOUR + each[1]
    ),
)
delays = st.one_of(
    st.just(0),
    st.integers(0, 8).map(lambda hours: hours * HOUR),
    st.integers(0, 10 * DAY),
    st.integers(0, 3 * HOUR),
)
values = st.none() | st.integers(-30, 60) | st.sampled_from((2**40, -(2**40), 2**31 - 1, -(2**31)))
people = st.sampled_from(("UA", "B6", "", "Žofie ✈", "x" * 700, None))
places = st.sampled_from((0, -7, 2**62, None))


def edges(instants: Sequence[int]) -> st.SearchStrategy[int]:
    """The first instants of windows, and their neighbours: where an off-by-one shows."""
    windows = sorted({each.window_s for each in FEATURES.values() if each.window_s is not None})
    starts = sorted(
        {
            (at - window * 1_000_000) // width * width
            for at in instants
            for window in windows
            for width in (HOUR if window <= 172_800 else DAY,)
        }
    )
    return st.builds(int.__add__, st.sampled_from(starts), st.sampled_from((-1, 0, 0, 1)))


@st.composite
def histories(draw: st.DrawFn) -> History:
    size = draw(st.integers(0, 40))
    rows: list[Row] = []
    instants = sorted(draw(st.lists(moments, min_size=1, max_size=8)))
    happened = moments | edges(instants)
    for at in range(size):
        event_at = draw(happened)
        rows.append(
            {
                "id": draw(st.sampled_from(("", "a", "ä", "é"))) + f"{(at * 7) % 41}",
                "event_at": event_at,
                "known_at": event_at + draw(delays),
                "who": draw(people),
                "where": draw(places),
                "delay": draw(values),
                "late": draw(st.none() | st.booleans()),
                "price": draw(st.none() | st.integers(-200, 200).map(lambda cents: cents / 100)),
            }
        )
    return History(
        rows,
        instants,
        draw(st.lists(st.booleans(), min_size=8, max_size=8)),
        draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)),
    )


def table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {**row, "event_at": from_micros(row["event_at"]), "known_at": from_micros(row["known_at"])}
            for row in rows
        ],
        schema=SCHEMA,
    )


def spine_of(instants: Sequence[int]) -> list[Row]:
    """Everybody, seen and unseen, at every instant, newest first: a spine needs no order."""
    return [
        {"at": at, "who": who, "where": where}
        for at in reversed(instants)
        for who in ("UA", "B6", "", "Žofie ✈", "x" * 700, "nobody", None)
        for where in (0, 2**62, None)
    ]


def spine_table(spine: Sequence[Row]) -> pa.Table:
    return pa.table(
        {
            "at": pa.array([from_micros(each["at"]) for each in spine], INSTANT),
            "who": pa.array([each["who"] for each in spine], pa.string()),
            "where": pa.array([each["where"] for each in spine], pa.int64()),
        }
    )


def matrix(features: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.column_stack([features.column(name).to_numpy() for name in features.column_names])


def replayed(store: OnlineStore, history: History, spine: Sequence[Row]) -> Mapping[str, Any]:
    """Read the spine from a store that is brought up to each instant in turn."""
    rows = table(history.rows)
    prepared = {view.name: store.prepare(view, rows) for view in VIEWS}
    done = dict.fromkeys(prepared, 0)
    sizes = cycle(history.slices)
    values = np.empty((len(spine), 2 * len(FEATURES)))
    for index, at in enumerate(history.instants):
        if history.loads[index] or index == 0:
            since = at if index % 2 else at - HOUR
            for view in VIEWS:
                store.load(view, rows, before=from_micros(since))
                done[view.name] = prepared[view.name].until(since - 1)
        while any(done[name] < each.until(at) for name, each in prepared.items()):
            changes, size = [], next(sizes)
            for view in VIEWS:
                batch, start = prepared[view.name], done[view.name]
                done[view.name] = max(start, min(start + size, batch.until(at)))
                changes.append((view.spec(), batch, start, done[view.name]))
            store.apply(changes, position=at)
            assert store.position() == at
        if index % 3 == 2:
            store.prune(BY_WHO, from_micros(at))
        asked = [place for place, row in enumerate(spine) if row["at"] == at]
        entities = {name: [spine[place][name] for place in asked] for name in ("who", "where")}
        values[asked] = store.read([view.spec() for view in VIEWS], entities, at)
    columns = [name for view in VIEWS for name in view.columns]
    return {name: values[:, at] for at, name in enumerate(columns)}


def assert_same(found: pa.Table | Mapping[str, Any], wanted: np.ndarray[Any, Any], view: FeatureView) -> None:
    for at, name in enumerate(view.columns):
        column = np.asarray(found[name])
        if "faded" in name or "std" in name:  # floats: 1e-9 of what was added
            same = np.isclose(column, wanted[:, at], rtol=1e-9, atol=1e-9, equal_nan=True)
        else:
            same = (column == wanted[:, at]) | (np.isnan(column) & np.isnan(wanted[:, at]))
        assert same.all(), (name, np.flatnonzero(~same)[:5], column[~same][:5], wanted[~same, at][:5])


def compare_all(history: History) -> None:
    spine = spine_of(sorted(set(history.instants)))
    rows = table(history.rows)
    with TemporaryDirectory() as folder, LmdbOnlineStore(Path(folder), map_size=1 << 20) as store:
        online = replayed(store, history, spine)
    for view in VIEWS:
        wanted = np.array(reference(view, history.rows, spine))
        offline = point_in_time(view, rows, spine_table(spine))
        assert_same(offline, wanted, view)
        assert_same(online, wanted, view)
        for name in view.columns:
            if "std" in name:
                np.testing.assert_array_equal(online[name], offline.column(name).to_numpy())


@settings(max_examples=400, deadline=None)
@given(histories())
def test_offline_and_online_are_the_definition_exactly(history: History) -> None:
    compare_all(history)


@pytest.mark.soak
@settings(max_examples=5_000, deadline=None)
@given(histories())
def test_thousands_of_histories_agree(history: History) -> None:
    compare_all(history)


@settings(max_examples=40, deadline=None)
@given(histories(), histories(), st.integers(0, 7))
def test_later_events_change_no_value(history: History, more: History, which: int) -> None:
    at = history.instants[which % len(history.instants)]
    known = [row for row in history.rows if row["known_at"] <= at]
    later = [{**row, "id": f"later {row['id']}"} for row in more.rows if row["known_at"] > at]
    spine = spine_table(spine_of([at]))
    for view in VIEWS:
        before = point_in_time(view, table(known), spine)
        for rows in (known + later, later + history.rows):
            after = point_in_time(view, table(rows), spine)
            assert matrix(after).tobytes() == matrix(before).tobytes()


def _tile_later(layout: TierLayout, at_us: int, window_s: int) -> int:
    return (at_us - window_s * 1_000_000) // layout.width_us + 1


def _tile_earlier(layout: TierLayout, at_us: int, window_s: int) -> int:
    return (at_us - window_s * 1_000_000) // layout.width_us - 1


def _first_later(at_us: Any, window_us: int, width_us: int) -> Any:
    return (at_us - window_us) // width_us + 1


def _first_earlier(at_us: Any, window_us: int, width_us: int) -> Any:
    return (at_us - window_us) // width_us - 1


def _microsecond_late(event_us: Any, width_us: int) -> Any:
    return (event_us + 1) // width_us


def _microsecond_early(event_us: Any, width_us: int) -> Any:
    return (event_us - 1) // width_us


@pytest.mark.parametrize(
    ("where", "mutant"),
    [
        ("noria.features.layout.TierLayout.first_bucket", _tile_later),
        ("noria.features.layout.TierLayout.first_bucket", _tile_earlier),
        ("noria.features.offline.first_tiles", _first_later),
        ("noria.features.offline.first_tiles", _first_earlier),
        ("noria.features.offline.tiles_of", _microsecond_late),
        ("noria.features.offline.tiles_of", _microsecond_early),
    ],
)
def test_a_window_edge_that_is_off_by_one_is_found(
    monkeypatch: pytest.MonkeyPatch, where: str, mutant: Callable[..., Any]
) -> None:
    @settings(max_examples=200, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(histories())
    def the_property(history: History) -> None:
        compare_all(history)

    monkeypatch.setattr(where, mutant)
    with pytest.raises(AssertionError):
        the_property()
