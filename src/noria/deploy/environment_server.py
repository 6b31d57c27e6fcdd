"""The server of an environment: its sockets, its workers, and the routes of its deployments, on one loop.

`noria.deploy.supervisor.Supervisor` is how other threads speak to it.
"""

import asyncio
import logging
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from noria.deploy.idle_logs import rotate_idle, rotate_idle_outcomes
from noria.deploy.workers import WorkerProcess
from noria.errors import ConfigError, DeploymentError, LeaseHeld, NoriaError
from noria.serving.counts import RouteCounts
from noria.serving.http.keys import KeyFile
from noria.serving.http.listening import is_loopback, listen
from noria.serving.process.control import ChannelClosedError, Closed
from noria.serving.records import (
    ROUTE_FILE,
    SERVER_FILE,
    STATUS_FILE,
    DeploymentState,
    Route,
    ServerStatus,
    WorkerConfig,
    WorkerStatus,
    read_record,
    write_record,
)
from noria.streams.spool import take_lock

__all__ = ["EnvironmentServer"]

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.25
_NOTICED_S = 0.5  # a wait that is longer is told
_ASK_EVERY = 4  # looks: for the status of workers
_METRICS = "metrics"
_NO_ROUTE = 0
_CLOSED: type[Closed | None] = Closed | None  # type: ignore[assignment]


