"""What became of the predictions of models: rows of the log with their outcomes, scored, and paid."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import parse_instant
from noria.deploy.shipping import PREDICTIONS
from noria.errors import SourceError
from noria.evaluation.intervals import Interval, paired_bootstrap
from noria.evaluation.scores import evaluate
from noria.monitoring.outcomes import latest_outcomes
from noria.records import Version
from noria.value.money import Money, money

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Paired", "earned", "paired"]

_DAY_US = 86_400_000_000
_INSTANT = pa.timestamp("us", "UTC")
_MOST_ROWS = 5_000
_FEWEST_ROWS, _FEWEST_DAYS = 30, 2
_SEED = 7


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on the same rows, none of which either has learned from.

    Attributes
    ----------
    metrics
        By name: that of one, and of the other.
    differences
        Other minus one, with the 95 % interval of a paired bootstrap over whole days.
    """

    rows: int
    days: int
    since: datetime
    until: datetime
    metrics: dict[str, tuple[float, float]]
    differences: dict[str, Interval]


def paired(project: "Project", one: Version, other: Version) -> Paired | str:
    """Let two versions score the newest logged requests with an outcome that came after both had learned.

    Returns
    -------
    Paired or str
        Or why there is nothing to compare.
    """
    if one.name != other.name:
        return "they answer for different models"
    cutoffs = [each.facts.get("until") for each in (one, other)]
    if not all(isinstance(each, str) for each in cutoffs):
        return "it is not on record until when both have learned"
    rows = _answered(project, one.name, since=max(parse_instant(each) for each in cutoffs if each))
    rows, outcomes = _with_outcomes(project, rows, one.name)
    if rows.num_rows > _MOST_ROWS:
        rows, outcomes = rows.slice(rows.num_rows - _MOST_ROWS), outcomes[-_MOST_ROWS:]
    at = rows["at"].cast(pa.int64()).to_numpy()
    days = at // _DAY_US
    if rows.num_rows < _FEWEST_ROWS or np.unique(days).size < _FEWEST_DAYS or np.unique(outcomes).size < 2:
        return (
            f"{rows.num_rows} requests with an outcome came after both had learned; {_FEWEST_ROWS} are "
            f"needed, of {_FEWEST_DAYS} days or more, with both outcomes"
        )
    columns = _logged_columns(rows)
    scores = []
    for version in (one, other):
        model = project.registry.load(version)
        try:
            scores.append(model.score_rows(project.registry.add_on_demand(version, columns)))
        except SourceError as error:
            return f"the logged requests are not what {version.ref} reads: {error}"
    told = [evaluate(outcomes, each) for each in scores]
    first, last = rows["at"][0].as_py(), rows["at"][rows.num_rows - 1].as_py()
    return Paired(
        rows=rows.num_rows,
        days=int(np.unique(days).size),
        since=first,
        until=last,
        metrics={name: (float(told[0][name]), float(told[1][name])) for name in told[0]},
        differences={
            name: paired_bootstrap(name, outcomes, scores[1], scores[0], seed=_SEED, cluster=days)
            for name in ("auc", "log_loss")
        },
    )


def earned(project: "Project", version: Version, *, environment: str) -> Money | None:
    """Give what the decisions on a version's own answers paid; None where nothing is known of it."""
    training = project.declarations.trainings.get(version.name)
    if training is None or training.objective is None:
        return None
    rows = _answered(project, version.name, environment=environment, number=version.number)
    if not rows.num_rows:
        return None
    outcomes = _outcomes(project, rows, version.name)
    days = rows["at"].cast(pa.int64()).to_numpy() // _DAY_US
    return money(training.objective, rows["score"].to_numpy(), outcomes, days=days, label=version.ref)


def _answered(
    project: "Project",
    name: str,
    *,
    since: datetime | None = None,
    environment: str | None = None,
    number: int | None = None,
) -> pa.Table:
    """Give answered requests of a deployment in a fixed order."""
    columns = ["prediction_id", "at", "environment", "score"]
    if number is None:
        columns += ["inputs", "features"]
    if not project.lake.exists(PREDICTIONS):
        return pa.table({name: pa.array([], _INSTANT if name == "at" else pa.string()) for name in columns})
    wanted = (ds.field("deployment") == name) & ds.field("answered")
    if since is not None:
        wanted &= ds.field("at") >= pa.scalar(since, _INSTANT)
    if environment is not None:
        wanted &= ds.field("environment") == environment
    if number is not None:
        wanted &= (ds.field("model") == name) & (ds.field("version") == number)
    rows = project.lake.read(PREDICTIONS, columns=columns, where=wanted)
    order = pc.sort_indices(rows, sort_keys=[("at", "ascending"), ("prediction_id", "ascending")])
    return rows.take(order)


def _outcomes(project: "Project", rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Give the outcome of each row as it is known now, NaN where none came."""
    if not rows.num_rows:
        return np.full(rows.num_rows, np.nan)
    places = [f"{each}/{name}" for each in pc.unique(rows["environment"]).to_pylist()]
    known = latest_outcomes(project.lake, places)
    keys = pc.binary_join_element_wise(known["deployment"], known["prediction_id"], "\0")
    asked = pc.binary_join_element_wise(
        pc.binary_join_element_wise(rows["environment"], name, "/"), rows["prediction_id"], "\0"
    )
    place = pc.index_in(asked, value_set=keys.combine_chunks())
    outcomes: npt.NDArray[np.float64] = known["outcome"].take(place).to_numpy().astype(np.float64)
    return outcomes


def _with_outcomes(project: "Project", rows: pa.Table, name: str) -> tuple[pa.Table, npt.NDArray[np.float64]]:
    """Leave out rows without an outcome, and those that another environment was asked as well."""
    outcomes = _outcomes(project, rows, name)
    known = np.flatnonzero(~np.isnan(outcomes))
    ids = rows["prediction_id"].to_numpy(zero_copy_only=False).astype(str)[known]
    _, first = np.unique(ids, return_index=True)
    kept = known[np.sort(first)]
    return rows.take(pa.array(kept)), outcomes[kept]


def _logged_columns(rows: pa.Table) -> pa.Table:
    inputs, features = rows["inputs"].combine_chunks(), rows["features"].combine_chunks()
    return pa.table({
        each.name: part.field(place)
        for part in (features, inputs)
        for place, each in enumerate(part.type)
    })  # fmt: skip
