"""What is not compiled, and rows that a compiled model refuses as the original does."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from noria.errors import ConfigError, SourceError
from noria.serving.compiled.plan import Refused

__all__ = ["NotCompiled", "RowsRefused", "refused_numbers", "refused_rows"]

Floats = NDArray[np.float64]


class NotCompiled(ConfigError):
    """An estimator has no compiled form; the message says why."""


class RowsRefused(SourceError):
    """Rows hold a value that the model takes none of; the message names its column, never the value."""


def refused_numbers(refuses: Refused) -> Callable[[Floats], NDArray[np.bool_]]:
    """Give what tells which numbers of a matrix are refused."""
    match refuses:
        case "missing":
            return lambda matrix: ~np.isfinite(matrix)
        case "infinite":
            return np.isinf
        case "none":
            return lambda matrix: np.zeros(matrix.shape, dtype=np.bool_)


def refused_rows(names: Sequence[str], wrong: NDArray[np.bool_], refuses: Refused) -> RowsRefused:
    """Tell of numbers that are refused.

    Parameters
    ----------
    names
        Of the columns.
    wrong
        Which numbers are refused, (rows, columns).
    """
    told = dict.fromkeys(names[each] for each in np.flatnonzero(wrong.any(axis=0)).tolist())
    where = f"the column {', '.join(map(repr, told))}" if told else "a column that the model makes"
    what = "an infinite number" if refuses == "infinite" else "a missing or infinite number"
    return RowsRefused(f"{where} holds {what}, and the model takes none")
