"""The chain of events: one transaction's change, and how events are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from noria.errors import Conflict, NotFound
from noria.ledger.rows import encode_json, event_digest, event_id, to_event
from noria.ledger.tables import events
from noria.records import Event, EventId

__all__ = ["GENESIS", "Change", "find_by_key", "find_event", "get_event", "list_events"]

GENESIS = "0" * 64  # what the first event names as the digest before it

_HEAD = (
    select(events.c.seq, events.c.digest)
    .where(events.c.scope == bindparam("scope"))
    .order_by(events.c.seq.desc())
    .limit(1)
)
_BY_KEY = select(events).where(events.c.scope == bindparam("scope"), events.c.key == bindparam("key"))
_BY_SEQ = select(events).where(events.c.scope == bindparam("scope"), events.c.seq == bindparam("seq"))
_INSERT = events.insert()


@dataclass(slots=True)
class Change:
    """One change on its way: the transaction it is made in, and what its events have in common.

    Only one process at a time is in such a transaction, so the end of the chain stands still meanwhile.
    """

    connection: Connection
    scope: str
    at: datetime
    recorded_at: datetime
    actor: str
    _head: tuple[int, str] | None = field(default=None, init=False)
    _queued: list[dict[str, Any]] = field(default_factory=list, init=False)

    def next_id(self) -> EventId:
        """Give the id that the next event will have."""
        return event_id(self.scope, self._end()[0] + 1)

    def record(
        self,
        verb: str,
        subject: str,
        *,
        payload: Mapping[str, Any],
        cause: str | None,
        key: str | None = None,
        rows: Mapping[str, str] | None = None,
    ) -> Event:
        """Put an event at the end of the chain; `rows` are the digests of the rows that it leaves."""
        event = self.queue(verb, subject, payload=payload, cause=cause, key=key, rows=rows)
        self.write_queued()
        return event

    def queue(
        self,
        verb: str,
        subject: str,
        *,
        payload: Mapping[str, Any],
        cause: str | None,
        key: str | None = None,
        rows: Mapping[str, str] | None = None,
    ) -> Event:
        """Prepare an event as `record` does; many are then written at once by `write_queued`."""
        seq, previous = self._end()
        self._check_cause(cause, seq)
        row: dict[str, Any] = {
            "scope": self.scope,
            "seq": seq + 1,
            "verb": verb,
            "subject": subject,
            "actor": self.actor,
            "cause": cause,
            "key": key,
            "payload": encode_json(payload),
            "rows": encode_json(rows),
            "at": self.at,
            "recorded_at": self.recorded_at,
            "previous": previous,
        }
        row["digest"] = event_digest(row)
        self._queued.append(row)
        self._head = (seq + 1, row["digest"])
        return to_event(row)

    def write_queued(self) -> None:
        """Write the events that were prepared."""
        if self._queued:
            self.connection.execute(_INSERT, self._queued)
            self._queued = []

    def _end(self) -> tuple[int, str]:
        if self._head is None:
            row = self.connection.execute(_HEAD, {"scope": self.scope}).mappings().first()
            self._head = (0, GENESIS) if row is None else (row["seq"], row["digest"])
        return self._head

    def _check_cause(self, cause: str | None, last: int) -> None:
        if cause is None:
            return
        scope, seq = _parse_id(cause)
        if scope == self.scope and 1 <= seq <= last:
            return  # the chain has no gaps
        if (
            scope == self.scope
            or self.connection.execute(_BY_SEQ, {"scope": scope, "seq": seq}).first() is None
        ):
            raise NotFound("event", cause)


def find_by_key(connection: Connection, scope: str, key: str, *, verb: str, subject: str) -> Event | None:
    """Give the event of an idempotency key. Raises `Conflict` if it is about something else."""
    row = connection.execute(_BY_KEY, {"scope": scope, "key": key}).mappings().first()
    if row is None:
        return None
    if (row["verb"], row["subject"]) != (verb, subject):
        raise Conflict(
            f"the key {key!r} is that of event {row['scope']}:{row['seq']}, {row['verb']} {row['subject']}; "
            f"{verb} {subject} needs a key of its own"
        )
    return to_event(row)


def find_event(connection: Connection, scope: str, key: str) -> Event | None:
    """Give the event of an idempotency key, whatever it is about."""
    row = connection.execute(_BY_KEY, {"scope": scope, "key": key}).mappings().first()
    return None if row is None else to_event(row)


def get_event(connection: Connection, id: str) -> Event:
    """Give an event of any scope. Raises `NotFound`."""
    scope, seq = _parse_id(id)
    row = connection.execute(_BY_SEQ, {"scope": scope, "seq": seq}).mappings().first()
    if row is None:
        raise NotFound("event", id)
    return to_event(row)


def list_events(
    connection: Connection,
    scope: str,
    *,
    verb: str | None,
    subject: str | None,
    after: int,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    newest_first: bool,
) -> list[Event]:
    """List events of one chain; see `Ledger.list_events`."""
    query = select(events).where(events.c.scope == scope)
    if verb is not None and verb.endswith(".*"):
        # every text that begins with "noun." lies between that and "noun/": "/" is the byte after "."
        query = query.where(events.c.verb >= verb[:-1], events.c.verb < verb[:-2] + "/")
    elif verb is not None:
        query = query.where(events.c.verb == verb)
    if subject is not None:
        query = query.where(events.c.subject == subject)
    if after:
        query = query.where(events.c.seq > after)
    if since is not None:
        query = query.where(events.c.at >= since)
    if until is not None:
        query = query.where(events.c.at < until)
    query = query.order_by(events.c.seq.desc() if newest_first else events.c.seq).limit(limit)
    rows: Sequence[Any] = connection.execute(query).mappings().all()
    return [to_event(row) for row in rows]


def _parse_id(id: str) -> tuple[str, int]:
    scope, _, seq = id.rpartition(":")
    if not scope or not seq.isdecimal() or len(seq) > 18:
        raise NotFound("event", id)
    return scope, int(seq)
