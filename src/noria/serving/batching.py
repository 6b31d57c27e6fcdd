"""When a request is answered: with all others of this turn of the event loop, or in a thread.

There is no timer: what is queued is taken. Where more is queued than can be answered soon, a request is
refused at once, before it makes the others wait.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from http import HTTPStatus
from typing import TypeVar

from noria.errors import DeploymentError, NoriaError
from noria.serving.jobs import Job
from noria.serving.models import Target
from noria.serving.predictor import Predictor
from noria.serving.records import Limits
from noria.serving.requests import Prediction, RequestError, too_many_rows

__all__ = ["Batcher", "Done"]

T = TypeVar("T")
Done = Callable[[Job], Callable[[], None]]  # writes what came of a job, and gives what sends it

_LOG = logging.getLogger(__name__)
_INLINE_US = 1_000.0  # what takes longer holds up the others in the event loop
_LEARNS = 0.05  # weight of a new measurement of what a request costs
_LEARNS_SOON = 0.3  # as that of a batch of the thread
_BATCH_ROWS = 4_096  # that a thread takes at once
_BATCH_US = 50_000.0
_SHADOW_JOBS = 1_000  # that may wait


class Batcher:
    """Brings the requests to one deployment to its predictor. Belongs to one event loop.

    Parameters
    ----------
    predictor
        Who answers.
    limits
        What the server is set to.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits
        self._arrived: list[tuple[Job, Done]] = []
        self._queued: deque[tuple[Job, Done]] = deque()
        self._queued_us = 0.0  # what is queued is expected to cost
        self._request_us = 100.0  # what a request answered in the loop costs, learnt
        self._thread: ThreadPoolExecutor | None = None
        self._draining: asyncio.Task[None] | None = None
        self._busy_since: float | None = None
        self._taken_us = 0.0  # what the thread is at is expected to cost
        self._factor = 1.0  # how much longer the thread takes than models took when they were measured
        self._beside_since: float | None = None
        self._beside: set[asyncio.Future[object]] = set()
        self._shadows: list[Job] = []
        self._shadowing: asyncio.Task[None] | None = None
        self._waking: set[asyncio.Task[None]] = set()
        self.wake: Callable[[], Awaitable[None]] | None = None  # loads models that rest; the worker's
        self.before_sending: Callable[[], None] | None = None  # called once answers are written
        self.used_ns = 0  # when the last request arrived
        self.shed = 0
        self.shadows_dropped = 0

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def stuck_s(self) -> float:
        """How long the thread has been at work on what it took."""
        since = [each for each in (self._busy_since, self._beside_since) if each is not None]
        return time.monotonic() - min(since) if since else 0.0

    async def ask(self, job: Job) -> Prediction:
        """Give the answer to a request. Raises what it is refused by: see `submit`."""
        future = asyncio.get_running_loop().create_future()

        def done(_: Job) -> Callable[[], None]:
            return finish

        def finish() -> None:
            if not future.done():
                future.set_result(None)

        self.submit(job, done)
        await future
        if job.error is not None:
            raise job.error
        assert job.prediction is not None  # a job that has its turn is answered or refused
        return job.prediction

    def submit(self, job: Job, done: Done) -> None:
        """Have a request answered.

        Parameters
        ----------
        done
            Called in the loop when the job has its prediction or its error, never before this returns. What
            it gives is called once all that were answered together are written and counted. Among errors
            there is 504: it took too long; and what `Predictor.answer` says.

        Raises
        ------
        RequestError
            At once: 413 too many rows, 503 too much is queued. `done` is not called then.
        """
        rows, limits = job.request.rows, self._limits
        if rows > limits.max_rows:
            raise too_many_rows(rows, limits.max_rows)
        self.used_ns = job.arrived_ns
        if job.loaded.is_resting:
            self._wait_for_models(job, done)
            return
        target = job.target
        cost_us = target.cost_us(rows)
        if self.is_inline(target, cost_us):
            if self._arrived:
                self._refuse_if_late(len(self._arrived) * self._request_us)
            else:
                self._loop.call_soon(self._answer_arrived)
            self._arrived.append((job, done))
        else:
            self._refuse_if_late(self._thread_us())
            self._queue(job, done, cost_us)

    def is_inline(self, target: Target, cost_us: float) -> bool:
        """Whether requests to a target that cost so much are answered in the loop."""
        return cost_us < _INLINE_US and target.is_native and not self._predictor.may_wait(target)

    async def awaken(self) -> None:
        """Load models that rest. Raises `RequestError` (503) where they do not come in time."""
        loaded = self._predictor.loaded
        if loaded is None or not loaded.is_resting:
            return
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                await self._woken()
        except (NoriaError, TimeoutError) as err:
            raise _not_in_memory(err) from err

    async def beside(self, work: Callable[[], T]) -> T:
        """Do other work in the thread that scores, behind what it is at.

        Raises
        ------
        RequestError
            504 if it took too long; and whatever `work` raises.
        """
        self.used_ns = time.perf_counter_ns()

        def timed() -> T:
            self._beside_since = time.monotonic()
            try:
                return work()
            finally:
                self._beside_since = None

        future: asyncio.Future[T] = self._loop.run_in_executor(self._scorer(), timed)
        self._beside.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._beside.discard)
        limit_s = self._limits.request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(future)
        except TimeoutError as err:
            raise RequestError(HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {limit_s:g} s") from err

    def _scorer(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="noria-scorer")
        return self._thread

    async def close(self) -> None:
        """Wait for what is at work, and let go."""
        for each in list(self._waking):
            each.cancel()
        for task in (self._draining, self._shadowing):
            if task is not None:
                await task
        if self._beside:
            await asyncio.wait(self._beside)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _wait_for_models(self, job: Job, done: Done) -> None:
        """Answer a request once the models are in memory again."""

        async def wait() -> None:
            try:
                async with asyncio.timeout(self._limits.request_timeout_s):
                    await self._woken()
                self._aim_anew(job)
                self.submit(job, done)
            except RequestError as err:
                job.error = err
                self._tell([(job, done)])
            except (NoriaError, TimeoutError, asyncio.CancelledError) as err:
                job.error = _not_in_memory(err)
                self._tell([(job, done)])

        task = self._loop.create_task(wait())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    def _aim_anew(self, job: Job) -> None:
        """Let a request ask the route that answers now what it asked the one before."""
        before, now = job.loaded, self._predictor.loaded
        assert now is not None  # models were loaded
        place = next((place for place, each in before.pinned.items() if each is job.target), None)
        name, version = (job.target.name, None) if place is None else (place[0], str(place[1]))
        job.loaded, job.target = now, self._predictor.find_target(name, version)

    async def _woken(self) -> None:
        if self.wake is None:
            raise DeploymentError("nobody loads models that rest")
        await self.wake()

    def refuse_if_behind(self) -> None:
        """Refuse a request that waited too long until this turn of the loop came to it: 503.

        Its bytes were there when the turn began, which the clock of the loop tells; before that they waited
        for the turn before, which was as long at most.
        """
        self._refuse_if_late((time.monotonic() - self._loop.time()) * 1e6)

    def _thread_us(self) -> float:
        """Give how long a request has to wait for the thread; one that is late is expected to stay so."""
        wait_us = self._queued_us * self._factor
        if self._busy_since is not None:
            spent_us = (time.monotonic() - self._busy_since) * 1e6
            wait_us += abs(self._taken_us * self._factor - spent_us)
        return wait_us

    def _refuse_if_late(self, wait_us: float) -> None:
        if wait_us > self._limits.shed_after_s * 1e6:
            self.shed += 1
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too many requests are waiting; this one was not begun: send it again a little later",
                retry_after_s=max(1, round(wait_us / 1e6)),
            )

    def _answer_arrived(self) -> None:
        """Answer what arrived since the last turn of the loop."""
        taken, self._arrived = self._arrived, []
        jobs = [job for job, _ in taken]
        started = time.perf_counter_ns()
        again = self._answer(jobs)
        cost_us = (time.perf_counter_ns() - started) / 1_000 / len(jobs)
        self._request_us += _LEARNS * (cost_us - self._request_us)
        if again:
            late = set(map(id, again))
            self._loop.call_soon(self._answer_arrived)
            self._arrived += [each for each in taken if id(each[0]) in late]
            taken = [each for each in taken if id(each[0]) not in late]
        self._tell(taken)
        self._shadow(jobs)

    def _tell(self, answered: Iterable[tuple[Job, Done]]) -> None:
        """Write the answers of jobs, and send them when all are written, and counted together."""
        sending = [done(job) for job, done in answered]
        for each in sending if self.before_sending is None else (self.before_sending, *sending):
            try:
                each()
            except Exception as err:  # the outermost loop of requests: the others go on  # noqa: BLE001
                self._loop.call_exception_handler({"message": "an answer was not sent", "exception": err})

    def _answer(self, jobs: Sequence[Job]) -> list[Job]:
        """Answer; a fault of the program is told to those whom it concerns, one by one."""
        try:
            return self._predictor.answer(jobs)
        except Exception as err:  # the outermost loop of requests: the others go on  # noqa: BLE001
            if len(jobs) == 1:
                jobs[0].error = err
                return []
        again: list[Job] = []
        for job in jobs:
            if not job.is_done:
                again += self._answer([job])
        return again

    def _queue(self, job: Job, done: Done, cost_us: float) -> None:
        """Leave a request to the thread, and give it up when its time is over."""
        limit_s = self._limits.request_timeout_s

        def give_up() -> None:
            job.is_left = True
            job.error = RequestError(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"no answer within {limit_s:g} s; ask again with the same prediction ids, and an answer that "
                "was found meanwhile is given",
            )
            self._tell([(job, done)])

        timer = self._loop.call_later(limit_s, give_up)

        def answered(job: Job) -> Callable[[], None]:
            timer.cancel()
            return done(job)

        self._queued.append((job, answered))
        self._queued_us += cost_us
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        thread = self._scorer()
        while self._queued:
            taken = self._take()
            if not taken:
                return
            jobs = [job for job, _ in taken]
            self._taken_us = sum(job.target.cost_us(job.request.rows) for job in jobs)
            self._busy_since = started = time.monotonic()
            try:
                again = await self._loop.run_in_executor(thread, self._answer, jobs)
            finally:
                self._busy_since = None
            took_us = (time.monotonic() - started) * 1e6
            slower = min(took_us / max(self._taken_us, 1.0), 2 * self._factor + 1)  # one slow batch is one
            self._factor += _LEARNS_SOON * (slower - self._factor)
            late = set(map(id, again))
            answered: list[tuple[Job, Done]] = []
            for job, done in taken:
                if job.is_left:
                    continue
                if id(job) in late:
                    self._queued.append((job, done))
                    self._queued_us += job.target.cost_us(job.request.rows)
                else:
                    answered.append((job, done))
            self._tell(answered)
            self._shadow(jobs)

    def _take(self) -> list[tuple[Job, Done]]:
        """Take what is queued and still waited for, up to a number of rows or a time: it is told together."""
        taken: list[tuple[Job, Done]] = []
        rows, wanted_us = 0, 0.0
        while self._queued and rows < _BATCH_ROWS and wanted_us * self._factor < _BATCH_US:
            job, done = self._queued.popleft()
            cost_us = job.target.cost_us(job.request.rows)
            self._queued_us -= cost_us
            if not job.is_left:
                taken.append((job, done))
                rows += job.request.rows
                wanted_us += cost_us
        if not self._queued:
            self._queued_us = 0.0  # what rounding left
        return taken

    def _shadow(self, jobs: Sequence[Job]) -> None:
        """Let releases that are tried in the shadow score what was answered, behind the answers."""
        fitting = [job for job in jobs if job.target.shadows and job.frame is not None]
        if not fitting:
            return
        room = _SHADOW_JOBS - len(self._shadows)
        self.shadows_dropped += max(0, len(fitting) - room)
        self._shadows += fitting[:room]
        if self._shadowing is None or self._shadowing.done():
            self._shadowing = asyncio.create_task(self._score_shadows())

    async def _score_shadows(self) -> None:
        while self._shadows:
            taken, self._shadows = self._shadows, []
            await asyncio.to_thread(self._predictor.score_shadows, taken)


def _not_in_memory(error: BaseException) -> RequestError:
    _LOG.warning("a request is refused, as models are not in memory: %s", error or "it took too long")
    return RequestError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the model was not in memory and could not be loaded in time; try again soon",
        retry_after_s=1,
    )
