"""Putting the rows of a model into its table: one commit, with a file or more for each partition of time.

A file is named after its content, so a partition that comes out as it was before keeps its file, and a table
of which nothing changed gets no commit at all. Where rows were taken out for good the name has a count, too.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from noria.errors import Conflict
from noria.lake.data_files import DataFile, FileWriter, may_hold, rewritten_stem
from noria.lake.delta import Table
from noria.lake.files import Files
from noria.lake.redactions import Redactions
from noria.lake.tables import Tables
from noria.warehouse.partitions import Partition, Span
from noria.warehouse.session import BuildFailed

__all__ = ["Stored", "kept_outside", "may_hold_rows_of", "partitions_in", "store"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_PARTITIONS = 20_000
_ROWS_PER_PIECE = 65_536
_LABEL = re.compile(r"part-([^-_]*).*")
_NUMPY_UNIT = {"hour": "h", "day": "D", "month": "M", "year": "Y"}


@dataclass(frozen=True, slots=True)
class Stored:
    """The table after a build."""

    table: Table
    changed: bool


def store(
    tables: Tables,
    files: Files,
    name: str,
    rows: pa.RecordBatchReader,
    *,
    partition: Partition | None,
    spans: Sequence[Span] | None,
    facts: dict[str, Any],
) -> Stored:
    """Replace rows of a table, in one commit.

    Parameters
    ----------
    rows
        In the order of their partitions, if there are any.
    spans
        Whole partitions: their rows are replaced. None: all rows are.

    Raises
    ------
    Conflict
        If somebody else has changed the table meanwhile.
    """
    schema = rows.schema
    new = list(_written(files, name, rows, partition, _Stems(files, name)))
    table = tables.find(name)
    if table is None:
        table = tables.create(name, schema)
    before = {each.path: each for each in table.files}
    kept, rest = kept_outside(table, partition, spans)
    new += _rests(table, rest, partition, spans)
    after = {each.path: each for each in (*kept, *new)}
    add = [each for path, each in after.items() if path not in before]
    remove = [each for path, each in before.items() if path not in after]
    shaped = None if schema.equals(table.schema) else schema
    if not add and not remove and shaped is None:
        return Stored(table, changed=False)
    if not table.commit(add=add, remove=remove, facts=facts, unless=lambda: True, schema=shaped):
        raise Conflict(f"the table {name!r} was changed by another process while it was built; run it again")
    return Stored(table, changed=True)


def kept_outside(
    table: Table, partition: Partition | None, spans: Sequence[Span] | None
) -> tuple[list[DataFile], list[DataFile]]:
    """Give the files that hold no row within spans, and those that hold rows on both sides of a bound."""
    if spans is None or partition is None:
        return [], []
    kept, split = [], []
    for file in table.files:
        if not any(may_hold_rows_of(file, partition.column, table.schema, each) for each in spans):
            kept.append(file)
        elif not any(_lies_in(file, partition.column, each) for each in spans):
            split.append(file)
    return kept, split


def partitions_in(column: pa.ChunkedArray, partition: Partition) -> tuple[Any, list[datetime]]:
    """Give the beginning of each row's partition in microseconds, and those that there are as instants."""
    micros = _micros(column)
    unit: Any = f"datetime64[{_NUMPY_UNIT[partition.unit]}]"
    starts = micros.view("datetime64[us]").astype(unit).astype("datetime64[us]").astype(np.int64)
    return starts, [_EPOCH + timedelta(microseconds=int(each)) for each in np.unique(starts)]


def _micros(column: pa.ChunkedArray) -> Any:
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("us"))
    elif not pa.types.is_timestamp(kind):
        raise BuildFailed(
            f"the partition's column is {kind}; it has to be a DATE or a TIMESTAMP for its day to be known"
        )
    unzoned = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return unzoned.drop_null().to_numpy() if unzoned.null_count else unzoned.to_numpy()


