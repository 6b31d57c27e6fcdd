"""Runs that a server keeps: from settings to the server, and what waits for one sent."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from noria.config import Tracking, find_project, read_tracking, spool_folder
from noria.errors import ConfigError, ProjectNotFound
from noria.tracking.remote.client import RemoteServer, server_location
from noria.tracking.remote.place import RemotePlace
from noria.tracking.remote.spools import server_of
from noria.tracking.remote.syncing import LogSynced, WaitingLogs, list_waiting, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from noria.records import RunId

__all__ = ["RunsSynced", "remote_place", "sync_runs", "tracking_here", "waiting_runs"]


class RunsSynced(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent to servers, and what was not."""

    logs: list[LogSynced]
    at_work: int  # logs of processes that live: they send theirs themselves

    @property
    def is_whole(self) -> bool:
        """Whether nothing waits, and nothing was refused."""
        return all(each.is_sent and not each.refused for each in self.logs)


class _RemoteShelf:
    """Writes models here; a server's catalogue is the server's."""

    def write(self, model: object, folder: Path, *, example: object | None, serialization: str) -> str:
        """Write a model into an empty folder; give its flavor. Raises `ConfigError`, `SourceError`."""
        from noria.registry.folders.writing import write_model_folder

        if serialization not in ("skops", "pickle"):
            raise ConfigError(f"serialization={serialization!r}: found another than skops and pickle")
        kind = cast("Literal['skops', 'pickle']", serialization)
        return write_model_folder(model, folder, example=example, serialization=kind).flavor

    def check_registrable(self, name: str) -> None:
        """Raise `ConfigError`: the model may be sent only later."""
        raise ConfigError(
            f"a run that a server keeps cannot register a model as {name!r} while it is at work, for it may "
            "be sent later; leave `registered` out, and register models:/ID on the server"
        )

    def register(self, name: str, *, logged_model: str, run: RunId) -> int:
        """Raise `ConfigError`."""
        self.check_registrable(name)
        raise AssertionError


def tracking_here(folder: Path | None = None) -> tuple[Tracking, Path | None]:
    """Give what is said of servers here, and the folder of the project, if there is one."""
    try:
        found = find_project(folder)
    except ProjectNotFound:
        return read_tracking(None), None
    return read_tracking(found), found


@contextmanager
def remote_place(url: str, tracking: Tracking, *, folder: Path | None) -> Iterator[RemotePlace]:
    """Give a server for one run, for as long as that is at work.

    Parameters
    ----------
    folder
        Whose code the run names.

    Raises
    ------
    ConfigError
        If the URL is none.
    """
    place = RemotePlace(
        _server(url, tracking),
        spool_folder(tracking),
        code_root=folder,
        patience_s=tracking.patience_s,
        models=_RemoteShelf(),
    )
    with closing(place):
        yield place


def sync_runs(
    server: str | None = None, *, again: bool = False, tell: Callable[[LogSynced], None] | None = None
) -> RunsSynced:
    """Send what waits on this machine for servers: of runs that began without one, or whose process died.

    May be called at any time, also by several at once; what was cut off goes on where it was.

    Parameters
    ----------
    server
        Only what waits for this one; default: for all.
    again
        Whether to send what was refused once more.
    tell
        Called with each log that was looked at.

    Raises
    ------
    ConfigError
        If the URL is none, or a setting is wrong.
    StoreError
        If the folder of what waits cannot be read.
    """
    tracking, _ = tracking_here()
    root = spool_folder(tracking)
    location = None if server is None else server_location(server)
    logs: list[LogSynced] = []
    at_work = 0
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        found = server_of(folder)
        if found is None or (location is not None and found != location):
            continue
        asked = _server(server or _known_url(found, tracking), tracking)
        before = _logs(folder)
        seen = set()
        with closing(asked):
            for each in sync_folder(asked, folder, again=again):
                logs.append(each)
                seen.add(each.folder)
                if tell is not None:
                    tell(each)
        at_work += len((before - seen) & _logs(folder))
    return RunsSynced(logs=logs, at_work=at_work)


def waiting_runs() -> list[WaitingLogs]:
    """Tell of what waits on this machine for servers; nothing is sent. Raises `ConfigError`."""
    tracking, _ = tracking_here()
    return list_waiting(spool_folder(tracking))


def _logs(folder: Path) -> set[str]:
    return {str(each) for each in folder.iterdir() if each.is_dir()}


def _server(url: str, tracking: Tracking) -> RemoteServer:
    """Give a server; the token is that of the server of the settings, if they name one."""
    is_its = not tracking.server or server_location(tracking.server) == server_location(url)
    patience_s = max(tracking.patience_s, 0.1)
    return RemoteServer(url, token=tracking.token if is_its else "", connect_s=patience_s)


def _known_url(location: str, tracking: Tracking) -> str:
    """Give the URL of a server with user and password, where the settings have them."""
    if tracking.server and server_location(tracking.server) == location:
        return tracking.server
    return location
