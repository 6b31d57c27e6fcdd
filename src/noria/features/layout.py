"""Which integers a view needs per tile, and where they lie; derived from the spec alone.

A tile is a record of 64-bit words: the bucket (instant // width of the tier), the additive counters, the
extrema. A tile's histograms lie apart, as unsigned 32-bit counts, because only two tiles of a window are read
and only the newest are written. Counters and histograms are cumulative over the tiles of an entity (and
histograms also over their bins), so a window is the difference of two tiles and a quantile a binary search.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from noria.features.declarations import Aggregation, AggregationKind, Tier, ViewSpec

__all__ = ["Histogram", "Layout", "Measure", "Sums", "TierLayout", "layout_of"]

ROWS = ""  # the column of the counter of rows


@dataclass(frozen=True, slots=True, order=True)
class Measure:
    """A column in integer units of `1 / scale`."""

    column: str
    scale: int


@dataclass(frozen=True, slots=True, order=True)
class Histogram:
    """Integer counts of a measure in bins of `width` from `low`."""

    measure: Measure
    low: int
    width: int
    bins: int

    @classmethod
    def of(cls, aggregation: Aggregation) -> "Histogram":
        """Give the histogram that a quantile reads."""
        assert aggregation.low is not None and aggregation.width is not None
        return cls(_measure(aggregation), aggregation.low, aggregation.width, aggregation.bins)


@dataclass(frozen=True, slots=True, order=True)
class Sums:
    """One counter: rows, values missing of a measure, their sum, least or greatest."""

    kind: str
    measure: Measure


class TierLayout:
    """Where the integers of one tier's tiles lie.

    Attributes
    ----------
    additive, extrema : tuple of Sums
        In the order of their words, which begin at word 1 and after the additive ones.
    histograms : tuple of Histogram
        In the order of their counts.
    counts : int
        32-bit counts per tile.
    stops : tuple of int
        Where each histogram's counts end.
    words : int
        64-bit words per tile; 0 if the view has no window of this tier.
    window_s : int
        The longest window.
    width_us : int
        Microseconds per tile.
    """

    def __init__(self, tier: Tier, aggregations: Iterable[Aggregation]) -> None:
        mine = [each for each in aggregations if each.tier is tier]
        self.tier = tier
        self.window_s = max((each.window_s or 0 for each in mine), default=0)
        needed = sorted({need for each in mine for need in _needs(each)})
        self.additive = tuple(each for each in needed if each.kind not in ("min", "max"))
        self.extrema = tuple(each for each in needed if each.kind in ("min", "max"))
        self.histograms = tuple(
            sorted({Histogram.of(each) for each in mine if each.kind is AggregationKind.QUANTILE})
        )
        self.counts = sum(each.bins for each in self.histograms)
        self.stops = tuple(self.count_of(each) + each.bins for each in self.histograms)
        self.width_us = tier.seconds * 1_000_000
        self.words = 1 + len(self.additive) + len(self.extrema) if mine else 0

    def first_bucket(self, at_us: int, window_s: int) -> int:
        """Give the oldest bucket of a window that ends at `at_us`."""
        return (at_us - window_s * 1_000_000) // self.width_us

    def word_of(self, sums: Sums) -> int:
        """Give the word of a counter."""
        if sums.kind in ("min", "max"):
            return 1 + len(self.additive) + self.extrema.index(sums)
        return 1 + self.additive.index(sums)

    def count_of(self, histogram: Histogram) -> int:
        """Give the position of a histogram's first bin among the tile's counts."""
        return sum(each.bins for each in self.histograms[: self.histograms.index(histogram)])


class Layout:
    """Where everything of a view lies in an entity's value."""

    def __init__(self, spec: ViewSpec) -> None:
        aggregations = [feature.aggregation for feature in spec.features]
        self.spec = spec
        self.hour = TierLayout(Tier.HOUR, aggregations)
        self.day = TierLayout(Tier.DAY, aggregations)
        self.keeps_last = any(each.tier is None for each in aggregations)
        self.last_columns = tuple(
            sorted({each.column for each in aggregations if each.tier is None and each.column is not None})
        )

    @cached_property
    def digest(self) -> str:
        """The digest of the spec."""
        return self.spec.digest

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """All measures that any tier needs."""
        return tuple(sorted(set(self._measures())))

    def _measures(self) -> Iterator[Measure]:
        for tier in (self.hour, self.day):
            yield from (
                each.measure for each in (*tier.additive, *tier.extrema) if each.measure.column != ROWS
            )
            yield from (each.measure for each in tier.histograms)


def layout_of(spec: ViewSpec) -> Layout:
    """Derive the layout of a view."""
    return Layout(spec)


def sums_of(aggregation: Aggregation, kind: str) -> Sums:
    """Give the counter of `kind` that an aggregation reads."""
    return Sums(kind, Measure(ROWS, 1) if kind == "rows" else _measure(aggregation))


def _measure(aggregation: Aggregation) -> Measure:
    assert aggregation.column is not None
    return Measure(aggregation.column, aggregation.scale)


def _needs(aggregation: Aggregation) -> Iterator[Sums]:
    match aggregation.kind:
        case AggregationKind.COUNT:
            yield sums_of(aggregation, "rows")
        case AggregationKind.SUM:
            yield sums_of(aggregation, "sum")
        case AggregationKind.MEAN:
            yield sums_of(aggregation, "rows")  # less the missing ones: those seen, and mostly nothing to add
            yield sums_of(aggregation, "missing")
            yield sums_of(aggregation, "sum")
        case AggregationKind.MIN:
            yield sums_of(aggregation, "min")
        case AggregationKind.MAX:
            yield sums_of(aggregation, "max")
        case _:
            pass
