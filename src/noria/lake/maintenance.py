"""Keeping tables quick and small: small files are joined, files that nobody names are removed."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import log2
from typing import Any

import pyarrow.parquet as pq

from noria.lake import log
from noria.lake.data_files import ROWS_PER_FILE, DataFile, rewritten_stem
from noria.lake.delta import Table
from noria.lake.redactions import FOLDER
from noria.ledger.store import Ledger
from noria.records import Version

__all__ = [
    "Removal",
    "Vacuumed",
    "joined",
    "neighbours",
    "recorded_versions",
    "tail_of_small_files",
    "vacuum",
    "values_there",
]

_JOINED_AT_ONCE = 50
_STEP = log2(_JOINED_AT_ONCE)
_LEVELS = 4


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that was removed, or would be."""

    path: str
    size_bytes: int
    since: datetime  # when it stopped being part of the table; for what never was: when it was written


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What a vacuum removed, or would remove."""

    name: str
    removed: tuple[Removal, ...]
    dry_run: bool

    @property
    def size_bytes(self) -> int:
        """How much room that gives."""
        return sum(each.size_bytes for each in self.removed)


def tail_of_small_files(table: Table) -> list[DataFile]:
    """Give small files that are to be joined, oldest first; none while there are few of about one size.

    Sizes go in steps of fifty, so that a row is written anew at each step and not with every batch.
    """
    files = table.files
    for level in range(_LEVELS):
        tail: list[DataFile] = []
        for each in reversed(files):
            if int(log2(max(each.rows, 1)) / _STEP) > level or 2 * each.rows > ROWS_PER_FILE:
                break
            tail.append(each)
        if len(tail) < _JOINED_AT_ONCE:
            continue
        group: list[DataFile] = []
        for each in reversed(tail):
            if sum(one.rows for one in group) + each.rows > ROWS_PER_FILE:
                break
            group.append(each)
        return group if len(group) > 1 else []
    return []


def neighbours(files: Sequence[DataFile], rows: int) -> Iterator[list[DataFile]]:
    """Group small files that follow one another, up to `rows` together."""
    group: list[DataFile] = []
    for each in files:
        if group and sum(one.rows for one in group) + each.rows > rows:
            if len(group) > 1:
                yield group
            group = []
        group.append(each)
    if len(group) > 1:
        yield group


def joined(table: Table, group: Sequence[DataFile]) -> list[DataFile]:
    """Write the rows of several files into few, which stand where the first of them did."""
    writer = table.writer(rewritten_stem(group[0], f"compact{len(group)}"))
    writer.write(table.read_whole(group))
    return writer.close()


def vacuum(
    table: Table, ledger: Ledger | None, *, retention: timedelta, dry_run: bool, now: datetime
) -> Vacuumed:
    """Remove the files that are no part of the table now, nor of a version on record.

    Parameters
    ----------
    retention
        Files are left alone so long after they went, or were written and never landed.
    """
    spans = _spans(table)
    recorded = sorted(recorded_versions(table.name, ledger))
    before = now - retention
    removed = []
    for stored in table.store.listed(table.name):
        path = stored.path.removeprefix(f"{table.name}/")
        if path.startswith(("_delta_log/", f"{FOLDER}/")) or path in table.paths:
            continue
        mine = spans.get(path, [])
        since = max((each.ended_at for each in mine), default=stored.modified_at)
        named = path not in table.redactions.paths and any(each.holds(recorded) for each in mine)
        read_instead = path in table.redactions.targets
        if named or read_instead or since > before:
            continue
        removed.append(Removal(path, stored.size_bytes, since))
    if not dry_run:
        for each in removed:
            table.store.delete(f"{table.name}/{each.path}")
    return Vacuumed(table.name, tuple(removed), dry_run)


def values_there(table: Table, column: str, *, without: Collection[str] = ()) -> set[Any]:
    """Give the values of a column in every file that ever was part of the table and is still there.

    So whatever can be read, of the newest state or of any version, is among them.

    Parameters
    ----------
    without
        Files that are left out.
    """
    once = {*_spans(table), *table.paths, *table.redactions.targets}
    found: set[Any] = set()
    for stored in table.store.listed(table.name):
        path = stored.path.removeprefix(f"{table.name}/")
        if path not in once or path in without:
            continue
        filesystem, place = table.store.arrow(stored.path)
        with pq.ParquetFile(place, filesystem=filesystem) as opened:
            if column in opened.schema_arrow.names:
                for batch in opened.iter_batches(columns=[column]):
                    found.update(batch.column(0).to_pylist())
    return found


@dataclass(slots=True)
class _Span:
    """The versions of Delta in which a file was part of the table."""

    first: int
    end: int
    ended_at: datetime

    def holds(self, recorded: Sequence[int]) -> bool:
        place = bisect_left(recorded, self.first)
        return place < len(recorded) and recorded[place] < self.end


def _spans(table: Table) -> dict[str, list[_Span]]:
    """Follow the whole log: when which file came and went."""
    never = datetime.max.replace(tzinfo=UTC)
    spans: dict[str, list[_Span]] = {}
    for commit in log.commits(table.store, table.name, last=table.version):
        at = datetime.fromtimestamp(commit.timestamp_ms / 1_000, UTC)
        for path in commit.removed:
            if path in spans:
                spans[path][-1].end, spans[path][-1].ended_at = commit.version, at
        for path in commit.added:
            spans.setdefault(path, []).append(_Span(commit.version, table.version + 1, never))
    return spans


def recorded_versions(name: str, ledger: Ledger | None) -> dict[int, list[Version]]:
    """Give the versions on record by Delta's number."""
    found: dict[int, list[Version]] = {}
    for each in () if ledger is None else ledger.list_versions(name=name):
        table, _, number = each.uri.removeprefix("delta:").rpartition("@")
        if each.uri.startswith("delta:") and table == name and number.isdecimal():
            found.setdefault(int(number), []).append(each)
    return found
