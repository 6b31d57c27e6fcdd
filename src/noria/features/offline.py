"""Features as of any instant in the past, for whole tables at once.

A row counts at the instants from which it is known until its tile has left the window. On a spine sorted by
entity and instant that is one interval per row and window, so a counter is a difference array that is summed
up along the spine, whatever the order in which rows became known. All of it is integer arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from noria.errors import SourceError
from noria.features.columns import (
    Bools,
    Floats,
    Ints,
    entity_codes,
    instants,
    key_bytes,
    spec_of,
)
from noria.features.declarations import (
    Aggregation,
    AggregationKind,
    Conditions,
    FeatureView,
    ViewSpec,
)
from noria.features.finishing import deviations, estimates
from noria.features.layout import Decayed, Histogram, Sums, decayed_of, sums_of
from noria.features.measuring import Measures

__all__ = ["point_in_time"]

_CELLS = 1_000_000  # of a histogram in memory at once
_DENSE = 8  # table entries per row up to which looking up beats searching


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
        One float64 column `<view>__<feature>` per feature, as long as the spine and in its order.

    Raises
    ------
    SourceError
        If a column is missing or has the wrong type, or a row was known before it happened.
    """
    spec = spec_of(view)
    kernel = _Kernel(spec, rows, spine)
    columns = [pa.array(kernel.compute(each.aggregation)) for each in spec.features]
    return pa.table(dict(zip(spec.columns, columns, strict=True)))


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Of the rows that count at all: from which spine position to before which."""

    rows: Ints
    start: Ints
    stop: Ints


class _Kernel:
    """One view over one spine; what several features share is computed once."""

    def __init__(self, spec: ViewSpec, rows: pa.Table, spine: pa.Table) -> None:
        at = instants(spine, "at")
        codes, spine_codes, entities = entity_codes(rows, spine, spec.entity)
        self.size = len(at)
        self.order = np.lexsort((at, spine_codes))
        self.at = at[self.order]
        self.codes = spine_codes[self.order]
        self.known_entity = self.codes >= 0
        event_at, known_at = instants(rows, spec.event_at), instants(rows, spec.known_at)
        refuse_early_knowledge(spec, event_at, known_at)
        asked = np.zeros(entities + 1, dtype=np.bool_)
        asked[spine_codes] = True
        asked[-1] = False  # where the code -1 of a missing entity went
        latest = int(at.max()) if self.size else 0
        used = np.flatnonzero(asked[codes] & (known_at <= latest))
        self.table = rows if len(used) == rows.num_rows else rows.take(pa.array(used))
        self.row_codes, self.event_at, self.known_at = codes[used], event_at[used], known_at[used]
        self.spec = spec
        self.instants = np.unique(at)
        slots = len(self.instants) + 1
        self.slots = slots
        self.positions = _Positions(
            self.codes * slots + np.searchsorted(self.instants, self.at), (entities + 1) * slots, len(used)
        )
        self.start = self._position(np.searchsorted(self.instants, self.known_at, side="left"))
        self.measures = Measures(self.table)
        self._intervals: dict[int, _Intervals] = {}
        self._totals: dict[tuple[Sums, int], Ints] = {}
        self._decayed: dict[Decayed, Floats] = {}
        self._lasts: dict[Conditions, Ints] = {}
        self._ranked: tuple[Ints, Ints] | None = None

    def compute(self, aggregation: Aggregation) -> Floats:
        """Compute one feature, in the order of the given spine."""
        in_order = self._sorted_values(aggregation)
        in_order[~self.known_entity] = np.nan
        result = np.empty(self.size, dtype=np.float64)
        result[self.order] = in_order
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
                column = self.measures.floats(cast("str", aggregation.column))
                return np.where(present, column[row] if len(column) else np.nan, np.nan)
            case AggregationKind.AGE:
                row, present = self._last_row(aggregation)
                since = self.event_at[row] if len(self.event_at) else 0
                return np.where(present, (self.at - since) / 60e6, np.nan)
            case AggregationKind.DECAYED_COUNT | AggregationKind.DECAYED_SUM:
                (decayed,) = decayed_of(aggregation)
                return self._faded(decayed)
            case AggregationKind.DECAYED_MEAN:
                values, weights = (self._faded(each) for each in decayed_of(aggregation))
                with np.errstate(divide="ignore", invalid="ignore"):
                    return np.where(weights > 0, values / weights, np.nan)

    def _position(self, slot: Ints) -> Ints:
        """Find the first spine position of each row's entity whose instant has at least `slot`."""
        return self.positions.find(self.row_codes * self.slots + slot)

    def _interval(self, window_s: int, width_us: int) -> _Intervals:
        if window_s not in self._intervals:
            starts = window_starts(self.instants, window_s * 1_000_000, width_us)
            stop = self._position(np.searchsorted(starts, self.event_at, side="right"))
            rows = np.flatnonzero(self.start < stop)
            self._intervals[window_s] = _Intervals(rows, self.start[rows], stop[rows])
        return self._intervals[window_s]

    def _along(self, which: _Intervals, amounts: Ints | Bools) -> Ints:
        """Sum `amounts` of the rows whose interval holds each spine position."""
        steps = np.zeros(self.size + 1, dtype=np.int64)
        amounts = amounts.astype(np.int64, copy=False)
        np.add.at(steps, which.start, amounts)
        np.subtract.at(steps, which.stop, amounts)
        return np.cumsum(steps)[: self.size]

    def _seen(self, aggregation: Aggregation) -> Ints:
        return self._total(aggregation, "rows") - self._total(aggregation, "missing")

    def _total(self, aggregation: Aggregation, kind: str) -> Ints:
        sums, window = sums_of(aggregation, kind), _window(aggregation)
        slot = (sums, window[0])
        if slot not in self._totals:
            which = self._interval(*window)
            self._totals[slot] = self._along(which, self.measures.amounts(sums)[which.rows])
        return self._totals[slot]

    def _greatest(self, aggregation: Aggregation, sign: int) -> Floats:
        which = self._interval(*_window(aggregation))
        column = self.measures.measured(sums_of(aggregation, "sum").measure)
        seen = column.seen[which.rows]
        top = _paint(which.start[seen], which.stop[seen], sign * column.values[which.rows[seen]], self.size)
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
        seen = column.seen[which.rows]
        bins = bins_of(column.values[which.rows[seen]], histogram)
        return _along_histograms(
            which.start[seen], which.stop[seen], bins, size=self.size, width=histogram.bins, search=search
        )

    def _first(self, aggregation: Aggregation) -> Floats:
        order, rank = self._ranks()
        which = self._interval(*_window(aggregation))
        counted = self.measures.counted(aggregation.where)[which.rows]
        rows = which.rows[counted]
        earliest = _paint(which.start[counted], which.stop[counted], -rank[rows], self.size)
        column = self.measures.floats(cast("str", aggregation.column))
        if not len(column):
            return np.full(self.size, np.nan)
        return np.where(earliest == _NOTHING, np.nan, column[order[-np.maximum(earliest, 1 - len(order))]])

    def _faded(self, decayed: Decayed) -> Floats:
        """Sum what decays along the spine: each position's rows, and what is left of those before."""
        if decayed not in self._decayed:
            # A row that became known after its entity's last position starts at another's.
            held = np.flatnonzero(self.start < self.size)
            held = held[self.codes[self.start[held]] == self.row_codes[held]]
            at, half_life_us = self.start[held], decayed.half_life_s * 1e6
            age = self.at[at] - self.event_at[held]
            fresh = np.zeros(self.size)
            np.add.at(fresh, at, self.measures.weights(decayed)[held] * np.exp2(-age / half_life_us))
            kept = np.zeros(self.size)
            same = self.codes[1:] == self.codes[:-1]
            kept[1:][same] = np.exp2(-(np.diff(self.at)[same]) / half_life_us)
            self._decayed[decayed] = _recurrence(kept, fresh)
        return self._decayed[decayed]

    def _last_row(self, aggregation: Aggregation) -> tuple[Ints, Bools]:
        """Find the row that happened last at each spine position, and whether there is one young enough."""
        if not len(self.row_codes):
            return np.zeros(self.size, dtype=np.int64), np.zeros(self.size, dtype=np.bool_)
        if aggregation.where not in self._lasts:
            self._lasts[aggregation.where] = self._latest(aggregation.where)
        last = self._lasts[aggregation.where]
        row = np.maximum(last, 0)
        present = (last >= 0) & (self.row_codes[row] == self.codes)
        if aggregation.max_age_s is not None:
            present &= self.event_at[row] >= self.at - aggregation.max_age_s * 1_000_000
        return row, present

    def _latest(self, where: Conditions) -> Ints:
        order, rank = self._ranks()
        counted = self.measures.counted(where)
        best = np.full(self.size + 1, -1, dtype=np.int64)
        np.maximum.at(best, self.start[counted], rank[counted])
        # A rank grows with the entity, so the greatest so far is this entity's as soon as it has any.
        greatest = np.maximum.accumulate(best)[: self.size]
        return np.where(greatest >= 0, order[np.maximum(greatest, 0)], -1)

    def _ranks(self) -> tuple[Ints, Ints]:
        """Order the rows by entity, event and key; give that order, and each row's rank in it."""
        if self._ranked is None:
            order = np.lexsort((self.known_at, self.event_at, self.row_codes))
            code, event_at = self.row_codes[order], self.event_at[order]
            tied = (code[1:] == code[:-1]) & (event_at[1:] == event_at[:-1])
            if tied.any():  # keys are only looked at where they decide
                at = np.flatnonzero(np.append(tied, False) | np.insert(tied, 0, False))
                keys = key_bytes(self.table.take(pa.array(order[at])), self.spec.key)
                by_key = sorted(
                    range(len(at)), key=lambda each: (code[at[each]], event_at[at[each]], keys[each])
                )
                order[at] = order[at[by_key]]
            rank = np.empty(len(order), dtype=np.int64)
            rank[order] = np.arange(len(order))
            self._ranked = order, rank
        return self._ranked


