"""What was moved, and what a rollback goes back to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from noria.ledger.store import Ledger
from noria.records import EventId, Pointer, VersionId

__all__ = ["Action", "PastMove", "list_moves", "stable_routes"]


class Action(StrEnum):
    """What a move was asked for as."""

    DEPLOY = "deploy"
    CANARY = "canary"
    TEST = "test"
    SHADOW = "shadow"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastMove:
    """One entry of a deployment's history."""

    action: Action
    pointer: Pointer
    reason: str
    request: EventId | None


def list_moves(
    ledger: Ledger, *, environment: str, deployment: str, until: datetime | None = None
) -> tuple[PastMove, ...]:
    """List the moves of a deployment, oldest first, up to an instant of the project's clock."""
    found = ledger.list_pointers(environment=environment, name=deployment)
    moves = []
    for pointer in sorted(found, key=lambda each: each.number):
        if until is not None and pointer.at > until:
            continue
        moved = ledger.get_event(pointer.event)
        request = ledger.get_event(moved.cause) if moved.cause else None
        if request is None or request.verb != "route.requested":
            moves.append(PastMove(action=Action.DEPLOY, pointer=pointer, reason=pointer.reason, request=None))
            continue
        action = Action(request.payload["action"])
        moves.append(PastMove(action=action, pointer=pointer, reason=pointer.reason, request=request.id))
    return tuple(moves)


def stable_routes(moves: Sequence[PastMove]) -> tuple[list[VersionId], list[VersionId]]:
    """Give the stable routes that rollbacks can go back through, and those they left behind, newest last."""
    past: list[VersionId] = []
    undone: list[VersionId] = []
    for move in moves:
        route = move.pointer.version
        if not move.pointer.stable:
            continue
        if move.action is Action.ROLLBACK:
            while past and past[-1] != route:
                undone.append(past.pop())
        elif move.action is Action.RESTORE and undone and undone[-1] == route:
            undone.pop()
        else:
            undone.clear()
        if not past or past[-1] != route:
            past.append(route)
    return past, undone
