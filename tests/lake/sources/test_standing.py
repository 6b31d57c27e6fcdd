"""Where a row stands in its file: the line that an editor shows, the row that Excel shows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.lake.reading import Reading
from noria.lake.sources import standing
from noria.lake.sources.opening import open_file
from noria.lake.sources.standing import Standing

WANTED = pa.schema([("id", pa.string()), ("n", pa.int64())])


def stands(path: Path, wanted: pa.Schema | None = WANTED, **how: Any) -> dict[str, str | None]:
    """Give what is said of each row by its id, which is in the text of one that could not be read too."""
    source = open_file(path, reading=Reading(**how))
    ids: list[str] = []
    for piece in source.pieces(wanted):
        if isinstance(piece, pa.RecordBatch):
            ids += piece["id"].to_pylist()
        else:
            ids += [each.payload for each in piece]
    assert source.where(len(ids)) is None
    return {each: source.where(place) for place, each in enumerate(ids)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(["plain", "blank", "quoted", "tall", "ragged", "misfit"]), max_size=30),
    end=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
    chunk=st.sampled_from([7, 40, 1 << 20]),
)
def test_each_row_of_a_csv_file_has_the_line_that_an_editor_shows(
    tmp_path: Path, kinds: list[str], end: str, ended: bool, chunk: int
) -> None:
    lines, wanted = ["id,n"], {}
    for number, kind in enumerate(kinds):
        line = len(lines) + 1
        text = {
            "plain": f"k{number},1",
            "blank": "",
            "quoted": f'"k{number}","1"',
            "tall": f'"k{number}{end}more{end}",1',
            "ragged": f"k{number},1,1",
            "misfit": f"k{number},many",
        }[kind]
        lines += text.split(end)
        if kind != "blank":
            key = f"k{number}{end}more{end}" if kind == "tall" else f"k{number}"
            wanted[text if kind in {"ragged", "misfit"} else key] = f"line {line}"
    path = tmp_path / "rows.csv"
    path.write_bytes((end.join(lines) + (end if ended else "")).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noria.lake.sources.files.CHUNK_BYTES", chunk)
        assert stands(path) == wanted


def test_a_wrong_quote_moves_no_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\n\nid,n\na,1\n\nb"x",2\nc,3\n"d\n",4\n"e,5\nf,6\n')
    assert stands(path) == {
        "a": "line 4", "c": "line 7", "d\n": "line 8", 'b"x"': "line 6", "f": "line 11", '"e,5': "line 10",
    }  # fmt: skip


def test_a_file_without_a_header_begins_at_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,1\nb,2\n")
    assert stands(tmp_path / "rows.csv", header=False, names=("id", "n")) == {"a": "line 1", "b": "line 2"}


@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_json_lines_have_lines_and_elements_of_an_array_have_rows(
    tmp_path: Path, chunk: int, small_chunks: Callable[[int], None]
) -> None:
    small_chunks(chunk)
    rows = [json.dumps({"id": each, "n": n}) for each, n in (("a", 1), ("b", "x"), ("c", 3))]
    (tmp_path / "rows.jsonl").write_text(f"{rows[0]}\n\n \n{rows[1]}\r\n{rows[2]}\nno\n")
    assert stands(tmp_path / "rows.jsonl") == {
        "a": "line 1", rows[1]: "line 4", "c": "line 5", "no": "line 6",
    }  # fmt: skip
    (tmp_path / "rows.json").write_text(f"[{','.join(rows)}]")
    assert stands(tmp_path / "rows.json") == {"a": "row 1", "c": "row 3", rows[1]: "row 2"}


def test_rows_of_columnar_files_and_sheets_are_counted_from_one(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c"], "n": [1.0, 2.5, 3.0]})
    pq.write_table(table, tmp_path / "rows.parquet")
    bad = '{"id":"b","n":2.5}'
    assert stands(tmp_path / "rows.parquet") == {"a": "row 1", "c": "row 3", bad: "row 2"}
    with pa.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as out:
        out.write_table(table)
    assert stands(tmp_path / "rows.arrow") == {"a": "row 1", "c": "row 3", bad: "row 2"}
    book = openpyxl.Workbook()
    for row in (["id", "n"], ["a", 1], [], ["b", 2.5], ["c", 3]):
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    assert stands(tmp_path / "rows.xlsx") == {"a": "row 2", "c": "row 5", bad: "row 4"}


def test_a_file_of_very_many_runs_is_told_as_far_as_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_MOST_RUNS", 2)
    told = Standing("line")
    told.give(np.array([1, 3]))
    told.give(np.array([4, 5]))  # goes on where the last run ended
    told.give(np.array([7]))
    told.give(np.array([8]))
    assert [told.find(place) for place in range(-1, 6)] == [
        None, "line 1", "line 3", "line 4", "line 5", None, None,
    ]  # fmt: skip
