"""`noria up`: the one process of a project that runs all the time.

It emits the ticks of schedules, lets triggers decide, runs what they decide and what people ask for, and
keeps the servers, the consumers of streams and online features. Several may run over one database: one
leads and acts, the others wait to take over.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from noria.clock import format_instant
from noria.errors import ConfigError, StoreError
from noria.pipelines.schedules import CatchUp
from noria.triggers.declarations import Decay, Scheduled, Stale, Trigger, leaves
from noria.triggers.reconcile import Decision, reconcile
from noria.workspace.features.needs import deployed_specs
from noria.workspace.freshness import FreshnessWatch
from noria.workspace.tracking_verbs import move_left_behind
from noria.workspace.up.features import FeatureFollowers
from noria.workspace.up.jobs import Argv, Runner, pipeline_argv
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.parity import ParityWatch
from noria.workspace.up.queue import Queue
from noria.workspace.up.records import Job, Notice, NoticeKind, Outcome, Role, Serving, UpState
from noria.workspace.up.serving import Servers
from noria.workspace.up.stopping import StopFlag
from noria.workspace.up.streams import Consumers
from noria.workspace.up.trials import TrialWatch

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Up"]

_MARK_EVERY_S = 10.0  # the runs whose process is gone
_FRESH_EVERY_S = 5.0


class Up:
    """One process of `noria up`. `run` lasts until `stop` is called, from a signal handler or another thread.

    Parameters
    ----------
    project
        Opened; it stays open.
    tell
        Is called with each thing that happens, from several threads, one at a time.
    environments
        Whose deployments are served. Default: all that go by the wall clock.
    argv
        What starts a run of a pipeline. Default: `noria pipeline run`.

    Raises
    ------
    NotFound, ConfigError
        If there is no such environment, or it goes by the clock of a replay.
    """

    def __init__(
        self,
        project: "Project",
        *,
        tell: Callable[[Notice], None],
        environments: Sequence[str] | None = None,
        argv: Argv | None = None,
    ) -> None:
        self._project, self._settings = project, project.settings.server
        self._tell_one, self._telling = tell, threading.Lock()
        self.triggers = [each for each in project.declarations.triggers.values() if each.runs_pipeline]
        self.left_out = [each for each in project.declarations.triggers.values() if not each.runs_pipeline]
        self.environments = _wall_environments(project, environments)
        self._leadership = Leadership(project.ledger, ttl_s=self._settings.lease_s)
        self._queue = Queue(project.ledger, {each.name for each in self.triggers})
        self._ticks_that_count = {each.name for each in self.triggers if _counts_each(each)}
        self._runner = Runner(project.root, argv or pipeline_argv(project.root))
        self._servers = Servers(
            project,
            self.environments,
            leadership=self._leadership,
            look_every_s=self._settings.look_every_s,
            tell=self._tell,
        )
        self._consumers = Consumers(
            project.root,
            list(project.declarations.streams),
            leadership=self._leadership,
            look_every_s=self._settings.look_every_s,
            tell=self._tell,
            now=self._now,
        )
        self._features = FeatureFollowers(
            project.root,
            is_wanted=self._has_views,
            leadership=self._leadership,
            look_every_s=self._settings.look_every_s,
            tell=self._tell,
            now=self._now,
        )
        self._parity = ParityWatch(
            project,
            self.environments,
            leadership=self._leadership,
            share=self._settings.verify_share,
            every_s=self._settings.verify_every_s,
            tell=self._tell,
        )
        self._trials = TrialWatch(
            project,
            places=self._servers.places,
            counts=self._servers.counts,
            is_active=lambda: self._leadership.is_held,
            judge_every_s=self._settings.judge_every_s,
            tell=self._tell,
        )
        self._ended: list[tuple[Job, Outcome]] = []  # and not on record yet
        self._stopped: list[tuple[Job, Outcome]] = []  # they were at work when this process was stopped
        self._stopping = StopFlag()
        self._away_since: float | None = None
        self._mark_at = self._fresh_at = 0.0
        self._freshness = FreshnessWatch(project, tell=self._tell)
        self._term = 0
        self._state = UpState(role=Role.FOLLOWER, since=project.clock.now(), leader=None)

    @property
    def state(self) -> UpState:
        """Where this process stands. Any thread may ask."""
        return msgspec.structs.replace(
            self._state,
            serving=self._servers.state(),
            streams=self._consumers.state(),
            features=self._features.state(),
        )

    def start(self, url: str | None = None, *, warnings: Iterable[str] = ()) -> None:
        """Find out who leads, and take over if nobody does. Raises `StoreError`.

        Parameters
        ----------
        url
            Of the control plane.
        warnings
            What whoever starts it has to know.
        """
        now = self._now()
        told = f"project {self._project.name}"
        self._say(
            NoticeKind.STARTED,
            told if url is None else f"{told}: control plane at {url}; Ctrl-C stops it",
            url=url,
        )
        for told in warnings:
            self._say(NoticeKind.WARNING, told)
        for trigger in self.triggers:
            self._say(NoticeKind.TRIGGER, _describe(trigger, now), trigger=trigger.name)
        for trigger in self.left_out:
            told = f"trigger {trigger.name} is not acted upon: in this release a replay alone runs trainings"
            self._say(NoticeKind.WARNING, told, trigger=trigger.name)
        if not self.triggers:
            self._say(
                NoticeKind.TRIGGER, "no trigger runs a pipeline: only what is asked for is run, and served"
            )
        self._leadership.start()
        if self._leadership.is_held:
            self._take_over()
        else:
            self._follow()

    def run(self) -> None:
        """Act, or wait to take over, until `stop` is called; then end everything that was started.

        A second Ctrl-C, which raises `KeyboardInterrupt`, ends it at once.
        """
        is_hurried = False
        served, led = tuple[Serving, ...](), False
        self._servers.start()
        self._consumers.start()
        self._features.start()
        self._parity.start()
        if self.environments:
            self._trials.start()
        try:
            self._turn()
            while not self._stopping.wait(self._settings.look_every_s):
                self._turn()
            self._wind_up()
        except KeyboardInterrupt:
            is_hurried = True
            raise
        finally:
            self._runner.kill()
            if not is_hurried:  # else servers end with this process, and so does its lease
                served = tuple(each for each in self._servers.state() if each.address is not None)
                led = self._leadership.is_held
                self._parity.stop()
                self._trials.stop()
                self._consumers.stop()
                self._features.stop()
                self._servers.stop()
                self._leadership.stop()
        self._tell_end(served, led=led)

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._stopping.set()

    def _turn(self) -> None:
        """Look once at everything. Where the database is away, this is told once, and the next turn tries."""
        self._collect()
        try:
            if self._leadership.is_held:
                if self._state.role is not Role.LEADER or self._term != self._leadership.term:
                    self._take_over()
                self._lead()
            elif self._state.role is not Role.FOLLOWER or self._state.leader != self._leadership.other:
                self._follow()
            if self._leadership.trouble is not None and not self._leadership.is_held:
                raise self._leadership.trouble
            if self._away_since is not None:
                self._project.ledger.list_events(limit=1)
                self._database_is_back()
        except StoreError as error:
            self._database_is_away(error)
        self._publish()

    # -- roles

    def _take_over(self) -> None:
        self._term = self._leadership.term
        left = self._queue.read_all()
        told = f"this process leads; left to do: {_runs(left)}" if left else "this process leads"
        self._queue.record_election(reason=told, at=self._now())
        self._state = UpState(role=Role.LEADER, since=self._now(), leader=None)
        self._say(NoticeKind.ROLE, told, role=Role.LEADER)

    def _follow(self) -> None:
        """Stop acting. What runs goes on: the leader waits for it under the same key."""
        other = self._leadership.other
        was_leader = self._state.role is Role.LEADER
        self._state = UpState(role=Role.FOLLOWER, since=self._now(), leader=other)
        self._ended.clear()
        told = "nobody is known to lead" if other is None else f"{other} leads"
        if was_leader:
            told = f"this process does not lead any more: {told}"
        self._say(NoticeKind.ROLE, f"{told}; this process waits to take over", role=Role.FOLLOWER)

    # -- what a leader does

    def _lead(self) -> None:
        for decision in reconcile(self._project.ledger, self.triggers, at=self._now()):
            self._tell_decision(decision)
        self._queue.read_new()
        self._settle()
        self._settle_overtaken()
        if time.monotonic() > self._mark_at:
            self._mark_at = time.monotonic() + _MARK_EVERY_S
            self._project.ledger.mark_killed()
            move_left_behind(self._project, self._project.ledger)
        if time.monotonic() > self._fresh_at:
            self._fresh_at = time.monotonic() + _FRESH_EVERY_S
            self._freshness.look()
        for job in self._queue.ready(
            is_busy=self._runner.has_pipeline, most=self._settings.runs_at_once - len(self._runner)
        ):
            if not self._leadership.is_held or self._stopping.is_set():
                return
            try:
                pid = self._runner.start(job, at=self._now())
            except OSError as error:  # no memory, no process, no room for files: for now
                self._repeat(job, Outcome(outcome="failed", reason=f"its process cannot be started: {error}"))
                continue
            told = f"{job.pipeline} begins in process {pid}"
            if job.params:
                told += f" with {', '.join(f'{name}={value!r}' for name, value in job.params.items())}"
            self._say(NoticeKind.RUN, told, pipeline=job.pipeline, key=job.key, pid=pid)

    def _collect(self) -> None:
        """Take in the runs whose process has ended. Who does not lead leaves them to the leader."""
        for job, outcome in self._runner.reap():
            if self._state.role is not Role.LEADER:
                continue
            if outcome.may_be_repeated:
                self._repeat(job, outcome)
            else:
                self._ended.append((job, outcome))

    def _repeat(self, job: Job, outcome: Outcome) -> None:
        """Start a job again a little later, unless that was tried enough."""
        if self._queue.put_off(job):
            told = f"{job.pipeline} is run again: {outcome.reason}"
            self._say(NoticeKind.WARNING, told, pipeline=job.pipeline, key=job.key)
        else:
            self._ended.append((job, outcome))

    def _settle_overtaken(self) -> None:
        """Settle what was not begun before its trigger decided again: runs take longer than their period."""
        for job in self._queue.overtaken(is_at_work=self._runner.is_at_work, keep=self._ticks_that_count):
            told = "its trigger decided again before it could begin; the newer run does for both"
            self._queue.settle(job, Outcome(outcome="overtaken", reason=told), at=self._now())
            self._say(NoticeKind.WARNING, f"{job.pipeline} is overtaken: {told}", pipeline=job.pipeline)

    def _settle(self) -> None:
        """Put on record how runs ended."""
        while self._ended:
            job, outcome = self._ended[0]
            self._queue.settle(job, outcome, at=self._now())
            del self._ended[0]
            self._say(
                NoticeKind.ENDED,
                f"{job.pipeline} {outcome.outcome}: {outcome.reason}",
                pipeline=job.pipeline,
                key=job.key,
                outcome=outcome.outcome,
                run=outcome.run,
            )

    def _wind_up(self) -> None:
        """Stop what runs, and put on record what came to its end all the same; the rest is taken up again."""
        self._say(NoticeKind.STOPPED, f"stopping; asked to end: {_runs(len(self._runner))}")
        self._stopped = self._runner.stop(within_s=self._settings.stop_within_s)
        self._ended += [(job, outcome) for job, outcome in self._stopped if outcome.outcome == "finished"]
        if self._state.role is Role.LEADER and self._leadership.is_held:
            try:
                self._settle()
            except StoreError as error:
                self._database_is_away(error)
        self._publish()

    def _has_views(self) -> bool:
        """Tell whether any feature view is declared, or deployed."""
        try:
            return bool(self._project.declarations.views or deployed_specs(self._project.ledger))
        except StoreError:
            return False  # the database is away; this is told

    # -- telling

    def _tell_end(self, served: Sequence[Serving], *, led: bool) -> None:
        """Say what was at work when it was stopped, and what is handed back."""
        finished = [job.pipeline for job, outcome in self._stopped if outcome.outcome == "finished"]
        ended = [job.pipeline for job, outcome in self._stopped if outcome.outcome != "finished"]
        servers = [f"{each.environment}/{each.deployment}" for each in served]
        waiting = max(0, len(self._queue) - len(ended)) if led else 0
        told = [f"{', '.join(finished)} finished"] if finished else []
        told += [f"{', '.join(ended)} ended on the way (finished steps are kept)"] if ended else []
        told += [f"servers of {', '.join(servers)} stopped"] if servers else []
        told = told or ["nothing was at work"]
        back = ["the lead"] if led else []
        back += [_runs(len(ended) + waiting)] if ended or waiting else []
        told += [f"handed back to the next `noria up`: {' and '.join(back)}"] if back else []
        self._say(
            NoticeKind.STOPPED,
            f"stopped; {'; '.join(told)}",
            finished=finished,
            ended=ended,
            waiting=waiting,
            servers=servers,
            led=led,
        )

    def _database_is_away(self, error: StoreError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._say(NoticeKind.DATABASE, f"{error}; noria up goes on when it is back")
        self._state = msgspec.structs.replace(self._state, database=str(error))

    def _database_is_back(self) -> None:
        assert self._away_since is not None
        away_s, self._away_since = time.monotonic() - self._away_since, None
        self._state = msgspec.structs.replace(self._state, database="ok")
        self._say(NoticeKind.DATABASE, f"the database is back after {away_s:.0f} s")

    def _publish(self) -> None:
        self._servers.check()
        self._consumers.check()
        self._features.check()
        self._parity.check()
        self._trials.check()
        self._state = msgspec.structs.replace(
            self._state,
            working=self._runner.working(),
            waiting=max(0, len(self._queue) - len(self._runner)),
        )

    def _tell_decision(self, decision: Decision) -> None:
        self._say(
            NoticeKind.DECISION,
            decision.reason,
            trigger=decision.trigger,
            choice=decision.choice,
            event=decision.event,
        )

    def _say(self, kind: NoticeKind, message: str, **facts: object) -> None:
        self._tell(Notice(at=self._now(), kind=kind, message=message, facts=facts))

    def _tell(self, notice: Notice) -> None:
        with self._telling:
            self._tell_one(notice)

    def _now(self) -> datetime:
        return self._project.clock.now()


def _counts_each(trigger: Trigger) -> bool:
    """Tell whether each tick of a trigger's schedule is to be run, however late."""
    schedules = [each.schedule for each in leaves(trigger.on) if isinstance(each, Scheduled)]
    return any(each.catch_up is CatchUp.ALL for each in schedules)


def _wall_environments(project: "Project", names: Sequence[str] | None) -> list[str]:
    """Give the environments whose deployments are served."""
    if names is None:
        return [name for name, each in project.settings.environments.items() if each.clock == "wall"]
    for name in names:
        if project.environment(name).clock != "wall":
            raise ConfigError(
                f"environment {name!r} goes by the clock of a replay, which serves it; `noria up` serves "
                f'environments with [environments.{name}] clock = "wall"'
            )
    return list(names)


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _describe(trigger: Trigger, now: datetime) -> str:
    """Say what a trigger runs and when."""
    when = [f"when {each.monitor.name} decays" for each in leaves(trigger.on) if isinstance(each, Decay)]
    when += [f"when {each.dataset.name} is stale" for each in leaves(trigger.on) if isinstance(each, Stale)]
    schedule = trigger.schedule
    if schedule is not None:
        when.append(
            f"by {schedule.text!r} ({schedule.tz}), next at {format_instant(schedule.next_after(now))}"
        )
    return f"{trigger.name} runs {trigger.run.name} {' or '.join(when)}"
