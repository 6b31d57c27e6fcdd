"""The tables of tracking. The chain does not cover them: a run's closing event digests what it ended with.

`experiment` stands beside every run's values, so that a search within an experiment walks an index. `head` is
the beginning of a text, which an index can hold.
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

__all__ = [
    "HEAD_CHARS",
    "artifacts",
    "experiment_tags",
    "experiments",
    "latest_metrics",
    "logged_datasets",
    "logged_model_metrics",
    "logged_model_params",
    "logged_model_tags",
    "logged_models",
    "metric_points",
    "run_datasets",
    "run_models",
    "run_params",
    "run_tags",
    "sent_logs",
    "tracked_runs",
]

HEAD_CHARS = 64  # of a text that is found by an index; the rest is compared

# SQLite counts by itself only in a column that is declared INTEGER.
_Counted = BigInteger().with_variant(Integer, "sqlite")

experiments = Table(
    "experiments",
    metadata,
    Column("id", _Counted, primary_key=True),
    Column("name", Name, nullable=False),
    Column("artifact_uri", Text),  # NULL: the project's own artifacts
    Column("at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    UniqueConstraint("name"),
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("experiment", _Counted, ForeignKey("experiments.id"), primary_key=True, autoincrement=False),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
)

tracked_runs = Table(
    "tracked_runs",  # runs of the ledger that are in an experiment, as their owners tell of them
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("experiment", _Counted, ForeignKey("experiments.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("owner", Name, nullable=False),
    Column("is_scheduled", Boolean, nullable=False),  # its owner says that it has not begun yet
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),  # as its owner told; else it is the ledger's
    Column("deleted_at", Instant),
    Index(None, "experiment", "started_at", "run", "deleted_at"),
    Index(None, "experiment", "name", "run"),
    sqlite_with_rowid=False,
)

metric_points = Table(
    "metric_points",
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("recorded_at", Instant, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float(53), primary_key=True),  # 0 where it is NaN
    Column("is_nan", Boolean, primary_key=True),
    sqlite_with_rowid=False,
)

latest_metrics = Table(
    "latest_metrics",  # of each metric the point that is greatest by step, instant and value
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("experiment", BigInteger),  # NULL: of a run that is in none
    Column("recorded_at", Instant, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Float(53), nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Index(None, "experiment", "name", "is_nan", "value", "run"),
    sqlite_with_rowid=False,
)

run_params = Table(
    "run_params",
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("experiment", BigInteger),
    Column("value", Text, nullable=False),  # as people read it
    Column("json", Text),  # what it is, unless it is a text
    Column("head", Name, nullable=False),
    Index(None, "experiment", "name", "head", "run"),
    sqlite_with_rowid=False,
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("experiment", BigInteger),
    Column("value", Text, nullable=False),
    Column("head", Name, nullable=False),
    Index(None, "experiment", "name", "head", "run"),
    sqlite_with_rowid=False,
)

logged_datasets = Table(
    "logged_datasets",  # as a run's owner describes what it read; the same description is kept once
    metadata,
    Column("sha256", Name, primary_key=True),  # of all else
    Column("name", Name, nullable=False),
    Column("digest", Name, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
)

run_datasets = Table(
    "run_datasets",
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("dataset", Name, ForeignKey("logged_datasets.sha256"), primary_key=True),
    Column("experiment", BigInteger),
    Column("name", Name, nullable=False),
    Column("digest", Name, nullable=False),
    Column("context", Name),
    Column("tags", Text, nullable=False),  # canonical JSON
    Index(None, "experiment", "name", "run"),
)

artifacts = Table(
    "artifacts",  # files by their path below the project's artifacts; the bytes are in the storage
    metadata,
    Column("path", Name, primary_key=True),  # such as "0/<run>/artifacts/model/MLmodel"
    Column("sha256", Name, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("put_at", Instant, nullable=False),
    Index(None, "sha256"),
)

logged_models = Table(
    "logged_models",  # as their owners tell of them; their files are artifacts
    metadata,
    Column("id", Name, primary_key=True),  # "m-" and 32 hex digits
    Column("experiment", _Counted, ForeignKey("experiments.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("type", Name),
    Column("status", Name, nullable=False),
    Column("source_run", Name, ForeignKey("runs.id")),
    Column("version", Name, ForeignKey("versions.id")),  # of the ledger, once it is ready
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    Index(None, "experiment", "created_at", "id"),
    Index(None, "experiment", "name"),
    sqlite_with_rowid=False,
)

logged_model_params = Table(
    "logged_model_params",
    metadata,
    Column("model", Name, ForeignKey("logged_models.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

logged_model_tags = Table(
    "logged_model_tags",
    metadata,
    Column("model", Name, ForeignKey("logged_models.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

logged_model_metrics = Table(
    "logged_model_metrics",  # points that runs logged of a model, on a dataset where one is named
    metadata,
    Column("model", Name, ForeignKey("logged_models.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("recorded_at", Instant, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("dataset_name", Name, primary_key=True),  # empty: none is named
    Column("dataset_digest", Name, primary_key=True),
    Column("value", Float(53), primary_key=True),  # 0 where it is NaN
    Column("is_nan", Boolean, primary_key=True),
    sqlite_with_rowid=False,
)

run_models = Table(
    "run_models",  # which logged models a run read or made, as its owner tells
    metadata,
    Column("run", Name, ForeignKey("runs.id"), primary_key=True),
    Column("role", Name, primary_key=True),  # as that of an edge
    Column("model", Name, ForeignKey("logged_models.id"), primary_key=True),
    Column("step", BigInteger, nullable=False),
    Index(None, "model"),
    sqlite_with_rowid=False,
)

sent_logs = Table(
    "sent_logs",  # how far the logs have come that runs of other machines send
    metadata,
    Column("log", Name, primary_key=True),  # RUN.TOKEN
    Column("run", Name, ForeignKey("runs.id"), nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("heard_at", Instant, nullable=False),
    Column("begun_at", Instant),  # NULL: it is that of a child of the process that began the run
    Column("ended_at", Instant),
    Column("holder", Text),  # JSON of processes.Process
    Column("cpu_s", Float(53)),  # what the run had cost before it went on
    Column("wall_s", Float(53)),
    Index(None, "run"),
    sqlite_with_rowid=False,
)
