"""The steps of a plan as functions of numpy alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError
from noria.serving.compiled.plan import (
    UFUNCS,
    Concat,
    Elementwise,
    EncodedColumn,
    Expand,
    Finite,
    Impute,
    Matrix,
    OneHot,
    Operation,
    Ordinal,
    Project,
    Select,
    Step,
    unpacked,
)
from noria.serving.compiled.refusals import RowsRefused, refused_numbers, refused_rows

__all__ = ["Strings", "runner"]

Floats = NDArray[np.float64]
Strings = Mapping[str, Sequence[str | None]]
Run = Callable[[Floats, Strings], Floats]  # what it gives is the caller's own
_FEW = 8  # rows up to which one after another is quicker than numpy
_BINARY = {"add": np.add, "divide": np.divide, "multiply": np.multiply, "subtract": np.subtract}


def runner(step: Step) -> Run:  # noqa: PLR0911 - a kind of step each
    """Give the function that makes a step's matrix of the request's numbers and strings."""
    match step:
        case Matrix():
            return _run_matrix(step)
        case Select():
            source, columns = runner(step.source), np.array(step.columns, dtype=np.intp)
            return lambda matrix, strings: source(matrix, strings).take(columns, axis=1)
        case Concat():
            return _run_concat([runner(each) for each in step.sources])
        case Finite():
            return _run_finite(step)
        case Impute():
            return _run_impute(step)
        case Elementwise():
            return _run_elementwise(step)
        case Expand():
            return _run_expand(step)
        case Project():
            return _run_project(step)
        case OneHot():
            return _run_one_hot(step)
        case Ordinal():
            return _run_ordinal(step)
        case _:
            assert_never(step)


def _run_matrix(step: Matrix) -> Run:
    if step.columns is None:
        return lambda matrix, _: matrix.copy()
    columns = np.array(step.columns, dtype=np.intp)
    return lambda matrix, _: matrix.take(columns, axis=1)


def _run_concat(sources: list[Run]) -> Run:
    def run(matrix: Floats, strings: Strings) -> Floats:
        return np.concatenate([each(matrix, strings) for each in sources], axis=1)

    return run


def _run_finite(step: Finite) -> Run:
    source, refused = runner(step.source), refused_numbers(step.refuses)

    def run(matrix: Floats, strings: Strings) -> Floats:
        found = source(matrix, strings)
        if not np.isfinite(found).all() and (wrong := refused(found)).any():
            raise refused_rows(step.names, wrong, step.refuses)
        return found

    return run


def _run_impute(step: Impute) -> Run:
    source, fill = runner(step.source), unpacked(step.fill)
    kept = None if step.kept is None else np.array(step.kept, dtype=np.intp)
    indicated = np.array(step.indicated, dtype=np.intp)

    def run(matrix: Floats, strings: Strings) -> Floats:
        given = source(matrix, strings)
        found = given if kept is None else given.take(kept, axis=1)
        is_missing = np.isnan(found)
        if is_missing.any():
            np.copyto(found, fill, where=is_missing)
        return found

    def run_indicating(matrix: Floats, strings: Strings) -> Floats:
        given = source(matrix, strings)
        told = np.isnan(given.take(indicated, axis=1))
        found = given if kept is None else given.take(kept, axis=1)
        np.copyto(found, fill, where=np.isnan(found))
        return np.concatenate([found, told], axis=1)

    return run_indicating if step.indicated else run


def _run_elementwise(step: Elementwise) -> Run:
    source = runner(step.source)
    operations = [_operation(each) for each in step.operations]
    is_quiet = all(each.name in _BINARY for each in step.operations)

    def run(matrix: Floats, strings: Strings) -> Floats:
        found = source(matrix, strings)
        for each in operations:
            each(found)
        return found

    def run_silently(matrix: Floats, strings: Strings) -> Floats:
        with np.errstate(all="ignore"):
            return run(matrix, strings)

    return run if is_quiet else run_silently


def _operation(operation: Operation) -> Callable[[Floats], object]:
    name, operand = operation.name, operation.operand
    if name == "clip" and operand is not None:
        low, high = unpacked(operand)
        return lambda found: np.clip(found, low, high, out=found)
    if name in _BINARY and operand is not None:
        change, by = _BINARY[name], unpacked(operand)
        return lambda found: change(found, by, found)
    if name in UFUNCS:
        ufunc = getattr(np, name)
        return lambda found: ufunc(found, out=found)
    raise DeploymentError(
        f"the compiled model names the operation {name!r}, which is not known; compile again"
    )


def _run_expand(step: Expand) -> Run:
    source = runner(step.source)
    ones = int(step.has_ones)

    def run(matrix: Floats, strings: Strings) -> Floats:
        given = source(matrix, strings)
        parts = [np.ones((len(given), 1))] if ones else []
        parts.append(given)
        width = ones + given.shape[1]
        found = np.empty((len(given), width + sum(last - first for first, last, _ in step.blocks)))
        np.concatenate(parts, axis=1, out=found[:, :width])
        for first, last, column in step.blocks:
            more = width + last - first
            np.multiply(found[:, first:last], given[:, column : column + 1], out=found[:, width:more])
            width = more
        return found

    return run


def _run_project(step: Project) -> Run:
    source, kept = runner(step.source), unpacked(step.components)
    components = kept.T if step.is_transposed else kept
    offset = unpacked(step.offset)
    scale = None if step.scale is None else unpacked(step.scale)

    def run(matrix: Floats, strings: Strings) -> Floats:
        found: Floats = source(matrix, strings) @ components
        found -= offset
        if scale is not None:
            found /= scale
        return found

    return run


Look = Callable[[Floats, Strings], list[float | None]]


def _lookup(column: EncodedColumn) -> Look:
    """Give the function that finds the code of each row's category; None is of one that is refused."""
    unknown = column.unknown
    missing = unknown if column.missing is None else column.missing
    name = column.name

    if column.texts is not None:
        codes: dict[str | None, float | None] = dict(column.texts.items())
        codes[None] = missing
        get = codes.get

        def look_texts(_: Floats, strings: Strings) -> list[float | None]:
            found = [get(each, unknown) for each in strings[name]]
            if None in found:
                raise _refusal(column)
            return found

        return look_texts
    if column.source is None:
        raise DeploymentError(f"the compiled model has no source of the column {name!r}; compile again")
    source = runner(column.source)
    numbers: dict[float, float | None] = {math.inf: None, -math.inf: None, **dict(column.numbers)}
    get_number = numbers.get

    def look_numbers(matrix: Floats, strings: Strings) -> list[float | None]:
        values = source(matrix, strings)[:, 0].tolist()
        found = [get_number(each, unknown) if each == each else missing for each in values]  # noqa: PLR0124
        if None in found:
            raise _refusal(column)
        return found

    return look_numbers


