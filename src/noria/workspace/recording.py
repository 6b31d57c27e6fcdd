"""Recording what became of predictions, without a server: found out whose they are, kept, and moved on."""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from noria.clock import as_utc, parse_instant, to_micros
from noria.deploy.releases import read_release
from noria.deploy.shipping import PREDICTIONS
from noria.errors import ConfigError, SourceError
from noria.lake.incoming import Incoming
from noria.lake.reading import Reading
from noria.lake.sources.opening import open_source
from noria.monitoring.outcomes import ship_outcomes
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.outcomes import OUTCOME_INDEX, Outcome, OutcomeBook, outcome_spool
from noria.serving.process.hosting import INDEX

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Recorded", "outcomes_of_rows", "outcomes_of_values", "record_outcomes"]

_ID, _OUTCOME, _KNOWN_AT = "prediction_id", "outcome", "known_at"
_WANTED = pa.schema([(_ID, pa.string())])  # else digits would be numbers
_PATIENCE_S = 30.0
_AT_ONCE = 100_000


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of recording outcomes.

    Attributes
    ----------
    recorded
        How many are on record now.
    repeated
        How many of them were before.
    unknown
        How many are of predictions that the deployment is not known to have answered.
    deployments
        Whose they are, as `NAME@ENVIRONMENT`.
    """

    recorded: int
    repeated: int
    unknown: int
    deployments: tuple[str, ...]


def outcomes_of_values(prediction_id: str | Sequence[str], outcome: Any, known_at: Any) -> Iterator[Outcome]:
    """Give outcomes of one prediction or of several. Raises `ConfigError` if they are none."""
    if isinstance(prediction_id, str):
        yield _outcome(prediction_id, outcome, known_at, where="")
        return
    ids, values = list(prediction_id), _listed(outcome)
    instants = _listed(known_at) if _is_several(known_at) else [known_at] * len(ids)
    if values is None or instants is None or not len(ids) == len(values) == len(instants):
        raise ConfigError(
            f"there are {len(ids)} prediction ids; give as many outcomes, and as many instants or one for all"
        )
    for number, row in enumerate(zip(ids, values, instants, strict=True), 1):
        yield _outcome(*row, where=f"outcome {number}: ")


def outcomes_of_rows(given: Any, *, folder: Path | None, format: str | None = None) -> Iterator[Outcome]:
    """Give outcomes of frames and files: columns `prediction_id`, `outcome` and, if it is there, `known_at`.

    Raises
    ------
    SourceError
        If a column is missing, a row cannot be read, or is none.
    """
    for source in open_source(given, format=format, reading=Reading(), folder=folder):
        number = 0
        for piece in Incoming(source, name="outcomes").pieces(_WANTED):
            if not isinstance(piece, pa.Table):
                raise SourceError(f"{source.name}: {piece[0].reason}; nothing of this file was recorded")
            lacking = [each for each in (_ID, _OUTCOME) if each not in piece.column_names]
            if lacking:
                raise SourceError(
                    f"{source.name} has no column {', '.join(lacking)}; it has "
                    f"{', '.join(piece.column_names)}"
                )
            told = piece[_KNOWN_AT].to_pylist() if _KNOWN_AT in piece.column_names else [None] * len(piece)
            rows = zip(
                piece[_ID].cast(pa.string()).to_pylist(), piece[_OUTCOME].to_pylist(), told, strict=True
            )
            for row in rows:
                number += 1
                try:
                    yield _outcome(*row, where=f"{source.name}, row {number}: ")
                except ConfigError as err:
                    raise SourceError(str(err)) from err


def record_outcomes(project: "Project", outcomes: Iterable[Outcome], *, deployment: str | None) -> Recorded:
    """Record outcomes and move them into the lake; `project.record` says how."""
    given = list(outcomes)
    repeated = unknown = 0
    places: dict[tuple[str, str], None] = {}
    for start in range(0, len(given), _AT_ONCE):
        whose = _whose(project, given[start : start + _AT_ONCE], deployment)
        for place, (mine, _) in whose.items():
            _check_labels(project, place, mine)
        for place, (mine, known) in whose.items():
            places[place] = None
            repeated += _record(project, place, mine)
            unknown += len(mine) - known
    return Recorded(
        recorded=len(given),
        repeated=repeated,
        unknown=unknown,
        deployments=tuple(f"{name}@{environment}" for environment, name in places),
    )


def _record(project: "Project", place: tuple[str, str], outcomes: list[Outcome]) -> int:
    environment, name = place
    folder = _folder(project, place)
    now = to_micros(project.now(environment))
    with OutcomeBook(folder, spool=outcome_spool(), wait_s=_PATIENCE_S) as book:
        repeated = book.record(outcomes, now=now)
        closed = [(book.path, book.rotate())]
    ship_outcomes(closed, project.lake, place=f"{environment}/{name}", index=folder / OUTCOME_INDEX)
    return repeated


def _check_labels(project: "Project", place: tuple[str, str], outcomes: Iterable[Outcome]) -> None:
    """Refuse a text for a model of which no release has ever given one: it could not be compared."""
    environment, name = place
    text = next((each for each in outcomes if isinstance(each.value, str)), None)
    releases = project.ledger.list_versions(kind="release", name=name) if text is not None else []
    if text is None or not releases:
        return
    if not any(output.datatype == "BYTES" for each in releases for output in read_release(each).outputs):
        raise ConfigError(
            f"the outcome of {text.prediction_id} is the text {text.value!r}; {name}@{environment} gives "
            "numbers: give a number, or none where none will come"
        )


def _whose(
    project: "Project", outcomes: list[Outcome], deployment: str | None
) -> dict[tuple[str, str], tuple[list[Outcome], int]]:
    """Say whose outcomes are, and how many are of predictions that are known."""
    ids = [each.prediction_id for each in outcomes]
    if deployment is not None:
        place = project.place(deployment)
        found = _answered(project, place, ids) | _logged(project, ids).get(place, set())
        return {place: (outcomes, sum(each in found for each in ids))}
    pointers = project.ledger.list_pointers()
    places = [(each.environment, each.name) for each in pointers]
    places = [each for each in dict.fromkeys(places) if each[0] in project.settings.environments]
    known = {each: _answered(project, each, ids) for each in places}
    left = [each for each in ids if not any(each in found for found in known.values())]
    for place, found in (_logged(project, left) if left else {}).items():
        known[place] = known.get(place, set()) | found
    split: dict[tuple[str, str], tuple[list[Outcome], int]] = {}
    unclear: list[str] = []
    for each in outcomes:
        whose = [place for place, found in known.items() if each.prediction_id in found]
        if len(whose) == 1 or (not whose and len(places) == 1):
            place = (whose or places)[0]
            mine, count = split.get(place, ([], 0))
            mine.append(each)
            split[place] = mine, count + len(whose)
        else:
            unclear.append(each.prediction_id)
    if unclear:
        there = ", ".join(f"{name}@{environment}" for environment, name in known) or "nothing is deployed"
        raise ConfigError(
            f"{len(unclear)} of {len(ids)} predictions, such as {unclear[0]!r}, were answered by none or "
            f"several of the deployments ({there}); say which by `deployment`"
        )
    return split


def _answered(project: "Project", place: tuple[str, str], ids: Sequence[str]) -> set[str]:
    """Give those of the predictions that a server on this machine has answered."""
    path = _folder(project, place) / INDEX
    if not path.is_dir():
        return set()
    with PredictionIndex(path) as index:
        return {each for each, found in zip(ids, index.find(ids), strict=True) if found is not None}


def _logged(project: "Project", ids: Sequence[str]) -> dict[tuple[str, str], set[str]]:
    """Give those of the predictions that are in the lake, by deployment."""
    if not project.lake.exists(PREDICTIONS):
        return {}
    rows = project.lake.read(
        PREDICTIONS,
        columns=[_ID, "environment", "deployment"],
        where=ds.field(_ID).isin(list(ids)) & ds.field("answered"),
    )
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows.to_pylist():
        found.setdefault((row["environment"], row["deployment"]), set()).add(row[_ID])
    return found


def _folder(project: "Project", place: tuple[str, str]) -> Path:
    environment, name = place
    return project.state / "deployments" / environment / name


def _outcome(prediction_id: object, outcome: object, known_at: object, *, where: str) -> Outcome:
    if not isinstance(prediction_id, str) or not prediction_id:
        raise ConfigError(f"{where}{prediction_id!r} is no prediction id; it is a text")
    return Outcome(
        prediction_id=prediction_id,
        value=_value(outcome, where),
        known_at=_instant(known_at, where),
    )


def _value(given: object, where: str) -> float | str | None:
    if isinstance(given, np.generic):
        given = given.item()
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, int | float) and not math.isinf(given):
        return None if math.isnan(given) else float(given)
    raise ConfigError(
        f"{where}outcome {given!r} is no number, no text for a label, and not None (none will come)"
    )


def _instant(given: object, where: str) -> int | None:
    match given:
        case None:
            return None
        case datetime():
            return to_micros(as_utc(given) if given.tzinfo else parse_instant(given.isoformat()))
        case str():
            try:
                return to_micros(parse_instant(given))
            except ValueError as err:
                raise ConfigError(f"{where}known_at {given!r} is no instant: {err}") from err
    raise ConfigError(f"{where}known_at {given!r} is no instant; give a datetime or ISO 8601")


def _is_several(given: Any) -> bool:
    return hasattr(given, "__iter__") and not isinstance(given, str)


def _listed(given: Any) -> list[Any] | None:
    if not _is_several(given):
        return None
    return list(given.tolist()) if hasattr(given, "tolist") else list(given)
