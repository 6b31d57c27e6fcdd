"""Steps on a Ray cluster: each attempt is a Ray task, whose worker runs the step in a process of its own.

Ray ends a process whose cluster does not answer any more, and waits long for one that never does. So the
process that talks to Ray is a child of this one (`ray_driver`), and nothing here waits for it without limit.
On the cluster a Ray worker runs steps by a `ProcessExecutor` (`ray_worker`): memory limits and dying steps
are what they are on one machine, and where a Ray worker goes away, it was not its step that ended it.

Large values pass neither through the driver nor through Ray's object store: a result is in the storage by its
digest before its step is done, for all later runs, and is read from there.
"""

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from noria.errors import ConfigError
from noria.pipelines.backends.ray_messages import (
    Answer,
    Away,
    Cluster,
    NodeSize,
    Order,
    Setup,
    Stop,
    tell_needs,
    tell_sizes,
)
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Capacity, Done, Lost, Place, Report, Work
from noria.pipelines.scratch import remove_folder
from noria.pipelines.worker import FrameReader, frame
from noria.records import new_id

__all__ = ["RayExecutor", "open_ray"]

if find_spec("ray") is None:  # it is loaded by the child alone
    raise ModuleNotFoundError("No module named 'ray'", name="ray")

_SILENT_S = 120.0  # without a word it is taken for dead
_SEND_S = 30.0
_PORT = 6379  # of `ray start --head`
_CONNECT_S = 30.0
_PATIENCE_S = 60.0
_SETTLE_S = 2.0  # a machine that goes down ends its processes one after the other
_START_S = 120.0  # for a cluster of its own
_CANCEL_S = 15.0  # by then a cancelled attempt is reported, whatever the cluster says
_CLOSE_S = 20.0
_TAIL_BYTES = 4_000
_CHUNK = 1 << 20
# The import path of this process is added, not put first, until this library is loaded.
_BEGIN = (
    "import sys; sys.path += [each for each in sys.argv[2:] if each not in sys.path]; "
    "from noria.pipelines.backends.ray_driver import main; main(int(sys.argv[1]))"
)
_QUIET = ("RAY_USAGE_STATS_ENABLED=0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0")
# Ray means by it: have every server listen at the loopback address, and take this for the node's own.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"


_ANSWER = msgspec.msgpack.Decoder(Answer)


