"""The ledger: events, runs, versions, edges, pointers, heartbeats, leases."""

import sqlalchemy as sa
from alembic import op

from noria.database.metadata import Instant, Name

revision = "0001"
down_revision = None


def upgrade() -> None:
    _make_events()
    _make_runs()
    _make_versions()
    _make_edges_and_pointers()
    _make_leases()


def _make_events() -> None:
    op.create_table(
        "events",
        sa.Column("scope", Name, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("verb", Name, nullable=False),
        sa.Column("subject", Name, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("cause", Name),
        sa.Column("key", Name),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("rows", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "seq", name="pk_events"),
        sa.UniqueConstraint("scope", "key", name="uq_events_scope_key"),
    )
    op.create_index("ix_events_scope_verb_seq", "events", ["scope", "verb", "seq"])
    op.create_index("ix_events_scope_subject_seq", "events", ["scope", "subject", "seq"])
    op.create_index("ix_events_scope_at", "events", ["scope", "at"])


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", Name, nullable=False),
        sa.Column("scope", Name, nullable=False),
        sa.Column("kind", Name, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("state", Name, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("key", Name),
        sa.Column("cause", Name),
        sa.Column("parent", Name, sa.ForeignKey("runs.id", name="fk_runs_parent")),
        sa.Column("experiment", Name),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("code_diff", sa.Text()),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("cpu_s", sa.Float(53)),
        sa.Column("wall_s", sa.Float(53)),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("ended_at", Instant()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("scope", "key", "attempt", name="uq_runs_scope_key_attempt"),
    )
    op.create_index("ix_runs_scope_kind_name_started_at", "runs", ["scope", "kind", "name", "started_at"])
    op.create_index("ix_runs_scope_started_at", "runs", ["scope", "started_at"])
    op.create_index("ix_runs_scope_experiment_started_at", "runs", ["scope", "experiment", "started_at"])
    op.create_index("ix_runs_scope_state_started_at", "runs", ["scope", "state", "started_at"])
    op.create_index("ix_runs_parent", "runs", ["parent"])
    op.create_table(
        "heartbeats",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_heartbeats_run"), nullable=False),
        sa.Column("event", Name, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("beat_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_heartbeats"),
    )


def _make_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", Name, nullable=False),
        sa.Column("scope", Name, nullable=False),
        sa.Column("kind", Name, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("sha256", Name, nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_versions_run")),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("scope", "kind", "name", "number", name="uq_versions_scope_kind_name_number"),
        sa.UniqueConstraint("scope", "kind", "name", "sha256", name="uq_versions_scope_kind_name_sha256"),
    )
    op.create_index("ix_versions_run", "versions", ["run"])


def _make_edges_and_pointers() -> None:
    op.create_table(
        "edges",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_edges_run"), nullable=False),
        sa.Column("version", Name, sa.ForeignKey("versions.id", name="fk_edges_version"), nullable=False),
        sa.Column("role", Name, nullable=False),
        sa.Column("scope", Name, nullable=False),
        sa.PrimaryKeyConstraint("run", "version", "role", name="pk_edges"),
    )
    op.create_index("ix_edges_version", "edges", ["version"])
    op.create_index("ix_edges_scope", "edges", ["scope"])
    op.create_table(
        "pointers",
        sa.Column("scope", Name, nullable=False),
        sa.Column("environment", Name, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("version", Name, sa.ForeignKey("versions.id", name="fk_pointers_version"), nullable=False),
        sa.Column("stable", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("event", Name, nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "environment", "name", "number", name="pk_pointers"),
    )
    op.create_index("ix_pointers_scope_event", "pointers", ["scope", "event"])


def _make_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("scope", Name, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_leases"),
    )
