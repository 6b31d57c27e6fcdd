"""The rows of the logs that are about one prediction: what was answered, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from noria.audit.records import Outcome, Prediction, Score
from noria.audit.tables import OpenTable, Tables, plain
from noria.deploy.shipping import PREDICTIONS
from noria.errors import NotFound
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.monitoring.outcomes import OUTCOMES

__all__ = ["FoundPrediction", "UnknownPrediction", "find_outcome", "find_prediction"]

_LIST = 'noria query "select prediction_id from predictions limit 5"'


class UnknownPrediction(NotFound):
    """No prediction of that id was logged."""

    def __init__(self, prediction_id: str, examples: Sequence[str], *, where: str | None) -> None:
        super().__init__("prediction", prediction_id, examples)
        here = f" in {where}" if where else ""
        if examples:
            hint = (
                "an id is what the client sent, else `<request id>-<row>`, else the one that came with the "
                f"answer, such as {', '.join(map(repr, examples))}; `{_LIST}` lists some"
            )
        else:
            hint = f"none has been logged{here} yet; `{_LIST}` lists them once there are"
        self.args = (f"no prediction {prediction_id!r}{here}; {hint}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPrediction:
    """A logged prediction."""

    prediction: Prediction
    features: dict[str, float | str | None]
    shadows: tuple[Score, ...]
    elsewhere: tuple[str, ...]
    tables: Tables


def find_prediction(
    prediction_id: str, *, ledger: Ledger, lake: Lake, environment: str | None
) -> FoundPrediction:
    """Find a prediction in the log. Raises `NotFound`."""
    log = Tables(ledger, lake, datetime.now(UTC)).find_log(PREDICTIONS)
    if log is None:
        raise UnknownPrediction(prediction_id, (), where=environment)
    found = log.read_one("prediction_id", pa.scalar(prediction_id), "at")
    rows = found.dicts()
    paths = found.paths
    places = sorted({(row["at"], _place(row)) for row in rows})
    fitting = [
        place for _, place in places if environment is None or environment in (place, place.partition("/")[0])
    ]
    if not fitting:
        examples = log.head("prediction_id", 3)
        raise UnknownPrediction(prediction_id, examples, where=environment)
    chosen = fitting[-1]
    mine = [number for number, row in enumerate(rows) if _place(row) == chosen]
    answer = next((number for number in mine if rows[number]["answered"]), mine[0])
    shadows = [rows[number] for number in mine if rows[number]["release"] != rows[answer]["release"]]
    prediction = _prediction(rows[answer], log, paths.slice(answer, 1))
    return FoundPrediction(
        prediction=prediction,
        features=plain(rows[answer].get("features") or {}),
        shadows=tuple(
            Score(release=row["release"], model=f"{row['model']}:{row['version']}", score=row["score"])
            for row in shadows
        ),
        elsewhere=tuple(sorted({place for _, place in places if place != chosen})),
        tables=Tables(ledger, lake, prediction.at),
    )


def find_outcome(prediction: Prediction, tables: Tables) -> Outcome | None:
    """Find what came of a prediction: of several outcomes, the one that was known last."""
    table = tables.find_log(OUTCOMES)
    if table is None:
        return None
    place = f"{prediction.environment}/{prediction.deployment}"
    found = table.read((ds.field("prediction_id") == prediction.id) & (ds.field("deployment") == place))
    rows = found.dicts()
    if not rows:
        return None
    last = max(range(len(rows)), key=lambda number: rows[number]["known_at"])
    (file,) = table.file_lines(found.paths.slice(last, 1))
    return Outcome(
        outcome=rows[last]["outcome"],
        label=rows[last].get("label"),
        known_at=rows[last]["known_at"],
        corrections=len(rows) - 1,
        file=file,
    )


def _place(row: dict[str, Any]) -> str:
    return f"{row['environment']}/{row['deployment']}"


def _prediction(row: dict[str, Any], log: OpenTable, path: pa.ChunkedArray) -> Prediction:
    (file,) = log.file_lines(path)
    return Prediction(
        id=row["prediction_id"],
        at=row["at"],
        recorded_at=row["recorded_at"],
        environment=row["environment"],
        deployment=row["deployment"],
        route=row["route"],
        route_number=row["route_number"],
        release=row["release"],
        model=f"{row['model']}:{row['version']}",
        score=row["score"],
        latency_us=row["latency_us"],
        inputs=plain(row.get("inputs") or {}),
        file=file,
    )
