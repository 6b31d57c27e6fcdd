"""Hold a batch against its contract: one DuckDB pass over all rules.

DuckDB evaluates a flag per rule and row and a hash per key; numpy then counts. Twin keys are found by
hash and confirmed by value, so a collision rejects nothing.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from noria.checks.declarations import Bound, Rule, Severity
from noria.errors import ConfigError

__all__ = [
    "REJECTED_SCHEMA",
    "BatchChecker",
    "BatchVerdict",
    "Finding",
    "TakenKeys",
    "check_batch",
    "row_json",
]

REJECTED_SCHEMA = pa.schema([("reason", pa.string()), ("payload", pa.string()), ("row", pa.int64())])

_ENCODER = msgspec.json.Encoder(order="deterministic")
_Flags = np.ndarray[Any, np.dtype[np.bool_]]
_Hashes = np.ndarray[Any, np.dtype[np.uint64]]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that did not hold."""

    rule: str
    severity: Severity
    failing: int
    share: float
    example: str  # the first failing row's values, as JSON


class TakenKeys(Protocol):
    """Knows the keys that are there already."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The key's columns."""
        ...

    def find(self, table: pa.Table, hashes: _Hashes) -> _Flags:
        """Say for each row of `table` whether its key is taken; `hashes` are those of the keys."""
        ...


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """What became of a batch.

    Attributes
    ----------
    accepted
        The rows that hold, in their order.
    rejected
        `reason`, `payload` (the row as JSON), `row` (its place in the batch).
    findings
        The rules that did not hold, as declared.
    reasons
        Why the batch is blocked: rule, value and limit. Empty if it is not.
    key_hashes
        Hashes of the accepted rows' keys, where keys were compared with a table.
    """

    accepted: pa.Table
    rejected: pa.Table
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    key_hashes: _Hashes | None = None

    @property
    def blocked(self) -> bool:
        """Whether nothing of it may be written."""
        return bool(self.reasons)


