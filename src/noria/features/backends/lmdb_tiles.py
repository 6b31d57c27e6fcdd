"""Counts rows into the values and tiles of a view, within one transaction."""

from array import array
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

from noria.features.layout import Layout, TierLayout
from noria.features.online_format import (
    DAY_PRUNED,
    GREATEST,
    HOUR_PRUNED,
    LAST_HEADER,
    LEAST,
    VALUE_HEADER,
    VALUE_MAGIC,
    tile_key,
)
from noria.features.prepared import Prepared, TierRows

__all__ = ["ViewChange", "last_words"]

Counts = npt.NDArray[np.uint32]
_SLACK = 8  # tiles that no window reaches any more, before they are dropped together


def last_words(event_us: int, key: bytes, values: bytes) -> bytes:
    """Encode the last row; `values` are float64."""
    return b"".join(
        (
            event_us.to_bytes(8, "little", signed=True),
            len(key).to_bytes(8, "little"),
            key,
            b"\0" * (-len(key) % 8),
            values,
        )
    )


class ViewChange:
    """The entities of one view that a transaction changes; each is read and written once."""

    def __init__(self, txn: lmdb.Transaction, database: Any, layout: Layout) -> None:
        self._txn, self._database, self._layout = txn, database, layout
        self._entities: dict[bytes, _Entity] = {}

    def count(self, prepared: Prepared, start: int, stop: int) -> None:
        """Count the rows from `start` before `stop`."""
        known = prepared.known_us[start:stop].tolist()
        entities = prepared.entities[start:stop]
        tiers = [
            (place, tier, _amounts(rows, start, stop))
            for place, (tier, rows) in enumerate(
                ((self._layout.hour, prepared.hour), (self._layout.day, prepared.day))
            )
            if tier.words
        ]
        for at, entity in enumerate(entities):
            if entity is None:
                continue
            state = self._entities.get(entity)
            if state is None:
                state = self._entities[entity] = self._open(entity)
                for place, tier, _ in tiers:
                    state.prune(place, tier.first_bucket(known[at], tier.window_s))
            for place, tier, amounts in tiers:
                if amounts.buckets[at] >= tier.first_bucket(known[at], tier.window_s):
                    state.add(place, amounts, at)
            if self._layout.keeps_last:
                row = start + at
                state.see_last(int(prepared.event_us[row]), prepared.keys[row], prepared.last[row].tobytes())
        for state in self._entities.values():
            state.write()
        self._entities.clear()

    def prune(self, at_us: int) -> None:
        """Drop the tiles that no window at `at_us` or later reaches, and the entities left with nothing."""
        for entity in self._names():
            state = self._open(entity)
            for place, tier in enumerate((self._layout.hour, self._layout.day)):
                if tier.words:
                    state.prune(place, tier.first_bucket(at_us, tier.window_s), slack=0)
            state.write()

    def _open(self, entity: bytes) -> "_Entity":
        return _Entity(self._txn, self._database, self._layout, entity)

    def _names(self) -> list[bytes]:
        names = []
        with self._txn.cursor(self._database) as cursor:
            for first in (b"#", b"="):
                found = cursor.set_range(first)
                while found and bytes(cursor.key())[:1] == first:
                    names.append(bytes(cursor.key()))
                    found = cursor.next()
        return names


class _Amounts:
    """A slice of what rows add, as lists: plain integers are quicker one by one."""

    __slots__ = ("additive", "buckets", "extrema", "positions")

    def __init__(self, rows: TierRows, start: int, stop: int) -> None:
        self.buckets: list[int] = rows.buckets[start:stop].tolist()
        self.additive: list[list[int]] = rows.additive[start:stop].tolist()
        self.extrema: list[list[int]] = rows.extrema[start:stop].tolist()
        self.positions: list[list[int]] = rows.positions[start:stop].tolist()


def _amounts(rows: TierRows, start: int, stop: int) -> _Amounts:
    return _Amounts(rows, start, stop)


class _Tiles:
    """The tiles of one tier of one entity: words oldest first, and the counts that were touched."""

    __slots__ = ("counts", "dropped", "layout", "pruned", "stops", "words")

    def __init__(self, layout: TierLayout, words: "array[int]", pruned: int) -> None:
        self.layout, self.words, self.pruned = layout, words, pruned
        self.counts: dict[int, Counts] = {}
        self.dropped: list[int] = []
        stops, at = [], 0
        for histogram in layout.histograms:
            at += histogram.bins
            stops.append(at)
        self.stops = stops


