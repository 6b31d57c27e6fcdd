"""Rows as a model reads them, and what scores them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.serving.records import Output

__all__ = ["Rows", "Scorer", "Values"]

Values = NDArray[np.float64] | Sequence[object]  # of one output: (n,), or (n, width) of a vector


class Rows(msgspec.Struct, frozen=True, gc=False):
    """Rows as a model reads them.

    Attributes
    ----------
    matrix
        float64 of shape (n, k), row-major: every input but strings, in the model's order; NaN is missing.
    strings
        Inputs of kind `string` by name, None where missing.
    """

    matrix: NDArray[np.float64]
    strings: Mapping[str, Sequence[str | None]] = {}

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.matrix)


class Scorer(Protocol):
    """A model in memory. One thread scores at a time.

    Attributes
    ----------
    columns
        How wide a matrix it reads; None if it does not say.
    outputs
        What it gives.
    is_native
        Whether no code of a user runs in `predict`: it can neither hang nor wait.
    tolerance
        How far, relative to 1 or to the value where that is larger, its numbers may lie from those that the
        version was stored with; 0: the same bits.
    path
        How it scores, in a word or two, for people: "native", "compiled", "scikit-learn".
    fallback
        Why it is not the quick path; None where it is, or where there is none.
    """

    @property
    def columns(self) -> int | None: ...  # noqa: D102 - told above
    @property
    def outputs(self) -> tuple[Output, ...]: ...  # noqa: D102 - told above
    @property
    def is_native(self) -> bool: ...  # noqa: D102 - told above
    @property
    def tolerance(self) -> float: ...  # noqa: D102 - told above
    @property
    def path(self) -> str: ...  # noqa: D102 - told above
    @property
    def fallback(self) -> str | None: ...  # noqa: D102 - told above

    def predict(self, rows: Rows) -> Sequence[Values]:
        """Give the columns of `outputs` for the rows.

        Raises
        ------
        NoriaError
            If the model cannot score them.
        """
        ...
