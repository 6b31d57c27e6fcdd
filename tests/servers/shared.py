"""A server that all tests of a process share.

A fixture that several modules import is a fixture of each: with the scope of a session each of them would
start a server of its own, and all would run to the end.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, TypeVar

__all__ = ["Shared"]

Server = TypeVar("Server")


class Shared(Generic[Server]):
    """Starts a server for the first who takes it, and ends it when the last has given it back."""

    def __init__(self, start: Callable[[], AbstractContextManager[Server]]) -> None:
        self._start = start
        self._running: tuple[Server, ExitStack] | None = None
        self._takers = 0

    @contextmanager
    def taken(self) -> Iterator[Server]:
        """Give the server for a while."""
        if self._running is None:
            ending = ExitStack()
            self._running = ending.enter_context(self._start()), ending
        server, ending = self._running
        self._takers += 1
        try:
            yield server
        finally:
            self._takers -= 1
            if not self._takers:
                self._running = None
                ending.close()
