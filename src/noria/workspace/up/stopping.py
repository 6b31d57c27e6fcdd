"""A flag that a signal handler may raise while the thread that it interrupts waits for it."""

import os
import select
import weakref
from contextlib import suppress

__all__ = ["StopFlag"]


class StopFlag:
    """Like `threading.Event`, whose `set` takes a lock that the interrupted thread may hold just then.

    It can be raised from anywhere, and stays raised.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._poll = select.poll()
        self._poll.register(self._reads, select.POLLIN)
        weakref.finalize(self, _close, self._reads, self._writes)

    def set(self) -> None:
        """Raise it."""
        self._is_set = True
        with suppress(BlockingIOError):  # the pipe is full: whoever waits is awake already
            os.write(self._writes, b"\0")

    def is_set(self) -> bool:
        """Say whether it is raised."""
        return self._is_set

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is raised, at most so many seconds; say whether it is."""
        if not self._is_set:
            self._poll.poll(max(timeout_s, 0) * 1_000)
        return self._is_set


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)
