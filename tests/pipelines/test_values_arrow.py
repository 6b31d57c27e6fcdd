"""Tables: the bytes tell the values and nothing else, and are read without a copy."""

import random
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import types

from noria.pipelines.values.codec import Format, Payload, Unreadable, Unstorable, digest, dump, load, summary
from noria.records import sha256_hex

NOWHERE = Path("/nowhere")


def sha256(value: object) -> str:
    return digest(value, scratch=NOWHERE, where="w")


@pytest.fixture
def back(tmp_path: Path) -> Callable[[object], Any]:
    def back(value: object) -> Any:
        payload = dump(value, scratch=tmp_path, where="w")
        return load(payload.format, payload.path or payload.data or b"")

    return back


def text(rng: random.Random) -> str:
    return "t" * rng.randrange(1, 20)


def several(make: Callable[[random.Random], Any]) -> Callable[[random.Random], Any]:
    return lambda rng: [make(rng) for _ in range(rng.randrange(4))]


def number(rng: random.Random) -> int:
    return rng.randrange(1, 100)


def half(rng: random.Random) -> float:
    return rng.choice([1.5, -0.0, float("nan"), float("inf")])


KINDS: dict[pa.DataType, Callable[[random.Random], Any]] = {
    pa.int8(): number,
    pa.uint64(): number,
    pa.float16(): lambda rng: np.float16(half(rng)),
    pa.float32(): half,
    pa.float64(): half,
    pa.bool_(): lambda rng: rng.random() < 0.5,
    pa.string(): text,
    pa.large_string(): text,
    pa.string_view(): text,
    pa.binary(): lambda rng: text(rng).encode(),
    pa.binary(3): lambda rng: bytes([number(rng)] * 3),
    pa.binary_view(): lambda rng: text(rng).encode(),
    pa.decimal32(5, 2): lambda rng: Decimal(number(rng)) / 100,
    pa.decimal128(20, 2): lambda rng: Decimal(number(rng)) / 100,
    pa.decimal256(50, 2): lambda rng: Decimal(number(rng)) / 100,
    pa.date32(): lambda rng: date(2026, 1, rng.randrange(1, 30)),
    pa.timestamp("us", "Europe/Berlin"): lambda rng: datetime(2026, 1, rng.randrange(1, 30)),
    pa.time64("ns"): lambda rng: time(rng.randrange(24)),
    pa.duration("s"): lambda rng: timedelta(number(rng)),
    pa.month_day_nano_interval(): lambda rng: pa.MonthDayNano([number(rng), 2, 3]),
    pa.list_(pa.int16()): several(number),
    pa.large_list(pa.string()): several(text),
    pa.list_(pa.bool_(), 3): lambda rng: [True, None, rng.random() < 0.5],
    pa.list_view(pa.int32()): several(number),
    pa.large_list_view(pa.string()): several(text),
    pa.list_(pa.list_(pa.string())): several(several(text)),
    pa.map_(pa.string(), pa.int8()): lambda rng: [
        (str(each), number(rng)) for each in range(rng.randrange(3))
    ],
    pa.struct([("a", pa.int8()), ("b", pa.string())]): lambda rng: {"a": number(rng), "b": text(rng)},
    pa.struct([("l", pa.list_(pa.struct([("z", pa.bool_())])))]): lambda rng: {
        "l": [{"z": True}] * number(rng)
    },
    pa.dictionary(pa.int8(), pa.string()): lambda rng: rng.choice("abcd"),
    pa.json_(): lambda rng: '"' + text(rng) + '"',
}


