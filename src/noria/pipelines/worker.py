"""A worker process: takes attempts at steps from its parent, one after the other, and answers.

It lives as long as its parent does. Two things end it, and everything that its step has started, when that
is gone: on Linux the kernel, by a pipe that has the parent at its other end, whatever the step is in the
middle of; elsewhere a thread that finds the socket closed. What a step prints goes to the log of its run.
"""

import fcntl
import os
import queue
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from noria.pipelines.executor import Done, Place, Progressed, Work
from noria.pipelines.work import Bench

__all__ = ["FrameReader", "frame", "main"]

_HEAD = struct.Struct(">Q")
_CHUNK = 1 << 20
_MOST_BYTES = 1 << 36  # of a frame: a longer one is no frame


def frame(value: object) -> bytes:
    """Encode a value with its length before it."""
    body = msgspec.msgpack.encode(value)
    return _HEAD.pack(len(body)) + body


class FrameReader:
    """Cuts what comes out of a pipe into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came; give the frames that are whole by now. Raises `ValueError` if it is no frame."""
        self._buffer += data
        found = []
        while len(self._buffer) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer)
            if length > _MOST_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) < _HEAD.size + length:
                break
            found.append(bytes(self._buffer[_HEAD.size : _HEAD.size + length]))
            del self._buffer[: _HEAD.size + length]
        return found


def main(descriptor: int, lifeline: int) -> None:
    """Serve the parent until it ends.

    Parameters
    ----------
    descriptor
        Of a socket, with the parent at its other end.
    lifeline
        Of a pipe that nobody writes to; it closes when the parent ends.
    """
    for each in (descriptor, lifeline):
        os.set_inheritable(each, False)
    _die_with(lifeline)
    pipe = socket.socket(fileno=descriptor)
    lock = threading.Lock()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()

    def tell(report: Done | Progressed) -> None:
        with lock:
            pipe.sendall(frame(report))

    place = msgspec.msgpack.decode(inbox.get(), type=Place)
    sys.path[:] = list(place.path)
    bench = Bench(place, tell=tell, is_interruptible=False)
    decoder = msgspec.msgpack.Decoder(Work)
    while True:
        work = decoder.decode(inbox.get())
        _print_to(Path(work.log))
        done = bench.perform(work)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue  # the step has closed it, or its disk is full
        tell(done)


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this process and its children as soon as the lifeline closes."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _receive(pipe: socket.socket, inbox: "queue.SimpleQueue[bytes]") -> None:
    reader = FrameReader()
    while True:
        try:
            data = pipe.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            os.killpg(0, signal.SIGKILL)  # the parent is gone: nobody would take what is made here
        for each in reader.feed(data):
            inbox.put(each)


def _print_to(log: Path) -> None:
    """Let all that this process and its children print go to a file, also after a step closed its output."""
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)  # no room for a log is no reason to run no steps
    for number in (1, 2):
        if descriptor != number:
            os.dup2(descriptor, number)
        else:
            os.set_inheritable(number, True)
    if descriptor > 2:
        os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if not _is_usable(getattr(sys, name)):
            made = open(  # noqa: SIM115  # it is the process's output
                number, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
            )
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)


def _is_usable(stream: Any) -> bool:
    try:
        return not stream.closed and stream.errors == "backslashreplace"
    except (AttributeError, ValueError):
        return False  # there is none, or a step took it apart
