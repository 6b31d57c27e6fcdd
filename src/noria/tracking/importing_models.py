"""Logged models that were made elsewhere, taken in as they were, with what runs read and made of them.

A model is taken in three steps, so that one that was cut off goes on: what is told of it, its files, and that
it is ready. Only the last makes it a version of the ledger, whose digest is that of the files.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select

from noria.database.upserts import Upsert
from noria.errors import ConfigError, NotFound
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.tracking.importing import Standing, check_texts
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.models.reading import model_files
from noria.tracking.models.records import ModelPoint, ModelStatus
from noria.tracking.records import LinkedModel
from noria.tracking.tables import (
    experiments,
    logged_model_params,
    logged_model_tags,
    logged_models,
    run_models,
    tracked_runs,
)

__all__ = ["ForeignLink", "ForeignModel", "ModelImporter"]

_ID = re.compile(r"m-[0-9a-zA-Z\-]{1,64}", re.ASCII)
_OWN = "mlflow-artifacts:/"
_AT_ONCE = 500
_MODEL = select(logged_models).where(logged_models.c.id == bindparam("id"))
_END = logged_models.update().where(logged_models.c.id == bindparam("of_model"))
_PARAMS, _TAGS = Upsert(logged_model_params), Upsert(logged_model_tags)
_LINKS = Upsert(run_models)


class ForeignModel(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model of elsewhere."""

    id: str
    experiment: str  # as it is called there
    name: str
    type: str | None
    status: ModelStatus
    source_run: RunId | None
    created_at: datetime
    updated_at: datetime
    is_deleted: bool
    artifact_uri: str
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    points: tuple[ModelPoint, ...] = ()


class ForeignLink(msgspec.Struct, frozen=True, kw_only=True):
    """That a run read or made a logged model."""

    run: RunId
    role: str  # "input" or "output"
    model: LinkedModel


class ModelImporter:
    """Takes logged models of elsewhere into a project. Safe to use from many processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._models = ledger, LoggedModels(ledger)

    def standing(self, model: ForeignModel) -> Standing:
        """Tell what is here of a model; `OPEN`: it is not as far as it is there."""
        with self._ledger.database.read() as connection:
            return _standing(connection, model)

    def take(self, model: ForeignModel, experiment: int) -> Standing:
        """Take what is told of a model, all or nothing; give what was here before.

        Raises `ConfigError` if it has a text that the project's database cannot hold.
        """
        with self._ledger.change(None) as change:
            connection = change.connection
            standing = _standing(connection, model)
            if standing is not Standing.NEW:
                return standing
            check_texts(connection, f"logged model {model.id}", _texts(model))
            source = _known_runs(connection, [model.source_run] if model.source_run else [])
            row = {
                "id": model.id,
                "experiment": experiment,
                "name": model.name,
                "type": model.type,
                "status": ModelStatus.PENDING.value,
                "source_run": model.source_run if source else None,
                "version": None,
                "created_at": model.created_at,
                "updated_at": model.updated_at,
                "deleted_at": None,
            }
            connection.execute(logged_models.insert(), row)
            for upsert, texts in ((_PARAMS, model.params), (_TAGS, model.tags)):
                rows = [{"model": model.id, "name": name, "value": value} for name, value in texts.items()]
                upsert.execute(connection, rows)
            known = _known_runs(connection, [each.run for each in model.points])
            self._models.log_points(each for each in model.points if each.run in known)
            payload = {"name": model.name, "experiment": str(experiment), "source_run": row["source_run"]}
            change.record("logged_model.created", f"logged_model/{model.id}", payload=payload, cause=None)
            return standing

    def finish(self, model: ForeignModel) -> None:
        """Say that all files of a model are there: it is then as it was."""
        with self._ledger.change(None) as change:
            self._models.finish(model.id, model.status)
            deleted_at = model.updated_at if model.is_deleted else None
            ends = {"of_model": model.id, "updated_at": model.updated_at, "deleted_at": deleted_at}
            change.connection.execute(_END, ends)

    def files_folder(self, model: str) -> str:
        """Give where below the project's artifacts a model's files are.

        Raises `NotFound`, and `ConfigError` if they are elsewhere.
        """
        query = (
            select(experiments.c.id, experiments.c.artifact_uri)
            .join(logged_models, logged_models.c.experiment == experiments.c.id)
            .where(logged_models.c.id == model)
        )
        with self._ledger.database.read() as connection:
            found = connection.execute(query).first()
        if found is None:
            raise NotFound("logged model", model)
        number, place = found
        uri = model_files(number, place, model)
        if not uri.startswith(_OWN):
            raise ConfigError(f"its experiment keeps files at {place}, where noria puts none")
        return uri.removeprefix(_OWN).strip("/")

    def link(self, links: Sequence[ForeignLink]) -> list[ForeignLink]:
        """Keep what runs read and made; give those links whose run or model is not here."""
        left = [each for each in links if "\0" in each.run + each.model.model]  # no id that is here
        links = [each for each in links if each not in left]
        with self._ledger.database.write() as connection:
            wanted = [each.run for each in links]
            runs = _known_runs(connection, wanted)
            query = select(logged_models.c.id)
            models = set(connection.execute(query.where(_among(logged_models.c.id, links))).scalars())
            there = select(run_models.c.run, run_models.c.role, run_models.c.model)
            found = connection.execute(there.where(run_models.c.run.in_(wanted)))
            held = {(run, role, model) for run, role, model in found}
            for each in links:
                model = each.model.model
                if each.run not in runs or model not in models:
                    left.append(each)
                elif (each.run, each.role, model) in held:
                    continue
                elif runs[each.run]:  # is deleted: nothing but the label
                    row = {"run": each.run, "role": each.role, "model": model, "step": each.model.step}
                    _LINKS.execute(connection, [row])
                else:
                    self._models.link(each.run, role=each.role, models=[each.model])
        return left


def _among(column: Any, links: Sequence[ForeignLink]) -> Any:
    return column.in_([each.model.model for each in links])


def _texts(model: ForeignModel) -> Iterator[str | None]:
    yield from (model.name, model.type, model.source_run)
    yield from chain(*model.params.items(), *model.tags.items())
    for each in model.points:
        yield from (each.run, each.point.name, each.dataset_name, each.dataset_digest)


def _standing(connection: Connection, model: ForeignModel) -> Standing:
    if _ID.fullmatch(model.id) is None:
        return Standing.UNFIT
    row = connection.execute(_MODEL, {"id": model.id}).first()
    if row is None:
        return Standing.NEW
    if row.created_at != model.created_at:
        return Standing.OTHER
    has_ended = model.status is not ModelStatus.PENDING or model.is_deleted
    is_behind = row.status == ModelStatus.PENDING and row.deleted_at is None
    return Standing.OPEN if is_behind and has_ended else Standing.KNOWN


def _known_runs(connection: Connection, ids: Sequence[str]) -> dict[str, bool]:
    """Give which of these runs are in experiments here, and whether they are deleted."""
    found: dict[str, bool] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _AT_ONCE):
        query = select(tracked_runs.c.run, tracked_runs.c.deleted_at)
        query = query.where(tracked_runs.c.run.in_(wanted[start : start + _AT_ONCE]))
        found |= {run: deleted_at is not None for run, deleted_at in connection.execute(query)}
    return found
