"""Which names metrics, parameters and tags may have."""

import posixpath
import re
from functools import lru_cache

from noria.errors import ConfigError

__all__ = ["MAX_NAME_CHARS", "check_name", "check_text", "check_title"]

MAX_NAME_CHARS = 250
_MAX_TITLE_CHARS = 500  # what PostgreSQL indexes in any script
_SIGNS = re.compile(r"[\w\-. :/]+")  # letters of any alphabet


@lru_cache(maxsize=4_096)
def check_name(kind: str, name: str) -> str:
    """Give a name that may be one.

    Parameters
    ----------
    kind
        What it names: "metric", "param" or "tag".

    Raises
    ------
    ConfigError
        If it is too long, has other signs, or reads as a path that leads elsewhere.
    """
    if not name:
        raise ConfigError(f"Invalid {kind} name {name!r}: give a text of one character or more")
    if len(name) > MAX_NAME_CHARS:
        raise ConfigError(
            f"Invalid {kind} name '{name[:40]}…' of {len(name)} characters: "
            f"it may have {MAX_NAME_CHARS}; shorten it"
        )
    if not _SIGNS.fullmatch(name):
        raise ConfigError(
            f"Invalid {kind} name {name!r}: use letters, digits, underscores, dashes, periods, spaces, "
            "colons and slashes"
        )
    if posixpath.normpath(name) != name or name in (".", "..") or name.startswith(("/", "../")):
        raise ConfigError(
            f"Invalid {kind} name {name!r}: read as a path it leads elsewhere; "
            f"write {posixpath.normpath(name).lstrip('./')!r}"
        )
    return name


def check_title(kind: str, title: str) -> str:
    """Give the name of a run or an experiment: any text that a database can keep and index.

    Raises
    ------
    ConfigError
        If it is none, or too long.
    """
    if not isinstance(title, str):
        raise ConfigError(f"the {kind} is named {title!r:.200}, a {type(title).__name__}; give a text")
    if len(title) > _MAX_TITLE_CHARS:
        raise ConfigError(
            f"the {kind} name '{title[:40]}…' has {len(title)} characters: it may have {_MAX_TITLE_CHARS}; "
            "shorten it"
        )
    return check_text(f"the {kind} name", title)


def check_text(what: str, text: str) -> str:
    """Give a text that a database can keep. Raises `ConfigError` if it is no Unicode, or has a NUL."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"{what}: the text {text!r:.200} is no Unicode ({err}); clean it") from err
    if "\0" in text:
        raise ConfigError(f"{what}: the text {text!r:.200} has a NUL, which none may have; remove it")
    return text
