"""The consumers of `noria up`: a process for each declared stream, kept while this process leads.

A consumer ends when its standard input does, and so with this process however that ends. What it has read
and not landed by then, the next one reads again.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from noria.workspace.up_jobs import signal_name
from noria.workspace.up_leadership import Leadership
from noria.workspace.up_records import Consuming, Notice, NoticeKind

__all__ = ["Consumers", "consumer_argv"]

_RETRY_S = (1.0, 2.0, 5.0, 10.0)
_LONG_S = 60.0  # a consumer that lasted longer did not fail at once
_STOP_WITHIN_S = 20.0
_TAIL_BYTES = 4_000


def consumer_argv(root: Path, stream: str) -> Sequence[str]:
    """Give what starts a consumer."""
    options = ["--until-stdin-closes", "--project", str(root), "--json"]
    # -P: the project's folder, where the child begins, does not hide modules of Python's own
    return [sys.executable, "-P", "-m", "noria", "stream", "consume", stream, *options]


class Consumers:
    """Keeps the consumers of a project's streams. Started and stopped by the main thread.

    Parameters
    ----------
    root
        The project's folder, where consumers begin.
    streams
        Their names.
    now
        Tells the instant of a notice.
    """

    def __init__(
        self,
        root: Path,
        streams: Sequence[str],
        *,
        leadership: Leadership,
        look_every_s: float,
        tell: Callable[[Notice], None],
        now: Callable[[], datetime],
    ) -> None:
        self._leadership, self._look_every_s = leadership, look_every_s
        self._kept = [_Kept(root, name, tell=tell, now=now) for name in streams]
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def state(self) -> tuple[Consuming, ...]:
        """List the streams that are consumed, or ought to be. Any thread may ask."""
        return tuple(each.state() for each in self._kept)

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault

    def start(self) -> None:
        """Begin to look after the consumers."""
        if self._kept:
            self._thread = threading.Thread(target=self._keep, name="noria-consumers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop all consumers, each once what it has read has landed."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(self._look_every_s):
                if self._leadership.is_held:
                    for each in self._kept:
                        each.look()
                elif self._leadership.other is not None:
                    self._stop_all()
            self._stop_all()
        except BaseException as err:
            self._fault = err
            raise

    def _stop_all(self) -> None:
        for each in self._kept:
            each.ask_to_stop()
        for each in self._kept:
            each.wait()


class _Kept:
    """One stream: its consumer's process, and what that told last."""

    def __init__(
        self, root: Path, name: str, *, tell: Callable[[Notice], None], now: Callable[[], datetime]
    ) -> None:
        self._root, self._name, self._tell, self._now = root, name, tell, now
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._events, self._lag = 0, 0
        self._error: str | None = None
        self._began = self._not_before = 0.0
        self._failures = 0

    def state(self) -> Consuming:
        process = self._process
        return Consuming(
            stream=self._name,
            pid=None if process is None or process.poll() is not None else process.pid,
            events=self._events,
            lag_events=self._lag,
            error=self._error,
        )

    def look(self) -> None:
        """Start the consumer if it does not run."""
        if self._process is not None and self._process.poll() is not None:
            self._take_end(self._process.returncode)
        if self._process is None and time.monotonic() >= self._not_before:
            self._start()

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self) -> None:
        """Wait for the consumer's end; kill it if it does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._clear()

    def _start(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `_clear`
        try:
            self._process = subprocess.Popen(
                consumer_argv(self._root, self._name),
                cwd=self._root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                start_new_session=True,  # Ctrl-C goes to this process, which stops the consumer
            )
        except OSError as err:  # no memory, no process, no room for files: for now
            self._fail(f"its process cannot be started: {err}")
            self._clear()
            return
        self._began = time.monotonic()
        self._listener = threading.Thread(
            target=self._listen, args=(self._process.stdout,), name="noria-consumer", daemon=True
        )
        self._listener.start()
        self._say(NoticeKind.STREAM, f"stream {self._name} is consumed by process {self._process.pid}")

    def _listen(self, lines: IO[bytes]) -> None:
        """Take in what the consumer tells."""
        for line in lines:
            try:
                told = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                continue  # what the project's own code prints
            if told.get("kind") == "Committed":
                self._events += told["events"]
                self._lag = told["lag_events"]
                self._error = None
            elif told.get("kind") == "HeldUp" and told["reason"] != self._error:
                self._error = told["reason"]
                self._say(NoticeKind.WARNING, f"stream {self._name} is held up: {self._error}")

    def _take_end(self, code: int) -> None:
        assert self._complaints is not None
        size = self._complaints.seek(0, 2)
        self._complaints.seek(max(0, size - _TAIL_BYTES))
        self._fail(_reason(self._complaints.read(), code))
        self._clear()

    def _fail(self, reason: str) -> None:
        if time.monotonic() - self._began > _LONG_S:
            self._failures = 0
        if reason != self._error:
            self._say(NoticeKind.WARNING, f"the consumer of stream {self._name} ended: {reason}")
        self._error = reason
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

    def _say(self, kind: NoticeKind, message: str) -> None:
        self._tell(Notice(at=self._now(), kind=kind, message=message, facts={"stream": self._name}))


def _reason(complaints: bytes, code: int) -> str:
    """Say why a consumer ended, from what it wrote to standard error."""
    lines = complaints.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    try:
        return str(msgspec.json.decode(last)["error"]["message"])
    except (msgspec.DecodeError, TypeError, KeyError):
        how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with code {code} and said nothing"
        return last or f"its process {how}"
