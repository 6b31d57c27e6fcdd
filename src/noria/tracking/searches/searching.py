"""Searches of runs and experiments: their ids, in order, page by page.

A search goes through phases by its first key: runs where it has a value, then where it is NaN, then where
it is missing. Each is a walk along an index that ends as soon as the page is full. Where a condition leaves
few runs, as a bounded count along its index says, those are looked at instead. A page begins after the last
row of the one before, whatever was written meanwhile: no run is given twice because others have started.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, cast, exists, select
from sqlalchemy import Text as SqlText

from noria.records import RunId, RunState
from noria.tracking.searches.filters import (
    EXPERIMENTS,
    Condition,
    Entity,
    Operator,
    Order,
    parse_filter,
    parse_order,
)
from noria.tracking.searches.pages import (
    MAX_LIMIT,
    Place,
    check_limit,
    foreign_page,
    place_values,
    read_page,
    write_page,
)
from noria.tracking.searches.statements import (
    TABLES,
    Driver,
    Key,
    Phase,
    Shape,
    Wanted,
    counting,
    counting_alike,
    counting_pointed_out,
    run_statement,
)
from noria.tracking.searches.terms import (
    Kind,
    SortedBy,
    Statement,
    View,
    after,
    compared,
    instant,
    of_view,
    sorted_statement,
    to_glob,
)
from noria.tracking.tables import HEAD_CHARS, experiment_tags, experiments

__all__ = ["MAX_LIMIT", "ExperimentPage", "RunPage", "search_experiments", "search_runs"]

# What is cheaper was measured in SQLite, on 100,000 runs whose ids are random: to look a run up takes 5 us,
# to walk past one that is looked up 2 us, past one that is not among those gathered 0.4 us, to gather one
# 0.7 us.
_FEW = 500  # runs of a condition that are looked up rather than walking past others in search of them,
_FEW_PER_ROW = 4  # and so many more for each row that is asked for: the walk would be longer
_SOME = 2_000  # runs of a condition that are gathered, so that the walk passes others quickly,
_SOME_PER_ROW = 30
_MOST = 20_000
_FEW_FOLDERS = 8  # are searched whether they are there or not
_DENSE = 4  # where every 4th run is one of them, the walk finds enough soon
_STATES: dict[str, list[str]] = {  # of a status; SCHEDULED is none of them
    "RUNNING": [RunState.RUNNING],
    "FINISHED": [RunState.FINISHED],
    "FAILED": [RunState.FAILED],
    "KILLED": [RunState.KILLED, RunState.CANCELLED],
}
_ALIKE = frozenset({Operator.LIKE, Operator.ILIKE})
_WALKED = frozenset({Operator.EQ, Operator.GT, Operator.GE, Operator.LT, Operator.LE})
_INT64 = 1 << 63
_SAFE_MS = 9.2e15  # milliseconds whose microseconds are 64 bits


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs that were found, in order, and what gives the next page: None after the last."""

    runs: tuple[RunId, ...]
    next_page: str | None


@dataclass(frozen=True, slots=True)
class ExperimentPage:
    """Experiments that were found, in order, and what gives the next page: None after the last."""

    experiments: tuple[int, ...]
    next_page: str | None


def search_runs(
    connection: Connection,
    experiments: Sequence[int],
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 1_000,
    page: str | None = None,
) -> RunPage:
    """Find runs of experiments.

    Parameters
    ----------
    connection
        Where to look. One that sees a single state gives one answer of several experiments.
    experiments
        Their ids; one that is not there has no runs.
    filter
        See `noria.tracking.searches.filters`. Metrics are compared by their latest values; NaN never matches.
        LIKE minds the case; ILIKE does not mind that of ASCII letters.
    order_by
        Keys to sort by. Runs in which a key is missing come last, either way; where a metric is NaN, before
        them. Then come the latest started first, then ids.
    view
        Whether runs that are marked as deleted are found.
    limit
        Most runs of a page.
    page
        `next_page` of the page before of the same search.

    Raises
    ------
    BadFilter
        If the filter, an order, the limit or the page is none.
    """
    conditions, orders = parse_filter(filter), parse_order(order_by)
    check_limit(limit)
    folders = sorted({each for each in experiments if 0 <= each < _INT64})
    subject = ("runs", folders, filter, list(order_by), view)
    place = read_page(page, subject)
    search = _RunSearch(connection, _existing(connection, folders), conditions, orders, view, limit)
    rows, last = search.take(place)
    return RunPage(tuple(RunId(row[-1]) for row in rows), None if last is None else write_page(last, subject))


