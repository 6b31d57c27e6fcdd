"""Whether a feature that was served is the one computed offline: to the last bit, or what decays to 1e-9."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from noria.features.declarations import ViewSpec

__all__ = ["agree", "differing", "tolerances"]

Floats = npt.NDArray[np.float64]

RELATIVE = 1e-9


def tolerances(specs: Iterable[ViewSpec]) -> Mapping[str, float]:
    """Give by column how far apart two ways to its value may be, relative to it."""
    return {
        name: RELATIVE if feature.aggregation.kind.is_decayed else 0.0
        for spec in specs
        for name, feature in zip(spec.columns, spec.features, strict=True)
    }


def agree(one: float | None, other: float | None, tolerance: float) -> bool:
    """Tell whether two values are the same; two missing ones are.

    Examples
    --------
    >>> agree(1.0, 1.0 + 1e-12, 0.0), agree(1.0, 1.0 + 1e-12, 1e-9), agree(None, None, 0.0)
    (False, True, True)
    """
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def differing(one: Floats, other: Floats, tolerance: float) -> int:
    """Count the values that are not the same; two NaN are."""
    if not tolerance:
        return int(np.count_nonzero(~((one == other) | (np.isnan(one) & np.isnan(other)))))
    return int(np.count_nonzero(~np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)))
