"""DuckDB's own reading of Parquet files against pyarrow's: same rows, whatever files and predicates."""

import math
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.warehouse.query import query
from noria.warehouse.query_tables import allowed_files

INSTANT = pa.timestamp("us", "UTC")
EARLIER = pa.struct([("x", pa.int64())])
LATER = pa.struct([("x", pa.int64()), ("y", pa.string())])
START = datetime(2013, 3, 10, 6, tzinfo=UTC)

instants = st.integers(-(10**9), 10**9).map(lambda us: START + timedelta(microseconds=us * 977))
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "n": (pa.int64(), st.integers(-5, 5)),
    "big": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "f": (pa.float64(), st.floats(width=64) | st.sampled_from([0.0, -0.0, 1.5])),
    "t": (pa.string(), st.text("ab'\"%é☃ ", max_size=4)),
    "b": (pa.binary(), st.binary(max_size=3)),
    "ok": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates(date(1900, 1, 1), date(2100, 1, 1))),
    "at": (INSTANT, instants),
    "naive": (pa.timestamp("us"), instants.map(lambda at: at.replace(tzinfo=None))),
    "money": (pa.decimal128(12, 2), st.integers(-(10**9), 10**9).map(lambda c: Decimal(c) / 100)),
    "tags": (pa.list_(pa.string()), st.lists(st.sampled_from("xyz"), max_size=3)),
    "s": (
        LATER,
        st.fixed_dictionaries({"x": st.integers(-3, 3), "y": st.none() | st.text("ab", max_size=2)}),
    ),
}
PREDICATES = [
    "true",
    "n > 0",
    "n is null",
    "big between -1000 and 1000",
    "small <> 0",
    "f > 1.0",
    "f <= 0",
    "not isnan(f)",
    "t >= 'a'",
    "t like '%a%'",
    "ok",
    "day < date '2000-01-01'",
    "\"at\" >= '2013-03-10 06:00'",
    "\"at\" between '2013-03-01' and '2013-03-11'",
    "naive < timestamp '2013-03-10'",
    "money > 0",
    "s.x > 0",
    "s.y is null",
    "len(tags) = 2",
    "n in (1, 2, 3)",
    "coalesce(n, 0) = 0",
]


@st.composite
def files_of_rows(draw: st.DrawFn) -> tuple[pa.Schema, list[pa.Table]]:
    names = draw(st.permutations(sorted(VALUES)))
    schema = pa.schema([(name, VALUES[name][0]) for name in names])
    files = []
    for _ in range(draw(st.integers(1, 3))):
        held = [name for name in draw(st.permutations(names)) if draw(st.integers(0, 5))]
        held = held or ["n"]
        size = draw(st.integers(1, 6))
        columns = {}
        for name in held:
            kind, values = VALUES[name]
            some = draw(st.lists(st.none() | values, min_size=size, max_size=size))
            columns[name] = pa.array(some, kind)
            if name == "s" and draw(st.booleans()):
                earlier = [None if each is None else {"x": each["x"]} for each in some]
                columns[name] = pa.array(earlier, EARLIER)
        files.append(pa.table(columns))
    return schema, files


def stored(folder: Path, schema: pa.Schema, files: list[pa.Table]) -> pads.FileSystemDataset:
    form, system = pads.ParquetFileFormat(), pafs.LocalFileSystem()
    fragments = []
    for number, rows in enumerate(files):
        path = folder / f"part-{number}.parquet"
        pq.write_table(rows, path, store_schema=False, row_group_size=2)
        fragments.append(form.make_fragment(str(path), system))
    return pads.FileSystemDataset(fragments, schema, form, system)


def told(table: pa.Table) -> list[list[Any]]:
    return [[_comparable(value) for value in row.values()] for row in table.to_pylist()]


def _comparable(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@settings(max_examples=60, deadline=None)
@given(files_of_rows(), st.lists(st.sampled_from(PREDICATES), min_size=1, max_size=4))
def test_files_read_by_duckdb_give_what_pyarrow_gives(
    made: tuple[pa.Schema, list[pa.Table]], predicates: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = stored(Path(folder), *made)
        assert allowed_files([dataset]) == dataset.files
        whole = dataset.to_table()
        for where in predicates:
            sql = f"select * from t where {where}"
            natively, through_arrow = (
                query(sql, {"t": lambda: dataset}),
                query(sql, {"t": lambda: whole}),
            )
            assert natively.schema == through_arrow.schema
            assert told(natively) == told(through_arrow)
        grouped = 'select n, count(*), max("at"), min(money), count(distinct t) from t group by 1 order by 1'
        assert told(query(grouped, {"t": lambda: dataset})) == told(query(grouped, {"t": lambda: whole}))


def test_a_column_that_no_file_holds_is_null(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64()), ("new", INSTANT), ("s", LATER)])
    dataset = stored(tmp_path, schema, [pa.table({"n": pa.array([1], pa.int32()), "old": ["x"]})])
    found = query("select * from t where new is null", {"t": lambda: dataset})
    assert found.schema == schema and found.to_pylist() == [{"n": 1, "new": None, "s": None}]


@pytest.mark.parametrize("name", ["it's", 'a"b', "select", "Ä b", "x y"])
def test_names_of_columns_and_folders_may_be_anything(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name.replace('"', "'")
    folder.mkdir()
    dataset = stored(folder, pa.schema([(name, pa.int64())]), [pa.table({name: [1]})])
    assert query("from t", {"t": lambda: dataset}).to_pylist() == [{name: 1}]
    assert query(f'from "{name.replace(chr(34), chr(34) * 2)}"', {name: lambda: dataset}).num_rows == 1


def test_types_on_which_the_two_do_not_agree_go_through_arrow(tmp_path: Path) -> None:
    odd = pa.schema([("n", pa.int64()), ("span", pa.time64("ns"))])
    dataset = stored(tmp_path, odd, [pa.table({"n": [1], "span": pa.array([5_000], pa.time64("ns"))})])
    assert allowed_files([dataset]) == []
    assert query("select n from t where span is not null", {"t": lambda: dataset}).to_pylist() == [{"n": 1}]


def test_a_field_is_taken_by_its_name_from_files_that_hold_others(tmp_path: Path) -> None:
    """DuckDB takes one field of a struct by its place: of another file that is another field, or none."""
    schema = pa.schema([("n", pa.int64()), ("s", pa.struct([("x", pa.float64()), ("z", pa.float64())]))])
    files = [
        pa.table({"n": [1, 2], "s": [{"x": 0.1}, {"x": 0.2}]}),
        pa.table({"n": [3, 4], "s": [{"a": 7.0, "z": 1.3, "x": 0.3}, {"a": 7.0, "z": 1.4, "x": 0.4}]}),
    ]
    dataset = stored(tmp_path, schema, files)
    assert allowed_files([dataset]) == dataset.files
    found = query("select n, s.x as x, s.z as z from t where s.x > 0.1 order by n", {"t": lambda: dataset})
    assert [tuple(each.values()) for each in found.to_pylist()] == [
        (2, 0.2, None),
        (3, 0.3, 1.3),
        (4, 0.4, 1.4),
    ]
    assert query("select sum(s.z) as z from t", {"t": lambda: dataset}).to_pylist() == [{"z": 2.7}]
