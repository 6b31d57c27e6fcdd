"""Which columns of the request each column of a step's matrix is made of."""

from collections.abc import Sequence
from typing import assert_never

from noria.serving.compiled.plan import (
    Concat,
    Elementwise,
    EncodedColumn,
    Expand,
    Finite,
    Impute,
    Matrix,
    OneHot,
    Ordinal,
    Project,
    Select,
    Step,
    unpacked,
)

__all__ = ["sources_of"]

Names = frozenset[str]


def sources_of(step: Step, names: Sequence[str]) -> list[Names]:  # noqa: PLR0911 - a kind of step each
    """Give the names for each column of a step.

    Parameters
    ----------
    names
        Of the request's numbers, column by column; texts go by their own.

    Examples
    --------
    >>> sources_of(Select(Matrix(None), (1,)), ["x", "y"])
    [frozenset({'y'})]
    """
    match step:
        case Matrix():
            return [frozenset((names[each],)) for each in step.columns or range(len(names))]
        case Select():
            source = sources_of(step.source, names)
            return [source[each] for each in step.columns]
        case Concat():
            return [each for source in step.sources for each in sources_of(source, names)]
        case Impute():
            source = sources_of(step.source, names)
            kept = source if step.kept is None else [source[each] for each in step.kept]
            return [*kept, *(source[each] for each in step.indicated)]
        case Elementwise() | Finite():
            return sources_of(step.source, names)
        case Expand():
            source = sources_of(step.source, names)
            found: list[Names] = [*([frozenset()] if step.has_ones else []), *source]
            for first, last, column in step.blocks:
                found += [each | source[column] for each in found[first:last]]
            return found
        case Project():
            everything = frozenset[str]().union(*sources_of(step.source, names))
            kept_rows = unpacked(step.components)
            return [everything] * kept_rows.shape[0 if step.is_transposed else 1]
        case OneHot():
            return _one_hot(step, names)
        case Ordinal():
            return [_of_column(each, names) for each in step.columns]
        case _:
            assert_never(step)


def _one_hot(step: OneHot, names: Sequence[str]) -> list[Names]:
    found = [frozenset[str]()] * step.width
    for column in step.columns:
        places = [*(column.texts or {}).values(), *(place for _, place in column.numbers)]
        for place in (*places, column.missing, column.unknown):
            if place is not None and place >= 0:
                found[int(place)] |= _of_column(column, names)
    return found


def _of_column(column: EncodedColumn, names: Sequence[str]) -> Names:
    if column.texts is not None or column.source is None:
        return frozenset((column.name,))
    return frozenset[str]().union(*sources_of(column.source, names))
