"""What a row must be like: frozen, JSON-able rules.

A null fails `not_null` only: every other rule lets it pass, as SQL's own checks do. A NaN counts as
a missing value for `not_null` and as out of bounds for `between`.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from noria.clock import format_instant
from noria.errors import ConfigError

__all__ = ["Bound", "Rule", "Severity", "between", "expression", "matches", "not_null", "one_of", "unique"]

Bound = int | float | str


class Severity(StrEnum):
    """What a failing row leads to."""

    REJECT = "reject"  # the row is set aside with its reason, the rest goes on
    BLOCK = "block"  # one failing row blocks the whole batch
    WARN = "warn"  # it is counted and reported, nothing else


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a contract; made by the functions of this module."""

    kind: str  # "between", "not_null", "unique", "one_of", "matches", "expression"
    name: str  # as reports call it, for example "between(distance, 1, 6000)"
    columns: tuple[str, ...] = ()
    low: Bound | None = None
    high: Bound | None = None
    values: tuple[Bound, ...] = ()
    pattern: str | None = None
    sql: str | None = None
    instants: bool = False  # `low` and `high` are ISO instants
    severity: Severity = Severity.REJECT


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
    given = [bound for bound in (low, high) if bound is not None]
    if not given:
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


def one_of(column: str, values: Iterable[Bound], *, severity: str = "reject") -> Rule:
    """Want one of `values`."""
    allowed = tuple(values)
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


def _show(bound: Bound | None) -> str:
    return "…" if bound is None else str(bound)
