"""Registered models of elsewhere, taken in as they were: one transaction for a model and its versions.

A version keeps its number, and is one of the ledger, whose content is where it comes from and the files that
were found. What is here already stays as it is, but for stages and aliases that nobody has touched here: they
follow where they came from.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, insert, select

from noria.database.upserts import Upsert
from noria.errors import ConfigError
from noria.ledger.chain import Change
from noria.ledger.store import Ledger
from noria.ledger.tables import runs
from noria.ledger.versions import record_version
from noria.records import canonical_json
from noria.registry.catalogue_records import Stage
from noria.registry.catalogue_rules import (
    MAX_NUMBER,
    check_alias,
    check_id,
    check_model_name,
    check_text,
    tag_rows,
)
from noria.registry.labels import add_model, find_model, free_ledger_name
from noria.registry.records import FOLDER_FORMAT, FolderManifest, Part
from noria.registry.tables import (
    model_aliases,
    model_tags,
    model_version_tags,
    model_versions,
    registered_models,
)
from noria.storage.contract import Storage
from noria.tracking.importing import Standing

__all__ = [
    "ForeignRegistered",
    "ForeignVersion",
    "Here",
    "KeptFiles",
    "RegistryImporter",
    "TakenModel",
    "unfit",
]

_ALIAS_VERBS = ("model.alias_set", "model.alias_removed")
_TAGS, _VERSION_TAGS = Upsert(model_tags), Upsert(model_version_tags)
_ALIASES = Upsert(model_aliases, replaced=("number",))
_ALIKE = (
    select(registered_models)
    .where(registered_models.c.created_at == bindparam("at"))
    .order_by(registered_models.c.id)
)
_OWN = select(model_versions).where(model_versions.c.model == bindparam("of_model"))
_MODEL = registered_models.update().where(registered_models.c.id == bindparam("of_model"))
_RUN = select(runs.c.id).where(runs.c.id == bindparam("wanted"))


class ForeignVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model that was registered elsewhere."""

    number: int
    source: str  # as it was registered
    location: str  # where its files were
    created_at: datetime
    updated_at: datetime
    run: str | None = None
    logged_model: str | None = None
    run_link: str | None = None
    description: str | None = None
    owner: str | None = None
    stage: Stage = Stage.NONE
    status: str = "READY"
    status_message: str | None = None
    is_deleted: bool = False
    tags: dict[str, str] = {}


class ForeignRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was registered elsewhere, with all its versions."""

    name: str
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    tags: dict[str, str] = {}
    aliases: dict[str, int] = {}
    versions: tuple[ForeignVersion, ...] = ()
    unread: tuple[tuple[int, str], ...] = ()  # versions that cannot be taken, and why


@dataclass(frozen=True, slots=True)
class Here:
    """What is here of a model of elsewhere.

    Attributes
    ----------
    standing
        `NEW`, `KNOWN`, `OTHER`: another model of this project has its name, or `UNFIT`: no model can have it.
    numbers
        Of its versions that are here, the deleted ones too, and when each was made.
    is_deleted
        It was taken in, and deleted here since: nothing is added to it.
    why
        It is unfit.
    """

    standing: Standing
    numbers: Mapping[int, datetime] = field(default_factory=dict)
    is_deleted: bool = False
    why: str = ""

    def has_other(self, version: ForeignVersion) -> bool:
        """Tell whether its number is that of a version which was made here meanwhile."""
        return self.numbers.get(version.number, version.created_at) != version.created_at


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """Where the files of a version are from now on; those in the project's artifacts with their digests."""

    location: str
    files: Mapping[str, Part]


@dataclass(frozen=True, slots=True)
class TakenModel:
    """What became of a model: what was here before, how many versions are new, and what was left, and why."""

    standing: Standing
    versions: int
    left: tuple[tuple[str, str], ...]


