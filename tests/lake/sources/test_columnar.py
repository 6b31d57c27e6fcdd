"""Parquet, Arrow's files and streams, and frames: typed already, and still losing nothing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.lake.sources.conftest import drain

from noria.errors import SourceError
from noria.lake.sources.columnar import frame_digest
from noria.lake.sources.opening import open_source

TABLE = pa.table({"id": ["a", "b", "c"], "n": pa.array([1, 2**40, 3], pa.int64()), "x": [1.0, 2.5, None]})


def written(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.arrows"])
def test_files_of_columns_are_read(tmp_path: Path, name: str) -> None:
    (source,) = open_source(written(TABLE, tmp_path / name))
    assert drain(source).rows == TABLE.to_pylist()
    assert source.bytes_read == source.size_bytes


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.arrows"])
def test_a_value_that_the_wanted_type_cannot_hold_costs_its_row(tmp_path: Path, name: str) -> None:
    wanted = pa.schema([("id", pa.string()), ("n", pa.int32()), ("x", pa.int64())])
    (source,) = open_source(written(TABLE, tmp_path / name))
    taken = drain(source, wanted)
    assert taken.rows == [{"id": "a", "n": 1, "x": 1}, {"id": "c", "n": 3, "x": None}]
    assert taken.told == [
        (
            1,
            "'n' cannot be read as int32; 'x' cannot be read as int64",
            '{"id":"b","n":1099511627776,"x":2.5}',
        )
    ]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.arrows"])
@pytest.mark.parametrize("damage", ["cut", "nonsense", "empty"])
def test_a_damaged_file_is_told(tmp_path: Path, name: str, damage: str) -> None:
    path = written(TABLE, tmp_path / name)
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "nonsense": b"no such thing", "empty": b""}[damage])
    with pytest.raises(SourceError, match=r"is damaged, or no (Parquet|Arrow) file"):
        drain(open_source(path)[0])


def test_other_kinds_of_types_are_left_to_the_table(tmp_path: Path) -> None:
    (source,) = open_source(written(TABLE, tmp_path / "rows.parquet"))
    wanted = pa.schema([("id", pa.int64()), ("n", pa.string()), ("x", pa.float64())])
    assert drain(source, wanted).schema == TABLE.schema


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    (source,) = open_source(written(TABLE, tmp_path / "rows.parquet"))
    with pytest.raises(SourceError, match="lacks column 'ids'; the nearest is 'id'"):
        drain(source, pa.schema([("ids", pa.string())]))


def test_many_rows_come_in_pieces(tmp_path: Path) -> None:
    table = pa.table({"n": range(200_000)})
    for name in ("rows.parquet", "rows.arrow"):
        (source,) = open_source(written(table, tmp_path / name))
        sizes = [piece.num_rows for piece in source.pieces(None) if isinstance(piece, pa.RecordBatch)]
        assert sum(sizes) == 200_000
        assert max(sizes) <= 200_000 if name.endswith("arrow") else max(sizes) <= 65_536


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        pl.from_arrow(TABLE),
        pd.DataFrame({"id": ["a", "b", "c"], "n": [1, 2**40, 3], "x": [1.0, 2.5, float("nan")]}),
        pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches()),
    ],
    ids=["arrow", "polars", "pandas", "reader"],
)
def test_frames_are_sources(frame: Any) -> None:
    (source,) = open_source(frame)
    taken = drain(source)
    assert [each["id"] for each in taken.rows] == ["a", "b", "c"]
    assert [each["n"] for each in taken.rows] == [1, 2**40, 3]


def test_the_digest_of_a_frame_is_that_of_its_rows_however_they_are_held() -> None:
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 2)])
    assert (
        frame_digest(TABLE)
        == frame_digest(chunked)
        == frame_digest(pa.concat_tables([TABLE, TABLE]).slice(3, 3))
    )
    assert frame_digest(TABLE) != frame_digest(TABLE.slice(0, 2))
    assert frame_digest(TABLE) != frame_digest(TABLE.rename_columns(["id", "m", "x"]))
    assert frame_digest(TABLE) != frame_digest(TABLE.set_column(1, "n", TABLE["n"].cast(pa.float64())))


def test_instants_of_other_units_are_held(tmp_path: Path) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    table = pa.table({"at": pa.array([at, at], pa.timestamp("ns", "UTC"))})
    (source,) = open_source(written(table, tmp_path / "rows.parquet"))
    assert drain(source, pa.schema([("at", pa.timestamp("us", "UTC"))])).rows == [{"at": at}, {"at": at}]


def test_instants_and_days_that_no_calendar_has_cost_their_rows(tmp_path: Path) -> None:
    micros = [0, 253_402_300_800_000_000, -62_135_596_800_000_001, 253_402_300_799_999_999, None]
    table = pa.table(
        {
            "id": pa.array([0, 1, 2, 3, 4]),
            "at": pa.array(micros, pa.timestamp("us", "UTC")),
            "s": pa.array([None if at is None else at // 1_000_000 for at in micros], pa.timestamp("s")),
            "day": pa.array([0, 2_932_897, 0, 2_932_896, None], pa.date32()),
        }
    )
    (source,) = open_source(written(table, tmp_path / "rows.parquet"))
    taken = drain(source)
    assert [each["id"] for each in taken.rows] == [0, 3, 4]
    assert [each.row for each in taken.broken] == [1, 2]
    assert "'at' is not in the years 1 to 9999" in taken.broken[1].reason
    assert '"day":"10000-01-01"' in taken.broken[0].payload


def test_texts_within_lists_and_objects_may_lie_as_views_and_columns_in_runs() -> None:
    frame = pl.DataFrame({"tags": [["a", "b"], None], "deep": [{"x": ["c"]}, {"x": None}]})
    (source,) = open_source(frame)
    assert drain(source, None).rows == frame.to_dicts()
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    (source,) = open_source(pa.table({"x": runs}))
    assert [each["x"] for each in drain(source).rows] == ["a", "a", "b"]
