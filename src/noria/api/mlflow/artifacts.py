"""Files over MLflow's protocol: streamed up and down in pieces, so that none has to fit into memory."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import format_datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from noria.api.answers import answer
from noria.api.mlflow.application import RawEndpoint
from noria.api.mlflow.artifact_paths import path_of, told
from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.multipart import MultipartRoutes
from noria.api.mlflow.receiving import PIECE_BYTES, Uploads, receive
from noria.api.mlflow.requests import decoded
from noria.tracking.artifact_paths import checked_folder, checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore, Listed
from noria.tracking.multipart import PartedUploads

__all__ = ["ArtifactRoutes", "Download", "files_object"]

T = TypeVar("T", bound=msgspec.Struct)
_MOST_OF_PAGE = 10 << 20  # of a file that MLflow's page sends
_QUERY_BYTES = 1 << 16
# What any page may make a browser send, without asking first.
_OF_FORMS = frozenset({"", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"})
_URI = "mlflow-artifacts:/"
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_MISSING = "Missing value for required parameter '{}'. Send it in the query string."


class _Below(msgspec.Struct):
    path: str = ""


class _OfRun(msgspec.Struct):
    run_id: str = ""
    run_uuid: str = ""
    path: str = ""

    @property
    def run(self) -> str:
        """The run that is asked for."""
        found = self.run_id or self.run_uuid
        if not found:
            raise MlflowFault.invalid(_MISSING.format("run_id"))
        return found


class _OfModel(msgspec.Struct):
    artifact_file_path: str = ""


class ArtifactRoutes:
    """Handlers of requests about files.

    Parameters
    ----------
    project_artifacts
        Where they are kept.
    root_of
        Gives the folder of a run's files below the project's, such as `0/<run>/artifacts`; raises `NotFound`.
    root_of_model
        Gives the folder of a logged model's files likewise.
    parted
        Where the parts are kept of files that come in parts.
    """

    def __init__(
        self,
        project_artifacts: ArtifactStore,
        root_of: Callable[[str], str],
        root_of_model: Callable[[str], str],
        parted: PartedUploads,
    ) -> None:
        self._artifacts, self._root_of, self._root_of_model = project_artifacts, root_of, root_of_model
        self._uploads = Uploads()
        self._parts = MultipartRoutes(
            parted, self._uploads, find=project_artifacts.get, send=lambda request, path: self._sent(path)
        )

    def endpoints(self) -> Iterator[RawEndpoint]:
        """Give the paths with what answers them."""
        for prefix in ("/api/2.0", "/ajax-api/2.0"):
            below = f"{prefix}/mlflow-artifacts"
            yield RawEndpoint(("PUT",), f"{below}/artifacts/{{path}}", self.upload)
            yield RawEndpoint(("GET", "HEAD"), f"{below}/artifacts/{{path}}", self.download)
            yield RawEndpoint(("DELETE",), f"{below}/artifacts/{{path}}", self.delete)
            yield RawEndpoint(("GET",), f"{below}/artifacts", self.list_below)
            yield RawEndpoint(("POST",), f"{prefix}/mlflow/upload-artifact", self.upload_of_page)
            of_model = f"{prefix}/mlflow/logged-models/{{path}}/artifacts/files"
            yield RawEndpoint(("GET", "HEAD"), of_model, self.get_of_model)
            yield RawEndpoint(("GET",), f"{prefix}/mlflow/artifacts/list", self.list_of_run)
        yield RawEndpoint(("GET", "HEAD"), "/get-artifact", self.get_of_run)
        yield from self._parts.endpoints()

    async def upload(self, request: Request) -> Response:
        """Keep the body under a path: all of it, or nothing."""
        await self._put(request, path_of(request))
        return answer({})

    async def upload_of_page(self, request: Request) -> Response:
        """Keep the body as a file of a run: as MLflow's page sends it, which is small."""
        asked = decoded(_OfRun, b"", request.scope["query_string"])
        run = asked.run
        if not asked.path:
            raise MlflowFault.invalid(_MISSING.format("path"))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _OF_FORMS:
            raise MlflowFault.invalid("the body is that of a form; send it with the content type of the file")
        with told():
            below = checked_path(asked.path)
        root = await run_in_threadpool(self._root_of, run)
        await self._put(request, f"{root}/{below}", most=_MOST_OF_PAGE)
        return answer({})

    async def download(self, request: Request) -> Response:
        """Send a file, or a range of it."""
        return await self._sent(path_of(request))

    async def list_below(self, request: Request) -> Response:
        """List a folder; names are relative to it."""
        folder = (await _fields(request, _Below)).path
        with told():
            listed = await run_in_threadpool(self._artifacts.list, folder)
        return answer(files_object(listed, ""))

    async def delete(self, request: Request) -> Response:
        """Forget a file or a folder; nothing there is fine as well."""
        path = path_of(request)
        with told():
            await run_in_threadpool(self._artifacts.delete, path)
        return answer({})

    async def list_of_run(self, request: Request) -> Response:
        """List a folder of a run; names are relative to the run's files."""
        asked = await _fields(request, _OfRun)
        run = asked.run
        with told():
            folder = checked_folder(asked.path)
            root = await run_in_threadpool(self._root_of, run)
            listed = await run_in_threadpool(self._artifacts.list, f"{root}/{folder}" if folder else root)
        return answer({"root_uri": f"{_URI}{root}", **files_object(listed, f"{folder}/" if folder else "")})

    async def get_of_run(self, request: Request) -> Response:
        """Send a file of a run."""
        asked = await _fields(request, _OfRun)
        run = asked.run
        if not asked.path:
            raise MlflowFault.invalid(_MISSING.format("path"))
        with told():
            below = checked_path(asked.path)
        root = await run_in_threadpool(self._root_of, run)
        return await self._sent(f"{root}/{below}")

    async def get_of_model(self, request: Request) -> Response:
        """Send a file of a logged model."""
        wanted = (await _fields(request, _OfModel)).artifact_file_path
        if not wanted:
            raise MlflowFault.invalid(_MISSING.format("artifact_file_path"))
        model = path_of(request)
        with told():
            below = checked_path(wanted)
        root = await run_in_threadpool(self._root_of_model, model)
        return await self._sent(f"{root}/{below}")

    async def _put(self, request: Request, path: str, *, most: int | None = None) -> None:
        with told():
            async with self._uploads.coming:
                writer = await run_in_threadpool(self._artifacts.writing, path)
                try:
                    await receive(request, writer, most=most)
                    async with self._uploads.heavy:
                        await run_in_threadpool(writer.finish)
                finally:
                    await run_in_threadpool(writer.close)

    async def _sent(self, path: str) -> Response:
        with told():
            async with self._uploads.heavy:
                artifact, file = await run_in_threadpool(self._found, path)
        return Download(artifact, file)

    def _found(self, path: str) -> tuple[Artifact, Path]:
        artifact = self._artifacts.get(path)
        return artifact, self._artifacts.fetch(artifact)


