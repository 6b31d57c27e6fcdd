"""The loop of one run: decide, hand over, take back, keep, until nothing is left."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import NoriaError, RunCancelled, StoreError
from noria.pipelines.attempts import Attempt, Attempts, backoff_s
from noria.pipelines.code.project import ProjectCode
from noria.pipelines.deciding import Cached, Decider, Open, Skip, SmallValues, Stale, damaged
from noria.pipelines.declarations import Resources
from noria.pipelines.executor import Done, Executor, Failure, Lost, Progressed, Report, Started, Work
from noria.pipelines.graph import Graph
from noria.pipelines.keeping import Keeper
from noria.pipelines.keys import Made
from noria.pipelines.progress import Board, tally
from noria.pipelines.progression import ENDED, UNKNOWN, Progression, State
from noria.pipelines.recording import Patience, Recorder
from noria.pipelines.records import Progress, StepFailure
from noria.pipelines.results import Outcome
from noria.pipelines.scratch import Desk, working_below
from noria.pipelines.store import Ingredients
from noria.pipelines.trees import Tree, digest_of_tree, filled, stored_in
from noria.pipelines.watching import Watch
from noria.records import Run, RunId, RunState, new_id

if TYPE_CHECKING:
    from noria.pipelines.engine import Engine

__all__ = ["ArtifactsGone", "RunLoop"]

_OPEN_AFTER_S = 1.0  # a step that takes longer is on record while it runs
_BEAT_EVERY_S = 10.0
_POLL_S = 0.3
_LOST_AT_MOST = 5


class ArtifactsGone(Exception):
    """Kept results that a step reads are gone or damaged: their steps have to run again."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"{len(keys)} kept results are gone")
        self.keys = keys


