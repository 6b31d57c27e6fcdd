"""What a step prints in this very process: shown as ever, and kept as well."""

import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO

__all__ = ["Output"]

_CHUNK = 1 << 20


class Output:
    """Takes what a step prints, by Python or by other means, and hands it to the screen and to a log.

    What does not come through Python's streams (a child process, a library in C) goes to a file without a
    name first, and on from there when something else is printed, when it is asked for, and at the end. At a
    terminal, which a debugger may want to itself, only what Python prints is kept.
    """

    def __init__(self) -> None:
        self._spools = [_Spool(number) for number in (1, 2)]
        self._lock = threading.RLock()
        self._log: IO[bytes] | None = None
        self._path: str | None = None

    @contextmanager
    def kept(self, log: str) -> Iterator[None]:
        """Keep what is printed in the block. The log is made when something comes."""
        before = sys.stdout, sys.stderr
        self._path = log
        for each in before:
            _flush(each)
        captures = not _is_terminal() and self._spools_begin()
        tees = [
            _Tee(self, stream, each.direct(stream) if captures else None)
            for stream, each in zip(before, self._spools, strict=True)
        ]
        sys.stdout, sys.stderr = tees
        try:
            yield
        finally:
            for tee in tees:
                tee.finish()
            sys.stdout, sys.stderr = before
            with self._lock:
                for each in self._spools:
                    each.end(self._keep)
                self._path = None
                if self._log is not None:
                    self._log.close()
                    self._log = None

    def catch_up(self) -> None:
        """Show and keep what came by other means than Python's streams; any thread may call."""
        with self._lock:
            for each in self._spools:
                each.drain(self._keep)

    def add(self, text: str) -> None:
        """Keep what Python prints."""
        self.catch_up()
        with self._lock:
            self._keep(text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Let go of its files."""
        for each in self._spools:
            each.close()

    def _spools_begin(self) -> bool:
        begun = [each.begin() for each in self._spools]
        return all(begun)

    def _keep(self, data: bytes) -> None:
        if self._path is None:
            return
        if self._log is None:
            self._log = open(self._path, "ab", buffering=0)  # noqa: PTH123, SIM115  # closed by `kept`
        self._log.write(data)


class _Spool:
    """Stands in for one descriptor of the process while a step runs."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._file: IO[bytes] | None = None
        self._saved: int | None = None  # where the descriptor led to before
        self._read = 0

    def begin(self) -> bool:
        """Take the descriptor's place; False where there is none to take."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(mode="a+b", buffering=0)  # noqa: SIM115  # closed by `close`
        try:
            self._saved = os.dup(self._number)
        except OSError:
            return False
        os.dup2(self._file.fileno(), self._number)
        self._read = 0
        return True

    def direct(self, stream: TextIO) -> TextIO | None:
        """Give what writes to where a stream led to before, if it is one that writes to this descriptor."""
        with suppress(OSError, ValueError, AttributeError):
            if stream.fileno() == self._number and self._saved is not None:
                return open(  # closed with the descriptor that it is given
                    self._saved, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
                )
        return None

    def drain(self, keep: Any) -> None:
        """Hand on what has come since."""
        if self._saved is None or self._file is None:
            return
        while data := os.pread(self._file.fileno(), _CHUNK, self._read):
            self._read += len(data)
            keep(data)
            _write(self._saved, data)

    def end(self, keep: Any) -> None:
        """Give the descriptor its place back."""
        if self._saved is None or self._file is None:
            return
        os.dup2(self._saved, self._number)
        self.drain(keep)
        if self._read:
            self._file.truncate(0)
        os.close(self._saved)
        self._saved = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _Tee(io.TextIOBase):
    """Writes to the screen and to the log; to the screen alone once the step has ended."""

    def __init__(self, output: Output, stream: TextIO, direct: TextIO | None) -> None:
        self._output, self._stream = output, stream
        self._screen = stream if direct is None else direct
        self._is_over = False

    def write(self, text: str) -> int:
        if not self._is_over:
            self._output.add(text)
        return self._screen.write(text)

    def flush(self) -> None:
        self._screen.flush()

    def isatty(self) -> bool:
        return self._screen.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the screen is the process's, not the step's."""

    def finish(self) -> None:
        """Lead to the screen alone from now on."""
        _flush(self._screen)
        self._is_over, self._screen = True, self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_terminal() -> bool:
    try:
        return os.isatty(0) and os.isatty(1)
    except OSError:
        return False


def _flush(stream: TextIO | None) -> None:
    with suppress(OSError, ValueError, AttributeError):
        assert stream is not None
        stream.flush()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
