"""Files of registered versions, as they were when those were registered."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from noria.api.mlflow.application import RawEndpoint
from noria.api.mlflow.artifacts import Download
from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.api.mlflow.model_objects import version_number
from noria.api.mlflow.requests import Text, decoded
from noria.errors import DigestMismatch
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.artifacts import ArtifactStore

__all__ = ["VersionFiles"]

_Required = Annotated[str, Text]


class _Wanted(msgspec.Struct):
    name: _Required
    version: _Required
    path: _Required


class VersionFiles:
    """Sends files of versions whose files are the project's."""

    def __init__(self, versions: VersionCatalogue, artifacts: ArtifactStore) -> None:
        self._versions, self._artifacts = versions, artifacts

    def endpoints(self) -> Iterator[RawEndpoint]:
        """Give what is answered."""
        yield RawEndpoint(("GET", "HEAD"), "/model-versions/get-artifact", self.get)

    async def get(self, request: Request) -> Response:
        """Send a file of a version."""
        asked = decoded(_Wanted, b"", request.scope["query_string"])
        return await run_in_threadpool(self._found, asked)

    def _found(self, asked: _Wanted) -> Response:
        artifact = self._versions.get_file(asked.name, version_number(asked.version), asked.path)
        try:
            return Download(artifact, self._artifacts.fetch(artifact))
        except DigestMismatch as err:
            raise MlflowFault(ErrorCode.INTERNAL_ERROR, str(err)) from err
