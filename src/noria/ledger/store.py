"""The ledger: one face for events, runs, versions, lineage, pointers and leases."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from noria.ledger import chain, leases, pointers, versions
from noria.ledger.book import as_utc
from noria.ledger.records import Verification
from noria.ledger.run_book import RunBook
from noria.ledger.running import Running
from noria.ledger.verification import verify
from noria.records import Edge, Event, Lease, Pointer, Run, Version

__all__ = ["Ledger"]


class Ledger(RunBook):
    """The record of one scope in a database.

    Every change (a run's start and end, a version, an edge, a pointer) is one transaction together with its
    event, and the event holds the digest of each row that it leaves. A call that has returned is on record,
    and stays there after a kill; one that was cut off left the whole change or nothing. Safe to use from
    many threads and processes at once.

    Calls with a `key` are idempotent: the same key again gives what the first call made. `at` is the
    project's instant, by default the clock's; `recorded_at` is always the wall's.

    Parameters
    ----------
    database
        Where it lives.
    storage
        Keeps the uncommitted diff of the code and the list of distributions that runs refer to.
    scope
        Which chain: a project or an environment.
    clock
        Tells `at` where none is given.
    code_root
        The folder whose git commit runs name; None: no code is named.
    """

    # events

    def append(
        self,
        verb: str,
        *,
        subject: str = "",
        payload: Mapping[str, Any] | None = None,
        cause: str | None = None,
        key: str | None = None,
        at: datetime | None = None,
        actor: str | None = None,
    ) -> Event:
        """Append an event.

        Parameters
        ----------
        verb
            `noun.happened`, such as `drift.found`.
        payload
            What JSON can hold; a NaN becomes null. Never row values of data.
        cause
            Id of the event that led to this one.

        Raises
        ------
        Conflict
            If the key is that of an event with another verb or subject.
        NotFound
            If there is no such cause.
        """
        with self.change(at, actor=actor) as change:
            if key is not None:
                event = chain.find_by_key(change.connection, self.scope, key, verb=verb, subject=subject)
                if event is not None:
                    return event
            return change.record(verb, subject, payload=payload or {}, cause=cause, key=key)

    def get_event(self, id: str) -> Event:
        """Give an event of any scope. Raises `NotFound`."""
        with self.database.read() as connection:
            return chain.get_event(connection, id)

    def find_event(self, *, key: str) -> Event | None:
        """Give the event of an idempotency key."""
        with self.database.read() as connection:
            return chain.find_event(connection, self.scope, key)

    def list_events(
        self,
        *,
        verb: str | None = None,
        subject: str | None = None,
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Event]:
        """List events in the order of the chain.

        Parameters
        ----------
        verb
            A verb, or `noun.*` for all of a noun.
        after
            Only those with a greater `seq`.
        since, until
            Only those with `since <= at < until`.
        """
        with self.database.read() as connection:
            return chain.list_events(
                connection,
                self.scope,
                verb=verb,
                subject=subject,
                after=after,
                since=None if since is None else as_utc(since),
                until=None if until is None else as_utc(until),
                limit=limit,
                newest_first=newest_first,
            )

    # runs, of which the rest is in `RunBook`

    def running(
        self,
        kind: str,
        name: str,
        *,
        cause: str | None = None,
        parent: str | None = None,
        experiment: str | None = None,
        params: Mapping[str, Any] | None = None,
        seed: int | None = None,
        key: str | None = None,
        at: datetime | None = None,
    ) -> Running:
        """Give a run for a `with` block: started, kept alive, closed by how the block ends; see `Running`."""

        def start() -> Run:
            return self.start_run(
                kind,
                name,
                cause=cause,
                parent=parent,
                experiment=experiment,
                params=params,
                seed=seed,
                key=key,
                at=at,
            )

        return Running(self, start)

    # versions and lineage

    def record_version(
        self,
        kind: str,
        name: str,
        *,
        sha256: str,
        uri: str,
        run: str | None = None,
        facts: Mapping[str, Any] | None = None,
        cause: str | None = None,
        at: datetime | None = None,
    ) -> Version:
        """Record a version under the next number of its name, as an output of `run`.

        The same content again gives the version it has. Without a cause, that is the start of the run.
        """
        with self.change(at) as change:
            return versions.record_version(
                change, kind=kind, name=name, sha256=sha256, uri=uri, run=run, facts=facts, cause=cause
            )

    def get_version(self, kind: str, name: str, number: int | None = None) -> Version:
        """Give a version by its number, None: the newest. Raises `NotFound` with what exists."""
        with self.database.read() as connection:
            return versions.get_version(connection, self.scope, kind=kind, name=name, number=number)

    def get_version_by_id(self, id: str) -> Version:
        """Give a version of any scope. Raises `NotFound`."""
        with self.database.read() as connection:
            return versions.get_version_by_id(connection, id)

    def find_version(self, kind: str, name: str, *, sha256: str) -> Version | None:
        """Give the version of a name that has this content."""
        with self.database.read() as connection:
            return versions.find_version(connection, self.scope, kind=kind, name=name, sha256=sha256)

    def list_versions(self, *, kind: str | None = None, name: str | None = None) -> list[Version]:
        """List versions by kind, name and number."""
        with self.database.read() as connection:
            return versions.list_versions(connection, self.scope, kind=kind, name=name)

    def add_input(self, run_id: str, version_id: str) -> None:
        """Record that a run reads a version; once more does nothing. Raises `NotFound`."""
        with self.change(None) as change:
            versions.add_edge(change, run=run_id, version=version_id, role="input")

    def list_edges(self, *, run: str | None = None, version: str | None = None) -> list[Edge]:
        """List what runs read and wrote."""
        with self.database.read() as connection:
            return versions.list_edges(connection, self.scope, run=run, version=version)

    # pointers

    def move_pointer(
        self,
        environment: str,
        name: str,
        version_id: str,
        *,
        stable: bool,
        reason: str,
        cause: str | None = None,
        key: str | None = None,
        actor: str | None = None,
        at: datetime | None = None,
    ) -> Pointer:
        """Let a name of an environment point to a version; `stable`: a rollback may return to it."""
        with self.change(at, actor=actor) as change:
            return pointers.move_pointer(
                change,
                environment=environment,
                name=name,
                version=version_id,
                stable=stable,
                reason=reason,
                cause=cause,
                key=key,
            )

    def find_pointer(self, environment: str, name: str, *, at: datetime | None = None) -> Pointer | None:
        """Give where a name points to, or did at an instant."""
        at = None if at is None else as_utc(at)
        with self.database.read() as connection:
            return pointers.find_pointer(connection, self.scope, environment=environment, name=name, at=at)

    def list_pointers(self, *, environment: str | None = None, name: str | None = None) -> list[Pointer]:
        """List all moves, oldest first."""
        with self.database.read() as connection:
            return pointers.list_pointers(connection, self.scope, environment=environment, name=name)

    # leases

    def acquire_lease(self, name: str, *, ttl_s: float, holder: str | None = None) -> Lease:
        """Take a right that one process has at a time, for `ttl_s` seconds of the wall clock.

        One whose holder on this machine has died is free at once. It is not re-entrant.

        Raises
        ------
        LeaseHeld
            With host, pid and since when.
        """
        with self.database.write() as connection:
            return leases.acquire_lease(connection, self.scope, name, ttl_s=ttl_s, holder=holder)

    def renew_lease(self, lease: Lease, *, ttl_s: float) -> Lease:
        """Hold a lease until `ttl_s` from now. Raises `LeaseHeld` if it was lost meanwhile."""
        with self.database.write() as connection:
            return leases.renew_lease(connection, self.scope, lease, ttl_s=ttl_s)

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back; one that was lost meanwhile stays with whom it belongs to."""
        with self.database.write() as connection:
            leases.release_lease(connection, self.scope, lease)

    # proof

    def verify(self, *, head: str | None = None) -> Verification:
        """Prove that nothing on record was changed.

        Recomputes the chain of events, and compares each row of runs, versions, edges and pointers with the
        digest that the latest event about it holds: a row that was changed, is gone, or came from elsewhere
        is a problem.

        A chain cannot prove by itself that nothing was taken off its end: a tail that was cut, together
        with the rows it made, shows only against a head that was exported earlier.

        Parameters
        ----------
        head
            `Verification.head` of an earlier time, kept elsewhere: it has to be in the chain still.
        """
        with self.database.read() as connection:
            return verify(connection, self.scope, head=head)
