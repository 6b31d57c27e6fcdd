"""What Arrow's kernels can tell of a rule more cheaply than SQL, with the same result.

A bound that the extrema of a column keep is kept by each of its rows; values and patterns are looked up by
kernels. Whatever is not plain (other types, nulls beside NaN, a bound that some row breaks) is left to the
SQL of `noria.checks.sql`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.checks.codes import distinct_codes
from noria.checks.declarations import Rule
from noria.checks.evaluator import Evaluator
from noria.checks.sql import missing_sql
from noria.checks.verdicts import Flags
from noria.clock import parse_instant, to_micros

__all__ = ["Columns"]

_SAMPLE = 1_000
_FEW = 50  # distinct texts of a sample: so few are matched once each, not row by row


class Columns:
    """What is known about the columns of one piece; each is looked at once."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._extrema: dict[str, tuple[Any, Any] | None] = {}
        self._codes: dict[str, pa.StringArray | None] = {}

    def failing(self, rule: Rule) -> Flags | None:
        """Say which rows break `rule`; None where only SQL can tell."""
        match rule.kind:
            case "not_null":
                holds = all(map(self._is_full, rule.columns))
            case "between":
                holds = self._is_between(rule)
            case "finite":
                holds = all(map(self._is_finite, rule.columns))
            case "one_of":
                return self._not_one_of(rule)
            case "matches":
                return self._not_matching(rule)
            case _:
                return None
        return self._none if holds else None

    def present(self, key: Sequence[str], evaluator: Evaluator) -> Flags:
        """Say which rows have a value in each column of `key`."""
        missing = self.failing(Rule(kind="not_null", name="", columns=tuple(key)))
        if missing is None:
            test = " or ".join(missing_sql(each, self._table.schema) for each in key)
            missing = evaluator.select(self._table, [f"({test}) as n"])["n"].astype(bool, copy=False)
        return ~missing

    def _is_full(self, name: str) -> bool:
        column = self._table[name]
        if column.null_count:
            return False
        return not pa.types.is_floating(column.type) or self._extrema_of(name) is not None

    def _is_finite(self, name: str) -> bool:
        if not pa.types.is_floating(self._table.schema.field(name).type):
            return False
        found = self._extrema_of(name)
        return found is not None and bool(np.isfinite(found).all())

    def _is_between(self, rule: Rule) -> bool:
        (name,) = rule.columns
        kind = self._table.schema.field(name).type
        low: Any = rule.low
        high: Any = rule.high
        if rule.instants:
            if not (pa.types.is_timestamp(kind) and kind.tz is not None and kind.unit == "us"):
                return False
            low, high = (None if each is None else to_micros(parse_instant(each)) for each in (low, high))
        elif not (pa.types.is_signed_integer(kind) or pa.types.is_float64(kind)):
            return False
        if any(isinstance(each, str | bool) for each in (low, high)):
            return False
        found = self._extrema_of(name)
        if found is None:
            return False
        return bool((low is None or low <= found[0]) and (high is None or found[1] <= high))

    def _extrema_of(self, name: str) -> tuple[Any, Any] | None:
        """Give the least and the greatest value; None where there is none, or floats have a NaN or null."""
        if name not in self._extrema:
            self._extrema[name] = _extrema(self._table[name])
        return self._extrema[name]

    def _not_one_of(self, rule: Rule) -> Flags | None:
        (name,) = rule.columns
        column = self._table[name]
        if pa.types.is_string(column.type):
            plain = all(isinstance(each, str) for each in rule.values)
        else:
            plain = pa.types.is_int64(column.type) and all(
                type(each) is int and -(1 << 63) <= each < 1 << 63 for each in rule.values
            )
        if not plain:
            return None
        wanted = pa.array(rule.values, column.type)
        codes = self._codes_of(name)
        if codes is not None and pc.all(pc.is_in(codes, wanted)).as_py():
            return self._none
        found = pc.is_in(column, wanted)
        return ~np.asarray(pc.or_(found, pc.is_null(column)) if column.null_count else found)

    def _not_matching(self, rule: Rule) -> Flags | None:
        (name,) = rule.columns
        column = self._table[name]
        if not pa.types.is_string(column.type):
            return None
        whole = rf"\A(?:{rule.pattern})\z"
        codes = self._codes_of(name)
        if codes is not None and pc.all(pc.match_substring_regex(codes, whole)).as_py():
            return self._none
        if len(column.slice(0, _SAMPLE).unique()) <= min(_FEW, len(column) // 2):
            coded = column.dictionary_encode().combine_chunks()
            fails = pc.invert(pc.match_substring_regex(coded.dictionary, whole))
            if not pc.any(fails).as_py():
                return self._none
            flags = pc.take(fails, coded.indices)
        else:
            flags = pc.invert(pc.match_substring_regex(column, whole))
        return np.asarray(flags.fill_null(False))

    @property
    def _none(self) -> Flags:
        return np.zeros(self._table.num_rows, dtype=bool)

    def _codes_of(self, name: str) -> pa.StringArray | None:
        """Give the distinct texts of a column of codes; None where it is none."""
        column = self._table[name]
        if len(column) < _SAMPLE or not pa.types.is_string(column.type):
            return None
        if name not in self._codes:
            self._codes[name] = distinct_codes(column)
        return self._codes[name]


def _extrema(column: pa.ChunkedArray) -> tuple[Any, Any] | None:
    if pa.types.is_floating(column.type):
        chunks = [np.asarray(each) for each in column.chunks if len(each)]
        if column.null_count or not chunks:
            return None
        least = min(float(each.min()) for each in chunks)  # NaN, where there is one
        greatest = max(float(each.max()) for each in chunks)
        return None if any(np.isnan(each.min()) for each in chunks) else (least, greatest)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    found = pc.min_max(column).as_py()
    return None if found["min"] is None else (found["min"], found["max"])
