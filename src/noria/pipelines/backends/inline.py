"""Steps in this very process, one after the other: breakpoints work."""

import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from noria.pipelines.backends.inline_output import Output
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Capacity, Lost, Place, Progressed, Report, Work
from noria.pipelines.scratch import own_folder, remove_folder
from noria.pipelines.work import Bench

__all__ = ["InlineExecutor", "open_inline"]

_AGAIN_S = 0.5  # a step that catches its timeout meets it again


class InlineExecutor:
    """Runs one attempt each time it is polled.

    In the main thread a timeout ends what runs Python code, and so does `cancel`, called by another thread;
    what is inside of C code ends when it comes back from there. Memory is not limited. What a step prints is
    shown and kept; at a terminal, which a debugger may want to itself, only what Python prints is kept.
    """

    name = "inline"

    def __init__(self, place: Place) -> None:
        self._folder = own_folder(Path(place.scratch))
        self._reports: deque[Report] = deque()
        here = msgspec.structs.replace(place, scratch=str(self._folder))
        self._bench = Bench(here, tell=self._reports.append)
        self._output = Output()
        self._queue: deque[Work] = deque()
        self._at_work: Work | None = None
        self._reason: str | None = None  # why the attempt at work is to end

    def capacity(self) -> Capacity:
        """One thing at a time; how much it takes is not held against anything."""
        return Capacity(None, None, None, at_once=1)

    def submit(self, work: Work, resources: Resources) -> None:
        """Queue an attempt."""
        del resources
        self._queue.append(work)

    def poll(self, timeout_s: float) -> list[Report]:
        """Run the next attempt."""
        del timeout_s
        if self._queue:
            self._at_work, self._reason = self._queue.popleft(), None
            try:
                self._reports.append(self._performed(self._at_work))
            finally:
                self._at_work = None
        return self._drained()

    def glance(self) -> list[Progressed]:
        """Give what the step at work said of its progress; another thread may ask."""
        self._output.catch_up()
        found: list[Progressed] = []
        while self._reports and isinstance(self._reports[0], Progressed):
            found.append(self._reports.popleft())  # type: ignore[arg-type]
        return found

    def cancel(self, run: str, reason: str) -> None:
        """Take an attempt out of the queue, or end it; another thread may ask for that."""
        for each in [each for each in self._queue if each.run == run]:
            self._queue.remove(each)
            self._reports.append(Lost(run=run, reason=reason))
        if self._at_work is not None and self._at_work.run == run:
            self._reason = reason
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, _CANCEL)

    def close(self) -> None:
        """Close what was opened for steps."""
        self._bench.close()
        self._output.close()
        remove_folder(self._folder)

    def _performed(self, work: Work) -> Report:
        try:
            with self._output.kept(work.log), self._interrupted(work):
                done = self._bench.perform(work)
        except _Overdue as late:  # it came when the step had just ended
            return Lost(run=work.run, reason=str(late))
        if self._reason is not None and done.failure is not None:
            return Lost(run=work.run, reason=self._reason)
        if done.failure is not None and done.failure.kind == _Overdue.__name__:
            late_failure = msgspec.structs.replace(done.failure, kind="TimeoutError")
            return msgspec.structs.replace(done, failure=late_failure)
        return done

    @contextmanager
    def _interrupted(self, work: Work) -> Iterator[None]:
        """Raise an error in the block when its time is over, or it is cancelled: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ring(number: int, _frame: FrameType | None) -> None:
            if number == _CANCEL:
                if self._reason is not None:
                    raise _Overdue(self._reason)
            else:
                raise _Overdue(f"{work.task} did not end within {work.timeout_s:g} s")

        before = signal.signal(_CANCEL, ring)
        try:
            if work.timeout_s is None:
                yield
                return
            alarm = signal.signal(signal.SIGALRM, ring)
            try:
                signal.setitimer(signal.ITIMER_REAL, max(work.timeout_s, 1e-6), _AGAIN_S)
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarm)
        finally:
            signal.signal(_CANCEL, before)

    def _drained(self) -> list[Report]:
        reports = list(self._reports)
        self._reports.clear()
        return reports


_CANCEL = signal.SIGURG  # ignored where nobody waits for it, so that one that comes late does no harm


class _Overdue(BaseException):
    """A step's time is over. No `Exception`, so that one which catches those does not go on."""


def open_inline(url: str, place: Place, *, workers: int = 0) -> InlineExecutor:
    """Open it."""
    del url, workers
    return InlineExecutor(place)
