"""A run of an experiment at work in this process."""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from contextvars import ContextVar, Token
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

from noria.errors import ConfigError, Conflict, StoreError
from noria.ledger.running import Running
from noria.records import Run, RunId, Version, VersionRef
from noria.tracking.artifact_paths import checked_path
from noria.tracking.beginning import RunStores, StoresOpener, WantedRun, begin, checked, files_folder
from noria.tracking.experiments import ExperimentBook
from noria.tracking.logged_values import (
    Number,
    check_step,
    instant_us,
    metric_values,
    param_values,
    plain_text,
    tag_values,
)
from noria.tracking.records import param_text
from noria.tracking.run_desk import RunDesk
from noria.tracking.run_files import PathsTaken, RunFiles
from noria.tracking.run_log import RunLog
from noria.tracking.spool_moving import EntryKeeper, move_abandoned
from noria.tracking.spool_records import Input, KeptFile, Params, Points, Tags
from noria.tracking.store import RUN_NAME_TAG, TrackingStore
from noria.tracking.system_metrics import SystemMetrics

__all__ = ["ActiveRun"]

_LOG = logging.getLogger(__name__)
_PATIENCE_S = (
    60.0  # with a database that is away when the run ends; closing the run has a patience of its own
)
_LAST_PATIENCE_S = _CHILD_PATIENCE_S = 5.0
_CURRENT: ContextVar["ActiveRun | None"] = ContextVar("noria_active_run", default=None)
_NOT_BEGUN = "the run has not begun; use it in a `with` block"


