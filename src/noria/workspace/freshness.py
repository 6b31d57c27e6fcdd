"""Which datasets have gone stale: asked at any time, and put on record by `noria up`, once."""

from collections.abc import Callable
from datetime import datetime

from noria.errors import StoreError
from noria.lake.declarations import Dataset
from noria.lake.freshness import Freshness, find_freshness, wanted_age
from noria.records import Event
from noria.workspace.opened import Opened
from noria.workspace.up.records import Notice, NoticeKind

__all__ = ["FreshnessWatch", "standing_at", "tell_freshness", "told_stale"]


def standing_at(project: Opened) -> datetime:
    """Give the instant by which a project's data is fresh or not: where its replay stands, else now.

    An environment that goes by the wall's clock is served now, whatever was replayed before.
    """
    by_the_wall = any(each.clock == "wall" for each in project.settings.environments.values())
    if project.declarations.replays and project.has_begun and not by_the_wall:
        newest = (
            each
            for verb in ("replay.began", "replay.day_done")
            for each in project.ledger.list_events(verb=verb, newest_first=True, limit=1)
        )
        last = max(newest, key=_place, default=None)
        if last is not None:
            return last.at
    return project.clock.now()


def told_stale(project: Opened) -> dict[str, str]:
    """Give the declared datasets that are older than a check `fresh` of theirs allows -> how old they are.

    Raises
    ------
    StoreError
        If one of them cannot be read.
    """
    stale, unreadable = tell_freshness(project)
    for error in unreadable.values():
        raise error
    return stale


def tell_freshness(project: Opened) -> tuple[dict[str, str], dict[str, StoreError]]:
    """Give the datasets that are stale -> how old they are; and those that cannot be read -> why."""
    stale: dict[str, str] = {}
    unreadable: dict[str, StoreError] = {}
    wanted = [each for each in project.declarations.datasets.values() if wanted_age(each) is not None]
    if not wanted or not project.has_begun:
        return stale, unreadable
    at = standing_at(project)
    for dataset in wanted:
        try:
            found = find_freshness(project.lake, dataset)
        except StoreError as err:
            unreadable[dataset.name] = err
            continue
        if found is not None and found.is_stale(at):
            stale[dataset.name] = found.told(at)
    return stale, unreadable


class FreshnessWatch:
    """Puts on record that a dataset has gone stale, and that it is fresh again. For one thread.

    Parameters
    ----------
    tell
        Is called with what is put on record, and once with what keeps a dataset from being looked at.
    """

    def __init__(self, project: Opened, *, tell: Callable[[Notice], None]) -> None:
        self._project, self._tell = project, tell
        self._watched = [each for each in project.declarations.datasets.values() if wanted_age(each)]
        self._known: dict[str, tuple[str, Freshness | None]] = {}  # as of the last event about it
        self._troubles: dict[str, str] = {}

    def look(self) -> None:
        """Look at each dataset once. Raises `StoreError` if the ledger is away."""
        if not self._watched:
            return
        at = standing_at(self._project)
        for dataset in self._watched:
            last = self._last("dataset.*", dataset.name)
            if last is None:
                continue  # nothing has come yet
            found = self._look_at(dataset, last, at)
            if found is None:
                continue
            said = self._last("dataset.stale", dataset.name)
            fresh_again = self._last("dataset.fresh", dataset.name)
            was_stale = said is not None and (fresh_again is None or fresh_again.seq < said.seq)
            if found.is_stale(at) != was_stale:
                newest = max((each for each in (said, fresh_again) if each), key=_place, default=None)
                self._record(found, stale=not was_stale, after=newest, cause=last, at=at)

    def _look_at(self, dataset: Dataset, last: Event, at: datetime) -> Freshness | None:
        """Look into the lake where something happened to the dataset since the last time."""
        known = self._known.get(dataset.name)
        if known is not None and known[0] == last.id:
            return known[1]
        try:
            found = find_freshness(self._project.lake, dataset)
        except StoreError as err:
            if self._troubles.get(dataset.name) != str(err):
                self._troubles[dataset.name] = str(err)
                told = f"whether dataset {dataset.name} is fresh cannot be told: {err}"
                self._say(NoticeKind.WARNING, told, dataset.name, at)
            return None
        self._troubles.pop(dataset.name, None)
        self._known[dataset.name] = (last.id, found)
        return found

    def _record(
        self, found: Freshness, *, stale: bool, after: Event | None, cause: Event, at: datetime
    ) -> None:
        state, verb = ("stale", "dataset.stale") if stale else ("fresh", "dataset.fresh")
        reason = f"dataset {found.name} is {state}: {found.told(at)}"
        self._project.ledger.append(
            verb,
            subject=found.name,
            payload={
                "reason": reason,
                "age_s": round((at - found.newest_at).total_seconds()),
                "max_age_s": found.max_age_s,
            },
            cause=cause.id,
            key=f"dataset/{state}/{found.name}/{'first' if after is None else after.id}",
            at=at,
        )
        self._say(NoticeKind.DATA, reason, found.name, at)

    def _last(self, verb: str, name: str) -> Event | None:
        found = self._project.ledger.list_events(verb=verb, subject=name, newest_first=True, limit=1)
        return found[0] if found else None

    def _say(self, kind: NoticeKind, message: str, name: str, at: datetime) -> None:
        self._tell(Notice(at=at, kind=kind, message=message, facts={"dataset": name}))


def _place(event: Event) -> int:
    return event.seq
