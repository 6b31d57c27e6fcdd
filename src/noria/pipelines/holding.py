"""The right to run something alone: waited for, kept alive in the background, given back."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from noria.errors import LeaseHeld, StoreError
from noria.ledger.store import Ledger
from noria.records import Lease

__all__ = ["held"]

_LEASE_S = 60.0
_RENEW_EVERY_S = 15.0
_LOOK_EVERY_S = 0.2


@contextmanager
def held(ledger: Ledger, name: str, *, wait: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold a lease for the block; wait while another process has it.

    It is renewed by a thread, for a step that runs in this process may keep the loop from doing so.

    Parameters
    ----------
    wait
        Told once who holds it.

    Yields
    ------
    callable
        Raises `LeaseHeld` if the lease was lost meanwhile.
    """
    keeper = _Keeper(ledger, _acquired(ledger, name, wait))
    keeper.start()
    try:
        yield keeper.check
    finally:
        keeper.end()


def _acquired(ledger: Ledger, name: str, wait: Callable[[str], None]) -> Lease:
    told = False
    while True:
        try:
            return ledger.acquire_lease(name, ttl_s=_LEASE_S)
        except LeaseHeld as other:
            if not told:
                wait(other.holder)
                told = True
            time.sleep(_LOOK_EVERY_S)


class _Keeper:
    """Renews a lease until it is told to end."""

    def __init__(self, ledger: Ledger, lease: Lease) -> None:
        self._ledger, self._lease = ledger, lease
        self._ended = threading.Event()
        self._lost: LeaseHeld | None = None
        self._thread = threading.Thread(target=self._keep, name=f"lease {lease.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._ledger.release_lease(self._lease)
        except StoreError:
            return  # the database is away: the lease runs out by itself

    def _keep(self) -> None:
        while not self._ended.wait(_RENEW_EVERY_S):
            try:
                self._lease = self._ledger.renew_lease(self._lease, ttl_s=_LEASE_S)
            except StoreError:
                continue  # away for now; if it stays so, the lease is lost and the next renewal says so
            except LeaseHeld as other:
                self._lost = other
                return
