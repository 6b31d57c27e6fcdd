"""Which floats are whole numbers of a type: a cast of any other gives another number without a word."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["are_whole"]


def are_whole(values: NDArray[np.float64], kind: DTypeLike) -> NDArray[np.bool_]:
    """Tell which values an integer type, or that of truths, holds; it holds no NaN.

    Examples
    --------
    >>> are_whole(np.array([127.0, 128.0, 1.5, np.nan]), "int8").tolist()
    [True, False, False, False]
    """
    dtype = np.dtype(kind)
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    found: NDArray[np.bool_] = (values >= low) & (values < float(high + 1)) & (values == np.rint(values))
    return found
