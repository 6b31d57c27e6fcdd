"""Rows on their way into the online store: sorted as they became known, as integers."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from noria.features.columns import (
    Floats,
    Ints,
    entity_texts,
    floats,
    instants,
    key_bytes,
    measured,
    spec_of,
)
from noria.features.declarations import FeatureView, ViewSpec
from noria.features.layout import ROWS, Layout, Sums, TierLayout, layout_of
from noria.features.offline import bins_of, refuse_early_knowledge
from noria.features.online_format import GREATEST, LEAST, WIDE, entity_key

__all__ = ["Prepared", "TierRows", "prepare"]


@dataclass(frozen=True, slots=True)
class TierRows:
    """What each row adds to its tile."""

    buckets: Ints
    floors: Ints  # the oldest bucket that a reading may want when the row is known
    additive: Ints  # (rows, counters)
    extrema: Ints  # (rows, extrema); a sentinel where missing
    positions: Ints  # (rows, histograms): from which count of the tile on one is added; its end where missing


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of one view in the order of (`known_at`, key), cheap to apply in slices.

    Attributes
    ----------
    known_us : ndarray of int64
        When each row became known, ascending.
    entities : list of bytes or None
        Each row's entity as the store's key; `None` if missing.
    """

    spec: ViewSpec
    layout: Layout
    known_us: Ints
    entities: list[bytes | None]
    event_us: Ints
    keys: list[bytes]  # empty unless the view keeps the last row
    last: Floats  # (rows, columns kept of the last row)
    hour: TierRows
    day: TierRows

    def __len__(self) -> int:
        return len(self.known_us)

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
    order = _order(rows, spec, known)
    rows = rows.select(list(spec.source_columns)).take(pa.array(order))
    event = instants(rows, spec.event_at)
    refuse_early_knowledge(spec, event, known[order])
    last = [floats(rows, name) for name in layout.last_columns]
    return Prepared(
        spec=spec,
        layout=layout,
        known_us=known[order],
        entities=[None if text is None else entity_key(text) for text in _texts(rows, spec)],
        event_us=event,
        keys=key_bytes(rows, spec.key) if layout.keeps_last else [],
        last=np.column_stack(last) if last else np.empty((len(order), 0)),
        hour=_tier_rows(rows, layout.hour, event, known[order]),
        day=_tier_rows(rows, layout.day, event, known[order]),
    )


def _order(rows: pa.Table, spec: ViewSpec, known: Ints) -> Ints:
    keys = [rows.column(name).combine_chunks() for name in spec.key]
    table = pa.table([pa.array(known), *keys], names=[str(at) for at in range(len(keys) + 1)])
    by = [(name, "ascending") for name in table.column_names]
    return np.asarray(pa.compute.sort_indices(table, sort_keys=by), dtype=np.int64)


def _texts(rows: pa.Table, spec: ViewSpec) -> list[str | None]:
    return list(entity_texts(rows, spec.entity).to_pylist())


def _tier_rows(rows: pa.Table, tier: TierLayout, event: Ints, known: Ints) -> TierRows:
    return TierRows(
        buckets=event // tier.width_us,
        floors=(known - tier.window_s * 1_000_000) // tier.width_us,
        additive=_stacked([_amounts(rows, each) for each in tier.additive], len(event)),
        extrema=_stacked([_amounts(rows, each) for each in tier.extrema], len(event)),
        positions=_stacked(
            [_positions(rows, tier, at) for at in range(len(tier.histograms))],
            len(event),
        ),
    )


def _stacked(columns: list[Ints], size: int) -> Ints:
    return np.column_stack(columns) if columns else np.empty((size, 0), dtype=np.int64)


def _amounts(rows: pa.Table, sums: Sums) -> Ints:
    if sums.measure.column == ROWS:
        return np.ones(rows.num_rows, dtype=np.int64)
    column = measured(rows, sums.measure)
    if sums.kind == "missing":
        return (~column.seen).astype(np.int64)
    if sums.kind == "sum":
        return column.values
    return np.where(column.seen, column.values, GREATEST[WIDE] if sums.kind == "min" else LEAST[WIDE])


def _positions(rows: pa.Table, tier: TierLayout, at: int) -> Ints:
    histogram = tier.histograms[at]
    column = measured(rows, histogram.measure)
    first = tier.count_of(histogram)
    return np.where(column.seen, first + bins_of(column.values, histogram), first + histogram.bins)
