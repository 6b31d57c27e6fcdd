"""A run of a pipeline in whole: its steps, how often each was tried, its cost, what was read and made."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import select

from noria.ledger.rows import to_version
from noria.ledger.store import Ledger
from noria.ledger.tables import edges, versions
from noria.pipelines.records import Progress
from noria.pipelines.results import Outcome, find_outcome
from noria.pipelines.trees import told_of
from noria.records import Cost, Run, RunId, RunState, Version, VersionId
from noria.storage.contract import Storage

__all__ = ["RunAccount", "StepAccount", "account_of", "given_params"]

_AT_ONCE = 500  # runs in one question
_ENDED = {RunState.FINISHED: "ran"}
T = TypeVar("T")


class StepAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a step in a run.

    Attributes
    ----------
    state
        `ran`, `cached` (its kept result stands), `failed`, `skipped`, `blocked` (something that it waits for
        failed), `running`, `cancelled` or `killed`.
    run
        Of its last attempt; of a kept result: the run that made it.
    attempts
        How often it was tried in this run.
    cost
        Of all attempts together; None where none has ended.
    because
        Why it was skipped or blocked, or how the last attempt failed.
    """

    step: str
    state: str
    run: RunId | None = None
    attempts: int = 0
    cost: Cost | None = None
    because: str | None = None


class RunAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a pipeline in whole.

    Attributes
    ----------
    params
        What the pipeline was called with.
    counts
        By state of steps. Of a run that was killed or cancelled: as far as it is known.
    steps
        In the order of the graph.
    value
        What the pipeline gave, in a few words.
    inputs
        Versions that its steps read, kept ones too, and that none of them made.
    outputs
        Versions that its steps made.
    kept
        Versions that its kept steps made earlier.
    progress
        How far it is, while it is at work.
    """

    run: Run
    params: dict[str, Any]
    counts: dict[str, int]
    steps: tuple[StepAccount, ...]
    value: str | None
    inputs: tuple[Version, ...]
    outputs: tuple[Version, ...]
    kept: tuple[Version, ...]
    progress: Progress | None = None


def given_params(run: Run) -> dict[str, Any]:
    """Give what the pipeline of a run was called with."""
    params: dict[str, Any] = run.params.get("params", {})
    return params


def account_of(
    run: Run, steps: Sequence[Run], progress: Progress | None, *, ledger: Ledger, storage: Storage
) -> RunAccount:
    """Give a run of a pipeline in whole.

    Parameters
    ----------
    steps
        The runs of its steps.
    progress
        How far it is, or was last.
    """
    outcome = find_outcome(run, storage)
    at_work = progress if run.state is RunState.RUNNING else None
    found = _ran(run.name, [each for each in steps if each.kind == "step"])
    if outcome is not None:
        found |= _not_run(outcome, found)
    elif at_work is not None:
        found |= _at_work(at_work, found)
    ordered = sorted(found.values(), key=_order(outcome, progress))
    runs = dict.fromkeys(each.run for each in ordered if each.run is not None)
    edges_of = _Edges(ledger, [*runs, *(each.id for each in steps if each.id not in runs)])
    now = {each.id for each in steps}
    read = edges_of.versions("input")
    made, kept = edges_of.versions("output", now), edges_of.versions("output", set(runs) - now)
    return RunAccount(
        run=run,
        params=given_params(run),
        counts=_counts(outcome, progress, found),
        steps=tuple(ordered),
        value=None if outcome is None or outcome.value is None else told_of(outcome.value),
        inputs=tuple(each for id, each in read.items() if id not in made and id not in kept),
        outputs=tuple(made.values()),
        kept=tuple(each for id, each in kept.items() if id not in made),
        progress=at_work,
    )


def _ran(pipeline: str, steps: Iterable[Run]) -> dict[str, StepAccount]:
    """Tell of what was tried: the last attempt counts."""
    attempts: dict[str, list[Run]] = {}
    for each in steps:
        attempts.setdefault(each.name.removeprefix(f"{pipeline}/"), []).append(each)
    found = {}
    for name, tries in attempts.items():
        last = max(tries, key=lambda each: each.id)  # ids sort by the instant at which they were made
        costs = [each.cost for each in tries if each.cost is not None]
        found[name] = StepAccount(
            step=name,
            state=_ENDED.get(last.state, last.state.value),
            run=last.id,
            attempts=max(each.attempt for each in tries),
            cost=Cost(cpu_s=sum(each.cpu_s for each in costs), wall_s=sum(each.wall_s for each in costs))
            if costs
            else None,
            because=last.error,
        )
    return found


def _not_run(outcome: Outcome, ran: Mapping[str, StepAccount]) -> dict[str, StepAccount]:
    """Tell of what was kept, skipped or blocked."""
    kept = {
        name: StepAccount(step=name, state="cached", run=run)
        for name, run in outcome.runs.items()
        if name not in ran
    }
    skipped = {
        name: StepAccount(step=name, state="skipped", because=because)
        for name, because in outcome.skipped.items()
    }
    blocked = {
        name: StepAccount(step=name, state="blocked", because=f"it waits for {because}, which failed")
        for name, because in outcome.blocked.items()
    }
    return kept | skipped | blocked


def _at_work(progress: Progress, ran: Mapping[str, StepAccount]) -> dict[str, StepAccount]:
    """Tell of what is at work, or about to be tried again."""
    now = datetime.now(UTC)
    found = {}
    for each in progress.at_work:
        before = ran.get(each.task)
        if before is None or before.state != "ran":
            spent = Cost(cpu_s=0.0, wall_s=max((now - each.since).total_seconds(), 0.0))
            found[each.task] = StepAccount(
                step=each.task, state="running", run=each.run, attempts=each.attempt, cost=spent
            )
    for again in progress.retrying:
        before = ran.get(again.task)
        found[again.task] = StepAccount(
            step=again.task,
            state="running",
            run=None if before is None else before.run,
            attempts=again.attempt - 1,
            cost=None if before is None else before.cost,
            because=again.because,
        )
    return found


def _counts(
    outcome: Outcome | None, progress: Progress | None, found: Mapping[str, StepAccount]
) -> dict[str, int]:
    if outcome is not None:
        return outcome.counts
    counts = Counter(each.state for each in found.values())
    for state in ("cached", "skipped", "blocked"):  # those that leave no run are known from here only
        counts[state] = max(counts[state], 0 if progress is None else progress.counts.get(state, 0))
    return {state: number for state, number in counts.items() if number}


def _order(outcome: Outcome | None, progress: Progress | None) -> Any:
    if outcome is not None and outcome.nodes:
        names = outcome.nodes
    else:
        names = [] if progress is None else [each.node for each in progress.nodes]
    places = {name: place for place, name in enumerate(names)}

    def place(step: StepAccount) -> tuple[int, int, str]:
        node, _, index = step.step.partition("[")
        number = int(index.rstrip("]")) if index else 0
        return places.get(node, len(places)), number, step.run or "g"  # behind all ids, which are hex digits

    return place


class _Edges:
    """The versions that runs read and made, in the order of the runs."""

    def __init__(self, ledger: Ledger, runs: Sequence[RunId]) -> None:
        places = {run: place for place, run in enumerate(runs)}
        joined = edges.join(versions, versions.c.id == edges.c.version)
        query = select(edges.c.run.label("of"), edges.c.role, *versions.c).select_from(joined)
        self._found: list[tuple[RunId, str, Version]] = []
        with ledger.database.read() as connection:
            for some in _batches(runs):
                for row in connection.execute(query.where(edges.c.run.in_(some))).mappings():
                    values = dict(row)
                    run, role = values.pop("of"), values.pop("role")
                    self._found.append((run, role, to_version(values)))
        self._found.sort(key=lambda each: (places[each[0]], each[2].name, each[2].number))

    def versions(self, role: str, runs: Collection[RunId] | None = None) -> dict[VersionId, Version]:
        return {
            version.id: version
            for run, its_role, version in self._found
            if its_role == role and (runs is None or run in runs)
        }


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, _AT_ONCE)):
        yield some
