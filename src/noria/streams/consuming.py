"""What a consumer tells: how far it has come, and what holds it up."""

from dataclasses import dataclass

__all__ = ["Committed", "HeldUp", "Told"]


@dataclass(frozen=True, slots=True)
class Committed:
    """A micro-batch that has landed.

    Attributes
    ----------
    offset
        Of its last event: the next one is the first that has not landed.
    events, size_bytes
        What was read.
    accepted, rejected, repeated
        What became of it; repeated: the same row was there already.
    late
        Events that happened long before the newest one of the commits before.
    ahead
        Events that happened long after they were appended, by the clock of whoever appended them.
    took_s
        From the arrival of the last event to the commit.
    lag_events, lag_s
        How many events have not landed yet, and how long ago the newest that has was appended (0: all have).
    """

    partition: int
    offset: int
    events: int
    size_bytes: int
    accepted: int
    rejected: int
    repeated: int
    late: int
    ahead: int
    took_s: float
    lag_events: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class HeldUp:
    """Something is away, or full: nothing is lost, the consumer tries again."""

    partition: int | None  # None: it was not found out yet which there are
    reason: str
    again_in_s: float


Told = Committed | HeldUp
