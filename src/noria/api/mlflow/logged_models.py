"""Logged models over MLflow's protocol: made, uploaded, tagged, searched for; and which of them runs read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from noria.api.mlflow.application import Endpoint
from noria.api.mlflow.artifacts import files_object
from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.experiments import check_max_results, folder_numbers
from noria.api.mlflow.fields import KeyValue, Required
from noria.api.mlflow.requests import LARGE_BODY_BYTES
from noria.api.mlflow.wire import metric_object, tag_objects, to_ms
from noria.database.store import Database
from noria.errors import BadPath
from noria.records import RunId
from noria.tracking.artifact_paths import checked_folder
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.models.history import ModelHistory
from noria.tracking.models.logged_models import OUTPUT, LoggedModels
from noria.tracking.models.reading import read_models
from noria.tracking.models.records import LoggedModel, ModelPoint, ModelStatus
from noria.tracking.models.search import ModelOrder, OnDataset, search_models
from noria.tracking.records import LinkedModel

__all__ = ["LoggedModelEndpoints", "model_object"]

_MAX_NAME, _MAX_KEY, _MAX_VALUE = 500, 255, 100_000
_MAX_AT_ONCE = 1_000  # parameters, tags or models of a request
_RESULTS, _MAX_RESULTS = 100, 50_000
_LARGEST_STEP = 2**63 - 1
_STATUSES: Mapping[ModelStatus, str] = {
    ModelStatus.UNSPECIFIED: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    ModelStatus.PENDING: "LOGGED_MODEL_PENDING",
    ModelStatus.READY: "LOGGED_MODEL_READY",
    ModelStatus.FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_NAMED = {name: status for status, name in _STATUSES.items()} | {
    str(number): status for number, status in enumerate(_STATUSES)
}
_HISTORY_FIELDS = ("artifact_path", "flavors", "utc_time_created", "run_id")


class _Create(msgspec.Struct):
    experiment_id: Required
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class _Get(msgspec.Struct):
    model_id: str = ""
    allow_deleted: str = ""


class _Finish(msgspec.Struct):
    status: Required | int
    model_id: str = ""


class _ById(msgspec.Struct):
    model_id: str = ""


class _PutTags(msgspec.Struct):
    model_id: str = ""
    tags: list[KeyValue] = []


class _DeleteTag(msgspec.Struct):
    model_id: str = ""
    tag_key: str = ""


class _AddParams(msgspec.Struct):
    model_id: str = ""
    params: list[KeyValue] = []


class _List(msgspec.Struct):
    model_id: str = ""
    artifact_directory_path: str = ""


class _Dataset(msgspec.Struct):
    dataset_name: Required
    dataset_digest: str | None = None


class _OrderBy(msgspec.Struct):
    field_name: Required
    ascending: bool = True
    dataset_name: str | None = None
    dataset_digest: str | None = None


class _Search(msgspec.Struct):
    experiment_ids: list[str]
    filter: str | None = None
    datasets: list[_Dataset] = []
    max_results: int = _RESULTS
    order_by: list[_OrderBy] = []
    page_token: str | None = None


class _Output(msgspec.Struct):
    model_id: Required
    step: int = 0


class _LogOutputs(msgspec.Struct):
    run_id: Required
    models: list[_Output]


class _LogModel(msgspec.Struct):
    run_id: Required
    model_json: Required


class LoggedModelEndpoints:
    """Translates between the wire and the logged models of a project."""

    def __init__(self, models: LoggedModels, artifacts: ArtifactStore, database: Database) -> None:
        self._models, self._artifacts, self._database = models, artifacts, database
        self._history = ModelHistory(database)

    def endpoints(self) -> Iterator[Endpoint]:
        """Give what is answered."""
        one = "/logged-models/{model_id}"
        yield Endpoint(("POST",), "/logged-models", _Create, self.create, LARGE_BODY_BYTES)
        yield Endpoint(("POST",), "/logged-models/search", _Search, self.search)
        yield Endpoint(("GET",), one, _Get, self.get)
        yield Endpoint(("PATCH",), one, _Finish, self.finish)
        yield Endpoint(("DELETE",), one, _ById, self.delete)
        yield Endpoint(("PATCH",), f"{one}/tags", _PutTags, self.put_tags, LARGE_BODY_BYTES)
        yield Endpoint(("DELETE",), f"{one}/tags/{{tag_key}}", _DeleteTag, self.delete_tag)
        yield Endpoint(("POST",), f"{one}/params", _AddParams, self.add_params, LARGE_BODY_BYTES)
        yield Endpoint(("GET",), f"{one}/artifacts/directories", _List, self.list_files)
        yield Endpoint(("POST",), "/runs/outputs", _LogOutputs, self.log_outputs)
        yield Endpoint(("POST",), "/runs/log-model", _LogModel, self.log_model)

    def create(self, asked: _Create) -> Mapping[str, Any]:
        """Make a model whose files are still to come."""
        for what, text in (("name", asked.name), ("model_type", asked.model_type)):
            if text is not None and len(text) > _MAX_NAME:
                raise MlflowFault.invalid(
                    f"Invalid value for parameter '{what}' supplied: {len(text)} characters, "
                    f"of at most {_MAX_NAME}"
                )
        made = self._models.create(
            asked.experiment_id,
            name=asked.name or None,
            type=asked.model_type or None,
            source_run=RunId(asked.source_run_id) if asked.source_run_id else None,
            params=_params(asked.params),
            tags=_texts("tag", asked.tags),
        )
        return {"model": model_object(made)}

    def search(self, asked: _Search) -> Mapping[str, Any]:
        """Find models."""
        check_max_results(asked.max_results, _MAX_RESULTS)
        folders = folder_numbers(asked.experiment_ids)
        with self._database.read() as connection:
            page = search_models(
                connection,
                folders,
                filter=asked.filter or "",
                datasets=[
                    OnDataset(each.dataset_name, each.dataset_digest or None) for each in asked.datasets
                ],
                order_by=[_order(each) for each in asked.order_by],
                limit=asked.max_results,
                page=asked.page_token or None,
            )
            found = read_models(connection, page.models)
        answer: dict[str, Any] = {"models": [model_object(each) for each in found]} if found else {}
        if page.next_page is not None:
            answer["next_page_token"] = page.next_page
        return answer

    def get(self, asked: _Get) -> Mapping[str, Any]:
        """Give a model; a deleted one only if it is asked for."""
        with_deleted = asked.allow_deleted.lower() == "true"
        return {"model": model_object(self._models.get(asked.model_id, with_deleted=with_deleted))}

    def finish(self, asked: _Finish) -> Mapping[str, Any]:
        """Say how the upload of a model's files ended."""
        status = _NAMED.get(str(asked.status))
        if status is None:
            raise MlflowFault.invalid(
                f"Invalid value {asked.status!r} for parameter 'status' supplied: "
                f"use {', '.join(_STATUSES.values())}"
            )
        return {"model": model_object(self._models.finish(asked.model_id, status))}

    def delete(self, asked: _ById) -> Mapping[str, Any]:
        """Mark a model as deleted."""
        self._models.delete(asked.model_id)
        return {}

    def put_tags(self, asked: _PutTags) -> Mapping[str, Any]:
        """Set tags."""
        return {"model": model_object(self._models.put_tags(asked.model_id, _texts("tag", asked.tags)))}

    def delete_tag(self, asked: _DeleteTag) -> Mapping[str, Any]:
        """Take a tag away."""
        self._models.remove_tag(asked.model_id, asked.tag_key)
        return {}

    def add_params(self, asked: _AddParams) -> Mapping[str, Any]:
        """Keep parameters."""
        self._models.add_params(asked.model_id, _params(asked.params))
        return {}

    def list_files(self, asked: _List) -> Mapping[str, Any]:
        """List a folder of a model; names are relative to the model's files."""
        uri = self._models.get(asked.model_id).artifact_uri
        scheme, _, root = uri.partition(":")
        if scheme != "mlflow-artifacts":
            raise MlflowFault.invalid(
                f"the files of model {asked.model_id} are at {uri}, not here; ask for them there"
            )
        try:
            folder = checked_folder(asked.artifact_directory_path)
        except BadPath as err:
            raise MlflowFault.invalid(f"Invalid path: {err}") from err
        root, below = root.lstrip("/"), f"{folder}/" if folder else ""
        listed = self._artifacts.list(f"{root}/{folder}" if folder else root)
        return {"root_uri": uri, **files_object(listed, below)}

    def log_outputs(self, asked: _LogOutputs) -> Mapping[str, Any]:
        """Keep which models a run made."""
        _check_count("models", asked.models)
        for each in asked.models:
            if not -_LARGEST_STEP - 1 <= each.step <= _LARGEST_STEP:
                raise MlflowFault.invalid(
                    f"Invalid value {each.step} for parameter 'step' supplied: it has 64 bits"
                )
        made = [LinkedModel(model=each.model_id, step=each.step) for each in asked.models]
        self._models.link(RunId(asked.run_id), role=OUTPUT, models=made)
        return {}

    def log_model(self, asked: _LogModel) -> Mapping[str, Any]:
        """Keep what a client of MLflow 2 tells of a model that it put among a run's artifacts."""
        try:
            told = msgspec.json.decode(asked.model_json, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as err:
            raise MlflowFault.invalid(f"Malformed model info: it is not a valid JSON object: {err}") from err
        missing = [each for each in _HISTORY_FIELDS if each not in told]
        if missing:
            raise MlflowFault.invalid(f"Model json is missing mandatory fields: {', '.join(missing)}")
        self._history.append(RunId(asked.run_id), told)
        return {}


def model_object(model: LoggedModel) -> dict[str, Any]:
    """Give a model."""
    info: dict[str, Any] = {
        "model_id": model.id,
        "experiment_id": model.experiment,
        "name": model.name,
        "creation_timestamp_ms": to_ms(model.created_at),
        "last_updated_timestamp_ms": to_ms(model.updated_at),
        "artifact_uri": model.artifact_uri,
        "status": _STATUSES[model.status],
    }
    for name, text in (("model_type", model.type), ("source_run_id", model.source_run)):
        if text is not None:
            info[name] = text
    if model.tags:
        info["tags"] = tag_objects(model.tags)
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = tag_objects(model.params)
    if model.metrics:
        data["metrics"] = [_metric_object(each) for each in model.metrics]
    return {"info": info, "data": data}


def _metric_object(given: ModelPoint) -> dict[str, Any]:
    made = {**metric_object(given.point), "model_id": given.model, "run_id": given.run}
    if given.dataset_name is not None:
        made["dataset_name"] = given.dataset_name
    if given.dataset_digest is not None:
        made["dataset_digest"] = given.dataset_digest
    return made


def _order(asked: _OrderBy) -> ModelOrder:
    dataset = None
    if asked.dataset_name:
        dataset = _on(asked.dataset_name, asked.dataset_digest)
    elif asked.dataset_digest:
        raise MlflowFault.invalid(
            f"Invalid value for parameter 'order_by' supplied: the digest {asked.dataset_digest[:40]!r} is "
            "that of no dataset; give dataset_name too"
        )
    return ModelOrder(asked.field_name, not asked.ascending, dataset)


def _on(name: str, digest: str | None) -> OnDataset:
    return OnDataset(name, digest or None)


def _params(given: Sequence[KeyValue]) -> dict[str, str]:
    """Give parameters, each once."""
    found = _texts("param", given)
    twice = next((each.key for each in given if found[each.key] != each.value), None)
    if twice is not None:
        raise MlflowFault.invalid(f"Duplicate parameter keys have been submitted: {twice!r} twice")
    return found


def _texts(what: str, given: Sequence[KeyValue]) -> dict[str, str]:
    _check_count(f"{what}s", given)
    for each in given:
        if len(each.key) > _MAX_KEY or len(each.value) > _MAX_VALUE:
            raise MlflowFault.invalid(
                f"Invalid {what} '{each.key[:40]}' of a model: its key has {len(each.key)} characters of at "
                f"most {_MAX_KEY}, its value {len(each.value)} of at most {_MAX_VALUE}"
            )
    return {each.key: each.value for each in given}


def _check_count(what: str, given: Sequence[Any]) -> None:
    if len(given) > _MAX_AT_ONCE:
        raise MlflowFault.invalid(
            f"a request can contain at most {_MAX_AT_ONCE} {what}, this one has {len(given)}; "
            "send them in several requests"
        )
