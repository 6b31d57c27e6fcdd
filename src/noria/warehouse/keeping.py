"""The right to transform: one process has it at a time, and keeps it and its run alive while it works."""

import threading
from types import TracebackType
from typing import Self

from noria.errors import LeaseHeld, StoreError
from noria.ledger.store import Ledger
from noria.records import Lease

__all__ = ["Keeping"]

_LEASE = "transform"
_LEASE_S = 60.0
_BEAT_EVERY_S = 10.0


class Keeping:
    """Held by `with`; raises `LeaseHeld` where another process has it.

    Attributes
    ----------
    run
        The run at work.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.run: str | None = None
        self._ledger = ledger
        self._ended = threading.Event()
        self._lost: LeaseHeld | None = None
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        self._lease = self._ledger.acquire_lease(_LEASE, ttl_s=_LEASE_S)
        threading.Thread(target=self._beat, name="transform", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._lease is not None:
            self._ledger.release_lease(self._lease)

    def check(self) -> None:
        """Raise `LeaseHeld` if somebody else has the right by now."""
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_EVERY_S):
            try:
                if self._lease is not None:
                    self._lease = self._ledger.renew_lease(self._lease, ttl_s=_LEASE_S)
                if self.run is not None:
                    self._ledger.heartbeat_all([self.run])
            except LeaseHeld as err:
                self._lost = err
                return
            except StoreError:
                continue  # a missed beat is no harm; the work itself will meet the same trouble and say so
