"""What the rows of a source add: measures in integer units, conditions as masks, weights of what decays.

`Measures` computes each once, however many features want it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import SourceError
from noria.features.columns import Bools, Floats, Ints, column_of, floats, texts, vectors
from noria.features.declarations import Comparison, Condition, Conditions
from noria.features.layout import ROWS, Decayed, Measure, Sums

__all__ = ["LARGEST", "NO_GREATEST", "NO_LEAST", "Measured", "Measures"]

LARGEST = 2**40  # of a measure; sums of eight million such values fit into 64 bits
NO_LEAST, NO_GREATEST = 2**63 - 1, -(2**63)  # the minimum and the maximum of no values
_LOW_BITS = 40  # of a square are summed apart, so that neither part overflows
_HALF_BITS = 20
_COMPARED = {
    Comparison.EQUAL: pc.equal,
    Comparison.UNEQUAL: pc.not_equal,
    Comparison.LESS: pc.less,
    Comparison.AT_MOST: pc.less_equal,
    Comparison.GREATER: pc.greater,
    Comparison.AT_LEAST: pc.greater_equal,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure of every row; 0 and not seen where it is missing or the row does not count."""

    values: Ints
    seen: Bools


class Measures:
    """The rows of a source, as what features need of them.

    Parameters
    ----------
    rows : Table
        All that the source holds.
    used : ndarray of bool or None
        Which of them count; all without. A column is cut down to them when it is first wanted.
    """

    def __init__(self, rows: pa.Table, used: Bools | None = None) -> None:
        self._rows = rows
        self._used = used
        self._size = rows.num_rows if used is None else int(np.count_nonzero(used))
        self._columns: dict[str, pa.Table] = {}
        self._masks: dict[Conditions, Bools] = {}
        self._measured: dict[Measure, Measured] = {}
        self._squares: dict[Measure, tuple[Ints, Ints]] = {}
        self._floats: dict[str, Floats] = {}
        self._values: dict[tuple[str, int], pa.Array] = {}

    def take(self, columns: Sequence[str], places: Ints | pa.Array) -> pa.Table:
        """Give columns at places among the rows that count, null where a place is."""
        if self._places is not None:
            places = self._places.take(pa.array(places))
        return self._rows.select(columns).take(pa.array(places))

    @cached_property
    def _places(self) -> pa.Array | None:
        """Give where in the source each row is that counts; None where all do."""
        return None if self._used is None else pa.array(np.flatnonzero(self._used))

    def _column(self, name: str) -> pa.Table:
        """Give a table of one column, cut down to the rows that count."""
        if name not in self._columns:
            column = self._rows.select([name])
            self._columns[name] = column if self._used is None else column.filter(pa.array(self._used))
        return self._columns[name]

    def floats(self, name: str) -> Floats:
        """Give a numeric column as float64, NaN where missing."""
        if name not in self._floats:
            self._floats[name] = floats(self._column(name), name)
        return self._floats[name]

    def floats_at(self, name: str, places: Ints) -> Floats:
        """Give a numeric column at places among the rows that count."""
        if name in self._floats:
            return self._floats[name][places]
        return floats(self.take([name], places), name)

    def texts_at(self, name: str, places: pa.Array) -> pa.Array:
        """Give a column of texts at places among the rows that count, null where there is no place."""
        return texts(self.take([name], places), name)

    def values(self, name: str, dimensions: int) -> pa.Array:
        """Give a column of texts, or of vectors of so many dimensions: lists of float32 of that size."""
        if (name, dimensions) not in self._values:
            rows = self._column(name)
            made = vectors(rows, name, dimensions) if dimensions else texts(rows, name)
            self._values[name, dimensions] = made
        return self._values[name, dimensions]

    def counted(self, where: Conditions) -> Bools:
        """Tell which rows fulfil all conditions.

        Raises
        ------
        SourceError
            If a column is missing or cannot be compared with the value.
        """
        if where not in self._masks:
            mask = np.ones(self._size, dtype=np.bool_)
            for condition in where:
                mask &= _fulfils(column_of(self._column(condition.column), condition.column), condition)
            self._masks[where] = mask
        return self._masks[where]

    def measured(self, measure: Measure) -> Measured:
        """Give a column in integer units.

        Raises
        ------
        SourceError
            If the column is not numeric, is fractional and has no `scale`, or a value is too large.
        """
        if measure not in self._measured:
            whole = _hashed if measure.buckets else _listed if measure.values else _in_units
            made = whole(self._column(measure.column), measure)
            if measure.where:
                seen = made.seen & self.counted(measure.where)
                made = Measured(np.where(seen, made.values, 0), seen)
            self._measured[measure] = made
        return self._measured[measure]

    def amounts(self, sums: Sums) -> Ints:
        """Give what each row adds to a counter, or puts against an extremum."""
        counted = self.counted(sums.measure.where)
        if sums.measure.column == ROWS:
            return counted.astype(np.int64)
        column = self.measured(sums.measure)
        match sums.kind:
            case "missing":
                return (counted & ~column.seen).astype(np.int64)
            case "sum":
                return column.values
            case "square_high" | "square_low":
                if sums.measure not in self._squares:
                    self._squares[sums.measure] = _square(column.values)
                high, low = self._squares[sums.measure]
                return high if sums.kind == "square_high" else low
            case _:
                nothing = NO_LEAST if sums.kind == "min" else NO_GREATEST
                return np.where(column.seen, column.values, nothing)

    def weights(self, decayed: Decayed) -> Floats:
        """Give what each row adds to a decaying sum at the instant it happened.

        Raises
        ------
        SourceError
            If a value is infinite: nothing else would be left of the sum.
        """
        counted = self.counted(decayed.measure.where)
        if decayed.kind == "rows":
            return counted.astype(np.float64)
        values = self.floats(decayed.measure.column)
        if np.isinf(values).any():
            raise SourceError(
                f"column {decayed.measure.column!r} holds an infinite value, which never decays; "
                "refuse it with `check.finite`"
            )
        seen = counted & ~np.isnan(values)
        return seen.astype(np.float64) if decayed.kind == "seen" else np.where(seen, values, 0.0)