class _Entity:
    """An entity's value, open for changes."""

    def __init__(self, txn: lmdb.Transaction, database: Any, layout: Layout, entity: bytes) -> None:
        self._txn, self._database, self._layout, self._entity = txn, database, layout, entity
        raw = txn.get(entity, db=database)
        hour, day = layout.hour, layout.day
        if raw is None:
            self._last = array("q")
            self._tiers = (_Tiles(hour, array("q"), 0), _Tiles(day, array("q"), 0))
            return
        words = array("q", raw)
        hours, pruned, last = words[1], words[3], words[4]
        hour_at = VALUE_HEADER + last
        day_at = hour_at + hours * hour.words
        self._last = words[VALUE_HEADER:hour_at]
        self._tiers = (
            _Tiles(hour, words[hour_at:day_at], pruned & HOUR_PRUNED),
            _Tiles(day, words[day_at:], pruned & DAY_PRUNED),
        )

    def add(self, place: int, amounts: "_Amounts", row: int) -> None:
        """Count row `row` of `amounts` into its tile, and into the cumulative ones after it."""
        tiles = self._tiers[place]
        bucket, additive, positions = amounts.buckets[row], amounts.additive[row], amounts.positions[row]
        words, step = tiles.words, tiles.layout.words
        at = len(words) - step
        while at >= 0 and words[at] > bucket:
            at -= step
        if at < 0 or words[at] != bucket:
            at = self._insert(tiles, at, bucket)
        low = at + 1 + len(additive)
        for offset, value in enumerate(amounts.extrema[row]):
            position = low + offset
            held = words[position]
            if tiles.layout.extrema[offset].kind == "min":
                if value < held:
                    words[position] = value
            elif value > held:
                words[position] = value
        for tile in range(at, len(words), step):
            position = tile + 1
            for amount in additive:
                words[position] += amount
                position += 1
            if positions:
                counts = self._counts(tiles, words[tile])
                for first, stop in zip(positions, tiles.stops, strict=True):
                    counts[first:stop] += 1

    def prune(self, place: int, first_bucket: int, *, slack: int = _SLACK) -> None:
        """Drop tiles before `first_bucket` but the newest of them: windows subtract it."""
        tiles = self._tiers[place]
        words, step = tiles.words, tiles.layout.words
        at = 0
        while at < len(words) and words[at] < first_bucket:
            at += step
        if at and at == len(words):
            keep_from, tiles.pruned = at, 0  # nothing is left to subtract from
        elif at > max(slack, 1) * step:
            keep_from, tiles.pruned = at - step, 1
        else:
            return
        tiles.dropped += words[0:keep_from:step]
        del words[:keep_from]

    def see_last(self, event_us: int, key: bytes, values: bytes) -> None:
        """Keep the row if none happened later, or at once with a greater key."""
        last = self._last
        if last:
            if last[0] > event_us:
                return
            if last[0] == event_us and last[LAST_HEADER:].tobytes()[: last[1]] > key:
                return
        self._last = array("q", last_words(event_us, key, values))

    def write(self) -> None:
        """Put the value and the tiles that changed."""
        hour, day = self._tiers
        for tiles in self._tiers:
            for bucket in tiles.dropped:
                if tiles.layout.counts:
                    self._txn.delete(tile_key(tiles.layout, self._entity, bucket), db=self._database)
            for bucket, counts in tiles.counts.items():
                self._txn.put(
                    tile_key(tiles.layout, self._entity, bucket), counts.tobytes(), db=self._database
                )
        header = array(
            "q",
            (
                VALUE_MAGIC,
                len(hour.words) // hour.layout.words if hour.words else 0,
                len(day.words) // day.layout.words if day.words else 0,
                (HOUR_PRUNED if hour.pruned else 0) | (DAY_PRUNED if day.pruned else 0),
                len(self._last),
            ),
        )
        value = b"".join((header, self._last, hour.words, day.words))
        self._txn.put(self._entity, value, db=self._database)

    def _insert(self, tiles: _Tiles, before: int, bucket: int) -> int:
        """Put a new tile after the one at `before`, beginning with what that has counted."""
        layout, words = tiles.layout, tiles.words
        step, additive = layout.words, len(layout.additive)
        at = before + step if before >= 0 else 0
        fresh = words[before : before + step] if before >= 0 else array("q", bytes(8 * step))
        fresh[0] = bucket
        for offset, extremum in enumerate(layout.extrema):
            fresh[1 + additive + offset] = GREATEST if extremum.kind == "min" else LEAST
        words[at:at] = fresh
        if layout.counts:
            if before >= 0:
                tiles.counts[bucket] = self._counts(tiles, words[before]).copy()
            else:
                tiles.counts[bucket] = np.zeros(layout.counts, dtype=np.uint32)
        return at

    def _counts(self, tiles: _Tiles, bucket: int) -> Counts:
        counts = tiles.counts.get(bucket)
        if counts is None:
            raw = self._txn.get(tile_key(tiles.layout, self._entity, bucket), db=self._database)
            assert raw is not None, "a tile without its counts"
            counts = tiles.counts[bucket] = np.frombuffer(bytearray(raw), dtype=np.uint32)
        return counts
