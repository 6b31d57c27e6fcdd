"""One batch that is being checked, piece by piece.

Rules are judged in three stages, so that the order of pieces is all that counts: rules about one row; then
`increasing`, which looks at the rows before; then `unique`, for which a row that breaks any rule takes no
key. Kernels tell what they can (`noria.checks.proofs`), DuckDB evaluates a flag for
every other rule and row (`noria.checks.sql`), rules about the batch as a whole see what is accepted
(`noria.checks.whole`).
"""

from collections.abc import Collection, Sequence
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa

from noria.checks.declarations import Rule, Severity
from noria.checks.evaluator import Evaluator, first_line
from noria.checks.growing import Growing
from noria.checks.keys import PieceKeys, settle
from noria.checks.proofs import Columns
from noria.checks.references import References
from noria.checks.seen import SeenKeys, is_exact
from noria.checks.sql import failing_sql, hash_sql
from noria.checks.surroundings import Surroundings
from noria.checks.verdicts import (
    REJECTED_SCHEMA,
    BatchOutcome,
    Finding,
    Flags,
    Hashes,
    PieceVerdict,
    blocking_reasons,
    rejected_rows,
    row_json,
)
from noria.checks.whole import WholeRule, watch
from noria.errors import ConfigError

__all__ = ["Checking"]

_Key = tuple[str, ...]


