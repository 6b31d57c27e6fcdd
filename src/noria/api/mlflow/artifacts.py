"""Files over MLflow's protocol: streamed up and down in pieces, so that none has to fit into memory."""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from noria.api.answers import answer
from noria.api.mlflow.application import RawEndpoint
from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.api.mlflow.requests import decoded
from noria.errors import BadPath, DigestMismatch
from noria.tracking.artifact_paths import checked_folder, checked_path
from noria.tracking.artifacts import Artifact, ArtifactStore, ArtifactWriter, Listed

__all__ = ["ArtifactRoutes", "Download", "files_object"]

T = TypeVar("T", bound=msgspec.Struct)
_PIECE_BYTES = 1 << 20
_UPLOADS = 32  # at once, of a piece each; others wait
_HEAVY = 4  # threads at once that read whole files: to keep them, or to verify them
_SILENT_S = 60.0  # an upload of which nothing comes for so long is given up: others wait for its place
_QUERY_BYTES = 1 << 16
_URI = "mlflow-artifacts:/"
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_NO_PARTS = "Multipart {} is not supported for the current artifact repository; {} the file as a whole"
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


class ArtifactRoutes:
    """Handlers of requests about files.

    Parameters
    ----------
    project_artifacts
        Where they are kept.
    root_of
        Gives the folder of a run's files below the project's, such as `0/<run>/artifacts`; raises `NotFound`.
    """

    def __init__(self, project_artifacts: ArtifactStore, root_of: Callable[[str], str]) -> None:
        self._artifacts, self._root_of = project_artifacts, root_of
        self._uploads, self._heavy = asyncio.Semaphore(_UPLOADS), asyncio.Semaphore(_HEAVY)

    def endpoints(self) -> Iterator[RawEndpoint]:
        """Give the paths with what answers them."""
        for prefix in ("/api/2.0", "/ajax-api/2.0"):
            below = f"{prefix}/mlflow-artifacts"
            yield RawEndpoint(("PUT",), f"{below}/artifacts/{{path}}", self.upload)
            yield RawEndpoint(("GET", "HEAD"), f"{below}/artifacts/{{path}}", self.download)
            yield RawEndpoint(("DELETE",), f"{below}/artifacts/{{path}}", self.delete)
            yield RawEndpoint(("GET",), f"{below}/artifacts", self.list_below)
            yield RawEndpoint(("POST",), f"{below}/mpu/{{path}}", self.refuse_parts)
            yield RawEndpoint(("GET",), f"{below}/presigned/{{path}}", self.refuse_presigned)
            yield RawEndpoint(("GET",), f"{prefix}/mlflow/artifacts/list", self.list_of_run)
        yield RawEndpoint(("GET", "HEAD"), "/get-artifact", self.get_of_run)

    async def upload(self, request: Request) -> Response:
        """Keep the body under a path: all of it, or nothing."""
        path = _path_of(request)
        with _told():
            async with self._uploads:
                writer = await run_in_threadpool(self._artifacts.writing, path)
                try:
                    await _receive(request, writer)
                    async with self._heavy:
                        await run_in_threadpool(writer.finish)
                finally:
                    await run_in_threadpool(writer.close)
        return answer({})

    async def download(self, request: Request) -> Response:
        """Send a file, or a range of it."""
        return await self._sent(_path_of(request))

    async def list_below(self, request: Request) -> Response:
        """List a folder; names are relative to it."""
        folder = (await _fields(request, _Below)).path
        with _told():
            listed = await run_in_threadpool(self._artifacts.list, folder)
        return answer(files_object(listed, ""))

    async def delete(self, request: Request) -> Response:
        """Forget a file or a folder; nothing there is fine as well."""
        path = _path_of(request)
        with _told():
            await run_in_threadpool(self._artifacts.delete, path)
        return answer({})

    async def list_of_run(self, request: Request) -> Response:
        """List a folder of a run; names are relative to the run's files."""
        asked = await _fields(request, _OfRun)
        run = asked.run
        with _told():
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
        with _told():
            below = checked_path(asked.path)
        root = await run_in_threadpool(self._root_of, run)
        return await self._sent(f"{root}/{below}")

    async def refuse_parts(self, request: Request) -> Response:
        """Say that files come in one piece: clients that know these words send them so."""
        raise MlflowFault(ErrorCode.NOT_IMPLEMENTED, _NO_PARTS.format("upload", "PUT"))

    async def refuse_presigned(self, request: Request) -> Response:
        """Say that files go by this server: clients that know these words get them so."""
        raise MlflowFault(ErrorCode.NOT_IMPLEMENTED, _NO_PARTS.format("download", "GET"))

    async def _sent(self, path: str) -> Response:
        with _told():
            async with self._heavy:
                artifact, file = await run_in_threadpool(self._found, path)
        return Download(artifact, file)

    def _found(self, path: str) -> tuple[Artifact, Path]:
        artifact = self._artifacts.get(path)
        return artifact, self._artifacts.fetch(artifact)


class Download(FileResponse):
    """A file as an attachment, in large pieces. One range is served; of several, or of none, all is sent."""

    chunk_size = _PIECE_BYTES

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


async def _receive(request: Request, writer: ArtifactWriter) -> None:
    """Write the body, a large piece at a time."""
    pieces = request.stream()
    held = bytearray()
    try:
        while True:
            async with asyncio.timeout(_SILENT_S):
                piece = await anext(pieces, None)
            if piece is not None:
                held += piece
            if held and (piece is None or len(held) >= _PIECE_BYTES):
                await run_in_threadpool(writer.write, held)
                held = bytearray()
            if piece is None:
                return
    except ClientDisconnect as err:
        raise MlflowFault(
            ErrorCode.BAD_REQUEST, "the client went away in the middle of a file; nothing of it was kept"
        ) from err
    except TimeoutError as err:
        raise MlflowFault(
            ErrorCode.BAD_REQUEST,
            f"nothing came for {_SILENT_S:.0f} s; nothing of the file was kept, send it again",
        ) from err


async def _fields(request: Request, kind: type[T]) -> T:
    """Read the fields of a GET: of its query string, or as old clients send them."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _QUERY_BYTES:
            raise MlflowFault.invalid(f"the body is larger than {_QUERY_BYTES} bytes; send a query string")
    query = request.scope["query_string"]
    return decoded(kind, b"" if query else body, query)


def _path_of(request: Request) -> str:
    """Give the path that a URL names; what is no UTF-8 must not become the name of something else."""
    path: str = request.path_params["path"]
    if "\ufffd" in path:
        try:
            unquote_to_bytes(request.scope["raw_path"]).decode()
        except UnicodeDecodeError as err:
            raise MlflowFault.invalid(f"Invalid path: it is no UTF-8 once it is decoded: {err}") from err
    return path


def files_object(listed: Iterable[Listed], prefix: str) -> Mapping[str, object]:
    """Give what a folder holds; what is empty is left out, as it is by protobuf."""
    files = []
    for each in listed:
        told: dict[str, object] = {"path": f"{prefix}{each.name}", "is_dir": each.is_folder}
        if each.size_bytes:
            told["file_size"] = each.size_bytes
        files.append(told)
    return {"files": files} if files else {}


@contextmanager
def _told() -> Iterator[None]:
    """Tell of paths in the words that clients know, and of damage as the fault of this side."""
    try:
        yield
    except BadPath as err:
        raise MlflowFault.invalid(f"Invalid path: {err}") from err
    except DigestMismatch as err:
        raise MlflowFault(ErrorCode.INTERNAL_ERROR, str(err)) from err
