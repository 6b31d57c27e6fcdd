"""Features that were looked up for rows: which release gets which, and how the log names them.

Numbers, with the elements of vectors, are one matrix of float64, texts are another one of str and None.

Releases of a route may need different definitions of a view. The matrix has the features of every definition
once. The log's `<view>__<feature>` is what the release saw that answered the row; beside it, where there are
several definitions of a view, `<view>@<digest>__<feature>` is what each of them gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from noria.features.declarations import FeatureType, ViewSpec
from noria.features.view_plan import FeatureValues

__all__ = ["LookedUp", "TextMatrix", "logged_name", "looked_up_columns", "matrices_of"]

_DIGEST_CHARACTERS = 12

Matrix = NDArray[np.float64]
TextMatrix = NDArray[np.object_]
_AnyMatrix = TypeVar("_AnyMatrix", Matrix, TextMatrix)
Places = tuple[tuple[str, int], ...]  # a feature's name, and its column in the matrix


def logged_name(spec: ViewSpec, column: str) -> str:
    """Name a feature of one definition of a view, as the log does where there are several."""
    return f"{spec.name}@{spec.digest[:_DIGEST_CHARACTERS]}{column.removeprefix(spec.name)}"


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Where the features of each release are in the matrix.

    Attributes
    ----------
    releases
        By release, its features and their columns.
    plain
        The names by which features are logged as the answering release saw them.
    several
        The names of those of which there are several definitions, each with its column.
    """

    releases: Mapping[str, Places]
    plain: tuple[str, ...]
    several: Places

    @property
    def names(self) -> list[str]:
        """The names by which features are logged."""
        return [*self.plain, *(name for name, _ in self.several)]

    def logged(self, matrix: _AnyMatrix, chosen: Sequence[str]) -> _AnyMatrix:
        """Give what is logged, in the order of `names`; `chosen` are the releases that answer the rows."""
        if not self.several:
            return matrix
        nothing = None if matrix.dtype == np.object_ else np.nan
        answered = np.full((len(matrix), len(self.plain)), nothing, dtype=matrix.dtype)
        place = {name: position for position, name in enumerate(self.plain)}
        for release in dict.fromkeys(chosen):
            rows = np.array([each == release for each in chosen])
            for name, column in self.releases[release]:
                answered[rows, place[name]] = matrix[rows, column]
        return np.hstack([answered, matrix[:, [column for _, column in self.several]]])


def looked_up_columns(
    views: Sequence[ViewSpec],
    releases: Sequence[tuple[str, Sequence[ViewSpec]]],
    *,
    named: Callable[[ViewSpec], Sequence[str]] = lambda view: view.matrix_columns,
) -> LookedUp:
    """Say where features are that are looked up in the order of `views`.

    Parameters
    ----------
    releases
        Which views each of them needs.
    named
        Gives the names of a view's columns in the matrix; those of numbers unless it is one of texts.
    """
    columns: dict[ViewSpec, list[tuple[str, int]]] = {}
    at = 0
    for view in views:
        mine = named(view)
        columns[view] = list(zip(mine, range(at, at + len(mine)), strict=True))
        at += len(mine)
    names = [view.name for view in views]
    several = [
        (logged_name(view, name), column)
        for view in views
        if names.count(view.name) > 1
        for name, column in columns[view]
    ]
    return LookedUp(
        releases={
            release: tuple(each for view in mine for each in columns[view]) for release, mine in releases
        },
        plain=tuple(dict.fromkeys(name for view in views for name in named(view))),
        several=tuple(several),
    )


def matrices_of(
    views: Sequence[ViewSpec], found: Sequence[Mapping[str, FeatureValues]], rows: int
) -> tuple[Matrix, TextMatrix]:
    """Give what `FeatureReader.read_values` gave of `views` as numbers and as texts."""
    numbers: list[Matrix] = [np.empty((rows, 0))]
    texts: list[TextMatrix] = [np.empty((rows, 0), dtype=np.object_)]
    for view, values in zip(views, found, strict=True):
        for name, feature in zip(view.columns, view.features, strict=True):
            match feature.type:
                case FeatureType.NUMBER:
                    numbers.append(np.asarray(values[name], dtype=np.float64).reshape(rows, 1))
                case FeatureType.TEXT:
                    column = np.empty((rows, 1), dtype=np.object_)
                    column[:, 0] = values[name]
                    texts.append(column)
                case FeatureType.VECTOR:
                    elements = np.full((rows, feature.aggregation.dimensions or 0), np.nan)
                    for row, vector in enumerate(values[name]):
                        if vector is not None:
                            elements[row] = vector
                    numbers.append(elements)
                case FeatureType.LIST:
                    pass  # no model reads it
    return np.hstack(numbers), np.hstack(texts)
