"""Which integers a view needs per tile, and where they lie; derived from the spec alone.

A tile is a record of 64-bit words: the bucket (instant // width of the tier), the additive counters, the
extrema. A tile's histograms lie apart, as unsigned 32-bit counts, because only two tiles of a window are read
and only the newest are written. Counters and histograms are cumulative over the tiles of an entity (and
histograms also over their bins), so a window is the difference of two tiles and a quantile a binary search.
The row of a tile that happened first lies apart too: of a window, only one is read. Of an entity as a whole
there are the row that happened last and what decays, one of each for every set of conditions. Texts and
vectors of rows that happened last lie apart once more, so that who reads numbers does not meet them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from noria.features.declarations import (
    Aggregation,
    AggregationKind,
    Conditions,
    FeatureType,
    Plain,
    Tier,
    ViewSpec,
)

__all__ = [
    "Decayed",
    "Histogram",
    "Kept",
    "KeptValues",
    "Layout",
    "Measure",
    "Sums",
    "TierLayout",
    "layout_of",
]

_T = TypeVar("_T")

ROWS = ""  # the column of the counter of rows


@dataclass(frozen=True, slots=True)
class Measure:
    """A column in integers, of the rows that fulfil `where`.

    In units of `1 / scale`, as one of `buckets`, or as places in `values`.
    """

    column: str
    scale: int
    where: Conditions = ()
    buckets: int = 0
    values: tuple[Plain, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Integer counts of a measure in bins of `width` from `low`."""

    measure: Measure
    low: int
    width: int
    bins: int

    @classmethod
    def of(cls, aggregation: Aggregation) -> "Histogram":
        """Give the histogram that a quantile, a distinct count or the most frequent values read."""
        if aggregation.buckets is not None or aggregation.values:
            return cls(_measure(aggregation), 0, 1, aggregation.bins)
        assert aggregation.low is not None and aggregation.width is not None
        return cls(_measure(aggregation), aggregation.low, aggregation.width, aggregation.bins)


@dataclass(frozen=True, slots=True)
class Sums:
    """One counter: rows, values missing of a measure, their sum, squares in two parts, least or greatest."""

    kind: str
    measure: Measure


@dataclass(frozen=True, slots=True)
class Kept:
    """Float columns kept of one row: the first or last of those that fulfil `where`."""

    where: Conditions
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptValues:
    """Texts and vectors kept of the row that happened last of those that fulfil `where`.

    `columns` are names with the dimensions of vectors, 0 of texts.
    """

    where: Conditions
    columns: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Decayed:
    """A decaying sum: of `rows`, of those `seen` of a measure, or of their values."""

    kind: str
    measure: Measure
    half_life_s: int


class TierLayout:
    """Where the integers of one tier's tiles lie.

    Attributes
    ----------
    additive, extrema : tuple of Sums
        In the order of their words, which begin at word 1 and after the additive ones.
    histograms : tuple of Histogram
        In the order of their counts.
    firsts : tuple of Kept
        What is kept of a tile's first rows.
    counts : int
        32-bit counts per tile.
    keeps_apart : bool
        Whether a tile has anything beside its words.
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
        needed = _in_order({need for each in mine for need in _needs(each)})
        self.additive = tuple(each for each in needed if each.kind not in ("min", "max"))
        self.extrema = tuple(each for each in needed if each.kind in ("min", "max"))
        self.histograms = _in_order({Histogram.of(each) for each in mine if each.kind in _HISTOGRAMS})
        self.firsts = _kept(each for each in mine if each.kind is AggregationKind.FIRST)
        self.counts = sum(each.bins for each in self.histograms)
        self.keeps_apart = bool(self.counts or self.firsts)
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
        self.minute = TierLayout(Tier.MINUTE, aggregations)
        self.hour = TierLayout(Tier.HOUR, aggregations)
        self.day = TierLayout(Tier.DAY, aggregations)
        self.tiers = (self.minute, self.hour, self.day)  # in the order of the tiles of a value
        self.values = _kept_values(aggregations)
        self.lasts = _kept(each for each in aggregations if each.kind in _LASTS)
        self.decayed = _in_order({need for each in aggregations for need in decayed_of(each)})
        firsts = any(each.firsts for each in self.tiers)
        self.keeps_rows = bool(self.lasts or self.values or firsts)  # ties are broken by keys

    @cached_property
    def digest(self) -> str:
        """The digest of the spec."""
        return self.spec.digest


def layout_of(spec: ViewSpec) -> Layout:
    """Derive the layout of a view."""
    return Layout(spec)


def sums_of(aggregation: Aggregation, kind: str) -> Sums:
    """Give the counter of `kind` that an aggregation reads."""
    return Sums(kind, _rows(aggregation) if kind == "rows" else _measure(aggregation))


def decayed_of(aggregation: Aggregation) -> tuple[Decayed, ...]:
    """Give the decaying sums that an aggregation reads: what is divided, and by what."""
    half_life = aggregation.half_life_s
    if half_life is None:
        return ()
    if aggregation.kind is AggregationKind.DECAYED_COUNT:
        return (Decayed("rows", _rows(aggregation), half_life),)
    total = Decayed("sum", _measure(aggregation), half_life)
    if aggregation.kind is AggregationKind.DECAYED_SUM:
        return (total,)
    return total, Decayed("seen", _measure(aggregation), half_life)


_HISTOGRAMS = (AggregationKind.QUANTILE, AggregationKind.DISTINCT, AggregationKind.TOP)
_LASTS = (AggregationKind.LAST, AggregationKind.AGE)
_COUNTERS = {
    AggregationKind.COUNT: ("rows",),
    AggregationKind.SUM: ("sum",),
    # Rows less the missing ones are those seen, and mostly there is nothing to add.
    AggregationKind.MEAN: ("rows", "missing", "sum"),
    AggregationKind.STD: ("rows", "missing", "sum", "square_high", "square_low"),
    AggregationKind.MIN: ("min",),
    AggregationKind.MAX: ("max",),
    AggregationKind.FIRST: ("rows",),
}


def _rows(aggregation: Aggregation) -> Measure:
    return Measure(ROWS, 1, aggregation.where)


def _measure(aggregation: Aggregation) -> Measure:
    assert aggregation.column is not None
    return Measure(
        aggregation.column,
        aggregation.scale,
        aggregation.where,
        aggregation.buckets or 0,
        aggregation.values,
    )


def _needs(aggregation: Aggregation) -> Iterator[Sums]:
    for kind in _COUNTERS.get(aggregation.kind, ()):
        yield sums_of(aggregation, kind)


def _kept(aggregations: Iterable[Aggregation]) -> tuple[Kept, ...]:
    columns: dict[Conditions, set[str]] = {}
    for each in aggregations:
        columns.setdefault(each.where, set()).update({each.column} if each.column else ())
    return _in_order({Kept(where, tuple(sorted(names))) for where, names in columns.items()})


def _kept_values(aggregations: Iterable[Aggregation]) -> tuple[KeptValues, ...]:
    columns: dict[Conditions, set[tuple[str, int]]] = {}
    for each in aggregations:
        if each.type in (FeatureType.TEXT, FeatureType.VECTOR):
            columns.setdefault(each.where, set()).add((each.column or "", each.dimensions or 0))
    return _in_order({KeptValues(where, tuple(sorted(names))) for where, names in columns.items()})


def _in_order(things: set[_T]) -> tuple[_T, ...]:
    """Sort by text: conditions compare values of different types."""
    return tuple(sorted(things, key=repr))
