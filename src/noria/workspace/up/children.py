"""Processes that `noria up` keeps while it leads: started, started again with pauses, listened to, stopped.

Such a process ends when its standard input does, and so with this one however that ends. It tells what it
does as lines of JSON.
"""

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from noria.workspace.up.jobs import signal_name
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.records import Notice, NoticeKind

__all__ = ["Child", "Children"]

_RETRY_S = (1.0, 2.0, 5.0, 10.0)
_LONG_S = 60.0  # a process that lasted longer did not fail at once
_STOP_WITHIN_S = 20.0
_TAIL_BYTES = 4_000


class Child:
    """One process, and what it told last. A subclass says what it is, and takes in what it tells.

    Parameters
    ----------
    root
        The project's folder, where it begins.
    name
        What its notices call it, such as `the consumer of stream clicks`.
    begun
        What is told when it has begun, before `by process 4711`.
    kind, facts
        Of its notices.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        begun: str,
        kind: NoticeKind,
        facts: Mapping[str, Any],
        tell: Callable[[Notice], None],
        now: Callable[[], datetime],
    ) -> None:
        self._root, self._name, self._begun = root, name, begun
        self._kind, self._facts, self._tell, self._now = kind, dict(facts), tell, now
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._listener: threading.Thread | None = None
        self.error: str | None = None
        self.ended_by: int | None = None  # the signal that ended the last one
        self._began = self._not_before = 0.0
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """The process; None if it does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything for it to do."""
        return True

    def argv(self) -> Sequence[str]:
        """Give what starts it."""
        raise NotImplementedError

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take in what it tells."""
        raise NotImplementedError

    def look(self) -> None:
        """Start it if it does not run."""
        if self._process is not None and self._process.poll() is not None:
            self._take_end(self._process.returncode)
        if self._process is None and time.monotonic() >= self._not_before and self.is_wanted:
            self._start()

    def ask_to_stop(self) -> None:
        """Close its standard input."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self) -> None:
        """Wait for its end; kill it if that does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._clear()

    def say(self, message: str, *, kind: NoticeKind | None = None, **facts: object) -> None:
        """Tell a notice of it."""
        notice = Notice(at=self._now(), kind=kind or self._kind, message=message, facts=self._facts | facts)
        self._tell(notice)

    def _start(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `_clear`
        try:
            self._process = subprocess.Popen(
                self.argv(),
                cwd=self._root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                start_new_session=True,  # Ctrl-C goes to this process, which stops that one
            )
        except OSError as err:  # no memory, no process, no room for files: for now
            self._fail(f"its process cannot be started: {err}")
            self._clear()
            return
        self._began = time.monotonic()
        self._listener = threading.Thread(
            target=self._listen, args=(self._process.stdout,), name="noria-child", daemon=True
        )
        self._listener.start()
        self.say(f"{self._begun} by process {self._process.pid}")

    def _listen(self, lines: IO[bytes]) -> None:
        for line in lines:
            try:
                told = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                continue  # what the project's own code prints
            self.hear(told)

    def _take_end(self, code: int) -> None:
        assert self._complaints is not None
        size = self._complaints.seek(0, 2)
        self._complaints.seek(max(0, size - _TAIL_BYTES))
        self.ended_by = -code if code < 0 else None
        self._fail(_reason(self._complaints.read(), code))
        self._clear()

    def _fail(self, reason: str) -> None:
        if time.monotonic() - self._began > _LONG_S:
            self._failures = 0
        if reason != self.error:
            self.say(f"{self._name} ended: {reason}", kind=NoticeKind.WARNING)
        self.error = reason
        self._not_before = time.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1

    def _clear(self) -> None:
        if self._listener is not None:
            self._listener.join()
        for pipe in () if self._process is None else (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._complaints is not None:
            self._complaints.close()
        self._process = self._complaints = self._listener = None


class Children:
    """Keeps processes while this one leads. Started and stopped by the main thread.

    Parameters
    ----------
    name
        Of the thread.
    """

    def __init__(
        self, children: Sequence[Child], *, leadership: Leadership, look_every_s: float, name: str
    ) -> None:
        self._leadership, self._look_every_s, self._name = leadership, look_every_s, name
        self._children = children
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault

    def start(self) -> None:
        """Begin to look after them."""
        if self._children:
            self._thread = threading.Thread(target=self._keep, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop all of them, each once it has done what it is at."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(self._look_every_s):
                if self._leadership.is_held:
                    for each in self._children:
                        each.look()
                elif self._leadership.other is not None:
                    self._stop_all()
            self._stop_all()
        except BaseException as err:
            self._fault = err
            raise

    def _stop_all(self) -> None:
        for each in self._children:
            each.ask_to_stop()
        for each in self._children:
            each.wait()


def _reason(complaints: bytes, code: int) -> str:
    """Say why a process ended, from what it wrote to standard error."""
    lines = complaints.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    try:
        return str(msgspec.json.decode(last)["error"]["message"])
    except (msgspec.DecodeError, TypeError, KeyError):
        how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with code {code} and said nothing"
        return last or f"its process {how}"
