"""A batch on its way into a table: conformed, held against its contract, and its keys told apart.

Rows go to files as they come, and none of those files is part of the table yet. Which rows come twice shows
at the latest when all have come: rows whose key may have been there before wait aside until then.

- equal content under a key that is there: *repeated*, dropped and counted;
- other content under a key that is there: rejected, or, in a table that merges, the newer one stays.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from noria.checks.declarations import Rule, Severity, expression, not_null, unique
from noria.checks.engine import BatchChecker
from noria.checks.hashes import HashRuns, sorted_hashes
from noria.checks.surroundings import Surroundings
from noria.checks.verdicts import REJECTED_SCHEMA, Finding, blocking_reasons, rejected_rows, row_json
from noria.lake.data_files import DataFile
from noria.lake.declarations import Dataset
from noria.lake.kept import Kept
from noria.lake.keys import KeyIndex, is_repeated
from noria.lake.rejected_trend import RejectedTrend
from noria.lake.rewriting import Rewritten, among, holding, rows_like, without_keys
from noria.lake.row_files import RowFiles
from noria.lake.rows import Broken
from noria.lake.rowsql import Flags, Likeness, RowSql
from noria.lake.spill import Spill

__all__ = ["Arrival"]

_UNREADABLE = "readable"
_PLACE = "__place"
_REASON_CHARACTERS = 2_000
_DECIDED_AT_ONCE = 262_144


@dataclass(slots=True)
class _Count:
    rule: Rule
    failing: int = 0
    example: str = ""
    row: int | None = None


class Arrival:
    """One batch.

    Parameters
    ----------
    schema
        The table's columns, which every piece has.
    table, files, index
        Where the keys are that are taken; None: nowhere.
    kept
        Takes the accepted rows.
    surroundings
        What rules may ask beside the rows.
    trend
        Judges the share of rejected rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        schema: pa.Schema,
        *,
        table: RowFiles | None,
        files: Sequence[DataFile],
        index: KeyIndex | None,
        checker: BatchChecker,
        sql: RowSql,
        kept: Kept,
        surroundings: Surroundings,
        trend: RejectedTrend,
    ) -> None:
        self.schema = schema
        self.keys = dataset.keys
        self.content = [each for each in schema.names if dataset.known_at or each != dataset.known_at_column]
        self.merges = dataset.write == "merge"
        self.known_at = dataset.known_at_column
        self.hashes = HashRuns()
        self.rejects = Spill(REJECTED_SCHEMA)
        self.where: Callable[[int | None], str] = _nowhere
        self.repeated = 0
        self.rows = 0
        self._limit = dataset.max_rejected_share
        self._trend = trend
        self._table = table
        self._files = files
        self._index = index
        self._sql = sql
        self.kept = kept
        rules, key_severity = _contract_of(dataset)
        self._added = () if dataset.known_at else (self.known_at,)
        self._checking = checker.begin(
            rules, max_rejected_share=1.0, surroundings=surroundings, added=self._added
        )
        self._suspects = Spill(schema.append(pa.field(_PLACE, pa.int64())))
        self._outdated = Spill(schema)  # of a table that merges: rows of which the batch has a newer one
        self._unreadable = _Count(Rule(kind="readable", name=_UNREADABLE))
        names = ", ".join(self.keys)
        self._twin = _Count(unique(*self.keys, severity=key_severity))
        self._taken = _Count(Rule(kind="taken", name=f"new_key({names})", columns=self.keys))
        self._found: tuple[Finding, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._checking.close()
        self._suspects.close()
        self._outdated.close()
        self.rejects.close()

    def take(self, piece: pa.Table) -> None:
        """Take the next rows."""
        verdict = self._checking.piece(piece, first_row=self.rows)
        places = np.arange(self.rows, self.rows + piece.num_rows)
        self.rows += piece.num_rows
        rows = verdict.accepted
        if verdict.rejected.num_rows:
            self.rejects.add(verdict.rejected)
            gone = verdict.rejected["row"].to_numpy()
            places = places[np.isin(places, gone, assume_unique=True, invert=True)]
        if not rows.num_rows:
            return
        hashes = self._sql.hashes(rows, self.keys)
        ordered = sorted_hashes(hashes)
        doubtful = is_repeated(hashes, ordered) | self.hashes.find(hashes, ordered)
        if self._index is not None and not self.merges:
            doubtful |= self._index.find(hashes, ordered)
        if doubtful.any():
            picked = pa.array(doubtful)
            self._suspects.add(rows.filter(picked).append_column(_PLACE, pa.array(places).filter(picked)))
            rows, ordered = rows.filter(pa.array(~doubtful)), sorted_hashes(hashes[~doubtful])
        self.kept.add(rows)
        self.hashes.add(ordered)

    def take_broken(self, broken: Sequence[Broken]) -> None:
        """Take what could not be read as rows."""
        if not self._unreadable.failing:
            self._unreadable.example = row_json({"row": broken[0].row, "reason": broken[0].reason})
            self._unreadable.row = self.rows
        self.rows += len(broken)
        self._unreadable.failing += len(broken)
        columns = {
            "reason": [each.reason[:_REASON_CHARACTERS] for each in broken],
            "payload": [each.payload for each in broken],
            "row": [each.row for each in broken],
        }
        self.rejects.add(pa.table(columns, schema=REJECTED_SCHEMA))

    def finish(self) -> None:
        """Decide about the rows that waited, once all have come."""
        self._found = self._checking.finish(unreadable=self._unreadable.failing).findings
        for waiting in self._suspects.tables(at_least=_DECIDED_AT_ONCE):
            places = waiting[_PLACE]
            self._decide(waiting.drop_columns([_PLACE]), np.asarray(places))
        self._suspects.close()

    def hold_against(self, table: RowFiles, files: Sequence[DataFile]) -> None:
        """Hold the keys of the written files against rows that others have landed since, in `files`."""
        for file in list(self.kept.files()):
            rows = table.read_files([file], columns=self.schema.names)
            told = self._liken(rows, table, holding(files, rows, self.keys[0]))
            if not told.found.any():
                continue
            self.repeated += int((told.found & told.equal).sum())
            self._reject(rows, np.full(rows.num_rows, -1), told.found & ~told.equal, self._taken)
            self.kept.drop(rows.filter(pa.array(told.found)), self._sql)

    def replacing(self, table: RowFiles, files: Sequence[DataFile], index: KeyIndex) -> Rewritten:
        """Write those of the table's `files` anew whose rows are replaced by rows of this batch.

        Rows of the batch that are no newer than the table's, or the same, are dropped.
        """
        keys = self._replaced(table, files, index)
        if keys is None or not keys.num_rows:
            return Rewritten()
        return without_keys(table, files, keys, self._sql, columns=self.keys)

    @property
    def has_outdated(self) -> bool:
        """Whether newer rows of the batch itself have taken the place of others."""
        return self._outdated.rows > 0

    def replaced(
        self, table: RowFiles | None, files: Sequence[DataFile], index: KeyIndex
    ) -> Iterator[pa.Table]:
        """Give the rows that newer ones of this batch replace, until when each was what was known.

        These are rows of the table's `files`, and of the batch itself; a row that comes when a newer one is
        known already never was.
        """
        is_there = table is not None and bool(files) and index.find_any(self.hashes)
        if not is_there and not self.has_outdated:
            return
        for file in list(self.kept.files()):
            newest = self.kept.read(file).select(list(dict.fromkeys([*self.keys, self.known_at])))
            there: list[pa.Table] = []
            if is_there and table is not None:
                like = rows_like(table, holding(files, newest, self.keys[0]), newest, self.keys, self.schema)
                there = list(among(like, newest, self._sql, keys=self.keys))
            here = [] if not self.has_outdated else [
                each.filter(pa.array(self._sql.among(each, newest, keys=self.keys)))
                for each in self._outdated.tables()
            ]  # fmt: skip
            if any(each.num_rows for each in (*there, *here)):
                none = [self.schema.empty_table()]
                yield self._sql.until_replaced(
                    pa.concat_tables([*none, *there]),
                    pa.concat_tables([*none, *here]),
                    newest,
                    keys=self.keys,
                    known_at=self.known_at,
                )

    def drop_outdated(self) -> None:
        """Drop what `replacing` would drop, of a batch that will not land: no file of the table changes."""
        if self.merges and self._table is not None and self._index is not None:
            self._replaced(self._table, self._files, self._index)

    def _replaced(self, table: RowFiles, files: Sequence[DataFile], index: KeyIndex) -> pa.Table | None:
        """Drop rows that are no newer than the table's, or the same; give the keys that others replace."""
        if not index.find_any(self.hashes):
            return None
        gone: list[pa.Table] = []
        for file in list(self.kept.files()):
            rows = self.kept.read(file)
            rows = rows.filter(pa.array(index.find(self._sql.hashes(rows, self.keys))))
            if not rows.num_rows:
                continue
            told = self._liken(rows, table, holding(files, rows, self.keys[0]))
            stale = told.found & (told.equal | told.newer)
            if stale.any():
                self.repeated += int(stale.sum())
                self.kept.drop(rows.filter(pa.array(stale)), self._sql)
            gone.append(rows.filter(pa.array(told.found & ~stale)).select(list(self.keys)))
        return pa.concat_tables(gone) if gone else None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The rules that did not hold."""
        own = [each for each in (self._twin, self._taken, self._unreadable) if each.failing]
        found = (
            *self._found,
            *(
                Finding(
                    rule=each.rule.name,
                    severity=each.rule.severity,
                    failing=each.failing,
                    share=each.failing / self.rows,
                    example=each.example,
                    row=each.row,
                )
                for each in own
            ),
            *self._trend.findings(rejected=self.rejects.rows, rows=self.rows),
        )
        return tuple(replace(each, where=self.where(each.row)) for each in found)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the batch is blocked; empty if it is not."""
        return tuple(
            blocking_reasons(
                [each for each in self.findings if each.rule != _UNREADABLE],
                rejected=self.rejects.rows,
                rows=self.rows,
                unreadable=self._unreadable.failing,
                limit=self._limit,
            )
        )

    def _decide(self, rows: pa.Table, places: np.ndarray[Any, Any]) -> None:
        stays = self._sql.winners(rows, keys=self.keys, newest=self.known_at if self.merges else None)
        if self.merges:
            self._decide_merging(rows.filter(pa.array(stays)), rows.filter(pa.array(~stays)))
            return
        if not stays.all():
            self._decide_twins(rows, places, stays)
            rows, places = rows.filter(pa.array(stays)), places[stays]
        there = self._liken(rows, self._table, self._table_files(rows))
        here = self._like_own(rows)
        found, equal = there.found | here.found, there.equal | here.equal
        self.repeated += int((found & equal).sum())
        self._reject(rows, places, there.found & ~equal, self._taken)
        self._reject(rows, places, here.found & ~equal & ~there.found, self._twin)
        new = rows.filter(pa.array(~found))
        self.kept.add(new)
        self.hashes.add(sorted_hashes(self._sql.hashes(new, self.keys)))

    def _decide_twins(self, rows: pa.Table, places: np.ndarray[Any, Any], stays: Flags) -> None:
        """Decide about rows of a key of which another row of the same lot stays."""
        others = rows.filter(pa.array(~stays))
        told = self._sql.liken(
            others,
            rows.filter(pa.array(stays)).to_batches(),
            self.schema,
            keys=self.keys,
            content=self.content,
        )
        there = self._liken(others, self._table, self._table_files(others))
        here = self._like_own(others)
        equal = told.equal & ~there.found & ~here.found | there.equal | here.equal
        self.repeated += int(equal.sum())
        self._reject(others, places[~stays], ~equal & there.found, self._taken)
        self._reject(others, places[~stays], ~equal & ~there.found, self._twin)

    def _decide_merging(self, rows: pa.Table, others: pa.Table) -> None:
        """Decide about the newest rows of their keys; `others` are the older ones of the same lot."""
        here = self._like_own(rows)
        stale = here.found & (here.newer | here.equal)
        self.repeated += int(here.found.sum()) + others.num_rows
        gone = rows.filter(pa.array(here.found & ~stale))
        if gone.num_rows:
            self._add_outdated(among(self.kept.like(gone), gone, self._sql, keys=self.keys))
            self.kept.drop(gone, self._sql)
        self._add_outdated([others, rows.filter(pa.array(stale))])
        self.kept.add(rows.filter(pa.array(~stale)))

    def _add_outdated(self, tables: Iterable[pa.Table]) -> None:
        for each in tables:
            if each.num_rows:
                self._outdated.add(each)

    def _table_files(self, rows: pa.Table) -> list[DataFile]:
        if self._table is None or self._index is None:
            return []
        if not self._index.find(self._sql.hashes(rows, self.keys)).any():
            return []
        return holding(self._files, rows, self.keys[0])

    def _liken(self, rows: pa.Table, table: RowFiles | None, files: Sequence[DataFile]) -> Likeness:
        if table is None or not files:
            return Likeness(rows.num_rows)
        return self._compare(rows, rows_like(table, files, rows, self.keys, self.schema))

    def _like_own(self, rows: pa.Table) -> Likeness:
        """Compare with the rows of this batch that were kept before."""
        return self._compare(rows, self.kept.like(rows))

    def _compare(self, rows: pa.Table, others: Iterable[pa.RecordBatch]) -> Likeness:
        return self._sql.liken(
            rows, others, self.schema, keys=self.keys, content=self.content, newest=self.known_at
        )

    def _reject(self, rows: pa.Table, places: np.ndarray[Any, Any], flags: Flags, why: _Count) -> None:
        count = int(flags.sum())
        if not count:
            return
        if not why.failing:
            first = rows.slice(int(flags.argmax()), 1).select(list(self.keys))
            why.example = row_json(first.to_pylist()[0])
            why.row = int(places[flags][0]) if places[flags][0] >= 0 else None
        why.failing += count
        told = rejected_rows(rows, [(why.rule, flags)], flags, first_row=0, added=self._added)
        self.rejects.add(told.set_column(2, "row", pa.array(places[flags])))


def _nowhere(row: int | None) -> str:
    return ""


def _contract_of(dataset: Dataset) -> tuple[list[Rule], str]:
    """Give what holds of every dataset and what this one declares, and how grave a twin key is.

    Keys are not among the rules: they are told apart by what stands in the rows.
    """
    event_at, known_at = dataset.event_at, dataset.known_at_column
    rules = [not_null(*dataset.keys), not_null(event_at)]
    if known_at != event_at:
        in_order = f'"{known_at}" >= "{event_at}"'
        rules += [not_null(known_at), expression(in_order, name=f"{known_at} not before {event_at}")]
    rules += [each for each in dataset.checks if each.kind != "rejected_share"]
    of_key = [each for each in rules if each.kind == "unique" and each.columns == dataset.keys]
    severity = Severity.BLOCK if any(each.severity is Severity.BLOCK for each in of_key) else Severity.REJECT
    others = {each.name: each for each in rules if each not in of_key}
    return list(others.values()), severity.value
