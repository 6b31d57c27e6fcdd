"""Datasets of a replay that come as events: each recorded row is appended once, and lands once.

The rows of such a dataset, in the order in which they became known since the replay's first day, are the
events of its stream: the first has the first offset. So the stream's end tells which rows were appended, and
the table's log which have landed, also after a kill.
"""

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa

from noria.errors import SourceError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import Version
from noria.replay.feed import Feed
from noria.streams.consume import committed_offset, consume
from noria.streams.consuming import Told
from noria.streams.contract import EventStream
from noria.streams.declarations import Stream

__all__ = ["Events"]

_AT_ONCE = 10_000


class Events:
    """What comes as events, and how far it has come.

    Parameters
    ----------
    streams
        By the name of the dataset that each goes into.
    sources
        The opened streams, by their names.
    start
        The replay's first day: what was known before came as batches.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        sources: Mapping[str, EventStream],
        *,
        feed: Feed,
        lake: Lake,
        ledger: Ledger,
        start: datetime,
    ) -> None:
        self._streams, self._sources, self._start = streams, sources, start
        self._feed, self._lake, self._ledger = feed, lake, ledger

    def __contains__(self, dataset: Dataset) -> bool:
        return dataset.name in self._streams

    def receive(self, dataset: Dataset, day: datetime, end: datetime, of_day: Any) -> pa.Table:
        """Give the day's rows that hold their contract: those an earlier attempt has landed, and the others.

        Parameters
        ----------
        of_day
            What selects the day's rows in the table.
        """
        rows = self._feed.between(dataset, day, end)
        landed = committed_offset(self._streams[dataset.name], 0, self._lake) + 1 - self._rows(dataset, day)
        # what is wrong is set aside, however much: one event does not hold up the others
        tolerant = replace(dataset, max_rejected_share=1.0)
        left = self._lake.check(tolerant, rows.slice(min(max(landed, 0), rows.num_rows)), at=day).accepted
        if landed <= 0:
            return left
        there = self._lake.read(dataset.name, where=of_day)
        return pa.concat_tables([there, left.select(there.column_names).cast(there.schema)])

    def land(self, dataset: Dataset, day: datetime, end: datetime) -> Version | None:
        """Append the day's rows that were not appended yet, and consume what is there; give the version.

        Raises
        ------
        SourceError
            If the stream is not the one of this replay.
        """
        declared = self._streams[dataset.name]
        source = self._sources[declared.name]
        self._append(declared, source, dataset, day, end)
        consume(
            declared, source, self._lake, leases=self._ledger, tell=_nothing, stop=threading.Event(),
            until_empty=True,
        )  # fmt: skip
        found = self._ledger.list_versions(kind="dataset", name=dataset.name)
        return found[-1] if found else None

    def _append(
        self, declared: Stream, source: EventStream, dataset: Dataset, day: datetime, end: datetime
    ) -> None:
        before, rows = self._rows(dataset, day), self._feed.between(dataset, day, end)
        there = source.extent(0).following
        if not before <= there <= before + rows.num_rows:
            raise SourceError(
                f"stream {declared.name!r} holds {there} events, and {before} to {before + rows.num_rows} "
                f"were known by {end:%Y-%m-%d}: somebody else appends to it, or it was made anew. Replay "
                "into a project of its own"
            )
        left = rows.slice(there - before)
        for begin in range(0, left.num_rows, _AT_ONCE):
            source.append([_event(each) for each in left.slice(begin, _AT_ONCE).to_pylist()])

    def _rows(self, dataset: Dataset, end: datetime) -> int:
        return int(self._feed.between(dataset, self._start, end).num_rows)


def _event(row: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(row)


def _nothing(told: Told) -> None:
    """Take no notice: the records tell it."""
    del told
