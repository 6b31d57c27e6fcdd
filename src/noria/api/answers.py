"""Answers as JSON."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from noria.errors import DiskFull, StoreError

__all__ = ["answer", "told_of_store"]


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


def told_of_store(error: StoreError) -> str:
    """Say that a store cannot be used, without a word of where it is: that is for the server's log."""
    if isinstance(error, DiskFull):
        return "no space left on the disk of the server; what `noria up` printed says which; try again then"
    return (
        "a store of the server cannot be used now; what `noria up` printed says which; try again in a while"
    )
