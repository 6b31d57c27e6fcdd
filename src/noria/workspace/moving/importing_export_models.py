"""The models of an export: those that runs logged, and those that were registered, with versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, insert, select

from noria.clock import from_micros
from noria.database.upserts import Upsert
from noria.errors import Conflict, SourceError
from noria.ledger.chain import Change
from noria.ledger.redacted import record_redacted
from noria.ledger.rows import to_version
from noria.ledger.tables import events, runs, versions
from noria.ledger.versions import record_version
from noria.records import Version
from noria.registry.labels import free_ledger_name
from noria.registry.tables import (
    HEAD_CHARS,
    model_aliases,
    model_tags,
    model_version_tags,
    model_versions,
    registered_models,
)
from noria.tracking.tables import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    run_models,
)
from noria.workspace.moving.backup_tables import count_on
from noria.workspace.moving.exporting_files import export_file
from noria.workspace.moving.importing_export import ExportImport, Places, all_rows
from noria.workspace.moving.importing_export_runs import point_rows
from noria.workspace.moving.table_files import read_pieces

if TYPE_CHECKING:
    from noria.ledger.store import Ledger
    from noria.workspace.moving.exporting_records import ExportManifest
    from noria.workspace.tracking_verbs import TrackingVerbs

__all__ = ["take_logged_models", "take_models"]

_INSTANTS = ("created_at", "updated_at", "deleted_at")
_PARAMS, _TAGS, _POINTS, _LINKS = map(
    Upsert, (logged_model_params, logged_model_tags, logged_model_metrics, run_models)
)
_MODEL_TAGS, _ALIASES, _VERSION_TAGS = map(Upsert, (model_tags, model_aliases, model_version_tags))
_LABELS = (
    "number",
    "run",
    "logged_model",
    "run_link",
    "description",
    "stage",
    "status",
    "status_message",
    "owner",
)
_Row = dict[str, Any]


# -- logged models


def take_logged_models(
    ledger: Ledger, folder: Path, manifest: ExportManifest, places: Places, done: ExportImport
) -> None:
    """Take the logged models that are not here, and which runs read and made them."""
    params, tags = (_ByModel(folder, manifest, name) for name in ("logged_model_params", "logged_model_tags"))
    points = _Points(folder, manifest)
    for row in all_rows(folder, manifest, "logged_models"):
        texts, labels, measured = params.take(row["id"]), tags.take(row["id"]), points.take(row["id"])
        if done.is_dry:
            with ledger.database.read() as connection:
                done.logged_models += _find(connection, logged_models, row["id"]) is None
            continue
        with ledger.change(None) as change:
            _take_logged_model(
                change, row, params=texts, tags=labels, points=measured, places=places, done=done
            )
    if done.is_dry:
        return
    for rows in read_pieces(folder, manifest.tables["models_of_runs"]):
        with ledger.database.write() as connection:
            for row in rows.to_pylist():
                is_here = all(
                    _find(connection, table, id) is not None
                    for table, id in ((runs, row["run"]), (logged_models, row["model"]))
                )
                if row["run"] in places.refused or not is_here:
                    done.leave(
                        f"run {row['run']}", f"its {row['role']}, logged model {row['model']}, is not here"
                    )
                    continue
                _LINKS.execute(connection, [row])


def _take_logged_model(
    change: Change,
    row: _Row,
    *,
    params: list[_Row],
    tags: list[_Row],
    points: list[tuple[Any, ...]],
    places: Places,
    done: ExportImport,
) -> None:
    connection = change.connection
    known = (
        connection.execute(select(logged_models).where(logged_models.c.id == row["id"])).mappings().first()
    )
    if known is not None:
        if known["created_at"] != from_micros(row["created_at"]):
            done.leave(f"logged model {row['id']}", "another one of this project has its id")
        elif row["version"] is not None and known["version"] is not None:
            places.versions[row["version"]] = known["version"]
        return
    version = _logged_version(change, row, places)
    if version is not None:
        places.versions[row["version"]] = version.id
    source = row["source_run"]
    values = {name: row[name] for name in ("id", "name", "type", "status")}
    values |= {name: _instant(row[name]) for name in _INSTANTS}
    values |= {
        "experiment": places.numbers[row["experiment"]],
        "source_run": source if _is_run(connection, source, places) else None,
        "version": None if version is None else version.id,
    }
    connection.execute(logged_models.insert(), values)
    _PARAMS.execute(connection, params)
    _TAGS.execute(connection, tags)
    here = {run: _is_run(connection, run, places) for run in {each[4] for each in points}}
    _POINTS.execute_raw(connection, [each for each in points if here[each[4]]])
    if missing := sum(not here[each[4]] for each in points):
        done.leave(f"logged model {row['id']}", f"{missing:,} points of runs that are not here")
    payload = {
        "name": row["name"],
        "experiment": str(values["experiment"]),
        "source_run": values["source_run"],
    }
    change.record("logged_model.created", f"logged_model/{row['id']}", payload=payload, cause=None)
    done.logged_models += 1


def _logged_version(change: Change, row: _Row, places: Places) -> Version | None:
    """Put the version of a logged model on record: under its number, or the next where another has that."""
    if row["version"] is None:
        return None
    made_by = row["version_run"] if _is_run(change.connection, row["version_run"], places) else None
    name = row["version"].partition("/logged_model/")[2].rpartition(":")[0]
    about = {"scope": change.scope, "kind": "logged_model", "name": name}
    taken = select(versions.c.id).where(*(versions.c[key] == value for key, value in about.items()))
    is_taken = change.connection.execute(taken.where(versions.c.number == row["number"])).first() is not None
    at, change.at = change.at, from_micros(row["version_at"])
    try:
        return record_version(
            change,
            kind="logged_model",
            name=name,
            sha256=row["sha256"],
            uri=places.uri(row["uri"]),
            run=made_by,
            facts=msgspec.json.decode(row["facts"]),
            cause=None,
            number=None if is_taken else row["number"],
        )
    finally:
        change.at = at


# -- registered models


def take_models(
    project: TrackingVerbs, folder: Path, manifest: ExportManifest, places: Places, done: ExportImport
) -> None:
    """Take models, and of those that are here the versions that are not."""
    tags, aliases, labels = (
        _grouped(all_rows(folder, manifest, name), "model")
        for name in ("model_tags", "model_aliases", "model_versions")
    )
    of_versions = _grouped(all_rows(folder, manifest, "model_version_tags"), "version")
    parts = _grouped(all_rows(folder, manifest, "model_parts"), "version")
    for row in all_rows(folder, manifest, "models"):
        mine = labels.get(row["id"], [])
        if done.is_dry:
            _look_at(project.ledger, manifest, row, mine, done)
            continue
        for each in mine:
            _keep_parts(project, folder, parts.get(each["version"], []))
        with project.ledger.change(None) as change:
            model = _take_model(change, manifest, row, tags.get(row["id"], []), done)
            if model is None:
                continue
            taken = [
                _take_version(
                    change, project.ledger, model, row, each, tags=of_versions, places=places, done=done
                )
                for each in mine
            ]
            if model["is_new"] or any(taken):
                _take_aliases(change.connection, model["id"], aliases.get(row["id"], []))


def _look_at(
    ledger: Ledger, manifest: ExportManifest, row: _Row, labels: list[_Row], done: ExportImport
) -> None:
    with ledger.database.read() as connection:
        known = _known_model(connection, ledger.scope, manifest, row)
        if known is None:
            if row["deleted_at"] is None and _of_name(connection, row["name"]) is not None:
                done.leave(f"model {row['name']}", _OTHER)
                return
            done.models += 1
            done.model_versions += len(labels)
            return
        numbers = select(model_versions.c.number).where(model_versions.c.model == known["id"])
        here = set(connection.execute(numbers).scalars())
        done.model_versions += sum(each["number"] not in here for each in labels)


_OTHER = "another model of this project has its name; rename one of them"


def _take_model(
    change: Change, manifest: ExportManifest, row: _Row, tags: list[_Row], done: ExportImport
) -> _Row | None:
    """Make a model, or find it; `None` where another one has its name."""
    connection = change.connection
    known = _known_model(connection, change.scope, manifest, row)
    if known is not None:
        return {**known, "is_new": False}
    if row["deleted_at"] is None and _of_name(connection, row["name"]) is not None:
        done.leave(f"model {row['name']}", _OTHER)
        return None
    base = row["ledger_name"]
    is_free = free_ledger_name(connection, base) == base
    values = {name: row[name] for name in ("name", "description")}
    values |= {name: _instant(row[name]) for name in _INSTANTS}
    values["ledger_name"] = base if is_free else free_ledger_name(connection, row["name"])
    is_taken = select(registered_models.c.id).where(registered_models.c.id == row["id"])
    if connection.execute(is_taken).first() is None:
        values["id"] = row["id"]
    statement = insert(registered_models).values(values).returning(registered_models.c.id)
    id = connection.execute(statement).scalar_one()
    count_on(connection, registered_models)
    _MODEL_TAGS.execute(connection, [{"model": id, **_text(each, "name", "value")} for each in tags])
    change.record(
        "model.created",
        values["ledger_name"],
        payload={"name": row["name"]},
        cause=None,
        key=_model_key(manifest, row),
    )
    done.models += 1
    return {"id": id, "ledger_name": values["ledger_name"], "is_new": True}


def _take_version(
    change: Change,
    ledger: Ledger,
    model: _Row,
    told: _Row,
    row: _Row,
    *,
    tags: Mapping[str, list[_Row]],
    places: Places,
    done: ExportImport,
) -> bool:
    """Put a version on record under its number, with its labels; False where it is here."""
    connection = change.connection
    mine = (model_versions.c.model == model["id"], model_versions.c.number == row["number"])
    known = connection.execute(select(model_versions.c.version).where(*mine)).scalar()
    if known is not None:
        version = to_version(
            connection.execute(select(versions).where(versions.c.id == known)).mappings().one()
        )
        if version.sha256 == row["sha256"]:
            places.versions[row["version"]] = version.id
        else:
            done.leave(f"model version {told['name']}:{row['number']}", "there is another one of that number")
        return False
    made_by = row["made_by"]
    at, change.at = change.at, from_micros(row["at"])
    try:
        version = record_version(
            change,
            kind="model",
            name=model["ledger_name"],
            sha256=row["sha256"],
            uri=row["uri"],
            run=made_by if _is_run(connection, made_by, places) else None,
            facts=msgspec.json.decode(row["facts"]),
            cause=None,
            number=row["ledger_number"],
        )
    except Conflict as err:
        done.leave(f"model version {told['name']}:{row['number']}", str(err))
        return False
    finally:
        change.at = at
    places.versions[row["version"]] = version.id
    native = f"noria:/model/{told['ledger_name']}:{row['ledger_number']}"
    values = {name: row[name] for name in _LABELS} | {name: _instant(row[name]) for name in _INSTANTS}
    for name in ("source", "location"):
        is_native = row[name] == native
        values[name] = f"noria:/model/{version.ref}" if is_native else places.uri(row[name])
    connection.execute(model_versions.insert(), {**values, "version": version.id, "model": model["id"]})
    _VERSION_TAGS.execute(
        connection,
        [{"version": version.id, **_text(each, "name", "value")} for each in tags.get(row["version"], [])],
    )
    if row["content_sha256"] != row["sha256"]:
        why = "as where it was exported"
        record_redacted(ledger, version, row["content_sha256"] or "", why=why, cause=None)
    done.model_versions += 1
    return True


def _take_aliases(connection: Connection, model: int, aliases: list[_Row]) -> None:
    rows = [{"model": model, "alias": each["alias"], "number": each["number"]} for each in aliases]
    _ALIASES.execute(connection, rows)


def _keep_parts(project: TrackingVerbs, folder: Path, parts: list[_Row]) -> None:
    """Keep what a version consists of, its digests computed again."""
    for row in parts:
        if row["place"] not in {"storage", "artifacts"}:
            raise SourceError(f"the export names the place {row['place']!r}, which it has not")
        storage = project.storage if row["place"] == "storage" else project.storage.part("artifacts")
        file = export_file(folder, row["file"], sha256=row["sha256"])
        if storage.exists(row["sha256"]):
            continue
        storage.put_file(file)


def _known_model(connection: Connection, scope: str, manifest: ExportManifest, row: _Row) -> _Row | None:
    """Find a model as it was taken before, whatever it is called now; or where it was exported."""
    query = select(registered_models.c.id, registered_models.c.ledger_name)
    mine = (events.c.scope == scope, events.c.key == _model_key(manifest, row))
    subject = connection.execute(select(events.c.subject).where(*mine)).scalar()
    first = select(events.c.digest).where(events.c.scope == scope).order_by(events.c.seq).limit(1)
    if subject is None and connection.execute(first).scalar() == manifest.ledger:
        subject = row["ledger_name"]
    if subject is None:
        return None
    found = connection.execute(query.where(registered_models.c.ledger_name == subject)).mappings().first()
    return None if found is None else dict(found)


def _model_key(manifest: ExportManifest, row: _Row) -> str:
    return f"export/{manifest.ledger}/model/{row['id']}"


def _of_name(connection: Connection, name: str) -> int | None:
    query = select(registered_models.c.id).where(
        registered_models.c.name == name, registered_models.c.deleted_at.is_(None)
    )
    found: int | None = connection.execute(query).scalar()
    return found


# -- rows


class _ByModel:
    """The rows of a table that is sorted by model, taken model by model."""

    def __init__(self, folder: Path, manifest: ExportManifest, table: str) -> None:
        self._groups = groupby(all_rows(folder, manifest, table), key=lambda row: row["model"])
        self._next = next(self._groups, None)

    def take(self, model: str) -> list[_Row]:
        """Give the rows of a model; models come in the order of the table."""
        if self._next is None or self._next[0] != model:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows


class _Points:
    """What was measured of models, likewise, as the database has it."""

    def __init__(self, folder: Path, manifest: ExportManifest) -> None:
        pieces = read_pieces(folder, manifest.tables["logged_model_points"])
        rows = (row for piece in pieces for row in _measured(piece))
        self._groups = groupby(rows, key=lambda row: row[0])
        self._next = next(self._groups, None)

    def take(self, model: str) -> list[tuple[Any, ...]]:
        """Give the points of a model."""
        if self._next is None or self._next[0] != model:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows


def _measured(piece: Any) -> Iterator[tuple[Any, ...]]:
    keys = ("model", "name", "run", "dataset_name", "dataset_digest")
    for model, name, run, dataset, digest, at_us, step, value, is_nan in point_rows(piece, keys):
        yield model, name, at_us, step, run, dataset, digest, value, is_nan


def _grouped(rows: Iterable[_Row], key: str) -> dict[Any, list[_Row]]:
    found: dict[Any, list[_Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def _text(row: _Row, name: str, value: str) -> _Row:
    return {"name": row[name], "value": row[value], "head": row[value][:HEAD_CHARS]}


def _find(connection: Connection, table: Any, id: str) -> str | None:
    found: str | None = connection.execute(select(table.c.id).where(table.c.id == id)).scalar()
    return found


def _is_run(connection: Connection, id: str | None, places: Places) -> bool:
    return id is not None and id not in places.refused and _find(connection, runs, id) is not None


def _instant(micros: int | None) -> Any:
    return None if micros is None else from_micros(micros)
