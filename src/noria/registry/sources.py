"""Where the files of a version come from that somebody registers: what may be named, and what it leads to.

Whoever registers a version names its source. A source in the project's own artifacts has to belong to the run
or to the logged model that is named beside it, so that nobody registers, and then reads, files of others by a
path that leads elsewhere; a local path would be one of the server.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote_plus, urlsplit

from noria.errors import ConfigError

__all__ = [
    "LoggedRoot",
    "ModelReference",
    "SourceRoots",
    "Sourced",
    "artifact_folder",
    "checked_source",
    "find_reference",
]

ARTIFACTS = "mlflow-artifacts"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")  # one letter is a drive
_ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class LoggedRoot:
    """Where the files of a logged model are, and which run logged it."""

    uri: str
    run: str | None


@dataclass(frozen=True, slots=True)
class SourceRoots:
    """Tells where files are kept.

    Attributes
    ----------
    of_run, of_model
        Give the URI below which a run's or a logged model's files are; None if there is none of that id.
    """

    of_run: Callable[[str], str | None]
    of_model: Callable[[str], LoggedRoot | None]


@dataclass(frozen=True, slots=True)
class Sourced:
    """What a source leads to.

    Attributes
    ----------
    location
        Where the files are loaded from.
    folder
        Their folder, or the one file, in the project's artifacts; None: they are elsewhere.
    """

    source: str
    location: str
    run: str | None
    logged_model: str | None
    folder: str | None


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A version of a model that a source names: by number, alias or stage; else it is the newest."""

    name: str
    number: int | None = None
    alias: str | None = None
    stage: str | None = None


def find_reference(source: str) -> ModelReference | None:
    """Give the version that a source `models:/NAME/3` or `models:/NAME@ALIAS` names, None for other sources.

    Raises
    ------
    ConfigError
        If it begins so and goes on otherwise.

    Examples
    --------
    >>> find_reference("models:/flights@champion").alias
    'champion'
    """
    if _scheme(source) != "models":
        return None
    parts = _plain_path(source).split("/")
    if len(parts) == 1 and "@" not in parts[0]:
        return None  # a logged model
    name, _, suffix = parts[0].rpartition("@") if len(parts) == 1 else (parts[0], "", parts[-1])
    if len(parts) > 2 or not name.strip() or not suffix.strip():
        _refuse(source, "write models:/NAME/3, models:/NAME@ALIAS or models:/m-…")
    if len(parts) == 1:
        return ModelReference(name, alias=suffix)
    if suffix.isascii() and suffix.isdecimal():
        return ModelReference(name, number=int(suffix[:18]))
    return ModelReference(name) if suffix.lower() == "latest" else ModelReference(name, stage=suffix)


def checked_source(source: str, *, run: str | None, logged_model: str | None, roots: SourceRoots) -> Sourced:
    """Give what a source leads to that is no version of a model.

    Raises
    ------
    ConfigError
        If it leads out of the files of the run or logged model that is named, or may not be one.
    """
    scheme = _scheme(source)
    if scheme in {"", "file"}:
        return _checked_local(source, run, logged_model, roots)
    _check_plain(source)
    if scheme == "runs":
        named, _, rest = _plain_path(source).partition("/")
        if logged_model or not run or named != run:
            _refuse(source, "name the run in it as run_id")
        folder = artifact_folder(roots.of_run(run), rest)
        return Sourced(source, source, run, None, folder)
    if scheme == "models":
        if not logged_model or _plain_path(source) != logged_model:
            _refuse(source, "name the model in it as model_id")
        root = roots.of_model(logged_model)
        if root is None:
            _refuse(source, f"there is no logged model {logged_model[:40]!r}")
        return Sourced(source, root.uri, run or root.run, logged_model, artifact_folder(root.uri))
    if scheme == ARTIFACTS or (scheme in {"http", "https"} and _ROUTE in _decoded(source)):
        within, found_run = _root(source, run, logged_model, roots)
        if not _is_within(source, within):
            _refuse(source, "it lies outside of what the run or model keeps that is named beside it")
        return Sourced(source, source, found_run, logged_model, artifact_folder(source))
    return Sourced(source, source, run, logged_model, None)


def _checked_local(source: str, run: str | None, logged_model: str | None, roots: SourceRoots) -> Sourced:
    why = "a local path is one of the server; log the files to a run and register those"
    if not (run or logged_model):
        _refuse(source, why)
    _check_plain(source)
    within, found_run = _root(source, run, logged_model, roots)
    if _scheme(within) not in {"", "file"} or _parts(within) != _parts(source)[: len(_parts(within))]:
        _refuse(source, why)
    return Sourced(source, source, found_run, logged_model, None)


def _root(
    source: str, run: str | None, logged_model: str | None, roots: SourceRoots
) -> tuple[str, str | None]:
    """Give the URI below which the files of the model, else of the run, are that is named; and the run."""
    if logged_model:
        root = roots.of_model(logged_model)
        if root is None:
            _refuse(source, f"there is no logged model {logged_model[:40]!r}")
        return root.uri, run or root.run
    uri = roots.of_run(run) if run else None
    if uri is None:
        _refuse(source, "name the run or the logged model whose file it is, as run_id or model_id")
    return uri, run


def artifact_folder(uri: str | None, rest: str = "") -> str | None:
    """Give the path in the project's artifacts; None where the files are elsewhere."""
    if uri is None or _scheme(uri) != ARTIFACTS or urlsplit(uri).netloc:
        return None
    return "/".join(part for part in (*uri.partition(":")[2].split("/"), *rest.split("/")) if part)


def _is_within(source: str, root: str) -> bool:
    try:
        found, wanted = urlsplit(source), urlsplit(root)
    except ValueError:  # an experiment may keep its files anywhere
        return False
    same = (found.scheme.lower(), found.netloc.lower()) == (wanted.scheme.lower(), wanted.netloc.lower())
    parts = _parts(root)
    return same and bool(parts) and _parts(source)[: len(parts)] == parts


def _parts(uri: str) -> list[str]:
    return [_decoded(part) for part in urlsplit(uri).path.split("/") if part]


def _scheme(source: str) -> str:
    match = _SCHEME.match(source)
    return match[1].lower() if match else ""


def _plain_path(source: str) -> str:
    """Give what follows `runs:/` or `models:/`."""
    path = source.partition(":")[2]
    if not path.startswith("/") or path.startswith("//") or not path.strip("/"):
        _refuse(source, "write one slash after the colon, then what it names")
    return path.strip("/")


def _check_plain(source: str) -> None:
    """Refuse what leads upwards, however it is encoded."""
    plain = _decoded(source)
    parts = re.split(r"[/\\?#]", plain)
    if min(plain, default=" ") < " " or ".." in parts or "." in parts:
        _refuse(source, "give an absolute path without '.' and '..' and control characters, also encoded")
    try:
        path = urlsplit(source).path
    except ValueError:  # such as brackets that are no address
        _refuse(source, "it is no URI")
    if path and not path.startswith("/"):
        _refuse(source, "give an absolute path")


def _decoded(text: str) -> str:
    """Decode until nothing is left to decode; each round makes it shorter."""
    while (plain := unquote_plus(text)) != text and len(plain) < len(text):
        text = plain
    return text


def _refuse(source: str, why: str) -> NoReturn:
    shown = source if len(source) <= _SHOWN_CHARS else f"{source[:_SHOWN_CHARS]}…"
    raise ConfigError(f"Invalid model version source: '{shown}'. {why[0].upper()}{why[1:]}.")
