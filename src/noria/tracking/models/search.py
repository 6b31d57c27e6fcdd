"""Searches of logged models: their ids, in order, page by page.

A metric fits if any of its points does, as for MLflow; it is sorted by its latest one. Both may be held to a
dataset. A page begins after the last row of the one before, whatever was written meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    Text,
    and_,
    case,
    cast,
    collate,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
)

from noria.errors import BadFilter
from noria.tracking.searches.filters import (
    KEYED,
    LISTED,
    MAX_ORDERS,
    NUMBERS,
    Condition,
    Entity,
    Field,
    Grammar,
    Operator,
    parse_filter,
)
from noria.tracking.searches.pages import Place, check_limit, place_values, read_page, write_page
from noria.tracking.searches.statements import Phase
from noria.tracking.searches.terms import (
    Kind,
    SortedBy,
    Statement,
    after,
    compared,
    instant,
    sorted_statement,
    to_glob,
)
from noria.tracking.tables import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)

__all__ = ["GRAMMAR", "MAX_DATASETS", "ModelOrder", "ModelPage", "OnDataset", "search_models"]

MAX_DATASETS = 100
_ZERO, _ONE, _TWO = (literal_column(each, Integer) for each in "012")  # ranks: a value, NaN, none
_STATUS_PREFIX = "LOGGED_MODEL_"  # of the names that a status has on the wire
_INSTANTS = {
    "creation_timestamp": logged_models.c.created_at,
    "last_updated_timestamp": logged_models.c.updated_at,
}
_TEXTS: dict[str, ColumnElement[Any]] = {
    "name": logged_models.c.name,
    "model_id": logged_models.c.id,
    "model_type": logged_models.c.type,
    "status": cast(func.upper(logged_models.c.status), Text),
    "source_run_id": logged_models.c.source_run,
}
_OPTIONAL = {"model_type", "source_run_id"}
_RENAMED = {
    "creation_time": "creation_timestamp",
    "creation_timestamp_ms": "creation_timestamp",
    "last_updated_timestamp_ms": "last_updated_timestamp",
}

GRAMMAR = Grammar(
    what="logged models",
    keyed={
        Entity.METRIC: Field(NUMBERS),
        Entity.PARAM: Field(KEYED | LISTED),
        Entity.TAG: Field(KEYED | LISTED),
    },
    fixed={
        Entity.ATTRIBUTE: {
            **dict.fromkeys(_TEXTS, Field(LISTED)),
            **dict.fromkeys(_INSTANTS, Field(NUMBERS)),
        }
    },
    renamed=_RENAMED,
    sorted_by=frozenset({Entity.METRIC, Entity.ATTRIBUTE}),
)


class OnDataset(NamedTuple):
    """A dataset that metrics are of: any of its digests, where none is given."""

    name: str
    digest: str | None = None


class ModelOrder(NamedTuple):
    """A key to sort by: an attribute, or `metrics.` and a name as it is; a metric maybe on a dataset only."""

    key: str
    is_descending: bool = False
    dataset: OnDataset | None = None


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models that were found, in order, and what gives the next page: None after the last."""

    models: tuple[str, ...]
    next_page: str | None


