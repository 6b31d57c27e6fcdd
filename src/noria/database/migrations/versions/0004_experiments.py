"""Experiments as searchable folders: runs with owners and names, latest metrics, parameters, tags."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from noria.database.metadata import Instant, Name

revision = "0004"
down_revision = "0003"

_COUNTED = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_HEAD_CHARS = 64
_ROWS = 1_000  # written at once


def upgrade() -> None:
    op.add_column("experiments", sa.Column("artifact_uri", sa.Text()))
    op.add_column("experiments", sa.Column("updated_at", Instant()))
    op.add_column("experiments", sa.Column("deleted_at", Instant()))
    op.execute("UPDATE experiments SET updated_at = at")
    with op.batch_alter_table("experiments") as table:
        table.alter_column("updated_at", existing_type=Instant(), nullable=False)
    op.create_table(
        "experiment_tags",
        sa.Column(
            "experiment",
            _COUNTED,
            sa.ForeignKey("experiments.id", name="fk_experiment_tags_experiment"),
            nullable=False,
            autoincrement=False,
        ),
        sa.Column("name", Name, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "name", name="pk_experiment_tags"),
    )
    _make_tracked_runs()
    _make_metrics()
    _make_params()
    _make_tags()
    _make_datasets()
    op.create_table(
        "artifacts",
        sa.Column("path", Name, nullable=False),
        sa.Column("sha256", Name, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("put_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_artifacts"),
    )
    _make_logged_models()
    _make_registered_models()
    _make_model_versions()


def _make_tracked_runs() -> None:
    op.create_table(
        "tracked_runs",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_tracked_runs_run"), nullable=False),
        sa.Column(
            "experiment",
            _COUNTED,
            sa.ForeignKey("experiments.id", name="fk_tracked_runs_experiment"),
            nullable=False,
        ),
        sa.Column("name", Name, nullable=False),
        sa.Column("owner", Name, nullable=False),
        sa.Column("is_scheduled", sa.Boolean(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("ended_at", Instant()),
        sa.Column("deleted_at", Instant()),
        sa.PrimaryKeyConstraint("run", name="pk_tracked_runs"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_tracked_runs_experiment_started_at_run_deleted_at",
        "tracked_runs",
        ["experiment", "started_at", "run", "deleted_at"],
    )
    op.create_index("ix_tracked_runs_experiment_name_run", "tracked_runs", ["experiment", "name", "run"])
    op.execute("""
        INSERT INTO tracked_runs (run, experiment, name, owner, is_scheduled, started_at)
        SELECT runs.id, CAST(runs.experiment AS BIGINT), runs.name,
            COALESCE((SELECT MIN(events.actor) FROM events WHERE events.scope = runs.scope
                AND events.subject = 'run/' || runs.id AND events.verb = 'run.started'), 'unknown'),
            (1 = 0), runs.started_at
        FROM runs WHERE runs.experiment IS NOT NULL""")


def _make_metrics() -> None:
    op.execute("""
        CREATE TABLE metric_points_0003 AS
        SELECT DISTINCT run, name, recorded_at, step, COALESCE(value, 0) AS value, (value IS NULL) AS is_nan
        FROM metric_points""")
    op.drop_table("metric_points")
    op.create_table(
        "metric_points",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_metric_points_run"), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("is_nan", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(
            "run", "name", "recorded_at", "step", "value", "is_nan", name="pk_metric_points"
        ),
        sqlite_with_rowid=False,
    )
    columns = "run, name, recorded_at, step, value, is_nan"
    op.execute(f"INSERT INTO metric_points ({columns}) SELECT {columns} FROM metric_points_0003")
    op.drop_table("metric_points_0003")
    op.create_table(
        "latest_metrics",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_latest_metrics_run"), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("experiment", sa.BigInteger()),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("is_nan", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run", "name", name="pk_latest_metrics"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_latest_metrics_experiment_name_is_nan_value_run",
        "latest_metrics",
        ["experiment", "name", "is_nan", "value", "run"],
    )
    op.execute(f"""
        INSERT INTO latest_metrics ({columns}, experiment)
        SELECT {columns}, (SELECT experiment FROM tracked_runs WHERE tracked_runs.run = ranked.run)
        FROM (SELECT {columns}, ROW_NUMBER() OVER (PARTITION BY run, name
                ORDER BY step DESC, recorded_at DESC, is_nan DESC, value DESC) AS place
            FROM metric_points) AS ranked
        WHERE place = 1""")


def _make_params() -> None:
    params = op.create_table(
        "run_params",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_run_params_run"), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("experiment", sa.BigInteger()),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("json", sa.Text()),
        sa.Column("head", Name, nullable=False),
        sa.PrimaryKeyConstraint("run", "name", name="pk_run_params"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_run_params_experiment_name_head_run", "run_params", ["experiment", "name", "head", "run"]
    )
    connection = op.get_bind()
    known = connection.execute(
        sa.text("""SELECT tracked_runs.run, tracked_runs.experiment, runs.params
            FROM tracked_runs JOIN runs ON runs.id = tracked_runs.run""")
    ).all()
    rows: list[dict[str, Any]] = []
    for run, experiment, text in known:
        for name, given in json.loads(text).items():
            value = _as_text(given)
            kept = None if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            rows.append({"run": run, "name": name, "experiment": experiment, "value": value,
                         "json": kept, "head": value[:_HEAD_CHARS]})  # fmt: skip
    for start in range(0, len(rows), _ROWS):
        connection.execute(params.insert(), rows[start : start + _ROWS])


def _make_tags() -> None:
    op.execute("CREATE TABLE run_tags_0003 AS SELECT run, name, value FROM run_tags")
    op.drop_table("run_tags")
    op.create_table(
        "run_tags",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_run_tags_run"), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("experiment", sa.BigInteger()),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("head", Name, nullable=False),
        sa.PrimaryKeyConstraint("run", "name", name="pk_run_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_tags_experiment_name_head_run", "run_tags", ["experiment", "name", "head", "run"])
    op.execute(f"""
        INSERT INTO run_tags (run, name, experiment, value, head)
        SELECT old.run, old.name, tracked_runs.experiment, old.value, SUBSTR(old.value, 1, {_HEAD_CHARS})
        FROM run_tags_0003 AS old LEFT JOIN tracked_runs ON tracked_runs.run = old.run""")
    op.drop_table("run_tags_0003")


def _make_datasets() -> None:
    op.create_table(
        "logged_datasets",
        sa.Column("sha256", Name, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("digest", Name, nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text()),
        sa.Column("profile", sa.Text()),
        sa.PrimaryKeyConstraint("sha256", name="pk_logged_datasets"),
    )
    dataset = sa.ForeignKey("logged_datasets.sha256", name="fk_run_datasets_dataset")
    op.create_table(
        "run_datasets",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_run_datasets_run"), nullable=False),
        sa.Column("dataset", Name, dataset, nullable=False),
        sa.Column("experiment", sa.BigInteger()),
        sa.Column("name", Name, nullable=False),
        sa.Column("digest", Name, nullable=False),
        sa.Column("context", Name),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "dataset", name="pk_run_datasets"),
    )
    op.create_index("ix_run_datasets_experiment_name_run", "run_datasets", ["experiment", "name", "run"])


def _make_logged_models() -> None:
    op.create_table(
        "logged_models",
        sa.Column("id", Name, nullable=False),
        sa.Column(
            "experiment",
            _COUNTED,
            sa.ForeignKey("experiments.id", name="fk_logged_models_experiment"),
            nullable=False,
        ),
        sa.Column("name", Name, nullable=False),
        sa.Column("type", Name),
        sa.Column("status", Name, nullable=False),
        sa.Column("source_run", Name, sa.ForeignKey("runs.id", name="fk_logged_models_source_run")),
        sa.Column("version", Name, sa.ForeignKey("versions.id", name="fk_logged_models_version")),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.Column("deleted_at", Instant()),
        sa.PrimaryKeyConstraint("id", name="pk_logged_models"),
        sqlite_with_rowid=False,
    )
    for columns in (["experiment", "created_at", "id"], ["experiment", "name"]):
        op.create_index(f"ix_logged_models_{'_'.join(columns)}", "logged_models", columns)
    for table in ("logged_model_params", "logged_model_tags"):
        op.create_table(
            table,
            _logged_model(table),
            sa.Column("name", Name, nullable=False),
            sa.Column("value", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint("model", "name", name=f"pk_{table}"),
            sqlite_with_rowid=False,
        )
    of_point = ("model", "name", "recorded_at", "step", "run", "dataset_name", "dataset_digest", "value")
    op.create_table(
        "logged_model_metrics",
        _logged_model("logged_model_metrics"),
        sa.Column("name", Name, nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_logged_model_metrics_run"), nullable=False),
        sa.Column("dataset_name", Name, nullable=False),
        sa.Column("dataset_digest", Name, nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("is_nan", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(*of_point, "is_nan", name="pk_logged_model_metrics"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_models",
        sa.Column("run", Name, sa.ForeignKey("runs.id", name="fk_run_models_run"), nullable=False),
        sa.Column("role", Name, nullable=False),
        _logged_model("run_models"),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "role", "model", name="pk_run_models"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_models_model", "run_models", ["model"])


def _logged_model(table: str) -> sa.Column[str]:
    model = sa.ForeignKey("logged_models.id", name=f"fk_{table}_model")
    return sa.Column("model", Name, model, nullable=False)


def _make_registered_models() -> None:
    op.create_table(
        "registered_models",
        sa.Column("id", _COUNTED, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("ledger_name", Name, nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.Column("deleted_at", Instant()),
        sa.PrimaryKeyConstraint("id", name="pk_registered_models"),
        sa.UniqueConstraint("ledger_name", name="uq_registered_models_ledger_name"),
    )
    there = sa.text("deleted_at IS NULL")
    name = "ix_registered_models_name"
    op.create_index(
        name, "registered_models", ["name"], unique=True, sqlite_where=there, postgresql_where=there
    )
    op.create_index("ix_registered_models_created_at", "registered_models", ["created_at"])
    op.create_index("ix_registered_models_updated_at", "registered_models", ["updated_at"])
    for table, key, other in (
        ("model_tags", "name", [sa.Column("value", sa.Text(), nullable=False),
                                sa.Column("head", Name, nullable=False)]),
        ("model_aliases", "alias", [sa.Column("number", sa.BigInteger(), nullable=False)]),
    ):  # fmt: skip
        model = sa.ForeignKey("registered_models.id", name=f"fk_{table}_model")
        op.create_table(
            table,
            sa.Column("model", _COUNTED, model, nullable=False, autoincrement=False),
            sa.Column(key, Name, nullable=False),
            *other,
            sa.PrimaryKeyConstraint("model", key, name=f"pk_{table}"),
            sqlite_with_rowid=False,
        )
    op.create_index("ix_model_tags_name_head_model", "model_tags", ["name", "head", "model"])
    op.execute("""
        INSERT INTO registered_models (name, ledger_name, created_at, updated_at)
        SELECT name, name, MIN(recorded_at), MAX(recorded_at) FROM versions
        WHERE scope = 'project' AND kind = 'model' GROUP BY name ORDER BY name""")


def _make_model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column(
            "version", Name, sa.ForeignKey("versions.id", name="fk_model_versions_version"), nullable=False
        ),
        sa.Column(
            "model",
            _COUNTED,
            sa.ForeignKey("registered_models.id", name="fk_model_versions_model"),
            nullable=False,
        ),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("run", Name),
        sa.Column("logged_model", Name),
        sa.Column("run_link", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("stage", Name, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.Column("deleted_at", Instant()),
        sa.PrimaryKeyConstraint("version", name="pk_model_versions"),
        sa.UniqueConstraint("model", "number", name="uq_model_versions_model_number"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_model_versions_model_deleted_at_stage_number",
        "model_versions",
        ["model", "deleted_at", "stage", "number"],
    )
    op.create_index("ix_model_versions_model_updated_at", "model_versions", ["model", "updated_at"])
    for column in ("created_at", "updated_at", "run"):
        op.create_index(f"ix_model_versions_{column}", "model_versions", [column])
    version = sa.ForeignKey("model_versions.version", name="fk_model_version_tags_version")
    op.create_table(
        "model_version_tags",
        sa.Column("version", Name, version, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("head", Name, nullable=False),
        sa.PrimaryKeyConstraint("version", "name", name="pk_model_version_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_model_version_tags_name_head_version", "model_version_tags", ["name", "head", "version"]
    )
    op.execute("""
        INSERT INTO model_versions
            (version, model, number, source, location, run, stage, created_at, updated_at)
        SELECT versions.id, registered_models.id, versions.number,
            'noria:/model/' || versions.name || ':' || versions.number,
            'noria:/model/' || versions.name || ':' || versions.number,
            versions.run, 'None', versions.recorded_at, versions.recorded_at
        FROM versions JOIN registered_models ON registered_models.ledger_name = versions.name
        WHERE versions.scope = 'project' AND versions.kind = 'model'""")


def _as_text(value: object) -> str:
    """Give a parameter as people read it."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
