"""Logged models: made in an experiment, uploaded, measured, tagged, deleted.

A model that is ready is a version of the ledger too, which its source run made: lineage sees it, and its
digest is that of its files. Later files make it another version once it is said to be ready again.
"""

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from noria.database.upserts import Upsert
from noria.errors import Conflict, NotFound
from noria.ledger.chain import Change
from noria.ledger.store import Ledger
from noria.ledger.versions import add_edge, record_version
from noria.records import RunId, digest_of
from noria.tracking.experiments import get_open_experiment
from noria.tracking.models.reading import model_files, read_models
from noria.tracking.models.records import LoggedModel, ModelPoint, ModelStatus, check_model_name
from noria.tracking.records import LinkedModel, MetricPoint
from noria.tracking.run_names import random_run_name
from noria.tracking.store import check_open
from noria.tracking.tables import (
    artifacts,
    experiments,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    run_models,
    tracked_runs,
)

__all__ = ["INPUT", "OUTPUT", "VERSION_KIND", "LoggedModels", "new_model_id"]

VERSION_KIND = "logged_model"
INPUT, OUTPUT = "input", "output"  # as the edges of the ledger have it
_OWN = "mlflow-artifacts:/"  # begins where the project itself keeps the files
_MINE = logged_models.c.id == bindparam("of_model")
_MODEL = (
    select(logged_models, experiments.c.artifact_uri)
    .join(experiments, experiments.c.id == logged_models.c.experiment)
    .where(_MINE)
)
_KNOWN = select(logged_models.c.id).where(logged_models.c.id.in_(bindparam("models", expanding=True)))
_INSERT = logged_models.insert()
_UPDATE = logged_models.update().where(_MINE)
_RUN = select(tracked_runs).where(tracked_runs.c.run == bindparam("of_run"))
_PARAMS = Upsert(logged_model_params)
_TAGS = Upsert(logged_model_tags, replaced=("value",))
_METRICS = Upsert(logged_model_metrics)
_LINKS = Upsert(run_models, replaced=("step",))
_FILES = (
    select(artifacts.c.path, artifacts.c.sha256, artifacts.c.size_bytes)
    .where(artifacts.c.path > bindparam("after"), artifacts.c.path < bindparam("end"))
    .order_by(artifacts.c.path)
)


