"""Columns of values that came without datatypes, row by row or column by column; and answers row by row."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from noria.serving.binding import RequestPlan
from noria.serving.requests import (
    PREDICTION_ID,
    BadRequestError,
    Column,
    InferRequest,
    OutputColumn,
    shown,
    too_many_rows,
)

__all__ = [
    "check_rows",
    "column_of",
    "named_request",
    "of_columns",
    "of_records",
    "of_rows",
    "recalled",
    "recalled_records",
    "values_by_row",
]

_MOST_COLUMNS = 10_000  # of a request that fits no model here
_NONE = type(None)
_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1


def of_columns(
    columns: Mapping[str, Sequence[Any]], plan: RequestPlan, *, name: str, max_rows: int
) -> InferRequest:
    """Give the request whose columns have these values.

    Parameters
    ----------
    columns
        By name, one value a row; a vector is a list. One called `prediction_id` holds the ids of the rows.
    plan
        What the target takes.
    name
        Of the target, for messages.
    max_rows
        More are refused.

    Raises
    ------
    BadRequestError
        If there is no such column, or its values are of several kinds or lengths.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise BadRequestError("the columns are not of the same length")
    rows = check_rows(lengths.pop() if lengths else 0, max_rows)
    try:
        for each in columns:
            _check_known(each, plan, name)
    except BadRequestError as err:
        return recalled(columns, rows=rows, misfit=err)
    return named_request(
        {each: column_of(each, values, width=_width(each, plan)) for each, values in columns.items()},
        rows=rows,
    )


def of_records(
    records: Sequence[Mapping[str, Any]], plan: RequestPlan, *, name: str, max_rows: int
) -> InferRequest:
    """Give the request whose rows are these; a name that a row does not have is missing there.

    Raises
    ------
    BadRequestError
        As `of_columns`.
    """
    check_rows(len(records), max_rows)
    names: dict[str, None] = {}
    try:
        for record in records:
            for each in record:
                if each not in names:
                    _check_known(each, plan, name)
                    names[each] = None
    except BadRequestError as err:
        return recalled_records(records, misfit=err)
    columns = {each: [record.get(each) for record in records] for each in names}
    if not columns:
        raise BadRequestError(f"the rows have no fields; {plan.expected(name)}")
    return of_columns(columns, plan, name=name, max_rows=max_rows)


def of_rows(rows: Sequence[Sequence[Any]], plan: RequestPlan, *, name: str, max_rows: int) -> InferRequest:
    """Give the request whose rows hold the columns in the order in which the target reads them.

    Raises
    ------
    BadRequestError
        If the rows are not of one length, or their values of several kinds.
    """
    count = check_rows(len(rows), max_rows)
    lengths = set(map(len, rows))
    width = lengths.pop()
    if lengths or not width:
        raise BadRequestError(f"the rows are empty or not of the same length; {plan.expected(name)}")
    if not plan.texts and (plan.is_flat or len(plan.columns) == 1):
        if width != plan.width:
            raise BadRequestError(f"the rows have {width} values; {plan.expected(name)}")
        whole = _scalars("the rows", list(chain.from_iterable(rows)))
        return InferRequest(count, {}, positional=(Column(whole.datatype, whole.values, width),))
    if width != len(plan.columns):
        raise BadRequestError(f"the rows have {width} values; {plan.expected(name)}")
    columns = tuple(
        column_of(each.name, values, width=each.width)
        for each, values in zip(plan.columns, zip(*rows, strict=True), strict=True)
    )
    return InferRequest(count, {}, positional=columns)


def named_request(columns: dict[str, Column], *, rows: int, at: int | None = None) -> InferRequest:
    """Give the request of these columns, of which one may hold the prediction ids.

    Raises
    ------
    BadRequestError
        If the ids are no texts, or one is empty.
    """
    ids = columns.pop(PREDICTION_ID, None)
    if ids is not None and not (ids.is_text and ids.width == 1 and all(ids.values)):
        raise BadRequestError(
            f"'{PREDICTION_ID}' holds texts, one for each row and none of them empty; give it for all rows "
            "or for none"
        )
    return InferRequest(rows, columns, prediction_ids=None if ids is None else list(ids.values), at=at)


