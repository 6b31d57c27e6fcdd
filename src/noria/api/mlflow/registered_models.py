"""Registered models over MLflow's protocol."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from noria.api.mlflow.application import Endpoint
from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.api.mlflow.experiments import check_max_results
from noria.api.mlflow.fields import KeyValue, Required, Search
from noria.api.mlflow.model_objects import model_object, version_number, version_object
from noria.errors import Conflict, NotFound
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_records import Stage
from noria.registry.catalogue_search import MAX_MODELS
from noria.registry.version_catalogue import VersionCatalogue

__all__ = ["RegisteredModelEndpoints"]

_RESULTS = 100  # of a page, where nothing is said


class _Create(msgspec.Struct):
    name: Required
    description: str | None = None
    tags: list[KeyValue] = []


class _ByName(msgspec.Struct):
    name: Required


class _Rename(msgspec.Struct):
    name: Required
    new_name: Required


class _Update(msgspec.Struct):
    name: Required
    description: str | None = None


class _Latest(msgspec.Struct):
    name: Required
    stages: list[str] = []


class _SetTag(msgspec.Struct):
    name: Required
    key: Required
    value: str = ""


class _DeleteTag(msgspec.Struct):
    name: Required
    key: Required


class _Alias(msgspec.Struct):
    name: Required
    alias: Required


class _SetAlias(msgspec.Struct):
    name: Required
    alias: Required
    version: Required


class RegisteredModelEndpoints:
    """Translates between the wire and the models of a project."""

    def __init__(self, models: ModelCatalogue, versions: VersionCatalogue) -> None:
        self._models, self._versions = models, versions

    def endpoints(self) -> Iterator[Endpoint]:
        """Give what is answered."""
        yield Endpoint(("POST",), "/registered-models/create", _Create, self.create)
        yield Endpoint(("POST",), "/registered-models/rename", _Rename, self.rename)
        yield Endpoint(("PATCH",), "/registered-models/update", _Update, self.update)
        yield Endpoint(("DELETE",), "/registered-models/delete", _ByName, self.delete)
        yield Endpoint(("GET",), "/registered-models/get", _ByName, self.get)
        yield Endpoint(("GET",), "/registered-models/search", Search, self.search)
        yield Endpoint(("POST", "GET"), "/registered-models/get-latest-versions", _Latest, self.latest)
        yield Endpoint(("POST",), "/registered-models/set-tag", _SetTag, self.set_tag)
        yield Endpoint(("DELETE",), "/registered-models/delete-tag", _DeleteTag, self.delete_tag)
        yield Endpoint(("POST",), "/registered-models/alias", _SetAlias, self.set_alias)
        yield Endpoint(("DELETE",), "/registered-models/alias", _Alias, self.delete_alias)
        yield Endpoint(("GET",), "/registered-models/alias", _Alias, self.get_aliased)

    def create(self, asked: _Create) -> Mapping[str, Any]:
        """Make a model."""
        tags = {tag.key: tag.value for tag in asked.tags}
        try:
            made = self._models.create(asked.name, description=asked.description, tags=tags)
        except Conflict as err:
            raise MlflowFault(ErrorCode.RESOURCE_ALREADY_EXISTS, str(err)) from err
        return {"registered_model": model_object(made)}

    def rename(self, asked: _Rename) -> Mapping[str, Any]:
        """Give a model another name."""
        try:
            renamed = self._models.rename(asked.name, asked.new_name)
        except Conflict as err:
            raise MlflowFault(ErrorCode.RESOURCE_ALREADY_EXISTS, str(err)) from err
        return {"registered_model": model_object(renamed)}

    def update(self, asked: _Update) -> Mapping[str, Any]:
        """Say what a model is for."""
        return {"registered_model": model_object(self._models.describe(asked.name, asked.description))}

    def delete(self, asked: _ByName) -> Mapping[str, Any]:
        """Mark a model and its versions as deleted."""
        self._models.delete(asked.name)
        return {}

    def get(self, asked: _ByName) -> Mapping[str, Any]:
        """Give a model."""
        return {"registered_model": model_object(self._models.get(asked.name))}

    def search(self, asked: Search) -> Mapping[str, Any]:
        """Find models."""
        limit = _RESULTS if asked.max_results is None else asked.max_results
        check_max_results(limit, MAX_MODELS)
        page = self._models.search(
            filter=asked.filter or "",
            order_by=asked.order_by,
            limit=limit,
            page=asked.page_token,
        )
        answer: dict[str, Any] = {}
        if page.models:
            answer["registered_models"] = [model_object(each) for each in page.models]
        if page.next_page is not None:
            answer["next_page_token"] = page.next_page
        return answer

    def latest(self, asked: _Latest) -> Mapping[str, Any]:
        """Give the greatest version of each stage."""
        found = self._versions.latest(asked.name, [Stage.read(each) for each in asked.stages])
        return {"model_versions": [version_object(each) for each in found]} if found else {}

    def set_tag(self, asked: _SetTag) -> Mapping[str, Any]:
        """Set a tag."""
        self._models.put_tag(asked.name, asked.key, asked.value)
        return {}

    def delete_tag(self, asked: _DeleteTag) -> Mapping[str, Any]:
        """Take a tag away."""
        self._models.remove_tag(asked.name, asked.key)
        return {}

    def set_alias(self, asked: _SetAlias) -> Mapping[str, Any]:
        """Let an alias name a version."""
        self._models.put_alias(asked.name, asked.alias, version_number(asked.version))
        return {}

    def delete_alias(self, asked: _Alias) -> Mapping[str, Any]:
        """Take an alias away."""
        self._models.remove_alias(asked.name, asked.alias)
        return {}

    def get_aliased(self, asked: _Alias) -> Mapping[str, Any]:
        """Give the version that an alias names."""
        try:
            found = self._models.get_aliased(asked.name, asked.alias)
        except NotFound as err:
            if err.kind != "alias":
                raise
            raise MlflowFault.invalid(f"Registered model alias {asked.alias} not found.") from err
        return {"model_version": version_object(found)}