def search_models(
    connection: Connection,
    experiments: Sequence[int],
    *,
    filter: str = "",
    datasets: Sequence[OnDataset] = (),
    order_by: Sequence[ModelOrder] = (),
    limit: int = 100,
    page: str | None = None,
) -> ModelPage:
    """Find models of experiments that are not deleted; the latest made first, unless sorted.

    Parameters
    ----------
    experiments
        Their ids; one that is not there has no models.
    filter
        See `noria.tracking.searches.filters`; what may be asked for is `GRAMMAR`.
    datasets
        Metrics count only where they are of one of these. With no condition on a metric: models that have
        any.
    order_by
        Keys to sort by. Models in which one is missing come last, either way; where a metric is NaN, before
        them. Then come the latest made, then ids.
    limit
        Most models of a page.
    page
        `next_page` of the page before of the same search.

    Raises
    ------
    BadFilter
        If the filter, an order, the datasets, the limit or the page is none.
    """
    conditions = parse_filter(filter, GRAMMAR)
    check_limit(limit)
    if len(datasets) > MAX_DATASETS:
        raise BadFilter("datasets", str(len(datasets)), f"at most {MAX_DATASETS}", "ask for less at once")
    folders = sorted(set(experiments))
    subject = ("logged models", folders, filter, [*map(tuple, datasets)], [*map(tuple, order_by)])
    place = read_page(page, subject)
    search = _Search(conditions, tuple(datasets), connection.dialect.name)
    sorted_by = search.sorted_by(order_by)
    wheres = [logged_models.c.experiment.in_(folders), logged_models.c.deleted_at.is_(None), *search.wheres()]
    statement = sorted_statement(logged_models.c.id, logged_models, wheres, sorted_by)
    if place is not None:
        statement = _continued(sorted_by, wheres)
    parameters = search.parameters() | {"limit": limit + 1}
    if place is not None:
        parameters |= place_values(place, statement)
    rows = connection.execute(statement.select, parameters).all()
    last = None if len(rows) <= limit else Place(Phase.VALUED, list(rows[limit - 1][:-1]))
    found = tuple(str(row[-1]) for row in rows[:limit])
    return ModelPage(found, None if last is None else write_page(last, subject))