def recalled(
    columns: Mapping[str, Sequence[Any]], *, rows: int, misfit: BadRequestError, at: int | None = None
) -> InferRequest:
    """Give a request that may be a retry of what an earlier version answered, whose columns were others.

    Parameters
    ----------
    misfit
        Why it does not fit the target.

    Raises
    ------
    BadRequestError
        `misfit` where no prediction ids came with it, by which an answer could be found, or where no model
        can have answered it.
    """
    if PREDICTION_ID not in columns or len(columns) > _MOST_COLUMNS:
        raise misfit
    try:
        read = {
            name: column_of(name, values, width=_width_of(values, misfit)) for name, values in columns.items()
        }
        asked = named_request(read, rows=rows, at=at)
    except BadRequestError:
        raise misfit from None
    return msgspec.structs.replace(asked, misfit=str(misfit))


def _width_of(values: Sequence[Any], misfit: BadRequestError) -> int:
    """Give how long the lists of a column are. Where some rows have none it would grow beyond what came."""
    if not any(type(each) is list for each in values):
        return 1
    if any(type(each) is not list for each in values) or not values[0]:
        raise misfit
    return len(values[0])


def recalled_records(
    records: Sequence[Mapping[str, Any]], *, misfit: BadRequestError, at: int | None = None
) -> InferRequest:
    """Give a request as `recalled` does, of rows that all have the same names."""
    names = records[0].keys()
    if any(each.keys() != names for each in records):
        raise misfit
    columns = {each: [record[each] for record in records] for each in names}
    return recalled(columns, rows=len(records), misfit=misfit, at=at)


def column_of(name: str, values: Sequence[Any], *, width: int = 1) -> Column:
    """Give the column of one value a row, None where it is missing.

    Parameters
    ----------
    name
        Of the column, for messages.
    values
        Numbers, booleans, texts; or a list of `width` of them for each row.
    width
        That is wanted; a list of one value is that value.

    Raises
    ------
    BadRequestError
        If they are of several kinds, or lists of another length.
    """
    if list not in set(map(type, values)):
        if width > 1 and any(each is not None for each in values):
            raise BadRequestError(f"column {shown(name)} is of lists of {width} numbers; it holds others")
        return _scalars(
            f"column {shown(name)}", list(values) if width == 1 else [None] * len(values) * width, width
        )
    missing = [None] * width
    lists = [missing if each is None else each for each in values]
    if any(type(each) is not list or len(each) != width for each in lists):
        wanted = f"a list of {width} numbers" if width > 1 else "one value"
        raise BadRequestError(f"column {shown(name)} holds lists of another length; wanted is {wanted} a row")
    return _scalars(f"column {shown(name)}", list(chain.from_iterable(lists)), width)


def values_by_row(column: OutputColumn) -> Sequence[Any]:
    """Give the values of an output row by row, a list for each row where it is a vector."""
    width, values = column.width, column.values
    if not width:
        return values
    return [values[start : start + width] for start in range(0, len(values), width)]


def check_rows(rows: int, max_rows: int) -> int:
    """Give how many rows there are, if these may be.

    Raises
    ------
    RequestError
        400 if there is none, 413 if there are more than `max_rows`.
    """
    if not rows:
        raise BadRequestError("there are no rows; at least one is needed")
    if rows > max_rows:
        raise too_many_rows(rows, max_rows)
    return rows


def _scalars(what: str, values: list[Any], width: int = 1) -> Column:
    kinds = set(map(type, values)) - {_NONE}
    match sorted(each.__name__ for each in kinds):
        case []:
            return Column("FP64", values, width)
        case ["str"]:
            return Column("BYTES", values, width)
        case ["bool"]:
            return Column("BOOL", values, width)
        case ["int"] if all(each is None or _MIN_INT64 <= each <= _MAX_INT64 for each in values):
            return Column("INT64", values, width)
        case ["int"] | ["float"] | ["float", "int"]:
            try:
                return Column("FP64", [None if each is None else float(each) for each in values], width)
            except OverflowError as err:
                raise BadRequestError(f"{what}: a number is outside of FP64") from err
    found = ", ".join(sorted(_WORDS.get(each, "objects or lists") for each in kinds))
    raise BadRequestError(f"{what}: values are of one kind, number, boolean or text; found {found}")


_WORDS = {str: "texts", bool: "booleans", int: "numbers", float: "fractions"}


def _check_known(column: str, plan: RequestPlan, name: str) -> None:
    if column not in plan.by_name and column != PREDICTION_ID:
        raise BadRequestError(f"there is no input {shown(column)}; {plan.expected(name)}")


def _width(column: str, plan: RequestPlan) -> int:
    wanted = plan.by_name.get(column)
    return wanted.width if wanted else 1
