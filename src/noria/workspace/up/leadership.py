"""Who leads: the right to act for a project, held by one process at a time.

A thread holds the lease and tries for it, so that slow work elsewhere does not lose it. A leader that could
not renew it in time has lost it: it counts by a clock of its own, which runs out before the lease does.
"""

import threading
import time
from collections.abc import Callable

from noria.errors import LeaseHeld, StoreError
from noria.ledger.store import Ledger
from noria.records import Lease

__all__ = ["Leadership"]

_NAME = "up"
_TRY_EVERY_S = 1.0
_TROUBLED_S = 0.5


class Leadership:
    """The lease of one process, kept by a thread. Threads may share it.

    Parameters
    ----------
    ttl_s
        How long the lease of a leader that went silent lasts. It is renewed three times as often.
    """

    def __init__(self, ledger: Ledger, *, ttl_s: float, name: str = _NAME) -> None:
        self._ledger, self._ttl_s, self._name = ledger, ttl_s, name
        self.trouble: StoreError | None = None  # why the last try came to nothing
        self.term = 0  # counts how often this process came to lead
        self._lease: Lease | None = None
        self._until = 0.0
        self._other: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process leads. Raises what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault
        return _now_s() < self._until

    @property
    def other(self) -> str | None:
        """The process that is known to lead instead of this one."""
        return self._other

    def start(self) -> None:
        """Try for the lease once, then go on in the background. Raises `StoreError`."""
        self._try()
        self._thread = threading.Thread(target=self._keep, name="noria-leadership", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give the lease back, if the database is there to take it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._until = 0.0
        if self._lease is not None:
            try:
                self._ledger.release_lease(self._lease)
            except StoreError:
                return  # it runs out by itself
            self._lease = None

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(self._pause_s()):
                try:
                    self._try()
                except StoreError as err:  # the main loop tells; the lease runs out meanwhile
                    self.trouble = err
                else:
                    self.trouble = None
        except BaseException as err:
            self._fault = err
            raise

    def _pause_s(self) -> float:
        """How long to wait: a leader renews, others look whether the lease is free."""
        if self.trouble is not None:  # what moved meanwhile is to be followed as soon as it is back
            return min(_TROUBLED_S, self._ttl_s / 3)
        return self._ttl_s / 3 if _now_s() < self._until else min(_TRY_EVERY_S, self._ttl_s / 3)

    def _try(self) -> None:
        began = _now_s()
        try:
            renewed = self._renewed()
            if renewed is None:
                renewed = self._ledger.acquire_lease(self._name, ttl_s=self._ttl_s)
                self.term += 1
            self._lease = renewed
        except LeaseHeld as held:
            self._lease, self._until, self._other = None, 0.0, held.holder
        else:
            self._until, self._other = began + self._ttl_s, None

    def _renewed(self) -> Lease | None:
        """Renew the lease that was held last: nobody may have taken it since."""
        if self._lease is None:
            return None
        try:
            return self._ledger.renew_lease(self._lease, ttl_s=self._ttl_s)
        except LeaseHeld:
            return None


def _clock() -> Callable[[], float]:
    """Give a clock that goes on while the machine sleeps, if there is one."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boot is None else lambda: time.clock_gettime(boot)


_now_s = _clock()
