"""The folder of a light service: a project like any other, made where there is none."""

import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from noria.errors import ConfigError, Conflict, DiskFull, LeaseHeld, NotFound, StoreError

__all__ = [
    "ENVIRONMENT",
    "FOLDER",
    "check_free",
    "checked_name",
    "list_services",
    "make_folder",
    "name_of",
    "remove_folder",
    "service_folder",
]

ENVIRONMENT = "production"
FOLDER = ".noria-light"
_MARK = "noria.toml"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NO_SPACE = 28
_SETTINGS = """\
# The service that `noria light` made of a model's file: a project like any other. What stands here holds from
# its next start on; limits, TLS and whatever else [environments.NAME] may say can be added.
[project]
name = "{name}"

[environments.production]
"""


def name_of(path: Path) -> str:
    """Give the name of a model by its file's.

    Examples
    --------
    >>> name_of(Path("späte Züge (2).txt"))
    'spate_Zuge_2'
    """
    plain = unicodedata.normalize("NFKD", path.stem if path.suffix else path.name)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", plain.encode("ascii", "ignore").decode()).strip("_-")
    return name if _NAME.fullmatch(name) else f"model_{name}".rstrip("_")


def checked_name(name: str) -> str:
    """Give a name that somebody chose. Raises `ConfigError` if a service cannot have it."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} can be no service's name; it has letters, digits, - and _, a letter first"
        )
    return name


def make_folder(base: Path, name: str) -> Path:
    """Give the folder of a service below `base`; it is made where there is none. git is told to leave it out.

    Raises
    ------
    Conflict
        If something else is there.
    DiskFull, StoreError
        If it cannot be written.
    """
    folder = base / name
    for each in (base, folder):
        if each.exists() and not each.is_dir():
            raise Conflict(f"{each} is a file; name another folder by `--folder` (in Python `folder=`)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (base / ".gitignore").exists() and base.name == FOLDER:
            (base / ".gitignore").write_text("*\n", encoding="utf-8")
        if not (folder / _MARK).exists():
            beside = folder / f".{_MARK}.{os.getpid()}"
            beside.write_text(_SETTINGS.format(name=name), encoding="utf-8")
            beside.replace(folder / _MARK)
    except OSError as err:
        if err.errno == _NO_SPACE:
            raise DiskFull(str(folder)) from err
        raise StoreError(
            f"{folder} cannot be written: {err.strerror}; name another folder by `--folder` (in Python "
            "`folder=`)"
        ) from err
    return folder


def check_free(folder: Path) -> None:
    """Refuse a service that another process answers from, before anything there is changed.

    Raises
    ------
    LeaseHeld
        If there is one; it says under which name another model of the same file name could answer.
    """
    from noria.streams.spool import take_lock

    deployments = folder / ".noria" / "deployments" / ENVIRONMENT
    if not deployments.is_dir():
        return
    try:
        lock = take_lock(deployments)
    except LeaseHeld as err:
        held = LeaseHeld(f"the service {folder.name!r} in {folder.parent}", err.holder)
        held.add_note("Or let this model answer beside it, by another name: `--name` (in Python `name=`).")
        raise held from None
    os.close(lock)


def remove_folder(folder: Path) -> None:
    """Remove the folder of a service that never answered, and the one around it if it holds nothing else."""
    shutil.rmtree(folder)
    base = folder.parent
    if base.name == FOLDER and [each.name for each in base.iterdir()] == [".gitignore"]:
        shutil.rmtree(base)


def list_services(base: Path) -> Iterator[Path]:
    """List the folders of services below `base`, by name."""
    if base.is_dir():
        yield from sorted(each.parent for each in base.glob(f"*/{_MARK}"))


def service_folder(base: Path, name: str | None) -> Path:
    """Give the folder of a service, or of the only one there is.

    Raises
    ------
    NotFound
        If there is none of that name.
    ConfigError
        If there are several, and none was named.
    """
    known = {each.name: each for each in list_services(base)}
    if name is not None and name in known:
        return known[name]
    if name is not None or not known:
        advice = f"nothing is in {base}; `noria light MODEL_FILE` makes one, `--folder` names where it is"
        raise NotFound("service", name or "of any name", known, advice=advice)
    if len(known) > 1:
        raise ConfigError(f"several services are in {base}: {', '.join(known)}; name one")
    return next(iter(known.values()))
