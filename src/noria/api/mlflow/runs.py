"""Runs over MLflow's protocol: begun, changed, deleted, shown, searched for."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from noria.api.mlflow.application import Endpoint
from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.experiments import VIEWS, ViewType, check_max_results, folder_numbers
from noria.api.mlflow.fields import KeyValue, Required, run_of
from noria.api.mlflow.logging import MAX_TAG_VALUE, cut
from noria.api.mlflow.wire import STATES, from_ms, info_object, run_object
from noria.database.store import Database
from noria.records import RunId
from noria.tracking.experiments import ExperimentBook, read_experiments
from noria.tracking.names import check_name
from noria.tracking.reading import read_runs
from noria.tracking.records import RunDetails
from noria.tracking.run_desk import RunDesk
from noria.tracking.searches.searching import search_runs

__all__ = ["RunEndpoints"]

_MAX_RESULTS = 50_000
_DEFAULT_EXPERIMENT = "0"


class _Create(msgspec.Struct):
    experiment_id: str = _DEFAULT_EXPERIMENT
    user_id: str = ""
    run_name: str | None = None
    start_time: int | None = None
    tags: list[KeyValue] = []


class _Update(msgspec.Struct):
    run_id: str = ""
    run_uuid: str = ""
    status: str | None = None
    end_time: int | None = None
    run_name: str | None = None


class _ById(msgspec.Struct):
    run_id: Required


class _Get(msgspec.Struct):
    run_id: str = ""
    run_uuid: str = ""


class _Search(msgspec.Struct):
    experiment_ids: list[str] = []
    filter: str | None = None
    run_view_type: ViewType = "ACTIVE_ONLY"
    max_results: int = 1_000
    order_by: list[str] = []
    page_token: str | None = None


class RunEndpoints:
    """Translates between the wire and the runs of a project."""

    def __init__(self, desk: RunDesk, book: ExperimentBook, database: Database) -> None:
        self._desk, self._book, self._database = desk, book, database

    def endpoints(self) -> Iterator[Endpoint]:
        """Give what is answered."""
        yield Endpoint(("POST",), "/runs/create", _Create, self.create)
        yield Endpoint(("POST",), "/runs/update", _Update, self.update)
        yield Endpoint(("POST",), "/runs/delete", _ById, self.delete)
        yield Endpoint(("POST",), "/runs/restore", _ById, self.restore)
        yield Endpoint(("GET",), "/runs/get", _Get, self.get)
        yield Endpoint(("POST",), "/runs/search", _Search, self.search)

    def create(self, asked: _Create) -> Mapping[str, Any]:
        """Begin a run."""
        tags = {check_name("tag", tag.key): cut(tag.value, MAX_TAG_VALUE) for tag in asked.tags}
        made = self._desk.start(
            asked.experiment_id or _DEFAULT_EXPERIMENT,
            name=asked.run_name or "",
            owner=asked.user_id or "unknown",
            started_at=None if asked.start_time is None else from_ms(asked.start_time),
            tags=tags,
        )
        return {"run": self._object(made)}

    def update(self, asked: _Update) -> Mapping[str, Any]:
        """Change where a run stands, when it ended, or its name."""
        if asked.status is not None and asked.status not in STATES:
            raise MlflowFault.invalid(
                f"Invalid value {asked.status!r} for parameter 'status' supplied: use {', '.join(STATES)}"
            )
        info = self._desk.update(
            run_of(asked.run_id, asked.run_uuid),
            state=None if asked.status is None else STATES[asked.status],
            is_scheduled=asked.status == "SCHEDULED",
            ended_at=None if asked.end_time is None else from_ms(asked.end_time),
            name=asked.run_name or None,
        )
        return {"run_info": info_object(info, self._book.get_by_id(info.experiment))}

    def delete(self, asked: _ById) -> Mapping[str, Any]:
        """Mark a run as deleted."""
        self._desk.delete(RunId(asked.run_id))
        return {}

    def restore(self, asked: _ById) -> Mapping[str, Any]:
        """Restore a run."""
        self._desk.restore(RunId(asked.run_id))
        return {}

    def get(self, asked: _Get) -> Mapping[str, Any]:
        """Give a run, also a deleted one."""
        return {"run": self._object(self._desk.get(run_of(asked.run_id, asked.run_uuid)))}

    def search(self, asked: _Search) -> Mapping[str, Any]:
        """Find runs."""
        check_max_results(asked.max_results, _MAX_RESULTS)
        folders = folder_numbers(asked.experiment_ids)
        with self._database.read() as connection:
            page = search_runs(
                connection,
                folders,
                filter=asked.filter or "",
                order_by=asked.order_by,
                view=VIEWS[asked.run_view_type],
                limit=asked.max_results,
                page=asked.page_token or None,
            )
            found = read_runs(connection, page.runs)
            numbers = sorted({int(each.info.experiment) for each in found})
            experiments = {each.id: each for each in read_experiments(connection, numbers)}
        answer: dict[str, Any] = {}
        if found:
            answer["runs"] = [run_object(each, experiments[each.info.experiment]) for each in found]
        if page.next_page is not None:
            answer["next_page_token"] = page.next_page
        return answer

    def _object(self, found: RunDetails) -> dict[str, Any]:
        return run_object(found, self._book.get_by_id(found.info.experiment))
