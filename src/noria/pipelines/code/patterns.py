"""Files that a step declares, by pattern below the project's folder."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

from noria.errors import ConfigError
from noria.pipelines.code.modules import ModuleFinder

__all__ = ["match_files"]

_SHOWN = 8  # names that an error lists


def match_files(finder: ModuleFinder, pattern: str) -> tuple[Path, ...]:
    """Give the files below the root that a pattern names, sorted.

    `*`, `?` and `[...]` match within one name, `**` any number of folders; a folder stands for all files in
    it. Folders of tools (`.git`, `.venv`, `.noria`, `node_modules`, `__pycache__`) are passed over.

    Raises
    ------
    ConfigError
        If the pattern is absolute or leads out of the root, if it names a folder that cannot be read, or if
        nothing is there.
    """
    _check(pattern)
    parts = PurePosixPath(pattern).parts
    places = dict.fromkeys([*_match(finder, finder.root, parts, frozenset())])
    files = {file for place in places for file in _files_in(finder, place, frozenset(), pattern)}
    if not files:
        raise ConfigError(f"files {pattern!r} matches no file; {_what_lies_there(finder, parts)}")
    return tuple(sorted(files))


def _check(pattern: str) -> None:
    if not pattern.strip() or PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).anchor:
        raise ConfigError(
            f"files {pattern!r} is no pattern below the project's folder; write for example 'sql/*.sql'"
        )
    if ".." in PurePosixPath(pattern).parts:
        raise ConfigError(
            f"files {pattern!r} leads out of the project's folder; copy the file into it, or make it an "
            "input of the step"
        )


def _match(
    finder: ModuleFinder, folder: Path, parts: tuple[str, ...], above: frozenset[str]
) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    names = finder.list_folder(folder)
    if names is None:
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _match(finder, folder, rest, above)
        real = os.path.realpath(folder)
        if real not in above:  # else a link has led back up
            for name in sorted(name for name, is_dir in names.items() if is_dir):
                yield from _match(finder, folder / name, parts, above | {real})
        return
    found = [head] if head in names else sorted(name for name in names if fnmatchcase(name, head))
    for name in found:
        if names[name] or not rest:
            yield from _match(finder, folder / name, rest, above)


def _files_in(finder: ModuleFinder, place: Path, above: frozenset[str], pattern: str) -> Iterator[Path]:
    real = os.path.realpath(place)
    if not Path(real).is_relative_to(os.path.realpath(finder.root)):
        raise ConfigError(
            f"files {pattern!r} leads out of the project's folder by the link {finder.relative(place)} -> "
            f"{real}; copy the file into the project, or make it an input of the step"
        )
    if not place.is_dir():
        yield place
        return
    names = finder.list_folder(place)
    if names is None:
        raise ConfigError(
            f"files {pattern!r} names the folder {finder.relative(place)}, which cannot be read"
        )
    if real not in above:
        for name in names:
            yield from _files_in(finder, place / name, above | {real}, pattern)


def _what_lies_there(finder: ModuleFinder, parts: tuple[str, ...]) -> str:
    """Tell what is in the last folder on a pattern's way that exists."""
    folder = finder.root
    for part in parts:
        names = finder.list_folder(folder) or {}
        if not names.get(part):
            break
        folder /= part
    where = finder.relative(folder)
    place = "the project's folder" if where == "." else where
    names = finder.list_folder(folder) or {}
    if not names:
        return f"{place} is empty"
    shown = [f"{name}/" if is_dir else name for name, is_dir in sorted(names.items())]
    near = get_close_matches(part, names, n=1)
    hint = f", the nearest is {near[0]}" if near else ""
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"in {place} there is {', '.join(shown[:_SHOWN])}{more}{hint}"
