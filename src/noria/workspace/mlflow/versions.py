"""Versions of models as MLflow tells of them: what their sources name, and where their files are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from noria.errors import ConfigError
from noria.registry.catalogue_records import Stage
from noria.registry.importing import ForeignVersion
from noria.workspace.mlflow.source import LeftBehind

__all__ = ["PROMPT_TAG", "Owner", "logged_model_of", "owners_of", "read_stage"]

PROMPT_TAG = "mlflow.prompt.is_prompt"
_LOGGED = re.compile(r"models:/+(m-[0-9a-zA-Z\-]+)(?:/(.*))?", re.ASCII)
_RUN = re.compile(r"runs:/+([a-zA-Z0-9][\w\-]*)(?:/(.*))?", re.ASCII)
_BELOW_MODEL = re.compile(r"(?:^|/)models/(m-[0-9a-zA-Z\-]+)/artifacts(?:/(.*))?$", re.ASCII)
_BELOW_RUN = re.compile(r"(?:^|/)([a-zA-Z0-9][\w\-]*)/artifacts(?:/(.*))?$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Owner:
    """A run or a logged model whose files a version's may be, and the path below them."""

    id: str
    is_logged_model: bool
    path: str


def logged_model_of(source: str) -> str | None:
    """Give the logged model that a source names.

    Examples
    --------
    >>> logged_model_of("models:/m-1f"), logged_model_of("models:/flights/3")
    ('m-1f', None)
    """
    found = _LOGGED.fullmatch(source)
    return None if found is None else found[1]


def owners_of(version: ForeignVersion) -> Iterator[Owner]:
    """Give whose files those of a version may be, the likeliest first.

    Examples
    --------
    >>> from noria.clock import from_micros
    >>> at = from_micros(0)
    >>> version = ForeignVersion(
    ...     number=1, source="runs:/ab/net", location="runs:/ab/net", created_at=at, updated_at=at
    ... )
    >>> next(owners_of(version))
    Owner(id='ab', is_logged_model=False, path='net')
    """
    for text in dict.fromkeys((version.source, version.location)):
        for pattern, is_model in ((_LOGGED, True), (_RUN, False)):
            if (named := pattern.fullmatch(text)) is not None:
                yield Owner(named[1], is_model, _path(named[2]))
    path = unquote(urlsplit(version.location).path).replace("\\", "/")
    for pattern, is_model in ((_BELOW_MODEL, True), (_BELOW_RUN, False)):
        if (below := pattern.search(path)) is not None:
            yield Owner(below[1], is_model, _path(below[2]))


def read_stage(text: str | None) -> Stage:
    """Give a stage. Raises `LeftBehind` if there is no such."""
    try:
        return Stage.read(text or Stage.NONE.value)
    except ConfigError as err:
        raise LeftBehind(str(err)) from err


def _path(text: str | None) -> str:
    return "/".join(part for part in (text or "").split("/") if part)
