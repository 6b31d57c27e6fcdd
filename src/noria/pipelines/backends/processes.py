"""Steps in processes of this machine: as many at a time as there are CPUs."""

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec

from noria.errors import ConfigError
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Capacity, Done, Lost, Place, Progressed, Report, Work
from noria.pipelines.scratch import own_folder, remove_folder
from noria.pipelines.worker import FrameReader, frame

__all__ = ["ProcessExecutor", "open_processes"]

_WATCH_EVERY_S = 0.05  # how often the memory of limited steps, and what has no pidfd, is looked at
_CHUNK = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GRACE_S = 1.0  # for a process whose pipe has closed to end by itself
_SEND_S = 30.0  # for a worker to take what it is handed
_TRIES = 3
_HELD_SHARE = 0.5  # of a step's memory that may be taken before it begins
_MOST_WORKERS = 64  # where steps want so little that there would be room for more
_ANSWER = msgspec.msgpack.Decoder(Done | Progressed)
# The parent's import path is added, not put first, until this library is loaded: a project may have modules
# of the names of Python's own.
_BEGIN = (
    "import sys; sys.path += [each for each in sys.argv[3:] if each not in sys.path]; "
    "from noria.pipelines.worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class _Worker:
    """One process and what it is at."""

    def __init__(self, place: Place) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._held = os.pipe()
        try:
            descriptors = (theirs.fileno(), lifeline)
            warnings = [f"-W{each}" for each in sys.warnoptions]
            self.process = subprocess.Popen(
                [sys.executable, "-P", *warnings, "-c", _BEGIN, *map(str, descriptors), *place.path],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # ended together with whatever a step starts
            )
        except OSError:
            ours.close()
            os.close(self._held)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        ours.settimeout(_SEND_S)
        self.pipe = ours
        self.ended_by = _pidfd(self.process.pid)  # ready to be read once it has ended
        self.reader = FrameReader()
        self.work: Work | None = None
        self.resources = Resources()
        self.limit_bytes: int | None = None
        self.reason: str | None = None
        self.closed_at: float | None = None  # when its pipe was found closed
        self.is_lost = False
        self.folder = Path(place.scratch)
        self.pipe.sendall(frame(place))

    def begin(self, work: Work, resources: Resources) -> None:
        self.work, self.resources, self.reason = work, resources, None
        self.limit_bytes = resources.memory_bytes
        self.pipe.sendall(frame(work))

    def kill(self, reason: str | None = None) -> None:
        self.reason = self.reason or reason
        if self.process.returncode is not None:
            return  # collected: its number may be another's by now
        with suppress(ProcessLookupError, PermissionError):  # it has ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Tell whether it has ended. Its number stays its own until it is let go: `kill` hits no other."""
        if not hasattr(os, "waitid"):
            return self.process.poll() is not None
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.process.pid, how) is not None
        except ChildProcessError:  # it has, and was let go by another thread
            return True

    def let_go(self) -> None:
        """End what is left of it and of its children, close what leads to it, and remove its files."""
        self.kill()
        self.process.wait()
        self.pipe.close()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        if self.ended_by is not None:
            os.close(self.ended_by)
            self.ended_by = None
        for folder in self.folder.glob(f"step-{self.process.pid}-*"):
            remove_folder(folder)

    def how_it_ended(self) -> str:
        """Tell how it ended, once it was let go."""
        code = self.process.returncode
        if self.reason is not None:
            return self.reason
        if code < 0:
            told = " (the machine may have run out of memory)" if -code == signal.SIGKILL else ""
            return f"its process was ended by {_signal_name(-code)}{told}"
        return f"its process ended with code {code} in the middle of the step"

    def signal(self) -> int | None:
        """Give the signal that ended it, once it was let go, unless that was sent from here."""
        code = self.process.returncode
        return -code if code < 0 and self.reason is None else None


