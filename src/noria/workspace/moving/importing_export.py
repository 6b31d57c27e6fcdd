"""An export taken into a project: what is here stays as it is, what is new comes as it was.

Runs come some hundred in a transaction, models one by one: an import that was cut off goes on where it was.
Every table's digest is computed before anything is written, and every file's before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
from sqlalchemy import Connection, insert, select

from noria.clock import from_micros
from noria.database.upserts import Upsert
from noria.errors import BadPath, Conflict, SourceError
from noria.ledger.tables import events
from noria.records import VersionId
from noria.tracking.artifact_paths import checked_path
from noria.tracking.tables import artifacts, experiment_tags, experiments, logged_datasets
from noria.workspace.moving.backup_tables import count_on
from noria.workspace.moving.exporting_files import export_file
from noria.workspace.moving.exporting_records import SCHEMAS, ExportManifest, read_export_manifest
from noria.workspace.moving.table_files import read_pieces

if TYPE_CHECKING:
    from noria.ledger.store import Ledger
    from noria.tracking.artifacts import ArtifactStore
    from noria.workspace.tracking_verbs import TrackingVerbs

__all__ = ["ExportImport", "ExportLeft", "Places", "all_rows", "import_export", "raw_rows"]

_MOST_NAMED = 1_000
_OWN = "mlflow-artifacts:/"
_FILES_AT_ONCE = 200
_TAGS, _DATASETS = Upsert(experiment_tags), Upsert(logged_datasets)


class ExportLeft(msgspec.Struct, frozen=True):
    """Something that was not taken, and why."""

    what: str
    why: str


class ExportImport(msgspec.Struct, kw_only=True):
    """What an import took, or would take.

    Attributes
    ----------
    experiments, runs, points, params, tags, inputs, logged_models, models, model_versions, versions, files,
    file_bytes
        What was not here before; versions are those of other kinds. Bytes are those of files that were kept.
    runs_known, runs_continued
        Runs that were here already; and those that had not ended, and are brought up to date.
    left
        What was not taken: the first thousand.
    left_count
        All of it.
    """

    source: str
    is_dry: bool = False
    experiments: int = 0
    runs: int = 0
    runs_known: int = 0
    runs_continued: int = 0
    points: int = 0
    params: int = 0
    tags: int = 0
    inputs: int = 0
    logged_models: int = 0
    models: int = 0
    model_versions: int = 0
    versions: int = 0
    files: int = 0
    file_bytes: int = 0
    left_count: int = 0
    left: list[ExportLeft] = []

    def leave(self, what: str, why: str) -> None:
        """Say that something is not taken."""
        self.left_count += 1
        if len(self.left) < _MOST_NAMED:
            self.left.append(ExportLeft(what, why))


class Places(msgspec.Struct, kw_only=True):
    """What of the export is what here.

    Attributes
    ----------
    numbers
        Of experiments.
    folders
        Of the files of experiments: there and here.
    versions
        Of models.
    refused
        Runs whose ids others have here.
    """

    numbers: dict[int, int] = {}
    folders: dict[int, tuple[str, str]] = {}
    versions: dict[str, VersionId] = {}
    refused: set[str] = set()

    def uri(self, text: str) -> str:
        """Give where files are here that were somewhere there."""
        for there, here in self.folders.values():
            if there and there != here and (text == f"{_OWN}{there}" or text.startswith(f"{_OWN}{there}/")):
                return f"{_OWN}{here}{text[len(_OWN) + len(there) :]}"
        return text


def import_export(
    project: TrackingVerbs,
    folder: Path,
    *,
    dry_run: bool = False,
    tell: Callable[[ExportImport], None] | None = None,
) -> ExportImport:
    """Take in an export; see `noria.workspace.moving.verbs.MovingVerbs.import_export`."""
    from noria.workspace.moving.importing_export_models import take_logged_models, take_models
    from noria.workspace.moving.importing_export_runs import take_lineage, take_runs
    from noria.workspace.moving.importing_export_versions import take_versions

    manifest = read_export_manifest(folder)
    for name, table in manifest.tables.items():
        export_file(folder, table.file, sha256=table.sha256)
        if name in SCHEMAS:
            _check_columns(folder, manifest, name)
    done = ExportImport(source=str(folder), is_dry=dry_run)
    for what, why in manifest.left:
        done.leave(what, f"the export itself has it not: {why}")
    ledger, places = project.ledger, Places()
    _take_experiments(ledger, folder, manifest, places, done)
    if not dry_run:
        _take_datasets(ledger, folder, manifest)
        _take_code(project, folder, manifest)
    take_runs(ledger, folder, manifest, places, done, tell=tell)
    _take_files(ledger, project.artifacts, folder, manifest, places=places, done=done)
    take_logged_models(ledger, folder, manifest, places, done)
    take_models(project, folder, manifest, places, done)
    take_versions(project, folder, manifest, places, done)
    if not dry_run:
        take_lineage(ledger, folder, manifest, places, done)
        counts = msgspec.to_builtins(done)
        payload = {name: counts[name] for name in counts if name not in {"left", "is_dry"}}
        payload |= {"project": manifest.project, "ledger": manifest.ledger, "head": manifest.head}
        ledger.append("export.imported", subject="export", payload=payload)
    return done


def raw_rows(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Give rows with instants as microseconds."""
    columns = [each.cast(pa.int64()) if pa.types.is_timestamp(each.type) else each for each in rows.columns]
    found: list[dict[str, Any]] = pa.RecordBatch.from_arrays(columns, rows.schema.names).to_pylist()
    return found


