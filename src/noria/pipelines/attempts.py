"""Attempts at tasks: handed to executors as room allows, ended when they take too long, tried again."""

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter

from noria.errors import ConfigError
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Capacity, Executor, Progressed, Report, Work
from noria.pipelines.keys import Made
from noria.pipelines.progression import Task
from noria.records import RunId

__all__ = ["Attempt", "Attempts", "backoff_s"]

_AHEAD = 50  # how far to look in the queue for something that still fits
_MOST_AT_ONCE = 2_000  # of an executor that queues by itself
_PUT_OFF_TOLD = 50  # to screens: thousands may be tried again
_NAP_S = 0.2  # where nothing is at work
_LONGEST_BACKOFF_S = 3_600.0


@dataclass(slots=True, eq=False)
class Attempt:
    """One try at a task."""

    task: Task
    made: Made
    run: RunId
    number: int = 1
    lost: int = 0  # earlier tries that went down with a machine
    because: str = ""  # how the attempt before failed
    begins_at: datetime | None = None  # of one that is put off
    executor: str = ""
    work: Work | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = math.inf  # monotonic; of one that its executor has queued, once it says that it has begun
    is_open: bool = False  # whether its run is on record already
    is_unsure: bool = False  # whether it may be, for all that recording it has failed
    overdue: bool = False
    done: float | None = None
    total: float | None = None
    note: str = ""

    @property
    def resources(self) -> Resources:
        """What it needs."""
        return self.task.node.step.resources

    @property
    def at_most(self) -> int:
        """How often its task is tried."""
        return self.task.node.step.retries + 1

    @property
    def timeout_s(self) -> float | None:
        """How long it may take."""
        limit = self.task.node.step.timeout
        return None if limit is None else limit.total_seconds()

    def begin(self) -> None:
        """Note that it has begun."""
        if self.began == math.inf:
            self.started_at, self.began = datetime.now(UTC), time.monotonic()


Queued = tuple[Attempt, Callable[[Attempt], Work]]


@dataclass(slots=True, eq=False)
class _Lane:
    """An executor, what waits for it, and what it is at."""

    url: str
    executor: Executor
    capacity: Capacity
    queue: deque[Queued] = field(default_factory=deque)
    at_work: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    memory: float = 0.0

    @property
    def queues_itself(self) -> bool:
        """Whether what is handed to it need not begin at once."""
        return self.capacity.cpus is None and self.capacity.at_once is None

    @property
    def is_full(self) -> bool:
        """Whether there is room for nothing, or for next to nothing."""
        limit = self.capacity.cpus
        if self.at_work >= (self.capacity.at_once or _MOST_AT_ONCE):
            return True
        return limit is not None and self.cpus >= limit - 1e-9

    def has_room(self, needs: Resources) -> bool:
        capacity = self.capacity
        if self.at_work >= (capacity.at_once or _MOST_AT_ONCE):
            return False
        return (
            _fits(self.cpus + needs.cpus, capacity.cpus)
            and _fits(self.gpus + needs.gpus, capacity.gpus)
            and _fits(self.memory + (needs.memory_bytes or 0), capacity.memory_bytes)
        )

    def take(self, needs: Resources, sign: int) -> None:
        self.at_work += sign
        if not self.at_work:  # so that rounding does not add up
            self.cpus = self.gpus = self.memory = 0.0
            return
        self.cpus += sign * needs.cpus
        self.gpus += sign * needs.gpus
        self.memory += sign * (needs.memory_bytes or 0)