class ProcessExecutor:
    """A pool of worker processes, started when first needed; one that dies fails its step alone."""

    name = "processes"

    def __init__(self, place: Place, *, workers: int = 0) -> None:
        self._folder = own_folder(Path(place.scratch))
        self._place = msgspec.structs.replace(place, scratch=str(self._folder))
        self._cpus = float(workers or len(os.sched_getaffinity(0)))
        self._idle: deque[_Worker] = deque()
        self._busy: dict[str, _Worker] = {}
        self._ending: list[_Worker] = []  # their pipe has closed, and they have not ended yet
        self._queue: deque[tuple[Work, Resources]] = deque()
        self._tries: dict[str, int] = {}  # of attempts whose worker died before it began them
        self._lost: list[Report] = []
        self._selector = selectors.DefaultSelector()
        self._sentry: _Sentry | None = None
        self._looked_at = 0.0

    def capacity(self) -> Capacity:
        """Give the CPUs and the memory of this machine that this process may use."""
        return Capacity(self._cpus, None, _memory_bytes())

    def submit(self, work: Work, resources: Resources) -> None:
        """Hand an attempt to a worker that is free, or to a new one."""
        if resources.cpus > self._cpus:
            raise ConfigError(
                f"step {work.task} wants {resources.cpus:g} CPUs, there are {self._cpus:g}; lower `cpus`, or "
                "run it on another executor"
            )
        self._queue.append((work, resources))
        self._hand_out()

    def poll(self, timeout_s: float) -> list[Report]:
        """Wait for answers and for dead workers."""
        ends = time.monotonic() + timeout_s
        while True:
            reports, self._lost = self._lost, []
            left = 0 if reports else max(ends - time.monotonic(), 0)
            for key, _ in self._selector.select(min(left, _WATCH_EVERY_S) if self._must_look() else left):
                reports.extend(self._hear(*key.data))
            reports.extend(self._look())
            self._hand_out()
            if reports or time.monotonic() >= ends:
                return reports

    def cancel(self, run: str, reason: str) -> None:
        """End the worker of an attempt."""
        worker = self._busy.get(run)
        if worker is not None:
            worker.kill(reason)
        for each in [each for each in self._queue if each[0].run == run]:
            self._queue.remove(each)
            self._lost.append(Lost(run=run, reason=reason))

    def close(self) -> None:
        """End all workers."""
        if self._sentry is not None:
            self._sentry.stop()
        workers = [*self._idle, *self._busy.values(), *self._ending]
        for each in workers:
            each.kill("the run has ended")
        for each in workers:
            self._forget(each)
        self._idle.clear()
        self._busy.clear()
        self._ending.clear()
        self._queue.clear()
        self._selector.close()
        remove_folder(self._folder)

    # -- work to workers

    def _hand_out(self) -> None:
        while self._queue and len(self._busy) < _MOST_WORKERS:
            work, resources = self._queue.popleft()
            worker = self._begun(work, resources)
            if worker is None:
                reason = "no process could be started that takes it"
                self._lost.append(Lost(run=work.run, reason=reason, is_infrastructure=True))
                continue
            self._busy[work.run] = worker
            if worker.limit_bytes is not None:
                if self._sentry is None:
                    self._sentry = _Sentry()
                self._sentry.watch(worker)

    def _begun(self, work: Work, resources: Resources) -> _Worker | None:
        """Give a worker that has taken an attempt."""
        for _ in range(len(self._idle) + _TRIES):
            worker = None
            try:
                worker = self._free_worker(resources.memory_bytes)
                worker.begin(work, resources)
            except OSError:  # it died while it was idle, or there is no room for another process
                if worker is not None:
                    self._forget(worker)
            else:
                return worker
        return None

    def _free_worker(self, limit_bytes: int | None) -> _Worker:
        """Give one that is idle and holds on to little of what earlier steps had, or a new one."""
        while self._idle:
            worker = self._idle.pop()
            if limit_bytes is None or _used_bytes(worker.process.pid) <= limit_bytes * _HELD_SHARE:
                return worker
            self._forget(worker)
        return self._start()

    def _start(self) -> _Worker:
        worker = _Worker(self._place)
        self._selector.register(worker.pipe, selectors.EVENT_READ, (worker, True))
        if worker.ended_by is not None:
            self._selector.register(worker.ended_by, selectors.EVENT_READ, (worker, False))
        return worker

    # -- what comes back

    def _hear(self, worker: _Worker, is_pipe: bool) -> list[Report]:
        if worker.is_lost:
            return []
        if not is_pipe:  # it has ended: a child of its step may hold on to the pipe
            return [*self._drain(worker), *self._bury(worker)]
        try:
            data = worker.pipe.recv(_CHUNK)
        except OSError:
            data = b""
        if data:
            return self._read(worker, data)
        self._selector.unregister(worker.pipe)
        if worker.has_ended():
            return self._bury(worker)
        worker.closed_at = time.monotonic()
        self._ending.append(worker)
        return []

    def _drain(self, worker: _Worker) -> list[Report]:
        """Read what a worker that has ended said before."""
        reports: list[Report] = []
        worker.pipe.setblocking(False)
        while True:
            try:
                data = worker.pipe.recv(_CHUNK)
            except OSError:
                return reports
            if not data:
                return reports
            reports.extend(self._read(worker, data))

    def _read(self, worker: _Worker, data: bytes) -> list[Report]:
        reports: list[Report] = []
        try:
            for body in worker.reader.feed(data):
                report = _ANSWER.decode(body)
                if worker.work is None or report.run != worker.work.run:
                    continue  # not of the step that it is at
                reports.append(report)
                if isinstance(report, Done):
                    self._free(worker)
        except (ValueError, msgspec.MsgspecError):
            worker.kill("it wrote to the pipe that leads to its parent, which is no step's")
        return reports

    def _free(self, worker: _Worker) -> None:
        assert worker.work is not None
        del self._busy[worker.work.run]
        if self._sentry is not None and worker.limit_bytes is not None:
            self._sentry.forget(worker)
        worker.work, worker.limit_bytes = None, None
        if worker.reason is None:
            self._idle.append(worker)
        else:
            self._ending.append(worker)  # its end was asked for while its answer was on the way

    def _bury(self, worker: _Worker) -> list[Report]:
        if worker.is_lost:
            return []
        work, killed = worker.work, worker.reason is not None
        if work is not None:
            del self._busy[work.run]
        if worker in self._idle:
            self._idle.remove(worker)
        if worker in self._ending:
            self._ending.remove(worker)
        self._forget(worker)
        if work is None:
            return []
        if not killed and not Path(work.log).exists():  # it is the first thing that a worker makes
            self._tries[work.run] = self._tries.get(work.run, 0) + 1
            if self._tries[work.run] < _TRIES:
                self._queue.appendleft((work, worker.resources))
                return []
            told = f"its process ended with code {worker.process.returncode} before the step began"
            return [Lost(run=work.run, reason=told, is_infrastructure=True)]
        return [Lost(run=work.run, reason=worker.how_it_ended(), signal=worker.signal())]

    def _forget(self, worker: _Worker) -> None:
        worker.is_lost = True
        known = self._selector.get_map()
        for each in (worker.pipe, worker.ended_by):
            if each is not None and (isinstance(each, int) or each.fileno() >= 0) and each in known:
                self._selector.unregister(each)
        if self._sentry is not None:
            self._sentry.forget(worker)
        worker.let_go()

    # -- what does not report by itself

    def _must_look(self) -> bool:
        return bool(self._ending) or any(each.ended_by is None for each in self._busy.values())

    def _look(self) -> list[Report]:
        """Find workers that have ended, where nothing tells; end those that have closed their pipe."""
        now = time.monotonic()
        if not self._must_look() or now - self._looked_at < _WATCH_EVERY_S:
            return []
        self._looked_at = now
        reports: list[Report] = []
        for worker in [*self._ending, *self._busy.values()]:
            if worker.has_ended():
                reports.extend(
                    [*(self._drain(worker) if worker.closed_at is None else ()), *self._bury(worker)]
                )
            elif worker.closed_at is not None and now - worker.closed_at > _GRACE_S:
                worker.kill("it closed the pipe that leads to its parent")
        return reports


