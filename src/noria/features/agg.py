"""How a feature is made from the rows of an entity: `agg.count`, `agg.mean`, `agg.quantile`, ...

A window `w` at the instant `t` holds the rows with `event_at` from `floor(t - w)` on that are known by `t`;
floored to the minute for windows below an hour, to the hour up to two days, to the UTC day above; and to
the minute up to three hours where `resolution="minute"` is given. Sums are of integers: a column of
another type needs `scale`, and counts in units of `1 / scale` (values are rounded to those). Everything is
divided last, so offline and online agree exactly; what decays agrees to a relative 1e-9. A missing value of
a column does not count for that column; an entity that was never seen has an empty window (counts and sums
0, the others NaN); a missing entity has NaN everywhere.

`where` keeps the rows that fulfil all of its conditions, each `(column, comparison, value)` with one of
`== != < <= > >=`, or `in` and `not in` with several values. What is missing fulfils none.
"""

from collections.abc import Collection

import msgspec

from noria.errors import ConfigError
from noria.features.arguments import counted_values, several, units, whole_number
from noria.features.conditions import Where, conditions_of
from noria.features.declarations import (
    Aggregation,
    AggregationKind,
    Grouped,
    Plain,
)
from noria.features.windows import Window, seconds_of

__all__ = [
    "age",
    "by",
    "count",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "distinct",
    "embedding",
    "first",
    "last",
    "last_text",
    "max",
    "mean",
    "min",
    "quantile",
    "std",
    "sum",
    "top",
]

_LEAST_BUCKETS, _MAX_BINS = 16, 4_096


def count(window: str, *, where: Where = (), resolution: str | None = None) -> Aggregation:
    """Count the rows of the window.

    Examples
    --------
    >>> count("1d").window_s
    86400
    >>> count("1d", where=[("status", "in", ["lost", "late"])]).where[0].value
    ('lost', 'late')
    """
    span = Window.of(window, resolution)
    return Aggregation(
        kind=AggregationKind.COUNT,
        window_s=span.seconds,
        resolution=span.resolution,
        where=conditions_of(where, "count"),
    )


def sum(
    column: str, window: str, *, scale: int = 1, where: Where = (), resolution: str | None = None
) -> Aggregation:
    """Add the values of `column` in the window."""
    return _windowed(AggregationKind.SUM, column, Window.of(window, resolution), scale, where)


def mean(
    column: str, window: str, *, scale: int = 1, where: Where = (), resolution: str | None = None
) -> Aggregation:
    """Average the values of `column` in the window; of a boolean column: the rate."""
    return _windowed(AggregationKind.MEAN, column, Window.of(window, resolution), scale, where)


def std(
    column: str, window: str, *, scale: int = 1, where: Where = (), resolution: str | None = None
) -> Aggregation:
    """Take the sample standard deviation (divided by n - 1) of `column` in the window; NaN below two values.

    It is made from exact sums of values and squares, so nothing cancels however far from 0 the values lie.
    """
    return _windowed(AggregationKind.STD, column, Window.of(window, resolution), scale, where)


def min(
    column: str, window: str, *, scale: int = 1, where: Where = (), resolution: str | None = None
) -> Aggregation:
    """Take the least value of `column` in the window."""
    return _windowed(AggregationKind.MIN, column, Window.of(window, resolution), scale, where)


def max(
    column: str, window: str, *, scale: int = 1, where: Where = (), resolution: str | None = None
) -> Aggregation:
    """Take the greatest value of `column` in the window."""
    return _windowed(AggregationKind.MAX, column, Window.of(window, resolution), scale, where)


def distinct(
    column: str, window: str, *, buckets: int = 512, where: Where = (), resolution: str | None = None
) -> Aggregation:
    """Count the different values of `column` in the window, by linear counting.

    Values are spread over `buckets` by a hash, and the count follows from the buckets that stayed empty.
    With `n` different values and `t = n / buckets` the relative standard error is
    `sqrt(buckets * (exp(t) - t - 1)) / n`: 2 % for 200 in 512, 4 % for 512, 7 % for 1,500; a few values are
    counted exactly but for a chance of `n ** 2 / (2 * buckets)`. Beyond `buckets * ln(buckets)` it is full.
    An entity keeps four bytes per bucket and tile.

    Parameters
    ----------
    column : str
        Text, integers, booleans, or decimals and floats as their shortest text.
    window : str
        Such as `"7d"`.
    buckets : int
        From 16 to 4,096.
    where : sequence of conditions
        Which rows count.
    resolution : {"minute"} or None
        See the module.

    Raises
    ------
    ConfigError
        If `buckets` is not from 16 to 4,096.

    References
    ----------
    K.-Y. Whang, B. T. Vander-Zanden and H. M. Taylor, "A linear-time probabilistic counting algorithm for
    database applications", ACM Transactions on Database Systems 15 (1990), 208-229.

    Examples
    --------
    >>> distinct("dest", "7d").bins
    512
    """
    whole_number(buckets, "buckets", column, least=_LEAST_BUCKETS, most=_MAX_BINS)
    span = Window.of(window, resolution)
    return Aggregation(
        kind=AggregationKind.DISTINCT,
        column=column,
        window_s=span.seconds,
        resolution=span.resolution,
        buckets=buckets,
        where=conditions_of(where, column),
    )


