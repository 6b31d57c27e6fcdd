"""Runs that other machines log: `/api/noria/tracking/...`. What begins and is logged comes as MessagePack.

Every answer says which version of the protocol is spoken here; one that tells of an error is JSON, as all of
them are. What a request asks for is done by the stores that runs of this machine log to.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noria.api.answers import answer
from noria.api.errors import BadRequest, status_of
from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.api.mlflow.held_bodies import Bodies
from noria.api.mlflow.receiving import Uploads, receive
from noria.errors import ConfigError, LeaseHeld, NoriaError
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.remote.sending import (
    CONTENT_TYPE,
    PROTOCOL,
    PROTOCOL_HEADER,
    decode_batch,
    decode_beginning,
    encode_wire,
)
from noria.tracking.remote.sent_logs import SentLogs
from noria.tracking.staging import StagedFile
from noria.workspace.project import Project

__all__ = ["BASE", "TrackingRoutes", "WithProtocol"]

BASE = "/api/noria/tracking"
_MOST_BYTES = 32 << 20  # the points in it take ten times as much
_STATUS = {
    ErrorCode.BAD_REQUEST: HTTPStatus.REQUEST_TIMEOUT,
    ErrorCode.INVALID_PARAMETER_VALUE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.TEMPORARILY_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class TrackingRoutes:
    """Takes in what runs of other machines have logged."""

    def __init__(self, project: Project) -> None:
        ledger = project.ledger
        self._storage = project.storage
        self._artifacts = ArtifactStore(ledger.database, project.storage, project.state / "artifacts")
        self._logs = SentLogs(ledger, self._artifacts)
        self._bodies, self._uploads = Bodies(), Uploads()

    def routes(self) -> list[Route]:
        """Give the paths with what answers them."""
        return [
            Route(f"{BASE}/beginnings", self.begin, methods=["POST"]),
            Route(f"{BASE}/batches", self.keep, methods=["POST"]),
            Route(f"{BASE}/files/{{sha256}}", self.has_file, methods=["GET"]),
            Route(f"{BASE}/files/{{sha256}}", self.put_file, methods=["PUT"]),
            Route(f"{BASE}/code/{{sha256}}", self.has_code, methods=["GET"]),
            Route(f"{BASE}/code/{{sha256}}", self.put_code, methods=["PUT"]),
        ]

    async def begin(self, request: Request) -> Response:
        """Record that a run begins."""
        return await self._taken(request, decode_beginning, self._logs.begin)

    async def keep(self, request: Request) -> Response:
        """Keep entries of a log."""
        return await self._taken(request, decode_batch, self._logs.keep)

    async def has_file(self, request: Request) -> Response:
        """Tell whether the bytes of a file are here."""
        return await self._has(request, is_code=False)

    async def has_code(self, request: Request) -> Response:
        """Tell whether a text about a run's code is here."""
        return await self._has(request, is_code=True)

    async def put_file(self, request: Request) -> Response:
        """Keep the bytes of a file, by their digest."""
        return await self._put(request, is_code=False)

    async def put_code(self, request: Request) -> Response:
        """Keep a text about a run's code, by its digest."""
        return await self._put(request, is_code=True)

    async def _taken(
        self, request: Request, decode: Callable[[bytes], Any], take: Callable[[Any], Any]
    ) -> Response:
        _check_head(request)
        held = self._bodies.begin()
        try:
            with _told():
                body = await held.read_any(request.receive, _MOST_BYTES)
            return await run_in_threadpool(lambda: _answered(body, decode, take))
        finally:
            held.end()

    async def _has(self, request: Request, *, is_code: bool) -> Response:
        sha256 = request.path_params["sha256"]
        found = await run_in_threadpool(lambda: self._logs.has_bytes(sha256, is_code=is_code))
        return answer({"sha256": sha256, "is_kept": found}, HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)

    async def _put(self, request: Request, *, is_code: bool) -> Response:
        _check_head(request)
        sha256 = request.path_params["sha256"]
        if await run_in_threadpool(lambda: self._logs.has_bytes(sha256, is_code=is_code)):
            return answer({"sha256": sha256, "is_kept": True})
        async with self._uploads.coming:
            staged = await run_in_threadpool(self._artifacts.staged)
            try:
                digested = _Digested(staged)
                with _told():
                    await receive(request, digested)
                found = digested.sha256.hexdigest()
                if found != sha256:
                    raise ConfigError(
                        f"the file that came has the digest {found}, wanted {sha256}; nothing was kept"
                    )
                keep = self._storage.put_file if is_code else self._artifacts.keep
                async with self._uploads.heavy:
                    await run_in_threadpool(keep, staged.path)
            finally:
                await run_in_threadpool(staged.close)
        return answer({"sha256": sha256, "is_kept": True}, HTTPStatus.CREATED)


class _Digested:
    """Writes a file, and knows its digest."""

    def __init__(self, file: StagedFile) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises `DiskFull` or `StoreError`."""
        self.sha256.update(data)
        self._file.write(data)


class WithProtocol:
    """Lets every answer of these paths say which version of the protocol is spoken."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{BASE}/"):
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                head = (PROTOCOL_HEADER.encode(), PROTOCOL.encode())
                message = {**message, "headers": [*message.get("headers", ()), head]}
            await send(message)

        await self._app(scope, receive, told)


def _check_head(request: Request) -> None:
    spoken = request.headers.get(PROTOCOL_HEADER, "")
    if spoken != PROTOCOL:
        raise BadRequest(
            f"logs are taken in version {PROTOCOL} of the protocol, found {spoken!r:.20} in the header "
            f"{PROTOCOL_HEADER}; bring noria up to date on both sides"
        )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != CONTENT_TYPE:
        raise BadRequest(
            f"what is sent has to be {CONTENT_TYPE}, say so in the header `content-type`",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )


@contextmanager
def _told() -> Iterator[None]:
    """Tell of bodies as our clients expect it: what was too slow, or too much just now, comes again."""
    try:
        yield
    except MlflowFault as err:
        raise BadRequest(str(err), _STATUS.get(err.code, HTTPStatus.BAD_REQUEST)) from err


def _answered(body: bytes, decode: Callable[[bytes], Any], take: Callable[[Any], Any]) -> Response:
    try:
        asked = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise BadRequest(f"the body cannot be read: {err}") from err
    try:
        found = take(asked)
    except LeaseHeld as err:
        told = {"kind": "LeaseHeld", "message": str(err), "holder": err.holder}
        return answer({"error": told}, status_of(err))
    except NoriaError:
        raise
    except (DBAPIError, OverflowError) as err:  # about a value, else it is a `StoreError`
        raise ConfigError(f"the database takes none of it ({type(err).__name__}): a value is wrong") from err
    return Response(encode_wire(found), media_type=CONTENT_TYPE)