class _Sentry:
    """Ends steps that take more memory than they may: in a thread, so that nothing holds it up."""

    def __init__(self) -> None:
        self._watched: set[_Worker] = set()
        self._lock = threading.Lock()
        self._change = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory of steps", daemon=True)
        self._thread.start()

    def watch(self, worker: _Worker) -> None:
        with self._lock:
            self._watched.add(worker)
        self._change.set()

    def forget(self, worker: _Worker) -> None:
        with self._lock:
            self._watched.discard(worker)

    def stop(self) -> None:
        self._is_over.set()
        self._change.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(_WATCH_EVERY_S):
            self._change.wait()
            with self._lock:
                for worker in self._watched:
                    _check(worker)
                if not self._watched and not self._is_over.is_set():
                    self._change.clear()


def _check(worker: _Worker) -> None:
    if worker.limit_bytes is None or worker.reason is not None:
        return
    used = _used_bytes(worker.process.pid)
    if used > worker.limit_bytes:
        worker.kill(
            f"it took {used / 2**20:,.0f} MiB of memory, allowed are {worker.limit_bytes / 2**20:,.0f} MiB; "
            "raise `memory`, or let it work in parts"
        )


def _used_bytes(pid: int) -> int:
    """Count what a process and its children hold in memory, without the files that are mapped into it."""
    folder = Path(f"/proc/{pid}")
    try:
        _, resident, shared, *_ = (folder / "statm").read_bytes().split()
        used = (int(resident) - int(shared)) * _PAGE
        for each in (folder / "task").iterdir():
            used += sum(_used_bytes(int(child)) for child in (each / "children").read_bytes().split())
    except (OSError, ValueError):
        return 0  # it has ended meanwhile, or this is not Linux
    return used


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one


def _pidfd(pid: int) -> int | None:
    """Give what can be waited for until a process ends, where the system has that."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _memory_bytes() -> int:
    """Give the memory of this machine, or of the container that this process is in."""
    found = os.sysconf("SC_PHYS_PAGES") * _PAGE
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            found = min(found, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):
            continue  # no such file, or no limit
    return found


def open_processes(url: str, place: Place, *, workers: int = 0) -> ProcessExecutor:
    """Open it."""
    del url
    return ProcessExecutor(place, workers=workers)
