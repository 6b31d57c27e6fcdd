"""Leases: the right to do something alone for a while."""

from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Connection, bindparam, select

from noria.clock import format_instant
from noria.errors import LeaseHeld
from noria.ledger.processes import Process, is_gone, this_process
from noria.ledger.tables import leases
from noria.records import Lease

__all__ = ["acquire_lease", "release_lease", "renew_lease"]

_BY_NAME = select(leases).where(leases.c.scope == bindparam("scope"), leases.c.name == bindparam("name"))
_INSERT = leases.insert()
_REMOVE = leases.delete().where(leases.c.scope == bindparam("scope"), leases.c.name == bindparam("name"))
_HELD = (
    leases.c.scope == bindparam("b_scope"),
    leases.c.name == bindparam("b_name"),
    leases.c.holder == bindparam("b_holder"),
)
_RENEW = leases.update().where(*_HELD)
_RELEASE = leases.delete().where(*_HELD)


def acquire_lease(
    connection: Connection, scope: str, name: str, *, ttl_s: float, holder: str | None
) -> Lease:
    """Take a lease that is free, has run out, or whose holder on this machine has died."""
    now, process, of_name = datetime.now(UTC), this_process(), {"scope": scope, "name": name}
    held = connection.execute(_BY_NAME, of_name).mappings().first()
    if held is not None:
        is_over = (
            held["expires_at"] <= now or is_gone(msgspec.json.decode(held["process"], type=Process)) is True
        )
        if not is_over:
            raise LeaseHeld(name, held["holder"])
        connection.execute(_REMOVE, of_name)
    who = str(process) if holder is None else f"{holder} ({process})"
    lease = Lease(
        name=name, holder=f"{who} since {format_instant(now)}", expires_at=now + timedelta(seconds=ttl_s)
    )
    connection.execute(
        _INSERT,
        {
            **of_name,
            "holder": lease.holder,
            "process": msgspec.json.encode(process).decode(),
            "expires_at": lease.expires_at,
        },
    )
    return lease


def renew_lease(connection: Connection, scope: str, lease: Lease, *, ttl_s: float) -> Lease:
    """Hold a lease for longer. Raises `LeaseHeld` if it was lost meanwhile."""
    expires_at = datetime.now(UTC) + timedelta(seconds=ttl_s)
    changed = connection.execute(_RENEW, {**_held(scope, lease), "expires_at": expires_at})
    if changed.rowcount == 0:
        held = connection.execute(_BY_NAME, {"scope": scope, "name": lease.name}).mappings().first()
        raise LeaseHeld(lease.name, "nobody any more (it ran out)" if held is None else held["holder"])
    return msgspec.structs.replace(lease, expires_at=expires_at)


def release_lease(connection: Connection, scope: str, lease: Lease) -> None:
    """Give a lease back; one that was lost meanwhile is left to whom it belongs."""
    connection.execute(_RELEASE, _held(scope, lease))


def _held(scope: str, lease: Lease) -> dict[str, str]:
    return {"b_scope": scope, "b_name": lease.name, "b_holder": lease.holder}
