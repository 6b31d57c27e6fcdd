"""The process that talks to Ray for an executor: takes attempts from its parent, and answers with their ends.

One thread decides everything, out of one inbox that others fill: what the parent says, which tasks have
ended, which nodes live, what workers signal. It never waits for what Ray has to give.
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from textwrap import shorten
from typing import Any

import msgspec
import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from noria.pipelines.backends.ray_doubt import NODE_IS_GONE, Doubt, ask, gone, is_doubtful, silence_s
from noria.pipelines.backends.ray_messages import (
    TELL_EVERY_S,
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
from noria.pipelines.backends.ray_worker import Ended, Errand, Mailbox, Signal, perform
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Lost, Report, Started, Work
from noria.pipelines.scratch import remove_folder
from noria.pipelines.worker import FrameReader, frame

__all__ = ["main"]

_TICK_S = 0.25
_LONG_S = 0.75  # attempts that take longer are asked how far they are
_LOOK_EVERY_S = 1.0  # at the nodes
_SILENT_S = 45.0  # before Ray itself ends this process, at 60
_NO_NODE_S = 30.0
_LATE_S = 1.0  # for a result that is on its way when its node is found dead
_UNSEEN_S = 5.0  # by then an attempt is known to run on a living node, or waits
_CANCEL_S = 5.0
_MAIL_S = 30.0
_TOLD_AT_MOST = 300  # letters of what Ray says
_CLOSE_S = 15.0
_CHUNK = 1 << 20
_HEALTH = {
    "health_check_initial_delay_ms": 5_000,
    "health_check_period_ms": 1_000,
    "health_check_timeout_ms": 3_000,
    "health_check_failure_threshold": 5,
}
_OBJECT_STORE_BYTES = 100 * 2**20  # hardly anything passes through it


@dataclass(slots=True, eq=False)
class _Attempt:
    """One attempt on the cluster."""

    work: Work
    resources: Resources
    since: float = field(default_factory=time.monotonic)
    task: Any = None  # Ray's reference
    serial: int = 0  # which submission of it counts
    node: str | None = None  # where it runs, once that is known
    reason: str | None = None  # why it is to end
    lost_at: float | None = None  # when it counts as lost, and why
    lost_because: Lost | None = None
    again_at: float | None = None  # when it is submitted anew, unless it shows up
    doubt: Doubt | None = None  # it was killed: alone, or with its node?


@dataclass(frozen=True, slots=True)
class _TaskEnded:
    run: str
    serial: int
    result: "Future[bytes]"


@dataclass(frozen=True, slots=True)
class _NodeAsked:
    run: str
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class _Mail:
    signals: list[bytes]


@dataclass(frozen=True, slots=True)
class _Nodes:
    alive: tuple[NodeSize, ...]
    dead: frozenset[str]


_Message = Order | Stop | _TaskEnded | _NodeAsked | _Mail | _Nodes | None
_Inbox = queue.SimpleQueue[_Message]


class _Driver:
    """Attempts of one executor, on one cluster."""

    def __init__(self, pipe: socket.socket, setup: Setup, inbox: _Inbox) -> None:
        self._pipe, self._setup, self._inbox = pipe, setup, inbox
        self._perform = ray.remote(perform)
        self._shapes: dict[Resources, Any] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._nodes: _Nodes | None = None
        self._impossible: dict[Resources, float] = {}  # since when
        self._alive_at = self._told_at = time.monotonic()
        self._has_mailbox = False
        self.seen_at = time.monotonic()  # when the head last answered

    def run(self) -> bool:
        """Serve the parent until it lets go, or the cluster is gone; tell which."""
        ticked = time.monotonic()
        while True:
            try:
                message = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                pass
            else:
                match message:
                    case None:
                        return True
                    case Order():
                        self._begin(message)
                    case Stop():
                        self._cancel(message)
                    case _TaskEnded():
                        self._ended(message)
                    case _NodeAsked():
                        self._hear(message)
                    case _Mail():
                        self._read(message)
                    case _Nodes():
                        self._see(message)
            now = time.monotonic()
            if now - ticked > _TICK_S:
                ticked = now
                gone = self._tick(now)
                if gone is not None:
                    self._tell(Away(reason=gone))
                    return False

    # -- attempts

    def _begin(self, order: Order) -> None:
        attempt = self._attempts[order.work.run] = _Attempt(order.work, order.resources)
        self._submit(attempt)

    def _submit(self, attempt: _Attempt) -> None:
        attempt.serial += 1
        attempt.again_at = None
        errand = Errand(setup=self._setup, work=attempt.work, resources=attempt.resources)
        attempt.task = self._shape(attempt.resources).remote(msgspec.msgpack.encode(errand))
        run, serial = attempt.work.run, attempt.serial
        future: Future[bytes] = attempt.task.future()
        future.add_done_callback(lambda result: self._inbox.put(_TaskEnded(run, serial, result)))

    def _shape(self, needs: Resources) -> Any:
        """Give the remote function for tasks that need this; Ray wants whole CPUs above one."""
        found = self._shapes.get(needs)
        if found is None:
            found = self._shapes[needs] = self._perform.options(
                num_cpus=_whole(needs.cpus),
                num_gpus=_whole(needs.gpus),
                memory=needs.memory_bytes,
                max_retries=0,
            )
        return found

    def _cancel(self, stop: Stop) -> None:
        attempt = self._attempts.get(stop.run)
        if attempt is None:
            return
        attempt.reason = stop.reason
        after_s = _CANCEL_S if attempt.doubt is None else 0.0  # else it has ended
        self._lose(attempt, Lost(run=stop.run, reason=stop.reason), after_s=after_s)
        _cancel(attempt.task)

    def _ended(self, ended: _TaskEnded) -> None:
        attempt = self._attempts.get(ended.run)
        if attempt is None or attempt.serial != ended.serial:
            return
        error = ended.result.exception()
        if attempt.reason is not None:
            self._report(Lost(run=ended.run, reason=attempt.reason))
        elif error is not None:
            self._report(_why(ended.run, error))
        else:
            answer = msgspec.msgpack.decode(ended.result.result(), type=Ended)
            if answer.log:
                with Path(attempt.work.log).open("ab") as log:
                    log.write(answer.log)
            if is_doubtful(answer.report):
                self._hold_back(attempt, answer)
            else:
                self._report(answer.report)

    def _hold_back(self, attempt: _Attempt, ended: Ended) -> None:
        """Wait until it is known whether the node of a step that was killed goes on."""
        assert isinstance(ended.report, Lost)
        asks_at = time.monotonic() + self._setup.settle_s
        attempt.node, attempt.again_at = ended.node, None
        attempt.doubt = Doubt(ended.report, asks_at, asks_at + silence_s())

    def _settle(self, attempt: _Attempt, doubt: Doubt, now: float) -> None:
        """Ask for the node when it is time, and tell of the attempt when it has answered, or never will."""
        if now >= doubt.ends_at:
            self._report(doubt.lost)
        elif doubt.task is None and now >= doubt.asks_at:
            assert attempt.node is not None
            run = attempt.work.run
            doubt.task = ask(attempt.node, lambda error: self._inbox.put(_NodeAsked(run, error)))

    def _hear(self, asked: _NodeAsked) -> None:
        attempt = self._attempts.get(asked.run)
        if attempt is not None and attempt.doubt is not None:
            self._report(_gone(asked.run) if gone(asked.error) else attempt.doubt.lost)

    def _lose(self, attempt: _Attempt, lost: Lost, *, after_s: float) -> None:
        if attempt.lost_at is None:
            attempt.lost_at, attempt.lost_because = time.monotonic() + after_s, lost

    def _report(self, report: Report) -> None:
        self._attempts.pop(report.run, None)
        self._tell(report)

    def _tell(self, answer: Answer) -> None:
        self._pipe.sendall(frame(answer))

    # -- what else is heard

    def _read(self, mail: _Mail) -> None:
        for body in mail.signals:
            signal = msgspec.msgpack.decode(body, type=Signal)
            attempt = self._attempts.get(signal.run)
            if attempt is None:
                continue
            if attempt.node is None:
                attempt.node, attempt.again_at = signal.node, None
                self._tell(Started(run=signal.run))
            if signal.progress is not None:
                self._tell(signal.progress)

    def _see(self, nodes: _Nodes) -> None:
        """Take note of nodes that have come or gone."""
        died = nodes.dead - (nodes.dead if self._nodes is None else self._nodes.dead)
        self._nodes = nodes
        self._tell_nodes(nodes)
        for attempt in self._attempts.values() if died else ():
            if attempt.node is None and attempt.again_at is None:  # it may be there: nobody says so any more
                attempt.again_at = time.monotonic() + _UNSEEN_S

    def _tell_nodes(self, nodes: _Nodes) -> None:
        self._told_at = time.monotonic()
        self._tell(Cluster(nodes=nodes.alive))

    def _look_for_room(self, nodes: _Nodes, now: float) -> None:
        """End attempts that no node could hold."""
        waiting = {each.resources for each in self._attempts.values() if each.node is None}
        impossible = {each for each in waiting if not any(size.holds(each) for size in nodes.alive)}
        self._impossible = {each: self._impossible.get(each, now) for each in impossible}
        for needs, since in self._impossible.items():
            if now - since < self._setup.patience_s:
                continue
            told = f"it wants {tell_needs(needs)}, and no node has that ({tell_sizes(nodes.alive, needs)})"
            for attempt in self._attempts.values():
                if attempt.resources == needs and attempt.node is None:
                    attempt.reason = attempt.reason or f"{told}; lower it, or add such a node"
                    self._lose(attempt, Lost(run=attempt.work.run, reason=attempt.reason), after_s=0)

    def _tick(self, now: float) -> str | None:
        """Do what is due; tell why the cluster is gone, if it is."""
        if not self._has_mailbox and any(now - each.since > _LONG_S for each in self._attempts.values()):
            self._has_mailbox = True  # it takes a process, and short steps have nothing to tell
            _thread(_fetch, self._setup.name, self._inbox)
        if self._nodes is not None:
            self._look_for_room(self._nodes, now)
            self._end_where_dead(self._nodes)
            if self._nodes.alive:
                self._alive_at = now
            if now - self._told_at > TELL_EVERY_S:
                self._tell_nodes(self._nodes)
        for attempt in list(self._attempts.values()):
            if attempt.lost_at is not None and now >= attempt.lost_at:
                assert attempt.lost_because is not None
                _cancel(attempt.task)
                self._report(attempt.lost_because)
            elif attempt.doubt is not None:
                self._settle(attempt, attempt.doubt, now)
            elif attempt.again_at is not None and now >= attempt.again_at:
                _cancel(attempt.task)
                self._submit(attempt)
        if now - self.seen_at > _SILENT_S:
            return f"its head has not answered for {_SILENT_S:g} s"
        if self.seen_at - self._alive_at > _NO_NODE_S:
            return f"it has had no node for {_NO_NODE_S:g} s"
        return None

    def _end_where_dead(self, nodes: _Nodes) -> None:
        """End attempts on nodes that are gone. Ray waits for a node that went silent."""
        for attempt in self._attempts.values():
            if attempt.node in nodes.dead:
                self._lose(attempt, _gone(attempt.work.run), after_s=_LATE_S)


def _gone(run: str, told: str = "") -> Lost:
    return Lost(run=run, reason=f"its node went away{told and f': {told}'}", is_infrastructure=True)


def _why(run: str, error: BaseException) -> Lost:
    """Tell how a task ended that has no result."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = shorten(lines[-1] if isinstance(error, RayTaskError) else " ".join(lines), _TOLD_AT_MOST)
    match error:
        case OutOfMemoryError():
            return Lost(run=run, reason=f"its machine ran out of memory: {told}")
        case TaskCancelledError():
            return Lost(run=run, reason="it was cancelled on the cluster")
        case _ if isinstance(error, NODE_IS_GONE):
            return _gone(run, told)
        case _:
            return Lost(run=run, reason=f"the cluster could not run it: {told}")


