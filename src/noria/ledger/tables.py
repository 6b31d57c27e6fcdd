"""The ledger's tables.

`events`, `runs`, `versions`, `edges` and `pointers` are covered by the chain: every column of every row.
`heartbeats` and `leases` are about processes at work; they come and go and are not covered.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from noria.database.metadata import Instant, Name, metadata

__all__ = ["COVERED", "edges", "events", "heartbeats", "leases", "pointers", "runs", "versions"]

events = Table(
    "events",
    metadata,
    Column("scope", Name, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3, … without a gap
    Column("verb", Name, nullable=False),
    Column("subject", Name, nullable=False),
    Column("actor", Text, nullable=False),
    Column("cause", Name),
    Column("key", Name),
    Column("payload", Text, nullable=False),  # canonical JSON
    Column("rows", Text, nullable=False),  # canonical JSON
    Column("at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("previous", Text, nullable=False),
    Column("digest", Text, nullable=False),
    UniqueConstraint("scope", "key"),
    Index(None, "scope", "verb", "seq"),
    Index(None, "scope", "subject", "seq"),
    Index(None, "scope", "at"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Name, primary_key=True),
    Column("scope", Name, nullable=False),
    Column("kind", Name, nullable=False),
    Column("name", Name, nullable=False),
    Column("state", Name, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("key", Name),
    Column("cause", Name),
    Column("parent", Name, ForeignKey("runs.id")),
    Column("experiment", Name),
    Column("params", Text, nullable=False),  # canonical JSON
    Column("metrics", Text, nullable=False),  # canonical JSON
    Column("seed", BigInteger),
    Column("code", Text, nullable=False),
    Column("code_diff", Text),
    Column("runtime", Text, nullable=False),
    Column("error", Text),
    Column("cpu_s", Float(53)),
    Column("wall_s", Float(53)),
    Column("at", Instant, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    UniqueConstraint("scope", "key", "attempt"),
    Index(None, "scope", "kind", "name", "started_at"),
    Index(None, "scope", "started_at"),
    Index(None, "scope", "experiment", "started_at"),
    Index(None, "scope", "state", "started_at"),
    Index(None, "parent"),
)

heartbeats = Table(
    "heartbeats",  # one row per run at work
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("event", Name, nullable=False),  # the one that started the run
    Column("holder", Text, nullable=False),  # JSON of processes.Process
    Column("beat_at", Instant, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Name, primary_key=True),
    Column("scope", Name, nullable=False),
    Column("kind", Name, nullable=False),
    Column("name", Name, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("sha256", Name, nullable=False),
    Column("uri", Text, nullable=False),
    Column("run", Name, ForeignKey("runs.id")),
    Column("facts", Text, nullable=False),  # canonical JSON
    Column("at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    UniqueConstraint("scope", "kind", "name", "number"),
    UniqueConstraint("scope", "kind", "name", "sha256"),
    Index(None, "run"),
)

edges = Table(
    "edges",
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("version", Name, ForeignKey("versions.id"), primary_key=True),
    Column("role", Name, primary_key=True),
    Column("scope", Name, nullable=False),
    Index(None, "version"),
    Index(None, "scope"),
)

pointers = Table(
    "pointers",
    metadata,
    Column("scope", Name, primary_key=True),
    Column("environment", Name, primary_key=True),
    Column("name", Name, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Name, ForeignKey("versions.id"), nullable=False),
    Column("stable", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("event", Name, nullable=False),
    Column("at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Index(None, "scope", "event"),
)

leases = Table(
    "leases",
    metadata,
    Column("scope", Name, primary_key=True),
    Column("name", Name, primary_key=True),
    Column("holder", Text, nullable=False),  # as people read it; unique per acquisition
    Column("process", Text, nullable=False),  # JSON of processes.Process
    Column("expires_at", Instant, nullable=False),
)

COVERED = (runs, versions, edges, pointers)