class RayExecutor:
    """Hands attempts to a Ray cluster, which queues them.

    Parameters
    ----------
    place
        Of the project; its folders are shared by the nodes, or its storage is an object store.
    address
        `HOST:PORT` of the cluster's head; None: a cluster of this machine, which ends with this executor.
    cpus
        Of a cluster of its own.
    patience_s
        How long a step that no node could hold waits for one that could.
    settle_s
        How long after a step was killed its node is asked: if it goes on, the step has crashed; if it went
        down, the step is lost with it, and runs again elsewhere.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached, or started, in time.
    """

    name = "ray"

    def __init__(
        self,
        place: Place,
        *,
        address: str | None,
        cpus: int = 1,
        patience_s: float = _PATIENCE_S,
        settle_s: float = _SETTLE_S,
    ) -> None:
        self._place, self._address = place, address
        self._cpus, self._patience_s, self._settle_s = cpus, patience_s, settle_s
        self._reports: list[Report] = []
        self._at_work: dict[str, Work] = {}
        self._cancelled: dict[str, tuple[float, str]] = {}  # until when, why
        self._nodes: tuple[NodeSize, ...] = ()
        self._heard_at = 0.0
        self._marks = _make_marks(place)
        self._driver: _Driver | None = None
        try:
            self._driver = self._connected()
        except ConfigError:
            self._remove_marks()
            raise

    def capacity(self) -> Capacity:
        """Ray queues."""
        return Capacity(None, None, None)

    def submit(self, work: Work, resources: Resources) -> None:
        """Queue an attempt on the cluster."""
        if self._address is None and self._nodes and not any(each.holds(resources) for each in self._nodes):
            raise ConfigError(
                f"step {work.task} wants {tell_needs(resources)}, which this machine's cluster does not have "
                f"({tell_sizes(self._nodes, resources)}); lower it, or run the step on another executor"
            )
        self._at_work[work.run] = work
        try:
            if self._driver is None:
                self._driver = self._connected()
            self._driver.send(Order(work=work, resources=resources))
        except ConfigError as error:
            self._lose_all(str(error))
        except OSError:
            self._lose_driver()

    def poll(self, timeout_s: float) -> list[Report]:
        """Wait for what the driver reports."""
        ends = time.monotonic() + timeout_s
        while True:
            left = 0.0 if self._reports else max(ends - time.monotonic(), 0.0)
            self._hear(left)
            self._end_cancelled()
            if self._reports or time.monotonic() >= ends:
                reports, self._reports = self._reports, []
                return reports

    def cancel(self, run: str, reason: str) -> None:
        """Ask the cluster to end an attempt; it counts as ended after a while in any case."""
        if run not in self._at_work or run in self._cancelled:
            return
        self._cancelled[run] = (time.monotonic() + _CANCEL_S, reason)
        if self._driver is not None:
            try:
                self._driver.send(Stop(run=run, reason=reason))
            except OSError:
                self._lose_driver()

    def close(self) -> None:
        """End what still runs; a cluster of its own ends, any other goes on."""
        if self._driver is not None:
            self._driver.end()
            self._driver = None
        self._at_work.clear()
        self._remove_marks()

    # -- the driver

    def _connected(self) -> "_Driver":
        driver = _Driver(self._place, self._address)
        limit_s = _START_S if self._address is None else _CONNECT_S
        ends = time.monotonic() + limit_s
        setup = Setup(
            place=self._place,
            name=f"noria-{new_id()}",
            address=self._address,
            cpus=self._cpus,
            folder=str(driver.folder),
            patience_s=self._patience_s,
            settle_s=self._settle_s,
            marks=self._marks,
        )
        try:
            driver.send(setup)
            while True:
                left = ends - time.monotonic()
                answers = driver.read(left) if left > 0 else None
                for each in answers or ():
                    if isinstance(each, Cluster):
                        self._nodes, self._heard_at = each.nodes, time.monotonic()
                        return driver
                if not answers:
                    break
        except BaseException:
            driver.end()
            raise
        told = driver.told() or f"it did not answer within {limit_s:g} s"
        driver.end(at_once=True)
        if self._address is None:
            raise ConfigError(f"a Ray cluster could not be started on this machine: {told}")
        raise ConfigError(
            f"no Ray cluster can be reached at {self._address}: {told}; give ray://HOST:PORT of its head, "
            f"with the port of `ray start --head --port` ({_PORT}, not that of the Ray client), on a machine "
            "that is a node of it (`ray start --address=HOST:PORT --num-cpus=0` makes it one)"
        )

    def _hear(self, timeout_s: float) -> None:
        if self._driver is None:
            time.sleep(min(timeout_s, 0.05))
            return
        answers = self._driver.read(timeout_s)
        if answers is None:
            self._lose_driver()
            return
        if answers:
            self._heard_at = time.monotonic()
        elif time.monotonic() - self._heard_at > _SILENT_S:
            self._lose_driver(f"the process that talks to it was silent for {_SILENT_S:g} s")
        for each in answers:
            match each:
                case Cluster(nodes=nodes):
                    self._nodes = nodes
                case Away(reason=reason):
                    self._lose_driver(reason)
                case Done() | Lost():
                    if self._at_work.pop(each.run, None) is not None:
                        _, why = self._cancelled.pop(each.run, (0.0, None))
                        self._reports.append(each if why is None else Lost(run=each.run, reason=why))
                case _:
                    if each.run in self._at_work:
                        self._reports.append(each)

    def _lose_driver(self, reason: str | None = None) -> None:
        if self._driver is None:
            return
        told = reason or self._driver.told() or "the process that talks to it has ended"
        self._driver.end(at_once=True)
        self._driver = None
        self._lose_all(f"the Ray cluster is away: {told}")

    def _lose_all(self, reason: str) -> None:
        for run in self._at_work:
            _, why = self._cancelled.pop(run, (0.0, None))
            self._reports.append(Lost(run=run, reason=why or reason, is_infrastructure=why is None))
        self._at_work.clear()

    def _end_cancelled(self) -> None:
        now = time.monotonic()
        for run, (until, reason) in list(self._cancelled.items()):
            if now > until:
                del self._cancelled[run]
                if self._at_work.pop(run, None) is not None:
                    self._reports.append(Lost(run=run, reason=reason))

    def _remove_marks(self) -> None:
        for each in self._marks:
            Path(each).unlink(missing_ok=True)


