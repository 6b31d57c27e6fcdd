"""`POST /models/NAME/predict`, for people: named fields in, named values out."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from noria.serving.binding import RequestColumn, RequestPlan
from noria.serving.requests import (
    PREDICTION_ID,
    BadRequestError,
    InferRequest,
    OutputColumn,
    Prediction,
    shown,
)
from noria.serving.wire.json_bodies import decode_body
from noria.serving.wire.named_values import (
    check_rows,
    column_of,
    named_request,
    recalled_records,
    values_by_row,
)
from noria.serving.wire.oip import MAX_ROWS, read_instant

__all__ = ["ROWS", "encode_answer", "kind_of", "parse_request"]

ROWS = "rows"
_AT = "at"
_EITHER = "true or false"
_DECODER = msgspec.json.Decoder(dict[str, Any])
_NUMBERS = frozenset((int, float))


def parse_request(
    body: bytes, plan: RequestPlan, *, name: str, max_rows: int = MAX_ROWS
) -> tuple[InferRequest, bool]:
    """Read one row, an object of named fields, or several: an object whose `rows` are such objects.

    A row may have a `prediction_id`, the whole an instant `at`; where the model has a column of that name,
    the name is the column's.

    Parameters
    ----------
    body
        JSON.
    plan, name
        What the target takes, and what it is called.
    max_rows
        More are refused.

    Returns
    -------
    tuple of InferRequest and bool
        The request, and whether it is one row that is answered by one object.

    Raises
    ------
    BadRequestError
        If a field is unknown, missing or of another kind; the message says what the model wants.
    """
    given = decode_body(_DECODER, body, what="no JSON object of fields")
    rows = given.get(ROWS)
    is_single = not isinstance(rows, list) or (
        ROWS in plan.by_name and not isinstance(next(iter(rows), 0), dict)
    )
    at = None if _AT in plan.by_name else given.pop(_AT, None)
    if is_single:
        rows = [given]
    else:
        if len(given) > 1:
            other = next(each for each in given if each != ROWS)
            raise BadRequestError(f"beside `rows` there is only `at`; found {shown(other)}")
        assert isinstance(rows, list)
        check_rows(len(rows), max_rows)
    try:
        for number, row in enumerate(rows, 1):
            _check_row(row, plan, name=name, where="" if is_single else f"row {number}: ")
    except BadRequestError as err:
        if PREDICTION_ID in plan.by_name or not all(isinstance(each, dict) for each in rows):
            raise
        return recalled_records(rows, misfit=err, at=read_instant(at)), is_single
    columns = {
        each.name: column_of(each.name, [row.get(each.name) for row in rows], width=each.width)
        for each in plan.columns
    }
    if PREDICTION_ID not in plan.by_name and any(PREDICTION_ID in row for row in rows):
        columns[PREDICTION_ID] = column_of(PREDICTION_ID, [row.get(PREDICTION_ID) for row in rows])
    return named_request(columns, rows=len(rows), at=read_instant(at)), is_single


def encode_answer(prediction: Prediction, *, is_single: bool) -> bytes:
    """Write the answer: an object for one row, else `rows` of them. Vectors with labels go by label."""
    columns = [_values(each) for each in prediction.outputs]
    names = [*(each.name for each in prediction.outputs), PREDICTION_ID, "release", "version"]
    told = (prediction.ids, prediction.releases, prediction.versions)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, *told, strict=True)]
    answer: dict[str, Any] = rows[0] if is_single else {ROWS: rows}
    if prediction.defaulted:
        answer["defaulted"] = list(prediction.defaulted) if is_single else dict(prediction.defaulted)
    if prediction.stale:
        answer["stale"] = dict(prediction.stale)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def kind_of(column: RequestColumn) -> str:
    """Say in a word or two what a column wants."""
    kind = "text" if column.is_text else _EITHER if column.datatype == "BOOL" else "number"
    return kind if column.width == 1 else f"list of {column.width} numbers"


def _check_row(row: object, plan: RequestPlan, *, name: str, where: str) -> None:
    if not isinstance(row, dict):
        raise BadRequestError(f"{where}a row is a JSON object; {_wants(plan, name)}")
    for field in row:
        if field not in plan.by_name and field != PREDICTION_ID:
            raise BadRequestError(f"{where}there is no field {shown(field)}; {_wants(plan, name)}")
    for column in plan.columns:
        if column.name in row:
            if not _fits(row[column.name], column):
                kind = kind_of(column)
                taken = kind if kind == _EITHER else f"a {kind}"
                raise BadRequestError(
                    f"{where}field {shown(column.name)} takes {taken} or null; {_wants(plan, name)}"
                )
        elif not column.optional:
            raise BadRequestError(f"{where}field {shown(column.name)} is missing; {_wants(plan, name)}")


def _fits(value: object, column: RequestColumn) -> bool:
    if value is None:
        return True
    if column.is_text:
        return type(value) is str
    if column.width > 1:
        return (
            type(value) is list
            and len(value) == column.width
            and all(each is None or type(each) in _NUMBERS for each in value)
        )
    return type(value) in _NUMBERS or (type(value) is bool and column.datatype == "BOOL")


def _wants(plan: RequestPlan, name: str) -> str:
    fields = [
        f"{each.name} ({kind_of(each)}{', optional' if each.optional else ''})" for each in plan.columns
    ]
    return f"{shown(name)} wants {', '.join(fields) or 'no fields'}"


def _values(column: OutputColumn) -> Sequence[Any] | list[Mapping[str, Any]]:
    rows = values_by_row(column)
    if not column.labels:
        return rows
    return [dict(zip(column.labels, row, strict=True)) for row in rows]
