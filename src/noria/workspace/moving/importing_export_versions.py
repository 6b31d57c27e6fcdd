"""The versions of an export beside those of models.

Cards and reports come as they were: they tell of models, which came too. Of any other, such as a version of
a dataset, there is only what the ledger says: it is put on record under a kind that says so, so that a run
names what it read, and nothing here looks for its rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, select

from noria.clock import from_micros
from noria.errors import Conflict
from noria.ledger.chain import Change
from noria.ledger.tables import runs, versions
from noria.ledger.versions import find_version, get_version_by_id, record_version
from noria.registry.cards import CARD_KIND
from noria.workspace.moving.exporting_files import export_file
from noria.workspace.moving.exporting_records import IMPORTED_KIND, REPORT_KINDS
from noria.workspace.moving.exporting_versions import Told
from noria.workspace.moving.importing_export import ExportImport, Places, all_rows

if TYPE_CHECKING:
    from noria.records import Version, VersionId
    from noria.workspace.moving.exporting_records import ExportManifest
    from noria.workspace.tracking_verbs import TrackingVerbs

__all__ = ["take_versions"]


def take_versions(
    project: TrackingVerbs, folder: Path, manifest: ExportManifest, places: Places, done: ExportImport
) -> None:
    """Take the versions that are not here."""
    ledger = project.ledger
    for row in all_rows(folder, manifest, "versions"):
        if done.is_dry:
            with ledger.database.read() as connection:
                done.versions += _find(connection, ledger.scope, row) is None
            continue
        if row["file"] is not None:
            project.storage.put_file(export_file(folder, row["file"], sha256=row["sha256"]))
        with ledger.change(None) as change:
            known = _find(change.connection, change.scope, row)
            if known is not None:
                places.versions[row["version"]] = known
                continue
            try:
                taken = _take(change, row, places)
            except Conflict as err:
                done.leave(f"{row['kind']} {row['name']}:{row['number']}", str(err))
                continue
            places.versions[row["version"]] = taken.id
            done.versions += 1


def _find(connection: Connection, scope: str, row: dict[str, Any]) -> VersionId | None:
    """Find a version that is of this project itself, or came before."""
    own = select(versions.c.id).where(versions.c.id == row["version"], versions.c.sha256 == row["sha256"])
    found: VersionId | None = connection.execute(own).scalar()
    if found is None and not _is_kept(row):
        kind = f"{IMPORTED_KIND}{row['kind']}"
        known = find_version(connection, scope, kind=kind, name=row["name"], sha256=row["sha256"])
        found = None if known is None else known.id
    return found


def _is_kept(row: dict[str, Any]) -> bool:
    return row["kind"] in REPORT_KINDS


def _take(change: Change, row: dict[str, Any], places: Places) -> Version:
    facts = msgspec.json.decode(row["facts"])
    kind, name, uri, number = row["kind"], row["name"], row["uri"], row["number"]
    if not _is_kept(row):
        told = Told(row["version"], kind, number, uri, facts)
        kind, uri = f"{IMPORTED_KIND}{kind}", f"elsewhere:{uri}"
        facts = {"origin": msgspec.to_builtins(told)}
    elif "model" in facts:
        model = places.versions.get(facts["model"])
        if model is None:
            raise Conflict(f"the model version that it tells of, {facts['model']}, is not here")
        here = get_version_by_id(change.connection, model)
        facts["model"] = here.id
        name = f"{here.name}.{here.number}" if kind == CARD_KIND else here.name
    same = (versions.c.scope == change.scope, versions.c.kind == kind, versions.c.name == name)
    query = select(versions.c.id).where(*same, versions.c.number == number)
    if kind != CARD_KIND and change.connection.execute(query).first() is not None:
        number = None  # the next one
    at, change.at = change.at, from_micros(row["at"])
    try:
        return record_version(
            change,
            kind=kind,
            name=name,
            sha256=row["sha256"],
            uri=uri,
            run=row["made_by"] if _is_run(change.connection, row["made_by"], places) else None,
            facts=facts,
            cause=None,
            number=number,
        )
    finally:
        change.at = at


def _is_run(connection: Connection, id: str | None, places: Places) -> bool:
    if id is None or id in places.refused:
        return False
    return connection.execute(select(runs.c.id).where(runs.c.id == id)).first() is not None
