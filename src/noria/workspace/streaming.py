"""A project's streams: opened, appended to, consumed as a run, and told of."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from noria.clock import WallClock, from_micros, to_micros
from noria.errors import StoreError
from noria.ledger.running import Running
from noria.records import Run, RunState
from noria.streams.consume import committed_offset, consume
from noria.streams.consuming import Committed, Told
from noria.streams.contract import EventStream
from noria.streams.declarations import Stream
from noria.streams.opening import open_stream
from noria.streams.pushing import keys_of
from noria.tracking.records import MetricPoint
from noria.tracking.store import TrackingStore

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["Door", "Doors", "PartitionStanding", "Pushed", "StreamStanding", "consume_stream", "list_streams"]

RUN_KIND = "stream"
_POINTS_EVERY_S = 30.0
_LOOK_EVERY_S = 0.5


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """Events that are in the log."""

    accepted: int
    offset: int | dict[int, int] | None  # of the last; for each partition, where there are several


class PartitionStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How far one partition has landed."""

    partition: int
    first: int  # the oldest offset that is still there
    end: int | None  # the newest; None: nothing was ever appended
    committed: int | None  # the newest that has landed
    lag_events: int
    lag_s: float  # how long the oldest that has not landed waits


class StreamStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream stands."""

    name: str
    into: str
    url: str
    partitions: tuple[PartitionStanding, ...]
    consumer: str | None  # the state of the newest run of its consumer
    run: str | None
    events_per_s: float | None  # as its consumer told last, while it runs
    error: str | None  # why nothing is known of its partitions


class Door:
    """Where producers hand in the events of one stream. Threads may share it."""

    def __init__(self, project: "Project", declared: Stream) -> None:
        self.declared = declared
        self._lake = project.lake
        self._source = _opened(project, declared)
        self._guard = threading.Lock()
        self._waiting, self._look_at = 0, 0.0

    def close(self) -> None:
        """Let go of the stream."""
        self._source.close()

    def waiting(self) -> int:
        """Count the events that have not landed, at most half a second ago. Raises `StoreError`."""
        with self._guard:
            if time.monotonic() >= self._look_at:
                self._waiting = sum(
                    self._source.extent(number).waiting(
                        after=committed_offset(self.declared, number, self._lake)
                    )
                    for number in self._source.partitions()
                )
                self._look_at = time.monotonic() + _LOOK_EVERY_S
            return self._waiting

    def push(self, payloads: Sequence[bytes]) -> Pushed:
        """Append events, and return once they are kept.

        Raises
        ------
        ValueError
            If one is too large; none is appended then.
        StoreError
            If they cannot be kept.
        """
        last = self._source.append(payloads, keys=keys_of(payloads, self.declared.key))
        with self._guard:
            self._waiting += len(payloads)
        is_wide = self.declared.partitions > 1 or len(last) > 1
        offset = None if not last else last if is_wide else max(last.values())
        return Pushed(accepted=len(payloads), offset=offset)


class Doors:
    """The doors of a project's streams, each opened when first asked for and closed with the project."""

    def __init__(self, project: "Project") -> None:
        self._project = project
        self._open: dict[str, Door] = {}
        self._guard = threading.Lock()
        project._opened.callback(self.close)

    def get(self, name: str) -> Door:
        """Give the door of a stream. Raises `NotFound`, which says what exists."""
        declared = self._project.declarations.stream(name)
        with self._guard:
            if name not in self._open:
                self._open[name] = Door(self._project, declared)
            return self._open[name]

    def close(self) -> None:
        """Close them."""
        with self._guard:
            for each in self._open.values():
                each.close()
            self._open.clear()


def consume_stream(
    project: "Project",
    name: str,
    *,
    stop: threading.Event,
    until_empty: bool = False,
    accept_gap: bool = False,
    tell: Callable[[Told], None] | None = None,
) -> Run:
    """Consume a declared stream as a run, and give it as it ended; see `noria.streams.consume.consume`."""
    declared = project.declarations.stream(name)
    source = _opened(project, declared)
    params = {"stream": name, "into": declared.into.name, "url": project.settings.stores.stream}
    try:
        running = project.ledger.running(RUN_KIND, name, params=params)
        with running:
            counts = _Counts(running, TrackingStore(project.ledger.database))

            def told(what: Told) -> None:
                if isinstance(what, Committed):
                    counts.add(what)
                if tell is not None:
                    tell(what)

            try:
                consume(
                    declared,
                    source,
                    project.lake,
                    leases=project.ledger,
                    tell=told,
                    stop=stop,
                    until_empty=until_empty,
                    accept_gap=accept_gap,
                )
            finally:
                counts.close()
        return running.run
    finally:
        source.close()


