"""Acknowledging what is logged: on the disk when a call returns, in the database a little later."""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from noria.errors import Conflict, StoreError
from noria.records import RunId
from noria.tracking.spools.moving import Keeper, SpoolMover
from noria.tracking.spools.records import Entry, encode
from noria.tracking.spools.spool import RunSpool

__all__ = ["RunLog"]

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 2.0  # with the database, where the disk takes nothing
_STOP_S = 5.0
_AT_WORK: "weakref.WeakSet[RunLog]" = weakref.WeakSet()


class RunLog:
    """What this process logs to a run: a spool, begun with the first entry, and what empties it.

    A forked child begins a spool of its own. Where the disk takes nothing, an entry goes where the spool is
    moved before it is acknowledged.

    Parameters
    ----------
    root
        Where spools are.
    keeper
        Where they are moved.
    direct, later
        Where entries go that find no room, and who moves what is left, for those who read of it.
    prepare
        Fills the folder of a spool before anything is appended.
    discard
        Lets go of a spool of which all was moved.

    Attributes
    ----------
    turn
        To be held by whoever calls `acknowledge`, for as long as the order of entries matters.
    """

    def __init__(
        self,
        root: Path,
        run: RunId,
        keeper: Keeper,
        *,
        direct: str = "into the database",
        later: str = "the next opening of the project moves it",
        prepare: Callable[[Path], None] | None = None,
        discard: Callable[[RunSpool], None] = RunSpool.remove,
    ) -> None:
        self.turn = threading.Lock()
        self._root, self._run, self._keeper = root, run, keeper
        self._direct, self._later, self._prepare, self._discard = direct, later, prepare, discard
        self._spool: RunSpool | None = None
        self._mover: SpoolMover | None = None
        self._has_ended = self._is_told = self._has_news = False
        _AT_WORK.add(self)

    @property
    def has_ended(self) -> bool:
        """Whether it takes nothing more."""
        return self._has_ended

    def open(self) -> Path:
        """Begin the spool before the first entry, and give its folder. Raises `StoreError`."""
        with self.turn:
            if self._spool is None or self._mover is None:
                spool, mover = self._begin()
                mover.drain(0.0)
                return spool.folder
            return self._spool.folder

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
        self.append(entry)

    def append(self, entry: Entry) -> None:
        """Keep an entry so, also after the log has ended. Raises `StoreError`."""
        try:
            spool, mover = self._spool, self._mover
            if spool is None or mover is None:
                spool, mover = self._begin()
            spool.append(encode(entry))
        except StoreError as err:
            self._keep_directly(entry, err)
        else:
            self._has_news = True
            mover.wake()

    def flush(self, timeout_s: float) -> bool:
        """Sync the spool, and wait until all of it was moved; tell whether it was.

        Raises `StoreError` if the disk does not take it.
        """
        if self._spool is None or self._mover is None or not self._has_news:
            return True
        self._has_news = False
        is_whole = False
        try:
            self._spool.sync()
            is_whole = self._mover.drain(timeout_s)
        finally:
            self._has_news |= not is_whole
        return is_whole

    def end(self) -> None:
        """Take nothing more."""
        with self.turn:
            self._has_ended = True

    def close(self, *, is_whole: bool) -> None:
        """Let go of the spool: removed if all of it was moved, else left for later."""
        _AT_WORK.discard(self)
        self._has_ended = True
        spool, mover = self._spool, self._mover
        self._spool = self._mover = None
        if spool is None or mover is None:
            return
        if not mover.stop(_STOP_S):  # it hangs: the spool stays its own until this process ends
            self._tell_of(spool, mover)
        elif is_whole:
            self._discard(spool)
        else:
            self._tell_of(spool, mover)
            spool.close()

    def _tell_of(self, spool: RunSpool, mover: SpoolMover) -> None:
        _LOG.warning("what run %s has logged last waits in %s; %s (%s)",
                     self._run, spool.folder, self._later, mover.fault or "it took too long")  # fmt: skip

    def _begin(self) -> tuple[RunSpool, SpoolMover]:
        spool = RunSpool.create(self._root, self._run)
        try:
            if self._prepare is not None:
                self._prepare(spool.folder)
            mover = SpoolMover(spool, self._keeper)
            self._spool, self._mover = spool, mover
            return spool, mover
        except StoreError:
            spool.remove()
            raise
        except RuntimeError as err:
            spool.remove()
            raise StoreError(f"nothing can be moved in the background: {err}; end other threads") from err

    def _keep_directly(self, entry: Entry, fault: StoreError) -> None:
        if self._mover is not None and not self._mover.drain(_PATIENCE_S):  # else it would come too early
            raise fault
        self._keeper.keep(self._run, [entry])
        if not self._is_told:
            _LOG.warning("what run %s logs goes straight %s: %s", self._run, self._direct, fault)
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
