"""How each pipeline last ran, what is at work now, and when its schedule comes next."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from noria.ledger.store import Ledger
from noria.pipelines.records import AtWork, Progress
from noria.pipelines.store import PipelineStore
from noria.records import Run, RunId, RunState
from noria.triggers.declarations import Trigger

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["NextTick", "PipelineRun", "PipelineState", "pipeline_states"]

_COUNTED = "tasks_"  # of a run's metrics: how many tasks ended so


class PipelineRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a pipeline.

    Attributes
    ----------
    steps
        How many have `ran`, were `cached` (their kept results stand), have `failed` and so on; of a run that
        was killed within its first second nothing is known.
    at_work
        The steps that run now.
    """

    id: RunId
    state: RunState
    started_at: datetime
    ended_at: datetime | None
    steps: dict[str, int]
    at_work: tuple[AtWork, ...]


class NextTick(msgspec.Struct, frozen=True, kw_only=True):
    """When a schedule comes next; `noria up` acts on it."""

    trigger: str
    schedule: str
    at: datetime


class PipelineState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pipeline stands, or a step that was run on its own."""

    name: str
    is_declared: bool
    last: PipelineRun | None
    next: NextTick | None  # the first of its triggers' schedules


def pipeline_states(project: "Project", runs: Iterable[Run], *, at: datetime) -> tuple[PipelineState, ...]:
    """Tell of each pipeline that is declared or has run.

    Parameters
    ----------
    runs
        Newest first.
    at
        Schedules come next after this instant.
    """
    declared = project.declarations
    newest: dict[str, Run] = {}
    for run in runs:
        if run.kind == "pipeline":
            newest.setdefault(run.name, run)
    names = dict.fromkeys([*declared.pipelines, *sorted(newest)])
    store = _store(project.ledger) if newest else None
    ticks = _next_ticks(declared.triggers, at)
    return tuple(
        PipelineState(
            name=name,
            is_declared=name in declared.pipelines or name in declared.steps,
            last=_told(newest[name], store) if store is not None and name in newest else None,
            next=ticks.get(name),
        )
        for name in names
    )


def _store(ledger: Ledger) -> PipelineStore:
    return PipelineStore(ledger.database, ledger.scope)


def _told(run: Run, store: PipelineStore) -> PipelineRun:
    steps = {
        name.removeprefix(_COUNTED): int(count)
        for name, count in run.metrics.items()
        if name.startswith(_COUNTED) and count
    }
    shown = None
    if not steps:  # it is at work, or came to no end of its own
        found = store.find_progress(run.id)
        shown = None if found is None else msgspec.json.decode(found[0], type=Progress)
    is_running = run.state is RunState.RUNNING
    return PipelineRun(
        id=run.id,
        state=run.state,
        started_at=run.started_at,
        ended_at=run.ended_at,
        steps=steps if shown is None else shown.counts,
        at_work=shown.at_work if shown is not None and is_running else (),
    )


def _next_ticks(triggers: Mapping[str, Trigger], at: datetime) -> dict[str, NextTick]:
    """Give the first instant to come of each pipeline that a schedule runs."""
    ticks: dict[str, NextTick] = {}
    for trigger in triggers.values():
        schedule = trigger.schedule
        if schedule is None or not trigger.runs_pipeline:
            continue
        tick = NextTick(trigger=trigger.name, schedule=schedule.text, at=schedule.next_after(at))
        before = ticks.get(trigger.run.name)
        if before is None or tick.at < before.at:
            ticks[trigger.run.name] = tick
    return ticks
