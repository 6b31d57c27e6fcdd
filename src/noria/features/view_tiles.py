"""Counts rows into the values and tiles of a view, within one change of a store."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from math import exp2
from typing import Protocol

import numpy as np
import numpy.typing as npt

from noria.errors import StoreError
from noria.features.kept_rows import NOTHING, happened_earlier, happened_later, kept_row, split_rows
from noria.features.layout import Layout, TierLayout
from noria.features.online_format import (
    DAY_PRUNED,
    GREATEST,
    HOUR_PRUNED,
    LEAST,
    NARROW,
    NEWEST,
    VALUE,
    VALUE_MAGIC,
    WIDE,
    firsts_key,
    tile_key,
)
from noria.features.prepared import Prepared, TierRows

__all__ = ["RowsOfView", "ViewTiles", "value_header"]

Counts = npt.NDArray[np.uint32]
_SLACK = 4  # tiles with counts that no window reaches any more, before they are dropped together
_OPEN_ENTITIES = 4_096  # of a view, a few kilobytes each


def value_header(
    width: str, hours: int, days: int, *, pruned: int, last_bytes: int, decayed_bytes: int
) -> bytes:
    """Encode the header of an entity's value."""
    return VALUE.pack(VALUE_MAGIC[width], hours, days, pruned, last_bytes, decayed_bytes)


class RowsOfView(Protocol):
    """The keys and values of a view within one change: what was written is given back by `get`."""

    @property
    def get(self) -> Callable[[bytes], bytes | None]:
        """Give the value of a key, `None` if there is none."""
        ...

    def write(self, puts: Sequence[tuple[bytes, bytes]], gone: Sequence[bytes]) -> None:
        """Delete the keys `gone`, then put."""
        ...


class ViewTiles:
    """The entities of one view as its only writer knows them.

    Those that were changed last stay open, so that they need not be read again; `forget` them when a
    transaction did not come to its end.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.last_widths = tuple(len(each.columns) for each in layout.lasts)
        self.half_lives_us = tuple(each.half_life_s * 1e6 for each in layout.decayed)
        self.get: Callable[[bytes], bytes | None] = _no_change  # within `count` and `prune`
        self._open: dict[bytes, _Entity] = {}

    def forget(self) -> None:
        """Close all entities."""
        self._open.clear()

    def unopened(self, prepared: Prepared, *, start: int, stop: int) -> list[bytes]:
        """Give the keys that `count` will ask for first: the entities that are not open."""
        return [key for key in {*prepared.entities[start:stop]} if key is not None and key not in self._open]

    def open(self, rows: RowsOfView, keys: Iterable[bytes]) -> list[bytes]:
        """Open entities, and give the keys beside their newest tiles, which `count` asks for next."""
        self.get = rows.get
        beside: list[bytes] = []
        for key in keys:
            entity = self._open[key] = _Entity(self, key)
            beside += entity.hour.keys_of_newest() + entity.day.keys_of_newest()
        self.get = _no_change
        return beside

    def count(self, rows: RowsOfView, prepared: Prepared, *, start: int, stop: int) -> None:
        """Count the rows from `start` before `stop`."""
        self.get = rows.get
        hour = _Amounts(prepared, prepared.hour, start, stop) if self.layout.hour.words else None
        day = _Amounts(prepared, prepared.day, start, stop) if self.layout.day.words else None
        lasts = [(at, each.counted[start:stop].tolist()) for at, each in enumerate(prepared.lasts)]
        weights = prepared.weights[start:stop].tolist() if self.half_lives_us else None
        held = self._open
        touched: dict[bytes, _Entity] = {}
        for row, key in enumerate(prepared.entities[start:stop]):
            if key is None:
                continue
            entity = touched.get(key)
            if entity is None:
                entity = held.get(key)
                if entity is None:
                    entity = held[key] = _Entity(self, key)
                touched[key] = entity
                if hour:
                    entity.hour.prune(hour.floors[row], slack=_SLACK if entity.hour.layout.keeps_apart else 1)
                if day:
                    entity.day.prune(day.floors[row], slack=_SLACK if entity.day.layout.keeps_apart else 1)
            if hour and hour.buckets[row] >= hour.floors[row]:
                entity.hour.add(hour, row)
            if day and day.buckets[row] >= day.floors[row]:
                entity.day.add(day, row)
            at = start + row
            for group, counted in lasts:
                if counted[row]:
                    values = prepared.lasts[group].values[at].tobytes()
                    entity.see_last(group, int(prepared.event_us[at]), prepared.keys[at], values)
            if weights is not None:
                entity.fade(int(prepared.event_us[at]), weights[row])
        self._write(rows, touched.values())
        if len(held) > _OPEN_ENTITIES:
            held.clear()

    def prune(self, rows: RowsOfView, keys: Iterable[bytes], at_us: int) -> None:
        """Drop what no reading of these entities at `at_us` or later needs, entities included."""
        self.get = rows.get
        self.forget()
        changed = []
        for key in keys:
            entity = _Entity(self, key)
            for tiles in (entity.hour, entity.day):
                if tiles.layout.words:
                    tiles.prune(tiles.layout.first_bucket(at_us, tiles.layout.window_s), slack=1)
            if entity.hour.dropped or entity.day.dropped:
                changed.append(entity)
        self._write(rows, changed)

    def _write(self, rows: RowsOfView, entities: Iterable["_Entity"]) -> None:
        puts: list[tuple[bytes, bytes]] = []
        gone: list[bytes] = []
        for entity in entities:
            gone += entity.write(puts)
        rows.write(puts, gone)
        self.get = _no_change


def _no_change(key: bytes) -> bytes | None:
    raise AssertionError(f"{key!r} is asked for outside of a change")


class _Amounts:
    """A slice of what rows add, as lists: plain integers are quicker one by one."""

    __slots__ = ("_prepared", "_start", "additive", "buckets", "extrema", "firsts", "floors", "positions")

    def __init__(self, prepared: Prepared, rows: TierRows, start: int, stop: int) -> None:
        self._prepared, self._start = prepared, start
        self.firsts = rows.firsts
        self.buckets: list[int] = rows.buckets[start:stop].tolist()
        self.floors: list[int] = rows.floors[start:stop].tolist()
        self.additive: list[list[int]] = rows.additive[start:stop].tolist()
        self.extrema: list[list[int]] = rows.extrema[start:stop].tolist()
        self.positions: list[list[int]] = rows.positions[start:stop].tolist()

    def kept(self, row: int, group: int) -> tuple[int, bytes, bytes] | None:
        """Give the instant, key and columns of a row that may be a tile's first; `None` if it may not."""
        at = self._start + row
        first = self.firsts[group]
        if not first.counted[at]:
            return None
        return int(self._prepared.event_us[at]), self._prepared.keys[at], first.values[at].tobytes()


