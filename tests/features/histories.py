"""Random histories of entities, many at once: what happened to one does not touch another.

All are asked at the same instants, so a store is brought up to each of them once for all of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from tests.features.definition import DAY, HOUR, MINUTE, STATUSES, VIEWS, Row, reference

from noria.clock import from_micros, to_micros
from noria.features import FeatureView
from noria.features.declarations import FeatureType, Tier
from noria.features.offline import point_in_time
from noria.features.online import OnlineStore

__all__ = ["AT_ONCE", "Histories", "assert_same", "compare", "draw", "spine_table", "table"]

AT_ONCE = 25
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
        "status": pa.string(),
        "vector": pa.list_(pa.float32()),
    }
)
_DAYS = ((2013, 3, 8), (2013, 3, 8), (1969, 12, 27), (1901, 1, 1))
ORIGINS = [to_micros(datetime(*day, tzinfo=UTC)) for day in _DAYS]
_EXTREME = (2**40, -(2**40), 2**31 - 1, -(2**31))
_FEATURES = [each for view in VIEWS for each in view.spec().features]
_WINDOWS = sorted(
    {
        (each.aggregation.window_s, each.aggregation.tier.seconds * 1_000_000)
        for each in _FEATURES
        if each.aggregation.window_s is not None and each.aggregation.tier is not None
    }
)
_AGES = sorted({each.aggregation.max_age_s for each in _FEATURES if each.aggregation.max_age_s is not None})


@dataclass(frozen=True)
class Histories:
    """The rows of several entities, in no order, and when they are asked for."""

    rows: list[Row]
    instants: list[int]
    loads: list[bool]  # before which instants the store is loaded anew from what was known then
    slices: list[int]  # how many rows are applied at a time
    people: list[str]

    def spine(self) -> list[Row]:
        """Give everybody, seen and unseen, at every instant, newest first: a spine needs no order."""
        return [
            {"at": at, "who": who, "where": where}
            for at in reversed(self.instants)
            for who, where in [
                *((who, (number * 7919 + at) % 2) for number, who in enumerate(self.people)),
                (self.people[0], None),
                (self.people[-1], 2**62),
                ("nobody", 0),
                (None, 1),
            ]
        ]


def draw(seed: int, size: int = AT_ONCE) -> Histories:
    """Draw the histories of `size` entities."""
    random = Random(seed)
    origin = random.choice(ORIGINS)
    instants = sorted({_moment(random, origin) for _ in range(random.randint(1, 6))})
    starts = [(at - window * 1_000_000) // width * width for at in instants for window, width in _WINDOWS]
    starts += [at - age * 1_000_000 for at in instants for age in _AGES]
    people = [f"{name}{number}" for number, name in zip(range(size), cycle(("", "Žofie ✈", "x" * 700)))]
    rows: list[dict[str, Any]] = []
    for who in people:
        mine: list[int] = []
        for _ in range(random.choice((0, 1, 2, 3, 5, 8, 13))):
            mine.append(_happened(random, origin, starts, mine))
            rows.append(
                {
                    "id": "",
                    "event_at": mine[-1],
                    "known_at": _known(random, mine[-1], instants),
                    "who": who,
                    "where": random.choice((0, 0, 1, 2**62, None)),
                    "delay": _delay(random),
                    "late": random.choice((None, True, True, False)),
                    "price": random.choice((None, math.nan, *[random.randint(-200, 200) / 100] * 2)),
                    "status": random.choice((None, *STATUSES, "elsewhere", "")),
                    "vector": _vector(random),
                }
            )
    random.shuffle(rows)
    for at, row in enumerate(rows):
        row["id"] = f"{random.choice(('', 'a', 'ä', 'é'))}{at}"
        if random.random() < 0.02:
            row["who"] = None
    loads = [random.random() < 0.3 for _ in instants]
    return Histories([*rows], instants, loads, [random.randint(1, 30) for _ in range(5)], people)


def _moment(random: Random, origin: int) -> int:
    match random.randrange(4):
        case 0:
            return origin + random.randrange(14 * 24) * HOUR + random.choice((-1, 0, 0, 1))
        case 1:
            return origin + random.randrange(14) * DAY + random.choice((-1, 0, 0, 1))
        case 2:
            return origin + random.randrange(14 * 24 * 60) * MINUTE + random.choice((-1, 0, 0, 1))
        case _:
            return origin + random.randrange(14 * DAY)


def _happened(random: Random, origin: int, starts: Sequence[int], mine: Sequence[int]) -> int:
    """Give an instant: where an off-by-one shows, at once with another row of the entity, or anywhere."""
    match random.randrange(8):
        case 0 | 1 | 2:
            return random.choice(starts) + random.choice((-1, 0, 0, 1))
        case 3 | 4 if mine:
            return random.choice(mine)
        case 5 if mine:
            return random.choice(mine) + random.choice((-1, 1, MINUTE, -HOUR))
        case _:
            return _moment(random, origin)


def _known(random: Random, event_at: int, instants: Sequence[int]) -> int:
    match random.randrange(6):
        case 0 | 1:
            return event_at
        case 2:
            return event_at + random.randint(0, 8) * HOUR
        case 3:
            return event_at + random.randrange(10 * DAY)
        case 4:
            return max(event_at, random.choice(instants) + random.choice((-1, 0, 1)))
        case _:
            return event_at + random.randrange(3 * HOUR)


def _delay(random: Random) -> int | None:
    match random.randrange(8):
        case 0:
            return None
        case 1:
            return random.choice(_EXTREME)
        case 2 | 3 | 4:
            return random.randint(-3, 3)
        case _:
            return random.randint(-30, 60)


def _vector(random: Random) -> list[float] | None:
    third = random.choice((math.nan, float(random.randint(0, 1000))))
    return random.choice((None, [random.randint(-8, 8) / 4, 0.0, third]))


def table(rows: Sequence[Row]) -> pa.Table:
    """Give rows as Arrow has them."""
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    for name in ("event_at", "known_at"):
        columns[name] = pa.array(columns[name], pa.int64()).cast(INSTANT)
    return pa.table(columns, schema=SCHEMA)


def spine_table(spine: Sequence[Row]) -> pa.Table:
    """Give a spine as Arrow has it."""
    return pa.table(
        {
            "at": pa.array([each["at"] for each in spine], pa.int64()).cast(INSTANT),
            "who": pa.array([each["who"] for each in spine], pa.string()),
            "where": pa.array([each["where"] for each in spine], pa.int64()),
        }
    )


def replayed(store: OnlineStore, given: Histories, spine: Sequence[Row]) -> Mapping[str, list[Any]]:
    """Read the spine from a store that is brought up to each instant in turn."""
    rows, specs = table(given.rows), [view.spec() for view in VIEWS]
    prepared = {view.name: store.prepare(view, rows) for view in VIEWS}
    done = dict.fromkeys(prepared, 0)
    sizes = cycle(given.slices)
    values: dict[str, list[Any]] = {name: [None] * len(spine) for spec in specs for name in spec.columns}
    for index, at in enumerate(given.instants):
        if given.loads[index] or index == 0:
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
            for view in VIEWS:
                store.prune(view, from_micros(at))
        asked = [place for place, row in enumerate(spine) if row["at"] == at]
        entities = {name: [spine[place][name] for place in asked] for name in ("who", "where")}
        _read(store, entities, at, asked, values)
    return values


def _read(
    store: OnlineStore,
    entities: Mapping[str, Any],
    at: int,
    asked: Sequence[int],
    values: dict[str, list[Any]],
) -> None:
    """Read all features, and the numbers once more on their own."""
    specs = [view.spec() for view in VIEWS]
    found = {name: column for each in store.read_values(specs, entities, at) for name, column in each.items()}
    numbers = store.read(specs, entities, at)
    for name, column in found.items():
        for place, value in zip(asked, column, strict=True):
            values[name][place] = value
    names = [name for spec in specs for name in spec.number_columns]
    assert np.column_stack([np.asarray(found[name]) for name in names]).tobytes() == numbers.tobytes()


def assert_same(
    found: Mapping[str, Sequence[Any]],
    wanted: Sequence[Sequence[Any]],
    view: FeatureView,
    spine: Sequence[Row],
) -> None:
    """Hold columns against rows of the definition; what differs is told with who and when it was."""
    for at, (name, feature) in enumerate(zip(view.columns, view.spec().features, strict=True)):
        column, right = found[name], [row[at] for row in wanted]
        if feature.type == FeatureType.NUMBER:
            one, other = np.asarray(column, dtype=np.float64), np.asarray(right, dtype=np.float64)
            if "faded" in name or "std" in name:  # floats: 1e-9 of what was added
                same = np.isclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)
            else:
                same = (one == other) | (np.isnan(one) & np.isnan(other))
        else:
            same = np.array(
                [repr(_plain(one)) == repr(_plain(other)) for one, other in zip(column, right, strict=True)],
                np.bool_,  # NaN in a vector is NaN
            )
        if not same.all():
            place = int(np.flatnonzero(~same)[0])
            raise AssertionError(f"{name} of {spine[place]} is {column[place]!r}, wanted {right[place]!r}")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def compare(given: Histories, store: OnlineStore) -> None:
    """Hold offline and a store against the definition."""
    spine = given.spine()
    rows = table(given.rows)
    online = replayed(store, given, spine)
    for view in VIEWS:
        wanted = reference(view, given.rows, spine)
        computed = point_in_time(view, rows, spine_table(spine))
        offline = {
            name: column.to_numpy() if pa.types.is_floating(column.type) else column.to_pylist()
            for name, column in zip(computed.column_names, computed.columns, strict=True)
        }
        assert_same(offline, wanted, view, spine)
        assert_same(online, wanted, view, spine)
        for name in view.columns:
            if "std" in name:
                np.testing.assert_array_equal(online[name], offline[name])


assert {tier for _, tier in _WINDOWS} == {each.seconds * 1_000_000 for each in Tier}