class LoggedModels:
    """The logged models of a project. Safe to use from many threads and processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def create(
        self,
        experiment: str,
        *,
        name: str | None = None,
        type: str | None = None,
        source_run: RunId | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> LoggedModel:
        """Make a model whose files are still to come.

        Parameters
        ----------
        experiment
            Its id.
        name
            None: a random one. Several models may have the same.
        type
            Anything that its owner finds useful, such as "agent".
        source_run
            The run that makes it.

        Raises
        ------
        NotFound
            If there is no such experiment or run.
        Conflict
            If one of them is deleted.
        ConfigError
            If the name can be none.
        """
        name = random_run_name() if name is None else check_model_name(name)
        with self._ledger.database.write() as connection:
            folder = get_open_experiment(connection, experiment)
            owner = None if source_run is None else _get_open_run(connection, source_run).owner
            id = new_model_id()
            with self._ledger.change(None, actor=owner) as change:
                _insert(change, id, folder.id, name, type=type, source_run=source_run)
                _PARAMS.execute(connection, _texts(id, params or {}))
                _TAGS.execute(connection, _texts(id, tags or {}))
            return read_models(connection, [id])[0]

    def put_made(
        self,
        run: RunId,
        id: str,
        *,
        name: str,
        step: int,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        points: Sequence[MetricPoint],
    ) -> None:
        """Keep a model that a run made, whose files are there: ready at once. The same again is nothing.

        Parameters
        ----------
        id
            A new one; see `new_model_id`.
        points
            What the run has measured of it.

        Raises
        ------
        NotFound
            If there is no such run.
        Conflict
            If it is deleted.
        """
        with self._ledger.database.write() as connection:
            if connection.execute(_KNOWN, {"models": [id]}).first() is not None:
                return
            made_by = _get_open_run(connection, run)
            with self._ledger.change(None, actor=made_by.owner) as change:
                _insert(change, id, made_by.experiment, name, type=None, source_run=run)
                _PARAMS.execute(connection, _texts(id, params))
                _TAGS.execute(connection, _texts(id, tags))
                rows = [_point_row(ModelPoint(model=id, run=run, point=each)) for each in points]
                _METRICS.execute_raw(connection, rows)
                _LINKS.execute(connection, [{"run": run, "role": OUTPUT, "model": id, "step": step}])
                version = _record(change, _get(connection, id))  # with an edge from the run
                changed = {"status": ModelStatus.READY.value, "version": version}
                connection.execute(_UPDATE, {"of_model": id, **changed})

    def get(self, id: str, *, with_deleted: bool = False) -> LoggedModel:
        """Give a model with what was measured of it. Raises `NotFound`."""
        with self._ledger.database.read() as connection:
            found = read_models(connection, [id])[0]
        if found.deleted_at is not None and not with_deleted:
            raise NotFound("logged model", id)
        return found

    def read(self, ids: Sequence[str]) -> list[LoggedModel]:
        """Give models in that order, also deleted ones. Raises `NotFound` for the first that is not there."""
        with self._ledger.database.read() as connection:
            return read_models(connection, ids)

    def finish(self, id: str, status: ModelStatus) -> LoggedModel:
        """Say how the upload of a model's files ended; one that is ready becomes a version of the ledger.

        Raises
        ------
        NotFound
            If there is no such model.
        Conflict
            If it is deleted.
        """
        with self._ledger.database.write() as connection:
            row = _get_open(connection, id)
            source = None if row.source_run is None else _get_run(connection, row.source_run)
            with self._ledger.change(None, actor=None if source is None else source.owner) as change:
                changed: dict[str, Any] = {"status": status.value, "updated_at": change.recorded_at}
                if status is ModelStatus.READY:
                    changed["version"] = _record(change, row)
                connection.execute(_UPDATE, {"of_model": id, **changed})
            return read_models(connection, [id])[0]

    def delete(self, id: str) -> None:
        """Mark a model as deleted; nothing is lost. Raises `NotFound`."""
        with self._ledger.change(None) as change:
            row = _get(change.connection, id)
            if row.deleted_at is not None:
                return
            now = change.recorded_at
            change.connection.execute(_UPDATE, {"of_model": id, "deleted_at": now, "updated_at": now})
            payload = {"name": row.name, "experiment": str(row.experiment)}
            change.record("logged_model.deleted", f"logged_model/{id}", payload=payload, cause=None)

    def put_tags(self, id: str, tags: Mapping[str, str]) -> LoggedModel:
        """Set tags, whatever they were before. Raises `NotFound`; `Conflict` if the model is deleted."""
        with self._ledger.change(None) as change:
            _get_open(change.connection, id)
            _TAGS.execute(change.connection, _texts(id, tags))
            change.connection.execute(_UPDATE, {"of_model": id, "updated_at": change.recorded_at})
            return read_models(change.connection, [id])[0]

    def remove_tag(self, id: str, name: str) -> None:
        """Take a tag away. Raises `NotFound`, also if there is no such tag; `Conflict` like `put_tags`."""
        with self._ledger.change(None) as change:
            _get_open(change.connection, id)
            mine = (logged_model_tags.c.model == id, logged_model_tags.c.name == name)
            if not change.connection.execute(logged_model_tags.delete().where(*mine)).rowcount:
                raise NotFound("tag", name, read_models(change.connection, [id])[0].tags)
            change.connection.execute(_UPDATE, {"of_model": id, "updated_at": change.recorded_at})

    def add_params(self, id: str, params: Mapping[str, str]) -> None:
        """Keep parameters, all or none.

        Raises
        ------
        NotFound
            If there is no such model.
        Conflict
            If it is deleted, or a parameter has another value already.
        """
        with self._ledger.change(None) as change:
            _get_open(change.connection, id)
            known = read_models(change.connection, [id])[0].params
            for name, value in params.items():
                if known.get(name, value) != value:
                    raise Conflict(
                        f"parameter {name!r} of logged model {id} is {known[name]!r} and cannot become "
                        f"{value!r}; log it under another name, or log another model"
                    )
            _PARAMS.execute(change.connection, _texts(id, params))
            change.connection.execute(_UPDATE, {"of_model": id, "updated_at": change.recorded_at})

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make what the block keeps, by whatever store of the project, one transaction: all or none."""
        with self._ledger.database.write():
            yield

    def log_points(self, points: Iterable[ModelPoint]) -> None:
        """Keep what runs measured of models, all or none; the same point twice is one.

        Points of a deleted model are kept like any: a training goes on though somebody tidies up.

        Raises
        ------
        NotFound
            If there is no such model.
        """
        rows = [_point_row(each) for each in points]
        with self._ledger.database.write() as connection:
            _check_known(connection, {row[0] for row in rows})
            _METRICS.execute_raw(connection, rows)

    def link(self, run: RunId, *, role: str, models: Sequence[LinkedModel]) -> None:
        """Keep which models a run read (`INPUT`) or made (`OUTPUT`).

        Those that are versions of the ledger become edges of its lineage, the others once they are ready.

        Raises
        ------
        NotFound
            If there is no such run or model.
        Conflict
            If the run is deleted.
        """
        with self._ledger.database.write() as connection:
            owner = _get_open_run(connection, run).owner
            _check_known(connection, {each.model for each in models})
            steps = {each.model: each.step for each in models}
            _LINKS.execute(
                connection,
                [{"run": run, "role": role, "model": each, "step": steps[each]} for each in steps],
            )
            with self._ledger.change(None, actor=owner) as change:
                for each in steps:
                    row = _get(connection, each)
                    if row.version is not None:
                        _add_edge(change, run, role, row.version, row.source_run)


