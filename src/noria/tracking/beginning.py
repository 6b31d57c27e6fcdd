"""How an experiment's run begins, or goes on: what is recorded of it without being asked."""

import shlex
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
from sqlalchemy import select

from noria.errors import ConfigError, Conflict, LeaseHeld
from noria.ledger.book import user
from noria.ledger.code import CodeState
from noria.ledger.processes import Process
from noria.ledger.store import Ledger
from noria.ledger.tables import heartbeats
from noria.records import Run, RunId, RunState
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.experiments import ExperimentBook, get_open_experiment
from noria.tracking.logged_values import param_values, plain_text, seed_value, tag_values
from noria.tracking.names import check_title
from noria.tracking.reading import read_infos
from noria.tracking.records import DEFAULT_EXPERIMENT, Experiment
from noria.tracking.remote.hearing import find_heard_of
from noria.tracking.run_desk import COMMIT_TAG, PARENT_TAG, enroll
from noria.tracking.run_names import random_run_name
from noria.tracking.store import RUN_NAME_TAG, TrackingStore, check_open
from noria.tracking.tables import tracked_runs

__all__ = [
    "KIND",
    "ModelShelf",
    "Origin",
    "RunStores",
    "StoresOpener",
    "WantedRun",
    "begin",
    "begin_elsewhere",
    "checked",
    "files_folder",
    "models_folder",
    "told_of_process",
]

KIND = "experiment"
_FILES = "mlflow-artifacts:"
_NO_CODE = "none"
_OF_OWNER = {"mlflow.user", "mlflow.source.type"}  # stay those of whoever began the run


class ModelShelf(Protocol):
    """Writes models as files, and registers them: what a run needs of the packages above."""

    def write(self, model: object, folder: Path, *, example: object | None, serialization: str) -> str:
        """Write a model into an empty folder, as MLflow's clients read it; give its flavor.

        Raises
        ------
        ConfigError
            If it cannot be stored; names its type.
        """
        ...

    def check_registrable(self, name: str) -> None:
        """Raise `ConfigError` if a model cannot be registered under a name."""
        ...

    def register(self, name: str, *, logged_model: str, run: RunId) -> int:
        """Register a logged model of the database as the next version of a name; give its number."""
        ...


@dataclass(frozen=True, slots=True)
class RunStores:
    """What runs need of a project."""

    ledger: Ledger
    artifacts: ArtifactStore
    spools: Path  # below the project's state
    models: ModelShelf | None = None


StoresOpener = AbstractContextManager[RunStores]


@dataclass(frozen=True, slots=True)
class WantedRun:
    """What is known of a run before it begins."""

    name: str = ""
    experiment: str = DEFAULT_EXPERIMENT
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    run: str | None = None  # to go on with


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the work of a run is done: in this process, or elsewhere."""

    owner: str
    told: Mapping[str, str]  # tags that its process tells of itself
    id: RunId | None = None  # that was chosen elsewhere
    code: CodeState | None = None  # None: this process's
    started_at: datetime | None = None  # None: now
    is_held: bool = True  # whether this process's end is the run's


def checked(wanted: WantedRun) -> WantedRun:
    """Give what is wanted as it can be recorded. Raises `ConfigError`, naming what cannot be."""
    if wanted.experiment == "":
        raise ConfigError("the experiment's name is empty; give one, or leave it out for 'Default'")
    return replace(
        wanted,
        name=check_title("run", wanted.name),
        experiment=check_title("experiment", wanted.experiment),
        params=param_values(wanted.params),
        tags=tag_values(wanted.tags),
        seed=seed_value(wanted.seed),
        run=None if wanted.run is None else plain_text("the run to go on with", wanted.run),
    )


def begin(
    stores: RunStores,
    wanted: WantedRun,
    *,
    parent: RunId | None,
    tell: Callable[[RunId], object] | None = None,
) -> Run:
    """Record that a run begins, or goes on.

    Parameters
    ----------
    tell
        Called with its id just before that is on record, so that whoever is interrupted knows what to close.

    Raises
    ------
    NotFound
        If there is no such run to go on with.
    LeaseHeld
        If it is at work.
    Conflict
        If it, or its experiment, is deleted; or a parameter has another value already.
    """
    ledger, here = stores.ledger, Origin(user(), told_of_process())
    ledger.code_state()  # asks git, which nobody has to wait for who writes
    if wanted.run is not None:
        ledger.mark_killed()
        return _resume(ledger, wanted, RunId(wanted.run), here, parent=parent, tell=tell)
    return _start(ledger, wanted, here, parent=parent, tell=tell)


def begin_elsewhere(ledger: Ledger, wanted: WantedRun, origin: Origin, *, parent: RunId | None) -> Run:
    """Record that a run begins, or goes on, whose work is done elsewhere. Raises like `begin`."""
    if wanted.run is not None:
        ledger.mark_killed()
        return _resume(ledger, wanted, RunId(wanted.run), origin, parent=parent, tell=None)
    return _start(ledger, wanted, origin, parent=parent, tell=None)


def _start(
    ledger: Ledger,
    wanted: WantedRun,
    origin: Origin,
    *,
    parent: RunId | None,
    tell: Callable[[RunId], object] | None,
) -> Run:
    experiment = ExperimentBook(ledger).open(wanted.experiment, actor=origin.owner)
    name = wanted.name or wanted.tags.get(RUN_NAME_TAG, "") or random_run_name()
    with ledger.database.write() as connection:
        get_open_experiment(connection, experiment.id)
        run = ledger.start_run(
            KIND,
            name,
            experiment=experiment.id,
            parent=parent,
            params=wanted.params,
            seed=wanted.seed,
            id=origin.id,
            is_held=origin.is_held,
            code=origin.code,
            actor=origin.owner,
        )
        enroll(
            connection,
            run.id,
            experiment=int(experiment.id),
            name=name,
            owner=origin.owner,
            started_at=origin.started_at or run.started_at,
        )
        tags = {**origin.told, **_told_of(run, parent), **wanted.tags, RUN_NAME_TAG: name}
        TrackingStore(ledger.database).log(run.id, params=wanted.params, tags=tags)
        if tell is not None:
            tell(run.id)
    return run


def files_folder(experiment: Experiment, run: RunId) -> str:
    """Give where below the project's artifacts the files of a run are.

    Raises
    ------
    ConfigError
        If the experiment keeps them elsewhere.
    """
    return f"{_folder(experiment)}/{run}/artifacts"


def models_folder(experiment: Experiment) -> str:
    """Give where the files of an experiment's logged models are, as `files_folder`."""
    return f"{_folder(experiment)}/models"


