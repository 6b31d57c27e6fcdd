"""Rows on their way into the online store: sorted as they became known, as integers."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from noria.features.columns import (
    Bools,
    Floats,
    Ints,
    check_keys,
    entity_texts,
    instants,
    key_bytes,
    spec_of,
)
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.entity_keys import entity_keys
from noria.features.kept_values import LastValues
from noria.features.layout import Histogram, Kept, KeptValues, Layout, TierLayout, layout_of
from noria.features.measuring import Measures
from noria.features.offline import bins_of, refuse_early_knowledge

__all__ = ["KeptRows", "Prepared", "TierRows", "ValueRows", "prepare"]

_WORTHWHILE = 1 << 15  # rows below which a thread saves nothing


@dataclass(frozen=True, slots=True)
class KeptRows:
    """What would be kept of each row, and which rows may be."""

    counted: Bools
    values: Floats  # (rows, columns)


@dataclass(frozen=True, slots=True)
class ValueRows:
    """Texts and vectors that would be kept of each row, and which rows may be."""

    counted: Bools
    columns: tuple[pa.Array, ...]

    def row(self, at: int, event_us: int, key: bytes) -> LastValues:
        """Give a row as it is kept."""
        kept: list[Any] = []
        for column in self.columns:
            value = column[at]
            if not value.is_valid:
                kept.append(None)
            elif pa.types.is_string(column.type):
                kept.append(value.as_py())
            else:
                kept.append(np.asarray(value.values, dtype="<f4").tobytes())
        return event_us, key, kept


@dataclass(frozen=True, slots=True)
class TierRows:
    """What each row adds to its tile."""

    buckets: Ints
    floors: Ints  # the oldest bucket that a reading may want when the row is known
    additive: Ints  # (rows, counters)
    extrema: Ints  # (rows, extrema); a sentinel where missing
    positions: Ints  # (rows, histograms): from which count of the tile on one is added; its end where missing
    firsts: tuple[KeptRows, ...]


@dataclass(frozen=True)
class Prepared:
    """Rows of one view in the order of (`known_at`, key), cheap to apply in slices.

    Attributes
    ----------
    known_us : ndarray of int64
        When each row became known, ascending.
    names : list of bytes
        The entities as the store's keys, sorted.
    codes : ndarray of int64
        Which of them each row is about, -1 if its entity is missing.
    key_columns : Table
        Of the rows' keys.
    """

    spec: ViewSpec
    layout: Layout
    known_us: Ints
    names: list[bytes]
    codes: Ints
    event_us: Ints
    key_columns: pa.Table
    lasts: tuple[KeptRows, ...]
    values: tuple[ValueRows, ...]
    weights: Floats  # (rows, decaying sums)
    tiers: tuple[TierRows, ...]  # as the layout has them

    def __len__(self) -> int:
        return len(self.known_us)

    @cached_property
    def entities(self) -> list[bytes | None]:
        """Each row's entity as the store's key; `None` if missing."""
        names: list[bytes | None] = [*self.names, None]
        return [names[code] for code in self.codes.tolist()]

    @cached_property
    def keys(self) -> list[bytes]:
        """Each row's key, as bytes that compare as keys do."""
        return self.keys_of(None)

    def keys_of(self, rows: Ints | None) -> list[bytes]:
        """Give the keys of some rows."""
        columns = self.key_columns if rows is None else self.key_columns.take(pa.array(rows))
        return key_bytes(columns, self.spec.key)

    def until(self, at_us: int) -> int:
        """Count the rows known by `at_us`: the `stop` of the slice to apply."""
        return int(np.searchsorted(self.known_us, at_us, side="right"))


