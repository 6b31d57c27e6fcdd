"""The statements of searches, put together once per shape: to put one together takes as long as to answer it.

SQLite counts nothing beforehand, so a statement leaves no choice of where to begin: only the table that it
walks is told the experiment, by which its index begins; any other can only be asked for one run after
another.
"""

from enum import IntEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    collate,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from noria.ledger.tables import runs
from noria.records import RunState
from noria.tracking.searches.filters import Entity, Operator
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
)
from noria.tracking.tables import (
    HEAD_CHARS,
    experiments,
    latest_metrics,
    run_datasets,
    run_params,
    run_tags,
    tracked_runs,
)

__all__ = [
    "TABLES",
    "Driver",
    "Key",
    "Phase",
    "Shape",
    "Wanted",
    "counting",
    "counting_alike",
    "counting_pointed_out",
    "run_statement",
]

TABLES: dict[Entity, Table] = {
    Entity.METRIC: latest_metrics,
    Entity.PARAM: run_params,
    Entity.TAG: run_tags,
}
_ZERO, _ONE, _TWO = (literal_column(each, Integer) for each in "012")  # ranks: a value, NaN, none
_ARTIFACTS = "mlflow-artifacts:/"  # where an experiment keeps its files that names no place


class Phase(IntEnum):
    """Which runs come first: whose first key has a value, then where it is NaN, then where it is missing."""

    VALUED = 0
    NAN = 1
    MISSING = 2


class Driver(NamedTuple):
    """The table that is walked: of a slot, of runs by their start, or of runs that a condition points out.

    `among` is a slot whose runs are gathered beforehand, so that others are passed without being looked up.
    """

    kind: Literal["start", "slot", "ids", "dataset", "name", "state", "alike"]
    at: int = 0
    among: int | None = None


class Wanted(NamedTuple):
    """A condition, less its values: with the slot of its table, or else with its key."""

    entity: Entity
    key: str
    operator: Operator
    slot: int | None


class Key(NamedTuple):
    """A key to sort by."""

    entity: Entity
    key: str
    is_descending: bool
    slot: int | None


class Shape(NamedTuple):
    """All that a statement depends on, less its values. A slot is one name of a metric, parameter or tag."""

    slots: tuple[Entity, ...]
    conditions: tuple[Wanted, ...]
    keys: tuple[Key, ...]
    phase: Phase
    driver: Driver
    view: View
    is_continued: bool
    dialect: str


@lru_cache(maxsize=512)
def run_statement(shape: Shape) -> Statement:
    """Put the search of one experiment together.

    Its parameters: `experiment`, `limit`, `name<slot>`, `value<condition>`, for an instant `high<condition>`
    too, `head<condition>` for a text's beginning, `states<condition>` for those of a status, `after<column>`.
    """
    return _Runs(shape).statement()


@lru_cache(maxsize=256)
def counting(entity: Entity, operators: tuple[Operator, ...], dialect: str) -> Select[Any]:
    """Count by an index alone, `limit` at most, what conditions leave: by value, or by a text's beginning.

    Its parameters: `experiment`, `limit`, `value<number of the operator>`; and `name`, unless it is all runs
    that are counted: those of attributes.
    """
    table = {Entity.ATTRIBUTE: tracked_runs, **TABLES}[entity]
    query: Select[Any] = select(literal_column("1")).where(table.c.experiment == bindparam("experiment"))
    if table is not tracked_runs:
        query = query.where(table.c.name == bindparam("name"))
    if entity is Entity.METRIC:
        query = query.where(table.c.is_nan == false())
    for number, operator in enumerate(operators):
        column = table.c.value if entity is Entity.METRIC else table.c.head
        query = query.where(compared(column, operator, f"value{number}", dialect))
    return select(func.count()).select_from(query.limit(bindparam("limit", type_=Integer)).subquery())


@lru_cache(maxsize=4)
def counting_pointed_out(kind: str) -> Select[Any]:
    """Count, `limit` at most, the runs of `experiment` that a value, or states, point out."""
    query = _pointed_out(kind, 0).limit(bindparam("limit", type_=Integer))
    return select(func.count()).select_from(query.subquery())


@lru_cache(maxsize=16)
def counting_alike(entity: Entity, operator: Operator, dialect: str) -> Select[Any]:
    """Count, `limit` at most, the runs of `experiment` that may have a text like `value0`, of `name0`."""
    query = _alike(Wanted(entity, "", operator, 0), 0, dialect)
    return select(func.count()).select_from(query.limit(bindparam("limit", type_=Integer)).subquery())


