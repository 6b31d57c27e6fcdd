"""The newest predictions and outcomes, in memory: what monitors and canaries look back on.

Made from the lake's tables, so that a replay that was killed goes on with the same rows.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.clock import to_micros
from noria.deploy.shipping import PREDICTIONS
from noria.lake.store import Lake
from noria.monitoring.outcomes import latest_outcomes
from noria.triggers.challenge import ScoredPairs

__all__ = ["Scored", "Traffic"]

_COLUMNS = ["prediction_id", "at", "release", "version", "answered", "score"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions of one model version with their outcomes (NaN where none is known)."""

    y: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]


class Traffic:
    """A deployment's predictions of the last days.

    Parameters
    ----------
    lake
        Holds the tables.
    environment, deployment
        Whose traffic.
    keep
        How far back it reaches.
    """

    def __init__(self, lake: Lake, *, environment: str, deployment: str, keep: timedelta) -> None:
        self._lake, self._environment, self._deployment, self._keep = lake, environment, deployment, keep
        self._rows = pa.table({name: pa.array([], kind) for name, kind in _KINDS.items()})
        self._outcomes: dict[str, float] = {}
        self._open: dict[str, int] = {}

    def reload(self, until: datetime) -> None:
        """Read the last days before `until` again, and the outcomes known before it."""
        since = until - self._keep
        self._rows, self._outcomes, self._open = self.day(since, until, columns=_COLUMNS), {}, {}
        beginning = datetime.min.replace(year=1970, tzinfo=UTC)
        self._opened(self.day(beginning, until, columns=["prediction_id", "at"]))
        found = latest_outcomes(self._lake, [f"{self._environment}/{self._deployment}"], before=until)
        self._learn(found["prediction_id"].to_pylist(), found["outcome"].to_pylist())

    def day(self, start: datetime, end: datetime, *, columns: list[str] | None = None) -> pa.Table:
        """Read the predictions with an instant from `start` to before `end`."""
        if not self._lake.exists(PREDICTIONS):
            return self._rows.slice(0, 0).select(columns or self._rows.column_names)
        wanted = (ds.field("at") >= _scalar(start)) & (ds.field("at") < _scalar(end))
        wanted &= (ds.field("environment") == self._environment) & (
            ds.field("deployment") == self._deployment
        )
        return self._lake.read(PREDICTIONS, columns=columns, where=wanted)

    def add(self, rows: pa.Table, *, now: datetime) -> None:
        """Take in a day's predictions as the lake gives them, and let go of the oldest."""
        kept = pa.concat_tables([self._rows, rows.select(_COLUMNS)]).combine_chunks()
        self._rows = kept.filter(pc.greater_equal(kept["at"], _scalar(now - self._keep)))
        self._opened(rows)

    def await_outcomes(self, ids: list[str], at_us: int) -> None:
        """Say that these were asked for, so that their outcomes are known to belong here."""
        self._open.update((each, at_us) for each in ids if each not in self._outcomes)

    def awaited(self, each: str) -> bool:
        """Say whether an outcome of this prediction is awaited."""
        return each in self._open

    def learn(self, ids: list[str], outcomes: list[float | None]) -> None:
        """Take in outcomes."""
        self._learn(ids, outcomes)

    def scored(self, *, version: int, since: datetime) -> Scored:
        """Give the rows that one model version scored since an instant, answered or not."""
        wanted = pc.and_(
            pc.equal(self._rows["version"], version), pc.greater_equal(self._rows["at"], _scalar(since))
        )
        rows = self._rows.filter(wanted)
        return Scored(self._y(rows), rows["score"].to_numpy(), _micros(rows))

    def pairs(self, champion: str, challenger: str, since: datetime) -> ScoredPairs:
        """Give the rows since an instant that two releases scored."""
        rows = self._rows.filter(pc.greater_equal(self._rows["at"], _scalar(since)))
        new = rows.filter(pc.equal(rows["release"], challenger))
        old = rows.filter(pc.equal(rows["release"], champion))
        place = pc.index_in(new["prediction_id"], value_set=old["prediction_id"].combine_chunks())
        return ScoredPairs(
            y=self._y(new),
            champion=old["score"].take(place).to_numpy(),
            challenger=new["score"].to_numpy(),
            at=_micros(new),
        )

    def _y(self, rows: pa.Table) -> npt.NDArray[np.float64]:
        known = self._outcomes
        ids = rows["prediction_id"].to_pylist()
        return np.array([known.get(each, np.nan) for each in ids], dtype=np.float64)

    def _opened(self, rows: pa.Table) -> None:
        instants = _micros(rows).tolist()
        for each, at_us in zip(rows["prediction_id"].to_pylist(), instants, strict=True):
            if each not in self._outcomes:
                self._open[each] = at_us

    def _learn(self, ids: list[str], outcomes: list[float | None]) -> None:
        for each, outcome in zip(ids, outcomes, strict=True):
            self._outcomes[each] = np.nan if outcome is None else outcome
            self._open.pop(each, None)


_KINDS = {
    "prediction_id": pa.string(),
    "at": pa.timestamp("us", "UTC"),
    "release": pa.string(),
    "version": pa.int64(),
    "answered": pa.bool_(),
    "score": pa.float64(),
}


def _micros(rows: pa.Table) -> npt.NDArray[np.int64]:
    instants: npt.NDArray[np.int64] = rows["at"].cast(pa.int64()).to_numpy()
    return instants


def _scalar(instant: datetime) -> pa.Scalar:
    return pa.scalar(to_micros(instant), pa.int64()).cast(pa.timestamp("us", "UTC"))
