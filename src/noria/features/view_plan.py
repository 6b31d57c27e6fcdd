"""The features of one entity from its value in the online store.

This is the innermost loop of serving, so it is written for speed: what can be known from the view's
definition is laid out beforehand as plain tuples, by tier and window.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp2
from operator import sub
from typing import Any

import numpy as np
import numpy.typing as npt

from noria.errors import StoreDamaged
from noria.features.apart import PENDING, Apart, opened
from noria.features.declarations import Aggregation, AggregationKind, FeatureType, Tier, ViewSpec
from noria.features.finishing import LEAST_WEIGHT, deviation, different_values
from noria.features.kept_rows import split_rows
from noria.features.last_plan import LastPlan
from noria.features.layout import Histogram, TierLayout, decayed_of, layout_of, sums_of
from noria.features.online_format import (
    DAY_PRUNED,
    GREATEST,
    HOUR_PRUNED,
    LEAST,
    MINUTE_PRUNED,
    NARROW,
    NEWEST,
    VALUE,
    VALUE_MAGIC,
    WIDE,
    values_key,
)
from noria.features.value_plan import Value, ValuePlan

__all__ = ["PENDING", "FeatureValues", "ViewPlan"]


FeatureValues = npt.NDArray[np.float64] | list[Value]

_NAN = float("nan")
_MANY = 8  # entities, from which on arrays are quicker than lists
_ZERO_WHEN_EMPTY = (
    AggregationKind.COUNT,
    AggregationKind.SUM,
    AggregationKind.DISTINCT,
    AggregationKind.DECAYED_COUNT,
    AggregationKind.DECAYED_SUM,
)
_APART = (AggregationKind.FIRST, AggregationKind.QUANTILE, AggregationKind.DISTINCT)


class ViewPlan:
    """How a view is read."""

    def __init__(self, spec: ViewSpec, place: str) -> None:
        self.spec, self.name, self.place = spec, spec.name, place
        self.layout = layout_of(spec)
        numbers = [feature for feature in spec.features if feature.type == FeatureType.NUMBER]
        self.width = len(numbers)
        self.is_checked = False
        # (feature, what stands where it would be NaN)
        self._defaults = [
            (at, float(each.default)) for at, each in enumerate(numbers) if isinstance(each.default, float)
        ]
        kinds = [feature.aggregation.kind for feature in numbers]
        self._empty = [0.0 if kind in _ZERO_WHEN_EMPTY else _NAN for kind in kinds]
        self._missing = self._completed([_NAN] * self.width)
        self._none = self._completed(self._empty.copy())
        self._minute = _TierPlan(self.layout.minute)
        self._counts_minutes = self.layout.minute.words > 0
        self._hour, self._day = _TierPlan(self.layout.hour), _TierPlan(self.layout.day)
        self._values = ValuePlan(self.spec, self.layout, opened=self.open, damaged=self.damaged)
        self._last_widths = [len(each.columns) for each in self.layout.lasts]
        # (feature, group, column or -1 for the age, max_age_us)
        self._lasts: list[tuple[int, int, int, int | None]] = []
        # (feature, sum, weight or -1, half-life of each in microseconds)
        self._decayed: list[tuple[int, int, int, float]] = []
        tiers = dict(zip(Tier, (self._minute, self._hour, self._day), strict=True))
        for at, feature in enumerate(numbers):
            aggregation = feature.aggregation
            if aggregation.tier is not None:
                tiers[aggregation.tier].plan(at, aggregation)
            elif aggregation.half_life_s is not None:
                total, *weight = (self.layout.decayed.index(each) for each in decayed_of(aggregation))
                half_life_us = aggregation.half_life_s * 1e6
                self._decayed.append((at, total, weight[0] if weight else -1, half_life_us))
            else:
                self._lasts.append((at, *self._of_last(aggregation)))
        self._many: LastPlan | None = None  # reads many entities at once
        if LastPlan.fits(self.layout, self.width, len(self._lasts)):
            self._many = LastPlan(self.layout, self._lasts, self._defaults, self.damaged)

    def _of_last(self, aggregation: Aggregation) -> tuple[int, int, int | None]:
        group, kept = next(
            (at, each) for at, each in enumerate(self.layout.lasts) if each.where == aggregation.where
        )
        column = -1 if aggregation.column is None else kept.columns.index(aggregation.column)
        max_age_us = None if aggregation.max_age_s is None else aggregation.max_age_s * 1_000_000
        return group, column, max_age_us

    def read(
        self, get: Callable[[bytes], Any], column: Sequence[bytes | None], at_us: int
    ) -> list[list[float]] | npt.NDArray[np.float64]:
        """Give a row of features per entity of `column`; each entity is looked up once.

        `get` gives the value of a key as a memoryview, `None` where there is none, and `PENDING` where it
        does not know yet what lies beside an entity's own value: the rows are of no use then, but all that
        they need has been asked for.
        """
        if self._many is not None and len(column) >= _MANY:
            return self._many.read(get, column, at_us)
        hour_starts, day_starts = self._hour.starts(at_us), self._day.starts(at_us)
        minute_starts = self._minute.starts(at_us) if self._counts_minutes else []
        known: dict[bytes | None, list[float]] = {None: self._missing}
        for entity in column:
            if entity in known:
                continue
            assert entity is not None
            raw: Any = get(entity)
            if raw is None:
                known[entity] = self._none
                continue
            known[entity] = features = self._empty.copy()
            last, decayed, minutes, hours, days, pruned = self.open(raw)
            apart = Apart(self.damaged, get, entity)
            if minutes:
                self._minute.read(features, minutes, pruned & MINUTE_PRUNED, minute_starts, apart)
            if hours:
                self._hour.read(features, hours, pruned & HOUR_PRUNED, hour_starts, apart)
            if days:
                self._day.read(features, days, pruned & DAY_PRUNED, day_starts, apart)
            if last:
                self._read_lasts(features, last, at_us)
            if decayed:
                self._read_decayed(features, decayed, at_us)
            if self._defaults:
                self._completed(features)
        return [known[entity] for entity in column]

    def keys_of(self, entity: bytes) -> tuple[bytes, ...]:
        """Give the keys that `read_values` is sure to ask for."""
        return (entity, values_key(entity)) if self.layout.values else (entity,)

    def read_values(
        self, get: Callable[[bytes], Any], column: Sequence[bytes | None], at_us: int
    ) -> dict[str, FeatureValues]:
        """Give all features by column, of an entity each: numbers as an array, the others as lists."""
        numbers = np.array(self.read(get, column, at_us), dtype=np.float64).reshape(len(column), self.width)
        values = self._values.read(get, column, at_us)
        made: dict[str, FeatureValues] = {}
        at_number = at_value = 0
        for name, feature in zip(self.spec.columns, self.spec.features, strict=True):
            if feature.type == FeatureType.NUMBER:
                made[name] = numbers[:, at_number]
                at_number += 1
            else:
                made[name] = [row[at_value] for row in values]
                at_value += 1
        return made

    def _completed(self, features: list[float]) -> list[float]:
        for at, default in self._defaults:
            if features[at] != features[at]:  # NaN
                features[at] = default
        return features

    def open(self, raw: Any) -> tuple[Any, Any, Any, Any, Any, int]:
        """Give the last rows, what decays, the words of each tier's tiles, and which tiers were pruned."""
        if len(raw) < VALUE.size:
            raise self.damaged()
        magic, minutes, hours, days, pruned, last_bytes, decayed_bytes = VALUE.unpack_from(raw)
        width = NARROW if magic == VALUE_MAGIC[NARROW] else WIDE
        size = 4 if width == NARROW else 8
        decayed_at = VALUE.size + last_bytes
        hour_at = minute_at = decayed_at + decayed_bytes
        if minutes:
            hour_at += size * minutes * self.layout.minute.words
        day_at = hour_at + size * hours * self.layout.hour.words
        end = day_at + size * days * self.layout.day.words
        if len(raw) != end or (width == WIDE and magic != VALUE_MAGIC[WIDE]):
            raise self.damaged()
        last = raw[VALUE.size : decayed_at] if last_bytes else None
        decayed = raw[decayed_at:minute_at] if decayed_bytes else None
        minute_words = raw[minute_at:hour_at].cast(width) if minutes else None
        hour_words = raw[hour_at:day_at].cast(width) if hours else None
        day_words = raw[day_at:end].cast(width) if days else None
        return last, decayed, minute_words, hour_words, day_words, pruned

    def damaged(self) -> StoreDamaged:
        """Give the error that something of the view cannot be read."""
        return StoreDamaged(
            f"the online store {self.place} holds a damaged value in view {self.name!r}; load the view again"
        )

    def _read_lasts(self, features: list[float], raw: Any, at_us: int) -> None:
        rows = [opened(each) for each in split_rows(raw, self._last_widths)]
        for at, group, column, max_age_us in self._lasts:
            row = rows[group]
            if row is not None and (max_age_us is None or row[0] >= at_us - max_age_us):
                features[at] = (at_us - row[0]) / 60e6 if column < 0 else row[1][column]

    def _read_decayed(self, features: list[float], raw: Any, at_us: int) -> None:
        age_us = min(NEWEST.unpack_from(raw)[0] - at_us, 0)  # a clock that was set back adds nothing
        sums = raw[NEWEST.size :].cast("d")
        for at, total, weight, half_life_us in self._decayed:
            if weight < 0:
                features[at] = sums[total] * exp2(age_us / half_life_us)
            elif sums[weight] * exp2(age_us / half_life_us) > LEAST_WEIGHT:
                features[at] = sums[total] / sums[weight]


