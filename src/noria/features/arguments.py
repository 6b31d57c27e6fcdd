"""What the functions of `noria.agg` are given beside columns and windows, checked as it is declared."""

import math
import reprlib
from collections.abc import Collection
from fractions import Fraction

from noria.errors import ConfigError
from noria.features.declarations import Plain
from noria.features.defaults import is_valid_text

__all__ = ["counted_values", "several", "units", "whole_number"]

_BEYOND = 2**63


def whole_number(value: object, what: str, column: str, *, least: int, most: int | None = None) -> None:
    """Raise `ConfigError` if `value` is not a whole number of that range."""
    if type(value) is int and least <= value and (most is None or value <= most):
        return
    span = f"from {least} to {most}" if most is not None else f"of at least {least}"
    raise ConfigError(f"{what} = {value!r} of column {column!r} is no whole number {span}")


def units(value: float, scale: int, what: str, column: str) -> int:
    """Give `value` in units of `1 / scale`, from its decimal text: 0.1 means a tenth."""
    if not (isinstance(value, int | float) and math.isfinite(value)):
        raise ConfigError(f"{what} = {value!r} of column {column!r} is no finite number")
    scaled = Fraction(str(value)) * scale
    if scaled.denominator != 1:
        raise ConfigError(f"{what} = {value} of column {column!r} is no multiple of 1/{scale}")
    return scaled.numerator


def several(values: Collection[Plain], column: str) -> tuple[Plain, ...]:
    """Give values as they are. Raises `ConfigError` for a text: it would be taken for its letters."""
    if isinstance(values, str):
        raise ConfigError(
            f"the values of {column!r} are the text {values!r}, which would stand for its letters; "
            f"give a list, such as [{values!r}]"
        )
    return tuple(values)


def counted_values(values: Collection[str] | Collection[int], column: str, *, most: int) -> tuple[Plain, ...]:
    """Give the values to count, sorted. Raises `ConfigError` if they are none, not of a kind, or repeat."""
    wanted = several(values, column)
    if {type(each) for each in wanted} not in ({str}, {int}) or not len({*wanted}) == len(wanted) <= most:
        raise ConfigError(
            f"the values of {column!r} to count are {reprlib.repr(list(wanted))}; give up to {most} "
            "texts, or integers, each once"
        )
    for each in wanted:
        if isinstance(each, int) and not -_BEYOND <= each < _BEYOND:
            raise ConfigError(f"a value of {column!r} to count is beyond 64 bits; make the column text")
        if isinstance(each, str) and not is_valid_text(each):
            raise ConfigError(f"a value of {column!r} to count is no valid text: {each!r}")
    return tuple(sorted(wanted))  # all of one kind
