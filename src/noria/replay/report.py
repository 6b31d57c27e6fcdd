"""A replay in figures, every one computed from the record: prediction log, outcomes, ledger."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from noria.deploy.history import list_moves
from noria.deploy.releases import read_release, read_route
from noria.deploy.shipping import PREDICTIONS
from noria.errors import NotFound
from noria.evaluation.scores import auc, log_loss
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.monitoring.outcomes import latest_outcomes
from noria.records import Event, Version
from noria.registry.store import LoadedModel, Registry
from noria.replay.declarations import Replay
from noria.value.money import Money, money, money_table

__all__ = ["Accidents", "DecisionLine", "MonthLine", "Quality", "Report", "report"]

_TOLD = (
    "dataset.blocked",
    "gate.passed",
    "gate.refused",
    "trigger.decided",
    "canary.passed",
    "canary.failed",
    "pointer.moved",
    "accident.planted",
    "accident.settled",
    "parity.broken",
)
Floats = npt.NDArray[np.float64]


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good the answers were, over predictions with an outcome; None where one class is missing."""

    auc: float | None
    log_loss: float | None


class MonthLine(msgspec.Struct, frozen=True, kw_only=True):
    """One month of the replay."""

    month: str
    predictions: int
    labelled: int
    loop: Quality
    frozen: Quality
    retrains: int
    value: float | None  # gain over the baseline, in the objective's unit
    value_low: float | None
    value_high: float | None
    frozen_value: float | None


class DecisionLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was decided, and why."""

    at: datetime
    verb: str
    subject: str
    environment: str | None  # None where it is about none
    decision: str
    reason: str
    event: str


class Accidents(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong on purpose, and whether the loop dealt with it as it should."""

    kind: str
    note: str
    at: datetime
    as_wanted: bool
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A replay, as far as it went."""

    replay: str
    start: datetime
    until: datetime
    finished: bool
    loop: Quality
    frozen: Quality
    frozen_version: str
    predictions: int
    labelled: int
    unlabelled: int
    retrains: int
    months: tuple[MonthLine, ...]
    decisions: tuple[DecisionLine, ...]
    waits: int
    alerts: int
    accidents: tuple[Accidents, ...]
    money: Money | None
    frozen_money: Money | None
    parity_rows: int
    parity_differences: int
    a_prediction: str | None  # one worth tracing


def report(replay: Replay, *, ledger: Ledger, lake: Lake, registry: Registry) -> Report:
    """Compute the report of a replay as far as it went.

    The loop's scores are those that were answered. The frozen model is the first that stood in the
    environment; it scores the features that were logged.

    Raises
    ------
    NotFound
        If the replay has not lived through a day yet.
    """
    days = ledger.list_events(verb="replay.day_done", subject=replay.name)
    if not days:
        raise NotFound("finished day of the replay", replay.name)
    rows = _answered(replay, lake, until=days[-1].at)
    frozen = _first_model(replay, ledger)
    y = _outcomes(rows, lake, f"{replay.environment}/{replay.training.name}")
    at = rows["at"].cast(pa.int64()).to_numpy()
    loop_scores = rows["score"].to_numpy()
    frozen_scores = _score_again(registry, registry.load(frozen), rows)
    decisions = _decisions(ledger, until=days[-1])
    retrains = [line for line in decisions if line.decision == "run"]
    return Report(
        replay=replay.name,
        start=replay.starts_at,
        until=days[-1].at,
        finished=days[-1].at >= replay.ends_at,
        loop=_quality(y, loop_scores),
        frozen=_quality(y, frozen_scores),
        frozen_version=frozen.ref,
        predictions=rows.num_rows,
        labelled=int(np.count_nonzero(~np.isnan(y))),
        unlabelled=int(np.count_nonzero(np.isnan(y))),
        retrains=len(retrains),
        months=_months(replay, y, at, loop_scores, frozen_scores, retrains=retrains),
        decisions=decisions,
        waits=_count(ledger, replay, "wait"),
        alerts=_count(ledger, replay, "alert"),
        accidents=_accidents(ledger),
        money=_paid(replay, loop_scores, y, at, label="loop"),
        frozen_money=_paid(replay, frozen_scores, y, at, label="frozen"),
        parity_rows=sum(event.payload["parity_rows"] for event in days),
        parity_differences=sum(event.payload["parity_differences"] for event in days),
        a_prediction=_worth_tracing(rows, y, loop_scores),
    )


_DAY_US = 86_400_000_000


def _paid(
    replay: Replay, scores: Floats, y: Floats, at: npt.NDArray[np.int64], *, label: str
) -> Money | None:
    objective = replay.training.objective
    return None if objective is None else money(objective, scores, y, days=at // _DAY_US, label=label)


def _answered(replay: Replay, lake: Lake, *, until: datetime) -> pa.Table:
    """Give the replay's answered predictions in a fixed order; others may have been asked for since."""
    lived = (ds.field("at") >= pa.scalar(replay.starts_at)) & (ds.field("at") < pa.scalar(until))
    mine = (ds.field("environment") == replay.environment) & (ds.field("deployment") == replay.training.name)
    rows = lake.read(
        PREDICTIONS,
        columns=["prediction_id", "at", "score", "version", "inputs", "features"],
        where=lived & mine & ds.field("answered"),
    )
    return rows.take(pc.sort_indices(rows, sort_keys=[("at", "ascending"), ("prediction_id", "ascending")]))