class _Driver:
    """The child that talks to Ray, and the pipe to it."""

    def __init__(self, place: Place, address: str | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="noria-ray-"))  # paths of sockets must be short
        self._log = self.folder / "driver.log"
        settings = [*_QUIET]
        if address is None:
            token = self.folder / "token"
            token.touch(0o600)
            token.write_text(new_id(), encoding="ascii")
            settings += [_LOOPBACK, "RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={token}"]
        elif _is_loopback(address):
            settings.append(_LOOPBACK)
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            program = [sys.executable, "-P", "-c", _BEGIN, str(theirs.fileno()), *place.path]
            self.process = subprocess.Popen(
                ["env", *settings, *program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ours.settimeout(_SEND_S)
        self._pipe = ours
        self._reader = FrameReader()
        self._selector = selectors.DefaultSelector()
        self._selector.register(ours, selectors.EVENT_READ)

    def send(self, message: Setup | Order | Stop) -> None:
        """Tell it something. Raises `OSError` if it has ended."""
        self._pipe.sendall(frame(message))

    def read(self, timeout_s: float) -> list[Answer] | None:
        """Give what it said, nothing if it was silent for so long, and None if it has ended."""
        if not self._selector.select(timeout_s):
            return []
        try:
            data = self._pipe.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            return None
        return [_ANSWER.decode(body) for body in self._reader.feed(data)]

    def told(self) -> str:
        """Give the last line of what it printed, if it has ended: there it says why."""
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return ""
        lines = self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self, *, at_once: bool = False) -> None:
        """End it, and with it its cluster if that is its own."""
        self._selector.close()
        self._pipe.close()  # this tells it
        try:
            self.process.wait(1.0 if at_once else _CLOSE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        remove_folder(self.folder)


def _make_marks(place: Place) -> tuple[str, ...]:
    """Leave files in the project's folders by which a node finds out that it sees the same."""
    folders = [Path(place.scratch)]
    for url in (place.storage, place.keep):
        parts = urlsplit(url or "s3:")
        if parts.scheme in ("", "file"):
            folders.append(Path(unquote(parts.path)))
    marks = []
    for folder in dict.fromkeys(folders):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".noria-ray-", delete=False) as file:
            marks.append(file.name)
    return tuple(marks)


def _is_loopback(address: str) -> bool:
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _connected_already() -> str | None:
    """Give the address of the cluster that this very process uses, if it does."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return str(ray.get_runtime_context().gcs_address)


def open_ray(url: str, place: Place, *, workers: int = 0) -> RayExecutor:
    """Open it.

    Parameters
    ----------
    url
        `ray`: the cluster that this process is connected to by `ray.init`, else one of its own on this
        machine. `ray:auto`: the cluster that runs on this machine, or that Ray's environment names.
        `ray://HOST:PORT`: the cluster with this head; this machine is one of its nodes.
    workers
        CPUs of a cluster of its own; 0: all that this process may use.

    Raises
    ------
    ConfigError
        If the URL is none of these, or the cluster cannot be reached.
    """
    cpus = workers or len(os.sched_getaffinity(0))
    if url == "ray":
        return RayExecutor(place, address=_connected_already(), cpus=cpus)
    if url == "ray:auto":
        return RayExecutor(place, address=_connected_already() or "auto", cpus=cpus)
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, 0
    if parts.scheme != "ray" or not host or parts.path.strip("/") or parts.query:
        raise ConfigError(f"executor {url!r} names no Ray cluster; give ray, ray:auto or ray://HOST:PORT")
    return RayExecutor(place, address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}", cpus=cpus)
