"""From a log to the server that keeps the run: in the background, or later by whoever sends what was left."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from noria.errors import NotFound, StoreError
from noria.records import RunId
from noria.streams.spool import Position
from noria.tracking.remote.client import Refused, RemoteServer, ServerSpeaksOther
from noria.tracking.remote.sending import Batch, Beginning, Begun, Kept
from noria.tracking.remote.spools import drop_file, file_path, note_refused
from noria.tracking.spools.records import Entry, KeptFile, Point, Points
from noria.tracking.spools.spool import RunSpool

__all__ = ["RemoteKeeper"]

_LOG = logging.getLogger(__name__)
_MOST_ENTRIES = 5_000
_BEAT_EVERY_S = 30.0
_PAUSE_S = 30.0  # between two tries with a server that will not have us


class RemoteKeeper:
    """Sends what was logged to a server. The same entry twice is one.

    Parameters
    ----------
    beginning
        Of the run; said before anything else.
    """

    def __init__(self, server: RemoteServer, beginning: Beginning) -> None:
        self._server, self._beginning = server, beginning
        self._begun: Begun | None = None
        self._most, self._is_told = _MOST_ENTRIES, False
        self._is_anew = False  # the run has begun again, and nothing was kept since
        self._has: set[str] = set()  # digests of files that the server has
        self._said_at = time.monotonic()
        self._again_at = 0.0
        self.settled = threading.Event()  # whether the run has begun is known, or that it cannot be asked
        self.fault: Exception | None = None  # why it has not begun
        self.sent = self.refused = 0  # entries

    @property
    def beginning(self) -> Beginning:
        """How the run begins."""
        return self._beginning

    def name_log(self, log: str) -> None:
        """Let the run begin with this log; done once, before it begins."""
        self._beginning = replace(self._beginning, log=log)

    @property
    def begun(self) -> Begun | None:
        """What the server knew of the run when it began; None: it was not reached yet."""
        return self._begun

    def take(self, spool: RunSpool) -> bool:
        """Send what comes next of a log; False: nothing was left.

        Raises
        ------
        StoreError
            If the server is away, or does not take the run.
        """
        self.begin(spool)
        entries, position = spool.read(most_entries=self._most)
        if not entries:
            return False
        log, after = spool.folder.name, spool.moved
        try:
            self._send_files(spool, entries)
            batch = Batch(log=log, run=spool.run, after=after, end=position, entries=_merged(entries))
            kept = self._keep(batch)
        except Refused as err:
            if self._is_lost(err):
                return True
            if len(entries) > 1:
                self._most = max(len(entries) // 2, 1)
                return True
            self._set_aside(spool, entries[0], position, err)
            kept = self._keep_nothing(spool, after, position)
        if kept.missing:
            self._has.difference_update(kept.missing)
            return True
        self._most = min(self._most * 2, _MOST_ENTRIES)
        spool.mark_moved(Position(*kept.position))
        if kept.position == position:
            self.sent += len(entries)
            for each in entries:
                if isinstance(each, KeptFile):
                    drop_file(spool.folder, each.sha256)
        return True

    def keep(self, run: RunId, entries: Sequence[Entry]) -> None:
        """Send entries that are in no log. Raises `StoreError`; what is refused is told of."""
        self.begin(None)
        batch = Batch(log=self._beginning.log, run=run, after=(0, 0), end=(0, 0), entries=[*entries])
        try:
            kept = self._keep(batch)
            if kept.position != (0, 0):
                self._keep(
                    Batch(log=batch.log, run=run, after=kept.position, end=kept.position, entries=[*entries])
                )
        except Refused as err:
            _LOG.warning("the server does not keep what run %s has logged: %s", run, err)

    def put_file(self, sha256: str, file: Path) -> None:
        """Send the bytes of a file that finds no room beside the log. Raises `StoreError`."""
        self._put(sha256, file)

    def beat(self) -> None:
        """Say that the run is alive, where nothing was sent for a while. Raises `StoreError`."""
        if self._begun is None or time.monotonic() - self._said_at < _BEAT_EVERY_S:
            return
        log, run = self._beginning.log, self._beginning.run
        try:
            self._keep(Batch(log=log, run=run, after=(0, 0), end=(0, 0), entries=[]))
        except Refused:
            return  # what is logged meets the same trouble, and tells of it

    def interrupt(self) -> None:
        """Let a thread that waits for the server wait no more."""
        self._server.interrupt()

    def begin(self, spool: RunSpool | None) -> None:
        """Say that the run begins, once. Raises `StoreError`."""
        if self._begun is not None:
            return
        if time.monotonic() < self._again_at and self.fault is not None:
            raise StoreError(str(self.fault)) from self.fault
        try:
            begun = self._server.begin(self._beginning)
            for each in begun.missing:
                if spool is not None and file_path(spool.folder, each).exists():
                    self._server.put_bytes(each, file_path(spool.folder, each), is_code=True)
        except (Refused, ServerSpeaksOther) as err:
            self.fault = err.error if isinstance(err, Refused) else err
            self._again_at = time.monotonic() + _PAUSE_S
            self.settled.set()
            raise StoreError(f"the server does not take run {self._beginning.run}: {self.fault}") from err
        except StoreError as err:
            self.fault = err
            self.settled.set()
            raise
        self._begun, self.fault = begun, None
        self._said_at = time.monotonic()
        self.settled.set()

    def _keep(self, batch: Batch) -> Kept:
        kept = self._server.keep(batch)
        self._said_at, self._is_anew = time.monotonic(), False
        return kept

    def _keep_nothing(self, spool: RunSpool, after: Position, end: Position) -> Kept:
        """Let the server pass over what was set aside. Raises `StoreError`."""
        try:
            return self._keep(Batch(log=spool.folder.name, run=spool.run, after=after, end=end, entries=[]))
        except Refused as err:
            raise StoreError(f"the server {self._server.location} takes nothing: {err}") from err

    def _is_lost(self, err: Refused) -> bool:
        """Tell whether the server knows nothing of the run: it was set up anew; then the run begins again."""
        error = err.error
        is_unknown = isinstance(error, NotFound) and self._beginning.run in str(error)
        if not is_unknown or self._begun is None or self._is_anew:
            return False
        self._begun, self._is_anew = None, True
        return True

    def _send_files(self, spool: RunSpool, entries: Sequence[Entry]) -> None:
        for each in entries:
            if isinstance(each, KeptFile) and each.sha256 not in self._has:
                self._put(each.sha256, file_path(spool.folder, each.sha256))

    def _put(self, sha256: str, file: Path) -> None:
        if not self._server.has_bytes(sha256, is_code=False):
            self._server.put_bytes(sha256, file, is_code=False)
        self._has.add(sha256)

    def _set_aside(self, spool: RunSpool, entry: Entry, position: Position, err: Refused) -> None:
        note_refused(spool.folder, entry, (position.segment, position.offset), str(err))
        self.refused += 1
        if not self._is_told:
            _LOG.warning(
                "the server %s does not take all that run %s logs: %s; what it refuses is set aside in %s, "
                "`noria run sync --again` sends it once more",
                self._server.location, spool.run, err, spool.folder,
            )  # fmt: skip
            self._is_told = True


def _merged(entries: Sequence[Entry]) -> list[Entry]:
    """Give entries with the points of those that follow each other in one: half the work for the server."""
    found: list[Entry] = []
    points: list[Point] = []
    for each in entries:
        if isinstance(each, Points):
            points += each.points
            continue
        if points:
            found.append(Points(points))
            points = []
        found.append(each)
    if points:
        found.append(Points(points))
    return found