class RegistryImporter:
    """Takes registered models of elsewhere into a project. Safe to use from many processes."""

    def __init__(self, ledger: Ledger, storage: Storage) -> None:
        self._ledger, self._storage = ledger, storage

    def here(self, model: ForeignRegistered) -> Here:
        """Tell what is here of a model."""
        with self._ledger.database.read() as connection:
            return _here(connection, model)[0]

    def take(self, model: ForeignRegistered, kept: Mapping[int, KeptFiles]) -> TakenModel:
        """Take a model in with those of its versions that are not here, all or nothing.

        Parameters
        ----------
        kept
            By number, of each version that is to be taken; none of them is `unfit`.
        """
        fit = [each for each in sorted(model.versions, key=lambda version: version.number)
               if each.number in kept]  # fmt: skip
        with self._ledger.change(None) as change:
            here, row = _here(change.connection, model)
            if here.standing not in {Standing.NEW, Standing.KNOWN} or here.is_deleted:
                return TakenModel(here.standing, 0, ())
            if row is None:
                row = self._begin(change, model)
            added = [each for each in fit if each.number not in here.numbers]
            for each in added:
                self._take_version(change, row, each, kept[each.number])
            if here.standing is Standing.KNOWN:
                self._follow_stages(change, row, model, here)
            left = self._take_aliases(change, row, model, here)
            newest = max(row.updated_at, model.updated_at)
            change.connection.execute(_MODEL, {"of_model": row.id, "updated_at": newest})
            return TakenModel(here.standing, len(added), tuple(left))

    def _begin(self, change: Change, model: ForeignRegistered) -> Row[Any]:
        connection = change.connection
        ledger_name = free_ledger_name(connection, model.name)
        id = add_model(connection, model.name, ledger_name, model.created_at, model.description)
        connection.execute(_MODEL, {"of_model": id, "updated_at": model.updated_at})
        _TAGS.execute(connection, [{"model": id, **each} for each in tag_rows(model.tags)])
        change.record("model.created", ledger_name, payload={"name": model.name}, cause=None)
        return connection.execute(select(registered_models).where(registered_models.c.id == id)).one()

    def _take_version(
        self, change: Change, model: Row[Any], version: ForeignVersion, kept: KeptFiles
    ) -> None:
        manifest = FolderManifest(
            name=model.name,
            source=version.source,
            location=kept.location,
            run=version.run,
            logged_model=version.logged_model,
            files=dict(kept.files),
            registration=f"{version.created_at.isoformat()} {version.number}",
        )
        sha256 = self._storage.put(canonical_json(manifest))
        facts = {
            "format": FOLDER_FORMAT,
            "metrics": {},
            "parents": [],
            "source": version.source,
            "files": len(manifest.files),
            "registered_at": version.created_at.isoformat(),
        }
        connection = change.connection
        recorded = record_version(
            change,
            kind="model",
            name=model.ledger_name,
            sha256=sha256,
            uri=self._storage.uri(sha256),
            run=connection.execute(_RUN, {"wanted": version.run or ""}).scalar(),
            facts=facts,
            cause=None,
            number=version.number,
        )
        row = {
            "version": recorded.id,
            "model": model.id,
            "number": version.number,
            "source": version.source,
            "location": kept.location,
            "run": version.run,
            "logged_model": version.logged_model,
            "run_link": version.run_link,
            "description": version.description,
            "stage": version.stage.value,
            "created_at": version.created_at,
            "updated_at": version.updated_at,
            "deleted_at": version.updated_at if version.is_deleted else None,
            "status": version.status,
            "status_message": version.status_message,
            "owner": version.owner,
        }
        connection.execute(insert(model_versions).values(row))
        tags = [{"version": recorded.id, **each} for each in tag_rows(version.tags)]
        _VERSION_TAGS.execute(connection, tags)

    def _follow_stages(
        self, change: Change, model: Row[Any], foreign: ForeignRegistered, before: Here
    ) -> None:
        """Let versions be in the stage that they have there, unless somebody put them into one here."""
        wanted = {
            each.number: each
            for each in foreign.versions
            if not each.is_deleted and not before.has_other(each)
        }
        for row in change.connection.execute(_OWN, {"of_model": model.id}).all():
            each = wanted.get(row.number)
            if each is None or row.deleted_at is not None or row.stage == each.stage.value:
                continue
            subject = f"{model.ledger_name}:{row.number}"
            if not self._is_touched(["model_version.staged"], subject, {}):
                update = model_versions.update().where(model_versions.c.version == row.version)
                change.connection.execute(update.values(stage=each.stage.value, updated_at=each.updated_at))
                payload = {"stage": each.stage.value, "before": row.stage, "imported": True}
                change.record("model_version.staged", subject, payload=payload, cause=None)

    def _take_aliases(
        self, change: Change, model: Row[Any], foreign: ForeignRegistered, before: Here
    ) -> Iterable[tuple[str, str]]:
        """Let aliases that nobody has touched here be as there; give those that stay, and why."""
        connection = change.connection
        mine = select(model_aliases.c.alias, model_aliases.c.number).where(model_aliases.c.model == model.id)
        here = {row.alias: row.number for row in connection.execute(mine)}
        rows = connection.execute(_OWN, {"of_model": model.id}).all()
        others = {each.number for each in foreign.versions if before.has_other(each)}
        numbers = {row.number for row in rows if row.deleted_at is None} - others
        left: list[tuple[str, str]] = []
        for alias, number in foreign.aliases.items():
            what, named = f"alias {foreign.name}@{alias}", here.get(alias)
            if named == number and number not in others:
                continue
            try:
                check_alias(alias)
            except ConfigError as err:
                left.append((what, str(err)))
                continue
            if number not in numbers:
                left.append((what, f"it names version {number}, which is not here"))
            elif self._is_touched(_ALIAS_VERBS, model.ledger_name, {"alias": alias}):
                now = "nothing" if named is None else f"version {named}"
                left.append((what, f"it names version {number} there; somebody let it name {now} here"))
            else:
                _ALIASES.execute(connection, [{"model": model.id, "alias": alias, "number": number}])
                payload = {"alias": alias, "version": number, "before": named, "imported": True}
                change.record("model.alias_set", model.ledger_name, payload=payload, cause=None)
        for alias in sorted(here.keys() - foreign.aliases.keys()):
            self._drop_alias(change, model, alias, here[alias])
        return left

    def _drop_alias(self, change: Change, model: Row[Any], alias: str, number: int) -> None:
        """Take an alias away that is there no more, if an import brought it and nobody has touched it."""
        set_here = self._ledger.list_events(verb="model.alias_set", subject=model.ledger_name)
        brought = any(each.payload.get("alias") == alias for each in set_here)
        if not brought or self._is_touched(_ALIAS_VERBS, model.ledger_name, {"alias": alias}):
            return
        mine = (model_aliases.c.model == model.id, model_aliases.c.alias == alias)
        change.connection.execute(model_aliases.delete().where(*mine))
        payload = {"alias": alias, "version": number, "imported": True}
        change.record("model.alias_removed", model.ledger_name, payload=payload, cause=None)

    def _is_touched(self, verbs: Iterable[str], subject: str, payload: Mapping[str, str]) -> bool:
        """Tell whether something was said here that no import said."""
        return any(
            not event.payload.get("imported")
            and all(event.payload.get(name) == value for name, value in payload.items())
            for each in verbs
            for event in self._ledger.list_events(verb=each, subject=subject)
        )


