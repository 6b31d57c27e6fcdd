"""From elsewhere: who registered a version and how that went; logs sent to a server; files by digest."""

import sqlalchemy as sa
from alembic import op

from noria.database.metadata import Instant, Name

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    _add_registration()
    _make_sent_logs()
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])


def _add_registration() -> None:
    """Let a version tell by whom it was registered, and what became of it."""
    op.add_column("model_versions", sa.Column("status", Name, nullable=False, server_default="READY"))
    op.add_column("model_versions", sa.Column("status_message", sa.Text()))
    op.add_column("model_versions", sa.Column("owner", Name))


def _make_sent_logs() -> None:
    op.create_table(
        "sent_logs",
        sa.Column("log", Name, nullable=False),
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_sent_logs_run"), nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("heard_at", Instant(), nullable=False),
        sa.Column("begun_at", Instant()),
        sa.Column("ended_at", Instant()),
        sa.Column("holder", sa.Text()),
        sa.Column("cpu_s", sa.Float(53)),
        sa.Column("wall_s", sa.Float(53)),
        sa.PrimaryKeyConstraint("log", name="pk_sent_logs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_sent_logs_run", "sent_logs", ["run"])
