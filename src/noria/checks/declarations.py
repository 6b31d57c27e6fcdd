"""What a row must be like: frozen, JSON-able rules.

A null fails `not_null` only: every other rule lets it pass, as SQL's own checks do. A NaN counts as
a missing value for `not_null` and as out of bounds for `between`.
"""

import math
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec

from noria.clock import format_instant, parse_duration
from noria.errors import ConfigError

__all__ = [
    "BATCH_KINDS",
    "Bound",
    "Named",
    "Rule",
    "Severity",
    "aggregate",
    "between",
    "expression",
    "finite",
    "fresh",
    "has_type",
    "increasing",
    "length",
    "matches",
    "not_null",
    "one_of",
    "references",
    "rejected_share",
    "row_count",
    "unique",
]

Bound = bool | int | float | str
# About a batch, not about a row.
BATCH_KINDS = frozenset({"aggregate", "fresh", "has_type", "rejected_share", "row_count"})


class Named(Protocol):
    """What has a name: a declared dataset."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class Severity(StrEnum):
    """What a failing row leads to."""

    REJECT = "reject"  # the row is set aside with its reason, the rest goes on
    BLOCK = "block"  # one failing row blocks the whole batch
    WARN = "warn"  # it is counted and reported, nothing else


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a contract; made by the functions of this module."""

    kind: str  # the name of the function that makes it
    name: str  # as reports call it, for example "between(distance, 1, 6000)"
    columns: tuple[str, ...] = ()
    low: Bound | None = None
    high: Bound | None = None
    values: tuple[Bound, ...] = ()
    pattern: str | None = None
    sql: str | None = None
    instants: bool = False  # `low` and `high` are ISO instants
    strictly: bool = False  # of `increasing`: equal is too little
    type: str | None = None  # of `has_type`
    dataset: str | None = None  # of `references`: whose `others` the columns name
    others: tuple[str, ...] = ()
    span_s: float | None = None  # of `fresh`: the greatest age; of others about batches: how far to look back
    alpha: float | None = None  # of `rejected_share`: how often it may alarm for nothing
    severity: Severity = Severity.REJECT

    @property
    def about_batch(self) -> bool:
        """Whether it is about the batch as a whole."""
        return self.kind in BATCH_KINDS


def between(
    column: str,
    low: float | str | datetime | None,
    high: float | str | datetime | None,
    *,
    severity: str = "reject",
) -> Rule:
    """Want `low <= column <= high`; None leaves a side open.

    Raises
    ------
    ConfigError
        If both sides are open, the bounds are of different kinds, or `low` is above `high`.

    Examples
    --------
    >>> between("distance", 1, 6_000).name
    'between(distance, 1, 6000)'
    """
    if any(isinstance(bound, float) and math.isnan(bound) for bound in (low, high)):
        raise ConfigError(f"between({column!r}, {low!r}, {high!r}): nothing is above or below a NaN")
    low, high = (None if low == -math.inf else low), (None if high == math.inf else high)
    given = [bound for bound in (low, high) if bound is not None]
    if not given or math.inf in (low, -high if isinstance(high, float) else None):
        raise ConfigError(f"between({column!r}) has no bound; give `low`, `high` or both")
    kinds = {_kind(bound) for bound in given}
    if len(kinds) > 1:
        raise ConfigError(f"between({column!r}, {low!r}, {high!r}): the bounds are of different kinds")
    first, last = _plain(low), _plain(high)
    if low is not None and high is not None and low > high:  # type: ignore[operator]
        raise ConfigError(f"between({column!r}, {low!r}, {high!r}): the lower bound is above the upper one")
    return Rule(
        kind="between",
        name=f"between({column}, {_show(first)}, {_show(last)})",
        columns=(column,),
        low=first,
        high=last,
        instants=kinds == {"instant"},
        severity=_severity(severity),
    )


def not_null(*columns: str, severity: str = "reject") -> Rule:
    """Want a value in each of `columns`."""
    return Rule(
        kind="not_null",
        name=f"not_null({', '.join(columns)})",
        columns=_some(columns, "not_null"),
        severity=_severity(severity),
    )


def unique(*columns: str, severity: str = "reject") -> Rule:
    """Want each combination of `columns` once in a batch; the first row of it stays."""
    return Rule(
        kind="unique",
        name=f"unique({', '.join(columns)})",
        columns=_some(columns, "unique"),
        severity=_severity(severity),
    )


def one_of(
    column: str, values: Iterable[Bound | date | datetime | Decimal], *, severity: str = "reject"
) -> Rule:
    """Want one of `values`: numbers, texts, truth values, days or instants. A null passes by itself.

    Raises
    ------
    ConfigError
        If there is no value, or one that equals nothing: None, NaN, an infinity, something else.
    """
    if isinstance(values, str):
        raise ConfigError(f"one_of({column!r}, {values!r}) was given a text; give a list of values")
    allowed = tuple(_allowed(column, each) for each in values)
    if not allowed:
        raise ConfigError(f"one_of({column!r}) allows no value; give at least one")
    shown = ", ".join(_show(value) for value in allowed[:4]) + (", …" if len(allowed) > 4 else "")
    return Rule(
        kind="one_of",
        name=f"one_of({column}, {shown})",
        columns=(column,),
        values=allowed,
        severity=_severity(severity),
    )


