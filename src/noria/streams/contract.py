"""What a stream is: partitions of events in order, appended to by many, read from any offset."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from noria.errors import SourceError

__all__ = [
    "BEFORE_ALL",
    "MAX_EVENT_BYTES",
    "EventStream",
    "Extent",
    "StreamEvent",
    "check_place",
    "check_sizes",
]

BEFORE_ALL = -1  # the offset of nothing: reading after it begins with offset 0
MAX_EVENT_BYTES = 1_000_000  # just below what brokers take by default


class StreamEvent(NamedTuple):
    """One event as it lies in a partition."""

    offset: int
    payload: bytes
    at_us: int  # when it was appended, microseconds since 1970, by the clock of whoever appended it
    key: bytes | None


class Extent(NamedTuple):
    """What a partition holds: offsets from `first` up to, and without, `following`."""

    first: int
    following: int

    def waiting(self, *, after: int) -> int:
        """Count the events behind offset `after`."""
        return max(0, self.following - max(self.first, after + 1))


class EventStream(Protocol):
    """Partitions of events, each in the order of its offsets. Threads may share it, processes open their own.

    What `append` has returned is in the log, or acknowledged by the broker: `kill -9` of anybody loses none
    of it. Offsets rise; where a broker keeps places for itself, some are left out. Whoever reads keeps its
    own place: nothing is acknowledged here, and reading twice gives the same twice.
    """

    name: str

    def partitions(self) -> Sequence[int]:
        """Number the partitions. Raises `StoreError` if log or broker are away, as all that follow."""
        ...

    def append(
        self, payloads: Sequence[bytes], *, keys: Sequence[bytes | None] | None = None
    ) -> dict[int, int]:
        """Append events and return once they are kept, with the last offset in each partition.

        Events of one key go to one partition, in their order. After an error a first part may be there.

        Raises
        ------
        ValueError
            If an event is larger than `MAX_EVENT_BYTES`; none is appended.
        StoreError
            If they cannot be kept.
        """
        ...

    def read(
        self,
        partition: int,
        *,
        after: int,
        rows: int,
        size_bytes: int = 64 << 20,
        wait_s: float = 0.0,
    ) -> list[StreamEvent]:
        """Give the events behind offset `after`, oldest first.

        Parameters
        ----------
        after
            `BEFORE_ALL`: from the first one that there is.
        rows, size_bytes
            Give at most so many events, and no more once they hold so many bytes.
        wait_s
            If there is none, wait so long for the first.

        Raises
        ------
        SourceError
            If events behind `after` are gone, or the stream ends before it.
        """
        ...

    def extent(self, partition: int) -> Extent:
        """Tell from where to where the partition reaches."""
        ...

    def forget(self, partition: int, *, through: int, keep_bytes: int) -> None:
        """Allow that events up to `through` go, once all together take more than `keep_bytes`.

        A broker goes by its own rules of retention, and does nothing here.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def check_sizes(payloads: Sequence[bytes]) -> None:
    """Refuse events that are too large. Raises `ValueError`."""
    for place, payload in enumerate(payloads):
        if len(payload) > MAX_EVENT_BYTES:
            raise ValueError(
                f"event {place} has {len(payload)} bytes, at most {MAX_EVENT_BYTES} are taken; put what is "
                "large into a file of its own, and its address into the event"
            )


def check_place(name: str, partition: int, extent: Extent, *, after: int) -> None:
    """Refuse to read on behind `after` where events are gone. Raises `SourceError`.

    Raises
    ------
    SourceError
        If events behind `after` are there no more, or the partition ends before it.
    """
    what = f"partition {partition} of stream {name!r}"
    if BEFORE_ALL < after < extent.first - 1:
        raise SourceError(
            f"{what} begins with offset {extent.first}, wanted is {after + 1}: up to "
            f"{extent.first - after - 1} events are gone that were not read. Restore them, or go on with "
            f"what is left: `noria stream consume {name} --accept-gap`"
        )
    if after >= extent.following:
        raise SourceError(
            f"{what} ends before offset {extent.following}, but was read up to {after} before: it was cut, "
            "or is another one. Restore it, or give the new one a name of its own"
        )
