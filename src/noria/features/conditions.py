"""Conditions on rows, as a user writes them: `[("status", "==", "late"), ("distance", ">=", 1_000)]`."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from noria.errors import ConfigError
from noria.features.declarations import Comparison, Condition, Conditions, Plain

__all__ = ["Where", "conditions_of"]

Where = Sequence[tuple[str, str, Plain | Iterable[Plain]]]

_SEVERAL = (Comparison.AMONG, Comparison.NOT_AMONG)


def conditions_of(where: Where, what: str) -> Conditions:
    """Check conditions and give them as plain data.

    Raises
    ------
    ConfigError
        If one has not three parts, or a comparison or value that there is none of; names `what`.

    Examples
    --------
    >>> conditions_of([("late", "==", True)], "n")[0].column
    'late'
    """
    return tuple(_condition(each, what) for each in where)


def _condition(given: object, what: str) -> Condition:
    match given:
        case (str() as column, str() as comparison, value):
            pass
        case _:
            raise ConfigError(_wanted(given, what))
    try:
        compared = Comparison(comparison)
    except ValueError as err:
        known = ", ".join(each.value for each in Comparison)
        raise ConfigError(
            f"{comparison!r} in `where` of {what!r} compares nothing; there is {known}"
        ) from err
    if compared not in _SEVERAL:
        if not _is_plain(value):
            raise ConfigError(f"{value!r} in `where` of {what!r} is no text, number or bool")
        return Condition(column, compared, value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{compared.value!r} in `where` of {what!r} wants several values, not {value!r}")
    several = tuple(each for each in value if _is_plain(each))
    if not several or len(several) < len(tuple(value)) or len({_kind(each) for each in several}) > 1:
        raise ConfigError(
            f"{value!r} in `where` of {what!r} are not one or more texts, numbers or bools of one kind"
        )
    return Condition(column, compared, several)


def _is_plain(value: object) -> TypeGuard[Plain]:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _kind(value: Plain) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _wanted(given: object, what: str) -> str:
    return (
        f"{given!r} in `where` of {what!r} is no condition; "
        'write [(column, comparison, value)], such as [("status", "==", "late")]'
    )