def search_experiments(
    connection: Connection,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 1_000,
    page: str | None = None,
) -> ExperimentPage:
    """Find experiments; the latest made first, unless sorted. See `search_runs`."""
    conditions, orders = parse_filter(filter, EXPERIMENTS), parse_order(order_by, EXPERIMENTS)
    check_limit(limit)
    subject: tuple[Any, ...] = ("experiments", [], filter, list(order_by), view)
    place = read_page(page, subject)
    statement = _experiment_statement(conditions, orders, view, place is not None, connection.dialect.name)
    parameters: dict[str, Any] = {"limit": limit + 1}
    for number, condition in enumerate(conditions):
        parameters |= _values(number, condition, connection.dialect.name)
    if place is not None:
        parameters |= place_values(place, statement)
    rows = connection.execute(statement.select, parameters).all()
    last = None if len(rows) <= limit else Place(Phase.VALUED, list(rows[limit - 1][:-1]))
    found = tuple(int(row[-1]) for row in rows[:limit])
    return ExperimentPage(found, None if last is None else write_page(last, subject))


def _existing(connection: Connection, folders: list[int]) -> list[int]:
    """Give the experiments that are there: each is asked by itself."""
    if len(folders) <= _FEW_FOLDERS:
        return folders
    query = select(experiments.c.id).order_by(experiments.c.id)
    wanted = set(folders)
    return [each for each in connection.execute(query).scalars() if each in wanted]


