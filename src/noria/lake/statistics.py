"""What a table holds, told from the statistics of its files: no row is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from noria.lake.data_files import DataFile, sha256_in
from noria.lake.delta import Table

__all__ = ["ColumnStatistics", "TableStatistics", "statistics_of"]


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """One column.

    Attributes
    ----------
    type
        As Arrow calls it.
    nulls
        How many values are missing; None where a file does not say.
    low, high
        The least and the greatest value; None where a file does not say (nested columns, truth values,
        columns with a NaN, very long texts).
    """

    type: str
    nulls: int | None
    low: Any
    high: Any


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """One table, as it is or was."""

    name: str
    rows: int
    files: int
    size_bytes: int
    columns: Mapping[str, ColumnStatistics]


def statistics_of(table: Table) -> TableStatistics:
    """Sum up the statistics of a table's files."""
    files = table.files
    return TableStatistics(
        table.name,
        table.rows,
        len(files),
        sum(each.size_bytes for each in files),
        {each.name: _column(table, each.name, str(each.type)) for each in table.schema},
    )


def _column(table: Table, name: str, kind: str) -> ColumnStatistics:
    files = [each for each in table.files if each.rows]
    nested = pa.types.is_nested(table.schema.field(name).type)
    nulls = [_nulls(each, name, nested=nested) for each in files]
    told = [
        each
        for each, missing in zip(files, nulls, strict=True)
        if missing != each.rows  # else there is no value that could have bounds
    ]
    lows: list[Any] = [each.low.get(name) for each in told]
    highs: list[Any] = [each.high.get(name) for each in told]
    bounded = bool(told) and None not in lows and None not in highs
    return ColumnStatistics(
        kind,
        None if None in nulls else sum(each for each in nulls if each is not None),
        min(lows) if bounded else None,
        max(highs) if bounded else None,
    )


def _nulls(file: DataFile, name: str, *, nested: bool) -> int | None:
    """Give the missing values; a column that is younger than the file is missing in all its rows."""
    found = file.nulls.get(name)
    if found is None and not nested and sha256_in(file.path) is not None:
        return file.rows
    return found