def _first_model(replay: Replay, ledger: Ledger) -> Version:
    first = list_moves(ledger, environment=replay.environment, deployment=replay.training.name)[0]
    (release,) = read_route(ledger.get_version_by_id(first.pointer.version)).releases.values()
    return ledger.get_version_by_id(read_release(ledger.get_version_by_id(release)).model)


def _outcomes(rows: pa.Table, lake: Lake, deployment: str) -> Floats:
    """Give the outcome of each row as it is known now, NaN where none came."""
    known = latest_outcomes(lake, [deployment])
    place = pc.index_in(rows["prediction_id"], value_set=known["prediction_id"].combine_chunks())
    outcomes: Floats = known["outcome"].take(place).to_numpy().astype(np.float64)
    return outcomes


def _score_again(registry: Registry, model: LoadedModel, rows: pa.Table) -> Floats:
    """Score logged rows with a model: what it would have answered."""
    scores = []
    for start in range(0, rows.num_rows, _CHUNK):
        part = rows.slice(start, _CHUNK)
        inputs, features = part["inputs"].combine_chunks(), part["features"].combine_chunks()
        columns = {
            each.name: struct.field(place)
            for struct in (features, inputs)
            for place, each in enumerate(struct.type)
        }
        scores.append(model.score_rows(registry.add_on_demand(model.version, pa.table(columns))))
    return np.concatenate(scores) if scores else np.empty(0)


_CHUNK = 50_000


def _quality(y: Floats, scores: Floats) -> Quality:
    known = ~np.isnan(y)
    outcomes, answers = y[known], scores[known]
    if not outcomes.size or outcomes.min() == outcomes.max():
        return Quality(auc=None, log_loss=log_loss(outcomes, answers) if outcomes.size else None)
    return Quality(auc=auc(outcomes, answers), log_loss=log_loss(outcomes, answers))


def _months(
    replay: Replay,
    y: Floats,
    at: npt.NDArray[np.int64],
    loop: Floats,
    frozen: Floats,
    *,
    retrains: list[DecisionLine],
) -> tuple[MonthLine, ...]:
    months = at.astype("datetime64[us]").astype("datetime64[M]")
    objective, days = replay.training.objective, at // _DAY_US
    paid: Mapping[str, Money] = {}
    paid_frozen: Mapping[str, Money] = {}
    if objective is not None:
        paid = {each.label: each for each in money_table(objective, loop, y, months, days=days)}
        paid_frozen = {each.label: each for each in money_table(objective, frozen, y, months, days=days)}
    lines = []
    for month in np.unique(months):
        mine, label = months == month, str(month)
        loop_money, frozen_money = paid.get(label), paid_frozen.get(label)
        lines.append(
            MonthLine(
                month=label,
                predictions=int(mine.sum()),
                labelled=int(np.count_nonzero(~np.isnan(y[mine]))),
                loop=_quality(y[mine], loop[mine]),
                frozen=_quality(y[mine], frozen[mine]),
                retrains=sum(f"{each.at:%Y-%m}" == label for each in retrains),
                value=loop_money.gain if loop_money else None,
                value_low=loop_money.low if loop_money else None,
                value_high=loop_money.high if loop_money else None,
                frozen_value=frozen_money.gain if frozen_money else None,
            )
        )
    return tuple(lines)


def _decisions(ledger: Ledger, *, until: Event) -> tuple[DecisionLine, ...]:
    """Give what was decided up to an event, oldest first; waits and alerts are counted, not listed."""
    told = (event for verb in _TOLD for event in ledger.list_events(verb=verb))
    events = [event for event in told if event.seq <= until.seq]
    lines = []
    for event in sorted(events, key=lambda event: event.seq):
        decision = _decision(event)
        if decision is not None:
            lines.append(
                DecisionLine(
                    at=event.at,
                    verb=event.verb,
                    subject=event.subject,
                    environment=event.payload.get("environment"),
                    decision=decision,
                    reason=_reason(event),
                    event=event.id,
                )
            )
    return tuple(lines)


def _decision(event: Event) -> str | None:
    if event.verb == "trigger.decided":
        choice: str = event.payload["choice"]
        return choice if choice not in ("wait", "alert") else None
    return event.verb.partition(".")[2]


def _reason(event: Event) -> str:
    if "reason" in event.payload:
        return str(event.payload["reason"])
    return "; ".join(event.payload.get("reasons", ()))


def _count(ledger: Ledger, replay: Replay, choice: str) -> int:
    made = ledger.list_events(verb="trigger.decided", subject=replay.trigger.name)
    return sum(event.payload["choice"] == choice for event in made)


def _accidents(ledger: Ledger) -> tuple[Accidents, ...]:
    return tuple(
        Accidents(
            kind=event.payload["kind"],
            note=event.payload["note"],
            at=event.at,
            as_wanted=event.payload["as_wanted"],
            reason=event.payload["reason"],
        )
        for event in ledger.list_events(verb="accident.settled")
    )


def _worth_tracing(rows: pa.Table, y: Floats, scores: Floats) -> str | None:
    """Name a prediction that came true: the most certain one of the last day that had any."""
    good = np.flatnonzero(y == 1)
    if not good.size:
        return rows["prediction_id"][0].as_py() if rows.num_rows else None
    last_day = rows["at"].cast(pa.int64()).to_numpy()[good] // _DAY_US
    candidates = good[last_day == last_day.max()]
    best = candidates[np.argmax(scores[candidates])]
    name: str = rows["prediction_id"][int(best)].as_py()
    return name
