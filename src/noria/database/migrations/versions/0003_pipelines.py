"""Pipelines: kept results of steps, small values, logs, live progress."""

import sqlalchemy as sa
from alembic import op

from noria.database.metadata import Instant, Name

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "step_cache",
        sa.Column("scope", Name, nullable=False),
        sa.Column("key", Name, nullable=False),
        sa.Column("run", Name, nullable=False),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_step_cache"),
    )
    op.create_table(
        "step_latest",
        sa.Column("scope", Name, nullable=False),
        sa.Column("pipeline", Name, nullable=False),
        sa.Column("task", Name, nullable=False),
        sa.Column("key", Name, nullable=False),
        sa.Column("ingredients", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "pipeline", "task", name="pk_step_latest"),
    )
    op.create_table(
        "step_code",
        sa.Column("digest", Name, nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_step_code"),
    )
    op.create_table(
        "step_values",
        sa.Column("sha256", Name, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_step_values"),
    )
    op.create_table(
        "run_logs",
        sa.Column("run", Name, nullable=False),
        sa.Column("sha256", Name, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_run_logs"),
    )
    op.create_table(
        "run_progress",
        sa.Column("run", Name, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_run_progress"),
    )