def make(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def hide(array: pa.Array, hidden: list[bool]) -> pa.Array:
    """Make values null and leave them in the buffers, as kernels may."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(hide(array.storage, hidden))
    if types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(hide(array.indices, hidden), array.dictionary)
    children, buffers = None, array.buffers()[1:]
    if types.is_struct(kind):
        children, buffers = [array.field(each) for each in range(kind.num_fields)], []
    elif types.is_fixed_size_list(kind):
        children, buffers = [array.values], []
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        children, buffers = [array.values], array.buffers()[1:3]
    elif types.is_nested(kind):
        children, buffers = [array.values], array.buffers()[1:2]
    validity = pa.py_buffer(np.packbits([not each for each in hidden], bitorder="little").tobytes() + b"\xff")
    return pa.Array.from_buffers(kind, len(array), [validity, *buffers], -1, 0, children=children)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), rows=st.sampled_from([1, 7, 8, 9, 64, 200]), some=st.booleans())
def test_equal_arrays_have_equal_bytes(kind: pa.DataType, seed: int, rows: int, some: bool) -> None:
    rng = random.Random(seed)
    full = make(kind, [KINDS[kind](rng) for _ in range(rows)])
    hidden = [some and rng.random() < 0.3 for _ in range(rows)]
    array = hide(full, hidden)
    cut = rng.randrange(rows + 1)
    padded = pa.concat_arrays([full, array, full]).slice(rows, rows)
    equal = [
        padded,
        pa.chunked_array([array.slice(0, cut), padded.slice(cut)]),
        pa.chunked_array([array.slice(0, cut), full.slice(0, 0), array.slice(cut)]),
    ]
    if not types.is_dictionary(kind):  # it would get its dictionary in another order
        equal.append(
            make(kind, [None if null else each.as_py() for each, null in zip(full, hidden, strict=True)])
        )
    tables = [pa.table({"x": each}) for each in (array, *equal)]
    assert {sha256(each) for each in tables} == {sha256(tables[0])}
    assert len({sha256([each.combine_chunks()]) for each in map(pa.chunked_array, ([array], [padded]))}) == 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_array_comes_back_as_it_was(kind: pa.DataType, back: Callable[[object], Any]) -> None:
    rng = random.Random(str(kind))
    array = hide(make(kind, [KINDS[kind](rng) for _ in range(100)]), [rng.random() < 0.3 for _ in range(100)])
    table = pa.table({"x": array})
    found = back(table)
    found.validate(full=True)
    assert found.schema == table.schema
    assert repr(found.to_pylist()) == repr(table.to_pylist())
    for part in (array, array.slice(3, 5), array[0], kind):
        again = back([part])[0]
        assert type(again) is type(part)
        assert told(again) == told(part)


def told(part: Any) -> str:
    if isinstance(part, pa.Scalar):
        return f"{part.type} {part.as_py()!r}"
    return f"{part.type} {part.to_pylist()!r}" if isinstance(part, pa.Array) else str(part)


def test_each_value_of_a_column_counts() -> None:
    table = pa.table({"x": [1, 2, None], "y": ["a", None, ""]})
    others = [
        pa.table({"x": [1, 2, 0], "y": ["a", None, ""]}),
        pa.table({"x": [1, 2, None], "y": ["a", "", ""]}),
        pa.table({"x": [1, 2, None], "z": ["a", None, ""]}),
        pa.table({"x": pa.array([1, 2, None], pa.int32()), "y": ["a", None, ""]}),
        table.slice(1),
        table.select(["y", "x"]),
        table.replace_schema_metadata({"a": "b"}),
        table.cast(pa.schema([pa.field("x", pa.int64(), metadata={"unit": "m"}), ("y", pa.string())])),
        table.to_batches()[0],
    ]
    assert len({sha256(each) for each in (table, *others)}) == 1 + len(others)


def test_chunks_of_more_than_one_batch_do_not_count(back: Callable[[object], Any]) -> None:
    rows = 150_000
    table = pa.table({"n": np.arange(rows), "s": [str(each) for each in range(rows)]})
    pieces = pa.concat_tables([table.slice(0, 70_001), table.slice(70_001, 1), table.slice(70_002)])
    assert sha256(pieces) == sha256(table)
    assert back(table).equals(table)


def test_dictionaries_of_chunks_are_made_one(back: Callable[[object], Any]) -> None:
    chunks = [pa.array(["a", "b", None]).dictionary_encode(), pa.array(["c", "a"]).dictionary_encode()]
    table = pa.table({"d": pa.chunked_array(chunks)})
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2, 0], pa.int32()), ["a", "b", "c"])
    assert sha256(table) == sha256(pa.table({"d": one}))
    assert back(table)["d"].to_pylist() == ["a", "b", None, "c", "a"]
    other = pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 2, 1], pa.int32()), ["b", "a", "c"])
    assert sha256(table) != sha256(pa.table({"d": other}))  # the order of categories can be seen


def test_the_order_of_metadata_does_not_count(back: Callable[[object], Any]) -> None:
    table = pa.table({"x": [1]})
    one, other = (
        table.replace_schema_metadata(each) for each in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert sha256(one) == sha256(other)
    assert back(one).schema.metadata == {b"a": b"1", b"b": b"2"}


@pytest.mark.parametrize(
    "value",
    [
        pa.table({}),
        pa.table({"a": [1, 2]}).select([]),
        pa.table({"a": pa.array([], pa.string())}),
        pa.table([[1], [2]], names=["a", "a"]),
        pa.table({"n": pa.nulls(3)}),
        pa.RecordBatch.from_pydict({"a": ["x", None] * 50_000}),
        pa.RecordBatch.from_pydict({"a": pa.array([], pa.int8())}),
        pa.table({"r": pa.RunEndEncodedArray.from_arrays([2, 3], ["a", None])}),
        pa.table(
            {
                "u": pa.UnionArray.from_sparse(
                    pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]
                )
            }
        ),
    ],
    ids=lambda value: str(value.schema)[:30],
)
def test_odd_tables_come_back(value: Any, back: Callable[[object], Any]) -> None:
    found = back(value)
    assert type(found) is type(value)
    assert found.equals(value, check_metadata=True)
    assert found.num_rows == value.num_rows
    assert sha256(found) == sha256(value)
    assert back({"a": [value]})["a"][0].equals(value)


@pytest.mark.parametrize(
    "part",
    [
        pa.array([1, None]),
        pa.chunked_array([[1], [2, 3]]),
        pa.chunked_array([], pa.int8()),
        pa.scalar({"a": [1]}),
        pa.scalar(None, pa.string()),
        pa.schema([("a", pa.int8())], metadata={"k": "v"}),
        pa.field("a", pa.int8(), nullable=False, metadata={"k": "v"}),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_of_tables_are_values(part: Any, back: Callable[[object], Any]) -> None:
    assert dump(part, scratch=NOWHERE, where="w").format is Format.VALUE
    found = back(part)
    assert type(found) is type(part)
    assert found == part


@pytest.fixture
def kept(tmp_path: Path) -> Payload:
    table = pa.table({"n": np.arange(100_000.0), "s": ["abc"] * 100_000})
    return dump(table, scratch=tmp_path, where="w")


def test_a_table_is_an_arrow_file_that_anybody_reads(kept: Payload) -> None:
    assert kept.format is Format.ARROW
    assert kept.path is not None
    assert kept.sha256 == sha256_hex(kept.path.read_bytes())
    assert kept.size_bytes == kept.path.stat().st_size
    assert pa.ipc.open_file(kept.path).read_all().num_rows == 100_000


def test_a_table_is_mapped_and_not_read(kept: Payload) -> None:
    before = pa.total_allocated_bytes()
    table = load(kept.format, kept.path or b"")
    assert table["n"][99_999].as_py() == 99_999
    assert pa.total_allocated_bytes() == before
    with pytest.raises(ValueError, match="read-only"):
        table["n"].chunk(0).to_numpy()[0] = 1
    assert load(kept.format, (kept.path or Path()).read_bytes()).equals(table)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_table_that_is_cut_off_is_unreadable(share: float, kept: Payload, tmp_path: Path) -> None:
    data = (kept.path or Path()).read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(Unreadable, match="a table cannot be read"):
        load(Format.ARROW, tmp_path / "cut")


def test_summaries_tell_sizes_and_no_rows() -> None:
    table = pa.table({"secret": ["x"] * 1_000})
    assert summary(table) == "table of 1,000 rows x 1 columns"
    assert summary(table["secret"]) == "ChunkedArray of 1,000"


pandas_frames = {
    "plain": {"a": [1, 2, 3], "b": ["x", None, "z"], "e": [1.5, None, 2]},
    "none": {"a": []},
}


@pytest.mark.parametrize("name", pandas_frames)
@pytest.mark.parametrize("index", ["range", "texts", "two"])
def test_a_frame_of_pandas_comes_back(name: str, index: str, back: Callable[[object], Any]) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not among the libraries of the project")
    frame = pandas.DataFrame(pandas_frames[name])
    frame["c"] = pandas.Categorical(["u"] * len(frame), categories=["v", "u"], ordered=True)
    frame["d"] = pandas.date_range("2026", periods=len(frame), tz="Europe/Berlin")
    if index != "range":
        frame = frame.set_index(["c"] if index == "texts" else ["a", "d"])
    found = back(frame)
    pandas.testing.assert_frame_equal(found, frame)
    pandas.testing.assert_frame_equal(back({"in": frame})["in"], frame)
    series = frame.iloc[:, 0]
    pandas.testing.assert_series_equal(back(series), series)
    assert sha256(found) == sha256(frame) != sha256(pa.Table.from_pandas(frame))
    assert summary(frame).startswith(f"table of {len(frame)} rows")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x", 1]}, "that Arrow cannot hold .*give each column one type"),
        ({"a": [1, None]}, "'a' is object and would come back as .*use astype"),
        ({"a": [{"x": 1}, {"y": 2}]}, "'a' holds lists or dicts; return a pyarrow table"),
        ({"a": [1], 2: [1]}, "names of several types; name the columns by texts"),
    ],
)
def test_a_frame_of_pandas_that_would_change_is_refused(columns: dict[Any, Any], message: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not among the libraries of the project")
    with pytest.raises(Unstorable, match=message):
        sha256(pandas.DataFrame(columns, dtype=object))


def test_a_frame_of_polars_comes_back(back: Callable[[object], Any]) -> None:
    polars = pytest.importorskip("polars", reason="polars is not among the libraries of the project")
    frame = polars.DataFrame(
        {
            "a": [1, None],
            "s": ["x", "y"],
            "c": polars.Series(["u", "v"], dtype=polars.Categorical),
            "e": polars.Series(["u", "v"], dtype=polars.Enum(["v", "u"])),
            "l": [[1], None],
            "d": [datetime(2026, 1, 1), None],
        }
    )
    found = back([frame])[0]
    assert found.schema == frame.schema
    assert found.equals(frame)
    assert back(frame["l"]).equals(frame["l"])
    twice = polars.concat([frame, frame], rechunk=False)
    assert sha256(twice) == sha256(twice.rechunk())
    with pytest.raises(Unstorable, match="return what its collect"):
        sha256(frame.lazy())
    with pytest.raises(Unstorable, match="column 'o' holds objects"):
        sha256(polars.DataFrame({"o": polars.Series([object()], dtype=polars.Object)}))
