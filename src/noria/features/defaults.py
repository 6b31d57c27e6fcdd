"""What stands where a feature has no value, as its type has it."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.features.declarations import Default, FeatureSpec, Plain

__all__ = ["checked_default", "is_valid_text"]

_LARGEST_ELEMENT = (2 - 2**-23) * 2.0**127  # of float32
_BEYOND_WHOLE = 2**63


def checked_default(feature: "FeatureSpec", given: "Default", view: str) -> "Plain | tuple[Plain, ...]":
    """Give a default as the type of its feature has it. Raises `ConfigError` if it is none of that."""
    made = _of_type(feature, given)
    if made is not None:
        return made
    dimensions, k = feature.aggregation.dimensions, feature.aggregation.k
    wanted = {
        "number": "a number",
        "text": "a text",
        "vector": f"{dimensions} numbers within float32",
        "list": f"at most {k} values, each as in `values`",
    }[feature.type]
    raise ConfigError(
        f"the default of feature {feature.name!r} of view {view!r} is {given!r}; wanted is {wanted}"
    )


def is_valid_text(value: object) -> TypeGuard[str]:
    r"""Tell whether it is a text that has an encoding: half a surrogate pair has none.

    Examples
    --------
    >>> is_valid_text("é"), is_valid_text("\ud800"), is_valid_text(3)
    (True, False, False)
    """
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)


def _of_type(feature: "FeatureSpec", given: object) -> "Plain | tuple[Plain, ...] | None":
    """Give it as features of that type have values; None if it is not of the type."""
    if feature.type == "number":
        return float(given) if _is_number(given, most=sys.float_info.max) else None
    if feature.type == "text":
        return given if is_valid_text(given) else None
    several = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else None
    if several is None:
        return None
    if feature.type == "vector":
        numbers = tuple(float(each) for each in several if _is_number(each, most=_LARGEST_ELEMENT))
        return numbers if len(several) == len(numbers) == feature.aggregation.dimensions else None
    kind = type(feature.aggregation.values[0])
    fits = all(type(each) is kind and (is_valid_text(each) or _is_whole(each)) for each in several)
    return several if fits and len(several) <= (feature.aggregation.k or 0) else None


def _is_number(value: object, *, most: float) -> TypeGuard[float]:
    return isinstance(value, int | float) and abs(value) <= most  # neither NaN nor infinite


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and -_BEYOND_WHOLE <= value < _BEYOND_WHOLE
