"""All values and tiles of a view at once, for loading."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import compress
from operator import or_

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.features.columns import Ints
from noria.features.kept_rows import NOTHING
from noria.features.kept_values import LastValues, encode_values
from noria.features.layout import TierLayout
from noria.features.online_format import (
    GREATEST,
    LEAST,
    NARROW,
    VALUE,
    VALUE_MAGIC,
    WIDE,
    firsts_key,
    tile_key,
    values_key,
)
from noria.features.packing import EMPTY, KeyedBytes, joined, kept_rows, lengths, packed, sliced, spread
from noria.features.prepared import KeptRows, Prepared, TierRows

__all__ = ["entity_values"]

_HEADER = np.dtype(
    [
        ("magic", "S4"),
        ("minutes", "<u4"),
        ("hours", "<u4"),
        ("days", "<u4"),
        ("pruned", "<u4"),
        ("lasts", "<u4"),
        ("decayed", "<u4"),
        ("none", "<u4"),
    ]
)
assert _HEADER.itemsize == VALUE.size


def entity_values(prepared: Prepared, rows: int) -> Iterable[tuple[bytes, bytes]]:
    """Give the sorted keys and values that the first `rows` rows make."""
    if not rows:
        return []
    names, codes = prepared.names, prepared.codes[:rows]
    latest_us = int(prepared.known_us[rows - 1])
    tiers = [
        _TierValues.of(layout, added, codes, latest_us=latest_us)
        for layout, added in zip(prepared.layout.tiers, prepared.tiers, strict=True)
    ]
    lasts = _newest_rows(prepared, codes, len(names)) if prepared.lasts else None
    decayed = _faded(prepared, codes, len(names)) if prepared.layout.decayed else None
    apart = [item for each in tiers for item in each.count_items(names)]
    apart += [item for each in tiers for item in each.first_items(prepared, names)]
    apart += _value_items(prepared, codes)
    parts = (
        *([] if lasts is None else [lasts]),
        *([] if decayed is None else [decayed]),
    )
    is_wide = reduce(or_, (each.wide(len(names)) for each in tiers))
    headers = _headers(is_wide, tiers, lasts=lasts, decayed=decayed)
    tiles = [each.packed(is_wide) for each in tiers if each.layout.words]
    held = _held(tiers, *parts, size=len(names))
    values = joined(headers, *parts, *tiles)
    if not held.all():
        names, values = list(compress(names, held.tolist())), values.filter(pa.array(held))
    items = KeyedBytes(names, values)
    return sorted([*apart, *items]) if apart else items


def _headers(
    is_wide: npt.NDArray[np.bool_],
    tiers: "list[_TierValues]",
    *,
    lasts: pa.Array | None,
    decayed: pa.Array | None,
) -> pa.Array:
    """Encode the header of every entity at once."""
    size = len(is_wide)
    headers = np.zeros(size, dtype=_HEADER)
    headers["magic"] = np.where(is_wide, VALUE_MAGIC[WIDE], VALUE_MAGIC[NARROW])
    for name, tier in zip(("minutes", "hours", "days"), tiers, strict=True):
        headers[name] = tier.tiles_of(size)
    for name, kept in (("lasts", lasts), ("decayed", decayed)):
        if kept is not None:
            headers[name] = lengths(kept)
    return packed(headers)


def _held(tiers: "list[_TierValues]", *parts: pa.Array, size: int) -> npt.NDArray[np.bool_]:
    """Tell which entities have anything."""
    held = reduce(or_, (each.tiles_of(size) > 0 for each in tiers))
    for kept in parts:
        held |= lengths(kept) > 0
    return held


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

    def wide(self, entities: int) -> npt.NDArray[np.bool_]:
        """Tell which entities have a word beyond 32 bits."""
        nothing = (self.words == GREATEST[WIDE]) | (self.words == LEAST[WIDE])
        fits = (self.words > LEAST[NARROW]) & (self.words < GREATEST[NARROW]) | nothing
        found = np.zeros(entities, dtype=np.bool_)
        found[self.codes[~fits.all(axis=1)]] = True
        return found

    def tiles_of(self, entities: int) -> Ints:
        """Count each entity's tiles."""
        return np.bincount(self.codes, minlength=entities)

    def packed(self, is_wide: npt.NDArray[np.bool_]) -> pa.Array:
        """Give each entity's tiles, in words of either width."""
        narrow = np.clip(self.words, LEAST[NARROW], GREATEST[NARROW]).astype(np.int32)
        bounds = np.searchsorted(self.codes, np.arange(len(is_wide) + 1))
        made = sliced(narrow, bounds * (4 * self.layout.words))
        wide = np.flatnonzero(is_wide)
        if not len(wide):
            return made
        words = [self.words[bounds[code] : bounds[code + 1]].tobytes() for code in wide.tolist()]
        return pc.replace_with_mask(made, pa.array(is_wide), pa.array(words, pa.large_binary()))

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
        tiles = len(self.codes)
        firsts = [
            _extreme_rows(prepared, kept, self.order, self.tiles, tiles, is_last=False)
            for kept in self.firsts
        ]
        buckets = self.words[:, 0].tolist()
        where = zip(self.codes.tolist(), buckets, joined(*firsts).to_pylist(), strict=True)
        return [(firsts_key(self.layout, names[code], bucket), kept) for code, bucket, kept in where]


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


