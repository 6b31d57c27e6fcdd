"""Making a project from a template that ships with noria."""

import re
from pathlib import Path

from noria.errors import Conflict, DiskFull, NotFound, StoreError

__all__ = ["create_project", "templates"]

_TEMPLATES = Path(__file__).parent / "templates"
_MARK = "noria.toml"  # written last: with it the folder is a project
_IGNORED = ".noria/\n__pycache__/\n"
_NO_SPACE = 28
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def templates() -> tuple[str, ...]:
    """Name the templates.

    Examples
    --------
    >>> templates()
    ('customers', 'empty', 'flights', 'pipeline')
    """
    return tuple(sorted(each.name for each in _TEMPLATES.iterdir() if (each / _MARK).is_file()))


def create_project(folder: Path, *, template: str = "empty") -> tuple[Path, ...]:
    """Make a project in `folder` and give the files that were written; nothing is ever overwritten.

    Called again after a kill it writes what is missing: a folder is a project once its `noria.toml` is there,
    which comes last.

    Raises
    ------
    NotFound
        If there is no such template.
    Conflict
        If the folder is a project, or holds another file where one would be written.
    DiskFull, StoreError
        If it cannot be written.
    """
    if template not in templates():
        raise NotFound("template", template, templates())
    if (folder / _MARK).exists():
        raise Conflict(f"{folder} is a project already (there is a {_MARK}); name another folder")
    contents = _contents(template)
    if _NAME.fullmatch(folder.absolute().name):  # where the template leaves the name open
        named = f'name = "{folder.absolute().name}"'.encode()
        contents[_MARK] = contents[_MARK].replace(b'name = "project"', named, 1)
    _refuse_to_overwrite(folder, contents)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.new")
            beside.write_bytes(data)
            beside.replace(path)
    except OSError as err:
        if err.errno == _NO_SPACE:
            raise DiskFull(str(folder)) from err
        raise StoreError(f"{folder} cannot be written: {err.strerror}; name another folder") from err
    return tuple(folder / name for name in contents)


def _contents(template: str) -> dict[str, bytes]:
    base = _TEMPLATES / template
    files = [each for each in base.rglob("*") if each.is_file() and "__pycache__" not in each.parts]
    names = sorted(
        (each.relative_to(base).as_posix() for each in files), key=lambda name: (name == _MARK, name)
    )
    return {".gitignore": _IGNORED.encode()} | {
        name: (_TEMPLATES / template / name).read_bytes() for name in names
    }


def _refuse_to_overwrite(folder: Path, contents: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise Conflict(f"{folder} is a file; name a folder for the project")
    for name, data in list(contents.items()):
        path = folder / name
        if not path.exists():
            continue
        if name == ".gitignore":
            del contents[name]  # the repository has its own
        elif path.read_bytes() != data:
            raise Conflict(f"{path} exists and would be overwritten; name another folder, or move it away")
