"""Tracking: experiments, metric points, tags of runs."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from noria.database.metadata import Instant, Name

revision = "0002"
down_revision = "0001"

_COUNTED = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    experiments = op.create_table(
        "experiments",
        sa.Column("id", _COUNTED, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
        sa.UniqueConstraint("name", name="uq_experiments_name"),
    )
    op.bulk_insert(experiments, [{"id": 0, "name": "Default", "at": datetime(1970, 1, 1, tzinfo=UTC)}])
    op.create_table(
        "metric_points",
        sa.Column("id", _COUNTED, nullable=False),
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_metric_points_run"), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(53)),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metric_points"),
    )
    op.create_index("ix_metric_points_run_name_step", "metric_points", ["run", "name", "step"])
    op.create_table(
        "run_tags",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_run_tags_run"), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "name", name="pk_run_tags"),
    )
