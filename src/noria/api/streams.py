"""Producers push events over HTTP: `POST /streams/NAME`. The lake comes with the first of them."""

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from noria.api.answers import answer
from noria.api.errors import BadRequest
from noria.errors import SourceError
from noria.streams.contract import MAX_EVENT_BYTES
from noria.streams.pushing import split_array, split_lines
from noria.workspace.project import Project

if TYPE_CHECKING:
    from noria.workspace.streaming import Door, Doors, Pushed

__all__ = ["StreamRoutes"]

_MAX_BODY_BYTES = 8 << 20
_LINES = {"application/x-ndjson", "application/jsonl", "application/x-jsonlines"}
_RETRY_AFTER_S = 2


class StreamRoutes:
    """The streams of a project, each opened when it is first pushed to."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._doors: Doors | None = None
        self._opening = threading.Lock()

    async def push(self, request: Request) -> Response:
        """Take events in and answer once they are in the log; refuse them while too many wait there."""
        name = request.path_params["name"]
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and kind not in _LINES:
            raise BadRequest(
                "events have to be JSON: send an object or an array of objects with the header "
                "`content-type: application/json`, or lines of objects with `application/x-ndjson`",
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        door = await run_in_threadpool(lambda: self._door(name))
        waiting, most = await run_in_threadpool(door.waiting), door.declared.backlog
        if waiting >= most:
            message = (
                f"stream {name!r} has {waiting} events that have not landed, at most {most} may wait; try "
                f"again in {_RETRY_AFTER_S} s, and see to it that its consumer runs: `noria stream list`"
            )
            return answer(
                {"error": {"kind": "Busy", "message": message}},
                HTTPStatus.TOO_MANY_REQUESTS,
                {"retry-after": str(_RETRY_AFTER_S)},
            )
        body = await _read(request)
        return answer(await run_in_threadpool(lambda: _push(door, body, are_lines=kind in _LINES)))

    def _door(self, name: str) -> "Door":
        from noria.workspace.streaming import Doors

        with self._opening:
            if self._doors is None:
                self._doors = Doors(self._project)
        return self._doors.get(name)


def _push(door: "Door", body: bytes, *, are_lines: bool) -> "Pushed":
    try:
        payloads = split_lines(body) if are_lines else split_array(body)
    except SourceError as error:
        raise BadRequest(f"{error}; nothing was accepted") from error
    for place, payload in enumerate(payloads):
        if len(payload) > MAX_EVENT_BYTES:
            raise BadRequest(
                f"event {place} has {len(payload)} bytes, at most {MAX_EVENT_BYTES} are taken; nothing was "
                "accepted",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
    return door.push(payloads)


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise BadRequest(
                f"the body is larger than {_MAX_BODY_BYTES} bytes; send fewer events at once",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
    return bytes(body)
