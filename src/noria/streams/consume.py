"""Events into a table, each exactly once, whoever is killed when.

A micro-batch is the events behind the offset that the table's own log has; its rows and its last offset are
one commit. So there is nothing else to keep: who starts, or was held up, asks the table where to go on. A
lease per partition keeps two consumers from doing the same work twice; should both be at it all the same,
the commit of the slower one is refused, because its events do not follow what has landed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import pyarrow as pa

from noria.errors import Conflict, SourceError, StoreError
from noria.lake.schema import declared_schema
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import Lease
from noria.streams.consuming import Committed, HeldUp, Told
from noria.streams.contract import BEFORE_ALL, EventStream, StreamEvent, check_place
from noria.streams.declarations import Stream
from noria.streams.micro_batch import MicroBatch, Readers

__all__ = ["app_of", "committed_offset", "consume"]

_LOOK_EVERY_S = 0.5  # whether to stop, and for the lease
_BATCH_BYTES = 64 << 20
_LEASE_S = 30.0
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)

T = TypeVar("T")


def app_of(stream: str, partition: int) -> str:
    """Give the name under which a table's commits hold the offset of a partition."""
    return f"stream:{stream}/{partition}"


def committed_offset(declared: Stream, partition: int, lake: Lake) -> int:
    """Give the offset of the last event that has landed; `BEFORE_ALL` if none has."""
    found = lake.last_batch(declared.into.name, app_of(declared.name, partition))
    return BEFORE_ALL if found is None else found


def consume(
    declared: Stream,
    source: EventStream,
    lake: Lake,
    *,
    leases: Ledger | None,
    tell: Callable[[Told], None],
    stop: threading.Event,
    until_empty: bool = False,
    accept_gap: bool = False,
) -> None:
    """Move events into the table until `stop` is set; what was read by then still lands.

    Where a broker, the disk or the ledger is away, it tells so and tries again.

    Parameters
    ----------
    leases
        Holds the partitions for one consumer at a time; None: the commits alone decide.
    tell
        Is called for each commit and each hold-up, from several threads, one at a time.
    until_empty
        End once all that is there has landed; do not try again where something is away.
    accept_gap
        Go on behind events that are gone from the stream though they never landed.

    Raises
    ------
    LeaseHeld
        If another consumer has a partition.
    SourceError
        If events are gone that have not landed, or the stream was cut.
    BatchBlocked
        If a rule of severity `block` fails; nothing behind it is consumed.
    ConfigError
        If the table's types are not known.
    """
    if declared.into.schema is None and not lake.exists(declared.into.name):
        Readers(declared).reader(None)  # says what to do
    guard = threading.Lock()

    def tell_one(told: Told) -> None:
        with guard:
            tell(told)

    work = _Work(declared, source, lake, leases, tell_one, stop, until_empty, accept_gap)
    partitions = work.patiently(source.partitions, partition=None) or ()
    consumers = [_PartitionConsumer(work, number) for number in partitions]
    if len(consumers) == 1:
        consumers[0].run()
        return
    with ThreadPoolExecutor(max(1, len(consumers)), thread_name_prefix="noria-stream") as pool:
        at_work = [pool.submit(each.run) for each in consumers]
        try:
            for done in as_completed(at_work):
                done.result()
        except BaseException:
            stop.set()  # the others end as well
            raise


