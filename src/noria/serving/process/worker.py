"""One worker process of a server: holds the logs, loads the routes, answers until it is told to stop."""

import asyncio
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import uvicorn
import uvloop

from noria.errors import DeploymentError, LeaseHeld, NoriaError
from noria.serving.counts import RouteCounts
from noria.serving.features.online import OnlineFeatures
from noria.serving.http.app import App
from noria.serving.http.connections import Server, connection_class, guard
from noria.serving.http.keys import KeyFile, Keys
from noria.serving.http.metrics import Metrics, Standing
from noria.serving.logs.outcomes import outcome_spool
from noria.serving.models import load_route
from noria.serving.process.control import Closed, answer_calls
from noria.serving.process.hosting import Hosted, Hosting, spool_name
from noria.serving.process.resting import give_back, own_bytes, prepare, rested, settle
from noria.serving.process.seats import Seat, is_native
from noria.serving.records import (
    ROUTE_FILE,
    SERVER_FILE,
    DeploymentState,
    Route,
    WorkerConfig,
    WorkerStatus,
    read_record,
)

__all__ = ["Worker", "run"]

_LOG = logging.getLogger(__name__)
_BEAT_S = 1.0
_OBJECTS_PER_COLLECTION = 3_000  # a turn of the loop makes as many before it lets go of them
_LAST_MOMENT_S = 2.0  # beyond the drain: then a worker whose supervisor is gone ends, whatever it does