def prepare(view: FeatureView | ViewSpec, rows: pa.Table) -> Prepared:
    """Sort and encode `rows` for `view`.

    Raises
    ------
    SourceError
        If a column is missing or has the wrong type, or a row was known before it happened.
    """
    spec = spec_of(view)
    layout = layout_of(spec)
    known = instants(rows, spec.known_at)
    name_entities = partial(_entities, rows.select(spec.entity), spec)
    with ThreadPoolExecutor(1, thread_name_prefix="noria-entities") as thread:
        is_large = rows.num_rows >= _WORTHWHILE  # pyarrow lets go of the interpreter while it sorts texts
        entities = thread.submit(name_entities).result if is_large else name_entities
        order = _order(rows, spec, known)
        rows = rows.select(list(spec.source_columns)).take(pa.array(order))
        event = instants(rows, spec.event_at)
        refuse_early_knowledge(spec, event, known[order])
        measures = Measures(rows)
        if layout.keeps_rows:
            check_keys(rows, spec.key)
        lasts = tuple(_kept_rows(measures, each, len(order)) for each in layout.lasts)
        names, codes = entities()
    return Prepared(
        spec=spec,
        layout=layout,
        known_us=known[order],
        names=names,
        codes=codes[order],
        event_us=event,
        key_columns=rows.select(spec.key),
        lasts=lasts,
        weights=_columns([measures.weights(each) for each in layout.decayed], len(order)),
        values=tuple(_value_rows(measures, each) for each in layout.values),
        tiers=tuple(_tier_rows(measures, each, event, known[order]) for each in layout.tiers),
    )


def _order(rows: pa.Table, spec: ViewSpec, known: Ints) -> Ints:
    """Sort by the instant from which rows are known, those of one instant by their keys."""
    order = np.argsort(known, kind="stable")
    at = known[order]
    follows = at[1:] == at[:-1]
    places = np.flatnonzero(np.append(follows, False) | np.append(False, follows))
    if not len(places):
        return order
    tied = order[places]
    keys = [rows.column(name).take(pa.array(tied)).combine_chunks() for name in spec.key]
    table = pa.table([pa.array(known[tied]), *keys], names=[str(at) for at in range(len(keys) + 1)])
    by = [(name, "ascending") for name in table.column_names]
    order[places] = tied[np.asarray(pa.compute.sort_indices(table, sort_keys=by), dtype=np.int64)]
    return order


def _entities(rows: pa.Table, spec: ViewSpec) -> tuple[list[bytes], Ints]:
    """Give the sorted keys of the entities, and which each row is about."""
    encoded = entity_texts(rows, spec.entity).dictionary_encode()
    keys = entity_keys(encoded.dictionary)
    order = np.asarray(pa.compute.sort_indices(keys), dtype=np.int64)
    place = np.full(len(order) + 1, -1, dtype=np.int64)  # the last one stands for a missing entity
    place[order] = np.arange(len(order))
    codes = np.asarray(encoded.indices.fill_null(-1).cast(pa.int64()), dtype=np.int64)
    return keys.take(pa.array(order)).to_pylist(), place[codes]


def _kept_rows(measures: Measures, kept: Kept, size: int) -> KeptRows:
    values = _columns([measures.floats(name) for name in kept.columns], size)
    return KeptRows(measures.counted(kept.where), values)


def _value_rows(measures: Measures, kept: KeptValues) -> ValueRows:
    columns = tuple(measures.values(name, dimensions) for name, dimensions in kept.columns)
    return ValueRows(measures.counted(kept.where), columns)


def _tier_rows(measures: Measures, tier: TierLayout, event: Ints, known: Ints) -> TierRows:
    if not tier.words:  # no window wants it
        none = np.empty((len(event), 0), dtype=np.int64)
        return TierRows(none.ravel(), none.ravel(), none, none, none, ())
    return TierRows(
        buckets=event // tier.width_us,
        floors=(known - tier.window_s * 1_000_000) // tier.width_us,
        additive=_stacked([measures.amounts(each) for each in tier.additive], len(event)),
        extrema=_stacked([measures.amounts(each) for each in tier.extrema], len(event)),
        positions=_stacked([_positions(measures, tier, each) for each in tier.histograms], len(event)),
        firsts=tuple(_kept_rows(measures, each, len(event)) for each in tier.firsts),
    )


def _stacked(columns: list[Ints], size: int) -> Ints:
    return np.column_stack(columns) if columns else np.empty((size, 0), dtype=np.int64)


def _columns(columns: list[Floats], size: int) -> Floats:
    return np.column_stack(columns) if columns else np.empty((size, 0))


def _positions(measures: Measures, tier: TierLayout, histogram: Histogram) -> Ints:
    column = measures.measured(histogram.measure)
    first = tier.count_of(histogram)
    return np.where(column.seen, first + bins_of(column.values, histogram), first + histogram.bins)