class _Positions:
    """Where a number would be inserted among sorted ones, to the left of its equals."""

    def __init__(self, sorted_numbers: Ints, span: int, queries: int) -> None:
        self._sorted = sorted_numbers
        self._table: Ints | None = None
        first = int(sorted_numbers[0]) if len(sorted_numbers) else 0
        if 0 <= span <= _DENSE * (queries + len(sorted_numbers)):
            held = sorted_numbers[np.searchsorted(sorted_numbers, 0) if first < 0 else 0 :]
            counts = np.bincount(held, minlength=span)
            below = len(sorted_numbers) - len(held)
            self._table = below + np.concatenate(([0], np.cumsum(counts)))

    def find(self, numbers: Ints) -> Ints:
        """Find the position of each of `numbers`, which are not negative."""
        if self._table is not None:
            return self._table[numbers]
        return np.searchsorted(self._sorted, numbers, side="left").astype(np.int64)


def window_starts(at_us: Ints, window_us: int, width_us: int) -> Ints:
    """Give the first instant of the window that ends at each of `at_us`, floored to a tile."""
    return (at_us - window_us) // width_us * width_us


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


def _paint(start: Ints, stop: Ints, values: Ints, size: int) -> Ints:
    """Give the greatest value of the intervals over each of `size` positions, `_NOTHING` where there is none.

    A sparse table backwards: two overlapping power-of-two blocks cover each interval, and blocks hand their
    value down to their halves.
    """
    if not len(start):
        return np.full(size, _NOTHING, dtype=np.int64)
    level_of = np.frexp((stop - start).astype(np.float64))[1] - 1
    upper = np.full(size, _NOTHING, dtype=np.int64)
    for level in range(int(level_of.max()), -1, -1):
        mine = level_of == level
        np.maximum.at(upper, start[mine], values[mine])
        np.maximum.at(upper, stop[mine] - (1 << level), values[mine])
        if level:
            half = 1 << (level - 1)
            lower = upper.copy()
            np.maximum(lower[half:], upper[: size - half], out=lower[half:])
            upper = lower
    return upper


