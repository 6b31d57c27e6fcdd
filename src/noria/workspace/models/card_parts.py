"""What a model card consists of, as values: words and figures as they are shown, for any screen."""

import math
from collections.abc import Mapping
from datetime import datetime

import msgspec

__all__ = ["Bar", "CardPart", "Table", "figure", "interval", "moment"]

_LARGE, _SMALL = 1e15, 1e-4


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of texts; `right` names the columns of numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One input's share of all that is added to scores, and how that goes with its value.

    Parameters
    ----------
    effects
        Mean contributions by span or category, in order, each with what it is of.
    """

    name: str
    share: float
    told: str
    effects: tuple[tuple[str, float], ...]


class CardPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a card; facts that are None are left out."""

    title: str
    facts: Mapping[str, str | None] = {}
    texts: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    bars: tuple[Bar, ...] = ()
    code: str | None = None


def figure(value: object) -> str:
    """Write a number with four significant digits and all that stand before the point.

    Examples
    --------
    >>> figure(0.123456), figure(12345.678), figure(None), figure(7)
    ('0.1235', '12,346', '-', '7')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    if isinstance(value, int) or (abs(value) < _LARGE and value == int(value)):
        return f"{int(value):,}"
    if abs(value) < _SMALL or abs(value) >= _LARGE or math.isnan(value):
        return f"{value:.4g}"
    before = len(str(int(abs(value))))
    return f"{value:,.{max(4 - before, 0)}f}" if abs(value) >= 1 else f"{value:.4g}"


def interval(low: float, high: float) -> str:
    """Write an interval."""
    return f"{figure(low)} to {figure(high)}"


def moment(at: datetime) -> str:
    """Write an instant: the day, and the minute unless it is midnight."""
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute) == (0, 0) else f"{at:%Y-%m-%d %H:%M}"
