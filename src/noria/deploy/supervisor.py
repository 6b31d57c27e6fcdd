"""Keeps the server of an environment running, hands it routes, and lets its logs be shipped.

Its workers live no longer than this process. What they log goes to `worker.log` in the server's folder.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from noria.deploy.environment_server import EnvironmentServer
from noria.deploy.idle_logs import rotate_idle, rotate_idle_outcomes
from noria.deploy.workers import WorkerProcess
from noria.errors import DeploymentError, LeaseHeld, NoriaError
from noria.serving.client import ServingClient
from noria.serving.counts import RouteCounts
from noria.serving.http.keys import key_digest, new_key
from noria.serving.records import Route, ServerStatus, WorkerConfig

__all__ = ["Address", "Supervisor"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    is_secure: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"


class Supervisor:
    """An environment's server: started, given routes, its workers restarted when they die, stopped.

    Threads may share it.

    Parameters
    ----------
    folder
        The environment's folder, with one below it for each deployment; made if it is not there.
    config
        How the server is set up. With port 0 the first free one is kept over restarts.
    ready_s
        How long a worker may take until it answers.
    restarts
        A worker that ends by itself more often than this within a minute is given up; when the last one is,
        the server does not run any more.

    Examples
    --------
    ::

        with Supervisor(folder, config) as supervisor:
            supervisor.start(route_of_one_deployment, route_of_another)
            supervisor.swap(next_route)
    """

    def __init__(
        self, folder: Path, config: WorkerConfig, *, ready_s: float = 30.0, restarts: int = 5
    ) -> None:
        self._folder, self._config = Path(folder), config
        self._ready_s, self._restarts = ready_s, restarts
        self._key = new_key() if config.keys else ""
        self._guard = threading.RLock()  # over starting and stopping
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: EnvironmentServer | None = None
        self._address: Address | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The environment's folder."""
        return self._folder

    @property
    def environment(self) -> str:
        """The environment's name."""
        return self._config.environment

    def spools(self, deployment: str) -> list[Path]:
        """List where the workers have logged predictions of a deployment; the first worker's comes first."""
        return sorted(each for each in (self._folder / deployment).glob("spool*") if each.is_dir())

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither stopped nor given up: a worker lives, or soon does again."""
        server = self._server
        return server is not None and server.failure is None

    @property
    def deployments(self) -> tuple[str, ...]:
        """Those that are served now."""
        server = self._server
        return () if server is None or not self.is_running else server.names

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that live."""
        found = [each.pid for each in self._workers]
        return tuple(each for each in found if each is not None)

    def check(self) -> None:
        """Raise why no worker lives, where they were given up."""
        server = self._server
        if server is None:
            raise DeploymentError(f"the server of {self.environment!r} does not run")
        if server.failure is not None:
            raise server.failure

    @property
    def address(self) -> Address:
        """Where the server listens. Raises `DeploymentError` before the first start."""
        if self._address is None:
            raise DeploymentError(f"the server of {self.environment!r} was not started")
        return self._address

    def memory_bytes(self) -> int:
        """Give the workers' proportional share of memory (PSS)."""
        total = 0
        for pid in self.pids:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            total += next(
                int(line.split()[1]) * 1_024 for line in rollup.splitlines() if line.startswith("Pss:")
            )
        return total

    def client(self) -> ServingClient:
        """Make a client of the server, for one thread."""
        certificate = self._folder / self._config.tls_certificate if self._config.tls_certificate else None
        address = self.address
        return ServingClient(address.host, address.port, certificate=certificate, key=self._key)

    def status(self) -> ServerStatus:
        """Ask the workers for their state; those that sleep are left to. Raises as `check`."""
        return self._ask(lambda server: server.ask())

    def log_tail(self) -> str:
        """Give the end of the workers' logs."""
        told = [each.log_tail() for each in self._workers]
        return "\n".join(each for each in told if each)

    def start(self, *routes: Route) -> Address:
        """Start a server that answers by `routes`, and return when it does. One that runs is given them.

        A route that is refused is so for its deployment only: `status` tells why.

        Raises
        ------
        PortInUse
            If somebody else listens on the port.
        LeaseHeld
            If another process serves the environment or, where there is one, the deployment.
        DeploymentError
            If none of the routes can be served or a worker does not come up; the message ends with its log.
        """
        with self._guard:
            if not self.is_running:
                self._start(routes)
                return self.address
        refused: list[NoriaError] = []
        for route in routes:
            try:
                self.swap(route)
            except (DeploymentError, LeaseHeld) as err:
                refused.append(err)
        if refused and len(refused) == len(routes):
            raise refused[0]
        return self.address

    def swap(self, route: Route) -> None:
        """Answer by `route` at its deployment, also at one that is new, and return when all workers do.

        No request is dropped.

        Raises
        ------
        DeploymentError
            If a worker refuses the route: the old one goes on in all of them, also after a restart.
        LeaseHeld
            If another process serves the deployment.
        """
        self._ask(lambda server: server.swap(route))

    def drop(self, deployment: str) -> None:
        """Serve a deployment no longer. Its log stays, and may be rotated."""
        self._ask(lambda server: server.drop(deployment))

    def rotate(self, deployment: str) -> Sequence[tuple[Path, int]]:
        """Close the current segments of a deployment's logs, also where no worker runs.

        Returns
        -------
        sequence of (Path, int)
            Each spool with the number of its last closed segment: up to it all may leave the spool, and
            retries are still known.

        Raises
        ------
        LeaseHeld
            If another process logs there.
        """
        with self._guard:
            if not self.is_running:
                return rotate_idle(self._folder / deployment, lock_wait_s=self._config.lock_wait_s)
        return self._ask(lambda server: server.rotate(deployment))

    def rotate_outcomes(self, deployment: str) -> Sequence[tuple[Path, int]]:
        """Close what was recorded of a deployment's outcomes so far, also where no worker runs.

        Returns
        -------
        sequence of (Path, int)
            As of `rotate`; none where no outcome was ever recorded.
        """
        with self._guard:
            if not self.is_running:
                folder, wait_s = self._folder / deployment, self._config.lock_wait_s
                return rotate_idle_outcomes(folder, lock_wait_s=wait_s)
        return self._ask(lambda server: server.rotate_outcomes(deployment))

    def counts(self, deployment: str) -> RouteCounts:
        """Give what each release did since the route began to answer, in all workers. Raises as `check`."""
        return self._ask(lambda server: server.counts(deployment))

    def restart(self) -> None:
        """Start one worker after another anew; no request is dropped. Raises as `check`."""
        self._ask(lambda server: server.restart())

    def stop(self, *, within_s: float | None = None) -> None:
        """Stop the server and return when its workers have ended.

        Parameters
        ----------
        within_s
            What is in flight is answered, for so long. Default: as the limits say.
        """
        with self._guard:
            server, self._server = self._server, None
            if server is not None:
                try:
                    self._run(server.stop(within_s=within_s))
                finally:
                    self._end_loop()

    @property
    def _workers(self) -> tuple[WorkerProcess, ...]:
        server = self._server
        return () if server is None else server.workers

    def _start(self, routes: Sequence[Route]) -> None:
        if self._server is not None:
            self.stop()
        port = self._address.port if self._address else self._config.port
        own_key = key_digest(self._key) if self._key else ""
        config = msgspec.structs.replace(self._config, port=port, own_key=own_key)
        self._begin_loop()

        async def make() -> EnvironmentServer:
            return EnvironmentServer(self._folder, config, ready_s=self._ready_s, restarts=self._restarts)

        self._server = server = self._run(make())
        try:
            self._run(server.start(routes))
        except BaseException:
            self.stop()
            raise
        self._address = Address(config.host, server.port, bool(config.tls_certificate))

    def _ask(self, ask: Callable[[EnvironmentServer], Coroutine[Any, Any, T]]) -> T:
        server = self._server
        if server is None:
            raise DeploymentError(f"the server of {self.environment!r} does not run; start it first")
        return self._run(ask(server))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def _begin_loop(self) -> None:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="noria-supervisor", daemon=True)
        thread.start()
        self._loop, self._thread = loop, thread

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._thread
        assert loop is not None
        assert thread is not None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = self._thread = None
