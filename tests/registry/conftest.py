"""What tests of the catalogue work with, on each kind of database."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.tracking.conftest import either_ledger  # noqa: F401 - a fixture

from noria.api.mlflow.source_roots import source_roots
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.registry.catalogue import ModelCatalogue
from noria.registry.store import Registry
from noria.registry.version_catalogue import VersionCatalogue
from noria.storage.opening import open_storage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.experiments import ExperimentBook
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.run_desk import RunDesk


@dataclass
class Shelf:
    """A catalogue, and all that its versions come from."""

    ledger: Ledger
    artifacts: ArtifactStore
    registry: Registry
    models: ModelCatalogue
    versions: VersionCatalogue
    desk: RunDesk
    logged: LoggedModels
    folder: Path

    def run(self, *files: str) -> RunId:
        """Start a run, and give it files whose content is their name."""
        run = self.desk.start("0").info.id
        for each in files:
            self.put(f"0/{run}/artifacts/{each}", each)
        return run

    def put(self, path: str, text: str) -> None:
        """Put an artifact."""
        (self.folder / "given").write_text(text)
        self.artifacts.put_file(path, self.folder / "given")

    def made(self, name: str, count: int = 1) -> list[int]:
        """Register versions of a model of elsewhere; give their numbers."""
        return [self.versions.register(name, f"s3://bucket/{name}").number for _ in range(count)]


@pytest.fixture
def shelf(either_ledger: Ledger, tmp_path: Path) -> Shelf:  # noqa: F811
    """Give an empty catalogue."""
    storage = open_storage(str(tmp_path / "storage"))
    artifacts = ArtifactStore(either_ledger.database, storage, tmp_path / "staging")
    desk, logged = RunDesk(either_ledger), LoggedModels(either_ledger)
    roots = source_roots(desk, ExperimentBook(either_ledger), logged)
    return Shelf(
        ledger=either_ledger,
        artifacts=artifacts,
        registry=Registry(either_ledger, storage),
        models=ModelCatalogue(either_ledger),
        versions=VersionCatalogue(either_ledger, storage, artifacts, roots),
        desk=desk,
        logged=logged,
        folder=tmp_path,
    )
