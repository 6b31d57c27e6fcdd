"""Pages of a search: a token that says after which row the next one begins, and of which search it is."""

import base64
import binascii
import math
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from noria.errors import BadFilter
from noria.tracking.searches.statements import Phase
from noria.tracking.searches.terms import Kind, Statement

__all__ = ["MAX_LIMIT", "Place", "check_limit", "foreign_page", "place_values", "read_page", "write_page"]

MAX_LIMIT = 50_000
_INT64 = 1 << 63
_DIGEST_BYTES = 12
_MAX_TOKEN_CHARS = 200_000
_Content = tuple[bytes, int, list[int | float | str]]


class Place(NamedTuple):
    """The last row of a page: its phase, and the columns that it is sorted by."""

    phase: Phase
    values: list[Any]


def check_limit(limit: int) -> None:
    """Check how many are asked for. Raises `BadFilter`."""
    if not 1 <= limit <= MAX_LIMIT:
        raise BadFilter("limit", str(limit), f"1 to {MAX_LIMIT:,}")


def write_page(place: Place, subject: tuple[Any, ...]) -> str:
    """Give the token of what comes after a place; the subject is all that makes the search another one."""
    data = msgspec.msgpack.encode((_subject_digest(subject), int(place.phase), place.values))
    return base64.urlsafe_b64encode(data).decode()


def read_page(page: str | None, subject: tuple[Any, ...]) -> Place | None:
    """Give the place of a token, None where there is none. Raises `BadFilter`."""
    if not page:
        return None
    if len(page) > _MAX_TOKEN_CHARS:
        raise foreign_page()
    try:
        data = base64.b64decode(page, altchars=b"-_", validate=True)
        digest, phase, values = msgspec.msgpack.decode(data, type=_Content)
        place = Place(Phase(phase), values)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as err:
        raise foreign_page() from err
    if digest != _subject_digest(subject):
        raise foreign_page()
    return place


def _subject_digest(subject: tuple[Any, ...]) -> bytes:
    return sha256(msgspec.msgpack.encode(subject)).digest()[:_DIGEST_BYTES]


def place_values(place: Place, statement: Statement) -> dict[str, Any]:
    """Give the parameters that go on after a place. Raises `BadFilter` if they do not fit the statement."""
    if len(place.values) != len(statement.kinds):
        raise foreign_page()
    found: dict[str, Any] = {}
    for number, (value, kind) in enumerate(zip(place.values, statement.kinds, strict=True)):
        match kind:
            case Kind.TEXT:
                fits = isinstance(value, str) and "\0" not in value
            case Kind.COUNT:
                fits = isinstance(value, int) and -_INT64 <= value < _INT64
            case Kind.NUMBER:
                fits = isinstance(value, float) and not math.isnan(value)
        if not fits:
            raise foreign_page()
        found[f"after{number}"] = value
    return found


def foreign_page() -> BadFilter:
    """Give the error of a token that is not of the search."""
    wanted, advice = "the one of its page before", "start at the first page"
    return BadFilter("page token", "one that is not of this search", wanted, advice)