@dataclass(frozen=True, slots=True)
class _Search:
    """One search, on its way to a statement."""

    conditions: tuple[Condition, ...]
    datasets: tuple[OnDataset, ...]
    dialect: str

    def wheres(self) -> list[ColumnElement[bool]]:
        found = [self._where(number, each) for number, each in enumerate(self.conditions)]
        if self.datasets and not any(each.entity is Entity.METRIC for each in self.conditions):
            found.append(exists().where(_metric.c.model == logged_models.c.id, _is_on(self.datasets)))
        return found

    def parameters(self) -> dict[str, Any]:
        return {
            f"value{number}": self._value(each)
            for number, each in enumerate(self.conditions)
            if each.value is not None
        }

    def sorted_by(self, order_by: Sequence[ModelOrder]) -> list[SortedBy]:
        if len(order_by) > MAX_ORDERS:
            raise BadFilter("order_by", f"{len(order_by)} keys", f"at most {MAX_ORDERS}", "sort by fewer")
        found: list[SortedBy] = []
        keys: set[str] = set()
        for each in order_by:
            entity, dot, name = each.key.partition(".")
            if dot and entity in {"metrics", "metric"}:
                found.extend(_by_metric(name, each))
                continue
            key = name if dot and entity == "attributes" else each.key
            key = _RENAMED.get(key, key)
            if each.dataset is not None:
                raise BadFilter("order_by", f"{each.key} on a dataset", "a metric, or no dataset")
            found.extend(self._by_attribute(key, each.is_descending))
            keys.add(key)
        if "creation_timestamp" not in keys:
            found.append(SortedBy(instant(logged_models.c.created_at), True, Kind.COUNT))
        if "model_id" not in keys:
            found.append(SortedBy(logged_models.c.id, False, Kind.TEXT))
        return found

    def _by_attribute(self, key: str, is_descending: bool) -> list[SortedBy]:
        if key in _INSTANTS:
            return [SortedBy(instant(_INSTANTS[key]), is_descending, Kind.COUNT)]
        if key not in _TEXTS:
            names = ", ".join([*_TEXTS, *_INSTANTS])
            raise BadFilter("order_by", repr(key[:40]), f"metrics.NAME or one of {names}")
        column = _TEXTS[key]
        if key not in _OPTIONAL:
            return [SortedBy(self._by_bytes(column), is_descending, Kind.TEXT)]
        rank = case((column.is_(None), _TWO), else_=_ZERO)
        value = self._by_bytes(func.coalesce(column, ""))
        return [SortedBy(rank, False, Kind.COUNT), SortedBy(value, is_descending, Kind.TEXT)]

    def _where(self, number: int, condition: Condition) -> ColumnElement[bool]:
        name, operator = f"value{number}", condition.operator
        match condition.entity:
            case Entity.METRIC:
                held = [_metric.c.model == logged_models.c.id, _metric.c.name == condition.key]
                held += [_metric.c.is_nan == false(), compared(_metric.c.value, operator, name, self.dialect)]
                return exists().where(*held, *([_is_on(self.datasets)] if self.datasets else []))
            case Entity.PARAM | Entity.TAG:
                table = logged_model_params if condition.entity is Entity.PARAM else logged_model_tags
                found = exists().where(table.c.model == logged_models.c.id, table.c.name == condition.key)
                if operator is Operator.IS_NULL:
                    return ~found
                if operator is Operator.IS_NOT_NULL:
                    return found
                return found.where(compared(table.c.value, operator, name, self.dialect))
            case _ if condition.key in _INSTANTS:
                milliseconds = cast(instant(_INSTANTS[condition.key]) // 1_000, Float(53))
                return compared(milliseconds, operator, name, self.dialect)
            case _:
                return compared(_TEXTS[condition.key], operator, name, self.dialect)

    def _value(self, condition: Condition) -> Any:
        value, is_status = condition.value, condition.key == "status" and condition.entity is Entity.ATTRIBUTE
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, tuple):
            return [each.removeprefix(_STATUS_PREFIX) if is_status else each for each in value]
        assert value is not None
        if is_status:
            value = value.removeprefix(_STATUS_PREFIX)
        is_glob = condition.operator is Operator.LIKE and self.dialect == "sqlite"
        return to_glob(value) if is_glob else value

    def _by_bytes(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Give a text so that it is sorted by its bytes, as SQLite does."""
        return collate(column, "C") if self.dialect == "postgresql" else column


_metric = logged_model_metrics.alias("metric")
_LATEST_FIRST = (
    _metric.c.recorded_at.desc(),
    _metric.c.step.desc(),
    _metric.c.run,
    _metric.c.dataset_name,
    _metric.c.dataset_digest,
    _metric.c.is_nan,
    _metric.c.value.desc(),
)


def _continued(sorted_by: Sequence[SortedBy], wheres: Sequence[ColumnElement[bool]]) -> Statement:
    """Select what comes after a place; each column is written once, for it may be a question of its own."""
    columns = [each.column.label(f"s{number}") for number, each in enumerate(sorted_by)]
    found = select(*columns, logged_models.c.id.label("id")).where(*wheres).subquery()
    outer = [each._replace(column=found.c[f"s{number}"]) for number, each in enumerate(sorted_by)]
    return sorted_statement(found.c.id, found, [after(outer)], outer)


def _is_on(datasets: Sequence[OnDataset]) -> ColumnElement[bool]:
    """Give the points of one of these datasets."""
    return or_(
        *(
            _metric.c.dataset_name == each.name
            if each.digest is None
            else and_(_metric.c.dataset_name == each.name, _metric.c.dataset_digest == each.digest)
            for each in datasets
        )
    )


def _by_metric(name: str, order: ModelOrder) -> list[SortedBy]:
    """Sort by a metric's latest point."""

    def of_latest(column: ColumnElement[Any]) -> ColumnElement[Any]:
        query = select(column).where(_metric.c.model == logged_models.c.id, _metric.c.name == name)
        if order.dataset is not None:
            query = query.where(_is_on([order.dataset]))
        return query.order_by(*_LATEST_FIRST).limit(1).correlate(logged_models).scalar_subquery()

    rank = func.coalesce(of_latest(case((_metric.c.is_nan == false(), _ZERO), else_=_ONE)), _TWO)
    value = func.coalesce(of_latest(_metric.c.value), 0.0)
    return [SortedBy(rank, False, Kind.COUNT), SortedBy(value, order.is_descending, Kind.NUMBER)]
