"""All values and tiles of a view at once, for loading."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noria.features.backends.lmdb_tiles import last_row, value_header
from noria.features.columns import Ints
from noria.features.layout import TierLayout
from noria.features.online_format import GREATEST, LEAST, NARROW, WIDE, tile_key
from noria.features.prepared import Prepared, TierRows

__all__ = ["entity_values"]


def entity_values(prepared: Prepared, rows: int) -> list[tuple[bytes, bytes]]:
    """Give the sorted keys and values that the first `rows` rows make."""
    if not rows:
        return []
    names, codes = _codes(prepared.entities[:rows])
    latest_us = int(prepared.known_us[rows - 1])
    hour = _TierValues.of(prepared.layout.hour, prepared.hour, codes, latest_us=latest_us)
    day = _TierValues.of(prepared.layout.day, prepared.day, codes, latest_us=latest_us)
    last = _last_rows(prepared, codes) if prepared.layout.keeps_last else {}
    items = [*hour.count_items(names), *day.count_items(names)]
    wide = hour.wide() | day.wide()
    hours, days = hour.packed(len(names)), day.packed(len(names))
    for code, name in enumerate(names):
        width = WIDE if code in wide else NARROW
        kept = last.get(code, b"")
        tiles = hours.tiles(code), days.tiles(code)
        if any(tiles) or kept:
            header = value_header(width, *tiles, pruned=0, last_bytes=len(kept))
            items.append((name, b"".join((header, kept, hours.words(code, width), days.words(code, width)))))
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

    @classmethod
    def of(cls, layout: TierLayout, rows: TierRows, codes: Ints, *, latest_us: int) -> "_TierValues":
        """Sum the rows that a window at `latest_us` reaches."""
        size = len(codes)
        if not layout.words:
            return cls(layout, np.empty(0, np.int64), np.empty((0, 0), np.int64), np.empty((0, 0), np.uint32))
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
        counts = _counts(layout, rows.positions[order], np.cumsum(is_first) - 1, tile_codes)
        return cls(layout, tile_codes, words, counts)

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


def _last_rows(prepared: Prepared, codes: Ints) -> dict[int, bytes]:
    """Encode each entity's last row."""
    best: dict[int, int] = {}
    event, keys = prepared.event_us.tolist(), prepared.keys
    for row, code in enumerate(codes.tolist()):
        held = best.get(code)
        if held is None or (event[row], keys[row]) >= (event[held], keys[held]):
            best[code] = row
    best.pop(-1, None)
    return {code: last_row(event[row], keys[row], prepared.last[row].tobytes()) for code, row in best.items()}