def quantile(
    column: str,
    q: float,
    window: str,
    *,
    low: float,
    high: float,
    width: float,
    scale: int = 1,
    where: Where = (),
    resolution: str | None = None,
) -> Aggregation:
    """Take a quantile of `column` in the window from a histogram.

    Bins are `width` wide from `low` up to `high`; values outside fall into the first or last bin. The answer
    is the lower edge of the first bin whose cumulative count reaches `ceil(q * n)`, so it is at most one
    width below the quantile of the values (type 1 of Hyndman and Fan) as long as that lies within the bins.

    Parameters
    ----------
    column : str
        Integers, or anything numeric with `scale`.
    q : float
        From 0 to 1, at most six decimals.
    window : str
        Such as `"7d"`.
    low, high, width : float
        In units of the column; multiples of `1 / scale`.
    scale : int
        Units per one.
    where : sequence of conditions
        Which rows count.
    resolution : {"minute"} or None
        See the module.

    Raises
    ------
    ConfigError
        If `q` or the bins make no sense, or there are more than 4,096 bins.

    References
    ----------
    R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50
    (1996), 361-365.

    Examples
    --------
    >>> quantile("delay", 0.9, "7d", low=-60, high=260, width=5).bins
    64
    """
    base = _windowed(AggregationKind.QUANTILE, column, Window.of(window, resolution), scale, where)
    q_millionths = units(q, 1_000_000, "q", column)
    if not 0 <= q <= 1:
        raise ConfigError(f"q = {q} of column {column!r} is not from 0 to 1")
    made = Aggregation(
        kind=base.kind,
        column=column,
        window_s=base.window_s,
        resolution=base.resolution,
        scale=scale,
        q_millionths=q_millionths,
        low=units(low, scale, "low", column),
        high=units(high, scale, "high", column),
        width=units(width, scale, "width", column),
        where=base.where,
    )
    if high <= low or width <= 0:
        raise ConfigError(
            f"bins of {column!r} from {low} to {high} of width {width} are none; want low < high, width > 0"
        )
    if made.bins > _MAX_BINS:
        raise ConfigError(f"{made.bins} bins for {column!r} are more than {_MAX_BINS}; make `width` larger")
    return made


def first(column: str, window: str, *, where: Where = (), resolution: str | None = None) -> Aggregation:
    """Take `column` of the row of the window that happened first (ties: the least key), NaN if missing there.

    Parameters
    ----------
    column : str
        Any numeric or boolean column.
    window : str
        Such as `"7d"`.
    where : sequence of conditions
        Which rows count.
    resolution : {"minute"} or None
        See the module.
    """
    span = Window.of(window, resolution)
    return Aggregation(
        kind=AggregationKind.FIRST,
        column=column,
        window_s=span.seconds,
        resolution=span.resolution,
        where=conditions_of(where, column),
    )


def last(column: str, max_age: str | None = None, *, where: Where = ()) -> Aggregation:
    """Take `column` of the row that happened last (ties: the greatest key), NaN if it is missing there.

    Parameters
    ----------
    column : str
        Any numeric or boolean column.
    max_age : str or None
        NaN if that row happened longer ago than this.
    where : sequence of conditions
        Which rows count.
    """
    return _latest(AggregationKind.LAST, column, max_age, where)


def last_text(column: str, max_age: str | None = None, *, where: Where = ()) -> Aggregation:
    """Take the text `column` of the row that happened last (ties: the greatest key), none if it is missing.

    Parameters
    ----------
    column : str
        A column of texts.
    max_age : str or None
        None if that row happened longer ago than this.
    where : sequence of conditions
        Which rows count.

    Examples
    --------
    >>> last_text("status").type
    <FeatureType.TEXT: 'text'>
    """
    return _latest(AggregationKind.LAST_TEXT, column, max_age, where)


def embedding(column: str, dimensions: int, max_age: str | None = None, *, where: Where = ()) -> Aggregation:
    """Take the vector `column` of the row that happened last (ties: the greatest key), as float32.

    Parameters
    ----------
    column : str
        A column of lists of `dimensions` numbers each.
    dimensions : int
        From 1 to 4,096.
    max_age : str or None
        None if that row happened longer ago than this.
    where : sequence of conditions
        Which rows count.

    Raises
    ------
    ConfigError
        If `dimensions` is not from 1 to 4,096.

    Examples
    --------
    >>> embedding("vector", 64).dimensions
    64
    """
    whole_number(dimensions, "dimensions", column, least=1, most=_MAX_BINS)
    return msgspec.structs.replace(
        _latest(AggregationKind.EMBEDDING, column, max_age, where), dimensions=dimensions
    )


