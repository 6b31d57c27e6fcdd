"""Reading what happened and deciding what to do: run, wait, refuse or alert.

News come at least once, decisions are made exactly once: each is an event with a key of trigger and news, so
a second pass finds it instead of making another. Nothing is run here. Policies read the project's clock only,
and news are decided in the order of the ledger, so that a pass that was killed and made again decides alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from noria.clock import format_instant, parse_duration, parse_instant
from noria.ledger.store import Ledger
from noria.pipelines.ticks import emit_ticks
from noria.records import Event, EventId
from noria.triggers.declarations import Decay, Stale, Trigger, leaves

__all__ = ["Choice", "Decision", "list_decisions", "list_unfinished", "read_decision", "reconcile", "settle"]

_MOMENT = timedelta(microseconds=1)  # instants of the ledger are whole microseconds


class Choice(StrEnum):
    """What is done about a piece of news."""

    RUN = "run"
    WAIT = "wait"
    REFUSE = "refuse"
    ALERT = "alert"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger decided, and why."""

    trigger: str
    choice: Choice
    run: str  # what is, or would have been, run
    reason: str
    because: EventId  # the news
    because_verb: str
    event: EventId  # the decision itself: the cause of whatever is run
    at: datetime
    until: datetime | None = None  # of a wait: when it could run at the earliest

    @property
    def key(self) -> str:
        """The key for whatever is run because of this decision."""
        return f"decision:{self.event}"


def reconcile(ledger: Ledger, triggers: Iterable[Trigger], *, at: datetime) -> list[Decision]:
    """Decide about all news that no trigger has decided about, up to `at`.

    What the news of a monitor or schedule come to:

    - `decay.found`: **run**, unless the last run of the trigger is younger than the cooldown or the budget is
      spent: **wait**. Decay that lasts is found again by the next evaluation, so nothing is put off for it.
    - `schedule.ticked`: the same. A tick that has to wait is not made up for: a run just before it did what
      it asks for, and the next one comes. The policy of the schedule says which of several
      instants that were missed are ticked.
    - `drift.found`: **alert**. Drift alone never retrains.
    - `data.bad`: **refuse**. Bad data block.
    - `dataset.stale`: **run**, like decay. It is told once, until the dataset is fresh again.

    Passes go forward in time. A trigger is armed by its first one: schedules count from there, and of news
    before it only those of this very window of the monitor are decided about. It is armed again where its
    schedule has been changed, and where the clock stands before the first pass.

    Returns
    -------
    list of Decision
        Those whose instant is `at`, in their order: a pass that is made again at the same instant gives the
        same ones, so that a caller that was killed on the way to acting on them finds them again. Run what
        says RUN under `Decision.key`.
    """
    return [decision for trigger in triggers for decision in _Pass(ledger, trigger, at).decide()]


def list_decisions(
    ledger: Ledger,
    *,
    trigger: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Decision]:
    """List decisions with `since <= at < until`, oldest first."""
    events = ledger.list_events(verb="trigger.decided", subject=trigger, since=since, until=until)
    return [read_decision(event) for event in events]


def settle(
    ledger: Ledger,
    decision: Decision,
    *,
    outcome: str,
    reason: str,
    at: datetime,
    cause: EventId | None = None,
) -> Event:
    """Record what became of a decision to run: an event `trigger.settled`, once.

    Parameters
    ----------
    outcome
        Such as `promoted`, `refused by the gate`, `rolled back`, `failed`.
    cause
        The event that ended it; default: the decision.
    """
    payload = {"decision": decision.event, "run": decision.run, "outcome": outcome, "reason": reason}
    return ledger.append(
        "trigger.settled",
        subject=decision.trigger,
        payload=payload,
        cause=cause or decision.event,
        key=f"{decision.key}:settled",
        at=at,
    )


def list_unfinished(ledger: Ledger, *, trigger: str | None = None) -> list[Decision]:
    """List decisions to run that were never settled, oldest first: what a process that died left behind."""
    settled = {
        event.payload["decision"] for event in ledger.list_events(verb="trigger.settled", subject=trigger)
    }
    decisions = list_decisions(ledger, trigger=trigger)
    return [each for each in decisions if each.choice is Choice.RUN and each.event not in settled]


