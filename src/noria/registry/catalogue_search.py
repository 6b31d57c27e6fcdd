"""Searches of models and of their versions, page by page; the language is `noria.tracking.searches.filters`.

What clients of MLflow call prompts are models with a tag. They are found only where a filter asks for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Table, collate, exists, func, select

from noria.errors import BadFilter
from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel
from noria.registry.labels import read_models, read_versions
from noria.registry.tables import (
    HEAD_CHARS,
    model_tags,
    model_version_tags,
    model_versions,
    registered_models,
)
from noria.tracking.searches.filters import (
    LISTED,
    NUMBERS,
    TEXTS,
    Condition,
    Entity,
    Field,
    Grammar,
    Operator,
    Order,
    parse_filter,
    parse_order,
)
from noria.tracking.searches.pages import Place, place_values, read_page, write_page
from noria.tracking.searches.statements import Phase
from noria.tracking.searches.terms import (
    Kind,
    SortedBy,
    after,
    compared,
    instant,
    of_view,
    sorted_statement,
    to_glob,
)

__all__ = [
    "MAX_MODELS",
    "MAX_VERSIONS",
    "ModelPage",
    "VersionPage",
    "search_models",
    "search_versions",
]

MAX_MODELS, MAX_VERSIONS = 1_000, 200_000
_PROMPT = "mlflow.prompt.is_prompt"
_INT64 = 1 << 63
_SORTED_ONLY = Field(frozenset())
_RENAMED = {"timestamp": "last_updated_timestamp"}

_MODELS = Grammar(
    what="models",
    keyed={Entity.TAG: Field(TEXTS)},
    fixed={
        Entity.ATTRIBUTE: {
            "name": Field(LISTED),
            "creation_timestamp": _SORTED_ONLY,
            "last_updated_timestamp": _SORTED_ONLY,
        }
    },
    renamed=_RENAMED,
)
_VERSIONS = Grammar(
    what="model versions",
    keyed={Entity.TAG: Field(TEXTS)},
    fixed={
        Entity.ATTRIBUTE: {
            "name": Field(LISTED),
            "version_number": Field(NUMBERS),
            "run_id": Field(LISTED),
            "source_path": Field(TEXTS),
            "creation_timestamp": _SORTED_ONLY,
            "last_updated_timestamp": _SORTED_ONLY,
        }
    },
    renamed=_RENAMED,
)
_FILTERED = {
    "name": registered_models.c.name,
    "version_number": model_versions.c.number,
    "run_id": model_versions.c.run,
    "source_path": model_versions.c.source,
}
_COUNTS = {"version_number", "creation_timestamp", "last_updated_timestamp"}


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models that were found, in order, and what gives the next page: None after the last."""

    models: Sequence[RegisteredModel]
    next_page: str | None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Versions that were found, in order, and what gives the next page: None after the last."""

    versions: Sequence[CataloguedVersion]
    next_page: str | None


def search_models(
    connection: Connection, *, filter: str, order_by: Sequence[str], limit: int, page: str | None
) -> ModelPage:
    """Find models that are not deleted; by name, unless sorted.

    Parameters
    ----------
    filter
        Of `name` and `tags.KEY`. A key that is missing matches nothing.
    order_by
        `name`, `creation_timestamp`, `last_updated_timestamp`.
    limit
        Most of a page, up to `MAX_MODELS`.
    page
        `next_page` of the page before of the same search.

    Raises
    ------
    BadFilter
        If the filter, an order, the limit or the page is none.
    """
    asked = _Asked(parse_filter(filter, _MODELS), parse_order(order_by, _MODELS), limit, page)
    asked.check(MAX_MODELS)
    ids, next_page = _found(connection, asked, _OF_MODELS, ("models", filter, list(order_by)))
    return ModelPage(read_models(connection, [int(each) for each in ids]), next_page)


def search_versions(
    connection: Connection, *, filter: str, order_by: Sequence[str], limit: int, page: str | None
) -> VersionPage:
    """Find versions that are not deleted; the latest changed first, unless sorted. See `search_models`.

    Parameters
    ----------
    filter
        Of `name`, `version_number`, `run_id`, `source_path` and `tags.KEY`.
    order_by
        The same but tags, and `creation_timestamp`, `last_updated_timestamp`.
    limit
        Most of a page, up to `MAX_VERSIONS`.
    """
    asked = _Asked(parse_filter(filter, _VERSIONS), parse_order(order_by, _VERSIONS), limit, page)
    asked.check(MAX_VERSIONS)
    ids, next_page = _found(connection, asked, _OF_VERSIONS, ("model versions", filter, list(order_by)))
    return VersionPage(read_versions(connection, [str(each) for each in ids]), next_page)


@dataclass(frozen=True, slots=True)
class _Asked:
    conditions: tuple[Condition, ...]
    orders: tuple[Order, ...]
    limit: int
    page: str | None

    def check(self, most: int) -> None:
        if not 1 <= self.limit <= most:
            raise BadFilter("limit", str(self.limit), f"1 to {most:,}")


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is searched."""

    table: Table
    source: FromClause
    id: ColumnElement[Any]
    tags: Table
    owner: ColumnElement[Any]  # of a tag
    order: Order  # unless another is asked for
    last: tuple[Order, ...]  # that tell one from all others