class Worker:
    """Answers for the deployments that its supervisor names. `serve` runs it to its end.

    Parameters
    ----------
    folder
        The server's, with a folder below it for each deployment.
    config
        What `server.json` said.
    number
        Which of the server's workers it is, from 0.
    listener, channel
        The socket that it takes connections from, and its end of the pair to its supervisor.
    shared_metrics
        The folder in which all workers count; None where this is the only one.
    """

    def __init__(
        self,
        folder: Path,
        config: WorkerConfig,
        *,
        number: int,
        listener: socket.socket,
        channel: socket.socket,
        shared_metrics: Path | None,
    ) -> None:
        self._folder, self._config, self._number = folder, config, number
        self._listener, self._channel = listener, channel
        self._host, self._port = listener.getsockname()[:2]
        self._features: OnlineFeatures | None = None
        if config.online:
            self._features = OnlineFeatures(
                config.online,
                root=folder,
                timeout_s=config.limits.features_timeout_s,
                max_age_s=config.features_max_age_s,
                with_defaults=config.features == "fallback",
            )
        self._hosting = Hosting()
        self._keys = Keys(KeyFile(folder / config.keys), own=config.own_key) if config.keys else None
        self._seats: dict[str, Seat] = {}
        self._metrics = Metrics(environment=config.environment, worker=number, shared=shared_metrics)
        self._begun = asyncio.Event()
        self._listening = asyncio.Event()
        self._state: Literal["starting", "ready", "stopping"] = "starting"
        self._busy_at = time.monotonic()
        self._requests = 0
        self._is_over = False  # more memory is used than there may be, by one deployment alone
        self._server = self._make_server()
        self._verbs: dict[str, Callable[..., object]] = {
            "begin": self._begin,
            "status": self.status,
            "reload": self.reload,
            "rotate": self._rotate,
            "rotate_outcomes": self._rotate_outcomes,
            "drop": self._drop,
            "counts": self._counts,
            "stop": self.stop,
        }

    async def serve(self) -> None:
        """Answer until `stop`, or until the supervisor is gone."""
        tasks = [
            asyncio.create_task(self._answer_supervisor()),
            asyncio.create_task(guard(self._server, self._config.limits)),
            asyncio.create_task(self._beat()),
        ]
        try:
            await self._begun.wait()
            if not self._server.should_exit:
                tasks.append(asyncio.create_task(self._tell_listening()))
                await self._server.serve(sockets=[self._listener])
        finally:
            self._state = "stopping"
            faulthandler.cancel_dump_traceback_later()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    def stop(self) -> None:
        """Answer what is in flight, and end."""
        self._state = "stopping"
        self._server.should_exit = True
        self._begun.set()

    def status(self) -> WorkerStatus:
        """Tell the worker's state."""
        found = self._server.server_state.total_requests
        if found != self._requests or self._server.server_state.tasks:
            self._requests, self._busy_at = found, time.monotonic()
        return WorkerStatus(
            state=self._state,
            pid=os.getpid(),
            worker=self._number,
            host=self._host,
            port=self._port,
            deployments={name: self._deployment_state(name) for name in self._seats},
            requests=self._requests,
            connections=len(self._server.server_state.connections),
            idle_s=time.monotonic() - self._busy_at,
        )

    def _make_server(self) -> Server:
        config, limits = self._config, self._config.limits
        app = App(
            self._hosting,
            control=self,
            metrics=self._metrics,
            limits=limits,
            keys=self._keys,
            without_key=config.without_key,
        )
        return Server(
            uvicorn.Config(
                app,
                http=connection_class(limits, app),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]
                proxy_headers=bool(config.proxies),
                forwarded_allow_ips=list(config.proxies),
                ssl_certfile=self._path(config.tls_certificate),
                ssl_keyfile=self._path(config.tls_key),
            ),
            limits=limits,
        )

    def _path(self, given: str) -> str | None:
        return str(self._folder / given) if given else None

    async def _answer_supervisor(self) -> None:
        await answer_calls(self._channel, self._obey)
        if self._state != "stopping":
            _LOG.warning("the supervisor is gone; stopping")
        self.stop()

    async def _obey(self, verb: str, arguments: tuple[str, ...]) -> object:
        if verb not in self._verbs:
            raise DeploymentError(f"a worker cannot {verb}; it can {', '.join(self._verbs)}")
        found = self._verbs[verb](*arguments)
        return await found if asyncio.iscoroutine(found) else found

    async def _begin(self, *deployments: str) -> WorkerStatus:
        for each in deployments:
            await self.reload(each)
        self._begun.set()
        await self._listening.wait()
        return self.status()

    async def _tell_listening(self) -> None:
        while not self._server.started:
            await asyncio.sleep(0.002)
        self._state = "ready"
        self._listening.set()
        _LOG.info("listening on %s:%d", self._host, self._port)

    async def _beat(self) -> None:
        """Put off the end of a worker whose loop stands still; note what others ask the metrics for."""
        every_s = min(_BEAT_S, self._config.hang_s / 4)
        while True:
            faulthandler.dump_traceback_later(self._config.hang_s, exit=True, file=sys.stderr)
            if self._keys is not None:
                self._keys.look()
            for each in self._hosting.values():
                if each.batcher.stuck_s > self._config.hang_s:
                    _LOG.error("a model of %s does not come back; the worker is started anew", each.name)
                    faulthandler.dump_traceback(file=sys.stderr)
                    os._exit(1)
                each.measure()
            self._metrics.note(
                connections=len(self._server.server_state.connections),
                ages_s=self._features.ages_s() if self._features else {},
            )
            await self._keep_within_memory()
            await asyncio.sleep(every_s)

    async def reload(self, deployment: str) -> DeploymentState:
        """Read the route file if it changed; return when it answers or is refused."""
        seat = self._seats.setdefault(deployment, Seat())
        async with seat.loading:
            path = self._folder / deployment / ROUTE_FILE
            identity = _identity(path)
            hosted = self._hosting.get(deployment)
            if hosted is not None and identity is not None and identity == seat.seen:
                return self._deployment_state(deployment)
            seat.seen, seat.held_by = identity, None
            started = time.perf_counter()
            try:
                route = read_record(path, Route)
                seat.wanted = route.number
                if hosted is None:
                    hosted = await self._open(deployment)
                before = hosted.loaded
                known = None if before is None or before.is_resting else before
                loaded = await asyncio.to_thread(
                    load_route, route, folder=self._folder / deployment, known=known
                )
            except NoriaError as err:
                seat.held_by = err.holder if isinstance(err, LeaseHeld) else None
                seat.refuse(err)
                _LOG.error("route %d of %s is refused: %s", seat.wanted, deployment, err)
            else:
                self._metrics.of(deployment).note()  # what was done by the route before
                self._hosting.switch(deployment, loaded)
                hosted.batcher.used_ns = time.perf_counter_ns()  # else it would be the first to be let go of
                seat.take(route, before)
                settle(thoroughly=before is not None and not is_native(before))
                took_s = time.perf_counter() - started
                _LOG.info("route %d of %s answers after %.3f s", route.number, deployment, took_s)
            state = self._note_route(deployment)
        await self._keep_within_memory()
        return state

    def _note_route(self, deployment: str) -> DeploymentState:
        state = self._deployment_state(deployment)
        self._metrics.of(deployment).set_route(
            state.route,
            refused=state.refusal is not None,
            models=0 if state.is_resting else sum(each.ready for each in state.models),
        )
        return state

    async def unload(self, deployment: str) -> None:
        """Let go of a deployment's models; the next request loads them again."""
        seat = self._seats.get(deployment)
        if seat is None:
            return
        async with seat.loading:
            hosted = self._hosting.get(deployment)
            if hosted is not None and hosted.loaded is not None and not hosted.loaded.is_resting:
                self._hosting.switch(deployment, rested(hosted.loaded))
                self._note_route(deployment)
                await asyncio.to_thread(give_back)
                _LOG.info("the models of %s are not in memory any more", deployment)

    async def wake(self, deployment: str) -> None:
        """Load models again that were let go of. Raises `NoriaError` where that cannot be done."""
        seat = self._seats.get(deployment)
        if seat is None:
            raise DeploymentError(f"{deployment!r} is not served any more")
        if seat.waking is None or seat.waking.done():
            seat.waking = asyncio.create_task(self._wake(deployment, seat))
        await asyncio.shield(seat.waking)

    async def _wake(self, deployment: str, seat: Seat) -> None:
        async with seat.loading:
            hosted = self._hosting.get(deployment)
            if hosted is None or hosted.loaded is None or not hosted.loaded.is_resting:
                return
            started = time.perf_counter()
            try:
                loaded = await asyncio.to_thread(
                    load_route, hosted.loaded.route, folder=self._folder / deployment
                )
            except NoriaError as err:
                seat.wake_error = str(err)
                _LOG.error("the models of %s cannot be loaded again: %s", deployment, err)
                raise
            seat.wake_error = None
            self._hosting.switch(deployment, loaded)
            settle(thoroughly=False)
            self._note_route(deployment)
            _LOG.info(
                "the models of %s are loaded again after %.3f s", deployment, time.perf_counter() - started
            )
        await self._keep_within_memory()

    async def _keep_within_memory(self) -> None:
        """Let go of what was used the longest ago while too much memory is used; one deployment stays."""
        limit = self._config.memory_mb * 2**20
        if not limit or own_bytes() <= limit or any(each.loading.locked() for each in self._seats.values()):
            return  # who loads looks again when that is done: it needs more for a moment
        there = [each for each in self._hosting.values() if each.loaded and not each.loaded.is_resting]
        if len(there) > 1 or not self._is_over:
            await asyncio.to_thread(give_back)
        while len(there) > 1 and own_bytes() > limit:
            least = min(there, key=lambda each: each.batcher.used_ns)
            there.remove(least)
            await self.unload(least.name)
        is_over = (used := own_bytes()) > limit
        if is_over and not self._is_over:
            _LOG.warning("%d MB are used, memory_mb is %d", used // 2**20, limit // 2**20)
        self._is_over = is_over

    async def _open(self, deployment: str) -> Hosted:
        hosted = await asyncio.to_thread(
            Hosted,
            self._folder / deployment,
            environment=self._config.environment,
            deployment=deployment,
            worker=self._number,
            clock=self._config.clock,
            features=self._features,
            lock_wait_s=self._config.lock_wait_s,
            limits=self._config.limits,
            log=self._config.log,
        )
        if hosted.caught_up:
            _LOG.info("%d logged predictions of %s are findable again", hosted.caught_up, deployment)
        metrics = self._metrics.of(deployment)
        metrics.follow(lambda: _standing(hosted))
        hosted.batcher.wake, hosted.batcher.before_sending = partial(self.wake, deployment), metrics.settle
        self._hosting.add(hosted)
        return hosted

    def _deployment_state(self, deployment: str) -> DeploymentState:
        hosted = self._hosting.get(deployment)
        return self._seats[deployment].state(hosted.loaded if hosted else None)

    def _rotate(self, deployment: str) -> Closed | None:
        """Close the log so far; None where this worker does not hold it."""
        hosted = self._hosting.get(deployment)
        return None if hosted is None else Closed(spool_name(self._number), hosted.rotate())

    async def _rotate_outcomes(self, deployment: str) -> Closed | None:
        """Close the outcomes so far; None where none was recorded in this worker."""
        hosted = self._hosting.get(deployment)
        segment = None if hosted is None else await hosted.rotate_outcomes()
        return None if segment is None else Closed(outcome_spool(self._number), segment)

    async def _drop(self, deployment: str) -> None:
        seat = self._seats.get(deployment)
        if seat is None:
            return
        async with seat.loading:
            hosted = self._hosting.take(deployment)
            self._seats.pop(deployment, None)
            if hosted is not None:
                await hosted.batcher.close()
                hosted.close()

    def _counts(self, deployment: str) -> RouteCounts | None:
        """Tell what the releases of a route did; None where this worker does not hold it."""
        hosted = self._hosting.get(deployment)
        return None if hosted is None else hosted.predictor.counts

    async def _close(self) -> None:
        """Let go of everything, once what is at work is done."""
        try:
            async with asyncio.timeout(self._config.limits.drain_s + _LAST_MOMENT_S):
                for each in self._hosting.values():
                    await each.batcher.close()
        except TimeoutError:
            _LOG.error("a model does not come back; ended without it")
            os._exit(1)  # what is logged is logged
        self._hosting.close()


def run(
    folder: Path, *, number: int, listener: socket.socket, channel: socket.socket, shared_metrics: Path | None
) -> int:
    """Run a worker of the server in `folder` to its end; give the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # else whoever sends no HTTP fills the log
    try:
        config = read_record(folder / SERVER_FILE, WorkerConfig)
        prepare(config.memory_mb)
        gc.set_threshold(_OBJECTS_PER_COLLECTION)
        os.set_inheritable(channel.fileno(), False)
        os.set_inheritable(listener.fileno(), False)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, _ignore)  # uvicorn raises it again once it has stopped
        within_s = config.limits.drain_s + _LAST_MOMENT_S
        threading.Thread(target=_end_with, args=(channel.fileno(), within_s), daemon=True).start()

        async def serve() -> None:
            worker = Worker(
                folder,
                config,
                number=number,
                listener=listener,
                channel=channel,
                shared_metrics=shared_metrics,
            )
            await worker.serve()

        uvloop.run(serve())
    except NoriaError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    return 0


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _standing(hosted: Hosted) -> Standing:
    entries = hosted.loaded.route.entries if hosted.loaded else ()
    counts = hosted.predictor.counts
    shadows = [each.release for each in entries if each.mode == "shadow" and each.release in counts.releases]
    return Standing(
        route=counts.route,
        shed=hosted.batcher.shed,
        shadow_rows={each: counts.releases[each].rows for each in shadows},
        logged_bytes=hosted.predictor.log.logged_bytes,
        spool_bytes=hosted.predictor.log.spool_bytes,
    )


def _end_with(channel: int, within_s: float) -> None:
    """End the process some time after its supervisor is gone, also where the loop is stuck."""
    poll = select.poll()
    poll.register(channel, 0)  # only that the other end is gone
    poll.poll()
    time.sleep(within_s)
    os._exit(1)  # what is logged is logged


def _ignore(signum: int, frame: object) -> None:
    return
