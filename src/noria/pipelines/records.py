"""What is told of a plan and of a run."""

from datetime import datetime
from typing import Any

import msgspec

from noria.records import Run, RunId

__all__ = [
    "AtWork",
    "PipelineResult",
    "Plan",
    "PlanItem",
    "Progress",
    "Retrying",
    "StepFailure",
    "TaskTally",
]


class PlanItem(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a task, and why.

    `state`: `cached` (its kept result stands), `run`, `skip` (its condition is false), or `open` (whether, or
    how often, it runs depends on what has to run before).
    """

    task: str
    state: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do."""

    pipeline: str
    items: tuple[PlanItem, ...]

    @property
    def stale(self) -> tuple[PlanItem, ...]:
        """What would, or might, run."""
        return tuple(each for each in self.items if each.state in ("run", "open"))


class AtWork(msgspec.Struct, frozen=True, kw_only=True):
    """A task that runs right now."""

    task: str
    run: RunId
    since: datetime
    attempt: int
    attempts_at_most: int = 1
    done: float | None = None
    total: float | None = None
    note: str = ""


class Retrying(msgspec.Struct, frozen=True, kw_only=True):
    """A task that failed and is tried again at `begins_at`."""

    task: str
    attempt: int  # the one to come
    attempts_at_most: int
    begins_at: datetime
    because: str  # how the attempt before failed


class TaskTally(msgspec.Struct, frozen=True, kw_only=True):
    """How the tasks of one node stand: state -> how many."""

    node: str
    total: int | None
    counts: dict[str, int]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run of a pipeline is."""

    run: RunId
    pipeline: str
    state: str
    started_at: datetime
    counts: dict[str, int]
    nodes: tuple[TaskTally, ...]
    at_work: tuple[AtWork, ...]
    retrying: tuple[Retrying, ...] = ()
    waiting_for: str | None = None
    cpu_s: float = 0.0


class StepFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A step that failed for good."""

    task: str
    run: RunId
    kind: str
    message: str
    trace: str
    attempts: int
    attempts_at_most: int = 1

    @property
    def told(self) -> str:
        """What failed, at which attempt if there may be several, and how."""
        which = ""
        if self.attempts_at_most > 1:
            which = f" (attempt {self.attempts} of {self.attempts_at_most}"
            which += ")" if self.attempts == self.attempts_at_most else ", not tried again)"
        return f"{self.task}{which}: {self.kind}: {self.message}"


class PipelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run of a pipeline.

    Attributes
    ----------
    counts
        By state of tasks: `ran`, `cached`, `skipped`, `failed`, `blocked`.
    skipped
        By task that was not run: why.
    outputs
        By task: the digest of what it gave.
    runs
        By task: the run that made what it gave, this time or earlier.
    value
        What the pipeline's function returned, with results in place of what stood for them; None where the
        run failed.
    """

    run: Run
    counts: dict[str, int]
    skipped: dict[str, str]
    outputs: dict[str, str]
    runs: dict[str, RunId]
    failures: tuple[StepFailure, ...]
    value: Any = None