@dataclass(eq=False)
class RunLoop:
    """One way through a graph."""

    engine: "Engine"
    graph: Graph
    run: Run
    once: str
    forced: frozenset[str]
    executor: str
    tell: Callable[[Progress], None] | None
    renew: Callable[[], None]
    failures: list[StepFailure] = field(default_factory=list)
    _desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        """Open what it works with."""
        engine = self.engine
        self._progression = Progression(self.graph)
        self._code = ProjectCode(engine.root)
        self._keys = engine.keys_for(self._progression, self._code, once=self.once)
        self._decider = Decider(
            self._progression, self._keys, engine.store, engine.storage, engine.resolver, force=self.forced
        )
        self._attempts = Attempts(self._borrow, self._give_back, self._wanted())
        self._keeper = Keeper(
            self.graph, self._progression, self._keys, engine.storage, self.run.id,
            engine.ledger.find_start(self.run.id), engine.ledger,
        )  # fmt: skip
        self._deciding, self._handing = Patience(self._note_waiting), Patience(self._note_waiting)
        self._recorder = Recorder(
            self.graph.name, engine.ledger, engine.store, engine.storage, self._code,
            self._keeper.note_versions, Patience(self._note_waiting),
        )  # fmt: skip
        limit = self.graph.deadline
        self._watch = Watch(
            engine.ledger,
            self.run.id,
            renew=self.renew,
            limit_s=None if limit is None else limit.total_seconds(),
            end=self._interrupt,
            attend=self._attend,
        )
        self._lock = threading.RLock()  # held by the loop but for when it waits, or runs a step itself
        self._made: dict[str, Made] = {}
        self._found: dict[tuple[str, str], tuple[str, Ingredients]] = {}  # made of other things than last
        self._runs: dict[str, RunId] = {}
        self._board = Board(engine.store, self.run.id, self.progress, self.tell)
        self._beaten, self._not_before = time.monotonic(), 0.0
        self._stopping: str | None = None
        self._cancelled_by: str | None = None
        self._has_heeded = False
        self._gone: list[str] = []
        self._waiting_for: str | None = None
        self._cpu_s = 0.0
        self._loaded: dict[str, str] = {}  # source files that processes at work were made of -> sha256

    # -- the loop

    def go(self) -> None:
        """Run everything that is stale.

        Raises
        ------
        ArtifactsGone
            If something has to be made again first.
        RunCancelled
            If it was cancelled.
        """
        with working_below(Path(self.engine.place.scratch)) as self._desk:
            try:
                self._deciding.insist(self.engine.ledger.mark_killed)
                self._watch.start()
                self._board.show()
                self._loop()
            except BaseException as error:
                self._watch.stop()
                self._leave(error)
                raise
            finally:
                self._watch.stop()
                self._attempts.close()
                self._board.show(force=True)
        if self._cancelled_by is not None:
            raise RunCancelled(f"pipeline {self.graph.name!r}", self._cancelled_by)
        if self._gone and not self._has_heeded:
            raise ArtifactsGone(self._gone)
        for name, told in self._progression.broken.items():
            self._note_failure(name, self.run.id, Failure(kind="ValueError", message=told), attempts=0)

    def _loop(self) -> None:
        while True:
            with self._lock:
                self._heed()
                if self._stopping is None:  # one may need the database where the other does not
                    self._deciding.attempt(self._decide)
                    self._handing.attempt(self._attempts.dispatch)
                if self._attempts.is_empty and (self._stopping is not None or not self._progression.ready):
                    self._recorder.flush()
                    if self._found:  # so that a later plan compares with this run
                        self._deciding.insist(lambda: self.engine.store.note_latest(self._found))
                    return
                self._recorder.flush_if_due()
                wait_s = self._wait_s()
            reports = self._attempts.poll(wait_s)
            with self._lock:
                self._heed()
                self._take(reports)
                self._attempts.end_overdue()
                self._see_to_long_steps()
                self._board.show()

    def _wait_s(self) -> float:
        """Tell how long to wait for a report."""
        wait = _POLL_S
        if self._progression.ready and self._stopping is None:
            wait = min(wait, self._deciding.rest_s)
        due = self._recorder.due_in_s
        if due is not None:
            wait = min(wait, due)
        deadline = self._attempts.next_deadline
        if deadline is not None:
            wait = min(wait, max(deadline - time.monotonic(), 0.01))
        return wait

    def _decide(self) -> None:
        """Decide about all tasks that can go on; queue what is stale."""
        while self._progression.ready:
            tasks = list(self._progression.ready)
            verdicts = self._decider.decide(tasks)  # where the database is away, they stay ready
            self._progression.ready.clear()
            for task, verdict in zip(tasks, verdicts, strict=True):
                match verdict:
                    case Cached(made=made, entry=entry):
                        self._made[task.id] = made
                        latest = self._decider.latest.get(task.id)
                        if latest is None or latest.key != made.key:
                            self._found[self.graph.name, task.id] = made.key, made.ingredients
                        self._keeper.note_versions(task.id, entry.versions)
                        self._runs[task.id] = RunId(entry.run)
                        self._progression.complete(task, entry.output, State.CACHED)
                    case Stale(made=made):
                        self._made[task.id] = made
                        task.state = State.RUNNING
                        self._queue(Attempt(task, made, RunId(new_id())))
                    case Skip(because=because):
                        self._progression.skip(task, because)
                    case Open(because=because):
                        raise AssertionError(f"{task.id} cannot be decided in a run: {because}")

    def _queue(self, attempt: Attempt, *, after_s: float = 0.0) -> None:
        attempt.executor = attempt.task.node.step.executor or self.executor
        self._attempts.queue(attempt, self._work, after_s=after_s)

    def _work(self, attempt: Attempt) -> Work:
        """Make what is handed to an executor: small values travel along."""
        made, task = attempt.made, attempt.task
        self._decider.values.fill(made.arguments.values())
        return Work(
            run=attempt.run,
            task=f"{self.graph.name}/{task.id}",
            target=task.node.step.target,
            arguments={name: filled(tree, self._decider.values.get) for name, tree in made.arguments.items()},
            split=made.ingredients.split,
            seed=int(made.key[:8], 16),
            attempt=attempt.number,
            log=self._desk.log_of(attempt.run),
            timeout_s=attempt.timeout_s,
        )

    # -- what comes back

    def _take(self, reports: list[Report]) -> None:
        for report in reports:
            if isinstance(report, Progressed):
                self._note_progress(report)
                continue
            attempt = self._attempts.end(report.run)
            if attempt is None:
                continue
            if isinstance(report, Lost):
                self._lost(attempt, report)
            else:
                self._ended(attempt, report)

    def _note_progress(self, report: Progressed) -> None:
        attempt = self._attempts.at_work.get(report.run)
        if attempt is not None:
            attempt.begin()
            if not isinstance(report, Started):
                attempt.done, attempt.total, attempt.note = report.done, report.total, report.note

    def _ended(self, attempt: Attempt, done: Done) -> None:
        self._cpu_s += done.cpu_s
        self._loaded |= done.modules
        if done.failure is not None:
            self._failed(attempt, done.failure, done)
            return
        if changed := self._keys.changed_since(attempt.made.code, self._loaded):
            told = (
                f"{', '.join(changed[:3])} changed after the run had begun, so it is not known which state "
                "the result belongs to; run it again"
            )
            self._failed(attempt, Failure(kind="CodeChanged", message=told, is_final=True), done)
            return
        task, output = attempt.task, done.output
        assert output is not None
        self._decider.values.add(
            (each.sha256, each.data) for each in stored_in(output) if each.data is not None
        )
        self._keep(attempt, done, state=RunState.FINISHED, output=output)
        self._runs[task.id] = attempt.run
        self._progression.complete(task, output, State.RAN)

    def _lost(self, attempt: Attempt, lost: Lost) -> None:
        if lost.is_infrastructure and attempt.lost < _LOST_AT_MOST and self._stopping is None:
            self._keep(attempt, None, state=RunState.KILLED, error=lost.reason)
            again = Attempt(
                attempt.task, attempt.made, RunId(new_id()), number=attempt.number, lost=attempt.lost + 1
            )
            self._queue(again, after_s=min(0.1 * 2**attempt.lost, 2.0))
            return
        kind = "TimeoutError" if attempt.overdue else "Lost"
        self._failed(attempt, Failure(kind=kind, message=lost.reason), None)

    def _failed(self, attempt: Attempt, failure: Failure, done: Done | None) -> None:
        """Try again, or give up."""
        task, step = attempt.task, attempt.task.node.step
        if failure.kind == "ArgumentGone" and self._find_gone(attempt):
            return
        stopped = self._stopping is not None
        self._keep(
            attempt,
            done,
            state=RunState.CANCELLED if stopped and done is None else RunState.FAILED,
            error=f"{failure.kind}: {failure.message}\n{failure.trace}".strip(),
        )
        if attempt.number <= step.retries and not failure.is_final and not stopped:
            again = Attempt(task, attempt.made, RunId(new_id()), number=attempt.number + 1, lost=attempt.lost)
            again.because = f"{failure.kind}: {failure.message}"
            self._queue(again, after_s=backoff_s(step.backoff.total_seconds(), attempt.number))
            return
        self._note_failure(task.id, attempt.run, failure, attempts=attempt.number, at_most=step.retries + 1)
        self._progression.fail(task)

    def _note_failure(
        self, task: str, run: RunId, failure: Failure, *, attempts: int, at_most: int = 1
    ) -> None:
        told = StepFailure(
            task=task, run=run, kind=failure.kind, message=failure.message, trace=failure.trace,
            attempts=attempts, attempts_at_most=at_most,
        )  # fmt: skip
        self.failures.append(told)

    def _find_gone(self, attempt: Attempt) -> bool:
        """Find which steps gave what is gone; they run again once everything at work has ended."""
        bad = damaged(attempt.made.arguments.values(), self.engine.store, self.engine.storage)
        wanted = {each.node for each in attempt.task.node.reads()}
        keys = [
            self._made[task.id].key
            for task in self._progression.all_tasks()
            if task.node.name in wanted
            and task.id in self._made
            and task.output is not None
            and task.output is not UNKNOWN
            and bad.intersection(each.sha256 for each in stored_in(task.output))
        ]
        if not keys:
            return False
        self._gone.extend(keys)
        told = "what it reads is gone, and is made again first"
        self._keep(attempt, None, state=RunState.CANCELLED, error=told)
        attempt.task.state = State.WAITING
        self._stop("results that it reads are gone and are made again", ends_steps=False)
        return True

    def _keep(
        self,
        attempt: Attempt,
        done: Done | None,
        *,
        state: RunState,
        output: Tree | None = None,
        error: str | None = None,
    ) -> None:
        """Take up the run of an attempt for the record."""
        self._recorder.add(self._keeper.finished(attempt, done, state=state, output=output, error=error))

    # -- what happens around

    def _heed(self) -> None:
        """Stop if the watch has a reason."""
        self._watch.check()
        if self._watch.reason is not None and not self._has_heeded:
            self._has_heeded = True
            self._cancelled_by = self._watch.cancelled_by
            self._stop(self._watch.reason)

    def _attend(self) -> None:
        """See to what cannot wait while a step runs in this very process. The watch calls it."""
        if not self._lock.acquire(timeout=_POLL_S):
            return  # the loop is at work, and sees to it itself
        try:
            for report in self._attempts.glance():
                self._note_progress(report)
            self._recorder.flush_if_due()
            self._see_to_long_steps()
            self._board.show()
        finally:
            self._lock.release()

    def _see_to_long_steps(self) -> None:
        """Have steps that take long on record while they run, and say that they are alive."""
        ledger, now = self.engine.ledger, time.monotonic()
        at_work = list(self._attempts.at_work.values())
        opening = [each for each in at_work if not each.is_open and now - each.began > _OPEN_AFTER_S]
        beats = now - self._beaten > _BEAT_EVERY_S
        if not (beats or opening) or now < self._not_before:
            return
        try:
            for attempt in opening:
                if self._stopping is None:
                    ledger.start_run(
                        "step", f"{self.graph.name}/{attempt.task.id}", cause=self._keeper.cause,
                        parent=self.run.id, params={"executor": attempt.executor}, id=attempt.run,
                        seed=None if attempt.work is None else attempt.work.seed,
                    )  # fmt: skip
                    attempt.is_open = True
            if beats:
                self._beaten = now
                ledger.heartbeat_all([each.run for each in at_work if each.is_open])
        except StoreError as error:
            for attempt in opening:
                attempt.is_unsure = not attempt.is_open
            self._not_before = now + _BEAT_EVERY_S / 5
            self._note_waiting(f"the database is away ({error}); the run goes on")

    def _interrupt(self, reason: str) -> None:
        with self._lock:
            self._attempts.interrupt(reason)

    def _stop(self, reason: str, *, ends_steps: bool = True) -> None:
        """Begin nothing more; end what is at work, or wait for it."""
        self._stopping = reason
        self._progression.ready.clear()
        for attempt in self._attempts.cancel_waiting():
            attempt.task.state = State.WAITING
        if ends_steps:
            self._attempts.cancel_at_work(reason)
        if ends_steps and self._cancelled_by is None:
            failure = Failure(kind="TimeoutError", message=reason)
            self._note_failure(self.graph.name, self.run.id, failure, attempts=1)

    def _leave(self, error: BaseException) -> None:
        """End what is at work when the loop is left by an error or Ctrl-C, and keep what has ended before."""
        with self._lock:
            at_work = list(self._attempts.at_work.values())
            self._attempts.close()
            try:
                for attempt in at_work:
                    told = f"the run of its pipeline was left: {type(error).__name__}"
                    self._keep(attempt, None, state=RunState.CANCELLED, error=told)
                self._recorder.flush_once()
            except NoriaError as second:
                error.add_note(f"what had just ended could not be kept and runs again: {second}")

    def _borrow(self, url: str) -> Executor:
        executor, loaded = self.engine.pool.borrow(url, self._keys.code_of_graph())
        self._loaded |= loaded
        return executor

    def _give_back(self, url: str, executor: Executor, is_idle: bool) -> None:
        self.engine.pool.give_back(
            url, self._keys.code_of_graph(), executor, loaded=self._loaded, is_idle=is_idle
        )

    def _wanted(self) -> dict[str, list[tuple[str, Resources]]]:
        """Tell what the steps of the graph want, by executor."""
        found: dict[str, list[tuple[str, Resources]]] = {}
        for node in self.graph.nodes:
            found.setdefault(node.step.executor or self.executor, []).append((node.name, node.step.resources))
        return found

    def _note_waiting(self, told: str | None) -> None:
        self._waiting_for = told
        self._board.show(force=True, is_recorded=False)

    # -- what is told

    def counts(self) -> dict[str, int]:
        """Count tasks by state."""
        return self._progression.counts()

    def done_nodes(self) -> set[str]:
        """Name the nodes all of whose tasks have run in this way through."""
        return self._progression.nodes_that_ran()

    def progress(self) -> Progress:
        """Tell how far it is."""
        return tally(
            self._progression, self._attempts.at_work.values(), self._attempts.put_off(), self.run,
            stopping=self._stopping, waiting_for=self._waiting_for, cpu_s=self._cpu_s,
        )  # fmt: skip

    def outcome(self) -> Outcome:
        """Give what became of the run, by digests."""
        outputs = {
            task.id: digest_of_tree(task.output)
            for task in self._progression.all_tasks()
            if task.state in ENDED and task.output is not None and task.output is not UNKNOWN
        }
        value = None
        if self.graph.result is not None and not self.failures:
            value = self._progression.argument(self.graph.result, self._keys.literals)
        return Outcome(
            outputs=outputs,
            runs=dict(self._runs),
            counts=self.counts(),
            skipped={
                task.id: task.because or "it is not needed"
                for task in self._progression.all_tasks()
                if task.state is State.SKIPPED
            },
            value=None if value is UNKNOWN else value,
            blocked={
                task.id: task.because or "it waits for one that failed"
                for task in self._progression.all_tasks()
                if task.state is State.BLOCKED
            },
            nodes=[each.name for each in self.graph.nodes],
        )

    @property
    def values(self) -> SmallValues:
        """The bytes of small values that it has met."""
        return self._decider.values
