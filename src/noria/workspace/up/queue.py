"""What is left to run: decisions of triggers, and requests of people, that were never settled."""

import time
from collections.abc import Callable, Collection
from datetime import datetime

from noria.ledger.store import Ledger
from noria.records import Event
from noria.triggers.reconcile import Choice, Decision, read_decision, settle
from noria.workspace.up.records import Job, Outcome

__all__ = ["Queue"]

_SUBJECT = "up"
_STARTS = 3  # of a job that is ended from outside each time
_PUT_OFF_S = 1.0  # twice as long each time


class Queue:
    """Jobs that wait or run, read from the ledger. For one thread.

    One pipeline runs once at a time; others may run beside it.

    Parameters
    ----------
    triggers
        Whose decisions are acted upon.
    """

    def __init__(self, ledger: Ledger, triggers: Collection[str]) -> None:
        self._ledger, self._triggers = ledger, triggers
        self._jobs: dict[str, Job] = {}
        self._decisions: dict[str, Decision] = {}
        self._first: dict[str, int] = {}  # where in the chain a job comes from
        self._seen = 0
        self._put_off: dict[str, tuple[int, float]] = {}  # how often, and until when

    def __len__(self) -> int:
        return len(self._jobs)

    def read_all(self) -> int:
        """Read what is left to do, at the beginning of a leadership, and give how much that is.

        What was settled before the last leadership began is not read again.
        """
        ledger = self._ledger
        self._jobs.clear()
        self._decisions.clear()
        self._first.clear()
        elected = ledger.list_events(verb="leader.elected", newest_first=True, limit=1)
        self._seen = int(elected[0].payload["after"]) if elected else 0
        start = self._seen
        self.read_new()
        for event in ledger.list_events(verb="trigger.settled", after=start):
            self._forget(f"decision:{event.payload['decision']}")
        for event in ledger.list_events(verb="pipeline.settled", after=start):
            self._forget(f"request:{event.payload['request']}")
        return len(self)

    def read_new(self) -> None:
        """Read the decisions and requests since the last look."""
        found = [
            event
            for verb in ("trigger.decided", "pipeline.requested")
            for event in self._ledger.list_events(verb=verb, after=self._seen)
        ]
        for event in sorted(found, key=lambda each: each.seq):
            self._add(event)
            self._seen = event.seq

    def record_election(self, *, reason: str, at: datetime) -> Event:
        """Record who leads from here on, and from where in the chain the next leader has to read."""
        after = min(self._first.values(), default=self._seen + 1) - 1
        return self._ledger.append(
            "leader.elected", subject=_SUBJECT, payload={"after": after, "reason": reason}, at=at
        )

    def ready(self, *, is_busy: Callable[[str], bool], most: int) -> list[Job]:
        """Give jobs whose turn it is, at most so many.

        Parameters
        ----------
        is_busy
            Whether a run of that pipeline is at work.
        """
        found: dict[str, Job] = {}
        now = time.monotonic()
        for job in self._jobs.values():
            if len(found) >= most:
                break
            if job.pipeline in found or is_busy(job.pipeline):
                continue
            if self._put_off.get(job.key, (0, 0.0))[1] <= now:
                found[job.pipeline] = job
        return list(found.values())

    def overtaken(self, *, is_at_work: Callable[[Job], bool], keep: Collection[str] = ()) -> list[Job]:
        """Give jobs of triggers that have decided again before these were begun: the newest does for all.

        Parameters
        ----------
        keep
            Triggers each of whose decisions is to be run, however late.
        """
        newest: dict[str, Job] = {}
        found = []
        for key, decision in self._decisions.items():  # in their order
            job = self._jobs[key]
            if decision.trigger in keep or is_at_work(job):
                continue
            before = newest.get(decision.trigger)
            if before is not None:
                found.append(before)
            newest[decision.trigger] = job
        return found

    def put_off(self, job: Job) -> bool:
        """Let a job that was ended from outside be started again later; False if that was tried enough."""
        starts = self._put_off.get(job.key, (0, 0.0))[0] + 1
        if starts >= _STARTS:
            return False
        self._put_off[job.key] = (starts, time.monotonic() + _PUT_OFF_S * 2 ** (starts - 1))
        return True

    def settle(self, job: Job, outcome: Outcome, *, at: datetime) -> None:
        """Put on record what became of a job, once."""
        decision = self._decisions.get(job.key)
        if decision is not None:
            settle(self._ledger, decision, outcome=outcome.outcome, reason=outcome.reason, at=at)
        elif job.key in self._jobs:
            self._ledger.append(
                "pipeline.settled",
                subject=job.pipeline,
                payload={
                    "request": job.because,
                    "outcome": outcome.outcome,
                    "run": outcome.run,
                    "reason": outcome.reason,
                },
                cause=job.because,
                key=f"{job.key}:settled",
                at=at,
            )
        self._forget(job.key)

    def _add(self, event: Event) -> None:
        if event.verb == "pipeline.requested":
            job = Job(
                key=f"request:{event.id}",
                pipeline=event.subject,
                because=event.id,
                reason=event.payload["reason"],
                params=event.payload["params"],
            )
        else:
            decision = read_decision(event)
            if decision.choice is not Choice.RUN or decision.trigger not in self._triggers:
                return
            job = Job(key=decision.key, pipeline=decision.run, because=decision.event, reason=decision.reason)
            self._decisions[job.key] = decision
        self._jobs[job.key] = job
        self._first[job.key] = event.seq

    def _forget(self, key: str) -> None:
        for kept in (self._jobs, self._decisions, self._first, self._put_off):
            kept.pop(key, None)
