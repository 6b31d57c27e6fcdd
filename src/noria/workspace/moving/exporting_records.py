"""What an export consists of: its tables with their columns, and the manifest that tells of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from noria.errors import SourceError
from noria.workspace.moving.backup_records import verified_manifest
from noria.workspace.moving.table_files import TableFile

__all__ = [
    "FORMAT",
    "IMPORTED_KIND",
    "MANIFEST",
    "OF_RUNS",
    "REPORT_KINDS",
    "SCHEMAS",
    "ExportDone",
    "ExportManifest",
    "read_export_manifest",
]

FORMAT = 1
MANIFEST = "noria-export.json"
IMPORTED_KIND = "imported_"  # what kinds of versions begin with of which only the record came
REPORT_KINDS = {"explanation", "feature_statistics", "model_card"}  # which come with their bytes
OF_RUNS = ("params", "tags", "points", "inputs", "models_of_runs", "lineage")

_TEXT, _COUNT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_AT = pa.timestamp("us", "UTC")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


SCHEMAS = {
    "experiments": _schema(
        id=_COUNT, name=_TEXT, artifact_uri=_TEXT, at=_AT, updated_at=_AT, deleted_at=_AT, folder=_TEXT
    ),
    "experiment_tags": _schema(experiment=_COUNT, name=_TEXT, value=_TEXT),
    "runs": _schema(
        id=_TEXT, kind=_TEXT, name=_TEXT, state=_TEXT, attempt=_COUNT, key=_TEXT, cause=_TEXT, parent=_TEXT,
        params=_TEXT, metrics=_TEXT, seed=_COUNT, code=_TEXT, code_diff=_TEXT, runtime=_TEXT, error=_TEXT,
        cpu_s=_REAL, wall_s=_REAL, at=_AT, started_at=_AT, ended_at=_AT, experiment=_COUNT, shown_name=_TEXT,
        owner=_TEXT, is_scheduled=_FLAG, shown_started_at=_AT, shown_ended_at=_AT, deleted_at=_AT,
    ),
    "params": _schema(run=_TEXT, name=_TEXT, value=_TEXT, json=_TEXT),
    "tags": _schema(run=_TEXT, name=_TEXT, value=_TEXT),
    "points": _schema(run=_TEXT, name=_TEXT, recorded_at=_AT, step=_COUNT, value=_REAL),
    "datasets": _schema(
        sha256=_TEXT, name=_TEXT, digest=_TEXT, source_type=_TEXT, source=_TEXT, schema=_TEXT, profile=_TEXT
    ),
    "inputs": _schema(run=_TEXT, dataset=_TEXT, context=_TEXT, tags=_TEXT),
    "models_of_runs": _schema(run=_TEXT, role=_TEXT, model=_TEXT, step=_COUNT),
    "lineage": _schema(run=_TEXT, role=_TEXT, version=_TEXT, sha256=_TEXT),
    "artifacts": _schema(
        experiment=_COUNT, path=_TEXT, file=_TEXT, sha256=_TEXT, size_bytes=_COUNT, put_at=_AT
    ),
    "logged_models": _schema(
        id=_TEXT, experiment=_COUNT, name=_TEXT, type=_TEXT, status=_TEXT, source_run=_TEXT, created_at=_AT,
        updated_at=_AT, deleted_at=_AT, version=_TEXT, number=_COUNT, sha256=_TEXT, uri=_TEXT,
        version_run=_TEXT, facts=_TEXT, version_at=_AT,
    ),
    "logged_model_params": _schema(model=_TEXT, name=_TEXT, value=_TEXT),
    "logged_model_tags": _schema(model=_TEXT, name=_TEXT, value=_TEXT),
    "logged_model_points": _schema(
        model=_TEXT, name=_TEXT, recorded_at=_AT, step=_COUNT, run=_TEXT, dataset_name=_TEXT,
        dataset_digest=_TEXT, value=_REAL,
    ),
    "models": _schema(
        id=_COUNT, name=_TEXT, ledger_name=_TEXT, description=_TEXT, created_at=_AT, updated_at=_AT,
        deleted_at=_AT,
    ),
    "model_tags": _schema(model=_COUNT, name=_TEXT, value=_TEXT),
    "model_aliases": _schema(model=_COUNT, alias=_TEXT, number=_COUNT),
    "model_versions": _schema(
        version=_TEXT, model=_COUNT, number=_COUNT, source=_TEXT, location=_TEXT, run=_TEXT,
        logged_model=_TEXT, run_link=_TEXT, description=_TEXT, stage=_TEXT, status=_TEXT,
        status_message=_TEXT, owner=_TEXT, created_at=_AT, updated_at=_AT, deleted_at=_AT,
        ledger_number=_COUNT, sha256=_TEXT, content_sha256=_TEXT, uri=_TEXT, made_by=_TEXT, facts=_TEXT,
        at=_AT,
    ),
    "model_version_tags": _schema(version=_TEXT, name=_TEXT, value=_TEXT),
    "model_parts": _schema(
        version=_TEXT, part=_TEXT, place=_TEXT, file=_TEXT, sha256=_TEXT, size_bytes=_COUNT
    ),
    "versions": _schema(
        version=_TEXT, kind=_TEXT, name=_TEXT, number=_COUNT, sha256=_TEXT, uri=_TEXT, made_by=_TEXT,
        facts=_TEXT, at=_AT, file=_TEXT, size_bytes=_COUNT,
    ),
    "code": _schema(sha256=_TEXT, file=_TEXT, size_bytes=_COUNT),
}  # fmt: skip


class ExportManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export holds.

    Attributes
    ----------
    ledger
        The digest of the first event of the project's ledger: which project it is.
    head
        The digest of the ledger's last event then.
    batches
        Runs come some hundred at a time: of each table about runs how many rows belong to which of these.
    left
        What could not be exported, with the reason.
    """

    format: int
    noria: str
    project: str
    ledger: str
    head: str
    taken_at: datetime
    experiments: tuple[str, ...] | None  # as was asked for; None: all
    tables: dict[str, TableFile]
    batches: dict[str, list[int]]
    left: tuple[tuple[str, str], ...] = ()


class ExportDone(msgspec.Struct, frozen=True, kw_only=True):
    """What was exported.

    Attributes
    ----------
    rows
        By table.
    files, file_bytes
        Files of runs, models and code.
    left
        What could not be: what, and why.
    """

    folder: str
    rows: dict[str, int]
    files: int
    file_bytes: int
    left: tuple[tuple[str, str], ...] = ()


def read_export_manifest(folder: Path) -> ExportManifest:
    """Read the manifest of an export.

    Raises
    ------
    SourceError
        If there is none, or it is of a newer noria.
    DigestMismatch
        If it was changed.
    """
    if not (folder / MANIFEST).is_file():
        raise SourceError(
            f"{folder} is no export: it has no {MANIFEST}; name a folder that `noria export` made"
        )
    body = verified_manifest(folder / MANIFEST)
    try:
        version = msgspec.json.decode(body, type=dict)["format"]
        if version > FORMAT:
            raise SourceError(
                f"{folder} is an export of format {version}, this noria knows up to {FORMAT}: it was made by "
                "a newer noria; upgrade noria"
            )
        manifest = msgspec.json.decode(body, type=ExportManifest)
    except (msgspec.MsgspecError, KeyError, TypeError) as err:
        raise SourceError(f"{folder / MANIFEST} is no manifest of an export: {err}") from err
    if missing := sorted(SCHEMAS.keys() - manifest.tables.keys()):
        raise SourceError(f"{folder / MANIFEST} names no table {', '.join(missing)}; the export is not whole")
    return manifest