def _recurrence(kept: Floats, fresh: Floats) -> Floats:
    """Give `d[i] = kept[i] * d[i - 1] + fresh[i]`, by doubling the stretch that each position has summed."""
    factor, total = kept.copy(), fresh.copy()
    step = 1
    while step < len(total) and factor[step:].any():
        total[step:] += factor[step:] * total[:-step]
        factor[step:] *= factor[:-step].copy()
        step *= 2
    return total


def _along_histograms(
    start: Ints, stop: Ints, bins: Ints, *, size: int, width: int, search: Callable[[Ints], Ints]
) -> Ints:
    """Sum histograms along `size` positions, and give what `search` finds in those of each stretch.

    It is given an array (positions, bins) of cumulative counts.
    """
    result = np.empty(size, dtype=np.int64)
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


def _held_bins(cumulative: Ints) -> Ints:
    """Count the bins that hold anything."""
    held = np.count_nonzero(np.diff(cumulative, axis=1), axis=1) + (cumulative[:, 0] != 0)
    return np.asarray(held, dtype=np.int64)


def _cells(positions: Ints, order: Ints, bins: Ints, *, low: int, high: int, width: int) -> Ints:
    first, last = np.searchsorted(positions, (low, high))
    flat = (positions[first:last] - low) * width + bins[order[first:last]]
    return np.bincount(flat, minlength=(high - low) * width).astype(np.int64, copy=False).reshape(-1, width)


def _window(aggregation: Aggregation) -> tuple[int, int]:
    tier = aggregation.tier
    assert tier is not None and aggregation.window_s is not None
    return aggregation.window_s, tier.seconds * 1_000_000
