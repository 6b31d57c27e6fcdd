"""How the models of runs are written, and registered: what `run.log_model` needs of the registry."""

from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

from noria.errors import ConfigError, Conflict, NotFound
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_rules import check_model_name
from noria.registry.registered_tag import tell_registered
from noria.registry.sources import LoggedRoot, SourceRoots
from noria.registry.version_catalogue import VersionCatalogue
from noria.storage.contract import Storage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.models.logged_models import LoggedModels

__all__ = ["ProjectShelf"]

_SERIALIZATIONS = ("skops", "pickle")


class ProjectShelf:
    """Writes models as MLflow's clients read them, and registers them in a project's catalogue."""

    def __init__(self, ledger: Ledger, storage: Storage, artifacts: ArtifactStore) -> None:
        self._ledger, self._storage, self._artifacts = ledger, storage, artifacts

    def write(self, model: object, folder: Path, *, example: object | None, serialization: str) -> str:
        """Write a model into an empty folder; give its flavor. Raises `ConfigError`, `SourceError`."""
        from noria.registry.folders.writing import write_model_folder

        if serialization not in _SERIALIZATIONS:
            raise ConfigError(f"serialization={serialization!r}: found another than skops and pickle")
        kind = cast("Literal['skops', 'pickle']", serialization)
        return write_model_folder(model, folder, example=example, serialization=kind).flavor

    def check_registrable(self, name: str) -> None:
        """Raise `ConfigError` if a model cannot be registered under a name."""
        check_model_name(name)

    def register(self, name: str, *, logged_model: str, run: RunId) -> int:
        """Register a logged model as the next version of a name; give its number."""
        catalogue, models = ModelCatalogue(self._ledger), LoggedModels(self._ledger)
        try:
            catalogue.get(name)
        except NotFound:
            with suppress(Conflict):  # somebody else has made it just now
                catalogue.create(name)
        found = models.get(logged_model)
        roots = SourceRoots(
            of_run=lambda _: None, of_model=lambda _: LoggedRoot(found.artifact_uri, found.source_run)
        )
        versions = VersionCatalogue(self._ledger, self._storage, self._artifacts, roots)
        made = versions.register(name, f"models:/{logged_model}", run=run, logged_model=logged_model)
        tell_registered(models, logged_model, made)
        return made.number
