"""Columns of an Arrow table as the integers that the kernels work on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.errors import SourceError
from noria.features.declarations import FeatureView, ViewSpec

__all__ = [
    "check_keys",
    "column_of",
    "column_type",
    "entity_codes",
    "entity_texts",
    "floats",
    "instants",
    "key_bytes",
    "spec_of",
    "texts",
    "vectors",
]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_EDGE = 2**63 - 2  # so that there is a place on either side
_CHUNK = 1 << 17  # values that are looked up at once
_DENSE = 8  # table entries per value up to which a table beats hashing
_MICROS = pa.timestamp("us", tz="UTC")


def spec_of(view: FeatureView | ViewSpec) -> ViewSpec:
    """Give the spec of a view that may be one already."""
    return view if isinstance(view, ViewSpec) else view.spec()


def column_type(rows: pa.Table, name: str) -> pa.DataType:
    """Give the type of a column. Raises `SourceError` naming what there is if it is missing."""
    if name not in rows.column_names:
        raise SourceError(f"column {name!r} is missing; there is {', '.join(map(repr, rows.column_names))}")
    return rows.schema.field(name).type


def column_of(rows: pa.Table, name: str) -> pa.Array:
    """Give a column as one array. Raises `SourceError` if it is missing."""
    column_type(rows, name)
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
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        hint = "; of texts there is `agg.last_text`" if is_text else ""
        raise SourceError(f"column {name!r} is {kind}; features need a numeric column{hint}")
    values: Floats = np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return values


def texts(rows: pa.Table, name: str) -> pa.Array:
    """Give a column of texts."""
    column = column_of(rows, name)
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_null(kind)):
        raise SourceError(f"column {name!r} is {kind}; `agg.last_text` needs a column of texts")
    return column.cast(pa.string())


def vectors(rows: pa.Table, name: str, dimensions: int) -> pa.Array:
    """Give a column of vectors as lists of `dimensions` float32, NaN where an element is missing."""
    column = column_of(rows, name)
    kind = column.type
    wanted = pa.list_(pa.float32(), dimensions)
    if pa.types.is_null(kind):
        return pa.nulls(len(column), wanted)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    if not is_list or not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        raise SourceError(f"column {name!r} is {kind}; `agg.embedding` needs lists of {dimensions} numbers")
    there = np.asarray(column.is_valid(), dtype=np.bool_)
    sizes = pc.list_value_length(column).fill_null(dimensions)
    if wrong := pc.sum(pc.not_equal(sizes, dimensions)).as_py():
        raise SourceError(
            f"{wrong} vectors of column {name!r} have not {dimensions} elements; give their number as "
            "`dimensions`, or repair the source"
        )
    flat = pc.list_flatten(column).cast(pa.float32(), safe=False).fill_null(float("nan"))
    numbers = np.zeros((len(column), dimensions), dtype=np.float32)
    numbers[there] = np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, dimensions)
    mask = pa.array(~there)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), type=wanted, mask=mask)


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
    """Number the entities of a spine, and give the numbers of the rows and of the spine, and how many.

    A row has -1 where its entity is missing or not in the spine.
    """
    codes: list[tuple[Ints, Ints]] = []
    for name in columns:
        mine, asked = _alike(rows, spine, name)
        known = asked.unique().drop_null()
        codes.append((_codes(mine, known), _codes(asked, known)))
    (of_rows, of_spine), *others = codes
    for rows_part, spine_part in others:
        # Pairs that the spine holds are numbered anew, so that no number grows with the product.
        width = int(spine_part.max(initial=-1)) + 2
        pairs = np.where((of_spine < 0) | (spine_part < 0), -1, of_spine * width + spine_part)
        known = pa.array(np.unique(pairs[pairs >= 0]))
        of_spine = _codes(pa.array(pairs), known)
        pairs = np.where((of_rows < 0) | (rows_part < 0), -1, of_rows * width + rows_part)
        of_rows = _codes(pa.array(pairs), known)
    return of_rows, of_spine, int(of_spine.max(initial=-1)) + 1


def _alike(rows: pa.Table, spine: pa.Table, name: str) -> tuple[pa.Array, pa.Array]:
    """Give a column of both as one type: whole numbers as they are, all else as text."""
    mine, asked = column_of(rows, name), column_of(spine, name)
    if all(pa.types.is_integer(each.type) and not pa.types.is_uint64(each.type) for each in (mine, asked)):
        return mine.cast(pa.int64()), asked.cast(pa.int64())
    return _text(rows, name), _text(spine, name)


def _codes(values: pa.Array, known: pa.Array) -> Ints:
    """Give the place of each value among `known`, -1 where it is none."""
    if pa.types.is_int64(values.type) and len(known):
        least, most = (each.as_py() for each in pc.min_max(known).values())
        if most - least < _DENSE * len(values) and least > -_EDGE and most < _EDGE:
            return _looked_up(values, known, least, most)
    return _numpy(pc.index_in(values, value_set=known).fill_null(-1).cast(pa.int64()))


def _looked_up(values: pa.Array, known: pa.Array, least: int, most: int) -> Ints:
    table = np.full(most - least + 3, -1, dtype=np.int64)  # a place on either side for what is outside
    table[_numpy(known) - least + 1] = np.arange(len(known))
    found = np.empty(len(values), dtype=np.int64)
    for start in range(0, len(values), _CHUNK):  # a chunk stays in the cache
        some = values.slice(start, _CHUNK)
        places = _numpy(some.fill_null(least)).clip(least - 1, most + 1)
        places -= least - 1
        np.take(table, places, out=found[start : start + len(some)], mode="clip")  # "raise" would copy
        if some.null_count:
            found[start : start + len(some)][~np.asarray(some.is_valid())] = -1
    return found


def key_bytes(rows: pa.Table, columns: Sequence[str]) -> list[bytes]:
    """Encode each row's key so that bytes compare as keys do (text by code point, numbers by value)."""
    parts = [_comparable(rows, name, is_last=name == columns[-1]) for name in columns]
    return parts[0] if len(parts) == 1 else [b"".join(each) for each in zip(*parts, strict=True)]


def check_keys(rows: pa.Table, columns: Sequence[str]) -> None:
    """Raise `SourceError` if a key is missing, or of a type that none can be of."""
    for name in columns:
        column = column_of(rows, name)
        if column.null_count:
            raise SourceError(f"key column {name!r} has {column.null_count} missing values; a key has none")
    key_bytes(rows.slice(0, 0), columns)


def _comparable(rows: pa.Table, name: str, *, is_last: bool) -> list[bytes]:
    column = column_of(rows, name)
    if column.null_count:
        raise SourceError(f"key column {name!r} has {column.null_count} missing values; a key has none")
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        whole = column.cast(pa.int32()) if pa.types.is_date32(kind) else column
        biased = _numpy(whole.cast(pa.int64())).astype(np.uint64) ^ np.uint64(1 << 63)
        raw = biased.astype(">u8").tobytes()
        return [raw[at : at + 8] for at in range(0, len(raw), 8)]
    texts = _text(rows, name).cast(pa.binary()).to_pylist()
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