def _cancel(task: Any) -> None:
    try:
        ray.cancel(task, force=True)
    except RayError:
        return  # it ends by itself, or counts as ended when its time is over


def _whole(number: float) -> float:
    return ceil(number) if number > 1 else number


def _size(node: dict[str, Any]) -> NodeSize:
    has = node["Resources"]
    return NodeSize(has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0))


def _connect(setup: Setup) -> None:
    options: dict[str, Any] = {"namespace": setup.name, "log_to_driver": False, "logging_level": "warning"}
    if setup.address is not None:
        ray.init(address=setup.address, **options)
        return
    ray.init(
        address="local",
        num_cpus=setup.cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=setup.folder,
        _system_config=_HEALTH,
        **options,
    )


def _receive(pipe: socket.socket, reader: FrameReader, first: Sequence[bytes], inbox: _Inbox) -> None:
    decoder = msgspec.msgpack.Decoder(Order | Stop)
    bodies = list(first)
    while True:
        for each in bodies:
            inbox.put(decoder.decode(each))
        try:
            data = pipe.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            break
        bodies = reader.feed(data)
    inbox.put(None)
    time.sleep(_CLOSE_S)
    os._exit(1)  # Ray keeps it from ending


def _look(driver: _Driver, inbox: _Inbox) -> None:
    """Look at the nodes now and then. Where the head is away this waits: the main thread notices."""
    known = None
    while ray.is_initialized():
        with suppress(RayError):
            seen = ray.nodes()
            driver.seen_at = time.monotonic()
            alive = sorted((_size(each) for each in seen if each["Alive"]), key=msgspec.structs.astuple)
            nodes = _Nodes(tuple(alive), frozenset(each["NodeID"] for each in seen if not each["Alive"]))
            if nodes != known:
                inbox.put(nodes)
                known = nodes
        time.sleep(_LOOK_EVERY_S)


