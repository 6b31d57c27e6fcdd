"""All values and tiles of a view at once, for loading."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noria.features.backends.lmdb_tiles import value_header
from noria.features.columns import Ints
from noria.features.kept_rows import NOTHING, kept_row
from noria.features.layout import TierLayout
from noria.features.online_format import GREATEST, LEAST, NARROW, NEWEST, WIDE, firsts_key, tile_key
from noria.features.prepared import KeptRows, Prepared, TierRows

__all__ = ["entity_values"]


def entity_values(prepared: Prepared, rows: int) -> list[tuple[bytes, bytes]]:
    """Give the sorted keys and values that the first `rows` rows make."""
    if not rows:
        return []
    names, codes = _codes(prepared.entities[:rows])
    latest_us = int(prepared.known_us[rows - 1])
    hour = _TierValues.of(prepared.layout.hour, prepared.hour, codes, latest_us=latest_us)
    day = _TierValues.of(prepared.layout.day, prepared.day, codes, latest_us=latest_us)
    lasts = [_newest_rows(prepared, kept, codes, rows) for kept in prepared.lasts]
    faded = _faded(prepared, codes) if prepared.layout.decayed else {}
    items = [
        *hour.count_items(names),
        *day.count_items(names),
        *hour.first_items(prepared, names),
        *day.first_items(prepared, names),
    ]
    wide = hour.wide() | day.wide()
    hours, days = hour.packed(len(names)), day.packed(len(names))
    for code, name in enumerate(names):
        width = WIDE if code in wide else NARROW
        kept = [each.get(code, NOTHING) for each in lasts]
        last = b"".join(kept) if any(each != NOTHING for each in kept) else b""
        decayed = faded.get(code, b"")
        tiles = hours.tiles(code), days.tiles(code)
        if any(tiles) or last or decayed:
            header = value_header(width, *tiles, pruned=0, last_bytes=len(last), decayed_bytes=len(decayed))
            parts = (header, last, decayed, hours.words(code, width), days.words(code, width))
            items.append((name, b"".join(parts)))
    items.sort()
    return items


def _codes(entities: list[bytes | None]) -> tuple[list[bytes], Ints]:
    numbers: dict[bytes, int] = {}
    codes = [-1 if each is None else numbers.setdefault(each, len(numbers)) for each in entities]
    return list(numbers), np.array(codes, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _TierValues:
    """One tier's tiles of all entities, sorted by entity and bucket."""

    layout: TierLayout
    codes: Ints  # of each tile
    words: Ints  # (tiles, words)
    counts: npt.NDArray[np.uint32]  # (tiles, counts)
    order: Ints  # the rows, sorted by tile
    tiles: Ints  # the tile of each of those
    firsts: tuple[KeptRows, ...]

    @classmethod
    def of(cls, layout: TierLayout, rows: TierRows, codes: Ints, *, latest_us: int) -> "_TierValues":
        """Sum the rows that a window at `latest_us` reaches."""
        size = len(codes)
        if not layout.words:
            none = np.empty(0, np.int64)
            return cls(layout, none, np.empty((0, 0), np.int64), np.empty((0, 0), np.uint32), none, none, ())
        buckets = rows.buckets[:size]
        used = np.flatnonzero((codes >= 0) & (buckets >= layout.first_bucket(latest_us, layout.window_s)))
        order = used[np.lexsort((buckets[used], codes[used]))]
        code, bucket = codes[order], buckets[order]
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = (code[1:] != code[:-1]) | (bucket[1:] != bucket[:-1])
        first = np.flatnonzero(is_first)
        tile_codes = code[first]
        words = np.empty((len(first), layout.words), dtype=np.int64)
        additive = len(layout.additive)
        words[:, 0] = bucket[first]
        if len(first):
            totals = np.add.reduceat(rows.additive[order], first, axis=0)
            words[:, 1 : 1 + additive] = _cumulative(totals, tile_codes)
            for at, extremum in enumerate(layout.extrema):
                reduce = np.minimum if extremum.kind == "min" else np.maximum
                words[:, 1 + additive + at] = reduce.reduceat(rows.extrema[order, at], first)
        tiles = np.cumsum(is_first) - 1
        counts = _counts(layout, rows.positions[order], tiles, tile_codes)
        return cls(layout, tile_codes, words, counts, order, tiles, rows.firsts)

    def wide(self) -> set[int]:
        """Give the entities that have a word beyond 32 bits."""
        nothing = (self.words == GREATEST[WIDE]) | (self.words == LEAST[WIDE])
        fits = (self.words > LEAST[NARROW]) & (self.words < GREATEST[NARROW]) | nothing
        return set(self.codes[~fits.all(axis=1)].tolist())

    def packed(self, entities: int) -> "_Packed":
        """Give the tiles as bytes, by entity."""
        narrow = np.clip(self.words, LEAST[NARROW], GREATEST[NARROW]).astype(np.int32)
        bounds = np.searchsorted(self.codes, np.arange(entities + 1)).tolist()
        return _Packed(bounds, self.layout.words, {NARROW: narrow.tobytes(), WIDE: self.words.tobytes()})

    def count_items(self, names: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Give the keys and values of the tiles' counts."""
        if not self.layout.counts:
            return []
        raw, size = self.counts.tobytes(), 4 * self.layout.counts
        buckets = self.words[:, 0].tolist()
        return [
            (tile_key(self.layout, names[code], bucket), raw[at * size : (at + 1) * size])
            for at, (code, bucket) in enumerate(zip(self.codes.tolist(), buckets, strict=True))
        ]

    def first_items(self, prepared: Prepared, names: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Give the keys and values of the tiles' first rows."""
        if not self.layout.firsts:
            return []
        firsts = [
            _extreme_rows(prepared, kept, self.order, self.tiles, is_last=False) for kept in self.firsts
        ]
        buckets = self.words[:, 0].tolist()
        return [
            (
                firsts_key(self.layout, names[code], bucket),
                b"".join(each.get(at, NOTHING) for each in firsts),
            )
            for at, (code, bucket) in enumerate(zip(self.codes.tolist(), buckets, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class _Packed:
    """One tier's tiles as bytes, in words of either width."""

    bounds: list[int]  # where each entity's tiles begin, and the last one's end
    step: int
    data: dict[str, bytes]

    def tiles(self, code: int) -> int:
        """Count an entity's tiles."""
        return self.bounds[code + 1] - self.bounds[code]

    def words(self, code: int, width: str) -> bytes:
        """Give an entity's tiles."""
        size = self.step * (4 if width == NARROW else 8)
        return self.data[width][self.bounds[code] * size : self.bounds[code + 1] * size]


def _cumulative(totals: Ints, codes: Ints) -> Ints:
    """Sum along the tiles of each entity."""
    running = np.cumsum(totals, axis=0)
    before = running - totals
    start = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    return running - np.repeat(before[start], np.diff(np.append(start, len(codes))), axis=0)


def _counts(layout: TierLayout, positions: Ints, tiles: Ints, codes: Ints) -> npt.NDArray[np.uint32]:
    """Count cumulatively over bins and over the tiles of each entity."""
    counts = np.zeros((len(codes), layout.counts), dtype=np.int64)
    stop = 0
    for at, histogram in enumerate(layout.histograms):
        start, stop = stop, stop + histogram.bins
        seen = positions[:, at] < stop
        np.add.at(counts, (tiles[seen], positions[seen, at]), 1)
        counts[:, start:stop] = np.cumsum(counts[:, start:stop], axis=1)
    if len(codes) and layout.counts:
        counts = _cumulative(counts, codes)
    return counts.astype(np.uint32)


def _newest_rows(prepared: Prepared, kept: KeptRows, codes: Ints, rows: int) -> dict[int, bytes]:
    """Encode each entity's last row."""
    newest = _extreme_rows(prepared, kept, np.arange(rows), codes, is_last=True)
    newest.pop(-1, None)
    return newest


def _extreme_rows(
    prepared: Prepared, kept: KeptRows, rows: Ints, groups: Ints, *, is_last: bool
) -> dict[int, bytes]:
    """Encode the row of each group that happened first or last; ties by key."""
    mine = kept.counted[rows]
    rows, groups = rows[mine], groups[mine]
    event = prepared.event_us[rows]
    order = np.lexsort((event if is_last else -event, groups))
    # The sought row comes last in its group; what happened at once with it decides by its key.
    group, event = groups[order], event[order]
    ends = np.flatnonzero(np.append(group[1:] != group[:-1], True)) if len(group) else np.empty(0, np.int64)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    found: dict[int, bytes] = {}
    keys = prepared.keys
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        best = end
        while end > start and event[end - 1] == event[best]:
            end -= 1  # noqa: PLW2901 - walks over the ties
        tied = [int(each) for each in rows[order[end : best + 1]]]
        at = (max if is_last else min)(tied, key=keys.__getitem__) if len(tied) > 1 else tied[0]
        found[int(group[best])] = kept_row(int(prepared.event_us[at]), keys[at], kept.values[at].tobytes())
    return found


def _faded(prepared: Prepared, codes: Ints) -> dict[int, bytes]:
    """Encode each entity's decaying sums, as of its newest event."""
    size = len(codes)
    entities = int(codes.max(initial=-1)) + 1
    mine = codes >= 0
    event = prepared.event_us[:size]
    newest = np.full(entities, np.iinfo(np.int64).min)
    np.maximum.at(newest, codes[mine], event[mine])
    sums = np.zeros((entities, len(prepared.layout.decayed)))
    age = (newest[codes[mine]] - event[mine]).astype(np.float64)
    for at, decayed in enumerate(prepared.layout.decayed):
        left = prepared.weights[:size, at][mine] * np.exp2(-age / (decayed.half_life_s * 1e6))
        np.add.at(sums[:, at], codes[mine], left)
    return {code: NEWEST.pack(at_us) + sums[code].tobytes() for code, at_us in enumerate(newest.tolist())}
