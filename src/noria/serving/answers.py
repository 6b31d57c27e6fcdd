"""The answers to a request's rows as the columns of its reply."""

from collections.abc import Iterator, Sequence
from typing import Any

from noria.serving.index import Answer, rows_of_outputs
from noria.serving.jobs import Job
from noria.serving.log import ReleaseScores
from noria.serving.records import SCORE, Output
from noria.serving.requests import BadRequestError, OutputColumn

__all__ = ["answers_of", "output_columns"]


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


def output_columns(outputs: tuple[Output, ...], answers: Sequence[Answer]) -> tuple[OutputColumn, ...]:
    """Give a model's outputs for rows that were answered, some of them maybe by an earlier version.

    Raises
    ------
    BadRequestError
        If an earlier version gave other outputs.
    """
    if outputs == (SCORE,):
        return (OutputColumn(SCORE.name, SCORE.datatype, [each.score for each in answers]),)
    columns = []
    for place, output in enumerate(outputs):
        values: list[Any] = []
        for answer in answers:
            if place >= len(answer.outputs):
                raise BadRequestError(
                    "some of the prediction ids were answered by a version that gave other outputs"
                )
            value = answer.outputs[place]
            if output.width:
                values.extend(value)
            else:
                values.append(value[0] if isinstance(value, list) else value)
        columns.append(
            OutputColumn(output.name, output.datatype, values, width=output.width, labels=output.labels)
        )
    return tuple(columns)