def all_rows(folder: Path, manifest: ExportManifest, table: str) -> Iterator[dict[str, Any]]:
    """Give the rows of a table, with instants as microseconds."""
    for rows in read_pieces(folder, manifest.tables[table]):
        yield from raw_rows(rows)


def _check_columns(folder: Path, manifest: ExportManifest, name: str) -> None:
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(folder / manifest.tables[name].file)
    except (pa.ArrowException, OSError) as err:
        raise SourceError(f"{folder / manifest.tables[name].file} cannot be read as Parquet: {err}") from err
    if not found.equals(SCHEMAS[name], check_metadata=False):
        wanted = ", ".join(f"{each.name} {each.type}" for each in SCHEMAS[name])
        raise SourceError(f"table {name} of {folder} has other columns than wanted: {wanted}")


def _take_experiments(
    ledger: Ledger, folder: Path, manifest: ExportManifest, places: Places, done: ExportImport
) -> None:
    tags: dict[int, list[dict[str, Any]]] = {}
    for row in all_rows(folder, manifest, "experiment_tags"):
        tags.setdefault(row["experiment"], []).append(row)
    for row in all_rows(folder, manifest, "experiments"):
        if done.is_dry:
            with ledger.database.read() as connection:
                number = _find_experiment(connection, ledger, manifest, row)
                done.experiments += number is None
                if number is not None:
                    _place(connection, row, number, places)
            continue
        with ledger.change(None) as change:
            connection = change.connection
            number = _find_experiment(connection, ledger, manifest, row)
            if number is None:
                number = _make_experiment(connection, row)
                change.record(
                    "experiment.created",
                    f"experiment/{number}",
                    payload={"name": row["name"]},
                    cause=None,
                    key=_key(manifest, row["id"]),
                )
                done.experiments += 1
            found = [
                {"experiment": number, "name": each["name"], "value": each["value"]}
                for each in tags.get(row["id"], ())
            ]
            _TAGS.execute(connection, found)
            _place(connection, row, number, places)


def _place(connection: Connection, row: dict[str, Any], number: int, places: Places) -> None:
    places.numbers[row["id"]] = number
    place = connection.execute(select(experiments.c.artifact_uri).where(experiments.c.id == number)).scalar()
    places.folders[row["id"]] = (row["folder"], _folder(number, place))


def _key(manifest: ExportManifest, id: int) -> str:
    return f"export/{manifest.ledger}/experiment/{id}"


