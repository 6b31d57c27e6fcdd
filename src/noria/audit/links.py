"""Events as links of a chain: the sentence, the numbers, and who caused what."""

from collections.abc import Iterator
from typing import Any

from noria.audit.records import CheckLine, Link
from noria.errors import NotFound
from noria.ledger.store import Ledger
from noria.records import Event

__all__ = ["causes", "check_lines", "link_of"]

_BOOKKEEPING = {"cursor", "after", "attempt", "number"}  # numbers that say nothing to a reader


def causes(ledger: Ledger, event: Event) -> Iterator[Event | str]:
    """Give an event, its cause, the cause of that, and so on; at last the id of one that is not there."""
    current: Event | None = event
    while current is not None:
        yield current
        if current.cause is None:
            return
        try:
            earlier = ledger.get_event(current.cause)
        except NotFound:
            yield current.cause
            return
        if earlier.scope == current.scope and earlier.seq >= current.seq:
            yield earlier.id  # nothing is caused by what came later: the record was changed
            return
        current = earlier


def link_of(event: Event) -> Link:
    """Give an event as a link."""
    return Link(
        event=event.id,
        at=event.at,
        verb=event.verb,
        subject=event.subject,
        actor=event.actor,
        reason=_reason(event),
        numbers=_numbers(event),
        checks=check_lines(event),
        cause=event.cause,
        digest=event.digest,
    )


def check_lines(event: Event) -> tuple[CheckLine, ...]:
    """Give the checks that an event holds: of a gate, of a monitor, or the one comparison of a canary."""
    payload = event.payload
    if event.verb.startswith("canary."):
        return (_canary_check(payload),)
    found = payload.get("checks")
    if not isinstance(found, list):
        return ()
    return tuple(
        CheckLine(
            name=each["name"],
            value=each.get("value"),
            limit=each.get("limit"),
            passed=each["passed"],
            detail=each["detail"],
            low=each.get("low"),
            high=each.get("high"),
            rows=each.get("rows"),
        )
        for each in found
    )


def _canary_check(payload: dict[str, Any]) -> CheckLine:
    decision = payload["decision"]
    return CheckLine(
        name=f"worsening({payload['metric']})",
        value=payload["worse"],
        limit=payload["limit"],
        passed=None if decision == "continue" else decision == "promote",
        detail=payload["reason"],
        low=payload["low"],
        high=payload["high"],
        rows=payload["rows"],
    )


def _numbers(event: Event) -> dict[str, int | float]:
    """Give the figures of an event: its own, and the metrics of an evaluation."""
    payload = event.payload
    metrics = payload.get("metrics")
    found = dict(metrics) if isinstance(metrics, dict) else {}
    found |= {name: value for name, value in payload.items() if name not in _BOOKKEEPING}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _reason(event: Event) -> str:
    payload = event.payload
    told = payload.get("reason")
    if event.verb == "pointer.moved":  # its reason is that of the request, which is the next link
        return f"{event.subject} points to route {payload['version'].rpartition('/')[2]}"
    if told:
        return str(told)
    match event.verb.partition("."):
        case ("run", _, state):
            error = f": {payload['error']}" if payload.get("error") else ""
            return f"{payload['kind']} run of {payload['name']} {state}{error}"
        case ("version", _, "recorded"):
            return f"{payload['kind'].replace('_', ' ')} {payload['name']}:{payload['number']} was recorded"
        case ("dataset", _, what):
            return f"batch {payload.get('batch')} of {event.subject} {what}"
        case (noun, _, what):
            return f"{noun} {event.subject} {what}".replace("  ", " ").strip()
