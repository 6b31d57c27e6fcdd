"""Answers as JSON."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

__all__ = ["answer"]


def answer(
    value: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Give a value as the JSON body of an answer."""
    return Response(
        msgspec.json.encode(value, enc_hook=str),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )
