"""How files and bytes differ, in words: which file, what sizes and digests, which line."""

import dataclasses
from collections.abc import Iterator, Mapping
from enum import Enum
from hashlib import file_digest
from pathlib import Path
from typing import Any

from noria.pipelines.code.changes import first_change
from noria.records import sha256_hex

__all__ = ["attributes_of", "differing_files", "told_bytes"]

_READ_AT_MOST = 1_000_000  # of a file, to find a line in it
_SHOWN = 16  # letters of a digest


def told_bytes(before: bytes, after: bytes, *, name: str = "text") -> str:
    r"""Tell how bytes differ: sizes and digests, and of text the first line.

    Examples
    --------
    >>> told_bytes(b"a\nb\n", b"a\nc\n").partition("; ")[2]
    'text line 2: `b` became `c`'
    """
    told = f"{_told(len(before), sha256_hex(before))} became {_told(len(after), sha256_hex(after))}"
    if _is_text(before) and _is_text(after) and max(len(before), len(after)) <= _READ_AT_MOST:
        return f"{told}; {first_change(name, before, after)}"
    return told


def differing_files(before: Path, after: Path) -> Iterator[tuple[str, str]]:
    """Tell how two files or folders differ: where below them, "" for themselves, and how."""
    if before.is_dir() != after.is_dir():
        what = {True: "a folder", False: "a file"}
        yield "", f"{what[before.is_dir()]} became {what[after.is_dir()]}"
    elif not before.is_dir():
        yield from (("", told) for told in _differing(before, after, before.name))
    else:
        old, new = _files_below(before), _files_below(after)
        for name in sorted({*old, *new}):
            if name not in new:
                yield f"/{name}", f"it is gone; it was {_told_file(old[name])}"
            elif name not in old:
                yield f"/{name}", f"it is new: {_told_file(new[name])}"
            else:
                yield from ((f"/{name}", told) for told in _differing(old[name], new[name], name))


def attributes_of(value: Any) -> Mapping[str, Any] | None:
    """Give what an object, such as a fitted model, is made of; None where it is compared as a whole."""
    if isinstance(value, type | Enum):
        return None
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    compares: object = type(value).__eq__
    if compares is not object.__eq__:
        return None
    state: object = value.__getstate__()
    match state:
        case dict():
            return state
        case (dict() | None as plain, dict() as slots):
            return {**(plain or {}), **slots}
        case _:
            return None


def _differing(before: Path, after: Path, name: str) -> Iterator[str]:
    if max(before.stat().st_size, after.stat().st_size) <= _READ_AT_MOST:
        old, new = before.read_bytes(), after.read_bytes()
        if old != new:
            yield told_bytes(old, new, name=name)
    elif (was := _told_file(before)) != (now := _told_file(after)):
        yield f"{was} became {now}"


def _told_file(path: Path) -> str:
    with path.open("rb") as file:
        return _told(path.stat().st_size, file_digest(file, "sha256").hexdigest())


def _told(size_bytes: int, sha256: str) -> str:
    return f"{size_bytes:,} bytes ({sha256[:_SHOWN]}…)"


def _files_below(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
