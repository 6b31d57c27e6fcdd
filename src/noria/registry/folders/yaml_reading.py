"""Small files of YAML from anywhere: plain values only, and no more work than their size lets expect."""

from typing import Any

import yaml  # type: ignore[import-untyped]

from noria.errors import ConfigError

__all__ = ["read_yaml"]

_MOST_BYTES = 4 << 20
_MOST_EVENTS = 200_000
_MOST_DEPTH = 40
_MOST_ALIASES = 1_000
_MOST_VALUES = 500_000  # with those that several places share counted in each
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(data: bytes, where: str) -> Any:
    """Give what YAML says.

    Parameters
    ----------
    data
        UTF-8 text.
    where
        What it is, in errors.

    Raises
    ------
    ConfigError
        If it is no YAML, has tags that make objects, or is large, deep or grows by its aliases.
    """
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{where} has {len(data)} bytes; at most {_MOST_BYTES >> 20} MiB are read")
    try:
        text = data.decode("utf-8-sig")
        _check_events(text, where)
        said = yaml.load(text, _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"{where} is no YAML that is read: {' '.join(str(err).split())[:300]}") from err
    _check_size(said, where)
    return said


def _check_events(text: str, where: str) -> None:
    depth = aliases = 0
    for number, event in enumerate(yaml.parse(text, _LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        elif isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.style is None:
            raise ConfigError(f"{where} merges mappings (`<<`), which is not read; write them out")
        if getattr(event, "tag", None) is not None:
            raise ConfigError(
                f"{where} has the tag {str(event.tag)[:100]!r}, which makes other than plain "
                "values; it is not read"
            )
        if number > _MOST_EVENTS or depth > _MOST_DEPTH or aliases > _MOST_ALIASES:
            raise ConfigError(f"{where} is too large or too deep for a description; it is not read")


def _check_size(said: Any, where: str) -> None:
    left, waiting = _MOST_VALUES, [said]
    while waiting:
        left -= 1
        if left < 0:
            raise ConfigError(f"{where} grows beyond any description by its aliases; it is not read")
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
