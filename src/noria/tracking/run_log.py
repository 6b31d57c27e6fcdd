"""Acknowledging what is logged: on the disk when a call returns, in the database a little later."""

import logging
import os
import threading
import weakref
from pathlib import Path

from noria.errors import Conflict, StoreError
from noria.records import RunId
from noria.tracking.spool import RunSpool
from noria.tracking.spool_moving import EntryKeeper, SpoolMover
from noria.tracking.spool_records import Entry, encode

__all__ = ["RunLog"]

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 2.0  # with the database, where the disk takes nothing
_STOP_S = 5.0
_AT_WORK: "weakref.WeakSet[RunLog]" = weakref.WeakSet()


class RunLog:
    """What this process logs to a run: a spool, begun with the first entry, and what empties it.

    A forked child begins a spool of its own. Where the disk takes nothing, an entry goes into the database
    before it is acknowledged.

    Attributes
    ----------
    turn
        To be held by whoever calls `acknowledge`, for as long as the order of entries matters.
    """

    def __init__(self, root: Path, run: RunId, keeper: EntryKeeper) -> None:
        self.turn = threading.Lock()
        self._root, self._run, self._keeper = root, run, keeper
        self._spool: RunSpool | None = None
        self._mover: SpoolMover | None = None
        self._has_ended = self._is_told = False
        _AT_WORK.add(self)

    @property
    def has_ended(self) -> bool:
        """Whether it takes nothing more."""
        return self._has_ended

    def acknowledge(self, entry: Entry) -> None:
        """Keep an entry so that kill -9 does not lose it.

        Raises
        ------
        Conflict
            If the log has ended.
        StoreError
            If neither the disk nor the database takes it.
        """
        if self._has_ended:
            raise Conflict(f"run {self._run} has ended, nothing is added to it; go on with it by run=ID")
        try:
            if self._mover is None:
                self._begin()
            assert self._spool is not None and self._mover is not None
            self._spool.append(encode(entry))
        except StoreError as err:
            self._keep_directly(entry, err)
        else:
            self._mover.wake()

    def flush(self, timeout_s: float) -> bool:
        """Sync the spool, and wait until the database has it all; tell whether it has.

        Raises `StoreError` if the disk does not take it.
        """
        if self._spool is None or self._mover is None:
            return True
        self._spool.sync()
        return self._mover.drain(timeout_s)

    def end(self) -> None:
        """Take nothing more."""
        with self.turn:
            self._has_ended = True

    def close(self, *, is_whole: bool) -> None:
        """Let go of the spool: removed if all of it is in the database, else left to the next opening."""
        _AT_WORK.discard(self)
        self._has_ended = True
        spool, mover = self._spool, self._mover
        self._spool = self._mover = None
        if spool is None or mover is None:
            return
        if not mover.stop(_STOP_S):
            return  # it hangs in the database: the spool stays its own until this process ends
        if is_whole:
            spool.remove()
        else:
            _LOG.warning(
                "what run %s has logged last waits in %s; the next opening of the project moves it (%s)",
                self._run, spool.folder, mover.fault or "the database took too long",
            )  # fmt: skip
            spool.close()

    def _begin(self) -> None:
        self._spool = RunSpool.create(self._root, self._run)
        try:
            self._mover = SpoolMover(self._spool, self._keeper)
        except RuntimeError as err:
            self._spool.remove()
            self._spool = None
            raise StoreError(f"nothing can be moved in the background: {err}; end other threads") from err

    def _keep_directly(self, entry: Entry, fault: StoreError) -> None:
        if self._mover is not None and not self._mover.drain(_PATIENCE_S):  # else it would come too early
            raise fault
        self._keeper.keep(self._run, [entry])
        if not self._is_told:
            _LOG.warning("what run %s logs goes straight into the database: %s", self._run, fault)
            self._is_told = True

    def _renew(self) -> None:
        """Begin anew in a forked child: threads are gone, and the parent's spool is the parent's."""
        self.turn = threading.Lock()
        if self._spool is not None:
            self._spool.drop_inherited()
        self._spool = self._mover = None


def _renew_all() -> None:
    for each in [*_AT_WORK]:
        each._renew()


os.register_at_fork(after_in_child=_renew_all)