def top(
    column: str,
    k: int,
    window: str,
    *,
    values: Collection[str] | Collection[int],
    where: Where = (),
    resolution: str | None = None,
) -> Aggregation:
    """List the `k` most frequent of `values` in the window, the most frequent first (ties: the lesser value).

    They are counted one by one, without an error. A value that is not in the list does not count, and one
    that did not come is not listed: fewer than `k` may be, and none is where the window is empty. An entity
    keeps four bytes per value and tile.

    Parameters
    ----------
    column : str
        Texts or integers, as `values` are.
    k : int
        From 1 to the number of values.
    window : str
        Such as `"7d"`.
    values : collection of str or of int
        Those that are counted, at most 4,096.
    where : sequence of conditions
        Which rows count.
    resolution : {"minute"} or None
        See the module.

    Raises
    ------
    ConfigError
        If the values are not all texts or all integers, one comes twice, or `k` is not from 1 to their
        number.

    Examples
    --------
    >>> top("airport", 2, "7d", values=["LAX", "EWR", "JFK"]).values
    ('EWR', 'JFK', 'LAX')
    """
    counted = counted_values(values, column, most=_MAX_BINS)
    whole_number(k, "k", column, least=1, most=len(counted))
    span = Window.of(window, resolution)
    return Aggregation(
        kind=AggregationKind.TOP,
        column=column,
        window_s=span.seconds,
        resolution=span.resolution,
        k=k,
        values=counted,
        where=conditions_of(where, column),
    )


def age(max_age: str | None = None, *, where: Where = ()) -> Aggregation:
    """Give the minutes since the row that happened last; NaN if there is none within `max_age`."""
    return Aggregation(
        kind=AggregationKind.AGE,
        max_age_s=None if max_age is None else seconds_of(max_age),
        where=conditions_of(where, "age"),
    )


def decayed_count(half_life: str, *, where: Where = ()) -> Aggregation:
    """Count the rows known, each by `0.5 ** (age / half_life)`; age is the time since `event_at`."""
    return _decayed(AggregationKind.DECAYED_COUNT, None, half_life, where)


def decayed_sum(column: str, half_life: str, *, where: Where = ()) -> Aggregation:
    """Add the values of `column`, each times `0.5 ** (age / half_life)`.

    Examples
    --------
    >>> decayed_sum("amount", "7d").half_life_s
    604800
    """
    return _decayed(AggregationKind.DECAYED_SUM, column, half_life, where)


def decayed_mean(column: str, half_life: str, *, where: Where = ()) -> Aggregation:
    """Average the values of `column`, weighted by `0.5 ** (age / half_life)`; NaN if there is none.

    Once a thousand half-lives have passed since all of them, nothing is left: NaN.
    """
    return _decayed(AggregationKind.DECAYED_MEAN, column, half_life, where)


def by(column: str, values: Collection[Plain], aggregation: Aggregation) -> Grouped:
    """Make one feature per value of `column`: an entity's rows in groups.

    A feature `late_7d` by the values `"EWR"` and `"JFK"` becomes `late_7d_EWR` and `late_7d_JFK`.

    Raises
    ------
    ConfigError
        If there are no values, a value twice, or a text that would stand for its letters.

    Examples
    --------
    >>> by("origin", ["EWR", "JFK"], mean("late", "7d")).values
    ('EWR', 'JFK')
    """
    wanted = several(values, column)
    if not wanted or len(set(map(str, wanted))) < len(wanted):
        raise ConfigError(f"the groups of {column!r} are {list(wanted)}; give values, each once")
    for value in wanted:
        conditions_of([(column, "==", value)], column)
    return Grouped(column, wanted, aggregation)


def _decayed(kind: AggregationKind, column: str | None, half_life: str, where: Where) -> Aggregation:
    return Aggregation(
        kind=kind,
        column=column,
        half_life_s=seconds_of(half_life),
        where=conditions_of(where, column or kind),
    )


def _latest(kind: AggregationKind, column: str, max_age: str | None, where: Where) -> Aggregation:
    return Aggregation(
        kind=kind,
        column=column,
        max_age_s=None if max_age is None else seconds_of(max_age),
        where=conditions_of(where, column),
    )


def _windowed(kind: AggregationKind, column: str, span: Window, scale: int, where: Where) -> Aggregation:
    whole_number(scale, "scale", column, least=1)
    return Aggregation(
        kind=kind,
        column=column,
        window_s=span.seconds,
        resolution=span.resolution,
        scale=scale,
        where=conditions_of(where, column),
    )
