"""Runs made up, put into the tables, and searched by brute force in plain Python."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cmp_to_key
from typing import Any

from sqlalchemy import Connection, Table, delete, insert

from noria.ledger.tables import runs
from noria.tracking.searches.filters import Condition, Entity, Operator, Order
from noria.tracking.tables import (
    HEAD_CHARS,
    experiment_tags,
    experiments,
    latest_metrics,
    logged_datasets,
    run_datasets,
    run_params,
    run_tags,
    tracked_runs,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Made:
    """A run that was made up."""

    id: str
    experiment: int
    started_us: int = 0
    name: str = "a run"
    owner: str = "me"
    state: str = "finished"
    is_scheduled: bool = False
    told_end_us: int | None = None
    ledger_end_us: int | None = None
    is_deleted: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: tuple[tuple[str, str, str | None], ...] = ()  # name, digest, context

    @property
    def end_us(self) -> int | None:
        return self.ledger_end_us if self.told_end_us is None else self.told_end_us

    @property
    def status(self) -> str:
        return (
            "SCHEDULED" if self.is_scheduled else {"cancelled": "KILLED"}.get(self.state, self.state.upper())
        )

    def attribute(self, key: str, places: dict[int, str | None]) -> Any:
        match key:
            case "run_id":
                return self.id
            case "run_name":
                return self.name
            case "user_id":
                return self.owner
            case "status":
                return self.status
            case "start_time":
                return self.started_us // 1_000
            case "end_time":
                return None if self.end_us is None else self.end_us // 1_000
            case "experiment_id":
                return str(self.experiment)
            case "lifecycle_stage":
                return "deleted" if self.is_deleted else "active"
            case "artifact_uri":
                place = places.get(self.experiment) or f"mlflow-artifacts:/{self.experiment}"
                return f"{place}/{self.id}/artifacts"
        raise AssertionError(key)


def run_of(id: str, **more: Any) -> Made:
    """Give a run of experiment 1."""
    return Made(id=id, experiment=1, **more)


def fill(connection: Connection, made: Sequence[Made], places: dict[int, str | None]) -> None:
    """Put runs into the tables, which hold nothing else then."""
    for table in (latest_metrics, run_params, run_tags, run_datasets, logged_datasets, tracked_runs, runs,
                  experiment_tags, experiments):  # fmt: skip
        connection.execute(delete(table))
    for number, place in places.items():
        row = {"id": number, "name": f"e{number}", "artifact_uri": place, "at": EPOCH, "updated_at": EPOCH}
        connection.execute(insert(experiments).values(row))
    rows: dict[Table, list[dict[str, Any]]] = {}
    for each in made:
        for table, row in _rows(each):
            rows.setdefault(table, []).append(row)
    for table, some in rows.items():
        connection.execute(insert(table), some)


def _rows(run: Made) -> Iterator[tuple[Table, dict[str, Any]]]:
    texts = {"params": "{}", "metrics": "{}", "code": "", "runtime": ""}
    yield runs, {
        "id": run.id, "scope": "project", "kind": "train", "name": run.name, "state": run.state, "attempt": 1,
        "at": EPOCH, "started_at": EPOCH, "ended_at": _at(run.ledger_end_us), **texts,
    }  # fmt: skip
    yield tracked_runs, {
        "run": run.id, "experiment": run.experiment, "name": run.name, "owner": run.owner,
        "is_scheduled": run.is_scheduled, "started_at": _at(run.started_us), "ended_at": _at(run.told_end_us),
        "deleted_at": EPOCH if run.is_deleted else None,
    }  # fmt: skip
    common = {"run": run.id, "experiment": run.experiment}
    for name, value in run.metrics.items():
        is_nan = math.isnan(value)
        point = {"value": 0.0 if is_nan else value, "is_nan": is_nan, "step": 0, "recorded_at": EPOCH}
        yield latest_metrics, {**common, "name": name, **point}
    for table, logged in ((run_params, run.params), (run_tags, run.tags)):
        for name, text in logged.items():
            yield table, {**common, "name": name, "value": text, "head": text[:HEAD_CHARS]}
    for number, (name, digest, context) in enumerate(run.datasets):
        sha, about = f"{run.id}-{number}", {"name": name, "digest": digest}
        yield logged_datasets, {"sha256": sha, "source_type": "x", "source": "x", **about}
        yield run_datasets, {**common, **about, "dataset": sha, "context": context, "tags": "[]"}


def _at(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


def search(
    made: Sequence[Made],
    places: dict[int, str | None],
    *,
    conditions: Sequence[Condition],
    orders: Sequence[Order],
    folders: Sequence[int],
    view: str,
) -> list[str]:
    """Give the ids of the runs that a search finds, in order."""
    found = [
        each
        for each in made
        if each.experiment in folders
        and (view == "all" or each.is_deleted == (view == "deleted"))
        and all(_holds(each, condition, places) for condition in conditions)
    ]

    def compare(a: Made, b: Made) -> int:
        for order in orders:
            if found := _compare(_sorted_value(a, order, places), _sorted_value(b, order, places), order):
                return found
        if not any(order.key == "start_time" for order in orders) and a.started_us != b.started_us:
            return 1 if a.started_us < b.started_us else -1
        return (a.id > b.id) - (a.id < b.id)

    return [each.id for each in sorted(found, key=cmp_to_key(compare))]


def _sorted_value(run: Made, order: Order, places: dict[int, str | None]) -> Any:
    match order.entity, order.key:
        case Entity.METRIC, _:
            return run.metrics.get(order.key)
        case Entity.PARAM, _:
            return run.params.get(order.key)
        case Entity.TAG, _:
            return run.tags.get(order.key)
        case _, "start_time":
            return run.started_us
        case _, "end_time":
            return run.end_us
        case _, "experiment_id":
            return run.experiment
    return run.attribute(order.key, places)


def _compare(a: Any, b: Any, order: Order) -> int:
    ranks = [2 if each is None else int(isinstance(each, float) and math.isnan(each)) for each in (a, b)]
    if ranks != [0, 0] or a == b:
        return ranks[0] - ranks[1]
    return (1 if a > b else -1) * (-1 if order.is_descending else 1)


def _holds(run: Made, condition: Condition, places: dict[int, str | None]) -> bool:
    key = condition.key
    match condition.entity:
        case Entity.METRIC:
            value = run.metrics.get(key)
            return value is not None and not math.isnan(value) and _test(value, condition)
        case Entity.DATASET:
            place = ("name", "digest", "context").index(key)
            return any(each[place] is not None and _test(each[place], condition) for each in run.datasets)
        case Entity.ATTRIBUTE:
            value = run.attribute(key, places)
            return value is not None and _test(value, condition)
    text = (run.params if condition.entity is Entity.PARAM else run.tags).get(key)
    if condition.operator.is_existence:
        return (text is None) == (condition.operator is Operator.IS_NULL)
    return text is not None and _test(text, condition)


def _test(found: Any, condition: Condition) -> bool:
    wanted: Any = condition.value
    match condition.operator:
        case Operator.EQ:
            return bool(found == wanted)
        case Operator.NE:
            return bool(found != wanted)
        case Operator.GT:
            return bool(found > wanted)
        case Operator.GE:
            return bool(found >= wanted)
        case Operator.LT:
            return bool(found < wanted)
        case Operator.LE:
            return bool(found <= wanted)
        case Operator.IN:
            return found in wanted
        case Operator.NOT_IN:
            return found not in wanted
        case Operator.LIKE:
            return _is_like(found, wanted)
        case Operator.ILIKE:
            return _is_like(_lower(found), _lower(wanted))
    raise AssertionError(condition)


def _is_like(text: str, pattern: str) -> bool:
    wild = {"%": ".*", "_": "."}
    expression = "".join(wild.get(each) or re.escape(each) for each in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _lower(text: str) -> str:
    return re.sub("[A-Z]", lambda match: match[0].lower(), text)