def read_decision(event: Event) -> Decision:
    """Give the decision that an event `trigger.decided` holds."""
    payload = event.payload
    return Decision(
        trigger=payload["trigger"],
        choice=Choice(payload["choice"]),
        run=payload["run"],
        reason=payload["reason"],
        because=payload["because"],
        because_verb=payload["because_verb"],
        event=event.id,
        at=event.at,
        until=parse_instant(payload["until"]) if payload["until"] else None,
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    choice: Choice
    reason: str
    until: datetime | None = None


class _Pass:
    """One trigger's pass over its news."""

    def __init__(self, ledger: Ledger, trigger: Trigger, at: datetime) -> None:
        self.ledger, self.trigger, self.at = ledger, trigger, at
        self.key = f"trigger:{trigger.name}"
        conditions = leaves(trigger.on)
        self.decays = [each for each in conditions if isinstance(each, Decay)]
        self.stales = [each for each in conditions if isinstance(each, Stale)]
        self.schedule = trigger.schedule
        last = self._newest("trigger.decided")
        self.cursor = int(last.payload["cursor"]) if last else 0  # `seq` of the last news decided about
        self.is_first = last is None or last.at < at  # whether no pass at this instant decided before

    def decide(self) -> list[Decision]:
        """Decide about all that is new; give the decisions of this instant."""
        armed = self._arm()
        made = [
            self._record(news, self._judge(news))
            for news in sorted(self._news(armed, after=self.cursor), key=lambda each: each.seq)
        ]
        if not self.is_first:
            made = list(self._decisions(since=self.at, until=self.at + _MOMENT))
        return [read_decision(event) for event in made]

    def _newest(self, verb: str) -> Event | None:
        found = self.ledger.list_events(verb=verb, subject=self.trigger.name, newest_first=True, limit=1)
        return found[0] if found else None

    def _arm(self) -> Event:
        """Give the event since which the trigger is in force as it is now; record it if there is none."""
        found: Event | None = None
        number, key = 1, f"{self.key}:armed"
        while (event := self.ledger.find_event(key=key)) is not None:
            found = event if event.at <= self.at else found  # later ones are of a clock that went wrong
            number, key = number + 1, f"{self.key}:armed:{number + 1}"
        text, tz = (self.schedule.text, self.schedule.tz) if self.schedule else (None, None)
        if found is not None and (found.payload["schedule"], found.payload["tz"]) == (text, tz):
            return found
        trigger, budget = self.trigger, self.trigger.budget
        limits = [f"at most once in {trigger.cooldown}"] if trigger.cooldown else []
        limits += [f"{budget.runs} times in {budget.per}"] if budget else []
        told = f"trigger {trigger.name} runs {trigger.run.name} from here on"
        if found is not None:
            told = f"{told}, by a schedule that was changed"
        payload = {
            "run": trigger.run.name,
            "monitors": sorted({each.monitor.name for each in self.decays}),
            **({"datasets": sorted({each.dataset.name for each in self.stales})} if self.stales else {}),
            "schedule": text,
            "tz": tz,
            "cooldown": trigger.cooldown,
            "budget": msgspec.to_builtins(budget),
            "reason": ", ".join([told, " and ".join(limits)] if limits else [told]),
        }
        return self.ledger.append("trigger.armed", subject=trigger.name, payload=payload, key=key, at=self.at)

    def _news(self, armed: Event, *, after: int) -> Iterator[Event]:
        """Give undecided news."""
        if self.schedule is not None:
            emit_ticks(self.ledger, self.trigger.name, self.schedule, armed=armed, at=self.at)
            yield from self.ledger.list_events(verb="schedule.ticked", subject=self.trigger.name, after=after)
        for decay in self.decays:
            oldest = armed.at - timedelta(seconds=decay.monitor.every_s)
            for verb in ("decay.found", "drift.found", "data.bad"):
                for news in self.ledger.list_events(verb=verb, subject=decay.monitor.name, after=after):
                    unwanted = verb == "decay.found" and news.payload["kind"] not in decay.kinds
                    if oldest < news.at <= self.at and not unwanted:
                        yield news
        for stale in self.stales:
            for news in self.ledger.list_events(
                verb="dataset.stale", subject=stale.dataset.name, after=after
            ):
                if armed.at <= news.at <= self.at:
                    yield news

    def _judge(self, news: Event) -> _Verdict:
        why = str(news.payload["reason"])
        match news.verb:
            case "drift.found":
                return _Verdict(Choice.ALERT, f"drift alone alerts and runs nothing: {why}")
            case "data.bad":
                return _Verdict(Choice.REFUSE, f"bad data block and never retrain: {why}")
            case _:
                allowed = self._allowed()
                told = f"{why}; {allowed.reason}"
                if allowed.choice is Choice.WAIT and self.schedule and news.verb == "schedule.ticked":
                    following = self.schedule.next_after(self.at)
                    told += f"; the schedule comes again at {format_instant(following)}"
                return _Verdict(allowed.choice, told, allowed.until)

    def _allowed(self) -> _Verdict:
        """Say whether cooldown and budget allow a run now."""
        trigger, budget = self.trigger, self.trigger.budget
        waits = self._warming_up()
        if waits is not None:
            return waits
        if trigger.cooldown is None and budget is None:
            return _Verdict(Choice.RUN, "nothing limits it")
        reach = max(trigger.rest, budget.period) if budget else trigger.rest
        runs = self._runs(since=self.at - reach)
        told = "no run before it"
        if runs:
            since = self.at - runs[0].at
            told = f"the last run was {_days(since)} ago"
            if trigger.cooldown is not None:
                told += f", the cooldown is {trigger.cooldown}"
            if since < trigger.rest:
                until = runs[0].at + trigger.rest
                return _Verdict(Choice.WAIT, f"{told}: not before {format_instant(until)}", until)
        if budget is None:
            return _Verdict(Choice.RUN, told)
        spent = [event for event in runs if event.at > self.at - budget.period]
        counted = f"{len(spent)} of {budget.runs} runs in {budget.per} are spent"
        if len(spent) >= budget.runs:
            until = spent[budget.runs - 1].at + budget.period
            return _Verdict(Choice.WAIT, f"{told}; {counted}: not before {format_instant(until)}", until)
        return _Verdict(Choice.RUN, f"{told}; {counted}")

    def _warming_up(self) -> _Verdict | None:
        """Say until when the trigger only watches, if it still does."""
        if self.trigger.warm_up is None:
            return None
        until = self._arm().at + parse_duration(self.trigger.warm_up)
        if self.at >= until:
            return None
        told = f"the trigger only watches for its first {self.trigger.warm_up}"
        return _Verdict(Choice.WAIT, f"{told}: not before {format_instant(until)}", until)

    def _runs(self, *, since: datetime) -> list[Event]:
        """List this trigger's decisions to run, newest first, up to now."""
        made = self._decisions(since=since, until=self.at + _MOMENT)
        return [event for event in reversed(made) if event.payload["choice"] == Choice.RUN]

    def _decisions(self, *, since: datetime, until: datetime) -> Sequence[Event]:
        return self.ledger.list_events(
            verb="trigger.decided", subject=self.trigger.name, since=since, until=until
        )

    def _record(self, news: Event, verdict: _Verdict) -> Event:
        told = {
            Choice.RUN: f"run {self.trigger.run.name}",
            Choice.WAIT: f"wait with {self.trigger.run.name}",
            Choice.REFUSE: f"do not run {self.trigger.run.name}",
            Choice.ALERT: "alert",
        }[verdict.choice]
        self.cursor = max(self.cursor, news.seq)
        payload: dict[str, Any] = {
            "trigger": self.trigger.name,
            "choice": verdict.choice.value,
            "run": self.trigger.run.name,
            "because": news.id,
            "because_verb": news.verb,
            "until": format_instant(verdict.until) if verdict.until else None,
            "cursor": self.cursor,
            "reason": f"{told}: {verdict.reason}",
        }
        return self.ledger.append(
            "trigger.decided",
            subject=self.trigger.name,
            payload=payload,
            cause=news.id,
            key=f"{self.key}:{news.id}",
            at=self.at,
        )


def _days(length: timedelta) -> str:
    return f"{length.total_seconds() / 86_400:.3g} days"
