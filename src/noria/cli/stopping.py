"""How commands that go on until they are told to stop are told."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["follow_stdin", "until_told_to_stop"]


@contextmanager
def until_told_to_stop(stop: threading.Event, *, at_once: str) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C, or SIGTERM; at the second one end with what `at_once` says."""

    def told(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt(at_once)
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_stdin(stop: threading.Event) -> None:
    """Set `stop` once standard input is closed, which is when the process that keeps this one is gone."""

    def follow() -> None:
        while sys.stdin.buffer.read(1):
            pass
        stop.set()

    threading.Thread(target=follow, daemon=True).start()
