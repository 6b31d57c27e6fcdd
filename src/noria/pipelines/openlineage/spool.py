"""Events on their way to an endpoint: kept in a file until it has taken them, across processes and kills.

::

    events.jsonl    what was emitted, by any process
    sent            how many bytes of it have arrived
    lock            held by the process that sends
    refused.jsonl   what the endpoint will never take, with its answer
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from noria.pipelines.openlineage.files import append_line, locked, mend, translated

__all__ = ["EventSpool", "SpooledEvent"]

_DIGITS = 20


class SpooledEvent(NamedTuple):
    """An event that has not arrived, and where it ends in the spool."""

    line: bytes
    end: int


class EventSpool:
    """A queue on the disk: any process appends, one at a time takes off.

    It survives kill -9; a loss of power may cost what the system had not written yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events, self._sent, self._lock = folder / "events.jsonl", folder / "sent", folder / "lock"

    def append(self, line: bytes) -> None:
        """Append one event. Raises `StoreError` if there is no room for it."""
        with translated(self._events):
            self.folder.mkdir(parents=True, exist_ok=True)
        append_line(self._events, line)

    def is_empty(self) -> bool:
        """Tell whether all has arrived."""
        return self._size() <= self._read_sent() or next(self.unsent(), None) is None

    def count(self) -> int:
        """Count what has not arrived."""
        return sum(1 for _ in self.unsent())

    @contextmanager
    def taking_off(self) -> Iterator[bool]:
        """Hold the right to take events off; give False at once if another process has it."""
        with translated(self._lock):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def unsent(self) -> Iterator[SpooledEvent]:
        """Give what is there and has not arrived, oldest first."""
        if self._size() == 0:
            return
        with translated(self._events), locked(self._events) as file:
            whole = mend(file)  # from here to there nothing changes any more
        with self._events.open("rb") as lines:
            end = lines.seek(self._read_sent())
            while end < whole:
                line = lines.readline()
                end += len(line)
                yield SpooledEvent(line, end)

    def mark_sent(self, event: SpooledEvent) -> None:
        """Note that all up to an event has arrived. A kill before this sends it once more."""
        self._write_sent(event.end)

    def set_aside(self, event: SpooledEvent, *, status: int, answer: str) -> None:
        """Keep an event that the endpoint will never take, with its answer."""
        try:
            told = msgspec.json.decode(event.line)
        except msgspec.DecodeError:
            told = event.line.decode("utf-8", "replace")
        entry = {"status": status, "answer": answer, "event": told}
        append_line(self.folder / "refused.jsonl", msgspec.json.encode(entry) + b"\n")
        self.mark_sent(event)

    def shrink(self) -> None:
        """Empty the file where all has arrived. For the process that takes off."""
        if self._size() == 0:
            return
        with translated(self._events), locked(self._events) as file:
            if os.fstat(file).st_size == self._read_sent():
                self._write_sent(0)  # first: a kill between the two sends again, the other way round loses
                os.ftruncate(file, 0)

    def _size(self) -> int:
        try:
            return self._events.stat().st_size
        except FileNotFoundError:
            return 0

    def _read_sent(self) -> int:
        try:
            sent = int(self._sent.read_bytes() or 0)
        except (FileNotFoundError, ValueError):
            return 0
        return sent if self._ends_a_line(sent) else 0  # not of this file: rather twice than never

    def _ends_a_line(self, offset: int) -> bool:
        if offset <= 0:
            return False
        try:
            with self._events.open("rb") as file:
                file.seek(offset - 1)
                return file.read(1) == b"\n"
        except FileNotFoundError:
            return False

    def _write_sent(self, offset: int) -> None:
        with translated(self._sent):
            file = os.open(self._sent, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(file, b"%0*d" % (_DIGITS, offset), 0)  # same length each time: never half of two
            finally:
                os.close(file)
