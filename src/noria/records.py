"""The nouns of the ledger as values, and how a thing gets its digest.

They cross disks and wires, so they are `msgspec.Struct`s; none knows how it is stored.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

import msgspec

__all__ = [
    "Cost",
    "Edge",
    "Event",
    "Lease",
    "Pointer",
    "Run",
    "RunState",
    "Version",
    "VersionRef",
    "canonical_json",
    "digest_of",
    "new_id",
    "new_ids",
    "sha256_hex",
]

EventId = NewType("EventId", str)  # "<scope>:<seq>"
RunId = NewType("RunId", str)  # 32 hex digits, sortable by time
VersionId = NewType("VersionId", str)  # "<scope>/<kind>/<name>:<number>"

_ENCODER = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: Any) -> bytes:
    """Encode with sorted keys and no spaces, so that equal values have equal bytes.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    return _ENCODER.encode(value)


def sha256_hex(data: bytes) -> str:
    """Give the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


_COUNTERS = [f"{each:03x}" for each in range(4_096)]
_VARIANTS = {f"{digit:x}": f"{digit & 0x3 | 0x8:x}" for digit in range(16)}  # of RFC 9562: binary 10xx


def new_id() -> str:
    """Make a 32-digit hex id that sorts by creation time (the layout of UUIDv7, RFC 9562)."""
    millis = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    value = (millis & 0xFFFF_FFFF_FFFF) << 80 | tail
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def new_ids(count: int) -> list[str]:
    """Make several ids of the kind of `new_id`, all of this instant, for less than that many calls cost.

    Up to 4,096 of them are sorted: they count in the twelve bits after the instant, from a random number on.
    """
    head = f"{time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF:012x}7"
    if not 1 < count <= len(_COUNTERS):
        drawn = os.urandom(10 * count).hex()
        return [
            f"{head}{drawn[at : at + 3]}{_VARIANTS[drawn[at + 3]]}{drawn[at + 4 : at + 19]}"
            for at in range(0, 20 * count, 20)
        ]
    drawn = os.urandom(2 + 8 * count).hex()
    start = int(drawn[-4:], 16) % (len(_COUNTERS) - count + 1)
    return [
        f"{head}{counter}{_VARIANTS[drawn[at]]}{drawn[at + 1 : at + 16]}"
        for counter, at in zip(_COUNTERS[start : start + count], range(0, 16 * count, 16), strict=True)
    ]


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    KILLED = "killed"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change: who did what to which thing, why, and when."""

    id: EventId
    scope: str
    seq: int
    verb: str  # "dataset.ingested", "route.promoted", ...
    subject: str  # the thing it is about, as a reference
    actor: str
    cause: EventId | None
    key: str | None  # idempotency key, unique per scope
    payload: dict[str, Any]
    rows: dict[str, str]  # "<table>/<primary key>" -> sha256 of the row this event left there
    at: datetime
    recorded_at: datetime
    previous: str  # digest of the event before
    digest: str


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a run used."""

    cpu_s: float
    wall_s: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened: an ingest, a training, a check, a deployment."""

    id: RunId
    scope: str
    kind: str
    name: str
    state: RunState
    attempt: int
    key: str | None
    cause: EventId | None
    parent: RunId | None
    experiment: str | None
    params: dict[str, Any]
    metrics: dict[str, float]
    seed: int | None
    code: str  # git commit, or "none"
    code_diff: str | None  # sha256 of the blob that holds the uncommitted diff
    runtime: str  # digest of the installed distributions
    error: str | None
    cost: Cost | None
    at: datetime
    started_at: datetime  # wall
    ended_at: datetime | None  # wall


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable, numbered, digested thing."""

    id: VersionId
    scope: str
    kind: str
    name: str
    number: int
    sha256: str
    uri: str
    run: RunId | None
    facts: dict[str, Any]
    at: datetime
    recorded_at: datetime

    @property
    def ref(self) -> str:
        """`name:number`, as people write it."""
        return f"{self.name}:{self.number}"


class VersionRef(msgspec.Struct, frozen=True):
    """`name`, `name:3` or `name@production`, read from text."""

    name: str
    number: int | None = None
    environment: str | None = None

    @classmethod
    def parse(cls, text: str) -> "VersionRef":
        """Read a reference.

        Examples
        --------
        >>> VersionRef.parse("late_arrival@production")
        VersionRef(name='late_arrival', number=None, environment='production')
        """
        name, at, environment = text.partition("@")
        if at:
            if not name or not environment:
                raise ValueError(f"{text!r} is no reference; write NAME, NAME:3 or NAME@ENVIRONMENT")
            return cls(name, environment=environment)
        name, colon, number = text.partition(":")
        if not name or (colon and not number.isdecimal()):
            raise ValueError(f"{text!r} is no reference; write NAME, NAME:3 or NAME@ENVIRONMENT")
        return cls(name, number=int(number) if colon else None)


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """A run read or wrote a version."""

    run: RunId
    version: VersionId
    role: str  # "input" or "output"


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """One move of a named deployment in an environment."""

    environment: str
    name: str
    number: int  # counts the moves of this pointer from 1
    version: VersionId
    stable: bool  # a route that a rollback may return to
    reason: str
    event: EventId
    at: datetime
    recorded_at: datetime


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A right held for a while by one process."""

    name: str
    holder: str
    expires_at: datetime  # wall


def digest_of(value: Mapping[str, Any] | msgspec.Struct) -> str:
    """Give the sha256 of the canonical JSON of `value`."""
    return sha256_hex(canonical_json(value))
