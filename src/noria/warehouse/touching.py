"""Which partitions of a model have to be built again, by the rows that its inputs got and lost since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from noria.clock import parse_duration
from noria.errors import StoreError
from noria.lake.data_files import DataFile
from noria.lake.delta import Table
from noria.lake.tables import Tables
from noria.warehouse.commits import Added, Commit
from noria.warehouse.partitions import Partition, Span, merged
from noria.warehouse.storing import partitions_in

__all__ = ["touched_spans", "widened"]


def touched_spans(
    tables: Tables,
    changes: Mapping[str, Sequence[Commit]],
    *,
    seen: Mapping[str, int],
    partition: Partition,
    columns: Mapping[str, str],
    lookback: timedelta | None,
) -> list[Span] | None:
    """Give what has to be built again, in whole partitions of the model; None: rows without a time changed.

    Parameters
    ----------
    changes
        Input -> the commits to it; each is local by one of `columns`.
    seen
        Input -> Delta's version that the model has taken in.
    """
    spans: list[Span] = []
    for name, commits in changes.items():
        touched = _touched(tables, name, commits, seen[name], Partition(partition.unit, columns[name]))
        if touched is None:
            return None
        for span in touched:
            end = span.high
            if lookback is not None:
                last = span.high - timedelta(microseconds=1) + lookback
                end = partition.after(partition.floor(last))
            spans.append(Span(span.low, end))
    return merged(spans)


def widened(spans: Sequence[Span], lookback: timedelta | None) -> list[Span]:
    """Give the rows of inputs that have a part in spans of a model."""
    if lookback is None:
        return list(spans)
    return merged([Span(each.low - lookback if each.low.year > 1 else each.low, each.high) for each in spans])


def lookback_of(text: str) -> timedelta | None:
    """Read how long a row has a part in later ones."""
    return parse_duration(text) if text else None


def _touched(
    tables: Tables, name: str, commits: Sequence[Commit], seen: int, partition: Partition
) -> list[Span] | None:
    table = tables.get(name)
    written = {each.lower(): each for each in table.schema.names}
    partition = Partition(partition.unit, written.get(partition.column.lower(), partition.column))
    then = {each.path: each for each in tables.get_at(name, seen).files}
    starts: list[datetime] = []
    spans: list[Span] = []
    known: dict[str, Added | DataFile] = dict(then)
    for commit in commits:
        known |= {each.path: each for each in commit.added}
        for path in (*(each.path for each in commit.added), *commit.removed):
            found = _read(table, path, partition) or _told(known.get(path), partition)
            if found.has_null:
                return None
            starts += found.starts
            spans += found.spans
    return merged([*partition.spans(starts), *spans])


@dataclass(frozen=True, slots=True)
class _Times:
    """Where the rows of a file lie."""

    starts: list[datetime]
    spans: list[Span]
    has_null: bool


def _told(file: Added | DataFile | None, partition: Partition) -> _Times:
    """Give the times that the statistics of a file tell."""
    name = partition.column
    if file is None or file.nulls.get(name) != 0:
        return _Times([], [], has_null=True)
    return _Times([], [_span(file.low.get(name), file.high.get(name), partition)], has_null=False)


def _read(table: Table, path: str, partition: Partition) -> _Times | None:
    """Give the times of a file's rows; None if the file is not there any more."""
    file = DataFile(path, 0, 0, {}, {}, {})
    try:
        rows = table.read_files([file], columns=[partition.column])
    except StoreError:
        return None
    times = rows[partition.column]
    return _Times(partitions_in(times, partition)[1], [], has_null=times.null_count > 0)


def _span(low: Any, high: Any, partition: Partition) -> Span:
    """Give the partitions between two bounds of statistics; all time, if they are not known."""
    first, last = _instant(low), _instant(high)
    if first is None or last is None:
        return Span(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
    # Other writers cut instants to milliseconds.
    return Span(partition.floor(first), partition.after(partition.floor(last + timedelta(milliseconds=1))))


def _instant(value: Any) -> datetime | None:
    match value:
        case str():
            instant = datetime.fromisoformat(value)
        case datetime():
            instant = value
        case date():
            instant = datetime(value.year, value.month, value.day, tzinfo=UTC)
        case _:
            return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
