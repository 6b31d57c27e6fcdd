"""Columns of Arrow as a model's requests bring them: checked by type beforehand, by value row by row."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from noria.errors import SourceError
from noria.serving.binding import Bound, RequestColumn, RequestPlan
from noria.serving.logs.index import MAX_ID_BYTES

__all__ = ["Reasons", "bound_of", "check_columns", "columns_read", "ids_of", "instants_of", "wanted_types"]

Reasons = dict[int, str]  # row -> why it is rejected
_MICROS = pa.timestamp("us", "UTC")


def wanted_types(
    plan: RequestPlan, found: pa.Schema, *, also: Iterable[str], at: str | None, names: str | None
) -> pa.Schema:
    """Give the columns that are to be read of a source which has types of its own, or none (CSV, JSON).

    Parameters
    ----------
    found
        What its first rows look like.
    also
        Columns that go along; their types are those found.
    at
        The column of instants.
    names
        The column of ids.
    """
    fields: dict[str, pa.DataType] = {}
    for each in plan.columns:
        if each.name not in found.names:
            continue
        if each.is_text:
            kind = pa.string()
        elif pa.types.is_boolean(found.field(each.name).type):
            kind = pa.bool_()  # written as true and false, as a server takes them
        else:
            kind = pa.float64() if each.width == 1 else pa.list_(pa.float64())
        fields[each.name] = kind
    if at is not None and at in found.names:
        fields.setdefault(at, _MICROS)
    if names is not None and names in found.names:
        kind = found.field(names).type
        fields.setdefault(names, kind if pa.types.is_integer(kind) else pa.string())
    for name in also:
        if name in found.names:
            fields.setdefault(name, found.field(name).type)
    return pa.schema(list(fields.items()))


def check_columns(
    found: pa.Schema,
    plan: RequestPlan,
    *,
    source: str,
    model: str,
    id: str | None,
    at: str | None,
    keep: Sequence[str],
) -> None:
    """Refuse an input whose columns cannot be what the model reads, before anything is done.

    Raises
    ------
    SourceError
        Names all that is missing or of another kind, and what is wanted.
    """
    wrong: list[str] = []
    missing = [each.name for each in plan.columns if not each.optional and each.name not in found.names]
    if missing:
        wrong.append(f"lacks {', '.join(map(repr, missing))}")
    for name, option in ((id, "id"), (at, "at"), *((each, "keep") for each in keep)):
        if name is not None and name not in found.names:
            wrong.append(f"lacks {name!r}, which `{option}` names")
    for each in plan.columns:
        if each.name in found.names:
            kind = found.field(each.name).type
            if not (_is_text_like(kind) if each.is_text else _is_number_like(kind, each.width)):
                wrong.append(f"has {each.name!r} as {kind}, wanted is {_told(each)}")
    if id is not None and id in found.names and not _is_text_like(found.field(id).type):
        wrong.append(f"has the ids {id!r} as {found.field(id).type}, wanted are texts or whole numbers")
    if at is not None and at in found.names:
        kind = found.field(at).type
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            wrong.append(f"has the instants {at!r} as {kind}, wanted is a timestamp with a time zone")
    if wrong:
        there = ", ".join(found.names)
        raise SourceError(f"{source} {'; '.join(wrong)}. {plan.expected(model)}. Found {there}")


def bound_of(batch: pa.RecordBatch, plan: RequestPlan, reasons: Reasons) -> Bound:
    """Give rows as a server binds those of a request; of rows that cannot be, `reasons` says why."""
    rows = batch.num_rows
    numbers = np.empty((rows, plan.width))
    for each in plan.numbers:
        place = plan.places[each.name]
        column = _column(batch, each.name)
        if column is None or pa.types.is_null(column.type):
            numbers[:, place] = np.nan
        elif each.width == 1:
            numbers[:, place.start] = _floats(column)
        else:
            _put_vectors(numbers[:, place], column, each, reasons)
    texts: dict[str, list[str | None]] = {}
    for name in plan.texts:
        column = _column(batch, name)
        texts[name] = [None] * rows if column is None else _texts(column).to_pylist()
    return Bound(rows, numbers, texts)


def ids_of(batch: pa.RecordBatch, id: str | None, *, prefix: str, first: int, reasons: Reasons) -> pa.Array:
    """Give the id of each row: of its column, else the prefix and the row's number among all."""
    if id is None:
        numbers = pa.array(np.arange(first, first + batch.num_rows)).cast(pa.string())
        return pc.binary_join_element_wise(pa.scalar(f"{prefix}-"), numbers, "")
    found = _texts(batch.column(id))
    long = pc.greater(pc.binary_length(found), MAX_ID_BYTES)
    for mask, why in (
        (found.is_null(), f"has no {id!r}, which names its prediction"),
        (pc.equal(found, ""), f"has an empty {id!r}, which names its prediction"),
        (long, f"has a longer {id!r} than {MAX_ID_BYTES} bytes, which names its prediction"),
    ):
        for row in _rows(mask):
            reasons.setdefault(row, why)
    return found


def instants_of(batch: pa.RecordBatch, at: str, reasons: Reasons) -> pa.Array:
    """Give the instant of each row, microseconds; a row without one is rejected."""
    found = batch.column(at).cast(_MICROS, safe=False)
    for row in _rows(found.is_null()):
        reasons.setdefault(row, f"has no instant {at!r}")
    return found


def _rows(mask: pa.Array) -> list[int]:
    found: list[int] = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False)).tolist()
    return found


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    place = batch.schema.get_field_index(name)
    return None if place < 0 else batch.column(place)


def _floats(column: pa.Array) -> NDArray[np.float64]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if column.type != pa.float64():
        column = column.cast(pa.float64(), safe=False)  # as 2**53 + 1 in JSON becomes a float64
    found: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return found


def _put_vectors(
    target: NDArray[np.float64], column: pa.Array, wanted: RequestColumn, reasons: Reasons
) -> None:
    width = wanted.width
    target[:] = np.nan
    lengths = pc.list_value_length(column)
    for row in _rows(pc.not_equal(lengths, width)):
        reasons.setdefault(row, f"has {lengths[row].as_py()} numbers as {wanted.name!r}, wanted are {width}")
    whole = np.flatnonzero(pc.fill_null(pc.equal(lengths, width), False).to_numpy(zero_copy_only=False))
    if len(whole):
        values = pc.list_flatten(column.take(pa.array(whole)))
        target[whole] = _floats(values).reshape(len(whole), width)


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _is_number_like(kind: pa.DataType, width: int) -> bool:
    types: Any = pa.types
    if width > 1:
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(types.is_null(kind) or (is_list and _is_number_like(kind.value_type, 1)))
    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        test(kind)
        for test in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    )


def _is_text_like(kind: pa.DataType) -> bool:
    types: Any = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_null)
    return any(test(kind) for test in tests)


def _told(column: RequestColumn) -> str:
    if column.is_text:
        return "text, or whole numbers"
    return "a number" if column.width == 1 else f"a list of {column.width} numbers"


def columns_read(
    plan: RequestPlan, found: Iterable[str], *, id: str | None, at: str | None, keep: Sequence[str]
) -> list[str]:
    """Name the columns of an input that are read, in its order."""
    wanted: Mapping[str, None] = dict.fromkeys(
        [*plan.by_name, *keep, *(each for each in (id, at) if each is not None)]
    )
    return [each for each in found if each in wanted]
