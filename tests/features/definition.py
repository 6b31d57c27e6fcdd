"""Every kind of feature, and its value straight from the text of `noria.agg`, as plain as can be."""

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from noria.clock import parse_duration
from noria.features import FeatureView, agg
from noria.features.declarations import Aggregation, Default, FeatureType, ViewSpec
from noria.lake.declarations import Dataset

__all__ = ["DAY", "FLIGHTS", "HOUR", "MINUTE", "STATUSES", "VIEWS", "reference"]

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
FLIGHTS = Dataset("flights", key="id", event_at="event_at", known_at="known_at")
STATUSES = ("boarding", "landed", "lost", "écarté")
FEATURES: dict[str, Aggregation] = {
    "n_10m": agg.count("10m"),
    "n_1h": agg.count("1h"),
    "n_1h_by_minute": agg.count("1h", resolution="minute"),
    "n_90m": agg.count("90m"),
    "n_2d": agg.count("2d"),
    "n_3d": agg.count("3d"),
    "late_6h": agg.mean("late", "6h"),
    "late_5d": agg.mean("late", "5d"),
    "late_40m": agg.mean("late", "40m"),
    "sum_1d": agg.sum("delay", "1d"),
    "sum_7d": agg.sum("delay", "7d"),
    "sum_1m": agg.sum("delay", "1m", where=[("late", "==", True)]),
    "least_1d": agg.min("delay", "1d"),
    "least_3h_by_minute": agg.min("delay", "3h", resolution="minute"),
    "most_4d": agg.max("delay", "4d"),
    "p90_7d": agg.quantile("delay", 0.9, "7d", low=-20, high=44, width=4),
    "p50_1d": agg.quantile("delay", 0.5, "1d", low=-20, high=44, width=4),
    "p0_3d": agg.quantile("delay", 0, "3d", low=-20, high=44, width=5),
    "p50_30m": agg.quantile("delay", 0.5, "30m", low=-20, high=44, width=4),
    "price_3d": agg.mean("price", "3d", scale=100),
    "p70_price": agg.quantile("price", 0.7, "4d", low=-1, high=1, width=0.25, scale=100),
    "std_1d": agg.std("delay", "1d"),
    "std_6d": agg.std("price", "6d", scale=100),
    "std_late_3d": agg.std("delay", "3d", where=[("late", "==", True)]),
    "std_2h_by_minute": agg.std("delay", "2h", resolution="minute"),
    "different_2d": agg.distinct("delay", "2d", buckets=16),
    "different_5d": agg.distinct("id", "5d", where=[("price", ">", 0)]),
    "different_prices": agg.distinct("price", "3d", buckets=64),
    "different_59m": agg.distinct("status", "59m", buckets=32),
    "first_2d": agg.first("price", "2d"),
    "first_6d": agg.first("delay", "6d", where=[("late", "!=", True)]),
    "first_late_6d": agg.first("price", "6d", where=[("late", "!=", True)]),
    "first_25m": agg.first("delay", "25m"),
    "not_half_2d": agg.count("2d", where=[("price", "!=", 0.5), ("price", "not in", [0, -1])]),
    "late_2d": agg.count("2d", where=[("late", "==", True), ("price", "<=", 0.5)]),
    "mean_some_4d": agg.mean("delay", "4d", where=[("status", "not in", ["lost", "landed"])]),
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
    "status": agg.last_text("status"),
    "status_late_7h": agg.last_text("status", max_age="7h", where=[("late", "==", True)]),
    "vector": agg.embedding("vector", 3),
    "vector_9h": agg.embedding("vector", 3, max_age="9h"),
    "top_7d": agg.top("status", 2, "7d", values=STATUSES[:3]),
    "top_1d": agg.top("delay", 3, "1d", values=[-3, -2, -1, 0, 1, 2, 3]),
    "top_20m": agg.top("status", 1, "20m", values=STATUSES, where=[("price", ">", 0)]),
}
DEFAULTS: dict[str, Default] = {
    "late_5d": 0.25,
    "last_late": -1,
    "p50_30m": 7,
    "n_3d": 2,
    "faded_mean": 0.5,
    "status_late_7h": "unknown",
    "vector_9h": (1.0, -2.5, 0.0),
    "top_20m": ("landed",),
}
_FEW = [
    *("n_10m", "n_2d", "late_5d", "p90_7d", "first_2d"),
    *("status", "vector", "last", "age", "last_6h", "top_1d"),
]
BY_WHO = FeatureView("by_who", source=FLIGHTS, entity="who", features=FEATURES)
WHO_WHERE = ("who", "where")
BY_BOTH = FeatureView("by_both", source=FLIGHTS, entity=WHO_WHERE, features=FEATURES, defaults=DEFAULTS)
LIMITED = FeatureView(
    "limited", source=FLIGHTS, entity="who", features={name: FEATURES[name] for name in _FEW}, ttl="7d"
)
LATEST = FeatureView(  # the last row of each, and nothing beside it
    "latest", source=FLIGHTS, entity="who", defaults={"last_6h": 0.5},
    features={name: FEATURES[name] for name in ("last", "last_6h", "age")},
)  # fmt: skip
TOLD = FeatureView(  # no number at all
    "told", source=FLIGHTS, entity=WHO_WHERE, ttl="11d", defaults={"status": ""},
    features={name: FEATURES[name] for name in ("status", "vector", "vector_9h")},
)  # fmt: skip
VIEWS = (BY_WHO, BY_BOTH, LIMITED, LATEST, TOLD)

