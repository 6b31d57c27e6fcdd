"""How long a store is waited for that is asked over a connection, and may hang.

It is asked in a thread of its own and waited for up to a deadline, whatever its client does. Once it failed
several times in a row it is left alone for a while, and callers learn that at once.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from queue import SimpleQueue
from typing import TypeVar, cast

from noria.errors import NoriaError, StoreDamaged, StoreError

__all__ = ["Patience"]

_FAILURES = 3  # in a row, after which the store is left alone
_PAUSE_S = 1.0

T = TypeVar("T")


class Patience:
    """One thread that asks a store. Threads may share it.

    Parameters
    ----------
    timeout_s
        How long an answer is waited for, the time in line for the thread included.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._tasks: SimpleQueue[tuple[Callable[[], object], Future[object]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._late: Future[object] | None = None  # that nobody waits for any more
        self._failures = 0
        self._closed_until = 0.0

    def ask(self, task: Callable[[], T]) -> T:
        """Give what `task` gives.

        Raises
        ------
        StoreError
            If it takes too long, or did so before; else what `task` raises.
        """
        self._refuse_if_away()
        future: Future[object] = Future()
        self._tasks.put((task, future))
        try:
            found = future.result(self._timeout_s)
        except Late as err:
            self._fail(None if future.cancel() else future)
            raise StoreError(
                f"the online store did not answer within {self._timeout_s:g} s; see that it runs and can be "
                "reached from here, or allow it more by `features_timeout_s`"
            ) from err
        except NoriaError as err:
            if isinstance(err, StoreError) and not isinstance(err, StoreDamaged):
                self._fail(None)
            else:  # it answered
                self._succeed()
            raise
        self._succeed()
        return cast("T", found)

    def _refuse_if_away(self) -> None:
        with self._lock:
            left_s = self._closed_until - time.monotonic()
            if left_s > 0:
                raise StoreError(
                    f"the online store did not answer {self._failures} times; it is asked again in "
                    f"{left_s * 1e3:.0f} ms"
                )
            if self._late is not None:
                if not self._late.done():
                    raise StoreError("the online store has not answered what it was asked before")
                self._late = None
            if self._failures >= _FAILURES:
                self._closed_until = time.monotonic() + _PAUSE_S  # to others, while this one tries
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="noria-features", daemon=True)
                self._thread.start()

    def _succeed(self) -> None:
        if self._failures:
            with self._lock:
                self._failures, self._closed_until = 0, 0.0

    def _fail(self, late: Future[object] | None) -> None:
        with self._lock:
            self._failures += 1
            self._late = late or self._late
            if self._failures >= _FAILURES:
                self._closed_until = time.monotonic() + _PAUSE_S

    def _work(self) -> None:
        while True:
            task, future = self._tasks.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except Exception as err:  # told to whoever waits  # noqa: BLE001
                    future.set_exception(err)
