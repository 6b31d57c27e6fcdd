"""How a feature is made from the rows of an entity: `agg.count`, `agg.mean`, `agg.quantile`, ...

A window `w` at the instant `t` holds the rows with `event_at` from `floor(t - w)` on that are known by `t`;
floored to the hour for windows up to two days, to the UTC day above. Sums are of integers: a column of
another type needs `scale`, and counts in units of `1 / scale` (values are rounded to those). Everything is
divided last, so offline and online agree exactly. A missing value of a column does not count for that
column; an entity that was never seen has an empty window (count and sum 0, the others NaN); a missing
entity has NaN everywhere.
"""

from fractions import Fraction

from noria.clock import parse_duration
from noria.errors import ConfigError
from noria.features.declarations import Aggregation, AggregationKind

__all__ = ["age", "count", "last", "max", "mean", "min", "quantile", "sum"]

_MAX_BINS = 4_096


def count(window: str) -> Aggregation:
    """Count the rows of the window.

    Examples
    --------
    >>> count("1d").window_s
    86400
    """
    return Aggregation(kind=AggregationKind.COUNT, window_s=_seconds(window))


def sum(column: str, window: str, *, scale: int = 1) -> Aggregation:
    """Add the values of `column` in the window."""
    return _windowed(AggregationKind.SUM, column, window, scale)


def mean(column: str, window: str, *, scale: int = 1) -> Aggregation:
    """Average the values of `column` in the window; of a boolean column: the rate."""
    return _windowed(AggregationKind.MEAN, column, window, scale)


def min(column: str, window: str, *, scale: int = 1) -> Aggregation:
    """Take the least value of `column` in the window."""
    return _windowed(AggregationKind.MIN, column, window, scale)


def max(column: str, window: str, *, scale: int = 1) -> Aggregation:
    """Take the greatest value of `column` in the window."""
    return _windowed(AggregationKind.MAX, column, window, scale)


def quantile(
    column: str, q: float, window: str, *, low: float, high: float, width: float, scale: int = 1
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
    base = _windowed(AggregationKind.QUANTILE, column, window, scale)
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
    )
    if high <= low or width <= 0:
        raise ConfigError(
            f"bins of {column!r} from {low} to {high} of width {width} are none; want low < high, width > 0"
        )
    if made.bins > _MAX_BINS:
        raise ConfigError(f"{made.bins} bins for {column!r} are more than {_MAX_BINS}; make `width` larger")
    return made


def last(column: str, max_age: str | None = None) -> Aggregation:
    """Take `column` of the row that happened last (ties: the greatest key), NaN if it is missing there.

    Parameters
    ----------
    column : str
        Any numeric or boolean column.
    max_age : str or None
        NaN if that row happened longer ago than this.
    """
    return Aggregation(
        kind=AggregationKind.LAST, column=column, max_age_s=None if max_age is None else _seconds(max_age)
    )


def age(max_age: str | None = None) -> Aggregation:
    """Give the minutes since the row that happened last; NaN if there is none within `max_age`."""
    return Aggregation(kind=AggregationKind.AGE, max_age_s=None if max_age is None else _seconds(max_age))


def _windowed(kind: AggregationKind, column: str, window: str, scale: int) -> Aggregation:
    if scale < 1:
        raise ConfigError(f"scale = {scale} of column {column!r} must be a positive integer")
    return Aggregation(kind=kind, column=column, window_s=_seconds(window), scale=scale)


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