def new_model_id() -> str:
    """Give an id that no logged model has."""
    return f"m-{uuid.uuid4().hex}"


def _insert(
    change: Change, id: str, experiment: int, name: str, *, type: str | None, source_run: RunId | None
) -> None:
    row = {
        "id": id,
        "experiment": experiment,
        "name": name,
        "type": type,
        "status": ModelStatus.PENDING.value,
        "source_run": source_run,
        "version": None,
        "created_at": change.recorded_at,
        "updated_at": change.recorded_at,
        "deleted_at": None,
    }
    change.connection.execute(_INSERT, row)
    payload = {"name": name, "experiment": str(experiment), "source_run": source_run}
    change.record("logged_model.created", f"logged_model/{id}", payload=payload, cause=None)


def _get(connection: Connection, id: str) -> Row[Any]:
    found = connection.execute(_MODEL, {"of_model": id}).first()
    if found is None:
        raise NotFound("logged model", id)
    return found


def _get_open(connection: Connection, id: str) -> Row[Any]:
    found = _get(connection, id)
    if found.deleted_at is not None:
        raise Conflict(
            f"logged model {id} ({found.name}) is deleted, and nothing of it is changed; log another"
        )
    return found


def _get_run(connection: Connection, id: RunId) -> Row[Any]:
    found = connection.execute(_RUN, {"of_run": id}).first()
    if found is None:
        raise NotFound("run", id)
    return found


def _get_open_run(connection: Connection, id: RunId) -> Row[Any]:
    found = connection.execute(_RUN, {"of_run": id}).first()
    check_open(id, found)
    assert found is not None
    return found


def _check_known(connection: Connection, ids: set[str]) -> None:
    if ids:
        known = set(connection.execute(_KNOWN, {"models": sorted(ids)}).scalars())
        if known != ids:
            raise NotFound("logged model", min(ids - known))


def _record(change: Change, row: Row[Any]) -> str:
    """Record a model's files as a version, and give its id."""
    uri = model_files(row.experiment, row.artifact_uri, row.id)
    files = _files(change.connection, uri)
    content: Any = {path: sha256 for path, sha256, _ in files} or {
        "uri": uri
    }  # elsewhere: known by its place
    size = sum(each for _, _, each in files)
    version = record_version(
        change,
        kind=VERSION_KIND,
        name=row.name,
        sha256=digest_of(content),
        uri=uri,
        run=row.source_run,
        facts={"model_id": row.id, "type": row.type, "files": len(files), "size_bytes": size},
        cause=None,
    )
    linked = select(run_models.c.run, run_models.c.role).where(run_models.c.model == row.id)
    for run, role in change.connection.execute(linked).all():
        _add_edge(change, run, role, version.id, row.source_run)
    return version.id


def _files(connection: Connection, uri: str) -> list[tuple[str, str, int]]:
    """Give path, digest and size of a model's files that are here."""
    if not uri.startswith(_OWN):
        return []
    folder = uri.removeprefix(_OWN).lstrip("/")
    rows = connection.execute(_FILES, {"after": f"{folder}/", "end": f"{folder}0"})  # '0' comes after '/'
    return [(row.path[len(folder) + 1 :], row.sha256, row.size_bytes) for row in rows]


def _add_edge(change: Change, run: str, role: str, version: str, maker: str | None) -> None:
    """Add an edge; what a run made it does not also read, though it may measure it."""
    if run != maker or role != INPUT:
        add_edge(change, run=run, version=version, role=role)


def _texts(model: str, texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"model": model, "name": name, "value": value} for name, value in texts.items()]


def _point_row(given: ModelPoint) -> tuple[Any, ...]:
    point = given.point
    is_nan = math.isnan(point.value)
    return (
        given.model,
        point.name,
        point.at_us,
        point.step,
        given.run,
        given.dataset_name or "",
        given.dataset_digest or "",
        0.0 if is_nan else point.value,
        is_nan,
    )
