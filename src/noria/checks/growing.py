"""Columns that may only grow from row to row."""

from typing import Any

import numpy as np
import pyarrow as pa

from noria.checks.declarations import Rule
from noria.checks.verdicts import Flags
from noria.errors import ConfigError

__all__ = ["Growing"]


class Growing:
    """One rule `increasing`, over the pieces of one batch."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._greatest: int | float | None = None

    def failing(self, table: pa.Table, bad: Flags) -> Flags:
        """Say which rows are below the greatest before them of rows that are not `bad`."""
        flags = np.zeros(table.num_rows, dtype=bool)
        values, present = self._numbers(table[self._rule.columns[0]])
        rows = np.flatnonzero(present)
        raises = present & ~bad
        if not len(rows):
            return flags
        lowest = -np.inf if values.dtype.kind == "f" else np.iinfo(np.int64).min
        ceiling = np.maximum.accumulate(np.where(raises, values, lowest))
        before = np.concatenate([[lowest], ceiling[:-1]]).astype(values.dtype, copy=False)
        known = np.concatenate([[False], np.logical_or.accumulate(raises)[:-1]])
        if self._greatest is not None:
            before = np.maximum(before, self._greatest)
            known[:] = True
        below = values <= before if self._rule.strictly else values < before
        flags = np.asarray(below & known & present, dtype=bool)
        if raises.any():
            highest = ceiling[-1].item()
            self._greatest = highest if self._greatest is None else max(self._greatest, highest)
        return flags

    def _numbers(self, column: pa.ChunkedArray) -> tuple[np.ndarray[Any, Any], Flags]:
        """Give numbers that sort as the values do, and whether there is a value."""
        kind = column.type
        types = pa.types
        if types.is_floating(kind):
            values = np.asarray(column.cast(pa.float64()).fill_null(float("nan")))
            return values, ~np.isnan(values)
        if not (types.is_signed_integer(kind) or types.is_timestamp(kind) or types.is_date(kind)):
            raise ConfigError(
                f"the check {self._rule.name} ({kind}) cannot be evaluated: "
                "only numbers, dates and instants have an order that is meant here"
            )
        present = np.asarray(column.is_valid())
        whole = column.cast(pa.int32()) if types.is_date32(kind) else column
        return np.asarray(whole.cast(pa.int64()).fill_null(0)), present