def _alike(wanted: Wanted, number: int, dialect: str) -> Select[Any]:
    """Give the ids of runs that may have a text like that of a condition, by an index alone.

    It holds the beginning of a parameter or a tag: what is longer may be like it, and is looked up later.
    """
    experiment = bindparam("experiment", type_=BigInteger)
    if wanted.slot is None or wanted.entity is Entity.ATTRIBUTE:
        named = tracked_runs.alias("named")
        found = compared(named.c.name, wanted.operator, f"value{number}", dialect)
        return select(named.c.run).where(named.c.experiment == experiment, found)
    table = TABLES[wanted.entity].alias("alike")
    found = compared(table.c.head, wanted.operator, f"value{number}", dialect)
    of_name = table.c.name == bindparam(f"name{wanted.slot}")
    is_long = func.length(table.c.head) >= HEAD_CHARS
    return select(table.c.run).where(table.c.experiment == experiment, of_name, or_(found, is_long))


def _pointed_out(kind: str, number: int) -> Select[Any]:
    """Give the ids of runs that a condition points out."""
    if kind == "state":
        return _in_states(f"states{number}")
    table = run_datasets if kind == "dataset" else tracked_runs.alias("named")
    experiment = bindparam("experiment", type_=BigInteger)
    return select(table.c.run).where(
        table.c.experiment == experiment, table.c.name == bindparam(f"value{number}")
    )


def _in_states(name: str) -> Select[Any]:
    """Give the ids of all runs in the states of a parameter; the index of states begins with the scope."""
    scopes = select(func.min(runs.c.scope).label("scope")).cte("scopes", recursive=True)
    following = select(func.min(runs.c.scope)).where(runs.c.scope > scopes.c.scope).scalar_subquery()
    scopes = scopes.union_all(select(following).where(scopes.c.scope.is_not(None)))
    states = bindparam(name, type_=Text, expanding=True)
    return select(runs.c.id).join(scopes, runs.c.scope == scopes.c.scope).where(runs.c.state.in_(states))


def _status() -> ColumnElement[str]:
    states = {each.value: each.name for each in RunState} | {RunState.CANCELLED.value: RunState.KILLED.name}
    status = case(states, value=runs.c.state)
    return cast(case((tracked_runs.c.is_scheduled == true(), "SCHEDULED"), else_=status), Text)


def _artifact_uri() -> ColumnElement[str]:
    number = cast(tracked_runs.c.experiment, Text)
    own = select(experiments.c.artifact_uri).where(experiments.c.id == tracked_runs.c.experiment)
    place = func.coalesce(own.scalar_subquery(), literal(_ARTIFACTS) + number)
    return cast(place + "/" + tracked_runs.c.run + "/artifacts", Text)


_ATTRIBUTES: dict[str, ColumnElement[Any]] = {
    "run_id": tracked_runs.c.run,
    "run_name": tracked_runs.c.name,
    "user_id": tracked_runs.c.owner,
    "start_time": instant(tracked_runs.c.started_at),
    "end_time": func.coalesce(instant(tracked_runs.c.ended_at), instant(runs.c.ended_at)),
    "experiment_id": cast(tracked_runs.c.experiment, Text),
    "lifecycle_stage": cast(case((tracked_runs.c.deleted_at.is_(None), "active"), else_="deleted"), Text),
    "artifact_uri": _artifact_uri(),
    "status": _status(),
}
_OF_LEDGER = {"end_time", "status"}


