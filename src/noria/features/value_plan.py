"""The features of one entity that are no numbers, from what lies in the online store."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from noria.errors import StoreDamaged
from noria.features.apart import PENDING, Apart
from noria.features.declarations import FeatureSpec, FeatureType, Plain, ViewSpec
from noria.features.kept_values import decode_values, vector_of
from noria.features.layout import Histogram, Layout, TierLayout
from noria.features.online_format import DAY_PRUNED, HOUR_PRUNED, MINUTE_PRUNED, values_key

__all__ = ["Value", "ValuePlan"]

Value = str | npt.NDArray[np.float32] | list[Plain] | None

_LACKING = object()
_PRUNED = (MINUTE_PRUNED, HOUR_PRUNED, DAY_PRUNED)


class ValuePlan:
    """How the texts, vectors and lists of a view are read."""

    def __init__(
        self,
        spec: ViewSpec,
        layout: Layout,
        *,
        opened: Callable[[Any], tuple[Any, ...]],
        damaged: Callable[[], StoreDamaged],
    ) -> None:
        self._layout, self._opened, self._damaged = layout, opened, damaged
        features = [each for each in spec.features if each.type != FeatureType.NUMBER]
        self._defaults = [_default(each) for each in features]
        self._latest: list[_Latest] = []
        self._tops: list[_Top] = []
        for at, feature in enumerate(features):
            aggregation = feature.aggregation
            if feature.type == FeatureType.LIST:
                tier = next(
                    number for number, each in enumerate(layout.tiers) if each.tier == aggregation.tier
                )
                first = layout.tiers[tier].count_of(Histogram.of(aggregation))
                window_s, k = aggregation.window_s or 0, aggregation.k or 0
                self._tops.append(_Top(at, tier, window_s, first, k, aggregation.values))
            else:
                group, kept = next(
                    (number, each)
                    for number, each in enumerate(layout.values)
                    if each.where == aggregation.where
                )
                column = kept.columns.index((aggregation.column or "", aggregation.dimensions or 0))
                max_age_us = None if aggregation.max_age_s is None else aggregation.max_age_s * 1_000_000
                self._latest.append(_Latest(at, group, column, max_age_us, aggregation.dimensions or 0))

    def read(
        self, get: Callable[[bytes], Any], column: Sequence[bytes | None], at_us: int
    ) -> list[list[Value]]:
        """Give a row of values per entity of `column`, as `ViewPlan.read` does of numbers."""
        known: dict[bytes | None, list[Value]] = {None: self._defaults}
        for entity in column:
            if entity not in known:
                assert entity is not None
                values: list[Value] = [None] * len(self._defaults)
                if self._latest:
                    self._read_latest(values, get(values_key(entity)), at_us)
                if self._tops:
                    self._read_tops(values, get, entity, at_us)
                known[entity] = [
                    default if value is None else value
                    for value, default in zip(values, self._defaults, strict=True)
                ]
        return [known[entity] for entity in column]

    def _read_latest(self, values: list[Value], raw: Any, at_us: int) -> None:
        if raw is None or raw is PENDING:
            return
        try:
            rows = decode_values(raw)
        except msgspec.DecodeError as err:
            raise self._damaged() from err
        for each in self._latest:
            if each.group >= len(rows):
                raise self._damaged()
            row = rows[each.group]
            if row is None or (each.max_age_us is not None and row[0] < at_us - each.max_age_us):
                continue
            value = row[2][each.column] if each.column < len(row[2]) else _LACKING
            if isinstance(value, bytes) and len(value) == 4 * each.dimensions:
                values[each.at] = vector_of(value)
            elif isinstance(value, str | None) and (value is None or not each.dimensions):
                values[each.at] = value
            else:
                raise self._damaged()

    def _read_tops(self, values: list[Value], get: Callable[[bytes], Any], entity: bytes, at_us: int) -> None:
        raw = get(entity)
        if raw is None:
            return
        _, _, *tiers, pruned = self._opened(raw)
        apart = Apart(self._damaged, get, entity)
        for each in self._tops:
            words, layout = tiers[each.tier], self._layout.tiers[each.tier]
            if words:
                values[each.at] = each.read(words, layout, pruned & _PRUNED[each.tier], apart, at_us)


@dataclass(frozen=True, slots=True)
class _Latest:
    """The value of the row that happened last."""

    at: int
    group: int
    column: int
    max_age_us: int | None
    dimensions: int


@dataclass(frozen=True, slots=True)
class _Top:
    """The most frequent values of a window."""

    at: int
    tier: int
    window_s: int
    first: int  # count of the histogram
    k: int
    values: tuple[Plain, ...]

    def read(self, words: Any, layout: TierLayout, pruned: int, apart: Apart, at_us: int) -> Value:
        buckets = words[:: layout.words].tolist()
        first = bisect_left(buckets, layout.first_bucket(at_us, self.window_s))
        if pruned and not first:
            first = 1  # what the oldest tile holds includes dropped ones
        if first >= len(buckets):
            return None
        cumulative = self._counts(layout, apart, buckets[-1])
        if first:
            cumulative = cumulative - self._counts(layout, apart, buckets[first - 1])
        counts = np.diff(cumulative.astype(np.int64), prepend=0)
        places = np.argsort(-counts, kind="stable")[: self.k].tolist()
        return [self.values[place] for place in places if counts[place]] or None

    def _counts(self, layout: TierLayout, apart: Apart, bucket: int) -> npt.NDArray[np.uint32]:
        counts = apart.counts(layout, bucket)[self.first : self.first + len(self.values)]
        return np.asarray(counts, dtype=np.uint32)


def _default(feature: FeatureSpec) -> Value:
    default = feature.default
    if isinstance(default, tuple):
        is_vector = feature.type == FeatureType.VECTOR
        return np.array(default, dtype=np.float32) if is_vector else list(default)
    return default if isinstance(default, str) else None
