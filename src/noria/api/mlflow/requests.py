"""Requests as typed fields: of a JSON body, or of a query string where there is none."""

import re
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from noria.api.mlflow.errors import MlflowFault

__all__ = ["LARGE_BODY_BYTES", "MAX_BODY_BYTES", "Text", "decoded", "is_json"]

MAX_BODY_BYTES = 4 << 20  # each is held in memory, of every client at once
LARGE_BODY_BYTES = 32 << 20  # a profile of a dataset has up to 16 MB
T = TypeVar("T", bound=msgspec.Struct)
_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$([^`]*)`)?")
_AT = re.compile(r"(.*) - at `\$\.?([^`]*)`", re.DOTALL)
_EMPTY = "of length >= 1"
_SHOWN_CHARS = 100

Text = msgspec.Meta(min_length=1)  # of a required field: an empty text is none, as it is for protobuf


def is_json(content_type: str) -> bool:
    """Tell whether a body is said to be JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def decoded(kind: type[T], body: bytes, query: bytes) -> T:
    """Read the fields of a request; what it has beside them does not count.

    Raises
    ------
    MlflowFault
        If it cannot be read, or lacks a field: in the words that clients look for.
    """
    try:
        if (b"\\u0000" in body or b"%00" in query) and _holds_nul(body, query):
            raise MlflowFault.invalid("a text holds the character NUL, which no database keeps; take it out")
        if query and not body.strip():
            return msgspec.convert(_of_query(kind, query), kind, strict=False)
        return msgspec.json.decode(body or b"{}", type=kind, strict=False)
    except msgspec.ValidationError as err:
        raise MlflowFault.invalid(_told(str(err), body)) from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise MlflowFault.invalid(f"the body is not JSON: {err}; send an object of JSON") from err


def _holds_nul(body: bytes, query: bytes) -> bool:
    """Tell whether a text of the request, or a name in it, holds a NUL: the bytes alone may say otherwise."""
    return b"%00" in query or any("\0" in each for each in _texts(msgspec.json.decode(body or b"{}")))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _of_query(kind: type[msgspec.Struct], query: bytes) -> dict[str, Any]:
    """Give the fields of a query string; those that may repeat as lists."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except (ValueError, UnicodeDecodeError) as err:
        raise MlflowFault.invalid(f"the query string cannot be read: {err}; encode it by percents") from err
    repeated = {
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if str(field.type).startswith(("list", "tuple"))
    }
    fields: dict[str, Any] = {name: [] for name in repeated if any(each == name for each, _ in pairs)}
    for name, value in pairs:
        if name in repeated:
            fields[name].append(value)
        else:
            fields[name] = value
    return fields


def _told(message: str, body: bytes) -> str:
    """Say what is wrong with a field, in the words that clients look for."""
    missing = _MISSING.match(message)
    if missing is not None:
        where = f"{missing[2].lstrip('.')}." if missing[2] else ""
        return f"Missing value for required parameter '{where}{missing[1]}'. Send it."
    found = _AT.match(message)
    if found is None:
        return f"Invalid value {_shown(_parsed(body))} for the request supplied: {message}"
    if _EMPTY in found[1]:
        return f"Missing value for required parameter '{found[2]}'. Send a text of one character or more."
    value = _value_at(_parsed(body), found[2])
    return f"Invalid value {_shown(value)} for parameter '{found[2]}' supplied: {found[1]}"


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it came in a query string, or is deep
        return None


def _value_at(value: Any, path: str) -> Any:
    """Follow a path as msgspec names it, such as `metrics[...].value`, to the first that is there."""
    for part in re.findall(r"\w+", path):
        if isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, dict):
            return value
        value = value.get(part)
    return value


def _shown(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except RecursionError:
        text = "nested too deep to be shown"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
