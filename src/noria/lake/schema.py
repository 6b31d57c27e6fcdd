"""Bring a frame to a table's columns and types, losing nothing on the way."""

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import heed_time_zones
from noria.errors import ConfigError, SourceError
from noria.lake.declarations import Dataset

__all__ = [
    "DEEPEST",
    "INSTANT",
    "REPLACED_AT",
    "as_table",
    "beyond_calendar",
    "conform",
    "declared_schema",
    "depth",
    "fill",
    "merged_type",
    "plain_table",
    "storable_schema",
]

INSTANT = pa.timestamp("us", "UTC")
REPLACED_AT = "__replaced_at"  # until when a row was what was known, where another has taken its place
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
DEEPEST = 16  # each level more doubles the time that DuckDB needs to take it over
_YEAR_1_S, _YEAR_10000_S, _DAY_S = -62_135_596_800, 253_402_300_800, 86_400
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, ?tz=([^\]]+))?\]")


def as_table(frame: object, *, name: str) -> pa.Table:
    """Take over any frame that speaks the Arrow PyCapsule interface.

    Raises
    ------
    SourceError
        If it does not, or names a column twice.
    """
    heed_time_zones()
    if isinstance(frame, pa.Table):
        table = frame
    elif hasattr(frame, "__arrow_c_stream__") or isinstance(frame, pa.RecordBatch):
        table = pa.table(frame)
    else:
        raise SourceError(
            f"{name!r} was given a {type(frame).__name__}, which is no frame; "
            "give an Arrow table, a pandas or Polars frame, or a DuckDB relation"
        )
    return plain_table(table, name=name)


