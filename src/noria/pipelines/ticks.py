"""Instants of schedules as events, each recorded once: what triggers read.

A call looks from the last instant on record to now, and records what is new in one transaction. So a call
that was killed has recorded all of it or nothing, and of two schedulers at once the second finds what the
first recorded. A clock that goes back is no harm: what was ticked stays ticked, and what a clock that was
wrong ticked in the future is not taken for the last instant.
"""

from datetime import UTC, datetime, timedelta

from noria.clock import format_instant
from noria.ledger.store import Ledger
from noria.pipelines.schedules import CatchUp, Due, Schedule
from noria.records import Event

__all__ = ["MOST_AT_ONCE", "emit_ticks"]

MOST_AT_ONCE = 1_000  # ticks of one call, where all that were missed are made up for
_GRACE = timedelta(seconds=60)  # an older instant was missed
_MOMENT = timedelta(microseconds=1)  # instants of the ledger are whole microseconds
_EITHER = "schedule.*"  # ticked or missed
_NEVER = datetime.min.replace(tzinfo=UTC)


def emit_ticks(
    ledger: Ledger, subject: str, schedule: Schedule, *, armed: Event, at: datetime
) -> list[Event]:
    """Record the instants of `schedule` that have come since the last one, as events `schedule.ticked`.

    The instant of a tick is the schedule's, not that of the call. Where several have come, the schedule's
    policy decides: `newest` ticks the newest and says how many were missed; `all` ticks each, of more than a
    thousand the newest thousand; `none` ticks the newest if it is at most a minute old, else it records what
    was missed as `schedule.missed`.

    Parameters
    ----------
    subject
        What the schedule is of: the name of a trigger.
    armed
        Since when it counts.
    at
        Now.

    Returns
    -------
    list of Event
        The ticks that this call recorded, oldest first.
    """
    if not _look(ledger, subject, schedule, armed=armed, at=at).instants:
        return []
    with ledger.database.write():
        due = _look(ledger, subject, schedule, armed=armed, at=at)  # somebody else may have been quicker
        if not due.instants:
            return []
        if schedule.catch_up == CatchUp.NONE and at - due.instants[-1] > _GRACE:
            _record_missed(ledger, subject, schedule, due, cause=armed)
            return []
        earlier = [due.earlier, *[0] * (len(due.instants) - 1)]
        return [
            _record(ledger, subject, schedule, instant, Due((), missed, due.is_counted), cause=armed)
            for instant, missed in zip(due.instants, earlier, strict=True)
        ]


def _look(ledger: Ledger, subject: str, schedule: Schedule, *, armed: Event, at: datetime) -> Due:
    """Find the instants that are due: later than the last that is on record, and not later than now."""
    most = MOST_AT_ONCE if schedule.catch_up == CatchUp.ALL else 1
    last = max(armed.at, _last(ledger, subject, at=at))
    due = schedule.newest(last, at, most=most)
    if not due.instants:
        return due
    # The event recorded last is not that of the latest instant where a clock went back.
    later = ledger.list_events(verb=_EITHER, subject=subject, since=last + _MOMENT, until=at + _MOMENT)
    return schedule.newest(max(event.at for event in later), at, most=most) if later else due


def _last(ledger: Ledger, subject: str, *, at: datetime) -> datetime:
    """Give the instant, ticked or missed, that was recorded last, of those that have come."""
    found = ledger.list_events(verb=_EITHER, subject=subject, newest_first=True, limit=1)
    if found and found[0].at > at:  # a clock went back; this asks more of the database, so it comes second
        found = ledger.list_events(
            verb=_EITHER, subject=subject, until=at + _MOMENT, newest_first=True, limit=1
        )
    return found[0].at if found else _NEVER


def _record(
    ledger: Ledger, subject: str, schedule: Schedule, instant: datetime, before: Due, *, cause: Event
) -> Event:
    told = f"schedule {schedule.text!r} ({schedule.tz}) came at {format_instant(instant)}"
    if before.earlier:
        told += f"; {_counted(before)} earlier instants were missed and are not made up for"
    return ledger.append(
        "schedule.ticked",
        subject=subject,
        payload={**schedule.facts, "missed": before.earlier, "reason": told},
        cause=cause.id,
        key=f"trigger:{subject}:tick:{format_instant(instant)}",
        at=instant,
    )


def _record_missed(ledger: Ledger, subject: str, schedule: Schedule, due: Due, *, cause: Event) -> None:
    newest = due.instants[-1]
    missed = Due((), due.earlier + 1, due.is_counted)
    told = (
        f"schedule {schedule.text!r} ({schedule.tz}) came {_counted(missed)} times up to "
        f"{format_instant(newest)} while nobody looked; the next instant counts"
    )
    ledger.append(
        "schedule.missed",
        subject=subject,
        payload={**schedule.facts, "missed": missed.earlier, "reason": told},
        cause=cause.id,
        key=f"trigger:{subject}:missed:{format_instant(newest)}",
        at=newest,
    )


def _counted(due: Due) -> str:
    return f"{due.earlier:,}" if due.is_counted else f"more than {due.earlier:,}"
