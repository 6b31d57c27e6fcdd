"""Functions that score a matrix: the types that models of every format and those who call them share."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["Matrix", "Scorer"]

Matrix = npt.NDArray[np.float64]
Scorer = Callable[[Matrix], Matrix]  # rows in, one probability for each out
