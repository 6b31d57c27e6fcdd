"""What `noria up` tells, and where it stands, as values."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from noria.records import EventId

__all__ = [
    "Consuming",
    "FollowedView",
    "Job",
    "Notice",
    "NoticeKind",
    "Outcome",
    "Role",
    "Serving",
    "UpState",
    "Working",
]


class NoticeKind(StrEnum):
    """What a notice is about."""

    STARTED = "started"
    TRIGGER = "trigger"
    ROLE = "role"
    DECISION = "decision"
    RUN = "run"
    ENDED = "ended"
    SERVING = "serving"
    STREAM = "stream"
    FEATURES = "features"
    DATA = "data"
    DATABASE = "database"
    WARNING = "warning"
    STOPPED = "stopped"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is told, as it happens."""

    at: datetime
    kind: NoticeKind
    message: str
    facts: dict[str, Any] = {}


class Role(StrEnum):
    """Of several processes over one database, one leads: it alone acts."""

    LEADER = "leader"
    FOLLOWER = "follower"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a pipeline that is wanted, because of a decision or a request."""

    key: str  # of the run: the same job again gives the same run
    pipeline: str
    because: EventId
    reason: str
    params: dict[str, Any] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the process of a job ended."""

    outcome: str  # finished, failed, cancelled or overtaken
    reason: str
    run: str | None = None
    may_be_repeated: bool = False  # it was ended from outside, or the database was away


class Working(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose process runs."""

    pipeline: str
    key: str
    pid: int
    since: datetime


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that is served by this process, or ought to be."""

    environment: str
    deployment: str
    address: str | None
    route: int | None
    error: str | None = None


class Consuming(msgspec.Struct, frozen=True, kw_only=True):
    """A stream whose consumer is kept by this process."""

    stream: str
    pid: int | None  # None: it does not run
    events: int  # that have landed since this process keeps it
    lag_events: int
    error: str | None = None


class FollowedView(msgspec.Struct, frozen=True, kw_only=True):
    """A definition of a view that is kept up online by this process."""

    view: str
    digest: str
    pid: int | None = None  # None: the follower does not run
    rows: int = 0  # that were counted since this process keeps it
    version: int | None = None  # of its table, by Delta's number
    known_until: datetime | None = None
    is_stale: bool = False
    error: str | None = None


class UpState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process of `noria up` stands."""

    role: Role
    since: datetime  # it has the role
    leader: str | None  # who leads, as far as is known
    working: tuple[Working, ...] = ()
    waiting: int = 0  # jobs whose turn has not come
    serving: tuple[Serving, ...] = ()
    streams: tuple[Consuming, ...] = ()
    features: tuple[FollowedView, ...] = ()
    database: str = "ok"  # or why it cannot be used
