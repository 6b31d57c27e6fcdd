"""Proving that nothing was changed."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, text

from noria.ledger.chain import GENESIS
from noria.ledger.records import Verification
from noria.ledger.rows import JSON_COLUMNS, decode_json, event_digest, event_id, row_digest, row_key
from noria.ledger.tables import COVERED, events

__all__ = ["verify"]

_MAX_PROBLEMS = 100
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, TypeError, ValueError, OverflowError)


def verify(connection: Connection, scope: str, *, head: str | None) -> Verification:
    """Recompute the chain of a scope and the digest of every row that it covers; see `Ledger.verify`."""
    chain = _Chain(scope)
    for row in _raw_rows(connection, events, scope, order="seq"):
        chain.follow(row)
    problems = chain.problems
    if head is not None and head not in chain.digests:
        problems.append(
            f"the head {head[:16]}… is not in the chain: its end was cut off, or it was rewritten"
        )
    seen = 0
    for table in COVERED:
        for row in _raw_rows(connection, table, scope):
            seen += 1
            problems.extend(chain.compare(table, row))
    problems.extend(chain.missing())
    problems.extend(_rows_without_chain(connection))
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"and {len(problems) - _MAX_PROBLEMS} more"]
    return Verification(
        ok=not problems,
        scope=scope,
        events=chain.count,
        rows=seen,
        head=chain.head,
        problems=tuple(problems),
    )


class _Chain:
    """The chain as far as it was followed, and what it says about rows."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.count = 0
        self.head = GENESIS
        self.digests = {GENESIS}
        self.problems: list[str] = []
        self._last_seq: Any = 0
        self._covered: dict[str, tuple[str, str]] = {}  # row -> digest and event that left it there
        self._seen: set[str] = set()

    def follow(self, row: Mapping[str, Any]) -> None:
        """Check the next event and take up what it says about rows."""
        name = event_id(self.scope, row["seq"])
        if row["seq"] != self._last_seq + 1:
            self.problems.append(
                f"event {event_id(self.scope, self._last_seq + 1)} is gone; {name} comes next"
            )
        elif row["previous"] != self.head:
            self.problems.append(
                f"event {name} follows another event than the one before it: one of them was changed"
            )
        if _digest_of(row) != row["digest"]:
            self.problems.append(
                f"event {name} ({row['verb']}) was changed: its digest is not that of its content"
            )
        try:
            decode_json(row["payload"])
            covered = decode_json(row["rows"])
        except _UNREADABLE as err:
            self.problems.append(f"event {name} cannot be read: {err}")
            covered = {}
        self._covered.update((key, (digest, name)) for key, digest in covered.items())
        self.count += 1
        self.head = str(row["digest"])
        self.digests.add(self.head)
        self._last_seq = row["seq"]

    def compare(self, table: Table, row: Mapping[str, Any]) -> Iterator[str]:
        """Tell what is wrong with a row."""
        key = row_key(table, row)
        self._seen.add(key)
        digest, event = self._covered.get(key, (None, None))
        if digest is None:
            yield f"row {key} is covered by no event: it was put there or renamed outside of noria"
            return
        try:
            found = row_digest(table, row)
            for column in JSON_COLUMNS[table]:
                decode_json(row[column])
        except _UNREADABLE as err:
            yield f"row {key} cannot be read: {err}"
            return
        if found != digest:
            yield f"row {key} was changed: its digest is {found[:16]}…, event {event} left {digest[:16]}…"

    def missing(self) -> Iterator[str]:
        """Tell which rows are gone."""
        for key, (_, event) in self._covered.items():
            if key not in self._seen:
                yield f"row {key} is gone: event {event} left it there"


def _digest_of(row: Mapping[str, Any]) -> str | None:
    try:
        return event_digest(row)
    except _UNREADABLE:
        return None


def _raw_rows(
    connection: Connection, table: Table, scope: str, *, order: str | None = None
) -> Iterator[dict[str, Any]]:
    """Give rows as the driver has them: a decoded value could hide a changed one."""
    query = text(f"SELECT * FROM {table.name} WHERE scope = :scope" + (f" ORDER BY {order}" if order else ""))
    result = connection.execute(query, {"scope": scope})
    names = tuple(result.keys())
    for row in result:
        yield dict(zip(names, row, strict=True))


def _rows_without_chain(connection: Connection) -> Iterator[str]:
    """Tell of scopes that have rows but no event: no verification of theirs would ever be asked for."""
    for table in COVERED:
        query = text(
            f"SELECT DISTINCT scope FROM {table.name} WHERE scope NOT IN (SELECT DISTINCT scope FROM events)"
        )
        for (scope,) in connection.execute(query):
            yield f"{table.name} has rows of scope {scope!r}, which has no events"
