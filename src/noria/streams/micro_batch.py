"""A few events on their way into a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import from_micros
from noria.errors import ConfigError
from noria.lake.rows import Broken
from noria.lake.schema import INSTANT
from noria.streams.contract import StreamEvent
from noria.streams.declarations import Stream
from noria.streams.json_events import JsonEvents

__all__ = ["MicroBatch", "Readers"]


class Readers:
    """Makes the reader of a stream's events, anew when the table has got other columns."""

    def __init__(self, declared: Stream) -> None:
        self._declared = declared
        self._reader: JsonEvents | None = None

    def reader(self, wanted: pa.Schema | None) -> JsonEvents:
        """Give what reads events as rows of `wanted`. Raises `ConfigError` if that is not known."""
        into = self._declared.into
        if wanted is None:
            raise ConfigError(
                f"stream {self._declared.name!r}: the types of dataset {into.name!r} are not known; "
                "declare its schema, or ingest a batch first"
            )
        if into.known_at is None and into.known_at_column in wanted.names:  # the lake adds it
            wanted = wanted.remove(wanted.get_field_index(into.known_at_column))
        if self._reader is None or wanted != self._reader.schema:
            self._reader = JsonEvents(wanted)
        return self._reader


@dataclass(slots=True)
class MicroBatch:
    """Events of one partition as the lake takes them: a `noria.lake.rows.Rows`.

    Attributes
    ----------
    events
        In the order of their offsets.
    check
        Called before anything is handed out: raises if the events are not those that come next.
    watermark
        The newest instant at which an event of an earlier commit happened.
    late, ahead, newest
        Known once it was read: events behind the watermark, events from the future, the newest instant.
    """

    name: str
    events: Sequence[StreamEvent]
    declared: Stream
    readers: Readers
    check: Callable[[], None]
    watermark: datetime | None
    late: int = 0
    ahead: int = 0
    newest: datetime | None = None
    _read_as: pa.Schema | None = None
    _rows: Sequence[pa.RecordBatch] = ()
    _broken: Sequence[Broken] = ()

    def read(self, wanted: pa.Schema | None) -> None:
        """Take the events as rows of `wanted`, unless that was done."""
        reader = self.readers.reader(wanted)
        if self._read_as is not None and self._read_as == reader.schema:
            return
        self._rows, self._broken = reader.read(self.events)
        self._read_as = reader.schema
        self.late, self.ahead, self.newest = 0, 0, self.watermark
        for batch in self._rows:
            self._look_at(batch)

    def pieces(self, wanted: pa.Schema | None) -> Iterator[pa.RecordBatch | Sequence[Broken]]:
        """Give the rows, then what is none."""
        self.check()
        self.read(wanted)
        yield from self._rows
        if self._broken:
            yield self._broken

    def _look_at(self, batch: pa.RecordBatch) -> None:
        happened = batch.column(self.declared.into.event_at)
        if happened.type != INSTANT:
            return  # the contract refuses it
        limit = from_micros(max(each.at_us for each in self.events)) + self.declared.lateness
        is_ahead = pc.fill_null(pc.greater(happened, pa.scalar(limit, INSTANT)), False)
        ahead = pc.sum(is_ahead).as_py() or 0
        self.ahead += ahead
        newest = pc.max(happened.filter(pc.invert(is_ahead)) if ahead else happened).as_py()
        if self.watermark is not None:
            behind = pa.scalar(self.watermark - self.declared.lateness, INSTANT)
            self.late += pc.sum(pc.less(happened, behind)).as_py() or 0
        if newest is not None and (self.newest is None or newest > self.newest):
            self.newest = newest