class _Runs:
    """Puts one statement together."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._joins_runs = False
        self._run = tracked_runs
        self._tables = [TABLES[entity].alias(f"s{slot}") for slot, entity in enumerate(shape.slots)]
        wanted = {each.slot for each in shape.conditions if each.operator is not Operator.IS_NULL}
        absent = {each.slot for each in shape.conditions if each.operator is Operator.IS_NULL}
        first = shape.keys[0].slot if shape.keys else None
        (absent if shape.phase is Phase.MISSING else wanted).add(first)
        self._wanted = [slot for slot in range(len(shape.slots)) if slot in wanted]
        self._absent = [slot for slot in range(len(shape.slots)) if slot in absent]
        self._wheres: list[ColumnElement[bool]] = []

    def statement(self) -> Statement:
        shape, run = self._shape, self._run
        sorted_by = self._sorted_by()
        for number, each in enumerate(shape.conditions):
            self._add(number, each)
        for slot in self._absent:
            table = self._tables[slot]
            self._wheres.append(
                ~exists().where(table.c.run == run.c.run, table.c.name == bindparam(f"name{slot}"))
            )
        if shape.phase is Phase.NAN and shape.keys[0].slot is not None:
            self._wheres.append(self._tables[shape.keys[0].slot].c.is_nan == true())
        self._wheres.extend(of_view(run, shape.view))
        if shape.is_continued:
            self._wheres.append(after(sorted_by))
        source = self._joined()
        return sorted_statement(run.c.run, source, self._wheres, sorted_by)

    def _joined(self) -> FromClause:
        """Join the tables, the walked one first; a run's own row is looked up when all else holds."""
        shape, run = self._shape, self._run
        experiment = bindparam("experiment", type_=BigInteger)
        wanted = list(self._wanted)
        source: FromClause = run
        walked: FromClause = run
        match shape.driver.kind:
            case "slot":
                name: BindParameter[Any] = bindparam(f"name{shape.driver.at}")
                source = walked = self._tables[shape.driver.at]
                wanted.remove(shape.driver.at)
                self._wheres += [walked.c.experiment == experiment, walked.c.name == name]
            case "start":
                self._wheres.append(run.c.experiment == experiment)
            case "ids":  # the condition itself is answered by the key; the sum keeps the index of starts out
                self._wheres.append(run.c.experiment + 0 == experiment)
            case "alike":
                named = _alike(shape.conditions[shape.driver.at], shape.driver.at, shape.dialect)
                self._wheres += [run.c.run.in_(named), run.c.experiment + 0 == experiment]
            case _:
                named = _pointed_out(shape.driver.kind, shape.driver.at)
                self._wheres += [run.c.run.in_(named), run.c.experiment + 0 == experiment]
        if shape.driver.among is not None:
            self._wheres.append(self._is_among(walked.c.run, shape.driver.among))
        for slot in wanted:
            table = self._tables[slot]
            found = and_(table.c.run == walked.c.run, table.c.name == bindparam(f"name{slot}"))
            source = source.join(table, found)
        if walked is not run:
            source = source.join(run, run.c.run == walked.c.run)
        if self._joins_runs:
            source = source.join(runs, runs.c.id == run.c.run)
        for slot in range(len(self._tables)):
            if slot not in self._wanted and slot not in self._absent:
                table = self._tables[slot]
                found = and_(table.c.run == run.c.run, table.c.name == bindparam(f"name{slot}"))
                source = source.outerjoin(table, found)
        return source

    def _is_among(self, run: ColumnElement[str], slot: int) -> ColumnElement[bool]:
        """Tell whether a run is one of those that a slot's index gives."""
        table = TABLES[self._shape.slots[slot]].alias("among")
        query = select(table.c.run).where(
            table.c.experiment == bindparam("experiment", type_=BigInteger),
            table.c.name == bindparam(f"name{slot}"),
        )
        for number, wanted in enumerate(self._shape.conditions):
            if wanted.slot != slot:
                continue
            if wanted.entity is Entity.METRIC:
                value = compared(table.c.value, wanted.operator, f"value{number}", self._shape.dialect)
                query = query.where(table.c.is_nan == false(), value)
            elif wanted.operator is Operator.EQ:
                query = query.where(table.c.head == bindparam(f"head{number}"))
        if self._shape.dialect == "sqlite":
            run = UnaryExpression(run, operator=custom_op("+"))  # or they would be looked up one by one
            return run.in_(query)
        return run.in_(query).is_(true())  # or they would be joined, in an order that no walk ends early in

    def _add(self, number: int, wanted: Wanted) -> None:
        shape, operator = self._shape, wanted.operator
        match wanted.entity:
            case Entity.METRIC:
                table = self._table(wanted.slot)
                self._wheres.append(table.c.is_nan == false())
                self._wheres.append(compared(table.c.value, operator, f"value{number}", shape.dialect))
            case Entity.PARAM | Entity.TAG:
                if operator.is_existence:
                    return
                table = self._table(wanted.slot)
                self._wheres.append(compared(table.c.value, operator, f"value{number}", shape.dialect))
                if operator is Operator.EQ and shape.driver[:2] == ("slot", wanted.slot):
                    self._wheres.append(table.c.head == bindparam(f"head{number}"))
            case Entity.DATASET:
                if shape.driver == Driver("dataset", number):
                    return
                table = run_datasets.alias(f"d{number}")
                found = compared(table.c[wanted.key], operator, f"value{number}", shape.dialect)
                self._wheres.append(exists().where(table.c.run == self._run.c.run, found))
            case Entity.ATTRIBUTE:
                self._add_attribute(number, wanted)

    def _add_attribute(self, number: int, wanted: Wanted) -> None:
        operator = wanted.operator
        column = self._attribute(wanted.key)
        if wanted.key not in {"start_time", "end_time"}:
            self._wheres.append(compared(column, operator, f"value{number}", self._shape.dialect))
            return
        low = bindparam(f"value{number}", type_=BigInteger)
        high = bindparam(f"high{number}", type_=BigInteger)
        match operator:
            case Operator.EQ:
                self._wheres.append(column.between(low, high))
            case Operator.NE:
                self._wheres.append(or_(column < low, column > high))
            case _:
                self._wheres.append(compared(column, operator, f"value{number}", self._shape.dialect))

    def _sorted_by(self) -> list[SortedBy]:
        shape, run = self._shape, self._run
        found: list[SortedBy] = []
        for number, key in enumerate(shape.keys):
            if key.entity is Entity.ATTRIBUTE:
                found.extend(self._sorted_by_attribute(key))
            elif key.slot in self._absent:
                continue  # it is missing in all of them
            elif number > 0:
                found.extend(self._sorted_by_slot(key))
            elif shape.phase is Phase.VALUED:
                found.extend(self._sorted_by_value(key))
        names = {key.key for key in shape.keys if key.entity is Entity.ATTRIBUTE}
        if "start_time" not in names:
            found.append(SortedBy(instant(run.c.started_at), True, Kind.COUNT))
        if "run_id" not in names:
            found.append(SortedBy(run.c.run, False, Kind.TEXT))
        return found

    def _sorted_by_value(self, key: Key) -> list[SortedBy]:
        table = self._table(key.slot)
        if key.entity is Entity.METRIC:
            self._wheres.append(table.c.is_nan == false())
            return [SortedBy(table.c.value, key.is_descending, Kind.NUMBER)]
        columns = (table.c.head, self._by_bytes(table.c.value))  # the index holds the head
        return [SortedBy(column, key.is_descending, Kind.TEXT) for column in columns]

    def _sorted_by_slot(self, key: Key) -> list[SortedBy]:
        table = self._table(key.slot)
        if key.entity is Entity.METRIC:
            rank = case((table.c.run.is_(None), _TWO), (table.c.is_nan == true(), _ONE), else_=_ZERO)
            value = SortedBy(func.coalesce(table.c.value, 0.0), key.is_descending, Kind.NUMBER)
        else:
            rank = case((table.c.run.is_(None), _TWO), else_=_ZERO)
            column = self._by_bytes(func.coalesce(table.c.value, ""))
            value = SortedBy(column, key.is_descending, Kind.TEXT)
        return [SortedBy(rank, False, Kind.COUNT), value]

    def _sorted_by_attribute(self, key: Key) -> list[SortedBy]:
        if key.key == "experiment_id":
            return [SortedBy(self._run.c.experiment, key.is_descending, Kind.COUNT)]
        column = self._attribute(key.key)
        if key.key == "end_time":
            rank = case((column.is_(None), _TWO), else_=_ZERO)
            value = SortedBy(func.coalesce(column, 0), key.is_descending, Kind.COUNT)
            return [SortedBy(rank, False, Kind.COUNT), value]
        if key.key == "start_time":
            return [SortedBy(column, key.is_descending, Kind.COUNT)]
        return [SortedBy(self._by_bytes(column), key.is_descending, Kind.TEXT)]

    def _attribute(self, key: str) -> ColumnElement[Any]:
        self._joins_runs = self._joins_runs or key in _OF_LEDGER
        return _ATTRIBUTES[key]

    def _by_bytes(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Give a text so that it is sorted by its bytes, as SQLite does."""
        return collate(column, "C") if self._shape.dialect == "postgresql" else column

    def _table(self, slot: int | None) -> FromClause:
        assert slot is not None
        return self._tables[slot]
