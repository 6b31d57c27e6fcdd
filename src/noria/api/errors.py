"""From errors to answers: the one place that knows status codes.

An answer that tells of an error is `{"error": {"kind": ..., "message": ...}}`.
"""

import logging
from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from noria.api.answers import answer, told_of_store
from noria.errors import (
    BatchBlocked,
    ConfigError,
    Conflict,
    LeaseHeld,
    NoriaError,
    NotFound,
    ProjectNotFound,
    SourceError,
    StoreError,
    TooLarge,
)

__all__ = ["HANDLERS", "BadRequest", "status_of"]

_LOG = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[NoriaError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (ProjectNotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (LeaseHeld, HTTPStatus.CONFLICT),
    (ConfigError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BatchBlocked, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (SourceError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class BadRequest(NoriaError, ValueError):
    """A request that cannot be read; says what is expected."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: NoriaError) -> HTTPStatus:
    """Give the status that an error is answered with."""
    if isinstance(error, BadRequest):
        return error.status
    found = (status for kind, status in _STATUS if isinstance(error, kind))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def _told(request: Request, error: Exception) -> Response:
    """Answer for an error that noria raises on purpose."""
    assert isinstance(error, NoriaError)
    status = status_of(error)
    if isinstance(error, StoreError):  # its text names places of this machine
        _LOG.error("%s %s could not be answered: %s", request.method, request.url.path, error)
        return _answer(type(error).__name__, told_of_store(error), status, {"retry-after": "5"})
    return _answer(type(error).__name__, str(error), status, {}, notes=getattr(error, "__notes__", ()))


def _refused(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    message = f"{request.method} {request.url.path}: {status.phrase.lower()}; GET /health is where to begin"
    return _answer("BadRequest", message, status, dict(error.headers or {}))


def _failed(request: Request, error: Exception) -> Response:
    """Answer for a fault; the server's log says where it came from."""
    _LOG.error("%s %s failed: %s: %s", request.method, request.url.path, type(error).__name__, error)
    message = "the control plane failed; what `noria up` printed says where"
    return _answer(type(error).__name__, message, HTTPStatus.INTERNAL_SERVER_ERROR, {})


def _answer(
    kind: str, message: str, status: HTTPStatus, headers: dict[str, str], *, notes: Sequence[str] = ()
) -> Response:
    told: dict[str, object] = {"kind": kind, "message": message}
    if notes:
        told["notes"] = list(notes)
    return answer({"error": told}, status, headers)


HANDLERS = {NoriaError: _told, HTTPException: _refused, Exception: _failed}
