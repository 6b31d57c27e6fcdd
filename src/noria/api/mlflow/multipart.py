"""Files in parts over MLflow's protocol, and addresses by which a client fetches ranges of one."""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated
from urllib.parse import quote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from noria.api.answers import answer
from noria.api.mlflow.application import RawEndpoint
from noria.api.mlflow.artifact_paths import path_of, told
from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.held_bodies import Bodies
from noria.api.mlflow.receiving import Uploads, receive
from noria.api.mlflow.requests import MAX_BODY_BYTES, Text, decoded
from noria.api.mlflow.signing import NOBODY, PARTS, SIGNED, Signer
from noria.tracking.artifacts import Artifact
from noria.tracking.multipart import Part, PartedUploads

__all__ = ["MultipartRoutes"]

_Required = Annotated[str, Text]
_PREFIXES = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")
_SEPARATOR = re.compile(r"[/\\]")  # the path is one of the client's machine
_NUMBER = re.compile(r"[0-9]{1,6}")
_NOT_KEPT = {"cache-control": "no-store"}  # whoever has such an address may use it


class _Create(msgspec.Struct):
    path: _Required
    num_parts: int = 1


class _Part(msgspec.Struct):
    part_number: int
    etag: str | None = None
    url: str | None = None


class _Complete(msgspec.Struct):
    path: _Required
    upload_id: _Required
    parts: list[_Part]


class _Abort(msgspec.Struct):
    path: _Required
    upload_id: _Required


class MultipartRoutes:
    """Handlers of uploads in parts, and of addresses that prove themselves.

    Parameters
    ----------
    parted
        Where parts are kept until all are there.
    find
        Gives what is known of an artifact; raises `NotFound`.
    send
        Answers with a file.
    """

    def __init__(
        self,
        parted: PartedUploads,
        uploads: Uploads,
        *,
        find: Callable[[str], Artifact],
        send: Callable[[Request, str], Awaitable[Response]],
    ) -> None:
        self._parted, self._uploads, self._find, self._send = parted, uploads, find, send
        self._signer, self._bodies = Signer(), Bodies()

    def endpoints(self) -> Iterator[RawEndpoint]:
        """Give the paths with what answers them."""
        for below in _PREFIXES:
            yield RawEndpoint(("POST",), f"{below}/mpu/create/{{path}}", self.create)
            yield RawEndpoint(("POST",), f"{below}/mpu/complete/{{path}}", self.complete)
            yield RawEndpoint(("POST",), f"{below}/mpu/abort/{{path}}", self.abort)
            yield RawEndpoint(("GET",), f"{below}/presigned/{{path}}", self.sign)
        yield RawEndpoint(("PUT",), f"{PARTS}{{path}}", self.put_part)
        yield RawEndpoint(("GET", "HEAD"), f"{SIGNED}{{path}}", self.get_signed)

    async def create(self, request: Request) -> Response:
        """Begin an upload, and give an address for each part."""
        asked = decoded(_Create, await self._json(request), b"")
        path = _destination(request, asked.path)
        with told():
            id = await run_in_threadpool(self._parted.begin, path, asked.num_parts, by=_user(request))
        base = f"{_base(request)}{PARTS}{_user(request)}/{id}"
        credentials = [
            {"url": f"{base}/{number}", "part_number": number, "headers": {}}
            for number in range(1, asked.num_parts + 1)
        ]
        return answer({"upload_id": id, "credentials": credentials}, headers=_NOT_KEPT)

    async def put_part(self, request: Request) -> Response:
        """Take in a part; whoever has its address may send it."""
        by, id, number = [*request.path_params["path"].split("/", 2), "", ""][:3]
        if not _NUMBER.fullmatch(number):
            raise MlflowFault.invalid(f"{number[:40]!r} is no number of a part")
        async with self._uploads.coming:
            writer = await run_in_threadpool(self._parted.writing, id, int(number), by=by)
            try:
                await receive(request, writer)
                part = await run_in_threadpool(writer.finish)
            finally:
                await run_in_threadpool(writer.close)
        return answer({}, headers={"etag": f'"{part.tag}"'})

    async def complete(self, request: Request) -> Response:
        """Make one file of the parts."""
        asked = decoded(_Complete, await self._json(request), b"")
        path = _destination(request, asked.path)
        parts = [Part(each.part_number, (each.etag or "").strip('"')) for each in asked.parts]
        with told():
            async with self._uploads.heavy:
                await run_in_threadpool(self._parted.finish, asked.upload_id, path, parts)
        return answer({})

    async def abort(self, request: Request) -> Response:
        """Forget what has come."""
        asked = decoded(_Abort, await self._json(request), b"")
        path = _destination(request, asked.path)
        with told():
            await run_in_threadpool(self._parted.abort, asked.upload_id, path)
        return answer({})

    async def _json(self, request: Request) -> bytes:
        held = self._bodies.begin()
        try:
            return await held.read(request.scope, request.receive, MAX_BODY_BYTES)
        finally:
            held.end()

    async def sign(self, request: Request) -> Response:
        """Give an address by which ranges of a file may be fetched, for an hour or until the server ends."""
        path = path_of(request)
        with told():
            found = await run_in_threadpool(self._find, path)
        address = f"{_base(request)}{SIGNED}{self._signer.signed(path, _user(request))}{quote(path)}"
        shown = {"url": address, "headers": {}, "file_size": found.size_bytes}
        return answer(shown, headers=_NOT_KEPT)

    async def get_signed(self, request: Request) -> Response:
        """Send a file, or a range of it, to whoever has its address."""
        path = self._signer.read(path_of(request))
        if path is None:
            raise MlflowFault.denied("the address is none, or has ended; ask for another one")
        return await self._send(request, path)


def _destination(request: Request, file: str) -> str:
    """Give the path of the file in the folder that the URL names."""
    name = _SEPARATOR.split(file)[-1]
    folder = path_of(request).strip("/")
    return f"{folder}/{name}" if folder else name


def _user(request: Request) -> str:
    """Give the name of the user who asks."""
    user = request.scope.get("user")
    return NOBODY if user is None else str(user.name)


def _base(request: Request) -> str:
    """Give the address of this server as the client knows it."""
    return f"{request.url.scheme}://{request.url.netloc}{request.scope.get('prefix', '')}"