def list_streams(project: "Project") -> list[StreamStanding]:
    """Tell where each declared stream stands."""
    return [_standing(project, each) for each in project.declarations.streams.values()]


class _Counts:
    """The metrics of a consumer's run: sums in its record, and points as it goes."""

    def __init__(self, running: Running, points: TrackingStore) -> None:
        self._running, self._points = running, points
        self._sums = dict.fromkeys(
            ("commits", "events", "size_bytes", "accepted", "rejected", "repeated", "late", "ahead"), 0
        )
        self._lags: dict[int, tuple[int, float]] = {}
        self._step = 0
        self._began = self._since = time.monotonic()
        self._events_since = 0
        self._due = self._began

    def add(self, what: Committed) -> None:
        for name in self._sums:
            self._sums[name] += 1 if name == "commits" else getattr(what, name)
        self._events_since += what.events
        self._lags[what.partition] = (what.lag_events, what.lag_s)
        if time.monotonic() >= self._due:
            self._put_points()

    def close(self) -> None:
        """Hand the sums to the run's record."""
        spent = time.monotonic() - self._began
        self._running.metrics |= {name: float(value) for name, value in self._sums.items()}
        if self._sums["events"]:
            self._running.metrics["events_per_s"] = self._sums["events"] / spent

    def _put_points(self) -> None:
        now = time.monotonic()
        values = {name: float(value) for name, value in self._sums.items()} | {
            "events_per_s": self._events_since / max(now - self._since, 1e-3),
            "lag_events": float(sum(events for events, _ in self._lags.values())),
            "lag_s": max(seconds for _, seconds in self._lags.values()),
        }
        self._step += 1
        at_us = to_micros(WallClock().now())
        self._points.append_points(
            self._running.id,
            (
                MetricPoint(name=name, value=value, step=self._step, at_us=at_us)
                for name, value in values.items()
            ),
        )
        self._since, self._events_since, self._due = now, 0, now + _POINTS_EVERY_S


def _opened(project: "Project", declared: Stream) -> EventStream:
    return open_stream(
        project.settings.stores.stream,
        declared.name,
        root=project.root,
        partitions=declared.partitions,
    )


def _standing(project: "Project", declared: Stream) -> StreamStanding:
    runs = project.ledger.list_runs(kind=RUN_KIND, name=declared.name, limit=1)
    newest = runs[0] if runs else None
    rate = None
    if newest is not None and newest.state is RunState.RUNNING:
        points = TrackingStore(project.ledger.database).list_points(newest.id, "events_per_s")
        rate = points[-1].value if points else None
    partitions: tuple[PartitionStanding, ...] = ()
    error = None
    source = _opened(project, declared)
    try:
        now = WallClock().now()
        partitions = tuple(
            _partition_standing(project, declared, source, number, now) for number in source.partitions()
        )
    except StoreError as err:
        error = str(err)
    finally:
        source.close()
    return StreamStanding(
        name=declared.name,
        into=declared.into.name,
        url=project.settings.stores.stream,
        partitions=partitions,
        consumer=None if newest is None else newest.state.value,
        run=None if newest is None else newest.id,
        events_per_s=rate,
        error=error,
    )


def _partition_standing(
    project: "Project", declared: Stream, source: EventStream, number: int, now: datetime
) -> PartitionStanding:
    committed = committed_offset(declared, number, project.lake)
    extent = source.extent(number)
    waiting = extent.waiting(after=committed)
    lag_s = 0.0
    if waiting:
        oldest = source.read(number, after=max(committed, extent.first - 1), rows=1)
        if oldest:
            lag_s = max(0.0, (now - from_micros(oldest[0].at_us)).total_seconds())
    return PartitionStanding(
        partition=number,
        first=extent.first,
        end=extent.following - 1 if extent.following > extent.first else None,
        committed=committed if committed >= 0 else None,
        lag_events=waiting,
        lag_s=lag_s,
    )