_BY_NAME = Order(Entity.ATTRIBUTE, "name")
_OF_MODELS = _Subject(
    table=registered_models,
    source=registered_models,
    id=registered_models.c.id,
    tags=model_tags,
    owner=model_tags.c.model,
    order=_BY_NAME,
    last=(_BY_NAME,),
)
_OF_VERSIONS = _Subject(
    table=model_versions,
    source=model_versions.join(registered_models, registered_models.c.id == model_versions.c.model),
    id=model_versions.c.version,
    tags=model_version_tags,
    owner=model_version_tags.c.version,
    order=Order(Entity.ATTRIBUTE, "last_updated_timestamp", is_descending=True),
    last=(_BY_NAME, Order(Entity.ATTRIBUTE, "version_number", is_descending=True)),
)


def _found(
    connection: Connection, asked: _Asked, subject: _Subject, named: tuple[Any, ...]
) -> tuple[list[Any], str | None]:
    """Give the ids of a page, and the token of the next one."""
    dialect = connection.dialect.name
    place = read_page(asked.page, named)
    wheres = of_view(subject.table, "active")
    parameters: dict[str, Any] = {"limit": asked.limit + 1}
    for number, each in enumerate(asked.conditions):
        wheres.append(_met(number, each, subject, dialect))
        parameters |= _values(number, each, dialect)
    if not any(each.key == _PROMPT for each in asked.conditions if each.entity is Entity.TAG):
        wheres.append(~_is_prompt(subject))
    orders = list(asked.orders or (subject.order,))
    orders += [each for each in subject.last if each.key not in {order.key for order in orders}]
    sorted_by = [_sorted_by(each, subject, dialect) for each in orders]
    if place is not None:
        wheres.append(after(sorted_by))
    statement = sorted_statement(subject.id, subject.source, wheres, sorted_by)
    if place is not None:
        parameters |= place_values(place, statement)
    rows = connection.execute(statement.select, parameters).all()
    last = None if len(rows) <= asked.limit else Place(Phase.VALUED, list(rows[asked.limit - 1][:-1]))
    token = None if last is None else write_page(last, named)
    return [row[-1] for row in rows[: asked.limit]], token


def _sorted_by(order: Order, subject: _Subject, dialect: str) -> SortedBy:
    columns: Mapping[str, ColumnElement[Any]] = {
        **_FILTERED,
        "run_id": func.coalesce(model_versions.c.run, ""),
        "creation_timestamp": instant(subject.table.c.created_at),
        "last_updated_timestamp": instant(subject.table.c.updated_at),
    }
    kind = Kind.COUNT if order.key in _COUNTS else Kind.TEXT
    column = columns[order.key]
    by_bytes = order.key == "source_path" and dialect == "postgresql"
    return SortedBy(collate(column, "C") if by_bytes else column, order.is_descending, kind)


def _met(number: int, condition: Condition, subject: _Subject, dialect: str) -> ColumnElement[bool]:
    """Give what a condition asks for."""
    name = f"value{number}"
    if subject is _OF_VERSIONS and (condition.key, condition.operator) == ("name", Operator.EQ):
        named = compared(registered_models.c.name, Operator.EQ, name, dialect)
        found_model = select(registered_models.c.id).where(named, *of_view(registered_models, "active"))
        return model_versions.c.model == found_model.scalar_subquery()  # its versions are walked in order
    if condition.entity is not Entity.TAG:
        return compared(_FILTERED[condition.key], condition.operator, name, dialect)
    if condition.key == _PROMPT and (condition.operator, condition.value) in _NO_PROMPTS:
        return ~_is_prompt(subject)
    tags = subject.tags
    found = [tags.c.name == condition.key, compared(tags.c.value, condition.operator, name, dialect)]
    if condition.operator is Operator.EQ:
        head = tags.c.head == str(condition.value)[:HEAD_CHARS]
        return subject.id.in_(select(subject.owner).where(head, *found))
    return exists().where(subject.owner == subject.id, *found)


_NO_PROMPTS = {(Operator.NE, "true"), (Operator.EQ, "false")}


def _is_prompt(subject: _Subject) -> ColumnElement[bool]:
    tags = subject.tags
    return exists().where(subject.owner == subject.id, tags.c.name == _PROMPT, tags.c.value == "true")


def _values(number: int, condition: Condition, dialect: str) -> dict[str, Any]:
    """Give a condition's parameters."""
    name, value = f"value{number}", condition.value
    if condition.key == _PROMPT and (condition.operator, value) in _NO_PROMPTS:
        return {}
    if isinstance(value, tuple):
        return {name: list(value)}
    if isinstance(value, str):
        return {
            name: to_glob(value) if condition.operator is Operator.LIKE and dialect == "sqlite" else value
        }
    if not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise BadFilter("filter", f"{value!r}", "an integer", f"compare {condition.key} with one of 64 bits")
    return {name: value}
