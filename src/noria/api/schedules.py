"""When triggers come next."""

from datetime import datetime

import msgspec

from noria.triggers.declarations import Decay, Stale, Trigger, leaves
from noria.workspace.project import Project

__all__ = ["TriggerSchedule", "list_schedules"]

_SHOWN = 5


class TriggerSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger and the next instants of its schedule."""

    trigger: str
    runs: str
    by: str  # "up", or "replay": in this release a training is run by a replay only
    schedule: str | None
    tz: str | None
    catch_up: str | None
    monitors: tuple[str, ...]
    datasets: tuple[str, ...]  # that it waits for to go stale
    last: datetime | None  # the last instant that was ticked
    next: tuple[datetime, ...]


def list_schedules(project: Project, *, at: datetime) -> list[TriggerSchedule]:
    """List the project's triggers with the instants that come after `at`."""
    return [_read(project, each, at) for each in project.declarations.triggers.values()]


def _read(project: Project, trigger: Trigger, at: datetime) -> TriggerSchedule:
    schedule = trigger.schedule
    ticks = project.ledger.list_events(
        verb="schedule.ticked", subject=trigger.name, newest_first=True, limit=1
    )
    following: list[datetime] = []
    while schedule is not None and len(following) < _SHOWN:
        following.append(schedule.next_after(following[-1] if following else at))
    return TriggerSchedule(
        trigger=trigger.name,
        runs=trigger.run.name,
        by="up" if trigger.runs_pipeline else "replay",
        schedule=schedule.text if schedule else None,
        tz=schedule.tz if schedule else None,
        catch_up=schedule.catch_up.value if schedule else None,
        monitors=tuple(each.monitor.name for each in leaves(trigger.on) if isinstance(each, Decay)),
        datasets=tuple(each.dataset.name for each in leaves(trigger.on) if isinstance(each, Stale)),
        last=ticks[0].at if ticks else None,
        next=tuple(following),
    )
