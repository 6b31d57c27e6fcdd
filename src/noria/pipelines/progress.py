"""How far a run is, in numbers that a screen can show."""

import time
from collections.abc import Callable, Iterable

import msgspec

from noria.errors import StoreError
from noria.pipelines.attempts import Attempt
from noria.pipelines.progression import Progression
from noria.pipelines.records import AtWork, Progress, Retrying, TaskTally
from noria.pipelines.store import PipelineStore
from noria.records import Run, RunId

__all__ = ["Board", "tally"]

_SHOW_EVERY_S = 0.5
_BECAUSE_CHARS = 200
_RECORD_AFTER_S = 1.0  # what is over before is not worth it


class Board:
    """Where a run shows how far it is: to whoever asked to be told, and in the database to all others."""

    def __init__(
        self,
        store: PipelineStore,
        run: RunId,
        progress: Callable[[], Progress],
        tell: Callable[[Progress], None] | None,
    ) -> None:
        self._store, self._run, self._progress, self._tell = store, run, progress, tell
        self._began, self._shown_at, self._body = time.monotonic(), 0.0, b""

    def show(self, *, force: bool = False, is_recorded: bool = True) -> None:
        """Show it, if it is time."""
        now = time.monotonic()
        if not force and now - self._shown_at < _SHOW_EVERY_S:
            return
        self._shown_at = now
        progress = self._progress()
        if self._tell is not None:
            self._tell(progress)
        body = msgspec.json.encode(progress)
        if is_recorded and body != self._body and now - self._began > _RECORD_AFTER_S:
            try:
                self._store.put_progress(self._run, body)
            except StoreError:
                return  # the next one will do
            self._body = body


def tally(
    progression: Progression,
    at_work: Iterable[Attempt],
    put_off: Iterable[Attempt],
    run: Run,
    *,
    stopping: str | None,
    waiting_for: str | None,
    cpu_s: float,
) -> Progress:
    """Count the tasks of each node by state; `put_off`: what is tried again later."""
    working = list(at_work)
    busy: dict[str, int] = {}
    for attempt in working:
        busy[attempt.task.node.name] = busy.get(attempt.task.node.name, 0) + 1
    nodes, counts = [], dict[str, int]()
    unexpanded = {node.name for node in progression.unexpanded()}
    for node in progression.graph.nodes:
        if node.name in unexpanded:
            nodes.append(TaskTally(node=node.name, total=None, counts={}))
            continue
        tasks = progression.tasks[node.name]
        found: dict[str, int] = {}
        for task in tasks:
            found[task.state.value] = found.get(task.state.value, 0) + 1
        queued = found.get("running", 0) - busy.get(node.name, 0)
        if queued > 0:
            found["queued"] = queued
            found["running"] -= queued
        for state, number in found.items():
            counts[state] = counts.get(state, 0) + number
        nodes.append(
            TaskTally(node=node.name, total=len(tasks), counts={k: v for k, v in found.items() if v})
        )
    return Progress(
        run=run.id,
        pipeline=progression.graph.name,
        state="stopping" if stopping else "running",
        started_at=run.started_at,
        counts={state: number for state, number in counts.items() if number},
        nodes=tuple(nodes),
        at_work=tuple(
            AtWork(
                task=each.task.id,
                run=each.run,
                since=each.started_at,
                attempt=each.number,
                attempts_at_most=each.at_most,
                done=each.done,
                total=each.total,
                note=each.note,
            )
            for each in working
        ),
        retrying=tuple(
            Retrying(
                task=each.task.id,
                attempt=each.number,
                attempts_at_most=each.at_most,
                begins_at=each.begins_at,
                because=each.because.partition("\n")[0][:_BECAUSE_CHARS],
            )
            for each in put_off
            if each.because and each.begins_at is not None
        ),
        waiting_for=waiting_for,
        cpu_s=cpu_s,
    )
