"""Experiments at a glance: how many runs there are and which is the newest; which metrics are on record."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select

from noria.records import RunId
from noria.tracking.tables import experiments, latest_metrics, tracked_runs

__all__ = ["COUNTED", "ExperimentSummary", "metric_names", "names_along", "summarize"]

COUNTED = 10_000  # runs of an experiment; of more it is said that there are more
_AT_ONCE = 500

_OPEN = (tracked_runs.c.experiment == experiments.c.id, tracked_runs.c.deleted_at.is_(None))
_SOME = select(tracked_runs.c.run).where(*_OPEN).limit(COUNTED + 1).correlate(experiments).subquery()
_COUNT = select(func.count()).select_from(_SOME).scalar_subquery()
_NEWEST = (
    select(tracked_runs.c.run)
    .where(*_OPEN)
    .order_by(tracked_runs.c.started_at.desc(), tracked_runs.c.run.desc())
    .limit(1)
    .correlate(experiments)
    .scalar_subquery()
)
_SUMMARY = select(experiments.c.id, _COUNT, _NEWEST).where(
    experiments.c.id.in_(bindparam("experiments", expanding=True))
)
_NEXT_NAME = select(func.min(latest_metrics.c.name)).where(
    latest_metrics.c.experiment == bindparam("experiment"), latest_metrics.c.name > bindparam("after")
)
_ALONG = (
    select(latest_metrics.c.name)
    .where(latest_metrics.c.run.in_(bindparam("runs", expanding=True)), latest_metrics.c.step != 0)
    .distinct()
)


@dataclass(frozen=True, slots=True)
class ExperimentSummary:
    """How much there is of an experiment, of what is not deleted.

    Attributes
    ----------
    runs
        How many; `COUNTED` and one more where there are more than that.
    newest
        The run that has started last.
    """

    runs: int
    newest: RunId | None


def summarize(connection: Connection, numbers: Sequence[int]) -> dict[int, ExperimentSummary]:
    """Give summaries of experiments by their numbers; those that are not there are left out."""
    found: dict[int, ExperimentSummary] = {}
    for start in range(0, len(numbers), _AT_ONCE):
        some = [*numbers[start : start + _AT_ONCE]]
        for number, runs, newest in connection.execute(_SUMMARY, {"experiments": some}):
            found[number] = ExperimentSummary(runs, None if newest is None else RunId(newest))
    return found


def metric_names(connection: Connection, experiment: int, *, most: int) -> list[str]:
    """List the metrics that runs of an experiment have, by name: one look into the index for each."""
    found: list[str] = []
    name = ""
    while len(found) < most:
        asked = {"experiment": experiment, "after": name}
        following = connection.execute(_NEXT_NAME, asked).scalar()
        if following is None:
            break
        found.append(following)
        name = following
    return found


def names_along(connection: Connection, runs: Sequence[RunId]) -> list[str]:
    """List the metrics that one of these runs has at a step that is not 0, those of the machine last."""
    found = connection.execute(_ALONG, {"runs": [*runs]}).scalars().all()
    return sorted(found, key=lambda each: (each.startswith("system/"), each))