class ActiveRun(RunFiles):
    """A run at work; `noria.start_run` gives it for a `with` block.

    It is a run of the ledger that this process holds: it ends as finished, as cancelled by Ctrl-C or
    `SystemExit`, as failed by any other error, which goes on. What is logged is in a log on the disk when
    a call returns, which survives kill -9, and is moved into the database in the background, exactly once;
    a database that is away holds nobody up. Threads, and children that were forked, may log to it as well.

    Parameters
    ----------
    opened
        Gives the stores of the project for as long as the run is at work.
    wanted
        What is known of it.
    nested
        Whether it may begin within another run, which is its parent then.
    system_metrics
        Whether to measure process and machine every ten seconds.
    """

    def __init__(
        self, opened: StoresOpener, wanted: WantedRun, *, nested: bool = False, system_metrics: bool = True
    ) -> None:
        self._opened, self._wanted = opened, wanted
        self._nested, self._measures = nested, system_metrics
        self._pid = os.getpid()
        self._open = ExitStack()
        self._started: tuple[RunStores, Running, RunLog] | None = None
        self._token: Token[ActiveRun | None] | None = None
        self._system: SystemMetrics | None = None
        self._latest: dict[str, tuple[int, int, bool, float]] = {}  # step, instant, whether NaN, value
        self._params: dict[str, Any] = {}
        self._tags: dict[str, str] = {}
        self._folder: str | None = None  # of its files
        self._closed_elsewhere: Run | None = None
        self._taken = PathsTaken()

    # what it is

    @property
    def run(self) -> Run:
        """The ledger's record: as it began; after the block, as it was closed."""
        return self._closed_elsewhere or self._begun[1].run

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self.run.id

    @property
    def name(self) -> str:
        """The run's name, as it is shown."""
        return self._tags.get(RUN_NAME_TAG) or self.run.name

    @property
    def metrics(self) -> dict[str, float]:
        """Of each metric the value at its greatest step, as logged here."""
        return {name: place[3] for name, place in [*self._latest.items()]}

    @property
    def params(self) -> dict[str, Any]:
        """The parameters."""
        return dict(self._params)

    @property
    def tags(self) -> dict[str, str]:
        """The tags."""
        return dict(self._tags)

    # what is logged

    def log_metric(
        self, name: str, value: Number, *, step: SupportsIndex | None = None, at: datetime | None = None
    ) -> None:
        """Log one value of a metric.

        Parameters
        ----------
        value
            Any number, also NaN and infinite.
        step
            Default: one more than the greatest of this metric so far, at first 0.
        at
            When it was; default: now.

        Raises
        ------
        ConfigError
            If the name, the value or the step is none; names the metric.
        """
        self.log_metrics({name: value}, step=step, at=at)

    def log_metrics(
        self, metrics: Mapping[str, Number], *, step: SupportsIndex | None = None, at: datetime | None = None
    ) -> None:
        """Log one value of each of several metrics, all or none. Parameters and errors as of `log_metric`."""
        values = metric_values(metrics)
        if not values:
            return
        at_us = time.time_ns() // 1_000 if at is None else instant_us(at)
        given = None if step is None else check_step(values[0][0], step)
        log = self._begun[2]
        points, latest = [], {}
        with log.turn:
            for name, value in values:
                known = self._latest.get(name)
                if given is not None:
                    own = given
                else:
                    own = 0 if known is None else check_step(name, known[0] + 1)
                points.append((name, value, own, at_us))
                place = (own, at_us, value != value, value)  # noqa: PLR0124 - NaN
                if known is None or place > known:
                    latest[name] = place
            log.acknowledge(Points(points))
            self._latest.update(latest)

    def log_param(self, name: str, value: Any) -> None:
        """Log a parameter: anything that JSON can hold.

        Raises
        ------
        Conflict
            If it has another value already.
        ConfigError
            If name or value is none; names the parameter.
        """
        self.log_params({name: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log several parameters, all or none. Raises like `log_param`."""
        values = param_values(params)
        log = self._begun[2]
        with log.turn:
            for name, value in values.items():
                if name in self._params and param_text(self._params[name]) != param_text(value):
                    raise Conflict(
                        f"parameter {name!r} of run {self.id} is {self._params[name]!r} and cannot become "
                        f"{value!r}; log it under another name, or start another run"
                    )
            new = {name: value for name, value in values.items() if name not in self._params}
            if new:
                log.acknowledge(Params(new))
                self._params.update(new)

    def put_tag(self, name: str, value: str) -> None:
        """Set a tag, whatever it was before. Raises `ConfigError`, naming the tag."""
        self.put_tags({name: value})

    def put_tags(self, tags: Mapping[str, str]) -> None:
        """Set several tags, all or none. Raises like `put_tag`."""
        values = tag_values(tags)
        log = self._begun[2]
        with log.turn:
            if values:
                log.acknowledge(Tags(values))
                self._tags.update(values)

    def log_input(self, data: Version | str, *, context: str = "") -> None:
        """Record that the run reads a version: it is then part of its lineage.

        Parameters
        ----------
        data
            A version, or a dataset by `NAME` (its newest version) or `NAME:NUMBER`.
        context
            What for, such as "training".

        Raises
        ------
        NotFound
            If there is no such dataset.
        ConfigError
            If `data` or `context` is none.
        """
        stores, _, log = self._begun
        context = plain_text("the context of an input", context)
        if isinstance(data, Version):
            version = data
        else:
            version = _find_version(stores, plain_text("the input", data))
        with log.turn:
            log.acknowledge(Input(version.id, context))

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Sync what was logged to the disk, and wait until it is in the database; tell whether it is.

        Parameters
        ----------
        timeout_s
            How long to wait for a database that is away: what was logged is safe meanwhile.

        Raises
        ------
        StoreError
            If the disk does not take it.
        """
        return self._begun[2].flush(timeout_s)

    def _put(self, path: str, file: Path) -> None:
        stores, _, log = self._begun
        checked_path(path)
        if self._folder is None:
            (run,) = RunDesk(stores.ledger).read([self.id])
            experiment = ExperimentBook(stores.ledger).get_by_id(run.info.experiment)
            folder = files_folder(experiment, self.id)
            for each in stores.artifacts.tree(folder):
                self._taken.add(each.path.removeprefix(f"{folder}/"))
            self._folder = folder
        self._taken.check_free(path)
        sha256, size_bytes = stores.artifacts.keep(file)
        with log.turn:
            self._taken.add(path)
            log.acknowledge(KeptFile(f"{self._folder}/{path}", sha256, size_bytes))

    # its life

    def __enter__(self) -> Self:
        if self._started is not None:
            raise RuntimeError("a run begins once; start another one, or go on with this one by run=ID")
        with ExitStack() as opened:
            stores = opened.enter_context(self._opened)
            outer = _CURRENT.get()
            parent = None if outer is None else outer._as_parent(stores, is_wanted=self._nested)
            wanted = checked(self._wanted)
            _move_left(stores, None)
            running = Running(stores.ledger, lambda: begin(stores, wanted, parent=parent))
            if wanted.run is not None:
                running.cost_before = stores.ledger.get_run(wanted.run).cost
            with ExitStack() as begun:
                begun.enter_context(running)
                keeper = EntryKeeper(stores.ledger, stores.artifacts)
                self._remember(stores, running.id)
                self._started = stores, running, RunLog(stores.spools, running.id, keeper)
                begun.pop_all()
            self._open = opened.pop_all()
        self._token = _CURRENT.set(self)
        if self._measures:
            try:
                self._system = SystemMetrics(self.log_metrics)
            except RuntimeError as err:
                _LOG.warning("run %s goes on without measures of the machine: %s", self.id, err)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stores, running, log = self._begun
        if os.getpid() != self._pid:  # a forked child: the run is its parent's
            log.close(is_whole=_is_flushed(log, _CHILD_PATIENCE_S))
            return
        if self._system is not None:
            self._system.stop()
        assert self._token is not None
        with suppress(ValueError):  # begun in another thread or task, which looks whether it has ended
            _CURRENT.reset(self._token)
        log.end()
        is_whole = False
        with self._open:  # closes the project, whatever happens
            try:
                is_whole = _is_flushed(log, 0.0 if isinstance(error, StoreError) else _PATIENCE_S)
                running.metrics, running.params = self._outcome(stores, is_whole=is_whole)
            except BaseException as err:  # such as a second Ctrl-C
                running.__exit__(type(err), err, err.__traceback__)
                raise
            else:
                self._close(running, kind, error, trace)
            finally:
                log.close(is_whole=is_whole or _is_flushed(log, _LAST_PATIENCE_S))

    def _close(
        self,
        running: Running,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            running.__exit__(kind, error, trace)
        except KeyboardInterrupt as err:  # left open, it could not go on before this process ends
            try:
                running.__exit__(type(err), err, err.__traceback__)
            except Conflict:  # it was closed just before
                self._closed_elsewhere = self._begun[0].ledger.get_run(running.id)
            raise
        except Conflict as err:  # is no reason to end what was trained
            _LOG.warning("somebody else has closed the run: %s; what was logged to it is kept", err)
            self._closed_elsewhere = self._begun[0].ledger.get_run(running.id)

    @property
    def _begun(self) -> tuple[RunStores, Running, RunLog]:
        if self._started is None:
            raise RuntimeError(_NOT_BEGUN)
        return self._started

    def _as_parent(self, stores: RunStores, *, is_wanted: bool) -> RunId | None:
        """Give this run's id to one that begins within it; None: it has ended, or is of another project."""
        mine, its = self._begun[0].ledger, stores.ledger
        is_same = (mine.database.location, mine.scope) == (its.database.location, its.scope)
        if not is_same or self._begun[2].has_ended:
            return None
        if not is_wanted:
            raise Conflict(
                f"run {self.id} ({self.name}) is at work here; say nested=True for one within it, or begin "
                "the other once its block has ended"
            )
        return self.id

    def _remember(self, stores: RunStores, id: RunId) -> None:
        """Know what the run has already, by which steps go on and parameters are held to be the same."""
        store = TrackingStore(stores.ledger.database)
        self._params, self._tags = store.params(id), store.list_tags(id)
        for name, point in store.latest_points(id).items():
            value = point.value
            self._latest[name] = (point.step, point.at_us, value != value, value)  # noqa: PLR0124 - NaN

    def _outcome(self, stores: RunStores, *, is_whole: bool) -> tuple[dict[str, float], dict[str, Any]]:
        """Give the last metrics and the parameters: of all processes, if the database can be asked."""
        if not is_whole:
            return self.metrics, self.params
        try:
            _move_left(stores, self.id)  # of children that have ended
            store = TrackingStore(stores.ledger.database)
            latest = store.latest_points(self.id)
            return {name: point.value for name, point in latest.items()}, store.params(self.id)
        except StoreError:
            return self.metrics, self.params


def _is_flushed(log: RunLog, timeout_s: float) -> bool:
    try:
        return log.flush(timeout_s)
    except StoreError as err:
        _LOG.warning("what was logged last may not survive a loss of power: %s", err)
        return False


def _move_left(stores: RunStores, run: RunId | None) -> None:
    """Move what dead processes have left; if that cannot be, it stays for the next time."""
    try:
        move_abandoned(stores.spools, stores.ledger, stores.artifacts, run=run)
    except StoreError as err:
        _LOG.warning("what ended processes have logged waits in %s: %s", stores.spools, err)


def _find_version(stores: RunStores, text: str) -> Version:
    try:
        wanted = VersionRef.parse(text)
    except ValueError as err:
        raise ConfigError(str(err)) from err
    if wanted.environment is not None:
        raise ConfigError(f"{text!r} names a model of an environment, wanted is a dataset: NAME or NAME:3")
    return stores.ledger.get_version("dataset", wanted.name, wanted.number)