class _Stems:
    """Begins the names of files so that no path comes again whose rows were taken out for good.

    The count of such files of the same label is in the name: a build that is repeated gives the same names.
    """

    def __init__(self, files: Files, name: str) -> None:
        redactions = Redactions(files, name)
        redactions.refresh()
        self._taken = Counter(_LABEL.sub(r"\1", each) for each in redactions.paths)

    def of(self, label: str) -> str:
        """Give what the files of a partition begin with."""
        return f"{label}_{self._taken[label]}" if label in self._taken else label


def _written(
    files: Files, name: str, rows: pa.RecordBatchReader, partition: Partition | None, stems: _Stems
) -> Iterator[DataFile]:
    if partition is None:
        writer = FileWriter(files, name, rows.schema, stems.of("all"))
        for piece in _pieces(rows):
            writer.write(piece)
        yield from writer.close()
        return
    open_at: int | None = None
    many = 0
    for piece in _pieces(rows):
        if piece[partition.column].null_count:
            raise BuildFailed(
                f"rows have no {partition.column!r}, so they lie in no partition; give them one, or leave "
                f"them out: `where {partition.column} is not null`"
            )
        starts, _ = partitions_in(piece[partition.column], partition)
        cuts = [0, *(np.flatnonzero(np.diff(starts)) + 1).tolist(), len(starts)]
        for low, high in pairwise(cuts):
            if low == high:
                continue
            if open_at != starts[low]:
                if open_at is not None:
                    yield from writer.close()
                many += 1
                if many > _MOST_PARTITIONS:
                    raise BuildFailed(
                        f"it has more than {_MOST_PARTITIONS:,} partitions {partition}; choose longer ones"
                    )
                open_at = int(starts[low])
                label = partition.label(_EPOCH + timedelta(microseconds=open_at))
                writer = FileWriter(files, name, rows.schema, stems.of(label))
            writer.write(piece.slice(low, high - low))
    if open_at is not None:
        yield from writer.close()


def _pieces(rows: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Give rows in pieces of one size, so that the same rows are the same files however they are read."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in rows:
        while batch.num_rows:
            part = batch.slice(0, _ROWS_PER_PIECE - count)
            batch = batch.slice(part.num_rows)  # noqa: PLW2901 - what is left of it
            held.append(part)
            count += part.num_rows
            if count == _ROWS_PER_PIECE:
                yield pa.Table.from_batches(held).combine_chunks()
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _rests(
    table: Table, files: Iterable[DataFile], partition: Partition | None, spans: Sequence[Span] | None
) -> list[DataFile]:
    """Write the rows of files that lie outside of the spans into files of their own."""
    if partition is None or spans is None:
        return []
    done: list[DataFile] = []
    for file in files:
        rows = table.read_files([file])
        micros = _micros(rows[partition.column])
        inside = np.zeros(len(micros), dtype=bool)
        for span in spans:
            inside |= (micros >= _to_micros(span.low)) & (micros < _to_micros(span.high))
        writer = table.writer(rewritten_stem(file, "rewrite"))
        writer.write(rows.filter(pa.array(~inside)))
        done += writer.close()
    return done


def may_hold_rows_of(file: DataFile, column: str, schema: pa.Schema, span: Span) -> bool:
    """Tell whether a file may hold rows within a span of a column; those without a value are among them."""
    low, high = _as_type(span, schema.field(column).type)
    return may_hold(file, column, low, high, nulls=True)


def _lies_in(file: DataFile, column: str, span: Span) -> bool:
    low, high = file.low.get(column), file.high.get(column)
    if low is None or high is None or file.nulls.get(column) != 0:
        return False
    return _instant(low) >= span.low and _instant(high) < span.high


def _as_type(span: Span, kind: pa.DataType) -> tuple[Any, Any]:
    """Give the bounds of a span as statistics of a column have them; both ends belong to it."""
    last = span.high - timedelta(microseconds=1)
    if pa.types.is_date(kind):
        return span.low.date(), last.date()
    if kind.tz is None:
        return span.low.replace(tzinfo=None), last.replace(tzinfo=None)
    return span.low, last


def _instant(value: Any) -> datetime:
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _to_micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