class EnvironmentServer:
    """Everything of a server that runs. One event loop uses it.

    Parameters
    ----------
    folder, config
        As of `Supervisor`; the port is that which is wanted.
    ready_s, restarts
        As of `Supervisor`.
    """

    def __init__(self, folder: Path, config: WorkerConfig, *, ready_s: float, restarts: int) -> None:
        self._folder, self._config = folder, config
        self._ready_s, self._restarts = ready_s, restarts
        self._names: list[str] = []  # of the deployments that are served
        self._seen: dict[str, tuple[int, int] | None] = {}  # route files as last written or read
        self._changing = asyncio.Lock()
        self._listeners: list[socket.socket] = []
        self._workers: list[WorkerProcess] = []
        self._lock: int | None = None
        self._watch: asyncio.Task[None] | None = None
        self._asleep: asyncio.Event | None = None  # set when somebody connects
        self.port = config.port

    @property
    def is_asleep(self) -> bool:
        """Whether no worker runs as nobody asked for anything."""
        return self._asleep is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The deployments that are served."""
        return tuple(self._names)

    @property
    def workers(self) -> tuple[WorkerProcess, ...]:
        """Its workers."""
        return tuple(self._workers)

    @property
    def failure(self) -> DeploymentError | None:
        """Why no worker is left, if none is."""
        failures = [each.failure for each in self._workers]
        return failures[0] if failures and all(failures) else None

    def status(self) -> ServerStatus:
        """Tell of all workers together, as they told last."""
        found = [each.status for each in self._workers if each.status is not None]
        return ServerStatus(
            environment=self._config.environment,
            host=self._config.host,
            port=self.port,
            is_secure=bool(self._config.tls_certificate),
            is_asleep=self.is_asleep,
            workers=tuple(found),
            given_up={each.number: str(each.failure) for each in self._workers if each.failure},
            deployments=_together([each.deployments for each in found]),
        )

    async def ask(self) -> ServerStatus:
        """Ask all workers, those that are being started when they are, and tell."""
        if self.is_asleep:
            return self.status()

        async def ask(worker: WorkerProcess) -> None:
            worker.status = await worker.insist("status", kind=WorkerStatus)

        try:
            await self._of_all(ask)
        except DeploymentError:
            if not self.is_asleep:  # else they went to sleep meanwhile
                raise
        return self.status()

    async def start(self, routes: Iterable[Route]) -> None:
        """Listen, and start the workers. Raises as `Supervisor.start`."""
        wanted = list(routes)
        _refuse_strangers(self._config)
        if self._config.keys:
            KeyFile(self._folder / self._config.keys).read()  # told here, where it cannot be
        async with self._changing:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = await asyncio.to_thread(self._take_lock)
            self._listeners = listen(self._config.host, self.port, workers=self._count())
            self.port = self._listeners[0].getsockname()[1]
            config = msgspec.structs.replace(self._config, port=self.port)
            write_record(self._folder / SERVER_FILE, config)
            for route in wanted:
                self._put(route)
            self._names = [route.deployment for route in wanted]
            self._workers = self._make_workers()
            for each in self._workers:
                each.want()
            for each in self._workers:
                await each.ready(first=True)
            states = self.status().deployments
            refused = {name: state for name, state in states.items() if state.error}
            if wanted and len(refused) == len({route.deployment for route in wanted}):
                raise self._refusal(*next(iter(refused.items())))
            self._watch = asyncio.create_task(self._look_after())
        self._publish()

    async def swap(self, route: Route) -> None:
        """Answer by a route in all workers, or in none. Raises as `Supervisor.swap`."""
        await self._awake()
        async with self._changing:
            name, path = route.deployment, self._folder / route.deployment / ROUTE_FILE
            is_new = name not in self._names
            before = None if is_new else read_record(path, Route)
            self._put(route)
            if is_new:
                self._names.append(name)
            try:
                states = await self._reload(name)
            except DeploymentError:
                await self._take_back(name, before, told=False)
                raise
            refused = next((state for state in states if state.error or state.route != route.number), None)
            if refused is not None:
                await self._take_back(name, before, told=True)
                self._publish()
                if before is None:
                    raise self._refusal(name, refused)
                going = max(state.route for state in states if state.error) if states else 0
                raise DeploymentError(
                    f"route {route.number} of {name!r} is refused, "
                    f"route {going or before.number} goes on: {refused.error}"
                )
        self._publish()

    async def drop(self, deployment: str) -> None:
        """Serve a deployment no longer; its log stays."""
        async with self._changing:
            if deployment in self._names:
                self._names.remove(deployment)
            self._seen.pop(deployment, None)
            (self._folder / deployment / ROUTE_FILE).unlink(missing_ok=True)
            await self._tell_all("drop", deployment)
            for each in self._workers:
                each.forget_counts(deployment, but=_NO_ROUTE)
        self._publish()

    async def rotate(self, deployment: str) -> list[tuple[Path, int]]:
        """Close the logs of a deployment in all workers, and those that none has any more."""
        return await self._rotate("rotate", deployment, rotate_idle)

    async def rotate_outcomes(self, deployment: str) -> list[tuple[Path, int]]:
        """Close the outcomes of a deployment so far, as `rotate` does its logs."""
        return await self._rotate("rotate_outcomes", deployment, rotate_idle_outcomes)

    async def _rotate(
        self, verb: str, deployment: str, rotate_left: Callable[..., list[tuple[Path, int]]]
    ) -> list[tuple[Path, int]]:
        folder = self._folder / deployment
        closed: dict[str, int] = {}

        async def rotate(worker: WorkerProcess) -> None:
            found = await worker.insist(verb, deployment, kind=_CLOSED)
            if found is not None:
                closed[found.spool] = found.segment

        async with self._changing:
            if deployment in self._names and not self.is_asleep:
                await self._of_all(rotate)
            left = await asyncio.to_thread(
                rotate_left, folder, lock_wait_s=self._config.lock_wait_s, without=closed
            )
        return [*((folder / name, segment) for name, segment in sorted(closed.items())), *left]

    async def counts(self, deployment: str) -> RouteCounts:
        """Add up what the workers counted of the route that answers, those that ended by themselves too."""
        found = await asyncio.gather(*(each.counts(deployment) for each in self._workers))
        counted = [each for each, _ in found if each is not None]
        ended = [each for _, each in found if each is not None]
        route = max((each.route for each in counted or ended), default=0)
        return RouteCounts.merged(route, [*counted, *ended])

    async def restart(self) -> None:
        """Start one worker after another anew: no request is lost."""
        await self._awake()
        async with self._changing:
            for each in self._workers:
                if each.failure is None:
                    await each.renew(within_s=self._drain_s)
        self._publish()

    async def stop(self, *, within_s: float | None = None) -> None:
        """End all workers and listen no longer."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        self._sleep_no_more()
        if self._workers:
            span_s = self._drain_s if within_s is None else within_s
            await asyncio.gather(*(each.stop(within_s=span_s) for each in self._workers))
            self._publish()
        for listener in self._listeners:
            listener.close()
        self._listeners, self._workers, self._names = [], [], []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int:
        """Be the only server of the environment's folder; one that is just ending is waited for."""
        what, wait_s = f"environment {self._config.environment!r} in {self._folder}", self._config.lock_wait_s
        try:
            return take_lock(self._folder, min(wait_s, _NOTICED_S))
        except LeaseHeld as err:
            if wait_s <= _NOTICED_S:
                raise LeaseHeld(what, err.holder) from None
            _LOG.warning("%s is served by %s; waiting %g s for it to end", what, err.holder, wait_s)
        try:
            return take_lock(self._folder, wait_s - _NOTICED_S)
        except LeaseHeld as err:
            raise LeaseHeld(what, err.holder) from None

    @property
    def _drain_s(self) -> float:
        return self._config.limits.drain_s + 3.0

    def _count(self) -> int:
        return self._config.workers or _cores()

    def _make_workers(self) -> list[WorkerProcess]:
        shared = None
        if len(self._listeners) > 1:
            shared = self._folder / _METRICS
            shutil.rmtree(shared, ignore_errors=True)  # of a server before: these counters begin anew
            shared.mkdir()
        return [
            WorkerProcess(
                self._folder,
                number,
                listener,
                shared_metrics=shared,
                deployments=lambda: self._names,
                ready_s=self._ready_s,
                restarts=self._restarts,
                changed=self._on_change,
            )
            for number, listener in enumerate(self._listeners)
        ]

    def _on_change(self) -> None:
        if len(set(self._listeners)) > 1:
            for each, listener in zip(self._workers, self._listeners, strict=True):
                if each.failure is not None:
                    listener.close()  # else its part of the connections would wait for ever
        self._publish()

    def _publish(self) -> None:
        if self._folder.is_dir():
            write_record(self._folder / STATUS_FILE, self.status())

    def _put(self, route: Route) -> None:
        folder = self._folder / route.deployment
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / ROUTE_FILE, route)
        self._seen[route.deployment] = _identity(folder / ROUTE_FILE)

    async def _take_back(self, name: str, before: Route | None, *, told: bool) -> None:
        if before is not None:
            self._put(before)
            if told:
                await self._reload(name)
            return
        self._names.remove(name)
        self._seen.pop(name, None)
        (self._folder / name / ROUTE_FILE).unlink(missing_ok=True)
        await self._tell_all("drop", name)

    async def _reload(self, name: str) -> list[DeploymentState]:
        states: list[DeploymentState] = []

        async def reload(worker: WorkerProcess) -> None:
            state = await worker.insist("reload", name, kind=DeploymentState)
            states.append(state)
            worker.forget_counts(name, but=state.route)
            if (known := worker.status) is not None:
                worker.status = msgspec.structs.replace(known, deployments=known.deployments | {name: state})

        half = max(1, len(self._workers) // 2)  # loading slows a worker down: the others answer meanwhile
        for start in range(0, len(self._workers), half):
            await self._of(self._workers[start : start + half], reload)
        return states

    async def _tell_all(self, verb: str, name: str) -> None:
        async def tell(worker: WorkerProcess) -> None:
            try:
                await worker.call(verb, name, kind=type(None), timeout_s=self._ready_s)
            except ChannelClosedError:
                return  # its successor is not told of this deployment

        await asyncio.gather(*(tell(each) for each in self._workers))

    async def _of_all(self, ask: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        await self._of(self._workers, ask)

    async def _of(
        self, workers: Iterable[WorkerProcess], ask: Callable[[WorkerProcess], Awaitable[None]]
    ) -> None:
        """Ask those of the workers that were not given up. Raises if none is left, or one cannot answer."""
        failure = self.failure
        if failure is not None:
            raise failure
        there = [each for each in workers if each.failure is None]
        answers = await asyncio.gather(*(ask(each) for each in there), return_exceptions=True)
        for worker, found in zip(there, answers, strict=True):
            is_left_behind = worker.failure is not None and self.failure is None  # others answer
            if isinstance(found, BaseException) and not is_left_behind:
                raise found

    def _refusal(self, name: str, state: DeploymentState) -> NoriaError:
        if state.held_by is not None:
            return LeaseHeld(f"deployment {name!r} in {self._folder / name}", state.held_by)
        return DeploymentError(f"{name!r} cannot be served: {state.error}")

    async def _look_after(self) -> None:
        """Look after route files that others write, workers that hang, and whether anybody asks."""
        looks = 0
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._asleep is not None:
                await self._asleep.wait()
                await self._wake()
                continue
            for name in list(self._names):
                await self._notice(name)
            looks += 1
            if looks % _ASK_EVERY == 0:
                within_s = 1.5 * self._config.hang_s
                for each in self._workers:
                    if each.status is not None:
                        asyncio.get_running_loop().create_task(each.look(within_s=within_s))
                await self._sleep_if_idle()

    async def _notice(self, name: str) -> None:
        """Have a route file that another process wrote read."""
        if _identity(self._folder / name / ROUTE_FILE) == self._seen.get(name):
            return
        async with self._changing:
            found = _identity(self._folder / name / ROUTE_FILE)
            if name not in self._names or found is None or found == self._seen.get(name):
                return
            self._seen[name] = found
            try:
                await self._reload(name)
            except DeploymentError:
                return  # no worker is left: whoever asks is told why
        self._publish()

    async def _sleep_if_idle(self) -> None:
        """End the workers where nobody asked for long, and wait for who connects."""
        idle_s, now = self._config.idle_stop_s, [each.status for each in self._workers]
        if not idle_s or any(status is None or status.idle_s < idle_s for status in now):
            return
        async with self._changing:
            self._asleep = asyncio.Event()
            await asyncio.gather(*(each.stop(within_s=self._drain_s) for each in self._workers))
            loop = asyncio.get_running_loop()
            for each in set(self._listeners):
                loop.add_reader(each, self._asleep.set)
        self._publish()

    def _sleep_no_more(self) -> None:
        if self._asleep is not None:
            loop = asyncio.get_running_loop()
            for each in set(self._listeners):
                loop.remove_reader(each)
            self._asleep = None

    async def _wake(self) -> None:
        async with self._changing:
            if self._asleep is None:
                return
            self._sleep_no_more()
            for each in self._workers:
                each.want()
        self._publish()

    async def _awake(self) -> None:
        if self._asleep is not None:
            self._asleep.set()
            await self._wake()


def _refuse_strangers(config: WorkerConfig) -> None:
    """Raise `ConfigError` if anybody who reaches this machine could ask, and nobody said so."""
    if is_loopback(config.host) or config.keys or config.strangers == "allow":
        return
    name = config.environment
    raise ConfigError(
        f"the server of {name!r} is to listen on {config.host!r}, so whoever reaches this machine could ask "
        f'its models. Name a file of keys, `[environments.{name}] keys = ".noria/{name}-keys.json"`, and '
        f'make some by `noria key add CALLER@{name}`; or say `[environments.{name}] strangers = "allow"` '
        "if something in front of it asks who they are"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _together(states: Iterable[Mapping[str, DeploymentState]]) -> dict[str, DeploymentState]:
    """Give what workers say of each deployment: the one that is the furthest behind, or in trouble."""
    found: dict[str, DeploymentState] = {}
    for each in states:
        for name, state in each.items():
            before = found.get(name)
            if before is None or (state.error and not before.error) or state.route < before.route:
                found[name] = state
    return found