def matches(column: str, regex: str, *, severity: str = "reject") -> Rule:
    """Want the whole text to match `regex` (RE2 syntax)."""
    try:
        re.compile(regex)
    except re.error as err:
        raise ConfigError(f"matches({column!r}, {regex!r}): no regular expression: {err}") from err
    return Rule(
        kind="matches",
        name=f"matches({column}, {regex})",
        columns=(column,),
        pattern=regex,
        severity=_severity(severity),
    )


def expression(sql: str, *, name: str, severity: str = "reject") -> Rule:
    """Want a boolean SQL expression over the columns of a row to hold; an unknown (null) passes.

    Examples
    --------
    >>> expression("landed_at >= departed_at", name="lands after it departs").kind
    'expression'
    """
    return Rule(kind="expression", name=name, sql=sql, severity=_severity(severity))


def finite(*columns: str, severity: str = "reject") -> Rule:
    """Want numbers in `columns`: neither NaN nor an infinity."""
    return Rule(
        kind="finite",
        name=f"finite({', '.join(columns)})",
        columns=_some(columns, "finite"),
        severity=_severity(severity),
    )


def length(column: str, low: int | None, high: int | None, *, severity: str = "reject") -> Rule:
    """Want `low` to `high` characters of a text, or entries of a list; None leaves a side open."""
    given = [bound for bound in (low, high) if bound is not None]
    if not given or any(type(bound) is not int or bound < 0 for bound in given):
        raise ConfigError(f"length({column!r}, {low!r}, {high!r}) wants `low`, `high` or both, from 0 on")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"length({column!r}, {low}, {high}): the lower bound is above the upper one")
    return Rule(
        kind="length",
        name=f"length({column}, {_show(low)}, {_show(high)})",
        columns=(column,),
        low=low,
        high=high,
        severity=_severity(severity),
    )


def increasing(column: str, *, strictly: bool = False, severity: str = "reject") -> Rule:
    """Want no value below the greatest before it in the batch; `strictly`: nor one equal to it.

    The greatest is that of rows which hold the other rules, so that one mistyped value condemns no others.
    """
    return Rule(
        kind="increasing",
        name=f"increasing({column}{', strictly' if strictly else ''})",
        columns=(column,),
        strictly=strictly,
        severity=_severity(severity),
    )


def references(
    column: str | Iterable[str],
    dataset: str | Named,
    other: str | Iterable[str] | None = None,
    *,
    severity: str = "reject",
) -> Rule:
    """Want `column`, or columns together, to be among those of rows of another dataset.

    Parameters
    ----------
    column
        One or several; a row that lacks a value in one of them passes.
    dataset
        The other dataset, or its name. It has to have a table when a batch is ingested. Of the same dataset
        the rows that have landed count, not those of the batch.
    other
        Its columns, in the same order; by default they have the same names.

    Examples
    --------
    >>> references("carrier", "airlines", "code").name
    'references(carrier, airlines.code)'
    """
    mine = _listed(column)
    theirs = mine if other is None else _listed(other)
    if not mine or len(set(mine)) != len(set(theirs)) or len(set(mine)) != len(mine):
        raise ConfigError(
            f"references({', '.join(mine)}) names {len(mine)} columns here and {len(theirs)} there; "
            "name as many here as there, each once"
        )
    name = dataset if isinstance(dataset, str) else dataset.name
    return Rule(
        kind="references",
        name=f"references({', '.join(mine)}, {', '.join(f'{name}.{each}' for each in theirs)})",
        columns=mine,
        dataset=name,
        others=theirs,
        severity=_severity(severity),
    )


def has_type(column: str, type: str, *, severity: str = "block") -> Rule:
    """Want a column of a type: an Arrow type (`int64`, `timestamp[us, tz=UTC]`) or a family of them.

    The families are `integer`, `number` (integers, floats, decimals), `text`, `instant` (with a time zone),
    `date`, `bool`, `binary`, `list`, `struct`.
    """
    return Rule(
        kind="has_type",
        name=f"has_type({column}, {type})",
        columns=(column,),
        type=type,
        severity=_of_batch(severity, "has_type"),
    )


def fresh(max_age: str | timedelta, *, severity: str = "block") -> Rule:
    """Want the newest `event_at` of a batch to be at most `max_age` before the instant of the batch.

    Examples
    --------
    >>> fresh("36h").span_s
    129600.0
    """
    span = _span(max_age, "fresh")
    return Rule(kind="fresh", name=f"fresh({max_age})", span_s=span, severity=_of_batch(severity, "fresh"))


