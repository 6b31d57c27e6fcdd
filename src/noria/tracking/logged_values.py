"""What may be logged: values are taken as they are or refused by name, before anything is written."""

import math
import operator
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, SupportsFloat, SupportsIndex

import msgspec

from noria.clock import to_micros
from noria.errors import ConfigError
from noria.records import canonical_json
from noria.tracking.names import check_name, check_text, check_title
from noria.tracking.store import RUN_NAME_TAG

__all__ = [
    "Number",
    "check_step",
    "instant_us",
    "metric_values",
    "param_values",
    "plain_text",
    "seed_value",
    "tag_values",
]

Number = SupportsFloat | SupportsIndex
_LARGEST = 2**63 - 1
_BEYOND = "steps are whole numbers of 64 bits"


def metric_values(metrics: Mapping[str, Number]) -> list[tuple[str, float]]:
    """Give values of metrics as floats; also NaN and infinite. Raises `ConfigError`, naming the metric."""
    return [
        (_checked_name("metric", name), value if type(value) is float else _to_float(name, value))
        for name, value in _items("metric", metrics)
    ]


def check_step(name: str, step: SupportsIndex) -> int:
    """Give a step as an int. Raises `ConfigError`, naming the metric."""
    try:
        found = operator.index(step)
    except TypeError as err:
        raise ConfigError(
            f"metric {name!r}: the step is {step!r} ({type(step).__name__}); {_BEYOND}: give one"
        ) from err
    if not -_LARGEST <= found <= _LARGEST:
        raise ConfigError(f"metric {name!r}: the step is {found}; {_BEYOND}: give a smaller one")
    return found


def instant_us(at: datetime) -> int:
    """Give an instant of the wall in microseconds. Raises `ConfigError` if it has no time zone."""
    try:
        return to_micros(at)
    except (ValueError, TypeError, AttributeError) as err:
        raise ConfigError(
            f"at={at!r} is no instant with a time zone; give one such as datetime.now(UTC)"
        ) from err


def param_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Give parameters as what JSON can hold. Raises `ConfigError`, naming the parameter.

    Numbers of numpy become numbers, paths texts; so do NaN and infinities, which JSON has not.
    """
    return {_checked_name("param", name): _param(name, value) for name, value in _items("param", params)}


def tag_values(tags: Mapping[str, object]) -> dict[str, str]:
    """Give tags as texts. Raises `ConfigError`, naming the tag."""
    found = {_checked_name("tag", name): str(value) for name, value in _items("tag", tags)}
    for name, value in found.items():
        check_text(f"tag {name!r}", value)
    if RUN_NAME_TAG in found:
        check_title("run", found[RUN_NAME_TAG])
    return found


def seed_value(seed: SupportsIndex | None) -> int | None:
    """Give a seed as an int of 64 bits. Raises `ConfigError` if it is none."""
    try:
        found = None if seed is None else operator.index(seed)
    except TypeError as err:
        raise ConfigError(f"the seed is {seed!r:.200}, a {type(seed).__name__}; give a whole number") from err
    if found is not None and not -_LARGEST <= found <= _LARGEST:
        raise ConfigError(f"the seed is {found}, wanted one of 64 bits; give a smaller one")
    return found


def plain_text(what: str, text: object) -> str:
    """Give a text that a database can keep. Raises `ConfigError`, naming it, if it is none."""
    if not isinstance(text, str):
        raise ConfigError(f"{what}: found {text!r:.200}, a {type(text).__name__}, wanted a text; give one")
    return check_text(what, str.__str__(text))


def _items(kind: str, given: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    try:
        return given.items()
    except AttributeError as err:
        raise ConfigError(
            f"found {given!r:.200}, a {type(given).__name__}, wanted a dict: each {kind} by its name"
        ) from err


def _checked_name(kind: str, name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"a {kind} is named {name!r}, which is a {type(name).__name__}; give a text")
    return check_name(kind, name if type(name) is str else str.__str__(name))  # such as one of numpy


def _to_float(name: str, value: Number) -> float:
    if not isinstance(value, (str, bytes, bytearray)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as err:  # RuntimeError: of torch
            raise _no_number(name, value, err) from err
    raise _no_number(name, value, None)


def _no_number(name: str, value: object, err: Exception | None) -> ConfigError:
    why = "" if err is None else f" ({err})"
    return ConfigError(
        f"metric {name!r}: found {value!r:.200}, a {type(value).__name__}, wanted one number{why}; "
        "log it as a parameter, a tag or a text, or log a number of it"
    )


def _param(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return check_text(f"param {name!r}", str.__str__(value))
    if value is None or type(value) is bool:
        return value
    if type(value) is float:
        return _json_float(value)
    try:
        plain = msgspec.to_builtins(value, enc_hook=_plain, str_keys=True, order="deterministic")
        plain = _with_json_floats(plain)
        canonical_json(plain)
        found = msgspec.msgpack.decode(msgspec.msgpack.encode(plain))  # as the spool gives it back
    except (TypeError, ValueError, OverflowError, RecursionError) as err:
        raise ConfigError(
            f"param {name!r}: found {value!r:.200}, a {type(value).__name__}, wanted what JSON can hold "
            f"({err}); give it as a text, or log its parts"
        ) from err
    for text in _texts(found):
        check_text(f"param {name!r}", text)
    return found


def _json_float(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _with_json_floats(value: Any) -> Any:
    match value:
        case float():
            return _json_float(value)
        case dict():
            return {_with_json_floats(key): _with_json_floats(each) for key, each in value.items()}
        case list() | tuple():
            return [_with_json_floats(each) for each in value]
        case _:
            return value


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is none")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
