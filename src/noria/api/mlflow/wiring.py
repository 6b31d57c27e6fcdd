"""What of a project answers MLflow's clients."""

from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from noria.api.mlflow.application import Endpoint, MlflowApplication, RawEndpoint
from noria.api.mlflow.artifacts import ArtifactRoutes
from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.experiments import ExperimentEndpoints
from noria.api.mlflow.logged_models import LoggedModelEndpoints
from noria.api.mlflow.logging import LoggingEndpoints
from noria.api.mlflow.model_versions import ModelVersionEndpoints
from noria.api.mlflow.registered_models import RegisteredModelEndpoints
from noria.api.mlflow.runs import RunEndpoints
from noria.api.mlflow.source_roots import source_roots
from noria.api.mlflow.version_files import VersionFiles
from noria.api.mlflow.wire import artifact_root
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.registry.catalogue import ModelCatalogue
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.experiments import ExperimentBook
from noria.tracking.histories import HistoryReader
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.multipart import PartedUploads
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore
from noria.workspace.project import Project

__all__ = ["mlflow_application"]

_VERSION = "3.17.2"  # of the protocol that is spoken
_ABILITIES = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": True,
    "multipart_downloads_enabled": False,  # a client asks twice for every file then; those that want it may
    "artifact_serving_enabled": True,
    "features_enabled": {"gateway": False},
    "artifacts_presigned_only": False,
}


class _Nothing(msgspec.Struct):
    pass


def mlflow_application(project: Project, *, otherwise: ASGIApp) -> MlflowApplication:
    """Give the application that answers MLflow's clients for a project.

    Parameters
    ----------
    otherwise
        Answers paths that are none of MLflow's.
    """
    artifacts = ArtifactStore(project.ledger.database, project.storage, project.state / "artifacts")
    parted = PartedUploads(artifacts, project.state / "artifacts" / "parts")
    roots = _Roots(project.ledger)
    raw = [
        RawEndpoint(("GET",), "/version", _version),
        *ArtifactRoutes(artifacts, roots.of_run, roots.of_model, parted).endpoints(),
        *VersionFiles(_versions(project, artifacts), artifacts).endpoints(),
    ]
    return MlflowApplication(_endpoints(project, artifacts), raw, otherwise=otherwise)


def _versions(project: Project, artifacts: ArtifactStore) -> VersionCatalogue:
    ledger = project.ledger
    roots = source_roots(RunDesk(ledger), ExperimentBook(ledger), LoggedModels(ledger))
    return VersionCatalogue(ledger, project.storage, artifacts, roots)


class _Roots:
    """Tells where the files of runs are."""

    def __init__(self, ledger: Ledger) -> None:
        self._desk, self._book, self._models = RunDesk(ledger), ExperimentBook(ledger), LoggedModels(ledger)

    def of_run(self, run: str) -> str:
        """Give a run's folder below the project's artifacts. Raises `NotFound`, `MlflowFault`."""
        info = self._desk.get(RunId(run)).info
        return _folder(artifact_root(info, self._book.get_by_id(info.experiment)), f"run {run}")

    def of_model(self, model: str) -> str:
        """Give a logged model's folder likewise. Raises `NotFound`, `MlflowFault`."""
        return _folder(self._models.get(model).artifact_uri, f"logged model {model}")


def _folder(uri: str, whose: str) -> str:
    scheme, colon, path = uri.partition(":")
    if not colon or scheme != "mlflow-artifacts":
        raise MlflowFault.invalid(f"the files of {whose} are at {uri}, not here; ask for them there")
    return path.lstrip("/")


async def _version(request: Request) -> Response:
    return Response(_VERSION, media_type="text/plain")


def _endpoints(project: Project, artifacts: ArtifactStore) -> Iterator[Endpoint]:
    ledger = project.ledger
    database = ledger.database
    book, desk, store = ExperimentBook(ledger), RunDesk(ledger), TrackingStore(database)
    abilities = {**_ABILITIES, "tracking_auth": bool(project.settings.server.users)}
    yield Endpoint(("GET",), "/server-info", _Nothing, lambda asked: abilities)
    yield from ExperimentEndpoints(book, database).endpoints()
    yield from RunEndpoints(desk, book, database).endpoints()
    models = LoggedModels(ledger)
    yield from LoggingEndpoints(store, desk, HistoryReader(database), models).endpoints()
    yield from LoggedModelEndpoints(models, artifacts, database).endpoints()
    versions = _versions(project, artifacts)
    yield from RegisteredModelEndpoints(ModelCatalogue(ledger), versions).endpoints()
    yield from ModelVersionEndpoints(versions, models).endpoints()
