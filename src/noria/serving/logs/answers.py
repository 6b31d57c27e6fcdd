"""The answers to a request's rows as the columns of its reply."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noria.serving.jobs import Job
from noria.serving.logs.index import Answer, rows_of_outputs
from noria.serving.logs.log import ReleaseScores
from noria.serving.records import SCORE, Output
from noria.serving.requests import OutputColumn

__all__ = ["answers_of", "fits", "output_columns"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "FP64": (float,),
    "INT64": (int,),
    "BOOL": (bool,),
    "BYTES": (str, type(None)),
}


def answers_of(release: ReleaseScores, job: Job) -> Iterator[tuple[int, Answer]]:
    """Give what a release answered of a job's new rows, by the number of the row."""
    scores, more = release.score_array().tolist(), rows_of_outputs(release)
    for position, row in enumerate(job.new):
        if release.answered[position]:
            outputs = more[position] if more else ()
            yield (
                row,
                Answer(job.digests[row], scores[position], release.version, release.release, outputs),
            )


def fits(outputs: tuple[Output, ...], answer: Answer) -> bool:
    """Whether an answer, maybe of an earlier version, can be told as these outputs."""
    if outputs == (SCORE,):
        return not answer.outputs
    return len(answer.outputs) == len(outputs) and all(map(_fits, outputs, answer.outputs))


def _fits(output: Output, value: Any) -> bool:
    types = _TYPES[output.datatype]
    if output.width:
        return (
            type(value) is list and len(value) == output.width and all(type(each) in types for each in value)
        )
    if type(value) is list:  # numbers are kept as vectors, of one here
        return len(value) == 1 and type(value[0]) in types
    return type(value) in types


def output_columns(outputs: tuple[Output, ...], answers: Sequence[Answer]) -> tuple[OutputColumn, ...]:
    """Give a model's outputs for rows that were answered, all of which they fit."""
    if outputs == (SCORE,):
        return (OutputColumn(SCORE.name, SCORE.datatype, [each.score for each in answers]),)
    columns = []
    for place, output in enumerate(outputs):
        values: list[Any] = []
        for answer in answers:
            value = answer.outputs[place]
            if output.width:
                values.extend(value)
            else:
                values.append(value[0] if isinstance(value, list) else value)
        columns.append(
            OutputColumn(output.name, output.datatype, values, width=output.width, labels=output.labels)
        )
    return tuple(columns)
