"""The rows stored with a version: a model answers only after it gave for them what it gave then."""

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError
from noria.serving.formats.scorers import Rows, Scorer, Values
from noria.serving.records import SCORE, Output, Samples, ServedModel

__all__ = ["measure", "sample_row", "verify_samples"]

_RUNS = 7
_AGAIN = "train and register it again with the library that is installed"


def verify_samples(served: ServedModel, scorer: Scorer, *, width: int) -> Rows:
    """Score the stored rows, and give them as the model reads them.

    Raises
    ------
    DeploymentError
        If they do not fit the model, or it gives for one other than was stored: other bits, or where the
        scorer says so, more than its tolerance.
    """
    samples = served.samples
    count = len(samples.scores) // 8
    lengths = {count, *map(len, samples.strings.values())}
    if (
        not count
        or len(samples.scores) != 8 * count
        or len(samples.matrix) != 8 * count * width
        or lengths != {count}
    ):
        raise DeploymentError(
            f"its sample rows do not fit: {len(samples.scores)} bytes of scores and "
            f"{len(samples.matrix)} of a matrix with {width} columns"
        )
    if lacking := [
        each.name for each in served.inputs if each.kind == "string" and each.name not in samples.strings
    ]:
        raise DeploymentError(f"its sample rows do not fit: they have no {', '.join(lacking)}")
    matrix = np.frombuffer(samples.matrix, dtype="<f8").reshape(count, width)
    rows = Rows(matrix, samples.strings)
    found = scorer.predict(rows)
    for output, values in zip(served.outputs, found, strict=True):
        wanted = _stored(samples, output, count)
        differing = _differing(output, values, wanted, scorer.tolerance)
        if len(differing):
            raise DeploymentError(_message(output, values, wanted, differing, count))
    return rows


def measure(scorer: Scorer, rows: Rows) -> tuple[float, float]:
    """Give the wall time of scoring one row, and of each more in the same call, in microseconds."""
    one = Rows(rows.matrix[:1].copy(), {name: values[:1] for name, values in rows.strings.items()})
    first = median(_timed(scorer, one) for _ in range(_RUNS))
    if rows.count == 1:
        return first, first
    return first, max(0.0, (median(_timed(scorer, rows) for _ in range(_RUNS)) - first) / (rows.count - 1))


def sample_row(served: ServedModel) -> dict[str, object]:
    """Give the request columns of the first stored row, as far as they are told: entities are not."""
    wide = [each for each in served.inputs if each.kind != "string"]
    width = sum(each.width for each in wide)
    row = np.frombuffer(served.samples.matrix, dtype="<f8")[:width].tolist()
    found: dict[str, object] = {name: values[0] for name, values in served.samples.strings.items() if values}
    at = 0
    for column in wide:
        values = [None if math.isnan(each) else each for each in row[at : at + column.width]]
        at += column.width
        if column.kind == "number":
            found[column.name] = values if column.width > 1 else values[0]
        elif column.kind == "category":
            code = values[0]
            known = code is not None and 0 <= code < len(column.categories)
            found[column.name] = column.categories[int(code)] if known and code is not None else None
    return found


def _timed(scorer: Scorer, rows: Rows) -> float:
    started = time.perf_counter_ns()
    scorer.predict(rows)
    return (time.perf_counter_ns() - started) / 1_000


def _stored(samples: Samples, output: Output, rows: int) -> NDArray[np.float64] | list[Any]:
    if output.name not in samples.outputs:
        if output == SCORE:
            return np.frombuffer(samples.scores, dtype="<f8")
        raise DeploymentError(f"its sample rows do not tell what it gave as {output.name}; {_AGAIN}")
    stored = samples.outputs[output.name]
    if not isinstance(stored, bytes):
        return stored
    values = np.frombuffer(stored, dtype="<f8")
    return values.reshape(rows, output.width) if output.width else values


def _differing(
    output: Output, found: Values, wanted: NDArray[np.float64] | list[Any], tolerance: float
) -> Sequence[int]:
    """Give the rows that differ."""
    if not isinstance(wanted, np.ndarray):
        given = list(found)
        if len(given) != len(wanted):
            raise DeploymentError(f"it gives {len(given)} values of {output.name} for {len(wanted)} rows")
        return [row for row, pair in enumerate(zip(given, wanted, strict=True)) if pair[0] != pair[1]]
    values = np.asarray(found, dtype=np.float64)
    if values.shape != wanted.shape:
        raise DeploymentError(
            f"it gives {output.name} of shape {list(values.shape)}, stored is {list(wanted.shape)}"
        )
    if tolerance == 0:
        differs = np.ascontiguousarray(values).view(np.int64) != np.ascontiguousarray(wanted).view(np.int64)
    else:
        differs = ~np.isclose(values, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    rows: Sequence[int] = np.flatnonzero(differs.reshape(len(wanted), -1).any(axis=1)).tolist()
    return rows


def _message(
    output: Output,
    found: Values,
    wanted: NDArray[np.float64] | list[Any],
    differing: Sequence[int],
    rows: int,
) -> str:
    first = differing[0]
    return (
        f"{len(differing)} of {rows} sample rows get another {output.name} than was stored with the version "
        f"(row {first}: {found[first]!r} instead of {wanted[first]!r}); {_AGAIN}"
    )