@dataclass
class _RunSearch:
    """One search of runs."""

    connection: Connection
    folders: list[int]
    conditions: tuple[Condition, ...]
    orders: tuple[Order, ...]
    view: View
    limit: int
    _counted: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def take(self, place: Place | None) -> tuple[list[Any], Place | None]:
        """Give the rows of a page, and the place of its last one if there are more."""
        found: list[tuple[Phase, Any]] = []
        phases = self._phases()
        if place is not None:
            if place.phase not in phases:
                raise foreign_page()
            phases = phases[phases.index(place.phase) :]
        for phase in phases:
            since = place.values if place is not None and phase is place.phase else None
            missing = self.limit + 1 - len(found)
            found.extend((phase, row) for row in islice(self._rows(phase, since), missing))
            if len(found) > self.limit:
                its_phase, last = found[self.limit - 1]
                return [row for _, row in found[: self.limit]], Place(its_phase, list(last[:-1]))
        return [row for _, row in found], None

    @cached_property
    def _slots(self) -> dict[tuple[Entity, str], int]:
        asked: list[Condition | Order] = [*self.conditions, *self.orders]
        keyed = [(each.entity, each.key) for each in asked if each.entity in TABLES]
        return {each: number for number, each in enumerate(dict.fromkeys(keyed))}

    def _slot(self, entity: Entity, key: str) -> int | None:
        return self._slots.get((entity, key))

    @cached_property
    def _wanted(self) -> tuple[Wanted, ...]:
        return tuple(
            Wanted(each.entity, "" if slot is not None else each.key, each.operator, slot)
            for each in self.conditions
            for slot in [self._slot(each.entity, each.key)]
        )

    @cached_property
    def _keys(self) -> tuple[Key, ...]:
        return tuple(
            Key(each.entity, "" if slot is not None else each.key, each.is_descending, slot)
            for each in self.orders
            for slot in [self._slot(each.entity, each.key)]
        )

    def _phases(self) -> list[Phase]:
        """Give the phases in which there may be a run."""
        there = {each.slot for each in self._wanted if each.operator is not Operator.IS_NULL} - {None}
        absent = {each.slot for each in self._wanted if each.operator is Operator.IS_NULL}
        if there & absent:
            return []
        first = self._keys[0].slot if self._keys else None
        if first is None:
            return [Phase.VALUED]
        if first in absent:
            return [Phase.MISSING]
        if self._keys[0].entity is not Entity.METRIC:
            return [Phase.VALUED] if first in there else [Phase.VALUED, Phase.MISSING]
        return [Phase.VALUED] if first in there else list(Phase)

    def _rows(self, phase: Phase, since: list[Any] | None) -> Iterator[Any]:
        """Give the rows of a phase, in order."""
        found = [self._rows_of(folder, phase, since) for folder in self.folders]
        if len(found) == 1:
            return found[0]
        descending = self._statement(phase, Driver("start"), is_continued=False).is_descending
        return heapq.merge(*found, key=lambda row: _merged_by(row, descending))

    def _rows_of(self, folder: int, phase: Phase, since: list[Any] | None) -> Iterator[Any]:
        driver = self._driver(folder, phase)
        if driver is None:
            return
        statement = self._statement(phase, driver, is_continued=since is not None)
        parameters = {"experiment": folder, "limit": self.limit + 1, **self._parameters}
        if since is not None:
            parameters |= place_values(Place(phase, since), statement)
        with self.connection.execute(statement.select, parameters) as found:
            yield from found

    def _statement(self, phase: Phase, driver: Driver, *, is_continued: bool) -> Statement:
        entities = tuple(entity for entity, _ in self._slots)
        dialect = self.connection.dialect.name
        return run_statement(
            Shape(entities, self._wanted, self._keys, phase, driver, self.view, is_continued, dialect)
        )

    @cached_property
    def _parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {f"name{slot}": name for (_, name), slot in self._slots.items()}
        for number, condition in enumerate(self.conditions):
            found |= _values(number, condition, self.connection.dialect.name)
            if condition.operator is Operator.EQ and condition.entity in {Entity.PARAM, Entity.TAG}:
                found[f"head{number}"] = str(condition.value)[:HEAD_CHARS]
            if condition.key == "status":
                found[f"states{number}"] = _STATES.get(str(condition.value), [])
        return found

    def _driver(self, folder: int, phase: Phase) -> Driver | None:
        """Choose what to walk: the order, or what a condition leaves, if that is little; None: nothing."""
        walk = Driver("start")
        if self._keys and self._keys[0].slot is not None and phase is not Phase.MISSING:
            walk = Driver("slot", self._keys[0].slot)
        few = min(_FEW + _FEW_PER_ROW * self.limit, _MOST)
        least = some = min(_SOME + _SOME_PER_ROW * self.limit, _MOST)
        best: Driver | None = None
        for driver in self._candidates:
            if driver.kind == "alike" and best is not None:
                continue  # its index is read from end to end
            most = max(0, min(few + 1, least)) if driver.kind == "alike" else least
            count = some if driver == walk else self._count(folder, driver, most)
            if driver.kind == "alike" and count >= most:
                continue
            if count < least:
                best, least = driver, count
        if best is not None and least == 0:
            return None
        if best is None or self._count(folder, walk, _DENSE * least + 1) <= _DENSE * least:
            return walk
        if least <= few or best.kind == "ids":
            return best
        return walk._replace(among=best.at) if best.kind == "slot" else walk

    @cached_property
    def _candidates(self) -> tuple[Driver, ...]:
        found: dict[Driver, None] = {}
        alike: list[Driver] = []  # are counted last
        for number, (condition, wanted) in enumerate(zip(self.conditions, self._wanted, strict=True)):
            match wanted.key, wanted.operator:
                case _ if wanted.slot is not None:
                    if wanted.operator is not Operator.IS_NULL:
                        found[Driver("slot", wanted.slot)] = None
                    if wanted.operator in _ALIKE:
                        alike.append(Driver("alike", number))
                case "run_id", Operator.EQ | Operator.IN:
                    found[Driver("ids", number)] = None
                case "status", Operator.EQ if condition.value in _STATES:
                    found[Driver("state", number)] = None
                case "run_name", Operator.EQ:
                    found[Driver("name", number)] = None
                case "run_name", Operator.LIKE | Operator.ILIKE:
                    alike.append(Driver("alike", number))
                case "name", Operator.EQ:
                    found[Driver("dataset", number)] = None
        return (*found, *alike)

    def _count(self, folder: int, driver: Driver, most: int) -> int:
        """Count what a driver would walk, `most` at most."""
        if driver.kind == "alike":
            return self._count_alike(folder, driver.at, most)
        if driver.kind not in {"start", "slot"}:
            value = self.conditions[driver.at].value
            if driver.kind == "ids":
                return len(value) if isinstance(value, tuple) else 1
            asked = {"experiment": folder, "limit": most, "value0": value, "states0": _STATES.get(str(value))}
            return int(self.connection.execute(counting_pointed_out(driver.kind), asked).scalar_one())
        found = [
            each
            for each, wanted in zip(self.conditions, self._wanted, strict=True)
            if driver.kind == "slot" and wanted.slot == driver.at and each.operator in _WALKED
        ]
        entity, name = Entity.ATTRIBUTE, ""
        if driver.kind == "slot":
            entity, name = list(self._slots)[driver.at]
        statement = counting(entity, tuple(each.operator for each in found), self.connection.dialect.name)
        parameters: dict[str, Any] = {"experiment": folder, "name": name, "limit": most}
        for number, each in enumerate(found):
            is_metric = entity is Entity.METRIC
            parameters[f"value{number}"] = _number(each) if is_metric else str(each.value)[:HEAD_CHARS]
        return int(self.connection.execute(statement, parameters).scalar_one())

    def _count_alike(self, folder: int, number: int, most: int) -> int:
        condition, dialect = self.conditions[number], self.connection.dialect.name
        asked = {
            "experiment": folder,
            "limit": most,
            "name0": condition.key,
            **_values(0, condition, dialect),
        }
        statement = counting_alike(condition.entity, condition.operator, dialect)
        return int(self.connection.execute(statement, asked).scalar_one())


