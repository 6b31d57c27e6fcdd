"""Runs whose work is done elsewhere: their owners tell of them, over HTTP for instance.

Each is a run of the ledger that no process of this machine holds, so that none ends it by dying.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select

from noria.database.upserts import Upsert
from noria.errors import NotFound
from noria.ledger.code import CodeState
from noria.ledger.store import Ledger
from noria.records import RunId, RunState, canonical_json, sha256_hex
from noria.tracking.experiments import get_open_experiment
from noria.tracking.names import check_title
from noria.tracking.reading import read_infos, read_runs
from noria.tracking.records import LoggedDataset, RunDetails, TrackedInfo
from noria.tracking.run_names import random_run_name
from noria.tracking.store import RUN_NAME_TAG, TrackingStore, check_open
from noria.tracking.tables import logged_datasets, run_datasets, tracked_runs

__all__ = ["COMMIT_TAG", "PARENT_TAG", "RunDesk", "enroll"]

PARENT_TAG = "mlflow.parentRunId"
COMMIT_TAG = "mlflow.source.git.commit"
_KIND = "experiment"
_NO_CODE, _NO_RUNTIME = "none", "unknown"
_MINE = tracked_runs.c.run == bindparam("of_run")
_FOLDER = select(tracked_runs).where(_MINE)
_UPDATE = tracked_runs.update().where(_MINE)
_INSERT = tracked_runs.insert()
_DATASETS = Upsert(logged_datasets)
_RUN_DATASETS = Upsert(run_datasets, replaced=("context", "tags"))


def enroll(
    connection: Connection,
    run: RunId,
    *,
    experiment: int,
    name: str,
    owner: str,
    started_at: datetime,
    is_scheduled: bool = False,
) -> None:
    """Put a run of the ledger into an experiment."""
    row = {
        "run": run,
        "experiment": experiment,
        "name": name,
        "owner": owner,
        "is_scheduled": is_scheduled,
        "started_at": started_at,
        "ended_at": None,
        "deleted_at": None,
    }
    connection.execute(_INSERT, row)


class RunDesk:
    """Takes in what the owners of runs tell. Safe to use from many threads and processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._store = TrackingStore(ledger.database)

    def start(
        self,
        experiment: str,
        *,
        name: str = "",
        owner: str = "unknown",
        started_at: datetime | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunDetails:
        """Record that a run begins.

        Parameters
        ----------
        experiment
            Its id.
        name
            Empty: the tag `mlflow.runName`, else a random one.
        tags
            `mlflow.parentRunId` names the run that it is part of, `mlflow.source.git.commit` its code.

        Raises
        ------
        NotFound
            If there is no such experiment.
        Conflict
            If it is deleted.
        ConfigError
            If the name is too long.
        """
        tags = dict(tags or {})
        name = check_title("run", name or tags.get(RUN_NAME_TAG, "") or random_run_name())
        tags[RUN_NAME_TAG] = name
        code = CodeState(tags.get(COMMIT_TAG, _NO_CODE), None, _NO_RUNTIME)
        with self._ledger.database.write() as connection:
            folder = get_open_experiment(connection, experiment)
            run = self._ledger.start_run(
                _KIND,
                name,
                experiment=experiment,
                parent=_known(connection, tags.get(PARENT_TAG)),
                is_held=False,
                code=code,
                actor=owner,
            )
            enroll(
                connection,
                run.id,
                experiment=folder.id,
                name=name,
                owner=owner,
                started_at=started_at or run.started_at,
            )
            self._store.log(run.id, tags=tags)
            return read_runs(connection, [run.id])[0]

    def update(
        self,
        id: RunId,
        *,
        state: RunState | None = None,
        is_scheduled: bool = False,
        ended_at: datetime | None = None,
        name: str | None = None,
    ) -> TrackedInfo:
        """Change where a run stands, when it ended, or its name.

        One that had ended may go on, and may end another way: each is an event.

        Raises
        ------
        NotFound
            If there is no such run.
        Conflict
            If it is deleted.
        """
        with self._ledger.database.write() as connection:
            folder = connection.execute(_FOLDER, {"of_run": id}).first()
            check_open(id, folder)
            assert folder is not None
            changed: dict[str, Any] = {}
            if state is not None:
                self._set_state(id, state, owner=folder.owner)
                changed |= {"is_scheduled": is_scheduled, "ended_at": ended_at}
            elif ended_at is not None:
                changed["ended_at"] = ended_at
            if name is not None:
                self._store.log(id, tags={RUN_NAME_TAG: name})
            if changed:
                connection.execute(_UPDATE, {"of_run": id, **changed})
            return read_infos(connection, [id])[0]

    def delete(self, id: RunId) -> None:
        """Mark a run as deleted; nothing is lost. Raises `NotFound`."""
        self._mark(id, "deleted")

    def restore(self, id: RunId) -> None:
        """Restore a run that was deleted. Raises `NotFound`; `Conflict` if its experiment is deleted."""
        self._mark(id, "restored")

    def get(self, id: RunId) -> RunDetails:
        """Give a run with what was logged. Raises `NotFound`."""
        return self.read([id])[0]

    def read(self, ids: Sequence[RunId]) -> list[RunDetails]:
        """Give runs in that order. Raises `NotFound` for the first that is not there."""
        with self._ledger.database.read() as connection:
            return read_runs(connection, ids)

    def get_info(self, id: RunId) -> TrackedInfo:
        """Give a run without what was logged to it. Raises `NotFound`."""
        with self._ledger.database.read() as connection:
            return read_infos(connection, [id])[0]

    def log_datasets(self, id: RunId, datasets: Sequence[LoggedDataset]) -> None:
        """Keep what a run read, as its owner describes it; the same again changes its tags alone.

        Raises
        ------
        NotFound
            If there is no such run.
        Conflict
            If it is deleted.
        """
        described, read = [], []
        for each in datasets:
            fields = {
                "name": each.name,
                "digest": each.digest,
                "source_type": each.source_type,
                "source": each.source,
                "schema": each.schema,
                "profile": each.profile,
            }
            sha256 = sha256_hex(canonical_json(fields))
            described.append({"sha256": sha256, **fields})
            tags = msgspec.json.encode(each.tags).decode()
            read.append({"run": id, "dataset": sha256, "name": each.name, "digest": each.digest,
                         "context": each.context, "tags": tags})  # fmt: skip
        with self._ledger.database.write() as connection:
            folder = connection.execute(_FOLDER, {"of_run": id}).first()
            check_open(id, folder)
            assert folder is not None
            _DATASETS.execute(connection, described)
            _RUN_DATASETS.execute(connection, [{**each, "experiment": folder.experiment} for each in read])

    def _set_state(self, id: RunId, state: RunState, *, owner: str) -> None:
        run = self._ledger.get_run(id)
        if run.state is state:
            return
        if run.state is not RunState.RUNNING:
            self._ledger.resume_run(id, is_held=False, actor=owner)
        if state is not RunState.RUNNING:
            metrics = {name: point.value for name, point in self._store.latest_points(id).items()}
            params = self._store.params(id)
            self._ledger.finish_run(id, state=state, metrics=metrics, params=params, actor=owner)

    def _mark(self, id: RunId, verb: str) -> None:
        with self._ledger.change(None) as change:
            folder = change.connection.execute(_FOLDER, {"of_run": id}).first()
            if folder is None:
                raise NotFound("run", id)
            if (folder.deleted_at is not None) == (verb == "deleted"):
                return
            if verb == "restored":
                get_open_experiment(change.connection, str(folder.experiment))
            deleted_at = change.recorded_at if verb == "deleted" else None
            change.connection.execute(_UPDATE, {"of_run": id, "deleted_at": deleted_at})
            payload = {"name": folder.name, "experiment": str(folder.experiment)}
            change.record(f"run.{verb}", f"run/{id}", payload=payload, cause=None)


def _known(connection: Connection, parent: str | None) -> str | None:
    """Give the run that is named as a parent, if it is one of an experiment here."""
    return connection.execute(select(tracked_runs.c.run).where(_MINE), {"of_run": parent or ""}).scalar()