class Checking:
    """A batch that is being checked. One thread at a time; made by `BatchChecker.begin`."""

    def __init__(
        self,
        evaluator: Evaluator,
        rules: Sequence[Rule],
        *,
        max_rejected_share: float,
        surroundings: Surroundings | None,
        added: Collection[str] = (),
    ) -> None:
        self._evaluator = evaluator
        self._added = added
        self._limit = max_rejected_share
        self._rules = list(rules)
        self._whole: dict[int, WholeRule] = {}
        self._references: dict[int, References] = {}
        self._growing: dict[int, Growing] = {}
        self._seen: dict[int, SeenKeys] = {}
        for place, rule in enumerate(self._rules):
            if rule.about_batch:
                self._whole[place] = watch(rule, evaluator, surroundings)
            elif rule.kind == "references":
                self._references[place] = References(rule, evaluator, _wanted(surroundings, rule))
            elif rule.kind == "increasing":
                self._growing[place] = Growing(rule)
            elif rule.kind == "expression":
                _want_about_a_row(rule, evaluator)
        self._failing = [0] * len(self._rules)
        self._examples = [""] * len(self._rules)
        self._firsts: dict[int, int] = {}
        self._rows = 0
        self._rejected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what it kept; `finish` does so too."""
        for seen in self._seen.values():
            seen.close()
        for whole in self._whole.values():
            whole.close()

    def piece(self, table: pa.Table, *, first_row: int | None = None) -> PieceVerdict:
        """Divide the next rows of the batch into accepted and rejected ones.

        Parameters
        ----------
        table
            The rows; every piece has the same columns and types.
        first_row
            The place of the first of them in the batch, by default after those that came before.

        Raises
        ------
        ConfigError
            If a rule does not fit the table: an unknown column, a type it cannot judge.
        """
        for rule in self._rules:
            _want_columns(rule, table)
        at = self._rows if first_row is None else first_row
        failing = self._evaluate(table)
        bad = np.zeros(table.num_rows, dtype=bool)
        for place, flags in failing.items():
            count = int(np.count_nonzero(flags))
            if count:
                rule = self._rules[place]
                if not self._failing[place]:
                    self._examples[place] = _example(table, rule, int(flags.argmax()))
                    self._firsts[place] = at + int(flags.argmax())
                self._failing[place] += count
                if rule.severity is not Severity.WARN:
                    bad |= flags
        rejected = int(np.count_nonzero(bad))
        self._rows += table.num_rows
        self._rejected += rejected
        if not rejected:
            verdict = PieceVerdict(table, REJECTED_SCHEMA.empty_table())
        else:
            good = ~bad
            named = [(self._rules[place], failing[place]) for place in sorted(failing)]
            verdict = PieceVerdict(
                table.filter(pa.array(good)),
                rejected_rows(table, named, bad, first_row=at, added=self._added),
            )
        for whole in self._whole.values():
            whole.piece(verdict.accepted)
        return verdict

    def finish(self, *, unreadable: int = 0) -> BatchOutcome:
        """Say what the pieces came to.

        Parameters
        ----------
        unreadable
            How many rows of the batch could not even be read: they count among the rejected.
        """
        rows, rejected = self._rows + unreadable, self._rejected + unreadable
        findings = tuple(
            finding for place in range(len(self._rules)) if (finding := self._finding(place, rows))
        )
        self.close()
        reasons = tuple(
            blocking_reasons(findings, rejected=rejected, rows=rows, unreadable=unreadable, limit=self._limit)
        )
        return BatchOutcome(rows, rejected, findings, reasons)

    def _finding(self, place: int, rows: int) -> Finding | None:
        rule, failing, example, detail = self._rules[place], self._failing[place], self._examples[place], ""
        if place in self._whole and rows:
            found = self._whole[place].finish(rows)
            if found is not None:
                failing, example, detail = rows, found.example, found.detail
        if not failing:
            return None
        return Finding(
            rule=rule.name,
            severity=rule.severity,
            failing=failing,
            share=failing / rows,
            example=example,
            detail=detail,
            row=None if detail else self._firsts.get(place),
        )

    def _evaluate(self, table: pa.Table) -> dict[int, Flags]:
        """Say which rows fail which rule."""
        columns = Columns(table)
        failing, hashes = self._by_row(table, columns)
        bad = np.zeros(table.num_rows, dtype=bool)
        for place, flags in failing.items():
            if self._rules[place].severity is not Severity.WARN:
                bad |= flags
        for place, growing in self._growing.items():
            failing[place] = flags = growing.failing(table, bad)
            if self._rules[place].severity is not Severity.WARN:
                bad = bad | flags
        return failing | self._repeated(table, columns, hashes, bad)

    def _by_row(self, table: pa.Table, columns: Columns) -> tuple[dict[int, Flags], dict[_Key, Hashes]]:
        """Judge the rules about single rows, and hash the keys: whatever SQL is needed is one query."""
        failing: dict[int, Flags] = {}
        parts: dict[int | _Key, str] = {}
        for place, rule in enumerate(self._rules):
            if rule.kind == "unique":
                if not is_exact(rule.columns, table.schema):
                    parts[rule.columns] = hash_sql(rule.columns)
            elif place in self._references:
                failing[place] = self._not_there(place, table)
            elif place not in self._whole and place not in self._growing:
                told = _by_kernels(columns, rule, table)
                if told is None:
                    parts[place] = f"({failing_sql(rule, table.schema)}) is true"
                else:
                    failing[place] = told
        hashes: dict[_Key, Hashes] = {}
        for what, found in self._select(table, parts).items():
            if isinstance(what, int):
                failing[what] = found.astype(bool, copy=False)
            else:
                hashes[what] = found.astype(np.uint64, copy=False)
        return failing, hashes

    def _not_there(self, place: int, table: pa.Table) -> Flags:
        try:
            return self._references[place].failing(table)
        except (duckdb.Error, pa.ArrowInvalid) as err:
            raise _unfit(self._rules[place], table, err) from err

    def _repeated(
        self, table: pa.Table, columns: Columns, hashes: dict[_Key, Hashes], bad: Flags
    ) -> dict[int, Flags]:
        """Flag the rows whose key an earlier row has that was kept, for each `unique`."""
        uniques = {place: rule for place, rule in enumerate(self._rules) if rule.kind == "unique"}
        keys: dict[int, PieceKeys] = {}
        for place, rule in uniques.items():
            keys[place] = PieceKeys(table, columns, rule, hashes.get(rule.columns), self._evaluator)
            if place not in self._seen:
                exact = keys[place].exact
                hasher = None if exact else self._evaluator.hasher(rule.columns)
                self._seen[place] = SeenKeys(rule.columns, hasher)
            keys[place].compare(self._seen[place])
        flags, lost = settle(keys, bad)
        for place, mine in keys.items():
            self._seen[place].add(*mine.kept(lost))
        return flags

    def _select(
        self, table: pa.Table, parts: dict[int | _Key, str]
    ) -> dict[int | _Key, np.ndarray[Any, Any]]:
        if not parts:
            return {}
        named = [f"{sql} as c{at}" for at, sql in enumerate(parts.values())]
        try:
            found = self._evaluator.select(table, named)
        except duckdb.Error as err:
            raise self._blame(table, parts, err) from err
        return {what: found[f"c{at}"] for at, what in enumerate(parts)}

    def _blame(self, table: pa.Table, parts: dict[int | _Key, str], err: duckdb.Error) -> ConfigError:
        for place, part in parts.items():
            if isinstance(place, int):
                try:
                    self._evaluator.select(table, [part])
                except duckdb.Error as own:
                    return _unfit(self._rules[place], table, own)
        return ConfigError(f"the checks cannot be evaluated: {first_line(err)}")


def _by_kernels(columns: Columns, rule: Rule, table: pa.Table) -> Flags | None:
    try:
        return columns.failing(rule)
    except pa.ArrowInvalid as err:
        raise _unfit(rule, table, err) from err


def _wanted(surroundings: Surroundings | None, rule: Rule) -> Surroundings:
    if surroundings is None:
        raise ConfigError(
            f"the check {rule.name} looks into another dataset, which only an ingest can; "
            "leave it out where rows are checked by themselves"
        )
    return surroundings


def _want_about_a_row(rule: Rule, evaluator: Evaluator) -> None:
    for node in evaluator.nodes(rule.sql or "", what=rule.name):
        aggregates = node["class"] == "FUNCTION" and node["function_name"] in evaluator.aggregates
        if aggregates or node["class"] in {"SUBQUERY", "WINDOW"}:
            raise ConfigError(
                f"the check {rule.name} ({rule.sql}) looks at more than one row; `expression` is about each "
                "row by itself, `aggregate` about all of a batch"
            )


def _want_columns(rule: Rule, table: pa.Table) -> None:
    for name in rule.columns:
        if name not in table.column_names:
            raise ConfigError(
                f"the check {rule.name} speaks of column {name!r}, which the data lacks; "
                f"there is {', '.join(table.column_names)}"
            )


def _unfit(rule: Rule, table: pa.Table, err: Exception) -> ConfigError:
    types = ", ".join(f"{name} {table.schema.field(name).type}" for name in rule.columns)
    about = f" ({types})" if types else f" ({rule.sql})"
    return ConfigError(f"the check {rule.name}{about} cannot be evaluated: {first_line(err)}")


def _example(table: pa.Table, rule: Rule, row: int) -> str:
    shown = table.slice(row, 1)
    return row_json((shown.select(list(rule.columns)) if rule.columns else shown).to_pylist()[0])
