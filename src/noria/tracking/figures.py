"""What runs of experiments were called with and what came of it, of many at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Table, bindparam, select

from noria.ledger.tables import runs
from noria.records import RunId, RunState
from noria.tracking.store import LATEST, to_point
from noria.tracking.tables import experiments, latest_metrics, run_params, run_tags, tracked_runs

__all__ = ["RunFigures", "read_figures"]

_AT_ONCE = 1_000  # runs in one question
_IDS: Any = bindparam("runs", expanding=True)
_RUNS = (
    select(
        tracked_runs.c.run,
        tracked_runs.c.name,
        tracked_runs.c.started_at,
        runs.c.state,
        runs.c.seed,
        runs.c.parent,
        experiments.c.name,
    )
    .join(runs, runs.c.id == tracked_runs.c.run)
    .join(experiments, experiments.c.id == tracked_runs.c.experiment)
    .where(tracked_runs.c.run.in_(_IDS))
)
_METRICS = LATEST.where(latest_metrics.c.run.in_(_IDS))
_NAMED_METRICS = _METRICS.where(latest_metrics.c.name.in_(bindparam("names", expanding=True)))


def _texts(table: Table) -> Select[Any]:
    return select(table.c.run, table.c.name, table.c.value).where(table.c.run.in_(_IDS))


_PARAMS, _TAGS = _texts(run_params), _texts(run_tags)


@dataclass(slots=True)
class RunFigures:
    """A run of an experiment: its parameters and tags as texts, the latest value of metrics."""

    id: RunId
    name: str
    state: RunState
    started_at: datetime
    seed: int | None
    parent: str | None
    experiment: str  # its name
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # NaN and infinities as they are


def read_figures(
    connection: Connection, ids: Sequence[str], *, metrics: Sequence[str] | None = None
) -> list[RunFigures]:
    """Give runs in that order, those that are in no experiment left out.

    Parameters
    ----------
    metrics
        Which are wanted; None: all.
    """
    found: dict[str, RunFigures] = {}
    for some in _pieces(ids):
        asked: dict[str, Any] = {"runs": some}
        for row in connection.execute(_RUNS, asked):
            run, name, started_at, state, seed, parent, experiment = row
            found[run] = RunFigures(RunId(run), name, RunState(state), started_at, seed, parent, experiment)
        for run, name, value in connection.execute(_PARAMS, asked):
            found[run].params[name] = value
        for run, name, value in connection.execute(_TAGS, asked):
            found[run].tags[name] = value
        query = _METRICS
        if metrics is not None:
            query, asked = _NAMED_METRICS, {**asked, "names": [*metrics]}
        for point in connection.execute(query, asked).mappings():
            found[point["run"]].metrics[point["name"]] = to_point(point).value
    return [found[each] for each in ids if each in found]


def _pieces(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield [*ids[start : start + _AT_ONCE]]
