"""What checking says: findings, rows accepted and set aside, reasons why a batch is blocked."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from noria.checks.declarations import Rule, Severity

__all__ = [
    "REJECTED_SCHEMA",
    "BatchOutcome",
    "BatchVerdict",
    "Finding",
    "Flags",
    "Hashes",
    "PieceVerdict",
    "blocking_reasons",
    "rejected_rows",
    "row_json",
    "row_jsons",
]

REJECTED_SCHEMA = pa.schema([("reason", pa.string()), ("payload", pa.string()), ("row", pa.int64())])

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_ENCODER = msgspec.json.Encoder(order="deterministic")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that did not hold."""

    rule: str
    severity: Severity
    failing: int  # rows; all of them where the rule is about the batch as a whole
    share: float
    example: str  # the first failing row's values, or what the batch came to, as JSON
    detail: str = ""  # of a rule about the batch: what was found and wanted, without a value of any row
    row: int | None = None  # the first failing row's place among all that came, from 0
    where: str = ""  # its place in the file that it came in, as people find it: "line 7"


@dataclass(frozen=True, slots=True)
class PieceVerdict:
    """What became of one piece of a batch.

    Attributes
    ----------
    accepted
        The rows that hold, in their order.
    rejected
        `reason`, `payload` (the row as JSON), `row` (its place in the batch).
    """

    accepted: pa.Table
    rejected: pa.Table


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What the pieces came to.

    Attributes
    ----------
    rows, rejected
        How many came, and how many of them were set aside; rows that could not be read are in both.
    findings
        The rules that did not hold, as declared.
    reasons
        Why the batch is blocked: rule, value and limit. Empty if it is not.
    """

    rows: int
    rejected: int
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]

    @property
    def blocked(self) -> bool:
        """Whether nothing of it may be written."""
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """What became of a batch that was checked in one piece.

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
    """

    accepted: pa.Table
    rejected: pa.Table
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]

    @property
    def blocked(self) -> bool:
        """Whether nothing of it may be written."""
        return bool(self.reasons)


def row_json(row: Mapping[str, Any]) -> str:
    """Write a row as JSON with sorted names; NaN and the infinities become texts."""
    return _ENCODER.encode({name: _jsonable(value) for name, value in row.items()}).decode()


def row_jsons(table: pa.Table) -> list[str]:
    """Write each row as `row_json` does, column by column first, which is faster."""
    names = sorted(table.column_names)
    columns = [_jsonable_column(table[name]) for name in names]
    encode = _ENCODER.encode
    return [encode(dict(zip(names, row, strict=True))).decode() for row in zip(*columns, strict=True)]


def _jsonable_column(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    kind, types = column.type, pa.types
    plain = types.is_integer(kind) or types.is_boolean(kind) or types.is_string(kind)
    if plain or types.is_timestamp(kind) or types.is_date(kind):
        return values
    if types.is_floating(kind) and bool(pc.all(pc.is_finite(column)).as_py()):
        return values
    return list(map(_jsonable, values))


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


def rejected_rows(
    table: pa.Table,
    failing: Sequence[tuple[Rule, Flags]],
    bad: Flags,
    *,
    first_row: int,
    added: Collection[str] = (),
) -> pa.Table:
    """Give the rows of `table` that are `bad`, each with the names of the rules that it breaks.

    `added`: columns that did not come with the rows, and are no part of what is kept of them.
    """
    rows = np.flatnonzero(bad)
    came = table.select([each for each in table.column_names if each not in added])
    columns = {"reason": _reasons(failing, rows), "payload": row_jsons(came.take(pa.array(rows)))}
    return pa.table({**columns, "row": rows + first_row}, schema=REJECTED_SCHEMA)


def _reasons(failing: Sequence[tuple[Rule, Flags]], rows: np.ndarray[Any, Any]) -> list[str]:
    """Name the rules that each of `rows` breaks; rows that break the same share their text."""
    counted = [(rule.name, flags[rows]) for rule, flags in failing if rule.severity is not Severity.WARN]
    counted = [(name, flags) for name, flags in counted if flags.any()]
    if len(counted) == 1:
        return [counted[0][0]] * len(rows)
    broken = np.array([flags for _, flags in counted]).T
    which, of_row = np.unique(broken, axis=0, return_inverse=True)
    texts = [
        "; ".join(name for (name, _), breaks in zip(counted, each, strict=True) if breaks) for each in which
    ]
    return [texts[each] for each in of_row.tolist()]


def blocking_reasons(
    findings: Sequence[Finding], *, rejected: int, rows: int, unreadable: int, limit: float
) -> Iterator[str]:
    """Say why a batch is blocked, without a value of any row: reasons go into the ledger."""
    for finding in findings:
        if finding.severity is not Severity.BLOCK:
            continue
        if finding.detail:
            yield f"{finding.rule} does not hold: {finding.detail}"
        else:
            yield f"{finding.rule} fails for {finding.failing} of {rows} rows, it allows none"
    if rows and rejected / rows > limit:
        told = [f"{each.rule} fails for {each.failing}" for each in findings if _sets_aside(each)]
        if unreadable:
            told.append(f"{unreadable} could not be read")
        yield (
            f"{rejected} of {rows} rows ({rejected / rows:.1%}) break the contract, "
            f"at most {limit:.1%} may: {', '.join(told)}"
        )


def _sets_aside(finding: Finding) -> bool:
    return finding.severity is not Severity.WARN and not finding.detail
