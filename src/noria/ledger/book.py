"""What every part of the ledger works with: the database, the clock, one change at a time."""

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from noria.clock import Clock
from noria.database.store import Database
from noria.ledger import chain
from noria.ledger.acting import acting_user
from noria.ledger.code import CodeState, capture_code
from noria.records import RunId
from noria.storage.contract import Storage

__all__ = ["Book", "as_utc", "user"]


class Book:
    """The record of one scope, opened. See `noria.ledger.store.Ledger`."""

    def __init__(
        self,
        database: Database,
        *,
        storage: Storage | None = None,
        scope: str = "project",
        clock: Clock,
        code_root: Path | None = None,
    ) -> None:
        if not scope or ":" in scope or "/" in scope:
            raise ValueError(f"{scope!r} is no scope; a name without ':' and '/' is wanted")
        self.database, self.storage, self.scope, self.clock = database, storage, scope, clock
        self.observer: Callable[[RunId], None] | None = None  # told of each run that began or ended
        self._code_root = code_root
        self._code: CodeState | None = None

    def forget_code(self) -> None:
        """Look at the code again for the next run: modules were loaded anew."""
        self._code = None
        capture_code.cache_clear()

    def tell_of(self, run: RunId) -> None:
        """Tell the observer of a run once the change is committed."""
        observer = self.observer
        if observer is not None:
            self.database.after_commit(lambda: observer(run))

    @contextmanager
    def change(self, at: datetime | None, *, actor: str | None = None) -> Iterator[chain.Change]:
        """Give a change for the block: one transaction, at the clock's instant if none is given.

        Its events are those of the user on whose behalf this context acts, if there is one, else of `actor`.
        """
        instant = as_utc(self.clock.now() if at is None else at)
        with self.database.write() as connection:
            who = acting_user() or actor or user()
            yield chain.Change(connection, self.scope, instant, datetime.now(UTC), who)

    def code_state(self) -> CodeState:
        """Give what runs of this process say about their code; its texts are then in the storage."""
        if self._code is None:
            captured = capture_code(self._code_root)
            if self.storage is not None:
                if captured.patch:
                    self.storage.put(captured.patch)
                self.storage.put(captured.distributions)
            self._code = captured.state
        return self._code


def as_utc(instant: datetime) -> datetime:
    """Give an instant in UTC. Raises `ValueError` if it has no time zone."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone; noria speaks aware UTC only")
    return instant.astimezone(UTC)


@cache
def user() -> str:
    """Give the account that this process runs under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no account of that number, as in some containers
        return "unknown"