def plain_table(rows: pa.Table | pa.RecordBatch, *, name: str) -> pa.Table:
    """Give rows without metadata. Raises `SourceError` if a column comes twice."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
    twice = sorted({each for each in table.column_names if table.column_names.count(each) > 1})
    if twice:
        raise SourceError(f"{name!r} was given column {', '.join(twice)} more than once; rename or drop one")
    return table.replace_schema_metadata(None)


def declared_schema(dataset: Dataset) -> pa.Schema | None:
    """Read the types that a dataset declares, with the `known_at` that the lake adds."""
    if dataset.schema is None:
        return None
    fields = [
        (column, _parse_type(text, f"{dataset.name}.{column}")) for column, text in dataset.schema.items()
    ]
    schema = storable_schema(pa.schema(fields), name=dataset.name)
    if dataset.known_at is None and dataset.known_at_column not in schema.names:
        schema = schema.append(pa.field(dataset.known_at_column, INSTANT))
    return schema


def storable_schema(schema: pa.Schema, *, name: str) -> pa.Schema:
    """Give the types under which the lake keeps columns of `schema`.

    Raises
    ------
    SourceError
        If a column has a type that a table cannot hold.
    """
    for each in schema:
        if depth(each.type) > DEEPEST:
            raise SourceError(
                f"{name!r}: column {each.name!r} is nested {depth(each.type)} levels deep, at most {DEEPEST} "
                "are kept; take it apart, or keep it as a text"
            )
    return pa.schema([pa.field(each.name, _storable(each.type, name, each.name)) for each in schema])


def conform(table: pa.Table, wanted: pa.Schema, *, name: str) -> pa.Table:
    """Give `table` with the columns of `wanted`, in its order and types.

    Raises
    ------
    SourceError
        If a column is missing, is not declared, or has values that the wanted type cannot hold.
    """
    missing = [each for each in wanted.names if each not in table.column_names]
    if missing:
        raise SourceError(
            f"{name!r} lacks column {', '.join(missing)}; found {', '.join(table.column_names)}. "
            "Supply it, or take it out of the declared schema"
        )
    extra = [each for each in table.column_names if each not in wanted.names]
    if extra:
        raise SourceError(
            f"{name!r} has column {', '.join(extra)}, which its table does not have; "
            "declare it in the dataset's schema to add it, or drop it. "
            f"The table has {', '.join(wanted.names)}"
        )
    columns = [_cast(table[each.name], each.type, name, each.name) for each in wanted]
    return pa.table(columns, schema=wanted)


def fill(table: pa.Table, wanted: pa.Schema, *, name: str) -> pa.Table:
    """Give `table` with all columns of `wanted`; those it lacks are null."""
    for each in wanted:
        if each.name not in table.column_names:
            table = table.append_column(each.name, pa.nulls(table.num_rows, each.type))
    return conform(table, wanted, name=name)


def merged_type(old: pa.DataType, new: pa.DataType) -> pa.DataType:
    """Give the type that holds values of both: a struct gets the fields it lacks, at its end."""
    if not (pa.types.is_struct(old) and pa.types.is_struct(new)):
        return old
    found = {each.name: each for each in new}
    fields = [
        each.with_type(merged_type(each.type, found[each.name].type)) if each.name in found else each
        for each in old
    ]
    names = {each.name for each in old}
    return pa.struct([*fields, *(each for each in new if each.name not in names)])


def beyond_calendar(values: pa.Array) -> pa.Array | None:
    """Say which instants or days are not in the years 1 to 9999: Arrow counts on, calendars do not.

    None where there are none, as in columns of other types.
    """
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.unit != "ns":  # nanoseconds reach to the year 2262
        first, behind = (each * _UNITS[kind.unit] for each in (_YEAR_1_S, _YEAR_10000_S))
        counted = values.cast(pa.int64())
    elif pa.types.is_date32(kind):
        first, behind = (each // _DAY_S for each in (_YEAR_1_S, _YEAR_10000_S))
        counted = values.cast(pa.int32())
    elif pa.types.is_date64(kind):
        first, behind = (each * _UNITS["ms"] for each in (_YEAR_1_S, _YEAR_10000_S))
        counted = values.cast(pa.int64())
    else:
        return None
    found = pc.min_max(counted).as_py()
    if found["min"] is None or (first <= found["min"] and found["max"] < behind):
        return None
    return pc.fill_null(pc.or_(pc.less(counted, first), pc.greater_equal(counted, behind)), False)


def _parse_type(text: str, what: str) -> pa.DataType:
    timestamp = _TIMESTAMP.fullmatch(text)
    if timestamp:
        return pa.timestamp(timestamp[1], timestamp[2])
    try:
        return pa.type_for_alias(text)
    except ValueError:
        raise ConfigError(
            f"{what}: {text!r} is no column type; write for example int64, double, string, bool, date32 "
            "or timestamp[us, tz=UTC]"
        ) from None


def depth(kind: pa.DataType) -> int:
    """Count how many lists and objects lie within one another."""
    levels, inner = 0, [kind]
    while inner := [each.field(place).type for each in inner for place in range(each.num_fields)]:
        levels += 1
    return levels


def _storable(kind: pa.DataType, name: str, column: str) -> pa.DataType:  # noqa: PLR0911 - one line per family
    types = pa.types
    if types.is_dictionary(kind):
        return _storable(kind.value_type, name, column)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_timestamp(kind):
        return INSTANT if kind.tz is not None else pa.timestamp("us")
    if types.is_unsigned_integer(kind):
        return {8: pa.int16(), 16: pa.int32()}.get(kind.bit_width, pa.int64())
    if types.is_float16(kind):
        return pa.float32()
    if types.is_date(kind):
        return pa.date32()
    if (
        types.is_signed_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal32(kind)
        or types.is_decimal64(kind)
        or types.is_decimal128(kind)
    ):
        return kind
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(_storable(kind.value_type, name, column))
    if types.is_struct(kind) and not kind.num_fields:
        raise SourceError(
            f"{name!r}: column {column!r} holds objects without any field; declare its type in the schema, "
            "or leave it out"
        )
    if types.is_struct(kind):
        return pa.struct([pa.field(each.name, _storable(each.type, name, column)) for each in kind])
    if types.is_null(kind):
        raise SourceError(
            f"{name!r}: column {column!r} holds nothing but nulls; declare its type in the schema"
        )
    raise SourceError(f"{name!r}: column {column!r} is {kind}, which a table cannot hold; convert it")


def _cast(column: pa.ChunkedArray, wanted: pa.DataType, name: str, label: str) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    found = column.type
    if pa.types.is_dictionary(found):
        return _cast(column.cast(found.value_type), wanted, name, label)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        return _cast_struct(column, wanted, name, label)
    if not _compatible(found, wanted):
        raise SourceError(
            f"{name!r}: column {label!r} is {_told(found)}, wanted {_told(wanted)}; "
            "convert it at the source, or change the declared schema"
        )
    if pa.types.is_floating(found) and pa.types.is_integer(wanted):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, found), column)
    try:
        return column.cast(wanted, safe=True)
    except pa.ArrowInvalid as err:
        raise SourceError(
            f"{name!r}: column {label!r} is {_told(found)}, wanted {_told(wanted)}, "
            f"which cannot hold all its values: {err}"
        ) from err


def _cast_struct(column: pa.ChunkedArray, wanted: pa.DataType, name: str, label: str) -> pa.ChunkedArray:
    """Go by the fields' names: Arrow's own cast drops fields that are not wanted, and those out of order."""
    whole = column.combine_chunks()
    names = {each.name for each in column.type}
    extra = names - {each.name for each in wanted}
    if extra:
        raise SourceError(
            f"{name!r}: column {label!r} has fields its table does not have: {', '.join(sorted(extra))}"
        )
    parts = [
        _cast(
            pa.chunked_array([pc.struct_field(whole, each.name)]), each.type, name, f"{label}.{each.name}"
        ).combine_chunks()
        if each.name in names
        else pa.nulls(len(whole), each.type)
        for each in wanted
    ]
    mask = whole.is_null() if whole.null_count else None
    return pa.chunked_array([pa.StructArray.from_arrays(parts, fields=list(wanted), mask=mask)])


def _compatible(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_integer(wanted):
        return bool(types.is_integer(found) or types.is_floating(found))
    if types.is_floating(wanted):
        return bool(
            types.is_integer(found) or (types.is_floating(found) and found.bit_width <= wanted.bit_width)
        )
    if types.is_timestamp(wanted):
        return bool(types.is_timestamp(found) and (found.tz is None) == (wanted.tz is None))
    if types.is_decimal(wanted):
        return bool(types.is_integer(found) or types.is_decimal(found))
    families: Mapping[str, Any] = {
        "text": lambda each: (
            types.is_string(each) or types.is_large_string(each) or types.is_string_view(each)
        ),
        "bytes": lambda each: (
            types.is_binary(each) or types.is_large_binary(each) or types.is_binary_view(each)
        ),
        "date": types.is_date,
        "nested": types.is_nested,
    }
    return any(same(found) and same(wanted) for same in families.values())


def _told(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return f"{kind} without a time zone"
    return str(kind)
