"""The tables of tracking. The chain does not cover them: a run's closing event digests its last metrics."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from noria.database.metadata import Instant, Name, metadata

__all__ = ["experiments", "metric_points", "run_tags"]

# SQLite counts by itself only in a column that is declared INTEGER.
_Counted = BigInteger().with_variant(Integer, "sqlite")

experiments = Table(
    "experiments",
    metadata,
    Column("id", _Counted, primary_key=True),
    Column("name", Name, nullable=False),
    Column("at", Instant, nullable=False),
    UniqueConstraint("name"),
)

metric_points = Table(
    "metric_points",
    metadata,
    Column("id", _Counted, primary_key=True),  # the order of arrival
    Column("run", Name, ForeignKey("runs.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Float(53)),  # NULL is NaN, which SQLite has not
    Column("recorded_at", Instant, nullable=False),
    Index(None, "run", "name", "step"),
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
)
