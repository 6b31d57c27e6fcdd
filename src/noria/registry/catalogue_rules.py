"""What models, versions, tags and aliases may be called."""

import posixpath
import re
from collections.abc import Mapping

from noria.errors import ConfigError

__all__ = [
    "MAX_NUMBER",
    "check_alias",
    "check_id",
    "check_model_name",
    "check_text",
    "check_unreserved",
    "check_version_tag",
    "checked_number",
    "tag_rows",
]

MAX_NUMBER = 2**63 - 1
_MAX_NAME_CHARS, _MAX_TAG_NAME_CHARS, _MAX_TAG_VALUE_CHARS, _MAX_ALIAS_CHARS = 256, 250, 100_000, 255
_MAX_ID_CHARS = 256
_HEAD_CHARS = 64
_ALIAS = re.compile(r"[\w\-]+")
_NUMBERED_ALIAS = re.compile(r"[vV]\d+")
_SHOWN_CHARS = 40


def check_model_name(name: str) -> None:
    """Raise `ConfigError` unless it may name a model."""
    if not name.strip():
        raise ConfigError("Missing value for required parameter 'name'. Give a text that is no space alone.")
    check_text("name", name, most=_MAX_NAME_CHARS)
    if "/" in name or ":" in name:
        raise ConfigError(f"Invalid model name {_shown(name)}. Names cannot contain '/' or ':'.")
    if posixpath.normpath(name) != name or name.startswith("..") or name == ".":
        raise ConfigError(f"Invalid model name {_shown(name)}: read as a path it leads elsewhere")


def check_text(what: str, text: str | None, *, most: int | None = None) -> None:
    """Raise `ConfigError` unless a text can be kept."""
    if text is None:
        return
    if "\0" in text:
        raise ConfigError(f"Invalid value for parameter '{what}' supplied: it has a NUL; leave that out")
    if most is not None and len(text) > most:
        raise ConfigError(
            f"Invalid value for parameter '{what}' supplied: {len(text):,} characters, of at most {most:,}"
        )


def check_id(what: str, text: str | None) -> None:
    """Raise `ConfigError` unless it may be the id of a run or a logged model."""
    check_text(what, text, most=_MAX_ID_CHARS)


def check_alias(alias: str) -> None:
    """Raise `ConfigError` unless it may be an alias."""
    if not _ALIAS.fullmatch(alias):
        raise ConfigError(
            f"Invalid alias name: {_shown(alias)}. "
            "Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )
    check_text("alias", alias, most=_MAX_ALIAS_CHARS)


def check_unreserved(alias: str) -> None:
    """Raise `ConfigError` if an alias reads as a version."""
    if alias.lower() == "latest" or _NUMBERED_ALIAS.fullmatch(alias):
        raise ConfigError(f"the alias {_shown(alias)} is reserved: it reads as a version; choose another")


def check_version_tag(name: str, value: str) -> None:
    """Raise `ConfigError` unless it may be a tag of a model or a version."""
    if not name:
        raise ConfigError("Missing value for required parameter 'key'. Give a text of one character or more.")
    check_text("key", name, most=_MAX_TAG_NAME_CHARS)
    check_text("value", value, most=_MAX_TAG_VALUE_CHARS)


def checked_number(number: int) -> int:
    """Give a version's number; one that a database cannot compare is that of no version, as 0 is."""
    return number if 0 <= number <= MAX_NUMBER else 0


def tag_rows(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Give tags as columns. Raises `ConfigError`."""
    for name, value in tags.items():
        check_version_tag(name, value)
    return [{"name": name, "value": value, "head": value[:_HEAD_CHARS]} for name, value in tags.items()]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")
