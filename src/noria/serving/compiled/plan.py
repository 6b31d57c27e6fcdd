"""What a fitted estimator does to rows, as data: it is stored, and read without scikit-learn.

A plan is a tree of steps that give a matrix of float64, and the head that makes the outputs of it. Every
step names the very operations of scikit-learn's transformer, in its order: the matrix has the same bits.
"""

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.serving.records import Output

__all__ = [
    "UFUNCS",
    "Array",
    "Concat",
    "Elementwise",
    "EncodedColumn",
    "Expand",
    "FeatureTable",
    "Finite",
    "Head",
    "Impute",
    "Linear",
    "Matrix",
    "OneHot",
    "Operation",
    "Ordinal",
    "Plan",
    "Project",
    "Refused",
    "Select",
    "Step",
    "Tables",
    "Trees",
    "packed",
    "unpacked",
]

UFUNCS = (
    "abs",
    "absolute",
    "arctan",
    "cbrt",
    "cos",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "log",
    "log10",
    "log1p",
    "log2",
    "negative",
    "reciprocal",
    "sign",
    "sin",
    "sqrt",
    "square",
    "tanh",
)  # of numpy, by which a FunctionTransformer may change numbers one by one


Refused = Literal["none", "infinite", "missing"]  # "missing": infinite ones too


class Array(msgspec.Struct, frozen=True, array_like=True):
    """Numbers of numpy."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def packed(values: object) -> Array:
    """Give an array of numbers as it is stored: float64, or integers."""
    array = np.ascontiguousarray(values)
    array = array.astype("<i8" if array.dtype.kind in "iu" else "<f8", copy=False)
    return Array(array.dtype.str, array.shape, array.tobytes())


def unpacked(array: Array) -> NDArray[Any]:
    """Give the numbers of a stored array."""
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)


class Matrix(msgspec.Struct, frozen=True, tag="matrix"):
    """The request's numbers: of the columns, or all."""

    columns: tuple[int, ...] | None


class Select(msgspec.Struct, frozen=True, tag="select"):
    """Some columns of a step."""

    source: "Step"
    columns: tuple[int, ...]


class Concat(msgspec.Struct, frozen=True, tag="concat"):
    """The columns of several steps, side by side."""

    sources: tuple["Step", ...]


class Finite(msgspec.Struct, frozen=True, tag="finite", kw_only=True):
    """The columns of a step; rows that hold what the transformer takes none of are refused."""

    source: "Step"
    names: tuple[str, ...]  # of the columns
    refuses: Refused


class Impute(msgspec.Struct, frozen=True, tag="impute", kw_only=True):
    """NaN becomes a column's `fill`; then, a column each, which of `indicated` were NaN."""

    source: "Step"
    kept: tuple[int, ...] | None  # None: all
    fill: Array
    indicated: tuple[int, ...] = ()


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One operation on every number: with a number of each column, between two, or of numpy (`UFUNCS`)."""

    name: str
    operand: Array | None = None


class Elementwise(msgspec.Struct, frozen=True, tag="elementwise"):
    """Operations on every number, one after another."""

    source: "Step"
    operations: tuple[Operation, ...]


class Expand(msgspec.Struct, frozen=True, tag="expand", kw_only=True):
    """Products of columns: each is a former column of the result times one of the source."""

    source: "Step"
    has_ones: bool  # as the first column
    blocks: tuple[tuple[int, int, int], ...]  # first and last of the former columns, the source's


class Project(msgspec.Struct, frozen=True, tag="project", kw_only=True):
    """A matrix product less an offset, over a scale."""

    source: "Step"
    components: Array  # (n, k), or (k, n)
    is_transposed: (
        bool  # which of them; numbers lie in memory as scikit-learn's do: BLAS adds up the same way
    )
    offset: Array  # (k,)
    scale: Array | None


class EncodedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column of categories: what each becomes, and what any other does (None: it is refused).

    A text column is one of the request; else `source` is a step of one column.
    """

    name: str
    texts: dict[str, float] | None
    source: "Step | None" = None
    numbers: tuple[tuple[float, float], ...] = ()
    missing: float | None  # what None or NaN becomes
    unknown: float | None


class OneHot(msgspec.Struct, frozen=True, tag="one_hot"):
    """Each column's category as the position that is 1, or -1: none is."""

    columns: tuple[EncodedColumn, ...]
    width: int


class Ordinal(msgspec.Struct, frozen=True, tag="ordinal"):
    """Each column's category as its number."""

    columns: tuple[EncodedColumn, ...]


Step = Matrix | Select | Concat | Finite | Impute | Elementwise | Expand | Project | OneHot | Ordinal

Link = Literal["identity", "exp", "sigmoid", "sigmoid_twice", "softmax", "one_vs_rest", "mean"]


class Linear(msgspec.Struct, frozen=True, tag="linear", kw_only=True):
    """A matrix product plus an offset."""

    coefficients: Array  # (n,) or (n, k), as the product takes them
    is_transposed: bool  # whether they are kept as (k, n)
    intercept: Array
    link: Link


class FeatureTable(msgspec.Struct, frozen=True, array_like=True):
    """Of one column, the bits of leaves that are left in every tree; see `compiled.many_rows`."""

    column: int
    thresholds: Array  # ascending
    tables: Array  # (thresholds + 2, trees): by how many a number exceeds; the last is of NaN


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """Trees for many rows at once."""

    features: tuple[FeatureTable, ...]
    values: Array  # of the leaves, from left to right, tree after tree
    starts: Array  # where each tree's begin
    width: int


class Trees(msgspec.Struct, frozen=True, tag="trees", kw_only=True):
    """Sums of leaves, by LightGBM's library.

    Attributes
    ----------
    is_single
        Whether numbers are float32 first.
    at_zero
        Columns that are compared with 0, of which the library takes numbers near 0 for 0.
    has_infinity
        Whether a tree compares with infinity, for which the library has the greatest number.
    code_of_missing
        By column of categories, the code that NaN has.
    divisor
        Of the sums.
    tables
        Of small trees: the same sums, for many rows.
    """

    text: bytes
    is_single: bool
    at_zero: tuple[int, ...]
    has_infinity: bool
    code_of_missing: dict[int, int]
    divisor: float
    link: Link
    tables: Tables | None = None


Head = Linear | Trees


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled estimator.

    Attributes
    ----------
    columns
        How wide a matrix of numbers it reads; their names are `names`.
    refuses
        Which numbers it takes none of in the matrix that the head reads.
    classes
        What it tells apart; empty of a regressor.
    cut
        How a label is chosen: by a sum that is above 0, or from 0, or by the greatest of several.
    """

    columns: int
    names: tuple[str, ...]
    step: Step
    head: Head
    outputs: tuple[Output, ...]
    refuses: Refused
    classes: tuple[str | int | float | bool, ...] = ()
    cut: Literal["above", "from", "greatest"] = "greatest"
    format: int = 1
