"""Rows that ceased to be what was known, when another took their place: they count until then."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.features.columns import Bools, Ints
from noria.features.spine import SortedSpine
from noria.lake.schema import REPLACED_AT

__all__ = ["known_rows", "replaced_from"]

_NEVER_US = 2**62


def replaced_from(
    rows: pa.Table, codes: Ints, spine: SortedSpine, *, used: Bools | None = None
) -> tuple[Ints, Bools] | None:
    """Give the position of the spine from which on each row is replaced, and whether it is; None: none is.

    Parameters
    ----------
    rows : Table
        With `REPLACED_AT`, null in rows that stand; without it no row was replaced.
    codes : ndarray of int64
        The rows' entities in the spine.
    used : ndarray of bool or None
        Which of `rows` are meant; all of them without.
    """
    if REPLACED_AT not in rows.column_names:
        return None
    replaced = rows[REPLACED_AT] if used is None else rows[REPLACED_AT].filter(pa.array(used))
    if replaced.null_count == len(replaced):
        return None
    until = replaced.combine_chunks().cast(pa.int64()).fill_null(_NEVER_US)
    until_us = np.asarray(until.to_numpy(zero_copy_only=False), dtype=np.int64)
    return spine.positions_at(codes, until_us), until_us != _NEVER_US


def known_rows(rows: pa.Table, known_at: str, at: pa.Scalar) -> pa.Table:
    """Give the rows that were what was known at an instant, without saying until when."""
    kept = pc.less_equal(rows[known_at], at)
    if REPLACED_AT in rows.column_names:
        stands = pc.or_kleene(pc.is_null(rows[REPLACED_AT]), pc.greater(rows[REPLACED_AT], at))
        return rows.filter(pc.and_(kept, stands)).drop_columns([REPLACED_AT])
    return rows.filter(kept)
