"""What happens on a Ray cluster: a Ray worker runs the steps that it is handed in a process beside it.

It watches that process, and answers for it however it ends.
"""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError

from noria.pipelines.backends.processes import ProcessExecutor
from noria.pipelines.backends.ray_messages import Setup
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Failure, Lost, Place, Progressed, Work
from noria.pipelines.scratch import sweep

__all__ = ["Ended", "Errand", "Mailbox", "Signal", "answer", "perform"]

_FIRST_S = 0.2  # a step that takes longer is told of
_EVERY_S = 0.5
_TAKE_S = 10.0
_LOG_BYTES = 1 << 20  # of what a step printed, from a node that does not share the project's folder
_MAIL = 10_000


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """To a Ray worker: one attempt."""

    setup: Setup
    work: Work
    resources: Resources


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """From a Ray worker: how the attempt ended, and what it printed if the log is not there to see."""

    report: Done | Lost
    node: str | None = None  # None: it refused
    log: bytes = b""


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """From a Ray worker: an attempt is at work, on this node, this far."""

    run: str
    node: str
    progress: Progressed | None = None


class Mailbox:
    """An actor that keeps the newest signal of each attempt until the driver takes them."""

    def __init__(self) -> None:
        self._mail: dict[str, bytes] = {}
        self._is_there = asyncio.Event()

    async def put(self, run: str, signal: bytes) -> None:
        """Keep a signal."""
        if len(self._mail) < _MAIL:
            self._mail[run] = signal
            self._is_there.set()

    async def take(self) -> list[bytes]:
        """Wait for signals, for a while."""
        try:
            await asyncio.wait_for(self._is_there.wait(), _TAKE_S)
        except TimeoutError:
            return []
        mail, self._mail = list(self._mail.values()), {}
        self._is_there.clear()
        return mail


@dataclass(slots=True)
class _Crew:
    """The process that runs steps for this Ray worker."""

    executor: ProcessExecutor
    logs: Path | None  # of this node, where the project's folders are not shared
    gpus: tuple[str, ...]
    node: str = field(default_factory=lambda: str(ray.get_runtime_context().get_node_id()))
    raylet: int = field(default_factory=os.getppid)


class _Refused(Exception):
    """Steps of this project cannot run on this node."""


# By executor. A Ray worker serves one driver, and runs one task at a time.
_CREWS: dict[str, _Crew] = {}
_MAILBOXES: dict[str, Any] = {}


def perform(body: bytes) -> bytes:
    """Run one attempt; give an encoded `Ended`."""
    errand = msgspec.msgpack.decode(body, type=Errand)
    began = time.monotonic()
    try:
        crew = _crew(errand.setup)
    except _Refused as error:
        failure = Failure(kind="ConfigError", message=str(error), is_final=True)
        return msgspec.msgpack.encode(Ended(report=_failed(errand.work, failure, began)))
    try:
        return msgspec.msgpack.encode(_attend(crew, errand, began))
    except BaseException:
        _CREWS.clear()
        crew.executor.close()  # by Ray's cancelling, say: the step is to end
        raise


def answer() -> None:
    """Do nothing: that it could be done shows that the node goes on."""


def _attend(crew: _Crew, errand: Errand, began: float) -> Ended:
    """Watch over an attempt until it has ended."""
    work = errand.work
    if crew.logs is not None:
        work = msgspec.structs.replace(work, log=str(crew.logs / f"{work.run}.log"))
    ends = None if work.timeout_s is None else began + work.timeout_s
    is_late = False
    signals = _Signals(errand.setup.name, crew.node, work.run)
    crew.executor.submit(work, Resources(cpus=0.0, memory_bytes=errand.resources.memory_bytes))
    while True:
        now = time.monotonic()
        wait = _FIRST_S if now - began < _FIRST_S else _EVERY_S
        if ends is not None and not is_late:
            wait = min(wait, max(ends - now, 0.0))
        for report in crew.executor.poll(wait):
            if isinstance(report, Progressed):
                signals.progress = report
            elif is_late and isinstance(report, Lost):
                failure = Failure(kind="TimeoutError", message=report.reason)
                return Ended(report=_failed(work, failure, began), node=crew.node, log=_take_log(crew, work))
            else:
                return Ended(report=report, node=crew.node, log=_take_log(crew, work))
        now = time.monotonic()
        if ends is not None and now >= ends and not is_late:
            is_late = True
            crew.executor.cancel(work.run, f"it did not end within {work.timeout_s:g} s")
        if now - began >= _FIRST_S:
            signals.send(now)
        if os.getppid() != crew.raylet:  # the node is down, and nobody would take the result
            crew.executor.close()
            os._exit(1)


