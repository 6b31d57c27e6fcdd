"""JSON as clients send it: strict, but for `NaN`, which many libraries write where a value is missing."""

import json
from typing import TypeVar

import msgspec

from noria.serving.requests import BadRequestError

__all__ = ["decode_body"]

T = TypeVar("T")


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes | memoryview, *, what: str) -> T:
    """Read a body by a typed decoder; a `NaN`, which is no JSON, is read as null.

    Parameters
    ----------
    decoder
        Of the wanted type.
    body
        What came.
    what
        What it ought to be, with its article as in "no infer request".

    Raises
    ------
    BadRequestError
        If it is not that. The message holds places and types, no values.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as err:
        raise BadRequestError(f"the body is {what}: {err}") from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        plain = _without_nan(bytes(body))
        if plain is not None:
            return decode_body(decoder, plain, what=what)
        reason = "its text is not UTF-8" if isinstance(err, UnicodeDecodeError) else err
        raise BadRequestError(f"the body is not JSON: {reason}") from err


def _without_nan(body: bytes) -> bytes | None:
    """Give the same with null for each `NaN`; None if that is not what was wrong with it."""
    if b"NaN" not in body:
        return None
    found: list[str] = []
    try:
        value = json.loads(body.decode(), parse_constant=found.append)  # which gives None
        if "NaN" not in found or set(found) != {"NaN"}:
            return None
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return None
