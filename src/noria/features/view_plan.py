"""The features of one entity from its value in the online store.

This is the innermost loop of serving, so it is written for speed: what can be known from the view's
definition is laid out beforehand as plain tuples, by tier and window.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import sub
from pathlib import Path
from typing import Any

import lmdb

from noria.errors import StoreError
from noria.features.declarations import Aggregation, AggregationKind, ViewSpec
from noria.features.layout import Histogram, TierLayout, layout_of, sums_of
from noria.features.online_format import (
    DAY_PRUNED,
    GREATEST,
    HOUR_PRUNED,
    LAST,
    LEAST,
    NARROW,
    VALUE,
    VALUE_MAGIC,
    WIDE,
    tile_key,
)

__all__ = ["ViewPlan"]

_NAN = float("nan")
_ZERO_WHEN_EMPTY = (AggregationKind.COUNT, AggregationKind.SUM)


class ViewPlan:
    """How a view is read."""

    def __init__(self, spec: ViewSpec, path: Path) -> None:
        self.spec, self.name, self.path = spec, spec.name, path
        self.layout = layout_of(spec)
        self.width = len(spec.features)
        self.is_checked = False
        kinds = [feature.aggregation.kind for feature in spec.features]
        self._empty = [0.0 if kind in _ZERO_WHEN_EMPTY else _NAN for kind in kinds]
        self._missing = [_NAN] * self.width
        self._hour, self._day = _TierPlan(self.layout.hour), _TierPlan(self.layout.day)
        self._last: list[tuple[int, int, int | None]] = []  # (feature, column or -1 for the age, max_age_us)
        for at, feature in enumerate(spec.features):
            aggregation = feature.aggregation
            if aggregation.tier is None:
                self._last.append((at, *self._of_last(aggregation)))
            else:
                tier = self._hour if aggregation.tier is self.layout.hour.tier else self._day
                tier.plan(at, aggregation)

    def _of_last(self, aggregation: Aggregation) -> tuple[int, int | None]:
        column = -1 if aggregation.column is None else self.layout.last_columns.index(aggregation.column)
        return column, None if aggregation.max_age_s is None else aggregation.max_age_s * 1_000_000

    def read(
        self, txn: lmdb.Transaction, database: Any, column: Sequence[bytes | None], at_us: int
    ) -> list[list[float]]:
        """Give a row of features per entity of `column`; each entity is looked up once."""
        hour_starts, day_starts = self._hour.starts(at_us), self._day.starts(at_us)
        known: dict[bytes | None, list[float]] = {None: self._missing}
        for entity in column:
            if entity in known:
                continue
            assert entity is not None
            raw: Any = txn.get(entity, db=database)
            if raw is None:
                known[entity] = self._empty
                continue
            known[entity] = features = self._empty.copy()
            last, hours, days, pruned = self._open(raw)

            def counts_of(tier: TierLayout, bucket: int, entity: bytes = entity) -> Any:
                return self._counts(txn.get(tile_key(tier, entity, bucket), db=database), tier)

            if hours:
                self._hour.read(features, hours, pruned & HOUR_PRUNED, hour_starts, counts_of)
            if days:
                self._day.read(features, days, pruned & DAY_PRUNED, day_starts, counts_of)
            if self._last and last:
                self._read_last(features, last, at_us)
        return [known[entity] for entity in column]

    def _open(self, raw: Any) -> tuple[Any, Any, Any, int]:
        """Give the last row, the words of the hour and of the day tiles, and which tiers were pruned."""
        if len(raw) < VALUE.size:
            raise self._damaged()
        magic, hours, days, pruned, last_bytes, _ = VALUE.unpack_from(raw)
        width = NARROW if magic == VALUE_MAGIC[NARROW] else WIDE
        size = 4 if width == NARROW else 8
        hour_at = VALUE.size + last_bytes
        day_at = hour_at + size * hours * self.layout.hour.words
        end = day_at + size * days * self.layout.day.words
        if len(raw) != end or (width == WIDE and magic != VALUE_MAGIC[WIDE]):
            raise self._damaged()
        last = raw[VALUE.size : hour_at] if last_bytes else None
        hour_words = raw[hour_at:day_at].cast(width) if hours else None
        return last, hour_words, raw[day_at:end].cast(width) if days else None, pruned

    def _counts(self, raw: Any, tier: TierLayout) -> Any:
        if raw is None or len(raw) != 4 * tier.counts:
            raise self._damaged()
        return raw.cast("I")

    def _damaged(self) -> StoreError:
        return StoreError(
            f"the online store {self.path} holds a damaged value in view {self.name!r}; load the view again"
        )

    def _read_last(self, features: list[float], last: Any, at_us: int) -> None:
        event_us, key_bytes = LAST.unpack_from(last)
        values = last[LAST.size + key_bytes + -key_bytes % 8 :].cast("d")
        for at, column, max_age_us in self._last:
            if max_age_us is None or event_us >= at_us - max_age_us:
                features[at] = (at_us - event_us) / 60e6 if column < 0 else values[column]


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
        match aggregation.kind:
            case AggregationKind.COUNT:
                window.sums.append((at, layout.word_of(sums_of(aggregation, "rows")) - 1, 1))
            case AggregationKind.SUM:
                window.sums.append((at, layout.word_of(sums_of(aggregation, "sum")) - 1, scale))
            case AggregationKind.MEAN:
                kinds = ("sum", "rows", "missing")
                total, rows, missing = (layout.word_of(sums_of(aggregation, kind)) - 1 for kind in kinds)
                window.means.append((at, total, rows, missing, scale))
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
        counts_of: Callable[[TierLayout, int], Any],
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
            if window.quantiles:
                upper = counts_of(self._layout, buckets[-1])
                lower = counts_of(self._layout, buckets[first - 1]) if first else None
                for at, count, histogram, q, divisor in window.quantiles:
                    features[at] = _quantile(upper, lower, count, histogram, q) / divisor


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
