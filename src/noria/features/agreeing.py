"""Whether a feature that was served is the one computed offline: to the last bit, or what decays to 1e-9."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from noria.features.declarations import ViewSpec
from noria.features.on_demand import OnDemandSpec

__all__ = ["agree", "differing", "differing_rows", "on_demand_tolerances", "tolerances"]

Floats = npt.NDArray[np.float64]

RELATIVE = 1e-9
_AMPLIFIED = 1e-6


def tolerances(specs: Iterable[ViewSpec]) -> Mapping[str, float]:
    """Give by column of numbers how far apart two ways to its value may be, relative to it."""
    allowed: dict[str, float] = {}
    for spec in specs:
        features = zip(spec.columns, spec.features, strict=True)
        decayed = {name for name, feature in features if feature.aggregation.kind.is_decayed}
        allowed |= {name: RELATIVE if name in decayed else 0.0 for name in spec.matrix_columns}
    return allowed


def on_demand_tolerances(specs: Iterable[OnDemandSpec], allowed: Mapping[str, float]) -> Mapping[str, float]:
    """Give `tolerances` of views with those of on-demand features that read them.

    One that reads only what is exact is exact; a function may make a small difference larger.
    """
    made = dict(allowed)
    for spec in specs:
        tolerance = _AMPLIFIED if any(made.get(name) for name in spec.features) else 0.0
        made |= dict.fromkeys(spec.columns, tolerance)
    return made


def agree(one: float | str | None, other: float | str | None, tolerance: float) -> bool:
    """Tell whether two values are the same; two missing ones are, and texts are to the letter.

    Examples
    --------
    >>> agree(1.0, 1.0 + 1e-12, 0.0), agree(1.0, 1.0 + 1e-12, 1e-9), agree(None, None, 0.0)
    (False, True, True)
    """
    if one is None or other is None:
        return one is other
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def differing(one: Floats, other: Floats, tolerance: float) -> int:
    """Count the values that are not the same; two NaN are."""
    return int(np.count_nonzero(differing_rows(one, other, tolerance)))


def differing_rows(one: Floats, other: Floats, tolerance: float) -> npt.NDArray[np.bool_]:
    """Tell which values are not the same; two NaN are."""
    if not tolerance:
        return np.asarray(~((one == other) | (np.isnan(one) & np.isnan(other))), dtype=np.bool_)
    return ~np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
