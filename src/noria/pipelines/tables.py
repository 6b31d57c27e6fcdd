"""The tables of pipelines. The chain does not cover them: what they lose is computed again.

A step's run, its inputs and its output versions are in the ledger; here is what finds them again quickly, the
bytes of small values, and what a run is at right now.
"""

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from noria.database.metadata import Instant, Name, metadata

__all__ = ["run_logs", "run_progress", "step_cache", "step_code", "step_latest", "step_values"]

step_cache = Table(
    "step_cache",
    metadata,
    Column("scope", Name, primary_key=True),
    Column("key", Name, primary_key=True),
    Column("run", Name, nullable=False),
    Column("output", Text, nullable=False),  # JSON of a tree
    Column("at", Instant, nullable=False),
)

step_latest = Table(
    "step_latest",  # what each task was made from the last time, to tell why it is stale
    metadata,
    Column("scope", Name, primary_key=True),
    Column("pipeline", Name, primary_key=True),
    Column("task", Name, primary_key=True),
    Column("key", Name, nullable=False),
    Column("ingredients", Text, nullable=False),  # JSON
)

step_code = Table(
    "step_code",  # which files a code digest stands for
    metadata,
    Column("digest", Name, primary_key=True),
    Column("files", Text, nullable=False),  # JSON: name -> [digest, sha256 of the source in the storage]
)

step_values = Table(
    "step_values",
    metadata,
    Column("sha256", Name, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run", Name, primary_key=True),
    Column("sha256", Name, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

run_progress = Table(
    "run_progress",  # one row per pipeline run
    metadata,
    Column("run", Name, primary_key=True),
    Column("body", Text, nullable=False),  # JSON
    Column("updated_at", Instant, nullable=False),
)