class Attempts:
    """What is queued, at work, and put off.

    Parameters
    ----------
    borrow
        Gives the executor of a URL; each is asked for when something first wants it.
    give_back
        Takes it back: URL, executor, and whether it is idle.
    wanted
        By executor: the steps that may want it, and what each needs; all must fit before any begins.
    """

    def __init__(
        self,
        borrow: Callable[[str], Executor],
        give_back: Callable[[str, Executor, bool], None],
        wanted: Mapping[str, Iterable[tuple[str, Resources]]] | None = None,
    ) -> None:
        self._borrow, self._give_back, self._wanted = borrow, give_back, wanted or {}
        self._lanes: dict[str, _Lane] = {}
        self._put_off: list[tuple[float, int, Queued]] = []
        self._count = itertools.count()
        self.at_work: dict[str, Attempt] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is queued, at work or put off."""
        return not (self.at_work or self._put_off or any(each.queue for each in self._lanes.values()))

    def put_off(self, *, at_most: int = _PUT_OFF_TOLD) -> list[Attempt]:
        """Give what is tried again later, the next first."""
        found = heapq.nsmallest(at_most, self._put_off, key=itemgetter(0, 1))
        return [attempt for _, _, (attempt, _) in found]

    def queue(self, attempt: Attempt, work: Callable[[Attempt], Work], *, after_s: float = 0.0) -> None:
        """Queue an attempt; `work` makes what is handed over, when its turn has come.

        Raises
        ------
        ConfigError
            If it, or another step that may come later, could never run: before anything is begun.
        """
        lane = self._lane(attempt.executor)
        if after_s > 0:
            attempt.begins_at = datetime.now(UTC) + timedelta(seconds=after_s)
            heapq.heappush(self._put_off, (time.monotonic() + after_s, next(self._count), (attempt, work)))
        else:
            lane.queue.append((attempt, work))

    def dispatch(self) -> None:
        """Hand over what there is room for. What could not be handed over stays queued."""
        now = time.monotonic()
        while self._put_off and self._put_off[0][0] <= now:
            _, _, queued = heapq.heappop(self._put_off)
            self._lanes[queued[0].executor].queue.appendleft(queued)
        for lane in self._lanes.values():
            self._fill(lane)

    def poll(self, timeout_s: float) -> list[Report]:
        """Give what executors report; wait at most so long for the first."""
        if self._put_off:
            timeout_s = min(timeout_s, max(self._put_off[0][0] - time.monotonic(), 0))
        active = [each for each in self._lanes.values() if each.at_work]
        if not active:
            time.sleep(min(timeout_s, _NAP_S))
            return []
        reports: list[Report] = []
        for lane in active:
            wait = timeout_s if len(active) == 1 else 0.005
            reports.extend(lane.executor.poll(0 if reports else wait))
        return reports

    def glance(self) -> list[Progressed]:
        """Give what steps say of their progress that keep the thread busy which polls."""
        found: list[Progressed] = []
        for lane in self._lanes.values():
            glance = getattr(lane.executor, "glance", None)
            if glance is not None:
                found.extend(glance())
        return found

    def end(self, run: str) -> Attempt | None:
        """Take an attempt that was reported as ended; None if it is none of ours any more."""
        attempt = self.at_work.pop(run, None)
        if attempt is not None:
            attempt.begin()
            self._lanes[attempt.executor].take(attempt.resources, -1)
        return attempt

    def end_overdue(self) -> None:
        """End attempts that have taken longer than they may."""
        now = time.monotonic()
        for attempt in self.at_work.values():
            limit = attempt.timeout_s
            if limit is not None and not attempt.overdue and now - attempt.began > limit:
                attempt.overdue = True
                executor = self._lanes[attempt.executor].executor
                executor.cancel(attempt.run, f"it did not end within {limit:g} s")

    def cancel_waiting(self) -> list[Attempt]:
        """Begin nothing more; give what was not begun."""
        queued = [each for lane in self._lanes.values() for each in lane.queue]
        waiting = [each for each, _ in queued] + [each for _, _, (each, _) in self._put_off]
        for lane in self._lanes.values():
            lane.queue.clear()
        self._put_off.clear()
        return waiting

    def cancel_at_work(self, reason: str) -> None:
        """End everything at work; it is then reported as lost."""
        for attempt in list(self.at_work.values()):
            self._lanes[attempt.executor].executor.cancel(attempt.run, reason)

    def interrupt(self, reason: str) -> None:
        """End steps that keep the thread busy which polls; another one may call."""
        for attempt in list(self.at_work.values()):
            executor = self._lanes[attempt.executor].executor
            if hasattr(executor, "glance"):
                executor.cancel(attempt.run, reason)

    def close(self) -> None:
        """Give all executors back."""
        while self._lanes:
            url, lane = self._lanes.popitem()
            self._give_back(url, lane.executor, not lane.at_work)

    @property
    def next_deadline(self) -> float | None:
        """The instant (monotonic) at which the next attempt is overdue."""
        ends = [
            each.began + each.timeout_s
            for each in self.at_work.values()
            if each.timeout_s is not None and not each.overdue
        ]
        return min(ends, default=None)

    def _lane(self, url: str) -> _Lane:
        lane = self._lanes.get(url)
        if lane is None:
            executor = self._borrow(url)
            lane = self._lanes[url] = _Lane(url, executor, executor.capacity())
            for step, needs in self._wanted.get(url, ()):
                _check(step, needs, lane)
        return lane

    def _fill(self, lane: _Lane) -> None:
        passed: list[Queued] = []
        try:
            while lane.queue and len(passed) < _AHEAD:
                attempt, work = lane.queue[0]
                if lane.has_room(attempt.resources):
                    self._begin(lane, attempt, work)
                    lane.queue.popleft()
                else:
                    if lane.is_full:
                        break
                    passed.append(lane.queue.popleft())
        finally:
            lane.queue.extendleft(reversed(passed))

    def _begin(self, lane: _Lane, attempt: Attempt, work: Callable[[Attempt], Work]) -> None:
        attempt.work = work(attempt)
        if not lane.queues_itself:
            attempt.begin()
        lane.executor.submit(attempt.work, attempt.resources)
        lane.take(attempt.resources, 1)
        self.at_work[attempt.run] = attempt


def backoff_s(first_s: float, attempts: int) -> float:
    """Give how long to wait before the next attempt: each time twice as long.

    Examples
    --------
    >>> [backoff_s(1.0, attempts) for attempts in (1, 2, 3)]
    [1.0, 2.0, 4.0]
    """
    return min(first_s * 2.0 ** min(attempts - 1, 60), max(first_s, _LONGEST_BACKOFF_S))


def _fits(used: float, limit: float | None) -> bool:
    return limit is None or used <= limit + 1e-9


def _check(step: str, needs: Resources, lane: _Lane) -> None:
    capacity = lane.capacity
    wanted = (needs.cpus, needs.gpus, needs.memory_bytes or 0)
    limits = (capacity.cpus, capacity.gpus, capacity.memory_bytes)
    for want, limit, what in zip(wanted, limits, ("CPUs", "GPUs", "bytes of memory"), strict=True):
        if limit is not None and want > limit + 1e-9:
            raise ConfigError(
                f"step {step} wants {want:g} {what}, executor {lane.url!r} has {limit:g}; lower it, or run "
                "the step on another executor"
            )
