"""Rejected rows as JSON, read back into rows of a table."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pyarrow as pa

__all__ = ["read_payloads"]

_FLOATS = {"nan", "inf", "-inf"}


def read_payloads(payloads: Sequence[str], schema: pa.Schema) -> tuple[pa.Table, list[str]]:
    """Read rows that `noria.checks.verdicts.row_json` wrote, or that somebody has edited.

    Columns that a payload lacks are null; those that the schema lacks are left out.

    Returns
    -------
    rows
        One for each payload; all null where it could not be read.
    faults
        For each payload what is wrong with it; empty where nothing is.

    Examples
    --------
    >>> schema = pa.schema([("at", pa.timestamp("us", "UTC")), ("x", pa.float64())])
    >>> rows, faults = read_payloads(['{"at":"2013-01-01T00:00:00Z","x":"nan"}', "{"], schema)
    >>> rows["at"][0].as_py().year, faults[0], bool(faults[1])
    (2013, '', True)
    """
    rows: list[Mapping[str, Any]] = []
    faults: list[str] = []
    readers = {each.name: (_reader(each.type), str(each.type)) for each in schema}
    for payload in payloads:
        row, fault = _row(payload, readers)
        rows.append(row)
        faults.append(fault)
    columns = {}
    for each in schema:
        columns[each.name] = _column([row.get(each.name) for row in rows], each, rows, faults)
    return pa.table(columns, schema=schema), faults


def _row(payload: str, readers: Mapping[str, tuple[Callable[[Any], Any], str]]) -> tuple[dict[str, Any], str]:
    try:
        found = msgspec.json.decode(payload)
    except msgspec.DecodeError as err:
        return {}, f"the payload is no JSON ({err}): {payload[:80]}"
    if not isinstance(found, dict):
        return {}, f"the payload is no JSON object: {payload[:80]}"
    row = {}
    for name, (read, wanted) in readers.items():
        value = found.get(name)
        if value is None:
            continue
        try:
            row[name] = read(value)
        except (ValueError, TypeError, InvalidOperation, binascii.Error):
            return {}, f"column {name!r} is {value!r}, wanted {wanted}"
    return row, ""


def _column(values: list[Any], field: pa.Field, rows: list[Mapping[str, Any]], faults: list[str]) -> pa.Array:
    """Make one column; a value that its type cannot hold makes its row one that cannot be read."""
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        for place, value in enumerate(values):
            try:
                pa.array([value], field.type)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                faults[place] = faults[place] or f"column {field.name!r} is {value!r}, wanted {field.type}"
                values[place] = None
        return pa.array(values, field.type)


def _reader(kind: pa.DataType) -> Callable[[Any], Any]:  # noqa: PLR0911 - one line per family
    types = pa.types
    if types.is_floating(kind):
        return _number
    if types.is_integer(kind):
        return _whole
    if types.is_boolean(kind):
        return _bool
    if types.is_timestamp(kind):
        return lambda value: _instant(value, aware=kind.tz is not None)
    if types.is_date(kind):
        return date.fromisoformat
    if types.is_decimal(kind):
        return lambda value: Decimal(str(value))
    if types.is_binary(kind):
        return lambda value: base64.b64decode(value, validate=True)
    if types.is_list(kind):
        read = _reader(kind.value_type)
        return lambda value: [None if each is None else read(each) for each in _want(value, list)]
    if types.is_struct(kind):
        fields = {each.name: _reader(each.type) for each in kind}
        return lambda value: {
            name: None if (inner := _want(value, dict).get(name)) is None else read(inner)
            for name, read in fields.items()
        }
    return lambda value: _want(value, str)


def _want(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, str) and value not in _FLOATS:
        raise ValueError(value)
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _bool(value: Any) -> bool:
    return bool(_want(value, bool))


def _instant(value: Any, *, aware: bool) -> datetime:
    instant = datetime.fromisoformat(value)
    if not aware:
        return instant.replace(tzinfo=None)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
