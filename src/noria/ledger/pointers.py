"""What an environment's names point to, and did before."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from noria.ledger.chain import Change, find_by_key
from noria.ledger.rows import row_digest, row_key, to_pointer
from noria.ledger.tables import pointers
from noria.ledger.versions import get_version_by_id
from noria.records import Pointer

__all__ = ["find_pointer", "list_pointers", "move_pointer"]

_OF_NAME = (
    pointers.c.scope == bindparam("scope"),
    pointers.c.environment == bindparam("environment"),
    pointers.c.name == bindparam("name"),
)
_NEWEST = select(pointers).where(*_OF_NAME).order_by(pointers.c.number.desc()).limit(1)
_NEWEST_AT = _NEWEST.where(pointers.c.at <= bindparam("at"))
_LAST_NUMBER = select(func.max(pointers.c.number)).where(*_OF_NAME)
_BY_EVENT = select(pointers).where(
    pointers.c.scope == bindparam("scope"), pointers.c.event == bindparam("event")
)
_INSERT = pointers.insert()


def move_pointer(
    change: Change,
    *,
    environment: str,
    name: str,
    version: str,
    stable: bool,
    reason: str,
    cause: str | None,
    key: str | None,
) -> Pointer:
    """Let a name point to a version; the same key again gives the move it made."""
    subject = f"{environment}/{name}"
    if key is not None:
        event = find_by_key(change.connection, change.scope, key, verb="pointer.moved", subject=subject)
        if event is not None:
            made = change.connection.execute(_BY_EVENT, {"scope": change.scope, "event": event.id})
            return to_pointer(made.mappings().one())
    get_version_by_id(change.connection, version)
    of_name = {"scope": change.scope, "environment": environment, "name": name}
    number = (change.connection.execute(_LAST_NUMBER, of_name).scalar() or 0) + 1
    row: dict[str, Any] = {
        **of_name,
        "number": number,
        "version": version,
        "stable": stable,
        "reason": reason,
        "event": change.next_id(),
        "at": change.at,
        "recorded_at": change.recorded_at,
    }
    change.connection.execute(_INSERT, row)
    change.record(
        "pointer.moved",
        subject,
        payload={"version": version, "number": number, "stable": stable, "reason": reason},
        cause=cause,
        key=key,
        rows={row_key(pointers, row): row_digest(pointers, row)},
    )
    return to_pointer(row)


def find_pointer(
    connection: Connection, scope: str, *, environment: str, name: str, at: datetime | None
) -> Pointer | None:
    """Give where a name points to, or pointed to at an instant."""
    of_name: dict[str, Any] = {"scope": scope, "environment": environment, "name": name}
    if at is None:
        row = connection.execute(_NEWEST, of_name).mappings().first()
    else:
        row = connection.execute(_NEWEST_AT, {**of_name, "at": at}).mappings().first()
    return None if row is None else to_pointer(row)


def list_pointers(
    connection: Connection, scope: str, *, environment: str | None, name: str | None
) -> list[Pointer]:
    """List all moves, oldest first."""
    query = select(pointers).where(pointers.c.scope == scope)
    if environment is not None:
        query = query.where(pointers.c.environment == environment)
    if name is not None:
        query = query.where(pointers.c.name == name)
    query = query.order_by(pointers.c.recorded_at, pointers.c.environment, pointers.c.name, pointers.c.number)
    return [to_pointer(row) for row in connection.execute(query).mappings()]