class BatchChecker:
    """Checks batches with one database connection, which makes small batches cheap. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._duckdb = duckdb.connect(":memory:", config={"threads": 1})
        self._duckdb.execute("set enable_external_access = false")
        self._duckdb.execute("set TimeZone = 'UTC'")

    def close(self) -> None:
        """Let go of the connection."""
        self._duckdb.close()

    def check(
        self,
        table: pa.Table,
        rules: Sequence[Rule],
        *,
        max_rejected_share: float,
        taken: TakenKeys | None = None,
    ) -> BatchVerdict:
        """Divide `table` into accepted and rejected rows, and say whether the batch is blocked.

        Parameters
        ----------
        table
            The batch.
        rules
            The contract.
        max_rejected_share
            Above this share of rejected rows the whole batch is blocked.
        taken
            Keys that no row may have again.

        Raises
        ------
        ConfigError
            If a rule does not fit the table: an unknown column, SQL that is none.
        """
        failing, hashes = self._evaluate(table, rules, taken)
        named = [*rules, _taken_rule(taken)] if taken else list(rules)
        findings = tuple(_findings(table, named, failing))
        bad = np.zeros(table.num_rows, dtype=bool)
        for rule, flags in zip(named, failing, strict=True):
            if rule.severity is not Severity.WARN:
                bad |= flags
        reasons = tuple(_reasons(findings, int(bad.sum()), table.num_rows, max_rejected_share))
        if not bad.any():
            return BatchVerdict(table, REJECTED_SCHEMA.empty_table(), findings, reasons, hashes)
        good = ~bad
        return BatchVerdict(
            table.filter(pa.array(good)),
            _rejected(table, named, failing, bad),
            findings,
            reasons,
            None if hashes is None else hashes[good],
        )

    def hash_keys(self, table: pa.Table, columns: Sequence[str]) -> _Hashes:
        """Give a 64-bit hash of `columns` for each row: equal values, equal hashes; in this process only."""
        return self._select(table, [f"hash({_listed(columns)}) as h"])["h"].astype(np.uint64, copy=False)

    def _evaluate(
        self, table: pa.Table, rules: Sequence[Rule], taken: TakenKeys | None
    ) -> tuple[list[_Flags], _Hashes | None]:
        for rule in rules:
            _want_columns(rule, table)
        parts = [
            _flag(rule, table.schema, f"f{place}")
            if rule.kind != "unique"
            else _keys(rule.columns, table, place)
            for place, rule in enumerate(rules)
        ]
        if taken:
            parts.append(_keys(taken.columns, table, len(rules)))
        if not parts:
            return [], None
        try:
            found = self._select(table, parts)
        except duckdb.Error as err:
            raise self._blame(table, rules, parts, err) from err
        failing: list[_Flags] = [
            np.zeros(table.num_rows, dtype=bool) if rule.kind == "unique" else found[f"f{place}"].astype(bool)
            for place, rule in enumerate(rules)
        ]
        otherwise_bad = np.zeros(table.num_rows, dtype=bool)
        for rule, flags in zip(rules, failing, strict=True):
            if rule.severity is not Severity.WARN:
                otherwise_bad |= flags
        for place, rule in enumerate(rules):
            if rule.kind == "unique":
                present = ~found[f"n{place}"].astype(bool)
                failing[place] = _twins(table, rule.columns, found[f"h{place}"], present, otherwise_bad)
        if not taken:
            return failing, None
        hashes = found[f"h{len(rules)}"].astype(np.uint64, copy=False)
        present = ~found[f"n{len(rules)}"].astype(bool)
        failing.append(taken.find(table, hashes) & present)
        return failing, hashes

    def _select(self, table: pa.Table, parts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        with self._guard:
            self._duckdb.register("batch", table)
            try:
                found = self._duckdb.execute(f"select {', '.join(parts)} from batch").fetchnumpy()
            finally:
                self._duckdb.unregister("batch")
        return {name: np.ma.getdata(column) for name, column in found.items()}

    def _blame(
        self, table: pa.Table, rules: Sequence[Rule], parts: Sequence[str], err: duckdb.Error
    ) -> ConfigError:
        for rule, part in zip(rules, parts, strict=False):
            try:
                self._select(table, [part])
            except duckdb.Error as own:
                types = ", ".join(f"{name} {table.schema.field(name).type}" for name in rule.columns)
                about = f" ({types})" if types else f" ({rule.sql})"
                return ConfigError(f"the check {rule.name}{about} cannot be evaluated: {_first_line(own)}")
        return ConfigError(f"the checks cannot be evaluated: {_first_line(err)}")


def check_batch(table: pa.Table, rules: Sequence[Rule], *, max_rejected_share: float) -> BatchVerdict:
    """Check one batch; `BatchChecker.check` is the same for many.

    Examples
    --------
    >>> from noria.checks.declarations import between
    >>> verdict = check_batch(pa.table({"x": [1, 99]}), [between("x", 0, 10)], max_rejected_share=0.5)
    >>> verdict.accepted["x"].to_pylist(), verdict.rejected["payload"].to_pylist(), verdict.blocked
    ([1], ['{"x":99}'], False)
    """
    checker = BatchChecker()
    try:
        return checker.check(table, rules, max_rejected_share=max_rejected_share)
    finally:
        checker.close()


def row_json(row: dict[str, Any]) -> str:
    """Write a row as JSON with sorted names; NaN and the infinities become texts."""
    return _ENCODER.encode({name: _jsonable(value) for name, value in row.items()}).decode()


def _jsonable(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_jsonable(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _jsonable(each) for name, each in value.items()}
    if value is None or isinstance(value, bool | int | float | str | bytes | datetime | date | Decimal):
        return value
    return str(value)


def _want_columns(rule: Rule, table: pa.Table) -> None:
    for name in rule.columns:
        if name not in table.column_names:
            raise ConfigError(
                f"the check {rule.name} speaks of column {name!r}, which the data lacks; "
                f"there is {', '.join(table.column_names)}"
            )


def _flag(rule: Rule, schema: pa.Schema, name: str) -> str:
    """Write the SQL that is true where `rule` fails."""
    column = _quoted(rule.columns[0]) if rule.columns else ""
    match rule.kind:
        case "between":
            sides = []
            if rule.low is not None:
                sides.append(f"{column} < {_literal(rule.low, instant=rule.instants)}")
            if rule.high is not None:
                sides.append(f"{column} > {_literal(rule.high, instant=rule.instants)}")
            if pa.types.is_floating(schema.field(rule.columns[0]).type):
                sides.append(f"isnan({column})")
            test = " or ".join(sides)
        case "not_null":
            test = " or ".join(_missing(each, schema) for each in rule.columns)
        case "one_of":
            test = f"{column} not in ({', '.join(_literal(value) for value in rule.values)})"
        case "matches":
            test = f"not regexp_full_match({column}::varchar, {_literal(rule.pattern or '')})"
        case "expression":
            test = f"not ({rule.sql})"
        case _:
            raise ConfigError(f"{rule.name}: no check is of kind {rule.kind!r}")
    return f"coalesce({test}, false) as {name}"


def _keys(columns: Sequence[str], table: pa.Table, place: int) -> str:
    missing = " or ".join(_missing(each, table.schema) for each in columns)
    return f"hash({_listed(columns)}) as h{place}, ({missing}) as n{place}"


def _missing(column: str, schema: pa.Schema) -> str:
    test = f"{_quoted(column)} is null"
    if pa.types.is_floating(schema.field(column).type):
        test += f" or coalesce(isnan({_quoted(column)}), false)"
    return f"({test})"


def _twins(table: pa.Table, columns: Sequence[str], hashes: _Hashes, present: _Flags, bad: _Flags) -> _Flags:
    """Flag every row but one of each key: the first that is otherwise good stays."""
    failing = np.zeros(table.num_rows, dtype=bool)
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    if not same.any():
        return failing
    suspects = np.zeros(table.num_rows, dtype=bool)
    suspects[order[1:][same]] = True
    suspects[order[:-1][same]] = True
    rows = np.flatnonzero(suspects & present)
    values = zip(*(table[name].take(pa.array(rows)).to_pylist() for name in columns), strict=True)
    keys = dict(zip(rows.tolist(), values, strict=True))
    stays: dict[tuple[object, ...], int] = {}
    for row in sorted(keys, key=lambda each: (bool(bad[each]), each)):
        if stays.setdefault(keys[row], row) != row:
            failing[row] = True
    return failing


def _taken_rule(taken: TakenKeys) -> Rule:
    return Rule(kind="taken", name=f"new_key({', '.join(taken.columns)})", columns=taken.columns)


def _findings(table: pa.Table, rules: Sequence[Rule], failing: Sequence[_Flags]) -> Iterator[Finding]:
    for rule, flags in zip(rules, failing, strict=True):
        count = int(flags.sum())
        if count:
            row = table.slice(int(flags.argmax()), 1)
            shown = row.select(list(rule.columns)) if rule.columns else row
            yield Finding(
                rule=rule.name,
                severity=rule.severity,
                failing=count,
                share=count / table.num_rows,
                example=row_json(shown.to_pylist()[0]),
            )


def _reasons(findings: Sequence[Finding], rejected: int, rows: int, limit: float) -> Iterator[str]:
    """Say why a batch is blocked, without a value of any row: reasons go into the ledger."""
    for finding in findings:
        if finding.severity is Severity.BLOCK:
            yield f"{finding.rule} fails for {finding.failing} of {rows} rows, it allows none"
    if rows and rejected / rows > limit:
        told = ", ".join(
            f"{each.rule} fails for {each.failing}" for each in findings if each.severity is not Severity.WARN
        )
        yield (
            f"{rejected} of {rows} rows ({rejected / rows:.1%}) break the contract, "
            f"at most {limit:.1%} may: {told}"
        )


def _rejected(table: pa.Table, rules: Sequence[Rule], failing: Sequence[_Flags], bad: _Flags) -> pa.Table:
    rows = np.flatnonzero(bad)
    reasons = [
        "; ".join(
            rule.name
            for rule, flags in zip(rules, failing, strict=True)
            if flags[row] and rule.severity is not Severity.WARN
        )
        for row in rows
    ]
    payloads = [row_json(row) for row in table.take(pa.array(rows)).to_pylist()]
    return pa.table({"reason": reasons, "payload": payloads, "row": rows}, schema=REJECTED_SCHEMA)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(_quoted, columns))


def _literal(value: Bound, *, instant: bool = False) -> str:
    if isinstance(value, bool | int | float):
        return repr(value) if not isinstance(value, bool) else str(value).lower()
    text = "'" + value.replace("'", "''") + "'"
    return f"timestamptz {text}" if instant else text


def _first_line(err: duckdb.Error) -> str:
    return str(err).strip().splitlines()[0]
