"""Features as of any instant in the past, for whole tables at once.

A row counts at the instants from which it is known until its tile has left the window. On a spine sorted by
entity and instant that is one interval per row and window, so a counter is a difference array that is summed
up along the spine, whatever the order in which rows became known. All of it is integer arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pyarrow as pa

from noria.errors import SourceError
from noria.features.columns import (
    Bools,
    Floats,
    Ints,
    column_type,
    entity_codes,
    instants,
    key_bytes,
    spec_of,
)
from noria.features.declarations import (
    Aggregation,
    AggregationKind,
    Conditions,
    FeatureSpec,
    FeatureType,
    FeatureView,
    ViewSpec,
)
from noria.features.fading import Fading, faded_between
from noria.features.finishing import LEAST_WEIGHT, deviations, estimates
from noria.features.layout import Decayed, Histogram, Sums, decayed_of, sums_of
from noria.features.measuring import Measures
from noria.features.replaced import replaced_from
from noria.features.spine import SortedSpine, sort_together
from noria.features.value_columns import feature_type, or_default

__all__ = ["point_in_time"]

_CELLS = 1_000_000  # of a histogram in memory at once


def point_in_time(view: FeatureView | ViewSpec, rows: pa.Table, spine: pa.Table) -> pa.Table:
    """Compute the features of `view` at every row of `spine`.

    Parameters
    ----------
    view : FeatureView or ViewSpec
        What to compute.
    rows : Table
        The source's rows, in any order; later ones than the spine needs change nothing.
    spine : Table
        Has the view's entity columns and `at`, timestamps with a time zone.

    Returns
    -------
    Table
        One column `<view>__<feature>` per feature, as long as the spine and in its order: float64, text,
        lists of so many float32, or lists of texts or whole numbers.

    Raises
    ------
    SourceError
        If a column is missing or has the wrong type, or a row was known before it happened.
    """
    spec = spec_of(view)
    kernel = _Kernel(spec, rows, spine)
    wanted = zip(spec.columns, spec.features, strict=True)
    # Window by window: what one needs of every row is a few times the column.
    by_window = sorted(wanted, key=lambda each: _order_of(each[1].aggregation))
    made = {name: kernel.column(feature) for name, feature in by_window}
    return pa.table({name: made[name] for name in spec.columns})


@dataclass(frozen=True)
class _Intervals:
    """From which spine position to before which each row counts; from and before the same: not at all."""

    start: Ints
    stop: Ints

    @cached_property
    def rows(self) -> Ints:
        """Give the rows that count anywhere, shortest intervals first: those of one length class together."""
        length = self.stop - self.start
        levels = (np.frexp(length.astype(np.float64))[1]).astype(np.uint8)
        order = np.argsort(levels, kind="stable")
        return order[np.searchsorted(levels[order], 1) :]


class _Kernel:
    """One view over one spine; what several features share is computed once."""

    def __init__(self, spec: ViewSpec, rows: pa.Table, spine: pa.Table) -> None:
        at = instants(spine, "at")
        codes, spine_codes, entities = entity_codes(rows, spine, spec.entity)
        self.spec = spec
        self.spine = SortedSpine(spine_codes, at, entities)
        self.size = len(at)
        event_at = instants(rows, spec.event_at)
        known_at = event_at
        if spec.known_at != spec.event_at:
            known_at = instants(rows, spec.known_at)
            refuse_early_knowledge(spec, event_at, known_at)
        asked = (codes >= 0) & (known_at <= (int(at.max()) if self.size else 0))
        for name in spec.source_columns:
            column_type(rows, name)
        used = None if asked.all() else asked
        if used is not None:
            codes, all_at = codes[used], event_at
            event_at = all_at[used]
            known_at = event_at if known_at is all_at else known_at[used]
        self.row_codes, self.event_at, self.known_at = codes, event_at, known_at
        # Past its entity's last position a row begins at another's, and ceases there at once.
        self.start = self.spine.positions_at(codes, known_at)
        self.end = self.spine.bounds[codes + 1]
        until = replaced_from(rows, codes, self.spine, used=used)
        self.replaced = None if until is None else until[1]  # whether another row took the place of each
        if until is not None:
            self.end = np.maximum(np.minimum(self.end, until[0]), self.start)
        self.measures = Measures(rows, used)
        self._tiles: dict[int, Ints] = {}
        self._window: tuple[tuple[int, int], _Intervals] | None = None
        self._begun: dict[Sums, Ints] = {}
        self._totals: dict[tuple[Sums, tuple[int, int]], Ints] = {}
        self._decayed: dict[Decayed, Floats] = {}
        self._lasts: dict[Conditions, Ints] = {}
        self._ranked: tuple[Ints, Ints] | None = None
        self._fading: Fading | None = None

    def column(self, feature: FeatureSpec) -> pa.Array:
        """Compute one feature, in the order of the given spine."""
        aggregation = feature.aggregation
        if aggregation.type == FeatureType.NUMBER:
            numbers = self.compute(aggregation)
            if feature.default is not None:
                numbers[np.isnan(numbers)] = feature.default
            return pa.array(numbers)
        if aggregation.type == FeatureType.LIST:
            return self._most_frequent(feature)
        row, present = self._last_row(aggregation)
        row = np.where(present & (self.spine.codes >= 0), row, -1)
        given = np.empty(self.size, dtype=np.int64)
        given[self.spine.order] = row
        places, name = pa.array(given, mask=given < 0), cast("str", aggregation.column)
        if aggregation.type == FeatureType.TEXT:
            return or_default(self.measures.texts_at(name, places), feature)
        return or_default(self.measures.values(name, aggregation.dimensions or 0).take(places), feature)

    def _most_frequent(self, feature: FeatureSpec) -> pa.Array:
        """List the most frequent values at each position."""
        aggregation = feature.aggregation
        assert aggregation.k is not None
        search = _MostFrequent(aggregation.k)
        in_order = self._searched(aggregation, Histogram.of(aggregation), search)
        in_order[self.spine.codes < 0] = -1
        places = np.empty_like(in_order)
        places[self.spine.order] = in_order
        listed = places >= 0  # the first so many of each row
        ends = np.concatenate(([0], np.cumsum(listed.sum(axis=1))))
        kind = feature_type(feature)
        flat = pa.array(aggregation.values, kind.value_type).take(pa.array(places[listed]))
        offsets = pa.array(ends.astype(np.int32), mask=np.append(~listed.any(axis=1), False))
        return or_default(pa.ListArray.from_arrays(offsets, flat).cast(kind), feature)

    def compute(self, aggregation: Aggregation) -> Floats:
        """Compute a number, in the order of the given spine."""
        in_order = self._sorted_values(aggregation)
        in_order[self.spine.codes < 0] = np.nan
        result = np.empty(self.size, dtype=np.float64)
        result[self.spine.order] = in_order
        return result

    def _sorted_values(self, aggregation: Aggregation) -> Floats:  # noqa: PLR0911, PLR0912 - one case per kind
        match aggregation.kind:
            case AggregationKind.COUNT:
                return self._total(aggregation, "rows").astype(np.float64)
            case AggregationKind.SUM:
                return self._total(aggregation, "sum").astype(np.float64) / aggregation.scale
            case AggregationKind.MEAN:
                seen = self._seen(aggregation).astype(np.float64)
                with np.errstate(divide="ignore", invalid="ignore"):
                    return self._total(aggregation, "sum").astype(np.float64) / (seen * aggregation.scale)
            case AggregationKind.STD:
                total, high, low = (
                    self._total(aggregation, kind) for kind in ("sum", "square_high", "square_low")
                )
                return deviations(self._seen(aggregation), total, high, low, aggregation.scale)
            case AggregationKind.MIN:
                return 0.0 - self._greatest(aggregation, -1)
            case AggregationKind.MAX:
                return self._greatest(aggregation, 1)
            case AggregationKind.QUANTILE:
                return self._quantile(aggregation)
            case AggregationKind.DISTINCT:
                return self._distinct(aggregation)
            case AggregationKind.FIRST:
                return self._first(aggregation)
            case AggregationKind.LAST:
                row, present = self._last_row(aggregation)
                values = np.full(self.size, np.nan)
                values[present] = self.measures.floats_at(cast("str", aggregation.column), row[present])
                return values
            case AggregationKind.AGE:
                row, present = self._last_row(aggregation)
                since = self.event_at[row] if len(self.event_at) else 0
                return np.where(present, (self.spine.at - since) / 60e6, np.nan)
            case AggregationKind.DECAYED_COUNT | AggregationKind.DECAYED_SUM:
                (decayed,) = decayed_of(aggregation)
                return self._faded(decayed)
            case AggregationKind.DECAYED_MEAN:
                values, weights = (self._faded(each) for each in decayed_of(aggregation))
                with np.errstate(divide="ignore", invalid="ignore"):
                    return np.where(weights > LEAST_WEIGHT, values / weights, np.nan)
            case kind:
                raise AssertionError(f"{kind} gives no number")

    def _interval(self, window_s: int, width_us: int) -> _Intervals:
        if self._window is None or self._window[0] != (window_s, width_us):
            if width_us not in self._tiles:
                self._tiles[width_us] = tiles_of(self.event_at, width_us)
            first = first_tiles(self.spine.at, window_s * 1_000_000, width_us)
            stop = self.spine.positions_left(self.row_codes, self._tiles[width_us], first)
            if self.replaced is not None:
                stop = np.minimum(stop, self.end)
            self._window = (window_s, width_us), _Intervals(self.start, np.maximum(stop, self.start))
        return self._window[1]

    def _seen(self, aggregation: Aggregation) -> Ints:
        return self._total(aggregation, "rows") - self._total(aggregation, "missing")

    def _total(self, aggregation: Aggregation, kind: str) -> Ints:
        """Sum up along the spine what begins to count, less what has ceased to."""
        sums, window = sums_of(aggregation, kind), _window(aggregation)
        slot = (sums, window)
        if slot not in self._totals:
            amounts = self.measures.amounts(sums)
            if not amounts.any():
                self._totals[slot] = np.zeros(self.size, dtype=np.int64)
                return self._totals[slot]
            if sums not in self._begun:
                self._begun[sums] = np.zeros(self.size + 1, dtype=np.int64)
                np.add.at(self._begun[sums], self.start, amounts)
            steps = self._begun[sums].copy()
            np.subtract.at(steps, self._interval(*window).stop, amounts)
            self._totals[slot] = np.cumsum(steps)[: self.size]
        return self._totals[slot]

    def _greatest(self, aggregation: Aggregation, sign: int) -> Floats:
        column = self.measures.measured(sums_of(aggregation, "sum").measure)
        top = _paint(self._interval(*_window(aggregation)), sign * column.values, column.seen, self.size)
        return np.where(top == _NOTHING, np.nan, top / aggregation.scale)

    def _quantile(self, aggregation: Aggregation) -> Floats:
        histogram = Histogram.of(aggregation)
        assert aggregation.q_millionths is not None
        search = _QuantileBins(aggregation.q_millionths)
        index = self._searched(aggregation, histogram, search)
        edges = (histogram.low + index * histogram.width) / aggregation.scale
        return np.where(index < histogram.bins, edges, np.nan)

    def _distinct(self, aggregation: Aggregation) -> Floats:
        histogram = Histogram.of(aggregation)
        return estimates(histogram.bins)[self._searched(aggregation, histogram, _held_bins)]

    def _searched(
        self, aggregation: Aggregation, histogram: Histogram, search: Callable[[Ints], Ints]
    ) -> Ints:
        """Give what `search` finds in the histogram of each spine position."""
        which, column = self._interval(*_window(aggregation)), self.measures.measured(histogram.measure)
        rows = which.rows[column.seen[which.rows]]
        bins = bins_of(column.values[rows], histogram)
        return _along_histograms(
            which.start[rows], which.stop[rows], bins, size=self.size, width=histogram.bins, search=search
        )

    def _first(self, aggregation: Aggregation) -> Floats:
        order, rank = self._ranks()
        counted = self.measures.counted(aggregation.where)
        earliest = _paint(self._interval(*_window(aggregation)), -rank, counted, self.size)
        values, present = np.full(self.size, np.nan), earliest != _NOTHING
        rows = order[-earliest[present]]
        values[present] = self.measures.floats_at(cast("str", aggregation.column), rows)
        return values

    def _ranks(self) -> tuple[Ints, Ints]:
        """Give the rows by entity, event and key, and the place of each among them."""
        if self._ranked is None:
            order = self._in_order(np.arange(len(self.row_codes)))
            rank = np.empty(len(order), dtype=np.int64)
            rank[order] = np.arange(len(order))
            self._ranked = order, rank
        return self._ranked

    def _faded(self, decayed: Decayed) -> Floats:
        """Sum what decays at each position."""
        if decayed not in self._decayed:
            weights, half_life_us = self.measures.weights(decayed), decayed.half_life_s * 1e6
            if self._fading is None:
                stands = self.start < self.end  # anywhere at all
                stands &= True if self.replaced is None else ~self.replaced
                self._fading = Fading(self.spine, np.flatnonzero(stands), codes=self.row_codes,
                                      start=self.start, known=self.known_at, event=self.event_at)  # fmt: skip
            total = self._fading.sums(weights, half_life_us)
            if self.replaced is not None:
                brief = np.flatnonzero(self.replaced & (self.start < self.end))
                start, end, since = (each[brief] for each in (self.start, self.end, self.event_at))
                faded_between(total, start, end, since=since, weights=weights[brief], at=self.spine.at,
                              half_life_us=half_life_us)  # fmt: skip
            self._decayed[decayed] = total
        return self._decayed[decayed]

    def _last_row(self, aggregation: Aggregation) -> tuple[Ints, Bools]:
        """Find the row that happened last at each spine position, and whether there is one young enough."""
        if not len(self.row_codes):
            return np.zeros(self.size, dtype=np.int64), np.zeros(self.size, dtype=np.bool_)
        if aggregation.where not in self._lasts:
            self._lasts[aggregation.where] = self._latest(aggregation.where)
        last = self._lasts[aggregation.where]
        row = np.maximum(last, 0)
        present = (last >= 0) & (self.row_codes[row] == self.spine.codes)
        if aggregation.max_age_s is not None:
            present &= self.event_at[row] >= self.spine.at - aggregation.max_age_s * 1_000_000
        return row, present

    def _latest(self, where: Conditions) -> Ints:
        """Find the row that happened last at each position, of its own or an earlier entity; -1: none."""
        if self.replaced is not None:
            order, rank = self._ranks()
            which = _Intervals(self.start, self.end)
            greatest = _paint(which, rank, self.measures.counted(where), self.size)
            return np.where(greatest == _NOTHING, -1, order[np.maximum(greatest, 0)])
        counted = self.start < self.end
        if where:
            counted &= self.measures.counted(where)
        newest = np.full(self.size + 1, _NOTHING)
        start = self.start if counted.all() else np.where(counted, self.start, self.size)
        np.maximum.at(newest, start, self.event_at)
        newest[self.size] = _NOTHING
        # Whatever another row beats where it begins to count is never the last.
        order = self._in_order(np.flatnonzero(self.event_at == newest[start]))
        best = np.full(self.size, -1, dtype=np.int64)
        np.maximum.at(best, self.start[order], np.arange(len(order)))
        # A rank grows with the entity, so the greatest so far is this entity's as soon as it has any.
        greatest = np.maximum.accumulate(best)
        return np.where(greatest >= 0, order[np.maximum(greatest, 0)] if len(order) else -1, -1)

    def _in_order(self, rows: Ints) -> Ints:
        """Sort rows by entity, event and key."""
        order = rows[sort_together(self.row_codes[rows], self.event_at[rows])]
        code, event_at = self.row_codes[order], self.event_at[order]
        tied = (code[1:] == code[:-1]) & (event_at[1:] == event_at[:-1])
        if tied.any():  # keys are only looked at where they decide
            at = np.flatnonzero(np.append(tied, False) | np.insert(tied, 0, False))
            keys = key_bytes(self.measures.take(self.spec.key, order[at]), self.spec.key)
            by_key = sorted(range(len(at)), key=lambda each: (code[at[each]], event_at[at[each]], keys[each]))
            order[at] = order[at[by_key]]
        return order


def tiles_of(event_us: Ints, width_us: int) -> Ints:
    """Give the tile of each event."""
    return event_us // width_us


def first_tiles(at_us: Ints, window_us: int, width_us: int) -> Ints:
    """Give the oldest tile of the window that ends at each of `at_us`."""
    return (at_us - window_us) // width_us


def refuse_early_knowledge(spec: ViewSpec, event_at: Ints, known_at: Ints) -> None:
    """Raise `SourceError` if a row was known before it happened."""
    early = int(np.count_nonzero(known_at < event_at))
    if early:
        raise SourceError(
            f"{early} rows of {spec.source!r} have {spec.known_at!r} before {spec.event_at!r}; "
            "nothing is known before it happens: repair the source"
        )


def bins_of(values: Ints, histogram: Histogram) -> Ints:
    """Give the bin of each value; outside ones go to the first or last bin."""
    return np.clip((values - histogram.low) // histogram.width, 0, histogram.bins - 1)


_NOTHING = np.iinfo(np.int64).min


def _paint(which: _Intervals, values: Ints, counted: Bools, size: int) -> Ints:
    """Give the greatest value of the intervals over each of `size` positions, `_NOTHING` where there is none.

    A sparse table backwards: two overlapping power-of-two blocks cover each interval, and blocks hand their
    value down to their halves.
    """
    rows = which.rows
    if not counted.all():
        rows = rows[counted[rows]]
    if not len(rows):
        return np.full(size, _NOTHING, dtype=np.int64)
    start, stop, values = which.start[rows], which.stop[rows], values[rows]
    level_of = np.frexp((stop - start).astype(np.float64))[1] - 1  # ascending
    highest = int(level_of[-1])
    bounds = np.searchsorted(level_of, np.arange(highest + 2))
    upper = np.full(size, _NOTHING, dtype=np.int64)
    for level in range(highest, -1, -1):
        mine = slice(bounds[level], bounds[level + 1])
        np.maximum.at(upper, start[mine], values[mine])
        np.maximum.at(upper, stop[mine] - (1 << level), values[mine])
        if level:
            half = 1 << (level - 1)
            lower = upper.copy()
            np.maximum(lower[half:], upper[: size - half], out=lower[half:])
            upper = lower
    return upper


def _along_histograms(
    start: Ints, stop: Ints, bins: Ints, *, size: int, width: int, search: Callable[[Ints], Ints]
) -> Ints:
    """Sum histograms along `size` positions, and give what `search` finds in those of each stretch.

    It is given an array (positions, bins) of cumulative counts.
    """
    shape = search(np.zeros((0, width), dtype=np.int64)).shape[1:]
    result = np.empty((size, *shape), dtype=np.int64)
    by_start, by_stop = np.argsort(start, kind="stable"), np.argsort(stop, kind="stable")
    starts, stops = start[by_start], stop[by_stop]
    carried = np.zeros(width, dtype=np.int64)
    step = max(1, _CELLS // width)
    for low in range(0, size, step):
        high = min(low + step, size)
        steps = _cells(starts, by_start, bins, low=low, high=high, width=width)
        steps -= _cells(stops, by_stop, bins, low=low, high=high, width=width)
        steps[0] += carried
        np.cumsum(steps, axis=0, out=steps)
        carried = steps[-1].copy()
        np.cumsum(steps, axis=1, out=steps)
        result[low:high] = search(steps)
    return result


@dataclass(frozen=True, slots=True)
class _QuantileBins:
    """Finds the first bin that reaches the rank; their number if there is no value."""

    q: int

    def __call__(self, cumulative: Ints) -> Ints:
        total = cumulative[:, -1]
        rank = np.maximum(-(-self.q * total // 1_000_000), 1)
        return np.asarray(np.count_nonzero(cumulative < rank[:, None], axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _MostFrequent:
    """Finds the `k` bins that hold most, of equals the first; -1 for those that hold nothing."""

    k: int

    def __call__(self, cumulative: Ints) -> Ints:
        width = cumulative.shape[1]
        ranked = np.diff(cumulative, axis=1, prepend=0)  # count and place in one number: of equals the first
        ranked *= width
        ranked += np.arange(width - 1, -1, -1)
        ranked.partition(width - self.k, axis=1)
        most = np.sort(ranked[:, width - self.k :], axis=1)[:, ::-1]
        return np.where(most >= width, width - 1 - most % width, -1)


def _held_bins(cumulative: Ints) -> Ints:
    """Count the bins that hold anything."""
    held = np.count_nonzero(np.diff(cumulative, axis=1), axis=1) + (cumulative[:, 0] != 0)
    return np.asarray(held, dtype=np.int64)


def _cells(positions: Ints, order: Ints, bins: Ints, *, low: int, high: int, width: int) -> Ints:
    first, last = np.searchsorted(positions, (low, high))
    flat = (positions[first:last] - low) * width + bins[order[first:last]]
    return np.bincount(flat, minlength=(high - low) * width).astype(np.int64, copy=False).reshape(-1, width)


def _order_of(aggregation: Aggregation) -> tuple[int, int]:
    return (0, 0) if aggregation.tier is None else _window(aggregation)


def _window(aggregation: Aggregation) -> tuple[int, int]:
    tier = aggregation.tier
    assert tier is not None and aggregation.window_s is not None
    return aggregation.window_s, tier.seconds * 1_000_000
