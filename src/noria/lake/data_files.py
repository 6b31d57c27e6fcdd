"""Parquet files of rows: written in pieces, named after their content, with what their statistics promise.

`part-<batch>-<app>-<place>-<sha256>.parquet`: a digest of the whole table needs no bytes to be read again,
and a write that is repeated after a kill replaces itself. The app is told by its name and by eight digits of
its name's sha256, as not every character of a name is one of a file's.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count as counting
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noria.clock import from_micros
from noria.lake.files import Files
from noria.records import sha256_hex

__all__ = [
    "BOUNDED_TYPES",
    "ROWS_PER_FILE",
    "TICK",
    "DataFile",
    "FileWriter",
    "instant_of",
    "may_hold",
    "rewritten_stem",
    "sha256_in",
    "stem_of",
    "told",
]

ROWS_PER_FILE = 1_000_000
_ROWS_PER_GROUP = 131_072
_SAMPLE = 4_096
_BYTES_PER_FILE = 128 * 2**20  # compressed; it is held in memory until it is whole
_NAMED = re.compile(r"part-(.*)-([0-9a-f]{64})\.parquet")
_REWRITTEN = re.compile(r"-(?:compact|rewrite)\d*-\d+$")
_PLACES = 10_000  # what is written again for a path that is taken goes this much further on
_STEM_CHARACTERS = 80  # of an app id in a file name; its digest tells apps apart
_DIGEST_CHARACTERS = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")
BOUNDED_TYPES = (int, str, date, float)  # datetime is a date; bool is an int, but is left out
TICK = timedelta(milliseconds=1)  # other writers truncate instants in statistics to this


@dataclass(slots=True)
class DataFile:
    """One immutable file of rows, and what its statistics say."""

    path: str
    rows: int
    size_bytes: int
    low: Mapping[str, Any]
    high: Mapping[str, Any]
    nulls: Mapping[str, int | None]
    fragment: Any = field(default=None, repr=False)
    sha256: str | None = None


class FileWriter:
    """Writes rows of one table into files, none too large; what is written is not yet part of the table.

    Parameters
    ----------
    stem
        Begins the files' names.
    taken
        Paths that are not to be written again: of rows that were taken out for good.
    """

    def __init__(
        self, files: Files, name: str, schema: pa.Schema, stem: str, *, taken: Collection[str] = ()
    ) -> None:
        self._store = files
        self._name = name
        self._schema = schema
        self._stem = stem
        self._taken = taken
        self._sink: Any = None
        self._writer: Any = None
        self._rows = 0
        self._not_bounded: set[str] = set()
        self._nulls: dict[str, int | None] = {}
        self._collected: list[Any] = []
        self.done: list[DataFile] = []

    def write(self, table: pa.Table) -> None:
        """Write rows; files that are full are put into the store."""
        while table.num_rows:
            part = table.slice(0, ROWS_PER_FILE - self._rows)
            table = table.slice(part.num_rows)
            if self._writer is None:
                self._open(part)
            self._writer.write_table(part, row_group_size=_ROWS_PER_GROUP)
            self._count_nulls(part)
            self._not_bounded |= _not_finite(part, self._not_bounded)
            self._rows += part.num_rows
            if self._rows == ROWS_PER_FILE or self._sink.tell() >= _BYTES_PER_FILE:
                self._put()

    def close(self) -> list[DataFile]:
        """Put what is left; give all files."""
        if self._writer is not None:
            self._put()
        return self.done

    def drop(self) -> None:
        """Forget what was not put yet."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _count_nulls(self, part: pa.Table) -> None:
        for name, count in self._nulls.items():
            self._nulls[name] = (count or 0) + part.column(name).null_count

    def _open(self, first: pa.Table) -> None:
        self._sink = pa.BufferOutputStream()
        self._collected = []
        self._rows = 0
        self._not_bounded = set()
        self._nulls = {each.name: 0 for each in self._schema if not pa.types.is_nested(each.type)}
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            store_schema=False,
            use_dictionary=_worth_a_dictionary(first),
            metadata_collector=self._collected,
        )

    def _put(self) -> None:
        self._writer.close()
        self._writer = None
        data = self._sink.getvalue().to_pybytes()
        self._sink = None
        sha256 = sha256_hex(data)
        low, high = _bounds_told(self._collected[0], self._schema, self._not_bounded)
        places = counting(len(self.done), _PLACES)
        path = next(each for each in self._paths(places, sha256) if each not in self._taken)
        self._store.put(f"{self._name}/{path}", data)
        self.done.append(DataFile(path, self._rows, len(data), low, high, self._nulls, sha256=sha256))
        self._rows = 0

    def _paths(self, places: Iterable[int], sha256: str) -> Iterator[str]:
        return (f"part-{self._stem}-{place:04d}-{sha256}.parquet" for place in places)


