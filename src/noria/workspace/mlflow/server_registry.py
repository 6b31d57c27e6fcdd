"""Registered models as a server of MLflow answers them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from noria.errors import SourceError
from noria.registry.importing import ForeignRegistered, ForeignVersion
from noria.workspace.mlflow.source import LeftBehind, UnreadModel, from_ms, some_instant
from noria.workspace.mlflow.versions import PROMPT_TAG, logged_model_of, read_stage

__all__ = ["Absent", "RegistryRoutes"]

_API = "/api/2.0/mlflow"
_MODELS_AT_ONCE, _VERSIONS_AT_ONCE = 100, 1_000


class Absent(SourceError):
    """A server has no such thing, or no such route."""


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _Alias(msgspec.Struct):
    alias: str
    version: int


class _Registered(msgspec.Struct):
    """A registered model."""

    name: str
    creation_timestamp: int | None = None
    last_updated_timestamp: int | None = None
    description: str | None = None
    tags: list[_Pair] = []
    aliases: list[_Alias] = []


class _RegisteredPage(msgspec.Struct):
    """A page of registered models."""

    registered_models: list[_Registered] = []
    next_page_token: str = ""


class _Version(msgspec.Struct):
    """A version of a model."""

    name: str
    version: int
    creation_timestamp: int | None = None
    last_updated_timestamp: int | None = None
    user_id: str = ""
    current_stage: str | None = None
    description: str | None = None
    source: str = ""
    run_id: str = ""
    status: str = ""
    status_message: str | None = None
    run_link: str = ""
    tags: list[_Pair] = []


class _Versions(msgspec.Struct):
    """A page of versions."""

    model_versions: list[_Version] = []
    next_page_token: str = ""


class _Location(msgspec.Struct):
    """Where the files of a version are loaded from."""

    artifact_uri: str = ""


class RegistryRoutes:
    """Asks a server for its registry.

    Parameters
    ----------
    get
        Gives what a route answers, decoded. Raises `Absent`, `SourceError`.
    """

    def __init__(self, get: Callable[[str, Mapping[str, str], type[Any]], Any]) -> None:
        self._get = get

    def pages(self) -> Iterator[Sequence[ForeignRegistered | UnreadModel]]:
        """Give the models with their versions, but for deleted ones."""
        for page in self._found(""):
            yield [self._with_versions(each) for each in page.registered_models]

    def count_prompts(self) -> int:
        """Count what is not imported; a server that has none knows nothing of such a filter."""
        try:
            return sum(len(page.registered_models) for page in self._found(f"tags.`{PROMPT_TAG}` = 'true'"))
        except SourceError:
            return 0

    def _found(self, filter: str) -> Iterator[_RegisteredPage]:
        asked = {"max_results": str(_MODELS_AT_ONCE)} | ({"filter": filter} if filter else {})
        while True:
            try:
                page: _RegisteredPage = self._get(f"{_API}/registered-models/search", asked, _RegisteredPage)
            except Absent:
                return
            yield page
            if not page.next_page_token:
                return
            asked["page_token"] = page.next_page_token

    def _with_versions(self, model: _Registered) -> ForeignRegistered | UnreadModel:
        mark = '"' if "'" in model.name else "'"
        if mark in model.name:
            return UnreadModel(model.name, "no filter of MLflow finds a name with both kinds of quotes")
        asked = {"filter": f"name = {mark}{model.name}{mark}", "max_results": str(_VERSIONS_AT_ONCE)}
        versions: list[_Version] = []
        while True:
            page: _Versions = self._get(f"{_API}/model-versions/search", asked, _Versions)
            versions += page.model_versions
            if not page.next_page_token:
                break
            asked["page_token"] = page.next_page_token
        locations: dict[int, str] = {}
        for each in versions:
            if not each.source.startswith("runs:/"):
                named = {"name": each.name, "version": str(each.version)}
                with suppress(Absent):  # deleted since it was listed
                    told: _Location = self._get(f"{_API}/model-versions/get-download-uri", named, _Location)
                    locations[each.version] = told.artifact_uri
        return _to_registered(model, versions, locations)


def _to_registered(
    wire: _Registered, versions: list[_Version], locations: dict[int, str]
) -> ForeignRegistered | UnreadModel:
    """Give a model as it is imported.

    Parameters
    ----------
    locations
        Of versions whose sources do not tell.
    """
    try:
        at = some_instant(from_ms(wire.creation_timestamp))
        updated_at = some_instant(from_ms(wire.last_updated_timestamp), at)
    except LeftBehind as err:
        return UnreadModel(wire.name, str(err))
    read: list[ForeignVersion] = []
    unread: list[tuple[int, str]] = []
    for each in versions:
        try:
            read.append(_to_version(each, locations.get(each.version)))
        except LeftBehind as err:
            unread.append((each.version, str(err)))
    return ForeignRegistered(
        name=wire.name,
        created_at=at,
        updated_at=updated_at,
        description=wire.description,
        tags={each.key: each.value for each in wire.tags},
        aliases={each.alias: each.version for each in wire.aliases},
        versions=tuple(read),
        unread=tuple(unread),
    )


def _to_version(wire: _Version, location: str | None) -> ForeignVersion:
    """Give a version. Raises `LeftBehind`."""
    at = some_instant(from_ms(wire.creation_timestamp))
    return ForeignVersion(
        number=wire.version,
        source=wire.source,
        location=location or wire.source,
        created_at=at,
        updated_at=some_instant(from_ms(wire.last_updated_timestamp), at),
        run=wire.run_id or None,
        logged_model=logged_model_of(wire.source),
        run_link=wire.run_link or None,
        description=wire.description or None,
        owner=wire.user_id or None,
        stage=read_stage(wire.current_stage),
        status=wire.status or "READY",
        status_message=wire.status_message or None,
        tags={each.key: each.value for each in wire.tags},
    )