def _refusal(column: EncodedColumn) -> RowsRefused:
    known = len(column.numbers if column.texts is None else column.texts)
    return RowsRefused(
        f"the column {column.name!r} holds a value that is none of the {known} categories which the "
        "model was fitted on, and it takes no other"
    )


def _run_one_hot(step: OneHot) -> Run:
    looks = [_lookup(each) for each in step.columns]
    width = step.width

    def run(matrix: Floats, strings: Strings) -> Floats:
        rows = len(matrix)
        found = np.zeros((rows, width))
        if rows <= _FEW:
            for look in looks:
                for row, place in enumerate(look(matrix, strings)):
                    if place is not None and place >= 0:
                        found[row, int(place)] = 1.0
            return found
        starts = np.arange(0, rows * width, width)
        flat = found.reshape(-1)
        for look in looks:
            places = np.array(look(matrix, strings), dtype=np.intp)
            if places.min() >= 0:
                flat[starts + places] = 1.0
            else:
                known = places >= 0
                flat[starts[known] + places[known]] = 1.0
        return found

    return run


def _run_ordinal(step: Ordinal) -> Run:
    looks = [_lookup(each) for each in step.columns]

    def run(matrix: Floats, strings: Strings) -> Floats:
        found = np.empty((len(matrix), len(looks)))
        for column, look in enumerate(looks):
            found[:, column] = look(matrix, strings)
        return found

    return run