class Download(FileResponse):
    """A file as an attachment, in large pieces. One range is served; of several, or of none, all is sent."""

    chunk_size = PIECE_BYTES

    def __init__(self, artifact: Artifact, file: Path) -> None:
        headers = {
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",  # a script of a foreign page may not include it
            "etag": f'"{artifact.sha256}"',
            "last-modified": format_datetime(artifact.put_at, usegmt=True),
        }
        name = artifact.path.rpartition("/")[2]
        super().__init__(file, headers=headers, filename=name, stat_result=file.stat())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        headers = [
            (name, value) for name, value in scope["headers"] if name != b"range" or _is_one_range(value)
        ]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _is_one_range(value: bytes) -> bool:
    found = _RANGE.fullmatch(value.decode("latin-1"))
    if found is None:
        return False
    first, last = found.groups()
    return bool(first or last) and not (first and last and int(last) < int(first))


async def _fields(request: Request, kind: type[T]) -> T:
    """Read the fields of a GET: of its query string, or as old clients send them."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _QUERY_BYTES:
            raise MlflowFault.invalid(f"the body is larger than {_QUERY_BYTES} bytes; send a query string")
    query = request.scope["query_string"]
    return decoded(kind, b"" if query else body, query)


def files_object(listed: Iterable[Listed], prefix: str) -> Mapping[str, object]:
    """Give what a folder holds; what is empty is left out, as it is by protobuf."""
    files = []
    for each in listed:
        told: dict[str, object] = {"path": f"{prefix}{each.name}", "is_dir": each.is_folder}
        if each.size_bytes:
            told["file_size"] = each.size_bytes
        files.append(told)
    return {"files": files} if files else {}
