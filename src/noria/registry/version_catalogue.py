"""Versions of models that are kept elsewhere, and what people say of versions: stages, tags, descriptions.

A version that is registered here is one of the ledger, and never changes: its content is a manifest of where
it comes from and of the files that are there. See `noria.registry.catalogue` for the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from sqlalchemy import Row, delete, insert, select

from noria.database.upserts import Upsert
from noria.errors import ConfigError, NotFound
from noria.ledger.chain import Change
from noria.ledger.store import Ledger
from noria.ledger.tables import runs
from noria.records import canonical_json, new_id
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_records import CataloguedVersion, Stage
from noria.registry.catalogue_rules import check_id, check_model_name, check_text, checked_number, tag_rows
from noria.registry.catalogue_search import VersionPage, search_versions
from noria.registry.labels import changing, get_model, get_version, read_versions, text_digest, touch_model
from noria.registry.records import FOLDER_FORMAT, FolderManifest, Part, is_folder
from noria.registry.sources import (
    ModelReference,
    Sourced,
    SourceRoots,
    checked_source,
    find_reference,
)
from noria.registry.tables import model_aliases, model_version_tags, model_versions
from noria.storage.contract import Storage
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore

__all__ = ["VersionCatalogue"]

_TAGS = Upsert(model_version_tags, replaced=("value", "head"))


class VersionCatalogue:
    """Versions of models of a project. Safe to use from many threads and processes.

    Parameters
    ----------
    storage
        Keeps what a version that is registered here consists of.
    artifacts
        The files that runs left.
    roots
        Tells where the files of runs and logged models are.
    """

    def __init__(
        self, ledger: Ledger, storage: Storage, artifacts: ArtifactStore, roots: SourceRoots
    ) -> None:
        self._ledger, self._storage, self._artifacts, self._roots = ledger, storage, artifacts, roots
        self._models = ModelCatalogue(ledger)

    def register(
        self,
        name: str,
        source: str,
        *,
        run: str | None = None,
        logged_model: str | None = None,
        run_link: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        actor: str | None = None,
    ) -> CataloguedVersion:
        """Register what somebody keeps as the next version of a model; the same again is one more.

        Its content is what is in the files below the source now, where they are the project's: their digests
        are part of it.

        Parameters
        ----------
        source
            A URI; see `noria.registry.sources`.
        run, logged_model
            Which it comes from. A run of this project has made the version, as its lineage tells.

        Raises
        ------
        NotFound
            If there is no such model.
        ConfigError
            If the source leads elsewhere than it may.
        """
        check_model_name(name)
        for what, text in (("source", source), ("run_link", run_link), ("description", description)):
            check_text(what, text)
        for what, text in (("run_id", run), ("model_id", logged_model)):
            check_id(what, text)
        rows = tag_rows(tags or {})
        with self._ledger.database.read() as connection:
            get_model(connection, name)
        found, files = self._resolve(source, run or None, logged_model or None)
        manifest = FolderManifest(
            name=name,
            source=found.source,
            location=found.location,
            run=found.run,
            logged_model=found.logged_model,
            files=files,
            registration=new_id(),
        )
        sha256 = self._storage.put(canonical_json(manifest))
        facts = {"format": FOLDER_FORMAT, "metrics": {}, "parents": [], "source": found.source,
                 "files": len(manifest.files)}  # fmt: skip
        with changing(self._ledger, name, actor) as (change, model):
            made_by = select(runs.c.id).where(runs.c.id == (found.run or ""))
            version = self._ledger.record_version(
                "model",
                model.ledger_name,
                sha256=sha256,
                uri=self._storage.uri(sha256),
                run=change.connection.execute(made_by).scalar(),
                facts=facts,
            )
            row = {
                "version": version.id,
                "model": model.id,
                "number": version.number,
                "source": found.source,
                "location": found.location,
                "run": found.run,
                "logged_model": found.logged_model,
                "run_link": run_link,
                "description": description,
                "stage": Stage.NONE.value,
                "created_at": version.recorded_at,
                "updated_at": version.recorded_at,
            }
            change.connection.execute(insert(model_versions).values(row))
            _TAGS.execute(change.connection, [{"version": version.id, **each} for each in rows])
            touch_model(change, model)
            return read_versions(change.connection, [version.id])[0]

    def get(self, name: str, number: int) -> CataloguedVersion:
        """Give a version of a model. Raises `NotFound`."""
        check_model_name(name)
        with self._ledger.database.read() as connection:
            row = get_version(connection, get_model(connection, name), checked_number(number))
            return read_versions(connection, [row.version])[0]

    def get_file(self, name: str, number: int, path: str) -> Artifact:
        """Give a file of a version as it was registered, whatever its path names now.

        Raises
        ------
        BadPath
            If it can be no path.
        NotFound
            If there is no such version, or no such file in it; files of elsewhere are none of it.
        """
        wanted = checked_path(path)
        found = self.get(name, number)
        files = self._sealed(found)
        part = files.get(wanted)
        if part is None:
            raise NotFound("artifact", path, files)
        return Artifact(path=wanted, sha256=part.sha256, size_bytes=part.size_bytes, put_at=found.created_at)

    def latest(self, name: str, stages: Sequence[Stage] = ()) -> list[CataloguedVersion]:
        """Give the greatest version of each stage, or of these stages. Raises `NotFound`."""
        wanted = set(stages or Stage)
        return [each for each in self._models.get(name).latest if each.stage in wanted]

    def get_staged(self, name: str, stage: str | None) -> CataloguedVersion:
        """Give the greatest version, or that of a stage. Raises `NotFound`, `ConfigError` if none is."""
        found = self.latest(name, () if stage is None else (Stage.read(stage),))
        if not found:
            told = "" if stage is None else f" in stage {stage!r}"
            raise ConfigError(f"model {name!r} has no version{told}; name one by its number")
        return max(found, key=lambda each: each.number)

    def describe(
        self, name: str, number: int, description: str | None, *, actor: str | None = None
    ) -> CataloguedVersion:
        """Say what a version is. Raises `NotFound`."""
        check_text("description", description)
        with changing(self._ledger, name, actor) as (change, model):
            row = get_version(change.connection, model, checked_number(number))
            _touch(change, row, description=description)
            payload = {"sha256": text_digest(description)}
            change.record("model_version.described", _reference(model, row), payload=payload, cause=None)
            return read_versions(change.connection, [row.version])[0]

    def put_stage(
        self,
        name: str,
        number: int,
        stage: Stage,
        *,
        archive_others: bool = False,
        actor: str | None = None,
    ) -> CataloguedVersion:
        """Say that a version is in a stage. No deployment moves.

        Parameters
        ----------
        archive_others
            Those that are in it go to `Archived`; only of an active stage.

        Raises
        ------
        NotFound
            If there is no such version.
        ConfigError
            If others cannot be archived.
        """
        if archive_others and not stage.is_active:
            raise ConfigError(
                f"Model version transition cannot archive existing model versions because {stage.value!r} is "
                "not an Active stage. Valid stages are Staging and Production"
            )
        with changing(self._ledger, name, actor) as (change, model):
            row = get_version(change.connection, model, checked_number(number))
            moved = [(row, stage)]
            if archive_others:
                others = select(model_versions).where(
                    model_versions.c.model == model.id,
                    model_versions.c.deleted_at.is_(None),
                    model_versions.c.stage == stage.value,
                    model_versions.c.number != number,
                )
                found = change.connection.execute(others.order_by(model_versions.c.number)).all()
                moved += [(each, Stage.ARCHIVED) for each in found]
            for each, into in moved:
                _touch(change, each, stage=into.value)
                if each.stage != into:
                    payload = {"stage": into.value, "before": each.stage}
                    change.record(
                        "model_version.staged", _reference(model, each), payload=payload, cause=None
                    )
            touch_model(change, model)
            return read_versions(change.connection, [row.version])[0]

    def delete(self, name: str, number: int, *, actor: str | None = None) -> None:
        """Mark a version as deleted; it stays on record, and where it is deployed. Raises `NotFound`.

        Its aliases go; its number is not given again.
        """
        with changing(self._ledger, name, actor) as (change, model):
            row = get_version(change.connection, model, checked_number(number))
            _touch(change, row, deleted_at=change.recorded_at)
            mine = (model_aliases.c.model == model.id, model_aliases.c.number == number)
            change.connection.execute(delete(model_aliases).where(*mine))
            touch_model(change, model)
            change.record("model_version.deleted", _reference(model, row), payload={}, cause=None)

    def undelete(self, name: str, number: int, *, actor: str | None = None) -> CataloguedVersion:
        """Take the mark of deletion from a version; its aliases are not there again.

        Raises
        ------
        NotFound
            If there is no such model, or it has no such version that was deleted.
        """
        with changing(self._ledger, name, actor) as (change, model):
            query = select(model_versions).where(
                model_versions.c.model == model.id,
                model_versions.c.number == checked_number(number),
                model_versions.c.deleted_at.is_not(None),
            )
            row = change.connection.execute(query).first()
            if row is None:
                raise NotFound("deleted version", f"{name}:{number}", ())
            _touch(change, row, deleted_at=None)
            touch_model(change, model)
            change.record("model_version.restored", _reference(model, row), payload={}, cause=None)
            return read_versions(change.connection, [row.version])[0]

    def put_tag(self, name: str, number: int, tag: str, value: str) -> None:
        """Set a tag of a version. Raises `NotFound`, `ConfigError`."""
        rows = tag_rows({tag: value})
        with changing(self._ledger, name) as (change, model):
            row = get_version(change.connection, model, checked_number(number))
            _TAGS.execute(change.connection, [{"version": row.version, **each} for each in rows])

    def remove_tag(self, name: str, number: int, tag: str) -> None:
        """Take a tag of a version away; one that is not there is no fault. Raises `NotFound`."""
        check_text("key", tag)
        with changing(self._ledger, name) as (change, model):
            row = get_version(change.connection, model, checked_number(number))
            mine = (model_version_tags.c.version == row.version, model_version_tags.c.name == tag)
            change.connection.execute(delete(model_version_tags).where(*mine))

    def search(
        self,
        *,
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int = 10_000,
        page: str | None = None,
    ) -> VersionPage:
        """Find versions; see `noria.registry.catalogue_search.search_versions`."""
        with self._ledger.database.read() as connection:
            return search_versions(connection, filter=filter, order_by=order_by, limit=limit, page=page)

    def _resolve(
        self, source: str, run: str | None, logged_model: str | None
    ) -> tuple[Sourced, dict[str, Part]]:
        """Give what a source leads to, and its files; those of a version are as they were registered.

        Raises `NotFound`, `ConfigError`.
        """
        named = find_reference(source)
        if named is None:
            sourced = checked_source(source, run=run, logged_model=logged_model, roots=self._roots)
            return sourced, self._files(sourced.folder)
        found = self._referred(named)
        told = ((run, found.run), (logged_model, found.logged_model))
        if any(asked is not None and asked != known for asked, known in told):
            raise ConfigError(
                f"Invalid model version source: {source!r}. The run_id and model_id request parameters must "
                "match the referenced model version."
            )
        plain = f"models:/{found.model}/{found.number}"
        sourced = Sourced(plain, found.location, found.run, found.logged_model, None)
        return sourced, self._sealed(found)

    def _sealed(self, found: CataloguedVersion) -> dict[str, Part]:
        """Give the files of a version as they were registered; those of elsewhere are not known."""
        version = self._ledger.get_version_by_id(found.id)
        if not is_folder(version):
            return {}
        return msgspec.json.decode(self._storage.get(version.sha256), type=FolderManifest).files

    def _referred(self, named: ModelReference) -> CataloguedVersion:
        if named.number is not None:
            return self.get(named.name, named.number)
        if named.alias is not None:
            return self._models.get_aliased(named.name, named.alias)
        return self.get_staged(named.name, named.stage)

    def _files(self, folder: str | None) -> dict[str, Part]:
        """Give what is in a folder of the project's artifacts, or the one file that it is."""
        if not folder:
            return {}
        return self._files_at(folder) or self._files_at(unquote(folder))

    def _files_at(self, folder: str) -> dict[str, Part]:
        files = {each.path[len(folder) + 1 :]: each for each in self._artifacts.tree(folder)}
        if not files and (alone := self._artifacts.find(folder)) is not None:
            files = {folder.rpartition("/")[2]: alone}
        return {name: Part(each.sha256, each.size_bytes) for name, each in files.items()}


def _touch(change: Change, row: Row[Any], **values: Any) -> None:
    statement = model_versions.update().where(model_versions.c.version == row.version)
    change.connection.execute(statement.values(**values, updated_at=change.recorded_at))


def _reference(model: Row[Any], row: Row[Any]) -> str:
    return f"{model.ledger_name}:{row.number}"
