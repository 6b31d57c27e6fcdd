"""One worker process: takes the log, loads the route, answers until told to stop or its parent is gone."""

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import uvicorn
import uvloop

from noria.errors import DeploymentError, LeaseHeld, NoriaError, PortInUse
from noria.serving.app import App
from noria.serving.index import PredictionIndex
from noria.serving.metrics import Metrics
from noria.serving.models import LoadedRoute, RouteRefusedError, load_route
from noria.serving.online import OnlineFeatures
from noria.serving.predictor import Predictor
from noria.serving.records import (
    EXIT_LOG_HELD,
    EXIT_PORT_IN_USE,
    ROUTE_FILE,
    STATUS_FILE,
    WORKER_FILE,
    ModelState,
    Route,
    WorkerConfig,
    WorkerStatus,
    read_record,
    write_record,
)
from noria.streams.spool import Spool

__all__ = ["Worker", "run"]

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05
_KEEP_ALIVE_S = 75
_DRAIN_S = 5


class Worker:
    """A deployment's server around its app. `serve` runs it to its end.

    Parameters
    ----------
    folder
        Holds `worker.json` and `route.json`; `status.json` is written there.
    config
        What `worker.json` said.
    listener
        The bound socket.
    spool, index
        Open, and the index caught up.
    """

    def __init__(
        self,
        folder: Path,
        config: WorkerConfig,
        *,
        listener: socket.socket,
        spool: Spool,
        index: PredictionIndex,
    ) -> None:
        self._folder, self._config, self._listener = folder, config, listener
        self._host, self._port = listener.getsockname()[:2]
        self._spool, self._index = spool, index
        self._metrics = Metrics(environment=config.environment, deployment=config.deployment)
        self._predictor = Predictor(
            environment=config.environment,
            deployment=config.deployment,
            clock=config.clock,
            spool=spool,
            index=index,
            features=OnlineFeatures(config.online, root=folder) if config.online else None,
        )
        self._state: Literal["starting", "ready", "refused", "stopping"] = "starting"
        self._listening = False
        self._error: str | None = None
        self._refusal: str | None = None
        self._refused: tuple[ModelState, ...] = ()
        self._wanted = 0
        self._seen: tuple[int, int, int] | None = None  # the route file as last read
        self._loading = asyncio.Lock()

    async def serve(self, *, parent: int | None = None) -> None:
        """Answer until SIGTERM, or until the process is no longer the child of `parent`."""
        app = App(
            self._predictor,
            control=self,
            metrics=self._metrics,
            max_body_bytes=self._config.max_body_bytes,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        await self.reload()
        watch = asyncio.create_task(self._watch(server, parent))
        try:
            await server.serve(sockets=[self._listener])
        finally:
            watch.cancel()
            self._listening = False
            self._state = "stopping"
            self._publish()

    def status(self) -> WorkerStatus:
        """Tell the worker's state."""
        loaded = self._predictor.loaded
        return WorkerStatus(
            state=self._state,
            pid=os.getpid(),
            host=self._host,
            port=self._port,
            listening=self._listening,
            route=loaded.route.number if loaded else 0,
            wanted=self._wanted,
            error=self._error,
            refusal=self._refusal,
            models=(*(_states(loaded) if loaded else ()), *self._refused),
        )

    async def reload(self) -> WorkerStatus:
        """Read the route file if it changed; return when it answers or is refused."""
        async with self._loading:
            identity = self._route_file_identity()
            if identity is not None and identity == self._seen:
                return self.status()
            self._seen = identity
            started = time.perf_counter()
            try:
                route = read_record(self._folder / ROUTE_FILE, Route)
                self._wanted = route.number
                loaded = await asyncio.to_thread(
                    load_route, route, folder=self._folder, known=self._predictor.loaded
                )
            except RouteRefusedError as err:
                self._refuse(str(err), err.models)
            except NoriaError as err:
                self._refuse(str(err), ())
            else:
                self._switch(loaded)
                _LOG.info("route %d answers after %.3f s", route.number, time.perf_counter() - started)
            self._publish()
            return self.status()

    def rotate(self) -> int:
        """Close the current segment of the log and give the number of the last closed one."""
        self._spool.sync()
        segment = self._spool.rotate()
        self._index.mark(segment)
        return segment

    def _switch(self, loaded: LoadedRoute) -> None:
        before = self._predictor.loaded
        self._predictor.switch(loaded)
        self._state, self._error = "ready", None
        if before is None or before.route != loaded.route:  # else a refused route was taken back
            self._refusal, self._refused = None, ()
        self._metrics.set_route(loaded.route.number, refused=self._refusal is not None)

    def _refuse(self, error: str, models: tuple[ModelState, ...]) -> None:
        loaded = self._predictor.loaded
        self._state = "ready" if loaded else "refused"
        self._error, self._refusal = error, f"route {self._wanted}: {error}"
        self._refused = tuple(model for model in models if not model.ready)
        self._metrics.set_route(loaded.route.number if loaded else 0, refused=True)
        _LOG.error("route %d is refused: %s", self._wanted, error)

    def _publish(self) -> None:
        try:
            write_record(self._folder / STATUS_FILE, self.status())
        except (OSError, NoriaError) as err:
            _LOG.warning("the status file cannot be written: %s", err)

    def _route_file_identity(self) -> tuple[int, int, int] | None:
        try:
            found = (self._folder / ROUTE_FILE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    async def _watch(self, server: uvicorn.Server, parent: int | None) -> None:
        while not server.started:
            await asyncio.sleep(0.002)
        self._listening = True
        self._publish()
        _LOG.info("listening on %s:%d", self._host, self._port)
        while True:
            await asyncio.sleep(_POLL_S)
            if parent is not None and os.getppid() != parent:
                _LOG.warning("the parent process is gone; stopping")
                server.should_exit = True
                return
            identity = self._route_file_identity()
            if identity is not None and identity != self._seen and not self._loading.locked():
                await self.reload()


def _states(loaded: LoadedRoute) -> tuple[ModelState, ...]:
    served = [model.served for model in loaded.models.values()]
    return tuple(
        ModelState(release=each.release, model=each.model, version=each.version, ready=True)
        for each in served
    )


def run(folder: Path, *, watch_parent: bool) -> int:
    """Run the worker of `folder` to its end; give the exit code.

    Parameters
    ----------
    folder
        The deployment's folder.
    watch_parent
        Stop when standard input ends or the parent process is gone.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parent = os.getppid() if watch_parent else None
    if watch_parent:
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    try:
        config = read_record(folder / WORKER_FILE, WorkerConfig)
        with (
            Spool(folder / config.spool, wait_s=config.lock_wait_s) as spool,
            _listen(config) as listener,
            PredictionIndex(folder / config.index) as index,
        ):
            if frames := index.catch_up(folder / config.spool):
                _LOG.info("%d logged requests are findable again", frames)
            signal.signal(signal.SIGTERM, _ignore)  # uvicorn raises it again once it has stopped
            signal.signal(signal.SIGINT, _ignore)
            worker = Worker(folder, config, listener=listener, spool=spool, index=index)
            uvloop.run(worker.serve(parent=parent))
            spool.sync()
    except PortInUse as err:
        return _fail(err, EXIT_PORT_IN_USE)
    except LeaseHeld as err:
        return _fail(err, EXIT_LOG_HELD)
    except NoriaError as err:
        return _fail(err, err.exit_code)
    return 0


def _fail(error: NoriaError, code: int) -> int:
    sys.stderr.write(f"{error}\n")
    return code


def _listen(config: WorkerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise PortInUse(config.host, config.port) from err
        raise DeploymentError(
            f"cannot listen on {config.host}:{config.port} ({err.strerror}); choose another host or port"
        ) from err
    return listener


def _stop_at_end_of_input() -> None:
    """Standard input is a pipe whose other end is the parent: it ends with it, however that ends."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2 * _DRAIN_S)
    os._exit(1)  # the loop is stuck; what is logged is logged


def _ignore(signum: int, frame: object) -> None:
    return
