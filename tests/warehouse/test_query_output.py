"""Answers as files: every format gives back the rows, and no file is ever there by half."""

import io
import json
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import ConfigError, StoreError
from noria.warehouse.query import answering
from noria.warehouse.query_output import Format, format_of, whole_file, write_rows

EVERYTHING = """
    select 1 as n, 'é,"\n' as t, 1.5 as f, true as ok, null as nothing, date '2013-05-01' as day,
           timestamptz '2013-05-01 06:30:00.25+00' as "at", 12.30::decimal(6, 2) as money,
           sum(range)::hugeint as whole, 2::hugeint ** 100 as vast, [1, 2] as tags, {'x': 1, 'y': 'z'} as s,
           map {'k': 1} as m, interval 90 minute as span, 'a'::enum('a', 'b') as e, '\\x00\\xFF'::blob as b,
           uuid '00000000-0000-0000-0000-000000000001' as id, union_value(u := 1) as u
    from range(10)
"""


def written(sql: str, format: Format) -> bytes:
    sink = io.BytesIO()
    with answering(sql, {}) as answer:
        write_rows(answer, answer.schema, format, sink)
    return sink.getvalue()


def test_json_holds_every_type() -> None:
    [row] = json.loads(written(EVERYTHING, Format.JSON))
    assert row == json.loads(written(EVERYTHING, Format.JSONL))
    assert (row["n"], row["t"], row["nothing"], row["ok"]) == (1, 'é,"\n', None, True)
    assert (row["at"], row["day"], row["money"]) == ("2013-05-01T06:30:00.250000Z", "2013-05-01", "12.30")
    assert (row["whole"], row["vast"]) == (45, float(2**100))
    assert (row["tags"], row["s"], row["e"]) == ([1, 2], {"x": 1, "y": "z"}, "a")


def test_whole_numbers_that_do_not_fit_into_64_bits_stay_exact_in_json() -> None:
    [row] = json.loads(written("select 170141183460469231731687303715884105727::hugeint as big", Format.JSON))
    assert row == {"big": "170141183460469231731687303715884105727"}


def test_csv_holds_every_type() -> None:
    read = pacsv.read_csv(
        io.BytesIO(written(EVERYTHING, Format.CSV)),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(column_types={"whole": pa.string(), "vast": pa.string()}),
    )
    [row] = read.to_pylist()
    assert (row["t"], row["tags"], row["s"]) == ('é,"\n', "[1,2]", '{"x":1,"y":"z"}')
    assert row["at"] == datetime(2013, 5, 1, 6, 30, 0, 250_000, tzinfo=UTC)
    assert (row["nothing"], row["e"], row["whole"]) == (None, "a", "45")


def test_parquet_and_arrow_hold_every_type() -> None:
    parquet = pq.read_table(io.BytesIO(written(EVERYTHING, Format.PARQUET)))
    arrow = pa.ipc.open_stream(written(EVERYTHING, Format.ARROW)).read_all()
    assert parquet["tags"].to_pylist() == arrow["tags"].to_pylist() == [[1, 2]]
    assert parquet["whole"][0].as_py() == arrow["whole"][0].as_py() == Decimal(45)
    assert parquet.schema.field("at").type == arrow.schema.field("at").type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize("format", list(Format))
def test_an_answer_without_rows_has_its_columns_all_the_same(format: Format) -> None:
    data = written("select 1 as a, 'x' as b where false", format)
    match format:
        case Format.CSV:
            assert data == b'"a","b"\n'
        case Format.JSON:
            assert json.loads(data) == []
        case Format.JSONL:
            assert data == b""
        case Format.PARQUET:
            assert pq.read_schema(io.BytesIO(data)).names == ["a", "b"]
        case Format.ARROW:
            assert pa.ipc.open_stream(data).schema.names == ["a", "b"]


rows = st.lists(
    st.fixed_dictionaries({"n": st.none() | st.integers(-(2**63), 2**63 - 1), "t": st.none() | st.text()}),
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(rows)
def test_texts_and_numbers_come_back_from_every_format(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, pa.schema([("n", pa.int64()), ("t", pa.string())]))
    sinks = {format: io.BytesIO() for format in Format}
    for format, sink in sinks.items():
        write_rows(table.to_batches(), table.schema, format, sink)
    data = {format: sink.getvalue() for format, sink in sinks.items()}
    assert json.loads(data[Format.JSON]) == rows
    assert [json.loads(line) for line in data[Format.JSONL].decode().split("\n")[:-1]] == rows
    assert pa.ipc.open_stream(data[Format.ARROW]).read_all().to_pylist() == rows
    assert pq.read_table(io.BytesIO(data[Format.PARQUET])).to_pylist() == rows


def test_a_file_that_cannot_be_finished_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")
    sql = "select cast(case when range < 150_000 then '1' else 'x' end as int) as n from range(200_000)"
    with pytest.raises(ConfigError), answering(sql, {}) as answer, whole_file(path) as file:
        write_rows(answer, answer.schema, Format.CSV, file)
    assert path.read_text() == "before" and [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="name another file"), whole_file(tmp_path / "no" / "out.csv"):
        pass


def test_a_large_answer_is_never_whole_in_memory() -> None:
    before = pa.total_allocated_bytes()
    peak = 0
    with (
        tempfile.TemporaryFile() as sink,
        answering("select range as n, range::varchar as t from range(3_000_000)", {}) as answer,
    ):

        def watched() -> Any:
            nonlocal peak
            for batch in answer:
                peak = max(peak, pa.total_allocated_bytes() - before)
                yield batch

        assert write_rows(watched(), answer.schema, Format.PARQUET, sink) == 3_000_000
    assert peak < 40_000_000


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.csv", "csv"),
        ("a.JSON", "json"),
        ("a.ndjson", "jsonl"),
        ("a.b.parquet", "parquet"),
        ("a.feather", "arrow"),
    ],
)
def test_the_name_of_a_file_tells_the_format(name: str, format: str) -> None:
    assert format_of(Path(name)) == format


def test_a_name_that_tells_no_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="--format"):
        format_of(Path("answer"))
    with pytest.raises(ConfigError, match="there is no format 'xls'"):
        Format.read("xls")
