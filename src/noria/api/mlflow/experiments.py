"""Experiments over MLflow's protocol."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from noria.api.mlflow.application import Endpoint
from noria.api.mlflow.errors import ErrorCode, MlflowFault
from noria.api.mlflow.fields import KeyValue, Required
from noria.api.mlflow.wire import experiment_object
from noria.database.store import Database
from noria.errors import BadPath, Conflict
from noria.tracking.artifact_paths import checked_folder
from noria.tracking.dataset_summaries import summarize_datasets
from noria.tracking.experiments import ExperimentBook
from noria.tracking.searches.searching import search_experiments

__all__ = ["VIEWS", "ExperimentEndpoints", "ViewType", "check_max_results", "folder_numbers"]

ViewType = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]
VIEWS: Mapping[str, Literal["active", "deleted", "all"]] = {
    "ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all"}  # fmt: skip
_MAX_NAME, _MAX_TAG_NAME, _MAX_TAG_VALUE = 500, 250, 20_000
_MAX_PLACE = 1_000  # what follows it makes a path, of at most 2,000 bytes
_MAX_RESULTS = 50_000
_MAX_FOLDERS = 20_000  # to search in: each is a value of a statement
_MAX_NUMBER_CHARS = 18
_MAX_OF_DATASETS = 20  # experiments whose datasets are summed up at once


class _Create(msgspec.Struct):
    name: Required
    artifact_location: str | None = None
    tags: list[KeyValue] = []


class _ById(msgspec.Struct):
    experiment_id: Required


class _ByName(msgspec.Struct):
    experiment_name: Required


class _Update(msgspec.Struct):
    experiment_id: Required
    new_name: Required


class _SetTag(msgspec.Struct):
    experiment_id: Required
    key: Required
    value: str = ""


class _DeleteTag(msgspec.Struct):
    experiment_id: Required
    key: Required


class _Search(msgspec.Struct):
    max_results: int = 1_000
    filter: str | None = None
    order_by: list[str] = []
    view_type: ViewType = "ACTIVE_ONLY"
    page_token: str | None = None


class _SearchDatasets(msgspec.Struct):
    experiment_ids: list[str]


class ExperimentEndpoints:
    """Translates between the wire and the experiments of a project."""

    def __init__(self, book: ExperimentBook, database: Database) -> None:
        self._book, self._database = book, database

    def endpoints(self) -> Iterator[Endpoint]:
        """Give what is answered."""
        yield Endpoint(("POST",), "/experiments/create", _Create, self.create)
        yield Endpoint(("POST", "GET"), "/experiments/search", _Search, self.search)
        yield Endpoint(("POST",), "/experiments/search-datasets", _SearchDatasets, self.search_datasets)
        yield Endpoint(("GET",), "/experiments/get", _ById, self.get)
        yield Endpoint(("GET",), "/experiments/get-by-name", _ByName, self.get_by_name)
        yield Endpoint(("POST",), "/experiments/delete", _ById, self.delete)
        yield Endpoint(("POST",), "/experiments/restore", _ById, self.restore)
        yield Endpoint(("POST",), "/experiments/update", _Update, self.update)
        yield Endpoint(("POST",), "/experiments/set-experiment-tag", _SetTag, self.set_tag)
        yield Endpoint(("POST",), "/experiments/delete-experiment-tag", _DeleteTag, self.delete_tag)

    def create(self, asked: _Create) -> Mapping[str, Any]:
        """Make an experiment."""
        _check_name(asked.name)
        for tag in asked.tags:
            _check_tag(tag.key, tag.value)
        uri = _checked_place(asked.artifact_location or "")
        tags = {tag.key: tag.value for tag in asked.tags}
        try:
            made = self._book.create(asked.name, artifact_uri=uri, tags=tags)
        except Conflict as err:
            raise MlflowFault(ErrorCode.RESOURCE_ALREADY_EXISTS, str(err)) from err
        return {"experiment_id": made.id}

    def search(self, asked: _Search) -> Mapping[str, Any]:
        """Find experiments."""
        check_max_results(asked.max_results, _MAX_RESULTS)
        with self._database.read() as connection:
            page = search_experiments(
                connection,
                filter=asked.filter or "",
                order_by=asked.order_by,
                view=VIEWS[asked.view_type],
                limit=asked.max_results,
                page=asked.page_token or None,
            )
            found = self._book.read(page.experiments)
        answer: dict[str, Any] = {"experiments": [experiment_object(each) for each in found]} if found else {}
        if page.next_page is not None:
            answer["next_page_token"] = page.next_page
        return answer

    def search_datasets(self, asked: _SearchDatasets) -> Mapping[str, Any]:
        """Give which datasets the runs of experiments read, each once by context."""
        found = len(asked.experiment_ids)
        if not 1 <= found <= _MAX_OF_DATASETS:
            raise MlflowFault.invalid(
                f"SearchDatasets request takes 1 to {_MAX_OF_DATASETS} experiment_ids. Received {found}."
            )
        with self._database.read() as connection:
            summaries = summarize_datasets(connection, folder_numbers(asked.experiment_ids))
        shown = [
            {
                "experiment_id": each.experiment,
                "name": each.name,
                "digest": each.digest,
                **({} if each.context is None else {"context": each.context}),
            }
            for each in summaries
        ]
        return {"dataset_summaries": shown} if shown else {}

    def get(self, asked: _ById) -> Mapping[str, Any]:
        """Give an experiment, also a deleted one."""
        return {"experiment": experiment_object(self._book.get_by_id(asked.experiment_id))}

    def get_by_name(self, asked: _ByName) -> Mapping[str, Any]:
        """Give the experiment of a name."""
        found = self._book.find(asked.experiment_name)
        if found is None:  # every client that makes one asks first: the names of all others are not read
            told = f"Could not find experiment with name {asked.experiment_name!r}; create it"
            raise MlflowFault(ErrorCode.RESOURCE_DOES_NOT_EXIST, told)
        return {"experiment": experiment_object(found)}

    def delete(self, asked: _ById) -> Mapping[str, Any]:
        """Mark an experiment and its runs as deleted."""
        self._book.delete(asked.experiment_id)
        return {}

    def restore(self, asked: _ById) -> Mapping[str, Any]:
        """Restore an experiment and what was deleted with it."""
        self._book.restore(asked.experiment_id)
        return {}

    def update(self, asked: _Update) -> Mapping[str, Any]:
        """Give an experiment another name."""
        _check_name(asked.new_name)
        try:
            self._book.rename(asked.experiment_id, asked.new_name)
        except Conflict as err:
            if "already" in str(err):
                raise MlflowFault(ErrorCode.RESOURCE_ALREADY_EXISTS, str(err)) from err
            raise
        return {}

    def set_tag(self, asked: _SetTag) -> Mapping[str, Any]:
        """Set a tag."""
        _check_tag(asked.key, asked.value)
        self._book.put_tag(asked.experiment_id, asked.key, asked.value)
        return {}

    def delete_tag(self, asked: _DeleteTag) -> Mapping[str, Any]:
        """Take a tag away."""
        self._book.remove_tag(asked.experiment_id, asked.key)
        return {}


def check_max_results(asked: int, most: int) -> None:
    """Raise `MlflowFault` unless so many may be asked for."""
    if not 1 <= asked <= most:
        raise MlflowFault.invalid(
            f"Invalid value {asked} for parameter 'max_results' supplied: it goes from 1 to {most}"
        )


def folder_numbers(ids: Sequence[str]) -> list[int]:
    """Give the numbers of experiments that are named; what is no id names none. Raises `MlflowFault`."""
    if len(ids) > _MAX_FOLDERS:
        raise MlflowFault.invalid(
            f"Invalid value for parameter 'experiment_ids' supplied: {len(ids)} of them, at most "
            f"{_MAX_FOLDERS} are taken; ask for fewer at once"
        )
    return [
        int(each) for each in ids if each.isascii() and each.isdecimal() and len(each) <= _MAX_NUMBER_CHARS
    ]


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME:
        raise MlflowFault.invalid(
            f"Invalid value for parameter 'name' supplied: {len(name)} characters, of at most {_MAX_NAME}"
        )


def _checked_place(uri: str) -> str | None:
    """Give where an experiment's files are to be, None for the usual place. Raises `MlflowFault`."""
    uri = uri.rstrip("/")
    if uri in {"", "mlflow-artifacts:"}:
        return None
    fault = f"it has {len(uri)} characters, of at most {_MAX_PLACE}" if len(uri) > _MAX_PLACE else None
    scheme, _, path = uri.partition(":")
    if fault is None and scheme == "mlflow-artifacts":
        try:
            checked_folder(path.removeprefix("/"))
        except BadPath as err:
            fault = str(err)
    if fault is not None:
        raise MlflowFault.invalid(
            f"Invalid artifact location '{uri[:40]}': {fault}; leave it out, or give a place such as "
            "mlflow-artifacts:/night"
        )
    return uri


def _check_tag(name: str, value: str) -> None:
    if len(name) > _MAX_TAG_NAME or len(value) > _MAX_TAG_VALUE:
        raise MlflowFault.invalid(
            f"Invalid tag '{name[:40]}': its key has {len(name)} characters of at most {_MAX_TAG_NAME}, "
            f"its value {len(value)} of at most {_MAX_TAG_VALUE}"
        )
