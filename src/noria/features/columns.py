"""Columns of an Arrow table as the integers that the kernels work on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import SourceError
from noria.features.declarations import FeatureView, ViewSpec

__all__ = [
    "column_of",
    "entity_codes",
    "entity_texts",
    "floats",
    "instants",
    "key_bytes",
    "spec_of",
]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_MICROS = pa.timestamp("us", tz="UTC")


def spec_of(view: FeatureView | ViewSpec) -> ViewSpec:
    """Give the spec of a view that may be one already."""
    return view if isinstance(view, ViewSpec) else view.spec()


def column_of(rows: pa.Table, name: str) -> pa.Array:
    """Give a column as one array. Raises `SourceError` naming what there is if it is missing."""
    if name not in rows.column_names:
        raise SourceError(f"column {name!r} is missing; there is {', '.join(map(repr, rows.column_names))}")
    column = rows.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def instants(rows: pa.Table, name: str) -> Ints:
    """Give a column of instants in microseconds since 1970."""
    column = column_of(rows, name)
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise SourceError(f"column {name!r} is {column.type}; it must be a timestamp with a time zone")
    if column.null_count:
        raise SourceError(f"column {name!r} has {column.null_count} missing instants; each row needs one")
    return _numpy(column.cast(_MICROS, safe=False).cast(pa.int64()))


def floats(rows: pa.Table, name: str) -> Floats:
    """Give a numeric column as float64, NaN where missing."""
    column = column_of(rows, name)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SourceError(f"column {name!r} is {kind}; features need a numeric column")
    values: Floats = np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return values


def entity_texts(rows: pa.Table, columns: Sequence[str]) -> pa.Array:
    """Give each row's entity as one text, null if any part is missing.

    A single column is its own text (integers in decimal); several are joined as netstrings without the
    comma, which no other parts can give: `("JFK", "LAX")` is `3:JFK3:LAX`.
    """
    parts = [_text(rows, name) for name in columns]
    if len(parts) == 1:
        return parts[0]
    pieces: list[pa.Array] = []
    for part in parts:
        pieces += [pc.binary_length(part).cast(pa.string()), pa.scalar(":"), part]
    return pc.binary_join_element_wise(*pieces, "")


def entity_codes(rows: pa.Table, spine: pa.Table, columns: Sequence[str]) -> tuple[Ints, Ints, int]:
    """Number entities so that equal ones in `rows` and `spine` have equal codes; -1 where missing."""
    both = pa.chunked_array([entity_texts(rows, columns), entity_texts(spine, columns)], pa.string())
    encoded = both.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    encoded = encoded.dictionary_encode()
    codes = _numpy(encoded.indices.fill_null(-1).cast(pa.int64()))
    return codes[: rows.num_rows], codes[rows.num_rows :], len(encoded.dictionary)


def key_bytes(rows: pa.Table, columns: Sequence[str]) -> list[bytes]:
    """Encode each row's key so that bytes compare as keys do (text by code point, numbers by value)."""
    parts = [_comparable(rows, name, is_last=name == columns[-1]) for name in columns]
    return parts[0] if len(parts) == 1 else [b"".join(each) for each in zip(*parts, strict=True)]


def _comparable(rows: pa.Table, name: str, *, is_last: bool) -> list[bytes]:
    column = column_of(rows, name)
    if column.null_count:
        raise SourceError(f"key column {name!r} has {column.null_count} missing values; a key has none")
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        whole = column.cast(pa.int32()) if pa.types.is_date32(kind) else column
        biased = _numpy(whole.cast(pa.int64())).astype(np.uint64) ^ np.uint64(1 << 63)
        return [bytes(each) for each in biased.astype(">u8").reshape(-1, 1).view(np.uint8)]
    texts = [text.encode() for text in _text(rows, name).to_pylist()]
    # A zero byte ends a text that is followed by another part; one inside it is told apart by a 255.
    return texts if is_last else [text.replace(b"\0", b"\0\xff") + b"\0\0" for text in texts]


def _text(rows: pa.Table, name: str) -> pa.Array:
    column = column_of(rows, name)
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    raise SourceError(f"column {name!r} is {kind}; an entity or key is text or an integer")


def _numpy(column: pa.Array) -> Ints:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