class _Signals:
    """What the driver is told of one attempt while it runs; a signal that gets lost is no harm."""

    def __init__(self, mailbox: str, node: str, run: str) -> None:
        self._name, self._node, self._run = mailbox, node, run
        self._sent_at = float("-inf")
        self._sent: Progressed | None = None
        self.progress: Progressed | None = None

    def send(self, now: float) -> None:
        """Tell that it is at work, once, and how far it is, now and then."""
        is_first = self._sent_at == float("-inf")
        if not is_first and (self.progress is self._sent or now - self._sent_at < _EVERY_S):
            return
        self._sent_at, self._sent = now, self.progress
        signal = Signal(run=self._run, node=self._node, progress=self.progress)
        try:
            if self._name not in _MAILBOXES:
                _MAILBOXES[self._name] = ray.get_actor(self._name)
            _MAILBOXES[self._name].put.remote(self._run, msgspec.msgpack.encode(signal))
        except (ValueError, RayError):
            self._sent_at = float("-inf")  # it is not there yet
            _MAILBOXES.pop(self._name, None)


def _crew(setup: Setup) -> _Crew:
    """Give the process of this Ray worker; another one where GPUs are others."""
    gpus = tuple(str(each) for each in ray.get_gpu_ids())
    crew = _CREWS.get(setup.name)
    if crew is not None and crew.gpus == gpus:
        return crew
    for each in _CREWS.values():
        each.executor.close()
    _CREWS.clear()
    place, logs = _place_here(setup)
    made = _CREWS[setup.name] = _Crew(ProcessExecutor(place, workers=1), logs, gpus)
    return made


def _place_here(setup: Setup) -> tuple[Place, Path | None]:
    """Give the project's place as this node sees it, and the folder for logs if its own is not shared."""
    place, here = setup.place, ray.util.get_node_ip_address()
    if not Path(place.root).is_dir():
        raise _Refused(
            f"the project's folder {place.root} is not there on node {here}; all nodes need it at one path"
        )
    scratch, *storages = setup.marks
    for each in storages:
        if not Path(each).exists():
            raise _Refused(
                f"node {here} does not see the storage {Path(each).parent}, so others would not see what it "
                "makes; share the folder, or set [stores] storage to an object store"
            )
    path = dict.fromkeys([*(each for each in place.path if Path(each).exists()), *filter(None, sys.path)])
    place = msgspec.structs.replace(place, path=tuple(path))
    if Path(scratch).exists():
        return place, None
    own = Path(tempfile.gettempdir()) / f"noria-ray-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():
        raise _Refused(f"the folder {own} on node {here} is another user's; remove it")
    (own / "logs").mkdir(exist_ok=True)
    sweep(own)
    return msgspec.structs.replace(place, scratch=str(own)), own / "logs"


def _take_log(crew: _Crew, work: Work) -> bytes:
    """Give what a step printed, where it is not there for others to see: the beginning and the end of it."""
    if crew.logs is None:
        return b""
    path = Path(work.log)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= _LOG_BYTES:
                return file.read()
            head = file.read(_LOG_BYTES // 4)
            rest = _LOG_BYTES - len(head)
            file.seek(size - rest)
            return head + f"\n... {size - len(head) - rest:,} bytes left out ...\n".encode() + file.read(rest)
    except FileNotFoundError:
        return b""
    finally:
        path.unlink(missing_ok=True)


def _failed(work: Work, failure: Failure, began: float) -> Done:
    return Done(
        run=work.run, output=None, failure=failure, metrics={}, cpu_s=0.0, wall_s=time.monotonic() - began,
        memory_peak_bytes=0, bytes_in=0, bytes_out=0,
    )  # fmt: skip
