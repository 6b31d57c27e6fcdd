"""From errors to the answers that MLflow's clients know: `{"error_code": ..., "message": ...}`."""

import logging
from enum import StrEnum
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from noria.api.answers import told_of_store
from noria.errors import ConfigError, Conflict, DigestMismatch, NoriaError, NotFound, SourceError, StoreError

__all__ = ["ErrorCode", "MlflowFault", "fault_of", "refusal"]

_LOG = logging.getLogger(__name__)
_RETRY_AFTER_S = "5"
_MAX_CHARS = 4_000  # of a message: it may quote a name of any length


class ErrorCode(StrEnum):
    """Names of errors, as clients match them."""

    BAD_REQUEST = "BAD_REQUEST"
    INVALID_PARAMETER_VALUE = "INVALID_PARAMETER_VALUE"
    RESOURCE_ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
    RESOURCE_DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
    RESOURCE_CONFLICT = "RESOURCE_CONFLICT"
    REQUEST_LIMIT_EXCEEDED = "REQUEST_LIMIT_EXCEEDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    TEMPORARILY_UNAVAILABLE = "TEMPORARILY_UNAVAILABLE"


_STATUS = {
    ErrorCode.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    ErrorCode.INVALID_PARAMETER_VALUE: HTTPStatus.BAD_REQUEST,
    ErrorCode.RESOURCE_ALREADY_EXISTS: HTTPStatus.BAD_REQUEST,
    ErrorCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    ErrorCode.ENDPOINT_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.RESOURCE_DOES_NOT_EXIST: HTTPStatus.NOT_FOUND,
    ErrorCode.RESOURCE_CONFLICT: HTTPStatus.CONFLICT,
    ErrorCode.REQUEST_LIMIT_EXCEEDED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    ErrorCode.NOT_IMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    ErrorCode.TEMPORARILY_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
_CODES: tuple[tuple[type[NoriaError], ErrorCode], ...] = (
    (NotFound, ErrorCode.RESOURCE_DOES_NOT_EXIST),
    (Conflict, ErrorCode.INVALID_PARAMETER_VALUE),
    (ConfigError, ErrorCode.INVALID_PARAMETER_VALUE),
    (DigestMismatch, ErrorCode.INTERNAL_ERROR),
    (SourceError, ErrorCode.INVALID_PARAMETER_VALUE),
)


class MlflowFault(NoriaError):
    """What a client is told of its request, by a code that it knows."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def invalid(cls, message: str) -> "MlflowFault":
        """Give the fault of a value that is none."""
        return cls(ErrorCode.INVALID_PARAMETER_VALUE, message)

    @classmethod
    def denied(cls, message: str) -> "MlflowFault":
        """Give the fault of what may not be asked."""
        return cls(ErrorCode.PERMISSION_DENIED, message)

    @classmethod
    def busy(cls, message: str) -> "MlflowFault":
        """Give the fault of a server that has too much to do; it is asked again after a while."""
        return cls(ErrorCode.TEMPORARILY_UNAVAILABLE, message)


def fault_of(error: Exception) -> MlflowFault:
    """Give what a client is told of an error; a fault of the server says nothing of itself."""
    if isinstance(error, MlflowFault):
        return error
    if isinstance(error, StoreError):  # its text names places of this machine
        _LOG.error("a request could not be answered: %s", error)
        return MlflowFault.busy(told_of_store(error))
    if isinstance(error, NoriaError):
        found = (code for kind, code in _CODES if isinstance(error, kind))
        return MlflowFault(next(found, ErrorCode.INVALID_PARAMETER_VALUE), str(error))
    _LOG.error("a request failed: %s: %s", type(error).__name__, error, exc_info=error)
    return MlflowFault(ErrorCode.INTERNAL_ERROR, "the server failed; what `noria up` printed says where")


def refusal(fault: MlflowFault, *, headers: dict[str, str] | None = None) -> Response:
    """Answer with a fault."""
    if headers is None and fault.code is ErrorCode.TEMPORARILY_UNAVAILABLE:
        headers = {"retry-after": _RETRY_AFTER_S}
    return Response(
        msgspec.json.encode({"error_code": fault.code, "message": str(fault)[:_MAX_CHARS]}),
        status_code=_STATUS[fault.code],
        headers=headers,
        media_type="application/json",
    )
