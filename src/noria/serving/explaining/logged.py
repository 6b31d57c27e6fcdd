"""A prediction that was answered before: found in the logs that are not shipped yet, and scored once more."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import DeploymentError, NoriaError
from noria.serving.logs.log import PredictionFrame, ReleaseScores, decode_frame
from noria.serving.models import LoadedModel
from noria.serving.process.hosting import spool_name
from noria.serving.records import Input, ServedModel
from noria.serving.rows import Rows, Scorer
from noria.serving.scoring import kept
from noria.streams.spool import read_spool

__all__ = ["LoggedRow", "find_frame", "require_same", "require_whole", "row_of_frame"]


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """What a prediction was made of, and what was answered.

    Attributes
    ----------
    inputs
        Columns of the request by name: numbers, lists of them, texts, None.
    features
        As they were looked up or computed on demand, by `<view>__<feature>`.
    score
        The number that was logged; NaN where the model gives none.
    """

    prediction_id: str
    release: str
    score: float
    inputs: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)

    def value_of(self, column: Input) -> Any:
        """Give what a model read as one of its inputs: None or NaN where that was missing.

        Raises
        ------
        DeploymentError
            If it was not logged.
        """
        there = self.features if column.kind in ("feature", "text") else self.inputs
        if column.name not in there:
            if column.optional:
                return None
            raise DeploymentError(
                f"the log has no {column.name!r} of prediction {self.prediction_id!r}; it cannot be explained"
            )
        return there[column.name]

    def rows(self, model: LoadedModel) -> Rows:
        """Give the row as a model reads it. Raises as `value_of`."""
        strings: dict[str, Sequence[str | None]] = {}
        numbers: list[NDArray[np.float64]] = [np.empty(0)]
        for column in model.served.inputs:
            value = self.value_of(column)
            if column.kind == "string":
                strings[column.name] = [value]
            elif column.kind in ("category", "text"):
                numbers.append(np.array(model.codes[column.name].of([value])))
            elif value is None:
                numbers.append(np.full(column.width, np.nan))
            else:
                numbers.append(np.array(value, dtype=np.float64).reshape(-1))
        return Rows(np.concatenate(numbers).reshape(1, -1), strings)


def find_frame(
    folder: Path, prediction_id: str, *, stamp: int, is_time: Callable[[], bool] = lambda: True
) -> tuple[PredictionFrame, int] | None:
    """Find the frame in which an id was answered in the logs of a deployment, and the row in it.

    None where it is in none of them any more, or there was no time to read them.

    Parameters
    ----------
    stamp
        Of the frame, as `PredictionIndex.stamps` tells it; 0: not told.
    """
    sought = prediction_id.encode()
    for spool in (folder / spool_name(0), *sorted(folder.glob(f"{spool_name(0)}-*"))):
        for number, (_, payload) in enumerate(read_spool(spool)):
            if number % 256 == 0 and not is_time():
                return None
            if sought not in payload:
                continue
            frame = decode_frame(payload)
            if prediction_id in frame.ids and stamp in (0, frame.stamp):
                row = frame.ids.index(prediction_id)
                if any(each.answered[row] for each in frame.releases):
                    return frame, row
    return None


def row_of_frame(frame: PredictionFrame, row: int) -> LoggedRow:
    """Give a row that was answered."""
    release = next(each for each in frame.releases if each.answered[row])
    inputs: dict[str, Any] = {name: values[row] for name, values in frame.texts.items()}
    inputs |= {name: frame.number_array(name)[row].tolist() for name in frame.all_number_names}
    looked_up = frame.feature_matrix()[row].tolist()
    features: dict[str, Any] = dict(zip(frame.feature_names, looked_up, strict=True))
    features |= {name: values[row] for name, values in frame.feature_texts.items()}
    features |= _computed(release, row)
    return LoggedRow(
        prediction_id=frame.ids[row],
        release=release.release,
        score=float(release.score_array()[row]),
        inputs=inputs,
        features=features,
    )


def _computed(release: ReleaseScores, row: int) -> dict[str, float]:
    values = release.computed_matrix()[row].tolist()
    return dict(zip(release.computed_names, values, strict=True))


def require_whole(logged: LoggedRow, served: ServedModel, redacted: Collection[str]) -> None:
    """Refuse a row of which the log is set to leave out what the model read. Raises `DeploymentError`."""
    lacking = [each.name for each in served.inputs if each.name in redacted]
    if lacking:
        raise DeploymentError(
            f"prediction {logged.prediction_id!r} cannot be explained: {', '.join(lacking)}, which "
            f"{served.model}:{served.version} reads, is left out of the log, as `log.redact` of its "
            "environment says"
        )


def require_same(logged: LoggedRow, scorer: Scorer, rows: Rows) -> None:
    """Refuse a row by which the model does not give what was answered: a value of it was left out since.

    Raises
    ------
    DeploymentError
        If it gives another score.
    """
    try:
        number, _ = kept(scorer.outputs, scorer.predict(rows))
        found = float(np.frombuffer(number, dtype="<f8")[0])
    except NoriaError as err:  # it takes no such values
        raise _changed(logged) from err
    close = scorer.tolerance
    if not np.isclose(found, logged.score, rtol=close, atol=close, equal_nan=True):
        raise _changed(logged)


def _changed(logged: LoggedRow) -> DeploymentError:
    return DeploymentError(
        f"the log of prediction {logged.prediction_id!r} does not give the answered score any more: a value "
        "of it is redacted or forgotten, and without it there is nothing true to explain"
    )
