"""Bodies of requests, which are JSON objects of bounded size."""

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request

from noria.api.errors import BadRequest

__all__ = ["read_body"]

_MAX_BODY_BYTES = 1 << 20


async def read_body(request: Request, kind: type[Any], *, most: int = _MAX_BODY_BYTES) -> Any:
    """Read the body, which is a JSON object of `kind`; none is an empty one. Raises `BadRequest`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest(
            "the body has to be JSON: send the header `content-type: application/json`",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BadRequest(f"the body is larger than {most} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body cannot be read: {error}") from error