def _folder(experiment: Experiment) -> str:
    place = experiment.artifact_uri
    if place is None:
        return experiment.id
    if not place.startswith(_FILES):
        raise ConfigError(
            f"experiment {experiment.name!r} keeps its files at {place}, where noria puts none; "
            "log them to another experiment"
        )
    return place.removeprefix(_FILES).strip("/")


def _resume(
    ledger: Ledger,
    wanted: WantedRun,
    id: RunId,
    origin: Origin,
    *,
    parent: RunId | None,
    tell: Callable[[RunId], object] | None,
) -> Run:
    with ledger.database.write() as connection:
        (info,) = read_infos(connection, [id])
        check_open(id, info)
        _check_same(ledger, wanted, ledger.get_run(id), experiment=info.experiment)
        if info.state is RunState.RUNNING:
            query = select(heartbeats.c.holder).where(heartbeats.c.run == id)
            holder = connection.execute(query).scalar()
            told = _who(holder) if holder else find_heard_of(connection, id)
            raise LeaseHeld(f"run {id}", str(told or "somebody who tells of it over HTTP"))
        if parent is not None and ledger.get_run(id).parent != parent:
            raise Conflict(f"run {id} was begun outside of run {parent}; go on with it outside")
        run = ledger.resume_run(id, is_held=origin.is_held, actor=origin.owner)
        changed = {"is_scheduled": False, "ended_at": None}
        connection.execute(tracked_runs.update().where(tracked_runs.c.run == id).values(changed))
        name = {RUN_NAME_TAG: wanted.name} if wanted.name else {}
        command = {tag: text for tag, text in origin.told.items() if tag not in _OF_OWNER}
        tags = {**command, **wanted.tags, **name}
        TrackingStore(ledger.database).log(id, params=wanted.params, tags=tags)
        if tell is not None:
            tell(id)
        return run


def _who(holder: str) -> str:
    return str(msgspec.json.decode(holder, type=Process))


def _check_same(ledger: Ledger, wanted: WantedRun, run: Run, *, experiment: str) -> None:
    """Refuse what a run that goes on cannot become."""
    if wanted.seed is not None and wanted.seed != run.seed:
        raise Conflict(
            f"run {run.id} has the seed {run.seed}, which cannot become {wanted.seed}; leave it out"
        )
    if wanted.experiment == DEFAULT_EXPERIMENT:
        return
    found = ExperimentBook(ledger).get_by_id(experiment)
    if found.name != wanted.experiment:
        raise Conflict(
            f"run {run.id} is in experiment {found.name!r}, not in {wanted.experiment!r}; leave it out"
        )


def _told_of(run: Run, parent: RunId | None) -> dict[str, str]:
    tags = {} if parent is None else {PARENT_TAG: str(parent)}
    if run.code != _NO_CODE:
        tags[COMMIT_TAG] = run.code
    return tags


def told_of_process() -> dict[str, str]:
    """Give the tags by which this process tells of itself."""
    return {"mlflow.user": user(), "mlflow.source.type": "LOCAL", **_command()}


def _command() -> dict[str, str]:
    command = shlex.join(sys.orig_argv)
    told = {
        "command": command,
        "host": socket.gethostname(),
        "mlflow.source.name": sys.argv[0] if sys.argv else "",
    }
    return {name: _clean(text) for name, text in told.items()}


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