@dataclass(slots=True)
class _WindowPlan:
    """The features of one window: where each goes and which totals it is made of."""

    window_s: int
    sums: list[tuple[int, int, int]] = field(default_factory=list)  # (feature, total, divisor)
    # (feature, sum, rows, missing ones, divisor)
    means: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    extrema: list[tuple[int, int, bool, int]] = field(default_factory=list)
    # (feature, first count, histogram, q in millionths, divisor)
    quantiles: list[tuple[int, int, Histogram, int, int]] = field(default_factory=list)
    distincts: list[tuple[int, int, int]] = field(default_factory=list)  # (feature, first count, buckets)
    # (feature, totals: sum, squares high and low, rows, missing ones, scale)
    deviations: list[tuple[int, tuple[int, ...], int]] = field(default_factory=list)
    firsts: list[tuple[int, int, int, int]] = field(default_factory=list)  # (feature, rows, group, column)
    reads_apart: bool = False


class _TierPlan:
    """The windows over one tier's tiles."""

    def __init__(self, layout: TierLayout) -> None:
        self._layout = layout
        self._totals = len(layout.additive)
        self._windows: list[_WindowPlan] = []

    def plan(self, at: int, aggregation: Aggregation) -> None:
        """Add the feature at position `at`."""
        layout, scale = self._layout, aggregation.scale
        window = self._window(aggregation.window_s or 0)
        window.reads_apart |= aggregation.kind in _APART
        match aggregation.kind:
            case AggregationKind.COUNT:
                window.sums.append((at, layout.word_of(sums_of(aggregation, "rows")) - 1, 1))
            case AggregationKind.SUM:
                window.sums.append((at, layout.word_of(sums_of(aggregation, "sum")) - 1, scale))
            case AggregationKind.MEAN:
                total, rows, missing = (
                    layout.word_of(sums_of(aggregation, kind)) - 1 for kind in ("sum", "rows", "missing")
                )
                window.means.append((at, total, rows, missing, scale))
            case AggregationKind.STD:
                kinds = ("sum", "square_high", "square_low", "rows", "missing")
                sums = tuple(layout.word_of(sums_of(aggregation, kind)) - 1 for kind in kinds)
                window.deviations.append((at, sums, scale))
            case AggregationKind.FIRST:
                group, kept = next(
                    (at, each) for at, each in enumerate(layout.firsts) if each.where == aggregation.where
                )
                rows = layout.word_of(sums_of(aggregation, "rows")) - 1
                window.firsts.append((at, rows, group, kept.columns.index(aggregation.column or "")))
            case AggregationKind.DISTINCT:
                histogram = Histogram.of(aggregation)
                window.distincts.append((at, layout.count_of(histogram), histogram.bins))
            case AggregationKind.QUANTILE:
                histogram, q = Histogram.of(aggregation), aggregation.q_millionths or 0
                window.quantiles.append((at, layout.count_of(histogram), histogram, q, scale))
            case kind:
                word = layout.word_of(sums_of(aggregation, str(kind)))
                window.extrema.append((at, word, kind is AggregationKind.MIN, scale))

    def _window(self, window_s: int) -> _WindowPlan:
        for window in self._windows:
            if window.window_s == window_s:
                return window
        self._windows.append(_WindowPlan(window_s))
        return self._windows[-1]

    def starts(self, at_us: int) -> list[int]:
        """Give the oldest bucket of each window at `at_us`."""
        return [self._layout.first_bucket(at_us, window.window_s) for window in self._windows]

    def read(
        self,
        features: list[float],
        words: Any,
        pruned: int,
        starts: list[int],
        apart: Apart,
    ) -> None:
        """Fill in the features of the windows that hold any of the tiles in `words`."""
        step, totals = self._layout.words, self._totals
        buckets = words[::step].tolist()
        newest_at = len(words) - step
        newest = words[newest_at + 1 : newest_at + 1 + totals].tolist()
        for window, start in zip(self._windows, starts, strict=True):
            first = bisect_left(buckets, start)
            if pruned and not first:
                first = 1  # what the oldest tile holds includes dropped ones
            if first >= len(buckets):
                continue
            inside = newest
            if first:
                before = (first - 1) * step + 1
                inside = list(map(sub, newest, words[before : before + totals].tolist()))
            for at, total, divisor in window.sums:
                features[at] = float(inside[total]) / divisor
            for at, total, rows, missing, divisor in window.means:
                seen = inside[rows] - inside[missing]
                if seen:
                    features[at] = float(inside[total]) / (seen * divisor)
            for at, word, is_min, divisor in window.extrema:
                values = words[first * step + word :: step].tolist()
                value = min(values) if is_min else max(values)
                if value != (GREATEST if is_min else LEAST)[words.format]:
                    features[at] = value / divisor
            for at, (total, high, low, rows, missing), divisor in window.deviations:
                seen = inside[rows] - inside[missing]
                features[at] = deviation(seen, inside[total], inside[high], inside[low], divisor)
            if window.reads_apart:
                _read_apart(features, window, _Tiles(self._layout, words, buckets, first), apart)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """The tiles of an entity, and which is the first in the window."""

    layout: TierLayout
    words: Any
    buckets: list[int]
    first: int


