"""The registry of an MLflow store, taken into a project once its runs and logged models are.

A version whose files are those of a run or a logged model that is here points to them; the files of others
are copied, where they can be had.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from noria.errors import BadPath, ConfigError, NotFound
from noria.records import RunId
from noria.registry.importing import ForeignRegistered, ForeignVersion, KeptFiles, RegistryImporter, unfit
from noria.registry.records import Part
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.importing import RunImporter, Standing
from noria.tracking.importing_models import ModelImporter
from noria.workspace.mlflow.source import MlflowSource, SourceFile, UnreadModel
from noria.workspace.mlflow.versions import Owner, owners_of

__all__ = ["RegistryTaking"]

_FOLDER = "registered"  # of the project's artifacts, for files that are those of no run


class TakeFiles(Protocol):
    """Copies files; tells whether they could be looked for."""

    def __call__(self, owner: str, files: Iterator[SourceFile], folder: Callable[[], str | None]) -> bool: ...


@dataclass(slots=True)
class RegistryCounts:
    """What was not here before."""

    models: int = 0
    versions: int = 0


class RegistryTaking:
    """One import of a registry on its way.

    Parameters
    ----------
    take_files
        See `TakeFiles`.
    leave
        Is told what was not taken, and why.
    """

    def __init__(
        self,
        source: MlflowSource,
        importer: RegistryImporter,
        runs: RunImporter,
        logged: ModelImporter,
        store: ArtifactStore,
        *,
        take_files: TakeFiles,
        leave: Callable[[str, str], None],
        is_dry: bool,
    ) -> None:
        self._source, self._importer, self._store = source, importer, store
        self._runs, self._logged = runs, logged
        self._take_files, self._leave, self._is_dry = take_files, leave, is_dry
        self.counts = RegistryCounts()

    def pages(self) -> Iterator[None]:
        """Take everything, a page at each step."""
        for page in self._source.registered_pages():
            for each in page:
                if isinstance(each, UnreadModel):
                    self._leave(f"registered model {each.name!r}", each.why)
                else:
                    self._take(each)
            yield

    def _take(self, model: ForeignRegistered) -> None:
        here = self._importer.here(model)
        what = f"registered model {model.name!r}"
        match here.standing:
            case Standing.UNFIT:
                return self._leave(what, here.why)
            case Standing.OTHER:
                return self._leave(what, "another model of this project has its name; rename one of the two")
        for number, why in model.unread:
            self._leave(f"model version {model.name}:{number}", why)
        for other in filter(here.has_other, model.versions):
            self._leave(
                f"model version {model.name}:{other.number}", "another version of this project has its number"
            )
        refused = {each.number: told for each in model.versions if (told := unfit(each)) is not None}
        for number, told in sorted(refused.items()):
            self._leave(f"model version {model.name}:{number}", told)
        wanted = [each for each in model.versions if each.number not in {*here.numbers, *refused}]
        if here.is_deleted:
            if wanted:
                self._leave(f"{len(wanted):,} versions of {what}", "it was deleted here")
            return None
        kept = {each.number: self._kept(model, each) for each in wanted}
        if self._is_dry:
            self.counts.models += here.standing is Standing.NEW
            self.counts.versions += len(wanted)
            return None
        taken = self._importer.take(model, kept)
        self.counts.models += taken.standing is Standing.NEW
        self.counts.versions += taken.versions
        for each, why in taken.left:
            self._leave(each, why)
        return None

    def _kept(self, model: ForeignRegistered, version: ForeignVersion) -> KeptFiles:
        """Tell where the files of a version are from now on; copy those that are nobody's."""
        if version.is_deleted:
            return KeptFiles(version.source, {})
        owners = list(owners_of(version))
        for owner in owners:
            folder = self._folder(owner)
            files = {} if folder is None else self._files(folder)
            if folder is not None and files:
                is_named = version.source.startswith("runs:/")
                return KeptFiles(version.source if is_named else _uri(folder), files)
        name = f"{model.name}:{version.number}"
        if owners and self._is_dry:
            return KeptFiles(version.location, {})  # they come with the run or the logged model
        born = f"{model.name} {model.created_at.isoformat()}"
        root = f"{_FOLDER}/{hashlib.sha256(born.encode()).hexdigest()[:16]}/{version.number}"
        self._take_files(name, self._source.version_files(version), lambda: None if self._is_dry else root)
        copied = {} if self._is_dry else self._files(root)
        return KeptFiles(_uri(root), copied) if copied else KeptFiles(version.location, {})

    def _folder(self, owner: Owner) -> str | None:
        """Give where the files of a version are that are a run's or a logged model's, if that is here."""
        try:
            if owner.is_logged_model:
                root = self._logged.files_folder(owner.id)
            else:
                root = self._runs.files_folder(RunId(owner.id))
            return checked_path(f"{root}/{owner.path}".rstrip("/"))
        except (NotFound, ConfigError, BadPath):
            return None

    def _files(self, folder: str) -> dict[str, Part]:
        found = {each.path[len(folder) + 1 :]: each for each in self._store.tree(folder)}
        if not found and (alone := self._store.find(folder)) is not None:
            found = {folder.rpartition("/")[2]: alone}
        return {path: Part(each.sha256, each.size_bytes) for path, each in found.items()}


def _uri(folder: str) -> str:
    return f"mlflow-artifacts:/{folder}"  # as it is: clients list by what they read here
