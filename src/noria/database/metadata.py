"""The collection of all tables, and the column types that they share.

A package that keeps tables declares them on `metadata` and adds one migration file, with the next number, to
`noria/database/migrations/versions`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from noria.clock import from_micros, to_micros

__all__ = ["Instant", "Name", "metadata"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Name = Text().with_variant(Text(collation="C"), "postgresql")  # sorted by bytes, as SQLite does


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant, kept as microseconds since 1970: the same number in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn an aware instant into microseconds."""
        return None if value is None else to_micros(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Turn microseconds into an aware UTC instant."""
        return None if value is None else from_micros(value)