def _read_apart(features: list[float], window: _WindowPlan, tiles: _Tiles, apart: Apart) -> None:
    """Fill in the features of what lies beside the words."""
    layout, buckets, first = tiles.layout, tiles.buckets, tiles.first
    for at, rows, group, column in window.firsts:  # the oldest tile of the window that counted a row has it
        counted = tiles.words[1 + rows :: layout.words].tolist()
        before = counted[first - 1] if first else 0
        if counted[-1] == before:
            continue
        row = apart.firsts(layout, buckets[bisect_right(counted, before)])[group]
        if row is None:
            raise apart.damaged()
        features[at] = row[1][column]
    if window.quantiles or window.distincts:
        upper = apart.counts(layout, buckets[-1])
        lower = apart.counts(layout, buckets[first - 1]) if first else None
        for at, count, histogram, q, divisor in window.quantiles:
            features[at] = _quantile(upper, lower, count, histogram, q) / divisor
        for at, count, bins in window.distincts:
            features[at] = _distinct(upper, lower, count, bins)


def _quantile(upper: Any, lower: Any, first: int, histogram: Histogram, q: int) -> float:
    """Search the first bin whose cumulative count between two tiles reaches the rank."""
    low, high = first, first + histogram.bins - 1
    total = upper[high] if lower is None else (upper[high] - lower[high]) & 0xFFFF_FFFF
    if not total:
        return _NAN
    rank = max(-(-q * total // 1_000_000), 1)
    while low < high:
        middle = (low + high) >> 1
        below = upper[middle] if lower is None else (upper[middle] - lower[middle]) & 0xFFFF_FFFF
        if below >= rank:
            high = middle
        else:
            low = middle + 1
    return histogram.low + (low - first) * histogram.width


def _distinct(upper: Any, lower: Any, first: int, buckets: int) -> float:
    """Estimate the number of different values between two tiles."""
    counts = np.asarray(upper[first : first + buckets], dtype=np.uint32)
    if lower is not None:
        counts = counts - np.asarray(lower[first : first + buckets], dtype=np.uint32)
    return different_values(counts, buckets)