def _newest_rows(prepared: Prepared, codes: Ints, entities: int) -> pa.Array:
    """Encode each entity's last rows; nothing if it has none."""
    rows = np.flatnonzero(codes >= 0)
    each = [
        _extreme_rows(prepared, kept, rows, codes[rows], entities, is_last=True) for kept in prepared.lasts
    ]
    made = joined(*each)
    is_nothing = pc.equal(made, pa.scalar(NOTHING * len(each), made.type))
    return pc.if_else(is_nothing, EMPTY, made) if pc.any(is_nothing).as_py() else made


def _value_items(prepared: Prepared, codes: Ints) -> list[tuple[bytes, bytes]]:
    """Give the keys and values of the entities' texts and vectors."""
    kept: dict[int, list[LastValues | None]] = {}
    rows = np.flatnonzero(codes >= 0)
    for at, each in enumerate(prepared.values):
        mine = rows[each.counted[rows]]
        chosen, groups, keys = _extremes(prepared, mine, codes[mine], len(prepared.names), is_last=True)
        for row, code, key in zip(chosen.tolist(), groups.tolist(), keys, strict=True):
            held = kept.setdefault(code, [None] * len(prepared.values))
            held[at] = each.row(row, int(prepared.event_us[row]), key)
    return [(values_key(prepared.names[code]), encode_values(held)) for code, held in kept.items()]


def _extreme_rows(
    prepared: Prepared, kept: KeptRows, rows: Ints, groups: Ints, size: int, *, is_last: bool
) -> pa.Array:
    """Encode the row of each group that happened first or last, ties by key; `NOTHING` where none is."""
    mine = kept.counted[rows]
    rows, groups, keys = _extremes(prepared, rows[mine], groups[mine], size, is_last=is_last)
    made = kept_rows(prepared.event_us[rows], keys, kept.values[rows])
    return spread(made, groups, size, empty=NOTHING)


def _extremes(
    prepared: Prepared, rows: Ints, groups: Ints, size: int, *, is_last: bool
) -> tuple[Ints, Ints, list[bytes]]:
    """Give the row of each group that happened first or last, ties by key, its group and its key."""
    if not len(rows):
        return rows, groups, []
    event = prepared.event_us[rows] if is_last else -prepared.event_us[rows]
    newest = np.full(size, np.iinfo(np.int64).min)
    np.maximum.at(newest, groups, event)
    at = np.flatnonzero(event == newest[groups])
    counts = np.bincount(groups[at], minlength=size)
    if counts.max() == 1:  # quicker than to sort
        only = np.empty(size, dtype=np.int64)
        only[groups[at]] = at
        at = only[counts == 1]
    else:
        at = at[np.argsort(groups[at], kind="stable")]
    rows, groups = rows[at], groups[at]
    keys = prepared.keys_of(rows)
    at_once = counts[groups] > 1
    if at_once.any():  # keys decide
        better = max if is_last else min
        best: dict[int, int] = {}
        tied = np.flatnonzero(at_once)
        for place, group in zip(tied.tolist(), groups[tied].tolist(), strict=True):
            held = best.get(group)
            best[group] = place if held is None else better(held, place, key=keys.__getitem__)
        chosen = np.concatenate((np.flatnonzero(~at_once), np.fromiter(best.values(), np.int64, len(best))))
        rows, groups, keys = rows[chosen], groups[chosen], [keys[place] for place in chosen.tolist()]
    return rows, groups, keys


def _faded(prepared: Prepared, codes: Ints, entities: int) -> pa.Array:
    """Encode each entity's decaying sums, as of its newest event; nothing if it has none."""
    size = len(codes)
    mine = codes >= 0
    event = prepared.event_us[:size]
    newest = np.full(entities, np.iinfo(np.int64).min)
    np.maximum.at(newest, codes[mine], event[mine])
    has_any = np.zeros(entities, dtype=np.bool_)
    has_any[codes[mine]] = True
    sums = np.zeros((entities, len(prepared.layout.decayed)))
    age = (newest[codes[mine]] - event[mine]).astype(np.float64)
    for at, decayed in enumerate(prepared.layout.decayed):
        left = prepared.weights[:size, at][mine] * np.exp2(-age / (decayed.half_life_s * 1e6))
        np.add.at(sums[:, at], codes[mine], left)
    made = joined(packed(newest), packed(sums))
    return pc.if_else(pa.array(has_any), made, EMPTY)