def _fulfils(column: pa.Array, condition: Condition) -> Bools:
    try:
        kept = _compare(column, condition)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as err:
        raise SourceError(
            f"column {condition.column!r} is {column.type}; it cannot be compared with "
            f"{condition.value!r} ({condition.comparison.value})"
        ) from err
    if pa.types.is_floating(column.type):
        kept = pc.and_kleene(kept, pc.invert(pc.is_nan(column)))
    return np.asarray(kept.fill_null(False), dtype=np.bool_)


def _compare(column: pa.Array, condition: Condition) -> pa.Array:
    value = condition.value
    if isinstance(value, tuple):
        # One by one, as `==` does: 1 is 1.0, and nothing is cast to what it is not.
        among = pc.equal(column, value[0])
        for each in value[1:]:
            among = pc.or_(among, pc.equal(column, each))
        return among if condition.comparison is Comparison.AMONG else pc.invert(among)
    return _COMPARED[condition.comparison](column, value)


def _in_units(rows: pa.Table, measure: Measure) -> Measured:
    column = column_of(rows, measure.column)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type) and measure.scale == 1:
        seen = np.asarray(column.is_valid(), dtype=np.bool_)
        try:
            values = _int64(column.fill_null(0).cast(pa.int64()))
        except pa.ArrowInvalid as err:
            raise SourceError(_too_large(measure)) from err
    else:
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise SourceError(f"column {measure.column!r} is {kind}; aggregations need a numeric column")
        exact = floats(rows, measure.column)
        seen = ~np.isnan(exact)
        scaled = np.where(seen, exact, 0.0) * measure.scale
        units = np.rint(scaled)
        if measure.scale == 1 and not np.array_equal(units, scaled):
            raise SourceError(
                f"column {measure.column!r} is {kind} and holds fractions; "
                "give `scale` (100 keeps two decimals)"
            )
        if bool(np.any(np.abs(units) > LARGEST)):
            raise SourceError(_too_large(measure))
        values = units.astype(np.int64)
    if values.size and (int(values.max()) > LARGEST or int(values.min()) < -LARGEST):
        raise SourceError(_too_large(measure))
    return Measured(values, seen)


def _hashed(rows: pa.Table, measure: Measure) -> Measured:
    """Spread values over buckets, by a hash that is the same in every process and release."""
    column = column_of(rows, measure.column)
    if pa.types.is_nested(column.type):
        raise SourceError(
            f"column {measure.column!r} is {column.type}; different values of it are not counted"
        )
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        column = pc.if_else(pc.equal(column, 0.0), pa.scalar(0.0, column.type), column)  # -0.0 is 0.0
    encoded = column.dictionary_encode()
    dictionary = encoded.dictionary
    if not (pa.types.is_string(dictionary.type) or pa.types.is_binary(dictionary.type)):
        dictionary = dictionary.cast(pa.string())
    buckets = np.fromiter(
        (_bucket(each.as_py(), measure.buckets) for each in dictionary), np.int64, len(dictionary)
    )
    seen = np.asarray(encoded.is_valid(), dtype=np.bool_)
    at = _int64(encoded.indices.fill_null(0).cast(pa.int64()))
    values = np.where(seen, buckets[at], 0) if len(buckets) else np.zeros(len(column), dtype=np.int64)
    return Measured(values, seen)


def _listed(rows: pa.Table, measure: Measure) -> Measured:
    """Give the place of each value among those that are counted."""
    column = column_of(rows, measure.column)
    kind = column.type
    is_text = isinstance(measure.values[0], str)
    fits = (
        (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
        if (is_text)
        else pa.types.is_integer(kind)
    )
    if not (fits or pa.types.is_null(kind)):
        raise SourceError(
            f"column {measure.column!r} is {kind}; the values to count are "
            f"{'texts' if is_text else 'integers'}, as {measure.values[0]!r}: give such as the column holds"
        )
    if is_text:
        found = pc.index_in(column.cast(pa.string()), value_set=pa.array(measure.values, pa.string()))
    elif pa.types.is_uint64(kind):  # what is beyond int64, or below 0, is on one side only
        values = pa.array([None if int(each) < 0 else each for each in measure.values], kind)
        found = pc.index_in(column, value_set=values, skip_nulls=True)
    else:
        found = pc.index_in(column.cast(pa.int64()), value_set=pa.array(measure.values, pa.int64()))
    seen = np.asarray(found.is_valid(), dtype=np.bool_)
    return Measured(_int64(found.fill_null(0).cast(pa.int64())), seen)


def _bucket(value: str | bytes, buckets: int) -> int:
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") % buckets


def _square(values: Ints) -> tuple[Ints, Ints]:
    """Give the square of each value as its high part and its lowest 40 bits."""
    size = np.abs(values)
    if not size.size or int(size.max()) < 1 << _HALF_BITS:
        return np.zeros_like(size), size * size
    high, low = size >> _HALF_BITS, size & ((1 << _HALF_BITS) - 1)
    rest = ((2 * high * low) << _HALF_BITS) + low * low
    return high * high + (rest >> _LOW_BITS), rest & ((1 << _LOW_BITS) - 1)


def _too_large(measure: Measure) -> str:
    return f"column {measure.column!r} times its scale {measure.scale} exceeds {LARGEST}; lower `scale`"


def _int64(column: pa.Array) -> Ints:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