def _here(connection: Connection, model: ForeignRegistered) -> tuple[Here, Row[Any] | None]:
    """Tell what is here of a model; it may have another name by now, here or there."""
    try:
        check_model_name(model.name)
        check_text("description", model.description)
        tag_rows(model.tags)
    except ConfigError as err:
        return Here(Standing.UNFIT, why=str(err)), None
    alike = connection.execute(_ALIKE, {"at": model.created_at}).all()
    told = {each.number: each.created_at for each in model.versions}
    for row in sorted(alike, key=lambda each: (each.deleted_at is not None, each.name != model.name)):
        own = connection.execute(_OWN, {"of_model": row.id}).all()
        is_same = _is_named(row, model.name) or any(told.get(each.number) == each.created_at for each in own)
        if is_same:
            numbers = {each.number: each.created_at for each in own}
            return Here(Standing.KNOWN, numbers, row.deleted_at is not None), row
    if find_model(connection, model.name) is not None:
        return Here(Standing.OTHER), None
    return Here(Standing.NEW), None


def _is_named(row: Row[Any], name: str) -> bool:
    base = re.escape(name.replace("@", "~"))
    return row.name == name or re.fullmatch(rf"{base}(~\d+)?", row.ledger_name) is not None


def unfit(version: ForeignVersion) -> str | None:
    """Say why a version cannot be kept; None: it can."""
    texts = {
        "source": version.source,
        "location": version.location,
        "run_link": version.run_link,
        "description": version.description,
        "status": version.status,
        "status_message": version.status_message,
        "user_id": version.owner,
    }
    try:
        for what, text in texts.items():
            check_text(what, text)
        check_id("run_id", version.run)
        check_id("model_id", version.logged_model)
        tag_rows(version.tags)
    except ConfigError as err:
        return str(err)
    if not 1 <= version.number <= MAX_NUMBER:
        return f"its number is {version.number}, wanted is one from 1"
    return None
