"""What processes have left of logs for a server, sent by whoever comes next; two at once do not meet."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from noria.errors import NotFound, StoreDamaged, StoreError
from noria.records import RunId, RunState
from noria.streams.spool import Position
from noria.tracking.remote.client import Refused, RemoteServer
from noria.tracking.remote.keeper import RemoteKeeper
from noria.tracking.remote.sending import Batch, Beginning
from noria.tracking.remote.spools import (
    REFUSED,
    is_unsure,
    let_go,
    read_head,
    read_refused,
    server_of,
    write_refused,
)
from noria.tracking.spools.records import Ended
from noria.tracking.spools.spool import RunSpool, abandoned_spools

__all__ = ["LogSynced", "WaitingLogs", "list_waiting", "sync_folder"]


class LogSynced(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the log of one run and process."""

    server: str
    run: RunId
    name: str
    folder: str
    is_sent: bool  # all that the server takes
    entries: int  # sent just now
    refused: int  # entries that were set aside
    why: str = ""  # it waits, or was set aside


class WaitingLogs(msgspec.Struct, frozen=True, kw_only=True):
    """Logs for one server that lie on this disk."""

    server: str
    folder: str
    logs: int  # at work, or waiting
    refused: int  # of which something was set aside


def list_waiting(root: Path) -> list[WaitingLogs]:
    """Tell of the logs below a folder, by server; nothing is sent."""
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        location = server_of(folder)
        if location is None:
            continue
        logs = [each for each in folder.iterdir() if each.is_dir()]
        refused = sum((each / REFUSED).exists() for each in logs)
        found.append(
            WaitingLogs(server=location, folder=str(folder), logs=len(logs) - refused, refused=refused)
        )
    return found


def sync_folder(
    server: RemoteServer, folder: Path, *, run: RunId | None = None, again: bool = False
) -> Iterator[LogSynced]:
    """Send the logs of processes that have ended, oldest run first; tell of each.

    Whose process has not closed its run is closed as killed. Once the server is away, the rest waits untried.

    Parameters
    ----------
    run
        Only those of this run.
    again
        Whether to send what was refused once more.

    Raises
    ------
    StoreError
        If the disk cannot be read.
    """
    away = ""
    for spool in abandoned_spools(folder, run=run):
        name = ""
        sent = refused = 0
        try:
            head = read_head(spool.folder)
            if head is None:
                spool.remove()
                continue
            name = head.name
            if away:
                raise StoreError(away)
            keeper = RemoteKeeper(server, head)
            _send(server, spool, head, keeper, again=again)
            sent = keeper.sent
            refused = len(notes := read_refused(spool.folder))
            why = notes[0].reason if notes else ""
            is_sent = True
            let_go(spool)
        except (StoreError, StoreDamaged) as err:
            is_sent, why = False, str(err)
            is_about_it = isinstance(err, StoreDamaged) or isinstance(err.__cause__, Refused)
            away = away or ("" if is_about_it else why)
        finally:
            spool.close()
        yield LogSynced(
            server=server.location,
            run=spool.run,
            name=name,
            folder=str(spool.folder),
            is_sent=is_sent,
            entries=sent,
            refused=refused,
            why=why,
        )


def _send(
    server: RemoteServer, spool: RunSpool, head: Beginning, keeper: RemoteKeeper, *, again: bool
) -> None:
    """Send all of a log. Raises `StoreError`."""
    if is_unsure(spool.folder):
        _end(server, spool, head)
        return
    while True:
        while keeper.take(spool):
            pass
        if again:
            _send_refused(server, spool)
        if spool.folder.name != head.log or _end(server, spool, head):
            return


def _end(server: RemoteServer, spool: RunSpool, head: Beginning) -> bool:
    """Close the run as killed, unless its log has closed it; False: there is more to send first."""
    error = f"{head.holder} ended without closing the run"
    entry = Ended(RunState.KILLED, error, None, _last_us(spool.folder))
    moved = spool.moved
    try:
        kept = server.keep(
            Batch(log=spool.folder.name, run=spool.run, after=moved, end=moved, entries=[entry])
        )
    except Refused as err:
        if isinstance(err.error, NotFound):
            return True  # it never began there
        raise StoreError(f"the server does not take the end of run {spool.run}: {err}") from err
    if kept.position == moved:
        return True
    spool.mark_moved(Position(*kept.position))
    return False


def _send_refused(server: RemoteServer, spool: RunSpool) -> None:
    """Send once more what was set aside; what is refused again stays."""
    left = []
    for each in read_refused(spool.folder):
        moved = spool.moved
        batch = Batch(log=spool.folder.name, run=spool.run, after=moved, end=moved, entries=[each.decoded()])
        try:
            server.keep(batch)
        except Refused as err:
            left.append(msgspec.structs.replace(each, reason=str(err)))
    write_refused(spool.folder, left)


def _last_us(folder: Path) -> int:
    """Give when something was last logged."""
    found = [each.stat().st_mtime_ns for each in os.scandir(folder) if each.name.endswith(".log")]
    return max(found, default=folder.stat().st_mtime_ns) // 1_000