@dataclass(frozen=True, slots=True)
class _Work:
    """What the consumers of all partitions share; see `consume`."""

    declared: Stream
    source: EventStream
    lake: Lake
    leases: Ledger | None
    tell: Callable[[Told], None]
    stop: threading.Event
    until_empty: bool
    accept_gap: bool

    def patiently(self, step: Callable[[], T], *, partition: int | None) -> T | None:
        """Do it, again and again where a store is away; None if told to stop meanwhile."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                return step()
            except StoreError as err:
                if self.until_empty:
                    raise
                failures = 0 if time.monotonic() - began > _RETRY_S[-1] else failures
                pause_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
                self.tell(HeldUp(partition, str(err), pause_s))
            if self.stop.wait(pause_s):
                return None


class _PartitionConsumer:
    def __init__(self, work: _Work, partition: int) -> None:
        self._work, self._partition = work, partition
        self._declared, self._source, self._lake = work.declared, work.source, work.lake
        self._leases = work.leases
        # one event may not hold up all that follow: what is wrong is set aside, however much it is
        self._dataset = replace(work.declared.into, max_rejected_share=1.0)
        self._app = app_of(work.declared.name, partition)
        self._readers = Readers(work.declared)
        self._committed = BEFORE_ALL  # as the table's log has it
        self._after = BEFORE_ALL  # where to read on: further, where a gap was accepted
        self._goal: int | None = None  # the last offset that is wanted
        self._watermark: datetime | None = None
        self._lease: Lease | None = None
        self._renew_at = 0.0

    def run(self) -> None:
        """Consume until told to stop."""
        with self._held():
            self._work.patiently(self._go_on, partition=self._partition)

    def _go_on(self) -> None:
        """Consume from where the table stands."""
        self._find_place()
        while not self._work.stop.is_set():
            events = self._collect()
            if events:
                self._commit(events)
            elif self._work.until_empty:
                return

    def _find_place(self) -> None:
        self._committed = self._after = committed_offset(self._declared, self._partition, self._lake)
        extent = self._source.extent(self._partition)
        if self._work.until_empty and self._goal is None:
            self._goal = extent.following - 1  # what comes later is not waited for
        if self._work.accept_gap and BEFORE_ALL < self._committed < extent.first - 1:
            self._after = extent.first - 1
            if self._leases is not None:
                self._leases.append(
                    "stream.gap_accepted",
                    subject=self._declared.name,
                    payload={"partition": self._partition, "after": self._committed, "next": extent.first},
                )
        check_place(self._declared.name, self._partition, extent, after=self._after)

    def _collect(self) -> list[StreamEvent]:
        """Read a micro-batch: as many rows as wanted, or what has come until its first has waited enough."""
        events: list[StreamEvent] = []
        after, size = self._after, 0
        due: float | None = None
        while len(events) < self._declared.rows and size < _BATCH_BYTES:
            self._renew()
            now = time.monotonic()
            wait_s = _LOOK_EVERY_S if due is None else min(_LOOK_EVERY_S, due - now)
            if wait_s <= 0 or (self._goal is not None and after >= self._goal):
                break
            some = self._source.read(
                self._partition,
                after=after,
                rows=self._declared.rows - len(events),
                size_bytes=_BATCH_BYTES - size,
                wait_s=wait_s,
            )
            if some:
                events += some
                after = some[-1].offset
                size += sum(len(each.payload) for each in some)
                due = now + self._declared.period.total_seconds() if due is None else due
            if self._work.stop.is_set() or (self._work.until_empty and not some):
                break
        return events

    def _commit(self, events: list[StreamEvent]) -> None:
        began = time.monotonic()
        batch = MicroBatch(
            name=f"stream {self._declared.name}/{self._partition}",
            events=events,
            declared=self._declared,
            readers=self._readers,
            check=self._want_own_place,
            watermark=self._watermark,
        )
        last = events[-1]
        batch.read(self._columns())
        # a clock that is a little ahead of this one breaks no contract: nothing is known before it happened
        at = batch.newest if batch.newest is not None and batch.newest > datetime.now(UTC) else None
        try:
            done = self._lake.ingest(
                self._dataset, batch, batch=last.offset, app=self._app, source=batch.name, at=at
            )
        except (Conflict, SourceError):
            if self._is_own_place():
                raise
            self._be_overtaken()
            return
        if done.state == "already":
            self._be_overtaken()
            return
        self._committed = self._after = last.offset
        self._watermark = batch.newest
        lag = self._source.extent(self._partition).waiting(after=last.offset)
        self._source.forget(self._partition, through=last.offset, keep_bytes=self._declared.keep_bytes)
        self._work.tell(
            Committed(
                partition=self._partition,
                offset=last.offset,
                events=len(events),
                size_bytes=sum(len(each.payload) for each in events),
                accepted=done.accepted,
                rejected=done.rejected,
                repeated=done.repeated,
                late=batch.late,
                ahead=batch.ahead,
                took_s=time.monotonic() - began,
                lag_events=lag,
                lag_s=max(0.0, time.time() - last.at_us / 1e6) if lag else 0.0,
            )
        )

    def _columns(self) -> pa.Schema | None:
        """Give the columns of the table that is or will be there; None if nothing says which."""
        into = self._declared.into
        declared = declared_schema(into)
        if declared is not None:
            return declared
        return self._lake.schema(into.name) if self._lake.exists(into.name) else None

    # -- two consumers

    def _is_own_place(self) -> bool:
        return committed_offset(self._declared, self._partition, self._lake) == self._committed

    def _want_own_place(self) -> None:
        """Refuse to commit what does not follow: the lake has looked at the offset before it calls this."""
        if not self._is_own_place():
            raise Conflict(f"another consumer has committed to {self._app} meanwhile")

    def _be_overtaken(self) -> None:
        """Go on behind what another consumer has committed, if the lease is still one's own."""
        self._renew_at = 0.0
        self._renew()
        self._find_place()

    @contextmanager
    def _held(self) -> Iterator[None]:
        if self._leases is None:
            yield
            return
        self._lease = self._leases.acquire_lease(self._app, ttl_s=_LEASE_S)
        self._renew_at = time.monotonic() + _LEASE_S / 3
        try:
            yield
        finally:
            with suppress(StoreError):  # it runs out by itself
                self._leases.release_lease(self._lease)

    def _renew(self) -> None:
        if self._leases is not None and self._lease is not None and time.monotonic() >= self._renew_at:
            self._lease = self._leases.renew_lease(self._lease, ttl_s=_LEASE_S)
            self._renew_at = time.monotonic() + _LEASE_S / 3
