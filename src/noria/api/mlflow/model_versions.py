"""Versions of registered models over MLflow's protocol."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from noria.api.mlflow.application import Endpoint
from noria.api.mlflow.experiments import check_max_results
from noria.api.mlflow.fields import KeyValue, Required, Search
from noria.api.mlflow.model_objects import version_number, version_object
from noria.registry.catalogue_records import Stage
from noria.registry.catalogue_search import MAX_VERSIONS
from noria.registry.registered_tag import tell_registered
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.models.logged_models import LoggedModels

__all__ = ["ModelVersionEndpoints"]

_RESULTS = 10_000  # of a page, where nothing is said


class _Create(msgspec.Struct):
    name: Required
    source: Required
    run_id: str | None = None
    model_id: str | None = None
    run_link: str | None = None
    description: str | None = None
    tags: list[KeyValue] = []


class _One(msgspec.Struct):
    name: Required
    version: Required


class _Update(msgspec.Struct):
    name: Required
    version: Required
    description: str | None = None


class _Stage(msgspec.Struct):
    name: Required
    version: Required
    stage: Required
    archive_existing_versions: bool = False


class _SetTag(msgspec.Struct):
    name: Required
    version: Required
    key: Required
    value: str = ""


class _DeleteTag(msgspec.Struct):
    name: Required
    version: Required
    key: Required


class ModelVersionEndpoints:
    """Translates between the wire and the versions of models of a project."""

    def __init__(self, versions: VersionCatalogue, logged: LoggedModels) -> None:
        self._versions, self._logged = versions, logged

    def endpoints(self) -> Iterator[Endpoint]:
        """Give what is answered."""
        yield Endpoint(("POST",), "/model-versions/create", _Create, self.create)
        yield Endpoint(("PATCH",), "/model-versions/update", _Update, self.update)
        yield Endpoint(("POST",), "/model-versions/transition-stage", _Stage, self.put_stage)
        yield Endpoint(("DELETE",), "/model-versions/delete", _One, self.delete)
        yield Endpoint(("GET",), "/model-versions/get", _One, self.get)
        yield Endpoint(("GET",), "/model-versions/search", Search, self.search)
        yield Endpoint(("GET",), "/model-versions/get-download-uri", _One, self.location)
        yield Endpoint(("POST",), "/model-versions/set-tag", _SetTag, self.set_tag)
        yield Endpoint(("DELETE",), "/model-versions/delete-tag", _DeleteTag, self.delete_tag)

    def create(self, asked: _Create) -> Mapping[str, Any]:
        """Register a version."""
        made = self._versions.register(
            asked.name,
            asked.source,
            run=asked.run_id,
            logged_model=asked.model_id,
            run_link=asked.run_link,
            description=asked.description,
            tags={tag.key: tag.value for tag in asked.tags},
        )
        if made.logged_model is not None:
            tell_registered(self._logged, made.logged_model, made)
        return {"model_version": version_object(made)}

    def update(self, asked: _Update) -> Mapping[str, Any]:
        """Say what a version is."""
        number = version_number(asked.version)
        found = self._versions.describe(asked.name, number, asked.description)
        return {"model_version": version_object(found)}

    def put_stage(self, asked: _Stage) -> Mapping[str, Any]:
        """Say that a version is in a stage."""
        found = self._versions.put_stage(
            asked.name,
            version_number(asked.version),
            Stage.read(asked.stage),
            archive_others=asked.archive_existing_versions,
        )
        return {"model_version": version_object(found)}

    def delete(self, asked: _One) -> Mapping[str, Any]:
        """Mark a version as deleted."""
        self._versions.delete(asked.name, version_number(asked.version))
        return {}

    def get(self, asked: _One) -> Mapping[str, Any]:
        """Give a version."""
        found = self._versions.get(asked.name, version_number(asked.version))
        return {"model_version": version_object(found)}

    def search(self, asked: Search) -> Mapping[str, Any]:
        """Find versions."""
        limit = _RESULTS if asked.max_results is None else asked.max_results
        check_max_results(limit, MAX_VERSIONS)
        page = self._versions.search(
            filter=asked.filter or "",
            order_by=asked.order_by,
            limit=limit,
            page=asked.page_token,
        )
        answer: dict[str, Any] = {}
        if page.versions:
            answer["model_versions"] = [version_object(each) for each in page.versions]
        if page.next_page is not None:
            answer["next_page_token"] = page.next_page
        return answer

    def location(self, asked: _One) -> Mapping[str, Any]:
        """Tell where the files of a version are loaded from."""
        return {"artifact_uri": self._versions.get(asked.name, version_number(asked.version)).location}

    def set_tag(self, asked: _SetTag) -> Mapping[str, Any]:
        """Set a tag."""
        self._versions.put_tag(asked.name, version_number(asked.version), asked.key, asked.value)
        return {}

    def delete_tag(self, asked: _DeleteTag) -> Mapping[str, Any]:
        """Take a tag away."""
        self._versions.remove_tag(asked.name, version_number(asked.version), asked.key)
        return {}