def _worth_a_dictionary(rows: pa.Table) -> list[str]:
    """Leave out columns with many values: they are smaller and written sooner without."""
    sample = rows.slice(0, _SAMPLE)
    if sample.num_rows < _SAMPLE:
        return list(rows.column_names)
    return [
        each.name
        for each in rows.schema
        if pa.types.is_nested(each.type)
        or pc.count_distinct(sample[each.name]).as_py() < _SAMPLE * _share_of_values(each.type)
    ]


def _share_of_values(kind: pa.DataType) -> float:
    """Say up to which share of distinct values a dictionary pays: texts are long, numbers are not."""
    return 0.9 if pa.types.is_string(kind) or pa.types.is_binary(kind) else 0.25


def stem_of(batch: int, app_id: str) -> str:
    """Begin the names of a batch's files, so that they sort by batch."""
    digest = sha256_hex(app_id.encode())[:_DIGEST_CHARACTERS]
    return f"{batch:012d}-{_UNSAFE.sub('_', app_id)[-_STEM_CHARACTERS:]}-{digest}"


def rewritten_stem(file: DataFile, how: str) -> str:
    """Begin the names of files that take the place of `file`, so that they sort where it did."""
    named = _NAMED.fullmatch(file.path)
    stem = named[1] if named else "000000000000-" + _UNSAFE.sub("_", file.path)[-_STEM_CHARACTERS:]
    return f"{_REWRITTEN.sub('', stem)}-{how}"


def sha256_in(path: str) -> str | None:
    """Give the digest that a file's name holds; None for a file of another writer."""
    named = _NAMED.fullmatch(path)
    return named[2] if named else None


def may_hold(file: DataFile, column: str, low: Any, high: Any, *, nulls: bool = False) -> bool:
    """Say whether the statistics leave room for a value from `low` to `high`; None leaves a side open."""
    if nulls and file.nulls.get(column) != 0:
        return True
    least, most = file.low.get(column), file.high.get(column)
    if least is None or most is None or isinstance(least, bool):
        return True
    if isinstance(most, datetime):
        most += TICK
    try:
        return not ((high is not None and least > high) or (low is not None and most < low))
    except TypeError:
        return True  # not of one kind: nothing is ruled out


def instant_of(micros: int, kind: pa.DataType) -> datetime:
    """Give an instant of a type as Python's; pyarrow itself would load pandas to do so."""
    instant = from_micros(micros)
    return instant if kind.tz else instant.replace(tzinfo=None)


def told(value: Any) -> Any:
    """Write a bound as statistics in Delta's log have it."""
    if isinstance(value, datetime):
        text = value.strftime("%Y-%m-%dT%H:%M:%S.%f")
        return text if value.tzinfo is None else text + "Z"
    return value.isoformat() if isinstance(value, date) else value


def _not_finite(table: pa.Table, known: Iterable[str]) -> set[str]:
    """Name the columns of real numbers with a NaN or an infinity: no bound can be told of them."""
    return {
        each.name
        for each in table.schema
        if pa.types.is_floating(each.type)
        and each.name not in known
        and not _all_finite(table.column(each.name))
    }


def _all_finite(column: pa.ChunkedArray) -> bool:
    total = pc.sum(column).as_py()  # an infinity or a NaN stays in a sum
    return total is None or bool(np.isfinite(total)) or bool(pc.all(pc.is_finite(column)).as_py())


def _bounds_told(
    metadata: Any, schema: pa.Schema, not_bounded: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read bounds off what the Parquet writer has collected anyway."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    unknown = set(not_bounded)
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for place in range(columns.num_columns):
            column = columns.column(place)
            name, found = column.path_in_schema, column.statistics
            if name not in schema.names:
                continue
            if found is None or not found.has_min_max:
                if found is None or found.null_count != found.num_values + found.null_count:
                    unknown.add(name)
                continue
            least, most = _ends(found, schema.field(name).type)
            if isinstance(least, bool) or not isinstance(least, BOUNDED_TYPES):
                continue
            low[name] = min(low.get(name, least), least)
            high[name] = max(high.get(name, most), most)
    for name in unknown:
        low.pop(name, None)
        high.pop(name, None)
    return low, high


def _ends(statistics: Any, kind: pa.DataType) -> tuple[Any, Any]:
    """Give the least and the greatest value that statistics tell of a column."""
    if pa.types.is_timestamp(kind) and kind.unit == "us":
        return instant_of(statistics.min_raw, kind), instant_of(statistics.max_raw, kind)
    return statistics.min, statistics.max
