"""Rows as CSV: a header row, values quoted where need be, an empty one missing."""

import csv
import io
import math
from collections.abc import Sequence
from contextlib import suppress

from noria.serving.binding import RequestColumn, RequestPlan
from noria.serving.requests import PREDICTION_ID, BadRequestError, Column, InferRequest, shown
from noria.serving.wire.named_values import check_rows, named_request, recalled

__all__ = ["parse_csv"]

_BOOLEANS = {"true": 1.0, "false": 0.0}


def parse_csv(body: bytes, plan: RequestPlan, *, name: str, max_rows: int) -> InferRequest:
    """Read rows whose types are those that the target takes.

    Parameters
    ----------
    body
        UTF-8, with or without a byte order mark.
    plan
        What the target takes.
    name
        Of the target, for messages.
    max_rows
        More are refused.

    Raises
    ------
    BadRequestError
        If it is no CSV, a name is unknown or there twice, or a value is no number where one is wanted. The
        message names line and column, never the value.
    """
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, [])
        rows: list[list[str]] = []
        for row in lines:
            if row:
                rows.append(row)
                check_rows(len(rows), max_rows)
            if row and len(row) != len(header):
                raise BadRequestError(
                    f"line {lines.line_num} has {len(row)} values, the header {len(header)}"
                )
    except UnicodeDecodeError as err:
        raise BadRequestError("the CSV is not UTF-8") from err
    except csv.Error as err:
        raise BadRequestError(f"the body is no CSV: {err}") from err
    check_rows(len(rows), max_rows)
    if len(set(header)) < len(header):
        raise BadRequestError("a column is there twice in the header")
    columns: dict[str, Column] = {}
    for column, values in zip(header, zip(*rows, strict=True), strict=True):
        wanted = plan.by_name.get(column)
        if column != PREDICTION_ID and wanted is None:
            misfit = BadRequestError(f"there is no input {shown(column)}; {plan.expected(name)}")
            return recalled(_guessed(header, rows), rows=len(rows), misfit=misfit)
        if wanted is None or wanted.is_text:
            columns[column] = Column("BYTES", [each or None for each in values])
        else:
            columns[column] = Column("FP64", _numbers(wanted, values))
    return named_request(columns, rows=len(rows))


def _guessed(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Sequence[str | float | None]]:
    """Give the values of columns of which nobody says what they hold: numbers where all are, else texts."""
    found: dict[str, Sequence[str | float | None]] = {}
    for name, values in zip(header, zip(*rows, strict=True), strict=True):
        found[name] = [each or None for each in values]
        if name != PREDICTION_ID:
            with suppress(BadRequestError):
                found[name] = _numbers(RequestColumn(name, is_text=False), values)
    return found


def _numbers(column: RequestColumn, values: Sequence[str]) -> list[float | None]:
    if column.width > 1:
        raise BadRequestError(f"input {shown(column.name)} is a vector, which CSV cannot hold; send JSON")
    found: list[float | None] = []
    for row, value in enumerate(values, 1):
        text = value.strip().lower()
        try:
            number = None if not text else _BOOLEANS.get(text)
            if number is None and text:
                number = float(text)
            if "_" in text or (number is not None and math.isinf(number)):
                raise ValueError
        except ValueError:
            raise BadRequestError(
                f"row {row} of input {shown(column.name)} is no number; an empty value is missing"
            ) from None
        found.append(number)
    return found
