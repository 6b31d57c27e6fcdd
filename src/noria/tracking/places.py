"""Where runs are kept: in a project's stores. A server is another place; see `remote_place.py`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from noria.errors import Conflict, NotFound, StoreError
from noria.ledger.running import Running
from noria.records import Run, RunId, RunState, Version
from noria.tracking.beginning import ModelShelf, RunStores, WantedRun, begin, files_folder, models_folder
from noria.tracking.experiments import ExperimentBook
from noria.tracking.records import MetricPoint
from noria.tracking.run_desk import RunDesk
from noria.tracking.spools.moving import EntryKeeper, find_version, move_abandoned
from noria.tracking.spools.records import Input
from noria.tracking.spools.run_log import RunLog
from noria.tracking.store import TrackingStore

__all__ = ["LocalPlace", "Remembered", "RunFolders", "RunPlace", "as_place"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was logged to a run before."""

    params: Mapping[str, Any]
    tags: Mapping[str, str]
    latest: Sequence[MetricPoint]


@dataclass(frozen=True, slots=True)
class RunFolders:
    """Where a run's files are, and those of its experiment's models; with the paths that are taken."""

    files: str
    models: str
    taken: Sequence[str]
    experiment: str = ""  # its name, where that is known


class RunPlace(Protocol):
    """Where runs are kept."""

    patience_s: float  # at a run's end, with what was logged and waits
    last_patience_s: float  # once it is closed

    @property
    def models(self) -> ModelShelf | None:
        """What writes and registers models."""
        ...

    def is_same(self, other: "RunPlace") -> bool:
        """Tell whether runs of the other one may be part of runs of this one."""
        ...

    def for_another(self) -> "AbstractContextManager[RunPlace]":
        """Give the same for a run that is at work beside that of this one, such as one within it."""
        ...

    def start(
        self,
        wanted: WantedRun,
        *,
        parent: RunId | None,
        within: "RunPlace | None",
        tell: Callable[[RunId], object],
    ) -> Running:
        """Give a run that begins once it is entered; raises like `begin`.

        Parameters
        ----------
        within
            Where the parent is kept.
        tell
            Called with its id before it is on record.
        """
        ...

    def log_of(self, run: RunId) -> RunLog:
        """Give where a run that has begun is logged to."""
        ...

    def remembered(self, run: RunId) -> Remembered:
        """Give what a run had when it began: something, if it goes on."""
        ...

    def input_of(self, data: Version | str, context: str) -> Input:
        """Name a version that a run reads. Raises `NotFound`, `ConfigError`."""
        ...

    def folders(self, run: RunId) -> RunFolders:
        """Give where files of a run go. Raises `ConfigError` if they go elsewhere."""
        ...

    def keep_file(self, run: RunId, file: Path) -> tuple[str, int]:
        """Keep a file's bytes; give its sha256 and size. Raises `SourceError`, `StoreError`."""
        ...

    def outcome(self, run: RunId) -> tuple[dict[str, float], dict[str, Any]] | None:
        """Give last metrics and parameters of all processes; None: they cannot be told."""
        ...

    def get_run(self, run: RunId) -> Run:
        """Give the record of a run that somebody else has closed."""
        ...

    def close_interrupted(self, run: RunId, *, state: RunState, error: str) -> None:
        """Close a run whose block was interrupted before it began, if it is open."""
        ...


class LocalPlace:
    """A project's stores."""

    patience_s = 60.0  # with a database that is away; closing the run has a patience of its own
    last_patience_s = 5.0

    def __init__(self, stores: RunStores) -> None:
        self._stores = stores

    @property
    def models(self) -> ModelShelf | None:
        """What writes and registers models."""
        return self._stores.models

    def is_same(self, other: RunPlace) -> bool:
        """Tell whether the other one is the same project."""
        if not isinstance(other, LocalPlace):
            return False
        mine, its = self._stores.ledger, other._stores.ledger
        return (mine.database.location, mine.scope) == (its.database.location, its.scope)

    def for_another(self) -> AbstractContextManager[RunPlace]:
        """Give this one: it has no part in what a run is at."""
        return nullcontext(self)

    def start(
        self,
        wanted: WantedRun,
        *,
        parent: RunId | None,
        within: RunPlace | None,
        tell: Callable[[RunId], object],
    ) -> Running:
        """Give a run that begins once it is entered."""
        stores = self._stores
        self._move_left(None)
        running = Running(stores.ledger, lambda: begin(stores, wanted, parent=parent, tell=tell))
        if wanted.run is not None:
            running.cost_before = stores.ledger.get_run(wanted.run).cost
        return running

    def log_of(self, run: RunId) -> RunLog:
        """Give where a run is logged to."""
        stores = self._stores
        return RunLog(stores.spools, run, EntryKeeper(stores.ledger, stores.artifacts))

    def remembered(self, run: RunId) -> Remembered:
        """Give what a run has."""
        store = TrackingStore(self._stores.ledger.database)
        return Remembered(store.params(run), store.list_tags(run), [*store.latest_points(run).values()])

    def input_of(self, data: Version | str, context: str) -> Input:
        """Name a version that a run reads."""
        version = data if isinstance(data, Version) else find_version(self._stores.ledger, data)
        return Input(version.id, context)

    def folders(self, run: RunId) -> RunFolders:
        """Give where files of a run go."""
        stores = self._stores
        info = RunDesk(stores.ledger).get_info(run)
        experiment = ExperimentBook(stores.ledger).get_by_id(info.experiment)
        folder = files_folder(experiment, run)
        taken = [each.path.removeprefix(f"{folder}/") for each in stores.artifacts.tree(folder)]
        return RunFolders(folder, models_folder(experiment), taken, experiment.name)

    def keep_file(self, run: RunId, file: Path) -> tuple[str, int]:
        """Keep a file's bytes in the storage."""
        return self._stores.artifacts.keep(file)

    def outcome(self, run: RunId) -> tuple[dict[str, float], dict[str, Any]] | None:
        """Give last metrics and parameters; None while the database is away."""
        try:
            self._move_left(run)  # of children that have ended
            store = TrackingStore(self._stores.ledger.database)
            latest = store.latest_points(run)
            return {name: point.value for name, point in latest.items()}, store.params(run)
        except StoreError:
            return None

    def get_run(self, run: RunId) -> Run:
        """Give the record of a run."""
        return self._stores.ledger.get_run(run)

    def close_interrupted(self, run: RunId, *, state: RunState, error: str) -> None:
        """Close a run, if it is open."""
        with suppress(Conflict, NotFound):  # it was closed, or never came on record
            self._stores.ledger.finish_run(run, state=state, error=error)

    def _move_left(self, run: RunId | None) -> None:
        """Move what dead processes have left; if that cannot be, it stays for the next time."""
        stores = self._stores
        try:
            move_abandoned(stores.spools, stores.ledger, stores.artifacts, run=run)
        except StoreError as err:
            _LOG.warning("what ended processes have logged waits in %s: %s", stores.spools, err)


def as_place(opened: RunStores | RunPlace) -> RunPlace:
    """Give what was opened as a place."""
    return LocalPlace(opened) if isinstance(opened, RunStores) else opened