class _Entity:
    """An entity's value, open for changes."""

    __slots__ = ("_half_lives_us", "day", "faded", "hour", "key", "lasts", "newest_us")

    def __init__(self, view: ViewTiles, key: bytes) -> None:
        self.key = key
        self._half_lives_us = view.half_lives_us
        raw = view.get(key)
        hour, day = view.layout.hour, view.layout.day
        self.lasts: list[bytes] = [NOTHING] * len(view.last_widths)
        self.newest_us: int | None = None
        self.faded = array("d", (0.0,) * len(view.half_lives_us))
        if raw is None:
            self.hour, self.day = _Tiles(view, hour, key), _Tiles(view, day, key)
            return
        magic, hours, _, pruned, last_bytes, decayed_bytes = VALUE.unpack_from(raw)
        width = NARROW if magic == VALUE_MAGIC[NARROW] else WIDE
        decayed_at = VALUE.size + last_bytes
        hour_at = decayed_at + decayed_bytes
        day_at = hour_at + hours * hour.words * (4 if width == NARROW else 8)
        if last_bytes:
            self.lasts = split_rows(raw[VALUE.size : decayed_at], view.last_widths)
        if decayed_bytes:
            (self.newest_us,) = NEWEST.unpack_from(raw, decayed_at)
            self.faded = array("d", raw[decayed_at + NEWEST.size : hour_at])
        self.hour = _Tiles(view, hour, key, array(width, raw[hour_at:day_at]), pruned & HOUR_PRUNED)
        self.day = _Tiles(view, day, key, array(width, raw[day_at:]), pruned & DAY_PRUNED)

    def see_last(self, group: int, event_us: int, key: bytes, values: bytes) -> None:
        """Keep the row if none happened later, or at once with a greater key."""
        held = self.lasts[group]
        if held == NOTHING or not happened_later(held, event_us, key):
            self.lasts[group] = kept_row(event_us, key, values)

    def fade(self, event_us: int, weights: list[float]) -> None:
        """Add what decays: the sums are as of the newest event."""
        faded, newest = self.faded, self.newest_us
        if newest is None or event_us > newest:
            self.newest_us = event_us
            for at, (weight, half_life_us) in enumerate(zip(weights, self._half_lives_us, strict=True)):
                left = 0.0 if newest is None else faded[at] * exp2((newest - event_us) / half_life_us)
                faded[at] = left + weight
        else:
            for at, (weight, half_life_us) in enumerate(zip(weights, self._half_lives_us, strict=True)):
                faded[at] += weight * exp2((event_us - newest) / half_life_us)

    def write(self, puts: list[tuple[bytes, bytes]]) -> list[bytes]:
        """Add what is to be put to `puts`, and give the keys to delete."""
        hour, day = self.hour, self.day
        gone = hour.write(puts) + day.write(puts)
        kept = b"".join(self.lasts) if any(each != NOTHING for each in self.lasts) else b""
        decayed = b"" if self.newest_us is None else NEWEST.pack(self.newest_us) + self.faded.tobytes()
        if not (kept or decayed or hour.words or day.words):
            return [*gone, self.key]
        if hour.words.typecode != day.words.typecode:
            hour.widen()
            day.widen()
        header = value_header(
            hour.words.typecode,
            len(hour.words) // hour.layout.words if hour.words else 0,
            len(day.words) // day.layout.words if day.words else 0,
            pruned=hour.pruned * HOUR_PRUNED | day.pruned * DAY_PRUNED,
            last_bytes=len(kept),
            decayed_bytes=len(decayed),
        )
        puts.append((self.key, b"".join((header, kept, decayed, hour.words, day.words))))
        return gone


class _Tiles:
    """The tiles of one tier of one entity: words, oldest first, and the counts that were touched."""

    __slots__ = (
        "_changed", "_changed_firsts", "_entity", "_held", "_held_firsts", "_view",
        "dropped", "layout", "pruned", "words",
    )  # fmt: skip

    def __init__(
        self,
        view: ViewTiles,
        layout: TierLayout,
        entity: bytes,
        words: "array[int] | None" = None,
        pruned: int = 0,
    ) -> None:
        self._view, self._entity = view, entity
        self.layout, self.pruned = layout, pruned > 0
        self.words = array(NARROW) if words is None else words
        self._held: dict[int, Counts] = {}  # as they are in the store
        self._changed: dict[int, Counts] = {}
        self._held_firsts: dict[int, list[bytes]] = {}
        self._changed_firsts: dict[int, list[bytes]] = {}
        self.dropped: list[int] = []

    def add(self, amounts: _Amounts, row: int) -> None:
        """Count a row into its tile, and into the cumulative ones after it."""
        layout, words, bucket = self.layout, self.words, amounts.buckets[row]
        step = layout.words
        at = len(words) - step
        while at >= 0 and words[at] > bucket:
            at -= step
        if at < 0 or words[at] != bucket:
            at = self._insert(at, bucket)
        additive, extrema = amounts.additive[row], amounts.extrema[row]
        before = words[at:]
        try:
            self._sum(at, additive, extrema)
        except OverflowError:
            words[at:] = before
            self.widen()
            self._sum(at, additive, extrema)
        if layout.counts:
            words, positions = self.words, amounts.positions[row]
            for tile in range(at, len(words), step):
                counts = self._counts_of(words[tile])
                for first, stop in zip(positions, layout.stops, strict=True):
                    counts[first:stop] += 1
        for group in range(len(layout.firsts)):
            kept = amounts.kept(row, group)
            if kept is not None:
                event_us, key, values = kept
                firsts = self._firsts_of(bucket)
                if firsts[group] == NOTHING or not happened_earlier(firsts[group], event_us, key):
                    firsts[group] = kept_row(event_us, key, values)

    def _sum(self, at: int, additive: list[int], extrema: list[int]) -> None:
        words, step, word = self.words, self.layout.words, at
        for amount in additive:
            word += 1
            if amount:
                for position in range(word, len(words), step):
                    words[position] += amount
        if not extrema:
            return
        for extremum, value in zip(self.layout.extrema, extrema, strict=True):
            word += 1
            is_min = extremum.kind == "min"
            if value == (GREATEST if is_min else LEAST)[WIDE]:
                continue  # missing
            if words.typecode == NARROW and not LEAST[NARROW] < value < GREATEST[NARROW]:
                raise OverflowError
            words[word] = min(words[word], value) if is_min else max(words[word], value)

    def widen(self) -> None:
        """Go on in words of 64 bits."""
        words = self.words
        if words.typecode == WIDE:
            return
        self.words = array(WIDE, words)
        first = 1 + len(self.layout.additive)
        for offset, extremum in enumerate(self.layout.extrema):
            empty = GREATEST if extremum.kind == "min" else LEAST
            for position in range(first + offset, len(words), self.layout.words):
                if words[position] == empty[NARROW]:
                    self.words[position] = empty[WIDE]

    def prune(self, floor: int, *, slack: int) -> None:
        """Drop tiles before the bucket `floor` but the newest of them: windows subtract that one."""
        words, step = self.words, self.layout.words
        if not words or words[0] >= floor:
            return
        if words[-step] < floor:
            kept, self.pruned = len(words), False  # nothing is left to subtract from
        elif len(words) > slack * step and words[slack * step] < floor:
            kept, self.pruned = slack * step, True
            while words[kept + step] < floor:
                kept += step
        else:
            return
        if self.layout.keeps_apart:
            self.dropped += words[0:kept:step]
        else:
            self.dropped = [words[0]]
        del words[:kept]

    def write(self, puts: list[tuple[bytes, bytes]]) -> list[bytes]:
        """Add what changed beside the words to `puts`, and give the keys of that to delete."""
        layout, entity = self.layout, self._entity
        if not layout.keeps_apart:
            return []
        dropped, self.dropped = self.dropped, []
        gone = []
        if layout.counts:
            for bucket, counts in self._changed.items():
                puts.append((tile_key(layout, entity, bucket), counts.tobytes()))
            self._held, self._changed = self._changed, {}
            gone += [tile_key(layout, entity, bucket) for bucket in dropped]
        if layout.firsts:
            for bucket, firsts in self._changed_firsts.items():
                puts.append((firsts_key(layout, entity, bucket), b"".join(firsts)))
            self._held_firsts, self._changed_firsts = self._changed_firsts, {}
            gone += [firsts_key(layout, entity, bucket) for bucket in dropped]
        return gone

    def keys_of_newest(self) -> list[bytes]:
        """Give the keys of what lies beside the newest tile."""
        layout, entity = self.layout, self._entity
        if not layout.keeps_apart or not self.words:
            return []
        bucket = self.words[-layout.words]
        keys = [tile_key(layout, entity, bucket)] if layout.counts else []
        return [*keys, firsts_key(layout, entity, bucket)] if layout.firsts else keys

    def _insert(self, before: int, bucket: int) -> int:
        """Put a new tile after the one at `before`, beginning with what that has counted."""
        layout, words = self.layout, self.words
        step = layout.words
        at = before + step if before >= 0 else 0
        fresh = words[before:at] if before >= 0 else array(words.typecode, (0,) * step)
        fresh[0] = bucket
        for word, extremum in enumerate(layout.extrema, 1 + len(layout.additive)):
            fresh[word] = (GREATEST if extremum.kind == "min" else LEAST)[words.typecode]
        words[at:at] = fresh
        if layout.counts:
            self._changed[bucket] = (
                self._counts_of(words[before]).copy()
                if before >= 0
                else np.zeros(layout.counts, dtype=np.uint32)
            )
        if layout.firsts:
            self._changed_firsts[bucket] = [NOTHING] * len(layout.firsts)
        return at

    def _firsts_of(self, bucket: int) -> list[bytes]:
        """Give the first rows of a tile, to be changed."""
        firsts = self._changed_firsts.get(bucket)
        if firsts is None:
            firsts = self._held_firsts.get(bucket)
            if firsts is None:
                raw = self._view.get(firsts_key(self.layout, self._entity, bucket))
                if raw is None:
                    raise self._lost()
                firsts = split_rows(bytes(raw), [len(each.columns) for each in self.layout.firsts])
            self._changed_firsts[bucket] = firsts
        return firsts

    def _counts_of(self, bucket: int) -> Counts:
        """Give the counts of a tile, to be changed."""
        counts = self._changed.get(bucket)
        if counts is None:
            counts = self._held.get(bucket)
            if counts is None:
                raw = self._view.get(tile_key(self.layout, self._entity, bucket))
                if raw is None:
                    raise self._lost()
                counts = np.frombuffer(bytearray(raw), dtype=np.uint32)
            self._changed[bucket] = counts
        return counts

    def _lost(self) -> StoreError:
        return StoreError(f"a tile of {self._entity!r} is lost; load the view again")
