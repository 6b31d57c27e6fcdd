"""What producers hand in: bytes that hold one event or many, taken apart before they are kept."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from noria.errors import SourceError

__all__ = ["encode_events", "keys_of", "split_array", "split_lines"]

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUES = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)


def split_array(body: bytes) -> list[bytes]:
    """Give the events of a JSON object, which is one, or of an array of objects.

    Raises
    ------
    SourceError
        If it is neither; names the place of the first that is no object.
    """
    if not body.lstrip().startswith(b"["):
        return [_object(body.strip(), "the body")]
    try:
        values = _VALUES.decode(body)
    except _UNREADABLE as err:
        raise SourceError(f"the body is no JSON array of objects: {err}") from err
    return [_object(bytes(value), f"event {place}") for place, value in enumerate(values)]


def split_lines(body: bytes, *, first: int = 1) -> list[bytes]:
    """Give the events of JSON lines, empty ones left out.

    Parameters
    ----------
    first
        The number of the first line.

    Raises
    ------
    SourceError
        If a line is no JSON object; names the line.
    """
    lines = enumerate(body.split(b"\n"), start=first)
    return [_object(line.strip(), f"line {number}") for number, line in lines if line.strip()]


def encode_events(events: Iterable[Mapping[str, Any] | bytes]) -> list[bytes]:
    """Give events as JSON; bytes are taken as they are. Raises `SourceError`, which names the place."""
    payloads = []
    for place, event in enumerate(events):
        try:
            payload = event if isinstance(event, bytes) else msgspec.json.encode(event)
        except (TypeError, ValueError) as err:
            raise SourceError(f"event {place} cannot be written as JSON: {err}") from err
        payloads.append(_object(payload, f"event {place}"))
    return payloads


def keys_of(payloads: Sequence[bytes], field: str | None) -> list[bytes | None] | None:
    """Give the keys of events: the JSON of their field, None where an event has no such field."""
    if field is None:
        return None
    found = (_OBJECT.decode(payload).get(field) for payload in payloads)
    return [None if value is None else bytes(value) for value in found]


def _object(payload: bytes, what: str) -> bytes:
    try:
        _OBJECT.decode(payload)
    except _UNREADABLE as err:
        raise SourceError(f"{what} is no JSON object: {err}") from err
    return payload
