"""What may name an artifact: the one place where a path is judged.

A path only names a row, and never a place on a disk: the bytes lie under their digest. It is judged all the
same, because whoever downloads a folder makes files of its names.
"""

import re
from urllib.parse import unquote

from noria.errors import BadPath

__all__ = ["MAX_PATH_BYTES", "checked_folder", "checked_path"]

MAX_PATH_BYTES = 2_000  # PostgreSQL indexes no longer ones
_DRIVE = re.compile(r"[A-Za-z]:")


def checked_path(text: str) -> str:
    """Give the path of a file or a folder as it was given.

    Raises
    ------
    BadPath
        If it is empty, absolute, too long or not Unicode, or has an empty part, `.`, `..`, a backslash, a
        NUL or a drive letter, also where one of these is percent-encoded, however often.

    Examples
    --------
    >>> checked_path("0/run/artifacts/model/größe.txt")
    '0/run/artifacts/model/größe.txt'
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as err:
        raise BadPath(text, "it is no Unicode text") from err
    if size > MAX_PATH_BYTES:
        raise BadPath(text, f"it has {size:,} bytes, at most {MAX_PATH_BYTES:,} are taken")
    plain = _decoded(text)
    fault = _fault(plain)
    if fault is not None:
        raise BadPath(text, fault if plain == text else f"{fault} once it is decoded")
    return text


def checked_folder(text: str) -> str:
    """Give the path of a folder: empty for the one that holds all; a slash at its end is dropped.

    Raises
    ------
    BadPath
        Like `checked_path`.

    Examples
    --------
    >>> checked_folder("model/"), checked_folder(".")
    ('model', '')
    """
    if text in {"", "."}:
        return ""
    return checked_path(text.removesuffix("/") if len(text) > 1 else text)


def _decoded(text: str) -> str:
    """Decode until nothing is left to decode; each round makes it shorter."""
    while (plain := unquote(text)) != text:
        text = plain
    return text


def _fault(path: str) -> str | None:
    """Say what is wrong with a path; None: nothing."""
    parts = path.split("/")
    dots = next((each for each in parts if each in {".", ".."}), None)
    drive = next((each for each in parts if _DRIVE.fullmatch(each)), None)
    faults = (
        (not path, "it is empty"),
        (path.startswith("/"), "it is absolute"),
        (_DRIVE.match(path), "it begins with a drive letter"),
        (drive is not None, f"it has the part {drive!r}, a drive"),
        ("\\" in path, "it has a backslash"),
        ("\0" in path, "it has a NUL"),
        ("" in parts, "it has an empty part"),
        (dots is not None, f"it has the part {dots!r}"),
    )
    return next((told for is_so, told in faults if is_so), None)
