"""Lists of texts as one parameter: the statement is the same however many there are, and is prepared once."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Text, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["is_listed"]


def is_listed(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Tell whether a column's text is in the list that is the parameter `name`.

    What `column.in_(bindparam(name, expanding=True))` gives; that one writes a parameter for each text into
    the statement anew each time, which takes longer than to look a hundred rows up.
    """
    return _Listed(column, bindparam(name, type_=_Texts()))


class _Texts(TypeDecorator[Iterable[str]]):
    """A list of texts: an array, or JSON where there is none."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> Any:
        texts = [each for each in value or () if "\0" not in each]  # which no text of a database holds
        return texts if dialect.name == "postgresql" else msgspec.json.encode(texts).decode()


class _Listed(FunctionElement[bool]):
    """A column and a list. It is of no type: for SQLite a boolean becomes `… = 1`, which walks no index."""

    name = "is_listed"
    inherit_cache = True


@compiles(_Listed, "postgresql")
def _as_array(element: _Listed, compiler: SQLCompiler, **how: Any) -> str:
    column, texts = element.clauses
    return f"{compiler.process(column, **how)} = ANY({compiler.process(texts, **how)})"


@compiles(_Listed, "sqlite")
def _as_json(element: _Listed, compiler: SQLCompiler, **how: Any) -> str:
    column, texts = element.clauses
    listed = f"SELECT value FROM json_each({compiler.process(texts, **how)})"
    return f"{compiler.process(column, **how)} IN ({listed})"
