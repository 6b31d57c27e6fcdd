"""The tables of what people call models and their versions.

The versions themselves are the ledger's, and stay as they are. What stands here are labels: names that are
shown, descriptions, tags, stages, aliases, and marks of what was deleted. The chain does not cover them;
their changes are events, but for tags.
"""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text

from noria.database.metadata import Instant, Name, metadata

__all__ = [
    "HEAD_CHARS",
    "model_aliases",
    "model_tags",
    "model_version_tags",
    "model_versions",
    "registered_models",
]

HEAD_CHARS = 64  # of a text that is found by an index; the rest is compared

# SQLite counts by itself only in a column that is declared INTEGER.
_Counted = BigInteger().with_variant(Integer, "sqlite")
_NOT_DELETED = text("deleted_at IS NULL")

registered_models = Table(
    "registered_models",
    metadata,
    Column("id", _Counted, primary_key=True),
    Column("name", Name, nullable=False),  # that is shown
    Column("ledger_name", Name, nullable=False),  # that its versions have in the ledger
    Column("description", Text),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    UniqueConstraint("ledger_name"),
    Index(None, "name", unique=True, sqlite_where=_NOT_DELETED, postgresql_where=_NOT_DELETED),
    Index(None, "created_at"),
    Index(None, "updated_at"),
)

model_tags = Table(
    "model_tags",
    metadata,
    Column("model", _Counted, ForeignKey("registered_models.id"), primary_key=True, autoincrement=False),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
    Column("head", Name, nullable=False),
    Index(None, "name", "head", "model"),
    sqlite_with_rowid=False,
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model", _Counted, ForeignKey("registered_models.id"), primary_key=True, autoincrement=False),
    Column("alias", Name, primary_key=True),
    Column("number", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("version", Name, ForeignKey("versions.id"), primary_key=True),
    Column("model", _Counted, ForeignKey("registered_models.id"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("source", Text, nullable=False),  # as it was registered
    Column("location", Text, nullable=False),  # where its files are loaded from
    Column("run", Name),  # as it was told: it may be one of elsewhere
    Column("logged_model", Name),
    Column("run_link", Text),
    Column("description", Text),
    Column("stage", Name, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    Column("status", Name, nullable=False, server_default="READY"),  # of its registration
    Column("status_message", Text),
    Column("owner", Name),  # who registered it, where that is known
    UniqueConstraint("model", "number"),
    Index(None, "model", "deleted_at", "stage", "number"),
    Index(None, "model", "updated_at"),
    Index(None, "created_at"),
    Index(None, "updated_at"),
    Index(None, "run"),
    sqlite_with_rowid=False,
)

model_version_tags = Table(
    "model_version_tags",
    metadata,
    Column("version", Name, ForeignKey("model_versions.version"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
    Column("head", Name, nullable=False),
    Index(None, "name", "head", "version"),
    sqlite_with_rowid=False,
)