Row = Mapping[str, Any]


def reference(view: FeatureView, rows: Sequence[Row], spine: Sequence[Row]) -> list[list[Any]]:
    """Give a row of features per row of the spine; NaN or None where there is no value.

    From what the view was declared with: its spec has the time-to-live and the defaults worked in.
    """
    spec = view.spec()
    limit = math.inf if view.ttl is None else parse_duration(view.ttl).total_seconds() * 1e6
    features = [(name, FEATURES[name]) for name in view.features]
    by_entity: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        price = None if row["price"] != row["price"] else row["price"]  # NaN is missing
        by_entity.setdefault(_entity(row, spec), []).append({**row, "price": price})
    found: dict[tuple[Any, ...], list[Any]] = {}
    for at in spine:
        who, t = _entity(at, spec), at["at"]
        if (who, t) not in found:
            known = [row for row in by_entity.get(who, ()) if row["known_at"] <= t]
            young = [row for row in known if row["event_at"] >= t - limit]
            found[who, t] = [
                _completed(
                    view.defaults.get(name),
                    _nothing(what)
                    if None in who
                    else _feature(what, young if what.window_s is None else known, t),
                )
                for name, what in features
            ]
    return [found[_entity(at, spec), at["at"]] for at in spine]


def _entity(row: Row, spec: ViewSpec) -> tuple[Any, ...]:
    return tuple(row[name] for name in spec.entity)


def _nothing(what: Aggregation) -> float | None:
    return math.nan if what.type == FeatureType.NUMBER else None


def _completed(default: Default | None, value: Any) -> Any:
    if default is None or not (value is None or value != value):
        return value
    return list(default) if isinstance(default, tuple) else default


def _feature(what: Aggregation, known: Sequence[Row], t: int) -> Any:
    visible = [row for row in known if _counts(row, what)] if what.where else known
    if what.half_life_s is not None:
        return _faded(what, visible, t)
    if what.window_s is None:
        return _of_newest(what, visible, t)
    start = _start(what, t)
    inside = [row for row in visible if row["event_at"] >= start]
    if what.kind == "count":
        return len(inside)
    if what.kind == "first":
        if not inside:
            return math.nan
        first = min(inside, key=lambda row: (row["event_at"], row["id"].encode()))[str(what.column)]
        return math.nan if first is None else float(first)
    present: list[Any] = [row[str(what.column)] for row in inside if row[str(what.column)] is not None]
    if what.kind == "distinct":
        return _different(what, present)
    if what.kind == "top":
        counted = Counter(each for each in present if each in what.values)
        return sorted(counted, key=lambda each: (-counted[each], each))[: what.k] or None
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


def _start(what: Aggregation, t: int) -> int:
    assert what.window_s is not None
    if what.window_s < 3_600 or what.resolution is not None:
        width = MINUTE
    else:
        width = HOUR if what.window_s <= 172_800 else DAY
    return (t - what.window_s * 1_000_000) // width * width


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
    held = {_hash(_text(each)) % what.buckets for each in set(present)}
    return round(-what.buckets * math.log(max(what.buckets - len(held), 0.5) / what.buckets))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(int(value)) if value == int(value) else str(value)


@lru_cache(maxsize=10_000)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


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
    return total / weights if weights > 1e-300 else math.nan


def _of_newest(what: Aggregation, visible: Sequence[Row], t: int) -> Any:
    nothing = _nothing(what)
    if not visible:
        return nothing
    newest = max(visible, key=lambda row: (row["event_at"], row["id"].encode()))
    if what.max_age_s is not None and newest["event_at"] < t - what.max_age_s * 1_000_000:
        return nothing
    if what.kind == "age":
        return float((t - newest["event_at"]) / 60e6)
    value = newest[str(what.column)]
    if what.type != FeatureType.NUMBER:
        return value
    return nothing if value is None else float(value)
