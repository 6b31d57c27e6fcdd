"""How a feature is made from the rows of an entity: `agg.count`, `agg.mean`, `agg.quantile`, ...

A window `w` at the instant `t` holds the rows with `event_at` from `floor(t - w)` on that are known by `t`;
floored to the hour for windows up to two days, to the UTC day above. Sums are of integers: a column of
another type needs `scale`, and counts in units of `1 / scale` (values are rounded to those). Everything is
divided last, so offline and online agree exactly; what decays agrees to a relative 1e-9. A missing value of
a column does not count for that column; an entity that was never seen has an empty window (counts and sums
0, the others NaN); a missing entity has NaN everywhere.

`where` keeps the rows that fulfil all of its conditions, each `(column, comparison, value)` with one of
`== != < <= > >=`, or `in` and `not in` with several values. What is missing fulfils none.
"""

from collections.abc import Collection
from fractions import Fraction

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.features.conditions import Where, conditions_of
from noria.features.declarations import Aggregation, AggregationKind, Grouped, Plain

__all__ = [
    "age",
    "by",
    "count",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "quantile",
    "std",
    "sum",
]

_LEAST_BUCKETS, _MAX_BINS = 16, 4_096


def count(window: str, *, where: Where = ()) -> Aggregation:
    """Count the rows of the window.

    Examples
    --------
    >>> count("1d").window_s
    86400
    >>> count("1d", where=[("status", "in", ["lost", "late"])]).where[0].value
    ('lost', 'late')
    """
    return Aggregation(
        kind=AggregationKind.COUNT, window_s=_seconds(window), where=conditions_of(where, "count")
    )


def sum(column: str, window: str, *, scale: int = 1, where: Where = ()) -> Aggregation:
    """Add the values of `column` in the window."""
    return _windowed(AggregationKind.SUM, column, window, scale, where)


def mean(column: str, window: str, *, scale: int = 1, where: Where = ()) -> Aggregation:
    """Average the values of `column` in the window; of a boolean column: the rate."""
    return _windowed(AggregationKind.MEAN, column, window, scale, where)


def std(column: str, window: str, *, scale: int = 1, where: Where = ()) -> Aggregation:
    """Take the sample standard deviation (divided by n - 1) of `column` in the window; NaN below two values.

    It is made from exact sums of values and squares, so nothing cancels however far from 0 the values lie.
    """
    return _windowed(AggregationKind.STD, column, window, scale, where)


def min(column: str, window: str, *, scale: int = 1, where: Where = ()) -> Aggregation:
    """Take the least value of `column` in the window."""
    return _windowed(AggregationKind.MIN, column, window, scale, where)


def max(column: str, window: str, *, scale: int = 1, where: Where = ()) -> Aggregation:
    """Take the greatest value of `column` in the window."""
    return _windowed(AggregationKind.MAX, column, window, scale, where)


def distinct(column: str, window: str, *, buckets: int = 512, where: Where = ()) -> Aggregation:
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
    if not _LEAST_BUCKETS <= buckets <= _MAX_BINS:
        raise ConfigError(
            f"buckets = {buckets} for {column!r} are not from {_LEAST_BUCKETS} to {_MAX_BINS}; "
            "two or more per value that is expected are good"
        )
    return Aggregation(
        kind=AggregationKind.DISTINCT,
        column=column,
        window_s=_seconds(window),
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
    base = _windowed(AggregationKind.QUANTILE, column, window, scale, where)
    if not 0 <= q <= 1:
        raise ConfigError(f"q = {q} of column {column!r} is not from 0 to 1")
    made = Aggregation(
        kind=base.kind,
        column=column,
        window_s=base.window_s,
        scale=scale,
        q_millionths=_whole(q, 1_000_000, "q", column),
        low=_whole(low, scale, "low", column),
        high=_whole(high, scale, "high", column),
        width=_whole(width, scale, "width", column),
        where=base.where,
    )
    if high <= low or width <= 0:
        raise ConfigError(
            f"bins of {column!r} from {low} to {high} of width {width} are none; want low < high, width > 0"
        )
    if made.bins > _MAX_BINS:
        raise ConfigError(f"{made.bins} bins for {column!r} are more than {_MAX_BINS}; make `width` larger")
    return made


def first(column: str, window: str, *, where: Where = ()) -> Aggregation:
    """Take `column` of the row of the window that happened first (ties: the least key), NaN if missing there.

    Parameters
    ----------
    column : str
        Any numeric or boolean column.
    window : str
        Such as `"7d"`.
    where : sequence of conditions
        Which rows count.
    """
    return Aggregation(
        kind=AggregationKind.FIRST,
        column=column,
        window_s=_seconds(window),
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
    return Aggregation(
        kind=AggregationKind.LAST,
        column=column,
        max_age_s=None if max_age is None else _seconds(max_age),
        where=conditions_of(where, column),
    )


def age(max_age: str | None = None, *, where: Where = ()) -> Aggregation:
    """Give the minutes since the row that happened last; NaN if there is none within `max_age`."""
    return Aggregation(
        kind=AggregationKind.AGE,
        max_age_s=None if max_age is None else _seconds(max_age),
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
    """Average the values of `column`, weighted by `0.5 ** (age / half_life)`; NaN if there is none."""
    return _decayed(AggregationKind.DECAYED_MEAN, column, half_life, where)


def by(column: str, values: Collection[Plain], aggregation: Aggregation) -> Grouped:
    """Make one feature per value of `column`: an entity's rows in groups.

    A feature `late_7d` by the values `"EWR"` and `"JFK"` becomes `late_7d_EWR` and `late_7d_JFK`.

    Raises
    ------
    ConfigError
        If there are no values, or a value twice.

    Examples
    --------
    >>> by("origin", ["EWR", "JFK"], mean("late", "7d")).values
    ('EWR', 'JFK')
    """
    wanted = tuple(values)
    if not wanted or len(set(map(str, wanted))) < len(wanted):
        raise ConfigError(f"the groups of {column!r} are {list(wanted)}; give values, each once")
    for value in wanted:
        conditions_of([(column, "==", value)], column)
    return Grouped(column, wanted, aggregation)


def _decayed(kind: AggregationKind, column: str | None, half_life: str, where: Where) -> Aggregation:
    return Aggregation(
        kind=kind,
        column=column,
        half_life_s=_seconds(half_life),
        where=conditions_of(where, column or kind),
    )


def _windowed(kind: AggregationKind, column: str, window: str, scale: int, where: Where) -> Aggregation:
    if scale < 1:
        raise ConfigError(f"scale = {scale} of column {column!r} must be a positive integer")
    return Aggregation(
        kind=kind,
        column=column,
        window_s=_seconds(window),
        scale=scale,
        where=conditions_of(where, column),
    )


def _seconds(window: str) -> int:
    try:
        return int(parse_duration(window).total_seconds())
    except ValueError as err:
        raise ConfigError(str(err)) from err


def _whole(value: float, scale: int, what: str, column: str) -> int:
    """Give `value` in units of `1 / scale`, from its decimal text: 0.1 means a tenth."""
    scaled = Fraction(str(value)) * scale
    if scaled.denominator != 1:
        raise ConfigError(f"{what} = {value} of column {column!r} is no multiple of 1/{scale}")
    return scaled.numerator
