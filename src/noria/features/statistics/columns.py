"""Columns that statistics are made of: numbers with NaN where missing, loaded when their turn comes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.features.columns import Floats, column_of
from noria.features.statistics.records import ColumnKind

__all__ = ["Column", "columns_of"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a set.

    Attributes
    ----------
    load : callable
        Gives it as float64, NaN where missing: numbers; codes of `vocabulary`; microseconds since 1970.
    """

    name: str
    kind: ColumnKind
    load: Callable[[], Floats]
    vocabulary: tuple[str, ...] = ()


def columns_of(rows: pa.Table) -> tuple[list[Column], dict[str, str]]:
    """Give the columns of a table that can be described, and of the others why they cannot."""
    made, left_out = [], {}
    for name in rows.column_names:
        column = column_of(rows, name)
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            made.append(_numbers(name, column))
        elif pa.types.is_boolean(kind):
            made.append(_numbers(name, column.cast(pa.int8())))
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            made.append(_instants(name, column))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            made.append(_texts(name, column.cast(pa.string())))
        else:
            left_out[name] = f"{kind} is neither a number, nor a text, nor an instant"
    return made, left_out


def _numbers(name: str, column: pa.Array) -> Column:
    def load() -> Floats:
        return _floats(column.cast(pa.float64(), safe=False))

    return Column(name, "number", load)


def _instants(name: str, column: pa.Array) -> Column:
    def load() -> Floats:
        micros = column.cast(
            pa.timestamp("us", column.type.tz if pa.types.is_timestamp(column.type) else None), safe=False
        )
        return _floats(micros.cast(pa.int64()).cast(pa.float64(), safe=False))

    return Column(name, "instant", load)


def _texts(name: str, column: pa.Array) -> Column:
    encoded = column.dictionary_encode()

    def load() -> Floats:
        return _floats(encoded.indices.cast(pa.float64()))

    return Column(name, "category", load, tuple(encoded.dictionary.to_pylist()))


def _floats(column: pa.Array) -> Floats:
    values: Floats = np.array(pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False))
    return values
