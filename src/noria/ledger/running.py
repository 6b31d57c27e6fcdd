"""A run around a block of code."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from noria.errors import Conflict, DiskFull, NotFound, RunCancelled, StoreError
from noria.records import Cost, Run, RunId, RunState, Version, VersionId

__all__ = ["Running"]

_BEAT_EVERY_S = 10.0
_PATIENCE_S = 300.0  # with a database that is away when the run is closed


class RunBook(Protocol):
    """What a running run needs of the ledger."""

    def heartbeat(self, run_id: str) -> None:
        """Say that the run is alive."""
        ...

    def finish_run(
        self,
        run_id: str,
        *,
        state: RunState,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        error: str | None = None,
        cost: Cost | None = None,
    ) -> Run:
        """Close the run."""
        ...

    def add_input(self, run_id: str, version_id: str) -> None:
        """Record an input."""
        ...

    def record_version(
        self,
        kind: str,
        name: str,
        *,
        sha256: str,
        uri: str,
        run: str | None = None,
        facts: Mapping[str, Any] | None = None,
        cause: str | None = None,
        at: datetime | None = None,
    ) -> Version:
        """Record an output."""
        ...


class Running:
    """A run at work: begins with `with`, beats in the background, and is closed with what it cost.

    It ends as FINISHED, as CANCELLED by Ctrl-C, `SystemExit` or `RunCancelled`, as FAILED by any other error,
    which goes on. If the key given names a run that is finished already, that run is given: ask `is_done` and
    skip the work.

    Attributes
    ----------
    run : Run
        As it was started; after the block, as it was closed.
    metrics : dict of str to float
        Fill it: the closing event covers it.
    params : dict of str to Any
        Parameters that become known at work; they are added to those given.
    cost_before : Cost or None
        What the run cost before it was resumed; what it costs now is added to that.
    patience_s : float
        How long closing it tries while the database is away.
    """

    def __init__(self, book: RunBook, start: Callable[[], Run]) -> None:
        self.metrics: dict[str, float] = {}
        self.params: dict[str, Any] = {}
        self.cost_before: Cost | None = None
        self.patience_s = _PATIENCE_S
        self._book, self._start = book, start
        self._run: Run | None = None
        self._ended = threading.Event()

    @property
    def run(self) -> Run:
        """The run. Raises `RuntimeError` before the block has begun."""
        if self._run is None:
            raise RuntimeError("the run has not begun; use it in a `with` block")
        return self._run

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self.run.id

    @property
    def is_done(self) -> bool:
        """Whether an earlier process has finished this very run, so that nothing is left to do."""
        return self.run.state is RunState.FINISHED

    def add_input(self, version: Version | VersionId) -> None:
        """Record that the run reads a version."""
        self._book.add_input(self.id, version.id if isinstance(version, Version) else version)

    def record_version(
        self,
        kind: str,
        name: str,
        *,
        sha256: str,
        uri: str,
        facts: Mapping[str, Any] | None = None,
        cause: str | None = None,
        at: datetime | None = None,
    ) -> Version:
        """Record a version that the run makes; see `Ledger.record_version`."""
        return self._book.record_version(
            kind, name, sha256=sha256, uri=uri, run=self.id, facts=facts, cause=cause, at=at
        )

    def __enter__(self) -> Self:
        self._run = self._start()
        if not self.is_done:
            self._began, self._cpu_before = time.perf_counter(), _cpu_s()
            try:
                threading.Thread(target=self._beat, name=f"heartbeat {self.id}", daemon=True).start()
            except RuntimeError as err:  # as many as there may be; nobody else would close the run
                self.__exit__(type(err), err, err.__traceback__)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self.is_done:
            return
        before = self.cost_before or Cost(cpu_s=0.0, wall_s=0.0)
        cost = Cost(
            cpu_s=before.cpu_s + _cpu_s() - self._cpu_before,
            wall_s=before.wall_s + time.perf_counter() - self._began,
        )
        text = None if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
        patience_s = 0.0 if isinstance(error, StoreError) else self.patience_s
        ends, pause = time.monotonic() + patience_s, 0.2
        while True:
            try:
                self._run = self._book.finish_run(
                    self.id,
                    state=_state_after(error),
                    metrics=self.metrics,
                    params=self.params,
                    error=text,
                    cost=cost,
                )
                return
            except DiskFull:
                raise
            except StoreError:  # left open, it could not be started again by this process
                if time.monotonic() > ends:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 5.0)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_EVERY_S):
            try:
                self._book.heartbeat(self.id)
            except StoreError:
                continue  # a missed beat is no harm; the work itself will meet the same trouble and say so
            except (Conflict, NotFound):
                return  # closed by somebody else; closing it here will say so


def _state_after(error: BaseException | None) -> RunState:
    match error:
        case None:
            return RunState.FINISHED
        case KeyboardInterrupt() | SystemExit() | RunCancelled():
            return RunState.CANCELLED
        case _:
            return RunState.FAILED


def _cpu_s() -> float:
    """Give the CPU seconds of this process and of the children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
