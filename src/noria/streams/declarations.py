"""A stream as a project declares it. Nothing here loads an engine."""

import re
from dataclasses import dataclass, field
from datetime import timedelta

from noria.clock import parse_wait
from noria.errors import ConfigError
from noria.lake.declarations import Dataset

__all__ = ["Stream"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_FORMATS = ("json",)
_MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    """Events that come one by one and land in a dataset's table, each exactly once.

    Parameters
    ----------
    name
        The stream's name; with a broker, that of its stream or topic.
    into
        The dataset. Its types have to be known: declare its `schema`, or let a batch make its table first.
    format
        How an event is written: `json`, one object each, with the dataset's columns as its fields.
    rows, every
        A micro-batch is committed once it has so many events, or once its first has waited so long, such as
        `"2s"` or `"200ms"`.
    key
        The field that holds events together: those of one key go to one partition, in their order.
    partitions
        How many a new stream has.
    late_after
        An event that happened this much before the newest one of the commits before is counted as late; one
        that happened this much after it was appended is counted as ahead. Both are rows like all others.
    backlog
        While more events than this wait for the consumer, producers over HTTP are told to come back later.
    keep_bytes
        A local log keeps events that have landed until it is larger than this; a broker has its own rules.

    Raises
    ------
    ConfigError
        If a name or a number cannot be.

    Examples
    --------
    >>> visits = Dataset(
    ...     "visits", key="id", event_at="at", schema={"id": "string", "at": "timestamp[us, tz=UTC]"}
    ... )
    >>> Stream("clicks", into=visits, every="5s").period.total_seconds()
    5.0
    """

    name: str
    into: Dataset = field(kw_only=True)
    format: str = field(default="json", kw_only=True)
    rows: int = field(default=10_000, kw_only=True)
    every: str = field(default="2s", kw_only=True)
    key: str | None = field(default=None, kw_only=True)
    partitions: int = field(default=1, kw_only=True)
    late_after: str = field(default="1m", kw_only=True)
    backlog: int = field(default=1_000_000, kw_only=True)
    keep_bytes: int = field(default=1 << 30, kw_only=True)

    def __post_init__(self) -> None:
        what = f"stream {self.name!r}"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name!r} cannot name a stream: use letters, digits, '-' and '_', a letter first"
            )
        if not isinstance(self.into, Dataset):
            raise ConfigError(f"{what}: into is {self.into!r}; give the noria.Dataset that its events go to")
        if self.format not in _FORMATS:
            raise ConfigError(f"{what}: there is no format {self.format!r}; there is {', '.join(_FORMATS)}")
        for name, value, most in (
            ("rows", self.rows, _MOST_ROWS),
            ("partitions", self.partitions, 1_000),
            ("backlog", self.backlog, None),
            ("keep_bytes", self.keep_bytes, None),
        ):
            if value < 1 or (most is not None and value > most):
                limit = "" if most is None else f" to {most}"
                raise ConfigError(f"{what}: {name} is {value}, it goes from 1{limit}")
        for name in ("every", "late_after"):
            try:
                parse_wait(getattr(self, name))
            except ValueError as error:
                raise ConfigError(f"{what}: {name}: {error}") from error
        schema = self.into.schema
        if self.key is not None and schema is not None and self.key not in schema:
            raise ConfigError(
                f"{what}: key is {self.key!r}, which dataset {self.into.name!r} has not; "
                f"it has {', '.join(schema)}"
            )

    @property
    def period(self) -> timedelta:
        """How long an event waits at most before it is committed."""
        return parse_wait(self.every)

    @property
    def lateness(self) -> timedelta:
        """How much an event may be behind, or ahead, without being counted."""
        return parse_wait(self.late_after)
