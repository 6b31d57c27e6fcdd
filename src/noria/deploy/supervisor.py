"""Keeps the worker process of one deployment running, and hands it routes.

The worker lives no longer than this process: its standard input is a pipe that ends with it. What it logs
goes to `worker.log` in the deployment's folder.
"""

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from noria.errors import DeploymentError, LeaseHeld, PortInUse
from noria.serving.client import ServingClient
from noria.serving.index import PredictionIndex
from noria.serving.records import (
    EXIT_LOG_HELD,
    EXIT_PORT_IN_USE,
    ROUTE_FILE,
    STATUS_FILE,
    WORKER_FILE,
    Route,
    WorkerConfig,
    WorkerStatus,
    read_record,
    write_record,
)
from noria.streams.spool import Spool

__all__ = ["Address", "Supervisor"]

_LOG_FILE = "worker.log"
_LOG_BYTES = 4 * 2**20
_TAIL_BYTES = 2_000
_POLL_S = 0.01
_RESTART_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


class Supervisor:
    """One deployment's worker: started, given routes, restarted when it dies, stopped.

    Threads may share it.

    Parameters
    ----------
    folder
        The deployment's folder; made if it is not there.
    config
        How the worker is set up. With port 0 the first free one is kept over restarts.
    ready_s
        How long a worker may take until it answers.
    restarts
        A worker that ends by itself more often than this within a minute is given up.

    Examples
    --------
    ::

        with Supervisor(folder, config) as supervisor:
            supervisor.start(route)
            supervisor.swap(next_route)
    """

    def __init__(
        self, folder: Path, config: WorkerConfig, *, ready_s: float = 30.0, restarts: int = 5
    ) -> None:
        self._folder, self._config = Path(folder), config
        self._ready_s, self._restarts = ready_s, restarts
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = threading.RLock()  # over the process
        self._swapping = threading.Lock()  # over the route file
        self._address: Address | None = None
        self._ends: list[float] = []  # when the worker ended by itself, lately
        self._keeper: threading.Thread | None = None
        self._stopping = threading.Event()
        self._failure: DeploymentError | PortInUse | LeaseHeld | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The deployment's folder."""
        return self._folder

    @property
    def spool(self) -> Path:
        """Where the worker logs its predictions."""
        return self._folder / self._config.spool

    @property
    def is_running(self) -> bool:
        """Whether a worker process lives."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the worker. Raises `DeploymentError` if none lives."""
        process = self._process
        if process is None or process.poll() is not None:
            raise self._failure or DeploymentError(f"the worker of {self._config.deployment!r} does not run")
        return process.pid

    @property
    def address(self) -> Address:
        """Where the worker listens. Raises `DeploymentError` before the first start."""
        if self._address is None:
            raise DeploymentError(f"the worker of {self._config.deployment!r} was not started")
        return self._address

    def memory_bytes(self) -> int:
        """Give the worker's proportional share of memory (PSS)."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1_024 for line in rollup.splitlines() if line.startswith("Pss:"))

    def client(self) -> ServingClient:
        """Make a client of the worker, for one thread."""
        return ServingClient(self.address.host, self.address.port)

    def status(self) -> WorkerStatus:
        """Ask the worker for its state."""
        with self.client() as client:
            return msgspec.convert(client.get("/admin/status"), WorkerStatus)

    def log_tail(self) -> str:
        """Give the end of the worker's log."""
        try:
            with (self._folder / _LOG_FILE).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def start(self, route: Route) -> Address:
        """Start a worker that answers by `route`, and return when it does. One that runs is given the route.

        Raises
        ------
        PortInUse
            If somebody else listens on the port.
        LeaseHeld
            If another process serves this deployment.
        DeploymentError
            If the route is refused or the worker does not come up; the message ends with its log.
        """
        if self.is_running:
            self.swap(route)
            return self.address
        with self._swapping, self._guard:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_record(self._folder / ROUTE_FILE, route)
            self._stopping.clear()
            self._ends.clear()
            self._failure = None
            try:
                self._launch()
            except BaseException:
                self._end()
                raise
            self._keeper = threading.Thread(target=self._keep, name="noria-worker-keeper", daemon=True)
            self._keeper.start()
            return self.address

    def swap(self, route: Route) -> None:
        """Make the worker answer by `route`, and return when it does; no request is dropped.

        Raises
        ------
        DeploymentError
            If the route is refused: the old one goes on, also after a restart.
        """
        with self._swapping:
            path = self._folder / ROUTE_FILE
            before = read_record(path, Route)
            write_record(path, route)
            try:
                status = self._reload()
                if status.route == status.wanted == route.number and status.error is None:
                    return
            except DeploymentError:
                write_record(path, before)
                raise
            write_record(path, before)
            self._reload()
            raise DeploymentError(
                f"route {route.number} of {self._config.deployment!r} is refused, "
                f"route {status.route} goes on: {status.error}"
            )

    def _reload(self) -> WorkerStatus:
        with self.client() as client:
            return msgspec.convert(client.post("/admin/reload"), WorkerStatus)

    def rotate(self) -> int:
        """Close the current segment of the prediction log, also where no worker runs; give its number.

        After it, all of the segments up to that number may leave the spool: retries are still known.
        """
        with self._guard:
            if not self.is_running:
                return self._rotate_idle()
        with self.client() as client:
            return int(client.post("/admin/rotate")["segment"])

    def _rotate_idle(self) -> int:
        with (
            Spool(self.spool, wait_s=self._config.lock_wait_s) as spool,
            PredictionIndex(self._folder / self._config.index) as index,
        ):
            index.catch_up(self.spool)
            segment = spool.rotate()
            index.mark(segment)
            return segment

    def stop(self, *, within_s: float = 8.0) -> None:
        """Stop the worker and return when it has ended: what is in flight is answered, for so long."""
        self._stopping.set()
        keeper = self._keeper
        with self._guard:
            self._end(within_s=within_s)
            self._keeper = None
        if keeper is not None:
            keeper.join()

    def _end(self, *, within_s: float = 1.0) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def _launch(self) -> None:
        """Start a process and wait until it answers or is known not to."""
        port = self._address.port if self._address else self._config.port
        config = msgspec.structs.replace(self._config, port=port)
        write_record(self._folder / WORKER_FILE, config)
        (self._folder / STATUS_FILE).unlink(missing_ok=True)
        log = self._folder / _LOG_FILE
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                # Without `-P` modules of the folder that this runs in would stand before installed ones.
                [sys.executable, "-P", "-m", "noria.serving", str(self._folder), "--watch-parent"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to this process, which stops the worker
            )
        status = self._wait(self._process, config)
        self._address = Address(status.host, status.port)

    def _wait(self, process: subprocess.Popen[bytes], config: WorkerConfig) -> WorkerStatus:
        deadline = time.monotonic() + self._ready_s
        while time.monotonic() < deadline:
            if (code := process.poll()) is not None:
                raise self._exit_error(code, config)
            status = self._find_status(process.pid)
            if status is not None and status.state == "ready" and status.listening:
                return status
            if status is not None and status.state == "refused":
                raise DeploymentError(f"{config.deployment!r} cannot be served: {status.error}")
            time.sleep(_POLL_S)
        raise DeploymentError(
            f"the worker of {config.deployment!r} did not answer within {self._ready_s:.0f} s; "
            f"its log ends with:\n{self.log_tail()}"
        )

    def _find_status(self, pid: int) -> WorkerStatus | None:
        if not (self._folder / STATUS_FILE).exists():
            return None
        status = read_record(self._folder / STATUS_FILE, WorkerStatus)
        return status if status.pid == pid else None

    def _exit_error(self, code: int, config: WorkerConfig) -> DeploymentError | PortInUse | LeaseHeld:
        match code:
            case _ if code == EXIT_PORT_IN_USE:
                return PortInUse(config.host, config.port)
            case _ if code == EXIT_LOG_HELD:
                return LeaseHeld(f"deployment {config.deployment!r} in {self._folder}", "another worker")
        tail = self.log_tail()
        return DeploymentError(
            f"the worker of {config.deployment!r} ended with code {code}; its log says:\n{tail}"
        )

    def _keep(self) -> None:
        """Start the worker again when it ends by itself; give up on one that keeps ending."""
        while not self._stopping.is_set():
            process = self._process
            assert process is not None
            code = process.wait()
            with self._guard:
                if self._stopping.is_set():
                    return
                assert process.stdin is not None
                process.stdin.close()
                now = time.monotonic()
                self._ends = [each for each in self._ends if now - each < _RESTART_WINDOW_S] + [now]
                if len(self._ends) > self._restarts:
                    self._failure = self._exit_error(code, self._config)
                    return
                try:
                    self._launch()
                except (DeploymentError, PortInUse, LeaseHeld) as err:
                    self._failure = err
                    self._end()
                    return