def _experiment_statement(
    conditions: Sequence[Condition], orders: Sequence[Order], view: View, is_continued: bool, dialect: str
) -> Statement:
    columns: dict[str, Any] = {
        "name": experiments.c.name,
        "experiment_id": cast(experiments.c.id, SqlText),
        "creation_time": instant(experiments.c.at),
        "last_update_time": instant(experiments.c.updated_at),
    }
    wheres = of_view(experiments, view)
    for number, each in enumerate(conditions):
        if each.entity is Entity.TAG:
            wheres.append(_has_tag(number, each, dialect))
        elif each.key in {"creation_time", "last_update_time"} and each.operator in {
            Operator.EQ,
            Operator.NE,
        }:
            low, high = (bindparam(f"{name}{number}", type_=BigInteger) for name in ("value", "high"))
            within = columns[each.key].between(low, high)
            wheres.append(within if each.operator is Operator.EQ else ~within)
        else:
            wheres.append(compared(columns[each.key], each.operator, f"value{number}", dialect))
    columns["experiment_id"] = experiments.c.id
    sorted_by = [
        SortedBy(columns[each.key], each.is_descending, Kind.TEXT if each.key == "name" else Kind.COUNT)
        for each in orders or (Order(Entity.ATTRIBUTE, "creation_time", is_descending=True),)
    ]
    sorted_by.append(SortedBy(experiments.c.id, bool(orders), Kind.COUNT))
    if is_continued:
        wheres.append(after(sorted_by))
    return sorted_statement(experiments.c.id, experiments, wheres, sorted_by)


def _has_tag(number: int, condition: Condition, dialect: str) -> Any:
    tag = experiment_tags.alias(f"t{number}")
    found = exists().where(tag.c.experiment == experiments.c.id, tag.c.name == condition.key)
    if condition.operator is Operator.IS_NULL:
        return ~found
    if condition.operator is Operator.IS_NOT_NULL:
        return found
    return found.where(compared(tag.c.value, condition.operator, f"value{number}", dialect))


def _values(number: int, condition: Condition, dialect: str) -> dict[str, Any]:
    """Give a condition's parameters."""
    value, name = condition.value, f"value{number}"
    if value is None:
        return {}
    if isinstance(value, tuple):
        return {name: list(value)}
    if isinstance(value, str):
        is_glob = condition.operator is Operator.LIKE and dialect == "sqlite"
        return {name: to_glob(value) if is_glob else value}
    if condition.entity is Entity.METRIC:
        return {name: _number(condition)}
    return _instants(number, condition.operator, value)


def _number(condition: Condition) -> float:
    assert isinstance(condition.value, int | float)
    return float(condition.value)


def _instants(number: int, operator: Operator, value: float) -> dict[str, int]:
    """Turn milliseconds, which are those of an instant rounded down, into microseconds."""
    value = max(min(value, _SAFE_MS), -_SAFE_MS)
    low, high = math.ceil(value), math.floor(value)
    match operator:
        case Operator.EQ | Operator.NE if low == high:
            return {f"value{number}": low * 1_000, f"high{number}": low * 1_000 + 999}
        case Operator.EQ | Operator.NE:
            return {f"value{number}": 0, f"high{number}": -1}  # no instant is within a millisecond
        case Operator.GE | Operator.LT:
            return {f"value{number}": low * 1_000}
        case _:
            return {f"value{number}": high * 1_000 + 999}


class _Descending:
    """A text that sorts the other way round."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: "_Descending") -> bool:
        return other.text < self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _merged_by(row: Sequence[Any], is_descending: Sequence[bool]) -> tuple[Any, ...]:
    return tuple(
        value if not down else _Descending(value) if isinstance(value, str) else -value
        for value, down in zip(row, is_descending, strict=False)
    )
