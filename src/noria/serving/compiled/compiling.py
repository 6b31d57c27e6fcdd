"""Compiles a fitted estimator of scikit-learn, and holds the result against it."""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import msgspec
import numpy as np

from noria.serving.compiled.describing import none_columns
from noria.serving.compiled.estimators import classes_of, read_estimator
from noria.serving.compiled.frames import root_frame
from noria.serving.compiled.original import OriginalScorer
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
    Plan,
    Project,
    Select,
    Step,
)
from noria.serving.compiled.refusals import NotCompiled, RowsRefused
from noria.serving.compiled.scoring import PlanScorer
from noria.serving.compiled.transformers import transformed
from noria.serving.records import Input, Output
from noria.serving.rows import Rows, Scorer, Values

__all__ = ["compile_estimator", "compile_to_bytes", "made_up_rows", "open_sklearn"]

_PROBES = 32


def open_sklearn(
    estimator: Any, inputs: Sequence[Input], outputs: Sequence[Output], *, rows: Rows | None = None
) -> Scorer:
    """Give what scores by a fitted estimator: compiled where it can be, else the estimator itself.

    Parameters
    ----------
    rows
        On which the compiled form has to give what the estimator gives, beside rows made up for it.
    """
    compiled = compile_estimator(estimator, inputs, outputs, rows=rows)
    if isinstance(compiled, Plan):
        return PlanScorer(compiled)
    return _original(estimator, inputs, outputs, compiled)


def compile_to_bytes(
    estimator: Any, inputs: Sequence[Input], outputs: Sequence[Output], *, rows: Rows | None = None
) -> bytes | str:
    """Give the compiled form as `load_compiled` reads it, or the reason (text) why there is none."""
    compiled = compile_estimator(estimator, inputs, outputs, rows=rows)
    return msgspec.msgpack.encode(compiled) if isinstance(compiled, Plan) else compiled


def compile_estimator(
    estimator: Any, inputs: Sequence[Input], outputs: Sequence[Output], *, rows: Rows | None = None
) -> Plan | str:
    """Give the plan of a fitted estimator or pipeline, or the reason (text) why there is none.

    A plan is given only where it scores as the estimator does, within 1e-9: on `rows`, and on some made up.
    """
    try:
        plan = _plan(estimator, inputs, outputs)
    except NotCompiled as err:
        return str(err)
    original = _original(estimator, inputs, outputs, "")
    scorer = PlanScorer(plan)
    tried = [_made_up_rows(plan, has_missing=each) for each in (False, True)]
    tried += _rows_to_refuse(tried[0])
    for each in [*tried, *([] if rows is None else [rows])]:
        if reason := _difference(scorer, original, each):
            return reason
    return plan


def made_up_rows(estimator: Any, inputs: Sequence[Input], outputs: Sequence[Output]) -> Rows | None:
    """Give rows that a fitted estimator reads, of known categories; None where it has no compiled form."""
    try:
        return _made_up_rows(_plan(estimator, inputs, outputs), has_missing=False)
    except NotCompiled:
        return None


def _original(
    estimator: Any, inputs: Sequence[Input], outputs: Sequence[Output], reason: str
) -> OriginalScorer:
    return OriginalScorer(
        estimator, inputs=inputs, outputs=outputs, reason=reason, none_columns=none_columns(estimator)
    )


def _plan(estimator: Any, inputs: Sequence[Input], outputs: Sequence[Output]) -> Plan:
    fitted = getattr(estimator, "feature_names_in_", None)
    frame = root_frame(inputs, None if fitted is None else [str(each) for each in fitted])
    last = estimator
    while type(last).__name__ == "Pipeline" and type(last).__module__.startswith("sklearn."):
        for _, step in last.steps[:-1]:
            frame = transformed(step, frame)
        last = last.steps[-1][1]
    read = read_estimator(last, frame, gives=[each.name for each in outputs])
    numbers = [each for each in inputs if each.kind != "string"]
    names = tuple(each.name for each in numbers for _ in range(each.width))
    return Plan(
        columns=len(names),
        names=names,
        step=read.frame.numbers(type(last).__name__) if not read.frame.is_single else read.frame.any_numbers,
        head=read.head,
        outputs=tuple(outputs),
        refuses=read.refuses,
        classes=tuple(classes_of(last) or ()),
        cut=read.cut,
    )


def _made_up_rows(plan: Plan, *, has_missing: bool) -> Rows:
    """Give rows of numbers of many sizes, and of categories that the estimator knows."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(_PROBES, plan.columns)) * 10.0 ** rng.integers(-2, 4, (_PROBES, plan.columns))
    matrix[::2] = np.round(matrix[::2])
    strings: dict[str, list[str | None]] = {}
    for each in _encoded_columns(plan.step):
        if each.texts is not None:
            known = [*each.texts, *([None] if has_missing and each.missing is not None else [])]
            strings.setdefault(each.name, list(islice(cycle(known or [None]), _PROBES)))
        elif isinstance(each.source, Matrix) and each.numbers:
            column = (each.source.columns or range(plan.columns))[0]
            matrix[:, column] = rng.choice([number for number, _ in each.numbers], _PROBES)
    if has_missing:
        matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return Rows(matrix, strings)


def _rows_to_refuse(rows: Rows) -> Iterator[Rows]:
    """Give single rows of a missing or an infinite number each, which an estimator may refuse."""
    columns = rows.matrix.shape[1]
    for column in range(0, columns, -(-columns // _PROBES) or 1):
        for wrong in (np.nan, np.inf):
            matrix = rows.matrix[:1].copy()
            matrix[0, column] = wrong
            yield Rows(matrix, {name: values[:1] for name, values in rows.strings.items()})


def _encoded_columns(step: Step) -> Iterator[EncodedColumn]:
    match step:
        case OneHot() | Ordinal():
            yield from step.columns
        case Concat():
            for each in step.sources:
                yield from _encoded_columns(each)
        case Select() | Finite() | Impute() | Elementwise() | Expand() | Project():
            yield from _encoded_columns(step.source)
        case Matrix():
            return


def _difference(scorer: Scorer, original: Scorer, rows: Rows) -> str:
    """Tell how what a plan gives differs from what the estimator gives; nothing where it does not."""
    with np.errstate(all="ignore"):
        wanted, found = _given(original, rows), _given(scorer, rows)
    if wanted is None or found is None:
        if wanted is found:
            return ""
        who = "scikit-learn" if wanted is None else "the compiled form"
        return f"{who} refuses rows that the other scores"
    for output, want, got in zip(scorer.outputs, wanted, found, strict=True):
        if output.datatype != "FP64":
            same = list(want) == list(got)
        else:
            expected = np.asarray(want, dtype=np.float64)
            scale = np.maximum(1.0, np.abs(expected))
            gap = np.abs(np.asarray(got, dtype=np.float64) - expected)
            same = bool(((gap <= scorer.tolerance * scale) | (np.isnan(expected) & np.isnan(gap))).all())
        if not same:
            return f"compiled, it gives another {output.name} than scikit-learn"
    return ""


def _given(scorer: Scorer, rows: Rows) -> Sequence[Values] | None:
    try:
        return scorer.predict(rows)
    except RowsRefused:
        return None
