"""Models in memory by reference: of noria and of MLflow's clients, of versions, runs and logged models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from noria.errors import ConfigError, NotFound
from noria.records import RunId
from noria.registry.catalogue import ModelCatalogue
from noria.registry.folders.contents import Contents, KeptContents, LocalContents
from noria.registry.folders.frames import as_rows
from noria.registry.folders.loaded import LoadedEstimator
from noria.registry.folders.loading import load_folder
from noria.registry.folders.trust import PickleTrust
from noria.registry.records import Part, is_folder
from noria.registry.sources import ModelReference, SourceRoots, artifact_folder, find_reference
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.artifacts import Artifact
from noria.tracking.experiments import ExperimentBook
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.run_desk import RunDesk
from noria.tracking.tables import logged_models

if TYPE_CHECKING:
    from noria.records import Version
    from noria.registry.catalogue_records import CataloguedVersion
    from noria.registry.matrix import Matrix
    from noria.registry.store import LoadedModel
    from noria.workspace.project import Project

__all__ = ["ModelLoading"]

_SCHEME = re.compile(r"(runs|models):/([^/].*)")
_PLACES = "mlflow-artifacts:/"


class ModelLoading:
    """Loads models of a project."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._ledger, self._artifacts = project.ledger, project.artifacts
        self._trust = PickleTrust.of(project.settings.registry.trust_pickle)

    def load(self, reference: str | Path) -> LoadedEstimator:
        """Give the model that a reference names; see `noria.workspace.models.verbs.ModelVerbs.load_model`."""
        if isinstance(reference, Path):
            return load_folder(LocalContents(reference), trust=self._trust, reference=str(reference))
        parts = _SCHEME.fullmatch(reference)
        if parts is None:
            return self._by_name(reference)
        kind, rest = parts[1], parts[2].strip("/")
        if kind == "runs":
            run, _, path = rest.partition("/")
            return self._of_run(reference, run, path)
        named = find_reference(reference)
        if named is None:
            return self._logged(reference, rest)
        return self._catalogued(reference, self._referred(named))

    def _referred(self, named: ModelReference) -> CataloguedVersion:
        if named.number is not None:
            return self._versions().get(named.name, named.number)
        if named.alias is not None:
            return ModelCatalogue(self._ledger).get_aliased(named.name, named.alias)
        return self._versions().get_staged(named.name, named.stage)

    def _by_name(self, reference: str) -> LoadedEstimator:
        """Load by the name and number of the ledger, else by those that the catalogue shows."""
        if ":/" in reference:
            raise ConfigError(
                f"{reference[:200]!r} names no model of a project; write NAME, NAME:3, NAME@ENVIRONMENT, "
                "models:/NAME/3, models:/NAME@ALIAS, models:/m-ID or runs:/RUN/PATH"
            )
        try:
            return self._version(reference, self._project.model(reference))
        except NotFound:
            found = self._in_catalogue(reference)
            if found is None:
                raise
        return self._catalogued(reference, found)

    def _in_catalogue(self, reference: str) -> CataloguedVersion | None:
        name, colon, number = reference.partition(":")
        try:
            if colon:
                return self._versions().get(name, int(number))
            return self._versions().get_staged(name, None)
        except (NotFound, ConfigError):
            return None

    def _catalogued(self, reference: str, found: CataloguedVersion) -> LoadedEstimator:
        version = self._ledger.get_version_by_id(found.id)
        return self._version(reference, version, shown=found)

    def _version(
        self, reference: str, version: Version, *, shown: CataloguedVersion | None = None
    ) -> LoadedEstimator:
        registry = self._project.registry
        if not is_folder(version):
            if registry.read_manifest(version).signature.is_as_given:
                from noria.workspace.models.loaded_given import load_given

                return load_given(self._project, version, reference)
            return _native(reference, registry.load(version), self._project)
        return self._folder(reference, version, shown=shown)[0]

    def load_folder_version(self, version: Version) -> tuple[LoadedEstimator, Contents, Mapping[str, Part]]:
        """Give the model of a version that is a folder, and its files. Raises as `load` does."""
        return self._folder(version.ref, version)

    def _folder(
        self, reference: str, version: Version, *, shown: CataloguedVersion | None = None
    ) -> tuple[LoadedEstimator, Contents, Mapping[str, Part]]:
        manifest = self._project.registry.read_folder(version)
        where = f"version {shown.model}:{shown.number}" if shown else f"version {version.ref}"
        if not manifest.files:
            raise ConfigError(
                f"the files of {where} are none of this project's: its source is {manifest.source[:200]!r}; "
                "load it by who keeps them, or log the model to a run here and register that"
            )
        contents = self._contents(where, manifest.files)
        name = shown.model if shown else manifest.name
        loaded = load_folder(contents, trust=self._trust, model=name, reference=reference)
        return loaded, contents, manifest.files

    def _logged(self, reference: str, id: str) -> LoadedEstimator:
        found = LoggedModels(self._ledger).get(id)
        return self._at(reference, f"the logged model {id}", artifact_folder(found.artifact_uri))

    def _of_run(self, reference: str, run: str, path: str) -> LoadedEstimator:
        info = RunDesk(self._ledger).get(RunId(run)).info
        experiment = ExperimentBook(self._ledger).get_by_id(info.experiment)
        place = experiment.artifact_uri or f"{_PLACES}{experiment.id}"
        folder = artifact_folder(f"{place}/{info.id}/artifacts", path)
        if folder and self._artifacts.tree(folder):
            return self._at(reference, reference, folder)
        # A client of MLflow 3 keeps a model that it logs beside the run, under the name that was given.
        query = (
            select(logged_models.c.id)
            .where(logged_models.c.source_run == info.id, logged_models.c.name == path)
            .where(logged_models.c.deleted_at.is_(None))
            .order_by(logged_models.c.created_at.desc(), logged_models.c.id.desc())
        )
        with self._ledger.database.read() as connection:
            id = connection.execute(query).scalar()
        if id is None:
            raise NotFound("model", reference)
        return self._logged(reference, id)

    def _at(self, reference: str, where: str, folder: str | None) -> LoadedEstimator:
        if folder is None:
            raise ConfigError(f"the files of {where} are none of this project's; load it by who keeps them")
        files = {
            each.path[len(folder) + 1 :]: Part(each.sha256, each.size_bytes)
            for each in self._artifacts.tree(folder)
        }
        if not files:
            raise NotFound("model", reference)
        return load_folder(self._contents(where, files), trust=self._trust, reference=reference)

    def _contents(self, where: str, files: Mapping[str, Part]) -> Contents:
        def fetch(name: str, part: Part) -> Path:
            never = datetime.fromtimestamp(0, UTC)  # it is found by its digest alone
            return self._artifacts.fetch(
                Artifact(path=name, sha256=part.sha256, size_bytes=part.size_bytes, put_at=never)
            )

        return KeptContents(where, files, fetch)

    def _versions(self) -> VersionCatalogue:
        nowhere = SourceRoots(of_run=lambda _: None, of_model=lambda _: None)  # nothing is registered here
        return VersionCatalogue(self._ledger, self._project.storage, self._artifacts, nowhere)


def _native(reference: str, loaded: LoadedModel, project: Project) -> LoadedEstimator:
    """Give a version that noria keeps whole; it scores rows of its inputs, on-demand features added."""

    def predict(frame: object) -> Matrix:
        rows = as_rows(frame)
        if hasattr(rows, "column_names"):
            return loaded.score_rows(project.registry.add_on_demand(loaded.version, rows))
        return loaded.score(rows)

    flavor = "sklearn" if loaded.manifest.format == "skops" else loaded.manifest.format
    return LoadedEstimator(reference, flavor, loaded.estimator, loaded.signature, predict)
