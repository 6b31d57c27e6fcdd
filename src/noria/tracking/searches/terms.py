"""What statements of searches are made of: comparisons, columns to sort by, and how to go on after a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    collate,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from noria.tracking.searches.filters import Operator

__all__ = [
    "Kind",
    "SortedBy",
    "Statement",
    "View",
    "after",
    "compared",
    "instant",
    "of_view",
    "sorted_statement",
    "to_glob",
]

View = Literal["active", "deleted", "all"]


class Kind(StrEnum):
    """What a column holds that is sorted by."""

    NUMBER = "number"
    COUNT = "count"
    TEXT = "text"


_TYPES: dict[Kind, TypeEngine[Any]] = {Kind.NUMBER: Float(53), Kind.COUNT: BigInteger(), Kind.TEXT: Text()}


class SortedBy(NamedTuple):
    """A column that is sorted by; it is never NULL."""

    column: ColumnElement[Any]
    is_descending: bool
    kind: Kind


@dataclass(frozen=True, slots=True)
class Statement:
    """What to execute: it gives the columns that it sorts by, then the id."""

    select: Select[Any]
    kinds: tuple[Kind, ...]
    is_descending: tuple[bool, ...]


def compared(column: ColumnElement[Any], operator: Operator, name: str, dialect: str) -> ColumnElement[bool]:
    """Compare a column with the value of a parameter.

    LIKE minds the case everywhere: SQLite's own does not, so it gets a GLOB (see `to_glob`). ILIKE does not
    mind the case of ASCII letters, and no other, which is all that both databases can.
    """
    is_sqlite = dialect == "sqlite"
    value = bindparam(name, type_=column.type, expanding=operator.is_list)
    match operator:
        case Operator.IN:
            return column.in_(value)
        case Operator.NOT_IN:
            return column.not_in(value)
        case Operator.LIKE:
            glob = column.op("GLOB", is_comparison=True)
            return glob(value) if is_sqlite else column.like(value, escape="")
        case Operator.ILIKE:
            like = column.op("LIKE", is_comparison=True)
            return like(value) if is_sqlite else collate(column, "C").ilike(value, escape="")
    found: ColumnElement[bool] = _COMPARED[operator](column, value)
    return found


_COMPARED: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQ: eq,
    Operator.NE: ne,
    Operator.GT: gt,
    Operator.GE: ge,
    Operator.LT: lt,
    Operator.LE: le,
}


def to_glob(pattern: str) -> str:
    """Turn a pattern of LIKE into one of SQLite's GLOB, which minds the case.

    Examples
    --------
    >>> to_glob("50%_*[")
    '50*?[*][[]'
    """
    return "".join(_GLOBS.get(each, each) for each in pattern)


_GLOBS = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}


def after(sorted_by: Sequence[SortedBy]) -> ColumnElement[bool]:
    """Give the rows that come after those whose columns have the values of `after0`, `after1` and so on."""
    ways: list[ColumnElement[bool]] = []  # side by side: SQLite reads no more than 100 nested parts
    alike: list[ColumnElement[bool]] = []
    for number, (column, is_descending, kind) in enumerate(sorted_by):
        value = bindparam(f"after{number}", type_=_TYPES[kind])
        ways.append(and_(*alike, column < value if is_descending else column > value))
        alike.append(column == value)
    column, is_descending, kind = sorted_by[0]
    value = bindparam("after0", type_=_TYPES[kind])
    not_before = column <= value if is_descending else column >= value  # walks an index
    return and_(not_before, or_(*ways))


def of_view(table: Table, view: View) -> list[ColumnElement[bool]]:
    """Give the condition of a view."""
    match view:
        case "active":
            return [table.c.deleted_at.is_(None)]
        case "deleted":
            return [table.c.deleted_at.is_not(None)]
        case "all":
            return []


def instant(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Give an instant's microseconds as they are."""
    return type_coerce(column, BigInteger)


def sorted_statement(
    id: ColumnElement[Any],
    source: FromClause,
    wheres: Sequence[ColumnElement[bool]],
    sorted_by: Sequence[SortedBy],
) -> Statement:
    """Select what is sorted by, and the id, in order; `limit` at most."""
    columns = [each.column.label(f"k{number}") for number, each in enumerate(sorted_by)]
    directions = tuple(each.is_descending for each in sorted_by)
    order = (column.desc() if down else column for column, down in zip(columns, directions, strict=True))
    query = select(*columns, id).select_from(source).where(*wheres).order_by(*order)
    query = query.limit(bindparam("limit", type_=Integer))
    return Statement(query, tuple(each.kind for each in sorted_by), directions)
