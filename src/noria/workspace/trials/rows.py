"""What releases on trial answered, with the outcomes known so far: from the lake."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.declarations import ABTest
from noria.deploy.experiments import arm_moments
from noria.deploy.shipping import PREDICTIONS
from noria.errors import ConfigError
from noria.evaluation.sequential import Moments
from noria.monitoring.outcomes import latest_outcomes
from noria.triggers.challenge import ScoredPairs

if TYPE_CHECKING:
    from noria.deploy.trials import Trial
    from noria.workspace.project import Project

__all__ = ["arms_of", "pairs_of"]

_INSTANT = pa.timestamp("us", "UTC")
_BINARY = ("conversion", "log_loss", "brier", "auc")
_OF_PROBABILITIES = ("log_loss", "brier")


def pairs_of(project: "Project", trial: "Trial", challenger: str, *, metric: str) -> ScoredPairs:
    """Give the rows since a canary began that it and the stable release scored.

    Raises
    ------
    ConfigError
        If outcomes or scores are not what the metric is of.
    """
    rows = _rows(project, trial, since=trial.pointer.at, columns=("at", "release", "score"))
    new = rows.filter(pc.equal(rows["release"], challenger))
    old = rows.filter(pc.equal(rows["release"], trial.stable.ref)).combine_chunks()
    place = pc.index_in(new["prediction_id"], value_set=_ids(old))
    y = _outcomes(project, trial, new, since=trial.pointer.at)
    scores = old["score"].take(place).to_numpy(), new["score"].to_numpy()
    for each in scores:
        _check(trial, metric, y, each)
    return ScoredPairs(
        y=y, champion=scores[0], challenger=scores[1], at=new["at"].cast(pa.int64()).to_numpy()
    )


def arms_of(
    project: "Project", trial: "Trial", test: ABTest | Bandit, *, since: datetime
) -> dict[str, Moments]:
    """Sum what outcomes say of each release's answers since an instant.

    Raises
    ------
    ConfigError
        If outcomes are not what the metric is of, or the log does not tell whose a row is.
    """
    unit = test.sticky
    columns = ("release", "score", "answered", *(["inputs"] if unit else []))
    rows = _rows(project, trial, since=since, columns=columns)
    rows = rows.filter(rows["answered"])
    y, scores = _outcomes(project, trial, rows, since=since), rows["score"].to_numpy()
    _check(trial, test.metric, y, scores)
    if test.metric in _OF_PROBABILITIES:
        y = np.where(np.isnan(scores), np.nan, y)
    units = _units(rows, unit, trial) if unit and rows.num_rows else None
    found = arm_moments(test, arm=rows["release"].to_pylist(), y=y, scores=scores, unit=units)
    return {
        each.release: found.get(each.release, Moments())
        for each in trial.content.entries
        if each.mode == "answer"
    }


def _rows(project: "Project", trial: "Trial", *, since: datetime, columns: Sequence[str]) -> pa.Table:
    wanted = ["prediction_id", *columns]
    if not project.lake.exists(PREDICTIONS):
        kinds = {"at": _INSTANT, "score": pa.float64(), "answered": pa.bool_()}
        return pa.table({name: pa.array([], kinds.get(name, pa.string())) for name in wanted})
    where = (
        (ds.field("environment") == trial.pointer.environment)
        & (ds.field("deployment") == trial.pointer.name)
        & (ds.field("at") >= pa.scalar(since, _INSTANT))
        & ds.field("release").isin(list(trial.content.releases))
    )
    return project.lake.read(PREDICTIONS, columns=wanted, where=where).combine_chunks()


def _outcomes(
    project: "Project", trial: "Trial", rows: pa.Table, *, since: datetime
) -> npt.NDArray[np.float64]:
    """Give the outcome of each row as it was learned last; NaN where none is known."""
    subject = f"{trial.pointer.environment}/{trial.pointer.name}"
    known = latest_outcomes(project.lake, [subject], since=since).combine_chunks()
    place = pc.index_in(rows["prediction_id"], value_set=_ids(known))
    return np.asarray(known["outcome"].take(place).to_numpy(), dtype=np.float64)


def _ids(rows: pa.Table) -> pa.Array:
    found = rows["prediction_id"]
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _units(rows: pa.Table, unit: str, trial: "Trial") -> npt.NDArray[np.object_]:
    """Give whose each row is: the value of the column that assigns, or the prediction's id where it has none.

    A number and its text are alike, as they are where rows are assigned.
    """
    inputs = rows["inputs"].combine_chunks()
    place = inputs.type.get_field_index(unit)
    if place < 0:
        raise ConfigError(
            f"the log of {trial.pointer.environment}/{trial.pointer.name} does not hold {unit!r}, so rows of "
            "one unit cannot be counted once; assign by a column that is logged, or end the trial by hand"
        )
    values = inputs.field(place).to_pylist()
    return np.array(
        [_named(each) or own for each, own in zip(values, rows["prediction_id"].to_pylist(), strict=True)],
        dtype=np.object_,
    )


def _named(value: str | float | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _check(trial: "Trial", metric: str, y: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> None:
    subject = f"{trial.pointer.environment}/{trial.pointer.name}"
    known = ~np.isnan(y)
    odd = y[known][~np.isin(y[known], (0.0, 1.0))]
    if metric in _BINARY and odd.size:
        raise ConfigError(
            f"the trial at {subject} is judged by {metric}, which is of outcomes 0 and 1, and one is "
            f"{odd[0]:g}; end it by hand, with noria promote or noria rollback"
        )
    given = scores[~np.isnan(scores)]
    if metric in _OF_PROBABILITIES and ((given < 0) | (given > 1)).any():
        raise ConfigError(
            f"the trial at {subject} is judged by {metric}, which is of probabilities, and scores go from "
            f"{given.min():g} to {given.max():g}; end it by hand, with noria promote or noria rollback"
        )
