"""A look at a run from a thread of its own: nothing that keeps the loop busy is a hindrance to it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from noria.errors import StoreError
from noria.ledger.store import Ledger
from noria.records import RunId

__all__ = ["Watch"]

_LOOK_EVERY_S = 0.25


class Watch:
    """Holds on to the lease of a run, and looks whether it is cancelled or its time is over.

    Parameters
    ----------
    renew
        Holds on to the lease. Raises `LeaseHeld` if it is another's by now.
    limit_s
        How long the run may take.
    end
        Called once, with the reason, when the run is to end.
    attend
        Called every now and then: what else there is to see to while a step keeps the loop busy.
    """

    def __init__(
        self,
        ledger: Ledger,
        run: RunId,
        *,
        renew: Callable[[], None],
        limit_s: float | None,
        end: Callable[[str], None],
        attend: Callable[[], None],
    ) -> None:
        self._ledger, self._key = ledger, f"cancel:{run}"
        self._renew, self._end, self._attend = renew, end, attend
        self._ends_at = None if limit_s is None else time.monotonic() + limit_s
        self._limit_s = limit_s
        self._is_over = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"watch {run}")
        self._looking: Future[None] | None = None
        self.reason: str | None = None  # why the run is to end
        self.cancelled_by: str | None = None

    def start(self) -> None:
        """Begin to look."""
        self._looking = self._thread.submit(self._look)

    def check(self) -> None:
        """Raise what the watch has met, if it could not go on."""
        if self._looking is not None and self._looking.done():
            self._looking.result()

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.shutdown()

    def _look(self) -> None:
        try:
            while not self._is_over.wait(self._rest_s()):
                try:
                    self._look_once()
                except StoreError:
                    continue  # the database is away, which the loop meets as well
        except BaseException as error:
            self._order_end(f"it cannot go on: {error}")
            raise

    def _rest_s(self) -> float:
        if self._ends_at is None or self.reason is not None:
            return _LOOK_EVERY_S
        return min(max(self._ends_at - time.monotonic(), 0.001), _LOOK_EVERY_S)

    def _look_once(self) -> None:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._order_end(f"the run did not end within its deadline of {self._limit_s:g} s")
        if self.reason is None:
            asked = self._ledger.find_event(key=self._key)
            if asked is not None:
                reason = asked.payload.get("reason")
                self.cancelled_by = asked.actor + (f" ({reason})" if reason else "")
                self._order_end(f"cancelled by {asked.actor}")
        self._renew()
        self._attend()

    def _order_end(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._end(reason)