def _open_mailbox(name: str) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"name": name, "num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
    return ray.remote(Mailbox).options(**options).remote()


def _fetch(name: str, inbox: _Inbox) -> None:
    """Wait for what workers signal."""
    mailbox = None
    while ray.is_initialized():
        try:
            mailbox = mailbox or _open_mailbox(name)
            mail = ray.get(mailbox.take.remote(), timeout=_MAIL_S)
        except RayError:
            time.sleep(1.0)
            continue
        if mail:
            inbox.put(_Mail(mail))


def main(descriptor: int) -> None:
    """Serve the parent at the other end of a socket until it ends."""
    pipe = socket.socket(fileno=descriptor)
    reader = FrameReader()
    bodies: list[bytes] = []
    while not bodies:
        data = pipe.recv(_CHUNK)
        if not data:
            return
        bodies = reader.feed(data)
    setup = msgspec.msgpack.decode(bodies[0], type=Setup)
    inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    _thread(_receive, pipe, reader, bodies[1:], inbox)
    _connect(setup)
    driver = _Driver(pipe, setup, inbox)
    _thread(_look, driver, inbox)
    try:
        is_over = driver.run()
    except BrokenPipeError:
        is_over = True
    ray.shutdown()
    if is_over:
        remove_folder(Path(setup.folder))


def _thread(work: Any, *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
