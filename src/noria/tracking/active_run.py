"""A run of an experiment at work in this process."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from contextvars import ContextVar, Token
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

from msgspec.structs import replace

from noria.errors import Conflict, StoreError
from noria.ledger.running import Running
from noria.records import Run, RunId, RunState, Version
from noria.tracking.artifact_paths import checked_path
from noria.tracking.beginning import ModelShelf, RunStores, WantedRun, checked
from noria.tracking.logged_values import (
    Number,
    check_step,
    instant_us,
    metric_values,
    param_values,
    plain_text,
    tag_values,
)
from noria.tracking.places import RunFolders, RunPlace, as_place
from noria.tracking.records import LoggedDataset, param_text
from noria.tracking.run_files import PathsTaken
from noria.tracking.run_models import MadeFolder, RunModels
from noria.tracking.spools.records import DescribedInput, KeptFile, MadeModel, Params, Points, Tags
from noria.tracking.spools.run_log import RunLog
from noria.tracking.store import RUN_NAME_TAG
from noria.tracking.system_metrics import SystemMetrics

__all__ = ["ActiveRun"]

_LOG = logging.getLogger(__name__)
_CHILD_PATIENCE_S = 5.0
_CURRENT: ContextVar["ActiveRun | None"] = ContextVar("noria_active_run", default=None)
_NOT_BEGUN = "the run has not begun; use it in a `with` block"


class ActiveRun(RunModels):
    """A run at work; `noria.start_run` gives it for a `with` block.

    It is a run of the ledger that this process holds: it ends as finished, as cancelled by Ctrl-C or
    `SystemExit`, as failed by any other error, which goes on. What is logged is in a log on the disk when
    a call returns, which survives kill -9, and is moved into the database in the background, exactly once;
    a database that is away holds nobody up. Threads, and children that were forked, may log to it as well.

    Parameters
    ----------
    opened
        Gives the stores of the project, or a server, for as long as the run is at work.
    wanted
        What is known of it.
    nested
        Whether it may begin within another run, which is its parent then.
    system_metrics
        Whether to measure process and machine every ten seconds.
    patience_s
        At most so long its end waits for a database that is away, twice: for what was logged, and to close
        it. Default: as long as is usual there.
    """

    def __init__(
        self,
        opened: AbstractContextManager[RunStores | RunPlace],
        wanted: WantedRun,
        *,
        nested: bool = False,
        system_metrics: bool = True,
        patience_s: float | None = None,
    ) -> None:
        self._opened, self._wanted = opened, wanted
        self._nested, self._measures, self._patience_s = nested, system_metrics, patience_s
        self._pid = os.getpid()
        self._open = ExitStack()
        self._started: tuple[RunPlace, Running, RunLog] | None = None
        self._token: Token[ActiveRun | None] | None = None
        self._system: SystemMetrics | None = None
        self._latest: dict[str, tuple[int, int, bool, float]] = {}  # step, instant, whether NaN, value
        self._params: dict[str, Any] = {}
        self._tags: dict[str, str] = {}
        self._folders: RunFolders | None = None
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

    def log_input(self, data: Version | LoggedDataset | str, *, context: str = "") -> None:
        """Record what the run reads; a version is then part of its lineage.

        Parameters
        ----------
        data
            A version, or a dataset by `NAME` (its newest version) or `NAME:NUMBER`; or data that noria does
            not keep, as a `LoggedDataset` describes it.
        context
            What for, such as "training".

        Raises
        ------
        NotFound
            If there is no such dataset.
        ConfigError
            If `data` or `context` is none.
        """
        place, _, log = self._begun
        context = plain_text("the context of an input", context)
        if isinstance(data, LoggedDataset):
            described = DescribedInput(replace(data, context=context or data.context))
            with log.turn:
                log.acknowledge(described)
            return
        named = data if isinstance(data, Version) else plain_text("the input", data)
        entry = place.input_of(named, context)
        with log.turn:
            log.acknowledge(entry)

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
        place, _, log = self._begun
        checked_path(path)
        folder = self._places.files
        self._taken.check_free(path)
        sha256, size_bytes = place.keep_file(self.id, file)
        with log.turn:
            self._taken.add(path)
            log.acknowledge(KeptFile(f"{folder}/{path}", sha256, size_bytes))

    def _find_shelf(self) -> ModelShelf | None:
        return self._begun[0].models

    def _put_model(self, made: MadeFolder) -> RunId:
        place, _, log = self._begun
        folder = f"{self._places.models}/{made.id}/artifacts"
        kept = [
            KeptFile(f"{folder}/{checked_path(path)}", *place.keep_file(self.id, file))
            for path, file in made.files
        ]
        with log.turn:
            for each in kept:
                log.acknowledge(each)
            points = [(name, place[3], place[0], place[1]) for name, place in self._latest.items()]
            params = {name: param_text(value) for name, value in self._params.items()}
            step = max((step for _, _, step, _ in points), default=0)
            log.acknowledge(MadeModel(made.id, made.name, step, params, dict(made.tags), points))
        return self.id

    @property
    def _places(self) -> RunFolders:
        if self._folders is None:
            found = self._begun[0].folders(self.id)
            for each in found.taken:
                self._taken.add(each)
            self._folders = found
        return self._folders

    @classmethod
    def current(cls) -> "ActiveRun | None":
        """Give the run whose block this code is in, or None."""
        found = _CURRENT.get()
        return None if found is None or found._begun[2].has_ended else found

    def within(
        self,
        name: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "ActiveRun":
        """Give a run within this one, in its experiment, for a `with` block in this block."""
        experiment = self._wanted.experiment
        if self._wanted.run is not None:  # one that goes on is where it was
            experiment = self._places.experiment or experiment
        wanted = WantedRun(name=name, experiment=experiment, params=params or {}, tags=tags or {})
        return ActiveRun(
            self._begun[0].for_another(),
            wanted,
            nested=True,
            system_metrics=False,
            patience_s=self._patience_s,
        )

    # its life

    def __enter__(self) -> Self:
        if self._started is not None:
            raise RuntimeError("a run begins once; start another one, or go on with this one by run=ID")
        with ExitStack() as opened:
            place = as_place(opened.enter_context(self._opened))
            outer = _CURRENT.get()
            parent = None if outer is None else outer._as_parent(place, is_wanted=self._nested)
            within = None if outer is None or parent is None else outer._begun[0]
            known: list[RunId] = []
            running = place.start(checked(self._wanted), parent=parent, within=within, tell=known.append)
            try:
                with ExitStack() as begun:
                    begun.enter_context(running)
                    self._remember(place, running.id)
                    self._started = place, running, place.log_of(running.id)
                    begun.pop_all()
                self._token = _CURRENT.set(self)
                self._measure()
            except BaseException as err:  # such as Ctrl-C: nobody else would close it
                self._close_interrupted(place, known, err)
                raise
            self._open = opened.pop_all()
        return self

    def _measure(self) -> None:
        if self._measures:
            try:
                self._system = SystemMetrics(self.log_metrics)
            except RuntimeError as err:
                _LOG.warning("run %s goes on without measures of the machine: %s", self.id, err)

    def _close_interrupted(self, place: RunPlace, known: Sequence[RunId], error: BaseException) -> None:
        """Close a run whose block has not begun, if it is on record and still open."""
        if self._started is not None:
            self.__exit__(type(error), error, error.__traceback__)
        elif known:
            state = RunState.FAILED if isinstance(error, Exception) else RunState.CANCELLED
            place.close_interrupted(known[0], state=state, error=type(error).__name__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place, running, log = self._begun
        if os.getpid() != self._pid:  # a forked child: the run is its parent's
            log.close(is_whole=_is_flushed(log, _CHILD_PATIENCE_S))
            return
        if self._system is not None:
            self._system.stop()
        if self._token is not None:
            with suppress(ValueError):  # begun in another thread or task, which looks whether it has ended
                _CURRENT.reset(self._token)
        log.end()
        patience_s = place.patience_s
        if self._patience_s is not None:
            patience_s = min(self._patience_s, patience_s)
            running.patience_s = min(self._patience_s, running.patience_s)
        with self._open:  # closes the project, whatever happens
            try:
                is_whole = _is_flushed(log, 0.0 if isinstance(error, StoreError) else patience_s)
                told = place.outcome(self.id) if is_whole else None
                running.metrics, running.params = told or (self.metrics, self.params)
            except BaseException as err:  # such as a second Ctrl-C
                running.__exit__(type(err), err, err.__traceback__)
                raise
            else:
                self._close(running, kind, error, trace)
            finally:
                log.close(is_whole=_is_flushed(log, place.last_patience_s))

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
                self._closed_elsewhere = self._begun[0].get_run(running.id)
            raise
        except Conflict as err:  # is no reason to end what was trained
            _LOG.warning("somebody else has closed the run: %s; what was logged to it is kept", err)
            self._closed_elsewhere = self._begun[0].get_run(running.id)

    @property
    def _begun(self) -> tuple[RunPlace, Running, RunLog]:
        if self._started is None:
            raise RuntimeError(_NOT_BEGUN)
        return self._started

    def _as_parent(self, place: RunPlace, *, is_wanted: bool) -> RunId | None:
        """Give this run's id to one that begins within it; None: it has ended, or is kept elsewhere."""
        if not place.is_same(self._begun[0]) or self._begun[2].has_ended:
            return None
        if not is_wanted:
            raise Conflict(
                f"run {self.id} ({self.name}) is at work here; say nested=True for one within it, or begin "
                "the other once its block has ended"
            )
        return self.id

    def _remember(self, place: RunPlace, id: RunId) -> None:
        """Know what the run has already, by which steps go on and parameters are held to be the same."""
        known = place.remembered(id)
        self._params, self._tags = dict(known.params), dict(known.tags)
        for point in known.latest:
            value = point.value
            self._latest[point.name] = (point.step, point.at_us, value != value, value)  # noqa: PLR0124 - NaN


def _is_flushed(log: RunLog, timeout_s: float) -> bool:
    try:
        return log.flush(timeout_s)
    except StoreError as err:
        _LOG.warning("what was logged last may not survive a loss of power: %s", err)
        return False