def rejected_share(
    jump: float = 2.0,
    *,
    against: str | timedelta = "28d",
    alpha: float = 0.001,
    severity: str = "warn",
) -> Rule:
    """Want no share of rejected rows that is far above what earlier batches had.

    The limit of the share itself is the dataset's `max_rejected_share`. Batches of which this did not hold
    are no measure of later ones.

    Parameters
    ----------
    jump
        How many times the share of all earlier rows it has to be, at least.
    against
        How far to look back for batches that landed. With fewer than 5 of them nothing is wanted.
    alpha
        How often it may fail for nothing: of this share of batches, at most; see `noria.checks.trends`.

    Examples
    --------
    >>> rejected_share(3, against="7d").name
    'rejected_share(3, against=7d)'
    """
    if not jump >= 1 or not math.isfinite(jump):
        raise ConfigError(f"rejected_share({jump!r}): the jump is {jump!r}, wanted is a number from 1 on")
    if not 0 < alpha < 1:
        raise ConfigError(f"rejected_share(alpha={alpha!r}) wants a share between 0 and 1, such as 0.001")
    return Rule(
        kind="rejected_share",
        name=f"rejected_share({jump:g}, against={against})",
        high=jump,
        span_s=_span(against, "rejected_share"),
        alpha=alpha,
        severity=_of_batch(severity, "rejected_share"),
    )


def row_count(
    low: float | None = None,
    high: float | None = None,
    *,
    against: str | timedelta | None = None,
    severity: str = "block",
) -> Rule:
    """Want `low` to `high` rows in a batch; with `against`, so many times the median of earlier batches.

    Parameters
    ----------
    low, high
        Rows, or with `against` shares of the median; None leaves a side open.
    against
        How far to look back (`"28d"`) for batches that landed. With fewer than 5 of them nothing is wanted.

    Examples
    --------
    >>> row_count(0.5, 2, against="28d").name
    'row_count(0.5, 2, against=28d)'
    """
    given = [bound for bound in (low, high) if bound is not None]
    if not given or any(bound < 0 for bound in given):
        raise ConfigError(f"row_count({low!r}, {high!r}) wants `low`, `high` or both, from 0 on")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"row_count({low!r}, {high!r}): the lower bound is above the upper one")
    past = "" if against is None else f", against={against}"
    return Rule(
        kind="row_count",
        name=f"row_count({_show(low)}, {_show(high)}{past})",
        low=low,
        high=high,
        span_s=None if against is None else _span(against, "row_count"),
        severity=_of_batch(severity, "row_count"),
    )


def aggregate(sql: str, *, name: str, severity: str = "block") -> Rule:
    """Want a SQL condition over aggregates of the accepted rows to hold; an unknown (null) passes.

    Examples
    --------
    >>> aggregate("avg(delay) between -10 and 60", name="usual delays").kind
    'aggregate'
    """
    return Rule(kind="aggregate", name=name, sql=sql, severity=_of_batch(severity, "aggregate"))


def _listed(columns: str | Iterable[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _span(text: str | timedelta, what: str) -> float:
    try:
        span = parse_duration(text) if isinstance(text, str) else text
    except ValueError as err:
        raise ConfigError(f"{what}({text!r}): {err}") from err
    if span <= timedelta(0):
        raise ConfigError(f"{what}({text!r}): the duration must be positive")
    return span.total_seconds()


def _of_batch(text: str, what: str) -> Severity:
    severity = _severity(text)
    if severity is Severity.REJECT:
        raise ConfigError(
            f"{what}(...) is about a batch as a whole and can reject no row; "
            "choose severity 'block' or 'warn'"
        )
    return severity


def _some(columns: tuple[str, ...], what: str) -> tuple[str, ...]:
    if not columns:
        raise ConfigError(f"{what}() names no column; give at least one")
    return columns


def _severity(text: str) -> Severity:
    try:
        return Severity(text)
    except ValueError:
        raise ConfigError(f"severity {text!r} is none; choose 'reject', 'block' or 'warn'") from None


def _kind(bound: float | str | datetime) -> str:
    if isinstance(bound, datetime):
        return "instant"
    return "text" if isinstance(bound, str) else "number"


def _plain(bound: float | str | datetime | None) -> Bound | None:
    if isinstance(bound, datetime):
        if bound.tzinfo is None:
            raise ConfigError(f"{bound!r} has no time zone; noria speaks aware UTC only")
        return format_instant(bound)
    return bound


def _allowed(column: str, value: object) -> Bound:
    if isinstance(value, datetime):
        return str(_plain(value))
    if isinstance(value, date | Decimal):
        return str(value)
    if not isinstance(value, bool | int | float | str) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise ConfigError(
            f"one_of({column!r}): {value!r} is no value to compare with; leave it out "
            "(a null passes by itself)"
        )
    return value


def _show(bound: Bound | None) -> str:
    return "…" if bound is None else str(bound)
