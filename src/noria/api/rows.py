"""Rows over HTTP: `POST /datasets/NAME/rows`. The body goes to a file first, of bounded size.

The lake's engines are loaded with the first body.
"""

import tempfile
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from noria.api.answers import answer
from noria.api.errors import BadRequest
from noria.workspace.project import Project

if TYPE_CHECKING:
    from noria.workspace.pushing import PushedRows

__all__ = ["RowRoutes"]

MAX_BODY_BYTES = 256 << 20
MAX_AT_ONCE = 8  # bodies that lie on the disk
_RETRY_AFTER_S = 2
_FORMATS = {
    "application/json": "jsonl",
    "application/jsonl": "jsonl",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.parquet": "parquet",
    "application/x-jsonlines": "jsonl",
    "application/x-ndjson": "jsonl",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
}


class RowRoutes:
    """Takes in rows of a project's datasets."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._busy = 0

    async def push(self, request: Request) -> Response:
        """Take in the rows of one body, and answer what became of them once they have landed."""
        name = request.path_params["name"]
        await run_in_threadpool(lambda: self._project.declarations.dataset(name))
        format, encoding = _format_of(request)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            raise _too_large()
        if self._busy >= MAX_AT_ONCE:
            message = f"{self._busy} bodies are being taken in; try again in {_RETRY_AFTER_S} s"
            return answer(
                {"error": {"kind": "Busy", "message": message}},
                HTTPStatus.SERVICE_UNAVAILABLE,
                {"retry-after": str(_RETRY_AFTER_S)},
            )
        self._busy += 1
        try:
            folder = self._project.state / "incoming"
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="push-", dir=folder) as place:
                body = Path(place, "body")
                await _spool(request, body)
                key = request.headers.get("idempotency-key")
                done = await run_in_threadpool(
                    lambda: self._push(name, body, format=format, encoding=encoding, key=key)
                )
        finally:
            self._busy -= 1
        return answer(done)

    def _push(
        self, name: str, body: Path, *, format: str, encoding: str | None, key: str | None
    ) -> "PushedRows":
        from noria.workspace.pushing import push_rows

        return push_rows(self._project, name, body, format=format, encoding=encoding, key=key)


def _format_of(request: Request) -> tuple[str, str | None]:
    """Give format and encoding by the content type."""
    told = Message()
    told["content-type"] = request.headers.get("content-type", "")
    kind = told.get_content_type() if told["content-type"] else ""
    if kind not in _FORMATS:
        raise BadRequest(
            f"the body is {kind or 'of no type'}; send the header `content-type` with one of "
            f"{', '.join(sorted(_FORMATS))}",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )
    return _FORMATS[kind], told.get_content_charset()


async def _spool(request: Request, path: Path) -> None:
    size = 0
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                await run_in_threadpool(file.write, chunk)
    except OSError as err:
        from noria.lake.files import translated

        raise translated(err, str(path.parent)) from err


def _too_large() -> BadRequest:
    return BadRequest(
        f"the body is larger than {MAX_BODY_BYTES >> 20} MiB; send fewer rows at once, or pack them by gzip",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )
