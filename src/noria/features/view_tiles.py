"""Counts rows into the values and tiles of a view, within one change of a store."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from math import exp2
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from noria.errors import StoreDamaged
from noria.features.kept_rows import NOTHING, happened_earlier, happened_later, kept_row, split_rows
from noria.features.kept_values import LastValues, decode_values, encode_values, happened_after
from noria.features.layout import Layout, TierLayout
from noria.features.online_format import (
    DAY_PRUNED,
    GREATEST,
    HOUR_PRUNED,
    LEAST,
    MINUTE_PRUNED,
    NARROW,
    NEWEST,
    VALUE,
    VALUE_MAGIC,
    WIDE,
    firsts_key,
    tile_key,
    values_key,
)
from noria.features.prepared import Prepared, TierRows

__all__ = ["RowsOfView", "ViewTiles"]

Counts = npt.NDArray[np.uint32]
_SLACK = 4  # tiles with counts that no window reaches any more, before they are dropped together
_OPEN_ENTITIES = 4_096  # of a view, a few kilobytes each
_PRUNED = (MINUTE_PRUNED, HOUR_PRUNED, DAY_PRUNED)


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
        # The tiers that have any tiles: place in a header, layout, and the bit that tells of dropped ones.
        self.tiers = [
            (at, tier, bit)
            for at, (tier, bit) in enumerate(zip(layout.tiers, _PRUNED, strict=True))
            if tier.words
        ]
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
            beside += [each for tiles in entity.tiers for each in tiles.keys_of_newest()]
            if self.layout.values:
                beside.append(values_key(key))
        self.get = _no_change
        return beside

    def count(  # noqa: PLR0912 - one loop over rows, for speed
        self, rows: RowsOfView, prepared: Prepared, *, start: int, stop: int
    ) -> None:
        """Count the rows from `start` before `stop`."""
        self.get = rows.get
        tiers = [
            (place, _Amounts(prepared, prepared.tiers[at], start, stop), _SLACK if tier.keeps_apart else 1)
            for place, (at, tier, _) in enumerate(self.tiers)
        ]
        lasts = [(at, each.counted[start:stop].tolist()) for at, each in enumerate(prepared.lasts)]
        values = [(at, each.counted[start:stop].tolist()) for at, each in enumerate(prepared.values)]
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
                for tier, amounts, slack in tiers:
                    entity.tiers[tier].prune(amounts.floors[row], slack=slack)
            for tier, amounts, _ in tiers:
                if amounts.buckets[row] >= amounts.floors[row]:
                    entity.tiers[tier].add(amounts, row)
            at = start + row
            for group, counted in lasts:
                if counted[row]:
                    kept = prepared.lasts[group].values[at].tobytes()
                    entity.see_last(group, int(prepared.event_us[at]), prepared.keys[at], kept)
            for group, counted in values:
                if counted[row]:
                    entity.see_values(group, prepared, at)
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
            for tiles in entity.tiers:
                tiles.prune(tiles.layout.first_bucket(at_us, tiles.layout.window_s), slack=1)
            if any(tiles.dropped for tiles in entity.tiers):
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

    __slots__ = (
        "_changed_values", "_half_lives_us", "_values", "_view",
        "faded", "key", "lasts", "newest_us", "tiers",
    )  # fmt: skip

    def __init__(self, view: ViewTiles, key: bytes) -> None:
        self.key, self._view = key, view
        self._half_lives_us = view.half_lives_us
        self._values: list[LastValues | None] | None = None  # not looked up
        self._changed_values = False
        raw = view.get(key)
        self.lasts: list[bytes] = [NOTHING] * len(view.last_widths)
        self.newest_us: int | None = None
        self.faded = array("d", (0.0,) * len(view.half_lives_us))
        if raw is None:
            self.tiers = [_Tiles(view, tier, key) for _, tier, _ in view.tiers]
            return
        magic, *sizes, pruned, last_bytes, decayed_bytes = VALUE.unpack_from(raw)
        width = NARROW if magic == VALUE_MAGIC[NARROW] else WIDE
        decayed_at = VALUE.size + last_bytes
        tiles_at = decayed_at + decayed_bytes
        if last_bytes:
            self.lasts = split_rows(raw[VALUE.size : decayed_at], view.last_widths)
        if decayed_bytes:
            (self.newest_us,) = NEWEST.unpack_from(raw, decayed_at)
            self.faded = array("d", raw[decayed_at + NEWEST.size : tiles_at])
        self.tiers = []
        for at, tier, bit in view.tiers:
            stop = tiles_at + sizes[at] * tier.words * (4 if width == NARROW else 8)
            self.tiers.append(_Tiles(view, tier, key, array(width, raw[tiles_at:stop]), pruned & bit))
            tiles_at = stop

    def see_last(self, group: int, event_us: int, key: bytes, values: bytes) -> None:
        """Keep the row if none happened later, or at once with a greater key."""
        held = self.lasts[group]
        if held == NOTHING or not happened_later(held, event_us, key):
            self.lasts[group] = kept_row(event_us, key, values)

    def see_values(self, group: int, prepared: Prepared, at: int) -> None:
        """Keep the texts and vectors of a row in the same way."""
        if self._values is None:
            raw = self._view.get(values_key(self.key))
            self._values = [None] * len(prepared.values) if raw is None else self._decoded(raw)
        event_us, key, held = int(prepared.event_us[at]), prepared.keys[at], self._values[group]
        if held is None or not happened_after(held, event_us, key):
            self._values[group] = prepared.values[group].row(at, event_us, key)
            self._changed_values = True

    def _decoded(self, raw: bytes) -> list[LastValues | None]:
        try:
            return decode_values(raw)
        except msgspec.DecodeError as err:
            raise StoreDamaged(
                f"the texts and vectors of {self.key!r} are damaged; load the view again"
            ) from err

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
        gone: list[bytes] = []
        sizes, pruned, words = [0, 0, 0], 0, []
        width = NARROW
        for (at, tier, bit), tiles in zip(self._view.tiers, self.tiers, strict=True):
            if tier.keeps_apart:
                gone += tiles.write(puts)
            sizes[at] = len(tiles.words) // tier.words
            pruned |= bit if tiles.pruned else 0
            words.append(tiles.words)
            if tiles.words.typecode == WIDE:
                width = WIDE
        if self._values is not None and self._changed_values:
            self._changed_values = False
            puts.append((values_key(self.key), encode_values(self._values)))
        kept = b"".join(self.lasts) if any(each != NOTHING for each in self.lasts) else b""
        decayed = b"" if self.newest_us is None else NEWEST.pack(self.newest_us) + self.faded.tobytes()
        if not (kept or decayed or any(words)):
            return [*gone, self.key]
        if width == WIDE:
            for tiles in self.tiers:
                tiles.widen()
            words = [tiles.words for tiles in self.tiers]
        header = VALUE.pack(VALUE_MAGIC[width], *sizes, pruned, len(kept), len(decayed))
        puts.append((self.key, b"".join((header, kept, decayed, *words))))
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

    def _lost(self) -> StoreDamaged:
        return StoreDamaged(f"a tile of {self._entity!r} is lost; load the view again")
