"""The features of one entity from its value in the online store."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from noria.errors import StoreError
from noria.features.declarations import Aggregation, AggregationKind, ViewSpec
from noria.features.layout import Histogram, layout_of, sums_of
from noria.features.online_format import (
    DAY_PRUNED,
    GREATEST,
    HOUR_PRUNED,
    LAST_HEADER,
    LEAST,
    VALUE_HEADER,
    VALUE_MAGIC,
    tile_key,
)

__all__ = ["ViewPlan"]

_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class _Op:
    """How one feature comes from two tiles."""

    kind: AggregationKind
    place: int  # of the tier: 0 hours, 1 days
    window: int  # which of the plan's windows
    word: int  # of the counter, the sum or the extremum; position in the last row
    seen: int  # word of the count of a mean
    divisor: int
    counts: int  # first count of the histogram
    histogram: Histogram | None
    q: int
    max_age_us: int | None


class ViewPlan:
    """How a view is read."""

    def __init__(self, spec: ViewSpec, path: Path) -> None:
        self.spec, self.name, self.path = spec, spec.name, path
        self.layout = layout_of(spec)
        self.width = len(spec.features)
        self.checked = False
        self.tiers = (self.layout.hour, self.layout.day)
        self.windows: list[tuple[int, int]] = []  # (tier, window_s)
        self.ops = [self._op(feature.aggregation) for feature in spec.features]
        zero = (AggregationKind.COUNT, AggregationKind.SUM)
        self.empty = [0.0 if op.kind in zero else _NAN for op in self.ops]
        self.missing = [_NAN] * self.width

    def damaged(self) -> StoreError:
        """Give the error for a value that cannot be."""
        return StoreError(
            f"the online store {self.path} holds a damaged value in view {self.name!r}; load the view again"
        )

    def _op(self, aggregation: Aggregation) -> _Op:
        kind, layout = aggregation.kind, self.layout
        word = seen = counts = place = 0
        histogram = None
        tier, window = aggregation.tier, -1
        if tier is None:
            if aggregation.column is not None:
                word = layout.last_columns.index(aggregation.column)
        else:
            place = 0 if tier is layout.hour.tier else 1
            mine = self.tiers[place]
            pair = (place, aggregation.window_s or 0)
            if pair not in self.windows:
                self.windows.append(pair)
            window = self.windows.index(pair)
            if kind is AggregationKind.QUANTILE:
                histogram = Histogram.of(aggregation)
                counts = mine.count_of(histogram)
            else:
                name = {AggregationKind.COUNT: "rows", AggregationKind.MEAN: "sum"}.get(kind, str(kind))
                word = mine.word_of(sums_of(aggregation, name))
            if kind is AggregationKind.MEAN:
                seen = mine.word_of(sums_of(aggregation, "seen"))
        max_age = aggregation.max_age_s
        return _Op(
            kind=kind,
            place=place,
            window=window,
            word=word,
            seen=seen,
            divisor=aggregation.scale,
            counts=counts,
            histogram=histogram,
            q=aggregation.q_millionths or 0,
            max_age_us=None if max_age is None else max_age * 1_000_000,
        )

    def read(
        self, txn: lmdb.Transaction, database: Any, column: Sequence[bytes | None], at_us: int
    ) -> list[list[float]]:
        """Give a row of features per entity of `column`; each entity is looked up once."""
        starts = [self.tiers[place].first_bucket(at_us, window_s) for place, window_s in self.windows]
        known: dict[bytes | None, list[float]] = {None: self.missing}
        rows = []
        for entity in column:
            row = known.get(entity)
            if row is None:
                assert entity is not None
                raw = txn.get(entity, db=database)
                row = (
                    self.empty
                    if raw is None
                    else self._features(_Value(self, txn, database, entity, raw), starts, at_us)
                )
                known[entity] = row
            rows.append(row)
        return rows

    def _features(self, value: "_Value", starts: Sequence[int], at_us: int) -> list[float]:
        spans = [value.span(place, start) for (place, _), start in zip(self.windows, starts, strict=True)]
        words = value.words
        features = []
        for op, empty in zip(self.ops, self.empty, strict=True):
            kind, word = op.kind, op.word
            if op.window < 0:
                features.append(value.of_last(op, at_us))
                continue
            base, first, newest = spans[op.window]
            if first > newest:
                features.append(empty)
            elif kind is AggregationKind.QUANTILE:
                features.append(value.quantile(op, base, newest))
            elif kind is AggregationKind.MIN or kind is AggregationKind.MAX:
                step = self.tiers[op.place].words
                column = words[first + word : newest + word + 1 : step]
                extreme = min(column) if kind is AggregationKind.MIN else max(column)
                features.append(_NAN if extreme in (GREATEST, LEAST) else float(extreme) / op.divisor)
            else:
                total = words[newest + word] - (words[base + word] if base >= 0 else 0)
                if kind is AggregationKind.MEAN:
                    seen = words[newest + op.seen] - (words[base + op.seen] if base >= 0 else 0)
                    features.append(float(total) / float(seen * op.divisor) if seen else _NAN)
                else:
                    features.append(float(total) / op.divisor)
        return features


class _Value:
    """An entity's value, opened."""

    __slots__ = ("_counts", "_database", "_entity", "_plan", "_raw", "_starts", "_txn", "words")

    def __init__(self, plan: ViewPlan, txn: lmdb.Transaction, database: Any, entity: bytes, raw: Any) -> None:
        self._plan, self._txn, self._database, self._entity, self._raw = plan, txn, database, entity, raw
        self._counts: dict[tuple[int, int], Any] = {}
        words: Any = raw.cast("q") if len(raw) % 8 == 0 else ()
        if len(words) < VALUE_HEADER or words[0] != VALUE_MAGIC:
            raise plan.damaged()
        hours, days, pruned, last_words = words[1], words[2], words[3], words[4]
        hour_at = VALUE_HEADER + last_words
        day_at = hour_at + hours * plan.tiers[0].words
        if len(words) != day_at + days * plan.tiers[1].words:
            raise plan.damaged()
        self.words = words
        self._starts = ((hour_at, hours, pruned & HOUR_PRUNED), (day_at, days, pruned & DAY_PRUNED))

    def span(self, place: int, start: int) -> tuple[int, int, int]:
        """Find the word where the tile before a window begins (-1: none), its first and the newest tile."""
        at, tiles, pruned = self._starts[place]
        if not tiles:
            return -1, 0, -1
        step = self._plan.tiers[place].words
        first = bisect_left(self.words[at : at + tiles * step : step], start)
        if pruned and not first:  # what the oldest tile holds includes dropped ones
            first = 1
        return at + (first - 1) * step if first else -1, at + first * step, at + (tiles - 1) * step

    def of_last(self, op: _Op, at_us: int) -> float:
        """Give a column or the age, in minutes, of the last row."""
        words = self.words
        if not words[4]:
            return _NAN
        event_us = words[VALUE_HEADER]
        if op.max_age_us is not None and event_us < at_us - op.max_age_us:
            return _NAN
        if op.kind is AggregationKind.AGE:
            return float((at_us - event_us) / 60e6)
        first = VALUE_HEADER + LAST_HEADER + (words[VALUE_HEADER + 1] + 7) // 8
        return float(self._raw.cast("d")[first + op.word])

    def quantile(self, op: _Op, base: int, newest: int) -> float:
        """Search the first bin whose cumulative count between two tiles reaches the rank."""
        histogram = op.histogram
        assert histogram is not None
        upper = self._counts_of(op.place, newest)
        lower = self._counts_of(op.place, base) if base >= 0 else None
        low, high = op.counts, op.counts + histogram.bins - 1
        total = upper[high] if lower is None else (upper[high] - lower[high]) & 0xFFFF_FFFF
        if not total:
            return _NAN
        rank = max(-(-op.q * total // 1_000_000), 1)
        while low < high:
            middle = (low + high) >> 1
            below = upper[middle] if lower is None else (upper[middle] - lower[middle]) & 0xFFFF_FFFF
            if below >= rank:
                high = middle
            else:
                low = middle + 1
        return (histogram.low + (low - op.counts) * histogram.width) / op.divisor

    def _counts_of(self, place: int, at: int) -> Any:
        found = self._counts.get((place, at))
        if found is None:
            tier = self._plan.tiers[place]
            raw: Any = self._txn.get(tile_key(tier, self._entity, self.words[at]), db=self._database)
            if raw is None or len(raw) != 4 * tier.counts:
                raise self._plan.damaged()
            found = self._counts[place, at] = raw.cast("I")
        return found
