"""One worker process of a server, as its supervisor sees it: launched, asked, started again when it ends.

It lives no longer than this process: its control channel ends with it.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from noria.errors import DeploymentError
from noria.serving.asking_files import asked_at_the_end, asking_name
from noria.serving.counts import RouteCounts
from noria.serving.process.control import ChannelClosedError, ControlChannel
from noria.serving.records import WorkerStatus

__all__ = ["WorkerProcess"]

_LOG = logging.getLogger(__name__)
_LOG_BYTES = 4 * 2**20
_TAIL_BYTES = 2_000
_POLL_S = 0.01
_RESTART_WINDOW_S = 60.0
_BACK_OFF_S = (0.0, 0.1, 0.3, 1.0, 3.0)
_GONE_S = 10.0  # for a process whose channel has ended to end itself

_COUNTS: type[RouteCounts | None] = RouteCounts | None  # type: ignore[assignment]

T = TypeVar("T")


class WorkerProcess:
    """A worker's place: its number, its socket, and the process that has it now. One event loop uses it.

    Parameters
    ----------
    folder
        The server's.
    number
        Of the worker.
    listener
        What it takes connections from.
    shared_metrics
        Where the workers count together; None where there is one.
    deployments
        Gives the names of those to be served at that moment.
    ready_s, restarts
        As of `Supervisor`.
    changed
        Called after it got ready, ended, or was given up.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        listener: socket.socket,
        *,
        shared_metrics: Path | None,
        deployments: Callable[[], Sequence[str]],
        ready_s: float,
        restarts: int,
        changed: Callable[[], None],
    ) -> None:
        self.number, self._folder, self._listener = number, folder, listener
        self._shared_metrics, self._deployments = shared_metrics, deployments
        self._ready_s, self._restarts, self._changed = ready_s, restarts, changed
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: ControlChannel | None = None
        self._task: asyncio.Task[None] | None = None
        self._turned = asyncio.Condition()
        self._ends: list[float] = []  # when it ended by itself, lately
        self._wanted = asyncio.Event()
        self._is_leaving = False  # it was asked to end, and one that follows is wanted
        self._end_error: DeploymentError | None = None
        self._told: dict[str, RouteCounts] = {}  # by deployment: what the process that lives has counted
        self._ended_counts: dict[str, RouteCounts] = {}  # and what those did that ended by themselves
        self.failure: DeploymentError | None = None  # why it was given up
        self.status: WorkerStatus | None = None  # as last told; None while none answers

    @property
    def pid(self) -> int | None:
        """Process id, None where none lives."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def log(self) -> Path:
        """What the process writes."""
        return self._folder / ("worker.log" if self.number == 0 else f"worker-{self.number}.log")

    def log_tail(self) -> str:
        """Give the end of that."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def want(self) -> None:
        """Have a process, and another one when that ends."""
        self._wanted.set()
        self.failure = self._end_error = None
        self._ends.clear()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep())

    async def ready(self, *, first: bool = False) -> WorkerStatus:
        """Give its status once it answers.

        Parameters
        ----------
        first
            Do not wait for a second process where the first one ends.

        Raises
        ------
        DeploymentError
            If it was given up, or does not answer in time.
        """
        try:
            async with asyncio.timeout(self._ready_s), self._turned:
                while self.status is None:
                    if error := self.failure or (self._end_error if first else None):
                        raise error
                    if not self._wanted.is_set():
                        raise DeploymentError(f"worker {self.number} of {self._folder} was stopped")
                    await self._turned.wait()
                return self.status
        except TimeoutError:
            raise self._late() from None

    async def call(self, verb: str, *arguments: str, kind: type[T], timeout_s: float | None = None) -> T:
        """Ask the process that lives. Raises `ChannelClosedError` if none does, or it ends meanwhile."""
        channel = self._channel
        if channel is None:
            raise ChannelClosedError(f"worker {self.number} of {self._folder} does not run")
        return await channel.call(verb, *arguments, kind=kind, timeout_s=timeout_s)

    async def insist(self, verb: str, *arguments: str, kind: type[T]) -> T:
        """Ask the process; where it ends, its successor. Raises `DeploymentError` as `ready`."""
        deadline = time.monotonic() + self._ready_s
        while True:
            await self.ready()
            try:
                return await self.call(verb, *arguments, kind=kind, timeout_s=self._ready_s)
            except ChannelClosedError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL_S)

    async def counts(self, deployment: str) -> tuple[RouteCounts | None, RouteCounts | None]:
        """Give what its process has counted of a deployment, and what those had that ended by themselves."""
        try:
            found = await self.call("counts", deployment, kind=_COUNTS, timeout_s=self._ready_s)
        except ChannelClosedError:
            found = None
        else:
            if found is not None:
                self._told[deployment] = found
        return found or self._told.get(deployment), self._ended_counts.get(deployment)

    def forget_counts(self, deployment: str, *, but: int) -> None:
        """Forget what ended processes counted of other routes than one: it may come to answer again."""
        for kept in (self._told, self._ended_counts):
            if (found := kept.get(deployment)) is not None and found.route != but:
                del kept[deployment]

    async def look(self, *, within_s: float) -> None:
        """Ask for its status; end a process that does not tell it in time."""
        process = self._process
        try:
            status = await self.call("status", kind=WorkerStatus, timeout_s=within_s)
            if self.status is not None:
                self.status = status
        except ChannelClosedError:
            if process is not None and process is self._process and self.status is not None:
                channel = self._channel
                if channel is not None and not channel.closed.is_set():
                    _LOG.warning("worker %d does not answer for %.0f s; ended", self.number, within_s)
                    process.kill()

    async def renew(self, *, within_s: float) -> None:
        """Have the process end, once what is in flight is answered, and one that follows answer."""
        self._is_leaving = True
        await self._end(within_s=within_s)
        await self._until_gone()
        await self.ready()

    async def stop(self, *, within_s: float) -> None:
        """Have no process any more; what is in flight is answered, for so long."""
        self._wanted.clear()
        await self._end(within_s=within_s)
        if self._task is not None:
            await self._task
        await self._turn()

    async def _end(self, *, within_s: float) -> None:
        process = self._process
        if process is None:
            return
        if self._channel is not None:
            self._channel.say("stop")
        try:
            async with asyncio.timeout(within_s):
                while process.poll() is None:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            process.kill()

    async def _until_gone(self) -> None:
        async with self._turned:
            while self.status is not None:
                await self._turned.wait()

    async def _turn(self, status: WorkerStatus | None = None) -> None:
        async with self._turned:
            self.status = status
            self._turned.notify_all()
        self._changed()

    async def _keep(self) -> None:
        """Have a process as long as one is wanted; give up on one that keeps ending."""
        while self._wanted.is_set():
            failed: DeploymentError | None = None
            try:
                await self._launch()
            except DeploymentError as err:
                failed = err
            else:
                assert self._channel is not None
                await self._channel.closed.wait()
            code = await self._reap(at_once=failed is not None)
            if not self._wanted.is_set():
                break
            if self._is_leaving:
                self._is_leaving = False
                self._bank()
                await self._turn()
                continue
            self._bank()
            self._count_crashes()
            self._end_error = failed or self._ended(code)
            now = time.monotonic()
            self._ends = [each for each in self._ends if now - each < _RESTART_WINDOW_S] + [now]
            if len(self._ends) > self._restarts:
                self.failure = self._end_error
                self._wanted.clear()
                _LOG.error("worker %d of %s keeps ending and is given up", self.number, self._folder)
                await self._turn()
                return
            _LOG.warning("worker %d of %s ended with code %s", self.number, self._folder, code)
            await self._turn()
            await asyncio.sleep(_BACK_OFF_S[min(len(self._ends), len(_BACK_OFF_S)) - 1])
        await self._turn()

    def _bank(self) -> None:
        """Keep what the ended process was known to have counted."""
        for name, told in self._told.items():
            before = self._ended_counts.get(name)
            self._ended_counts[name] = RouteCounts.merged(told.route, [told, *([before] if before else [])])
        self._told = {}

    def _count_crashes(self) -> None:
        """Count whom the process asked when it ended."""
        for name, route, release in self._asked_at_the_end():
            counts = self._ended_counts.get(name)
            if counts is None or counts.route != route:
                counts = self._ended_counts[name] = RouteCounts(route=route)
            counts.of(release).count_crash()
            _LOG.warning("worker %d ended while %s scored a request to %s", self.number, release, name)

    def _asked_at_the_end(self) -> list[tuple[str, int, str]]:
        """Give deployment, route and release of whom its last process asked when it ended, once."""
        return [
            (name, *each)
            for name in self._deployments()
            for each in asked_at_the_end(self._folder / name / asking_name(self.number))
        ]

    def _ended(self, code: int | None) -> DeploymentError:
        return DeploymentError(f"the worker ended with code {code}; its log says:\n{self.log_tail()}")

    def _late(self) -> DeploymentError:
        return DeploymentError(
            f"the worker did not answer within {self._ready_s:.0f} s; its log ends with:\n{self.log_tail()}"
        )

    async def _launch(self) -> None:
        """Start a process and wait until it answers."""
        self._asked_at_the_end()  # of one that was stopped: that is nobody's fault
        self._is_leaving = False
        mine, its = socket.socketpair()
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        arguments = [str(self._folder), str(self.number), str(self._listener.fileno()), str(its.fileno())]
        if self._shared_metrics is not None:
            arguments.append(str(self._shared_metrics))
        with its, self.log.open("ab") as output:
            self._process = subprocess.Popen(
                # Without `-P` modules of the folder that this runs in would stand before installed ones.
                [sys.executable, "-P", "-m", "noria.serving", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(self._listener.fileno(), its.fileno()),
                start_new_session=True,  # Ctrl-C goes to this process, which stops the worker
            )
        self._channel = channel = await ControlChannel.over(mine)
        try:
            status = await channel.call(
                "begin", *self._deployments(), kind=WorkerStatus, timeout_s=self._ready_s
            )
        except ChannelClosedError as err:
            if channel.closed.is_set():
                code = await self._reap(at_once=False)
                raise self._ended(code) from err
            raise self._late() from err
        await self._turn(status)

    async def _reap(self, *, at_once: bool) -> int | None:
        """Wait until the process is gone, and let go of its channel; give its exit code."""
        process, channel = self._process, self._channel
        if process is None:
            return None
        if at_once:
            process.kill()
        deadline = time.monotonic() + _GONE_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
            await asyncio.sleep(_POLL_S)
        if channel is not None:
            await channel.close()
        self._channel = None
        return process.returncode