def _find_experiment(
    connection: Connection, ledger: Ledger, manifest: ExportManifest, row: dict[str, Any]
) -> int | None:
    """Find an experiment: as it was taken before, whatever it is called now; else by its name."""
    mine = (events.c.scope == ledger.scope, events.c.key == _key(manifest, row["id"]))
    subject = connection.execute(select(events.c.subject).where(*mine)).scalar()
    if subject is not None:
        return int(subject.rpartition("/")[2])
    first = select(events.c.digest).where(events.c.scope == ledger.scope).order_by(events.c.seq).limit(1)
    query = select(experiments.c.id)
    if connection.execute(first).scalar() == manifest.ledger:  # it comes back to where it was exported
        found: int | None = connection.execute(query.where(experiments.c.id == row["id"])).scalar()
        if found is not None:
            return found
    named: int | None = connection.execute(query.where(experiments.c.name == row["name"])).scalar()
    return named


def _make_experiment(connection: Connection, row: dict[str, Any]) -> int:
    """Make an experiment with its number, if no other has that."""
    values = {name: row[name] for name in ("name", "artifact_uri")}
    for name in ("at", "updated_at", "deleted_at"):
        values[name] = None if row[name] is None else from_micros(row[name])
    taken = connection.execute(select(experiments.c.id).where(experiments.c.id == row["id"])).first()
    if taken is None:
        values["id"] = row["id"]
    number: int = connection.execute(
        insert(experiments).values(values).returning(experiments.c.id)
    ).scalar_one()
    count_on(connection, experiments)
    return number


def _folder(number: int, place: str | None) -> str:
    if place is None:
        return str(number)
    return place.removeprefix(_OWN).strip("/") if place.startswith(_OWN) else ""


def _take_datasets(ledger: Ledger, folder: Path, manifest: ExportManifest) -> None:
    for rows in read_pieces(folder, manifest.tables["datasets"]):
        with ledger.database.write() as connection:
            _DATASETS.execute(connection, raw_rows(rows))


def _take_code(project: TrackingVerbs, folder: Path, manifest: ExportManifest) -> None:
    for row in all_rows(folder, manifest, "code"):
        project.storage.put_file(export_file(folder, row["file"], sha256=row["sha256"]))


def _take_files(
    ledger: Ledger,
    store: ArtifactStore,
    folder: Path,
    manifest: ExportManifest,
    *,
    places: Places,
    done: ExportImport,
) -> None:
    """Take the files of runs and logged models."""
    for rows in read_pieces(folder, manifest.tables["artifacts"]):
        found = raw_rows(rows)
        for start in range(0, len(found), _FILES_AT_ONCE):
            some = found[start : start + _FILES_AT_ONCE]
            kept = [
                each for row in some if (each := _keep_file(store, folder, row, places, done)) is not None
            ]
            with ledger.database.write() as connection:
                for path, row in kept:
                    try:
                        store.put_kept(path, row["sha256"], row["size_bytes"])
                    except (BadPath, Conflict) as err:
                        done.leave(path, str(err))
                        continue
                    put_at = {"put_at": from_micros(row["put_at"])}
                    connection.execute(artifacts.update().where(artifacts.c.path == path).values(put_at))
                    done.files += 1
                    done.file_bytes += row["size_bytes"]


def _keep_file(
    store: ArtifactStore, folder: Path, row: dict[str, Any], places: Places, done: ExportImport
) -> tuple[str, dict[str, Any]] | None:
    """Keep the bytes of a file that is not here, and give where it belongs."""
    if row["path"].partition("/")[0] in places.refused:
        return None
    if row["experiment"] not in places.folders:
        if done.is_dry:
            done.files += 1
            return None
        raise SourceError(f"the export has the file {row['path']!r} of an experiment that it has not")
    _, here = places.folders[row["experiment"]]
    if not here:
        done.leave(f"file {row['path']}", "its experiment keeps files elsewhere")
        return None
    try:
        path = checked_path(f"{here}/{row['path']}")
        known = store.find(path)
    except BadPath as err:
        raise SourceError(f"the export has a file that can be none: {err}") from err
    if known is not None:
        if known.sha256 != row["sha256"]:
            done.leave(f"file {path}", "there is another one of that name")
        return None
    if done.is_dry:
        done.files += 1
        return None
    sha256, _ = store.keep(export_file(folder, row["file"], sha256=row["sha256"]))
    if sha256 != row["sha256"]:
        raise SourceError(f"the file {row['file']!r} of the export was changed while it was read")
    return path, row
