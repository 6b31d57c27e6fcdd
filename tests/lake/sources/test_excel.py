"""Workbooks: written by openpyxl, read through calamine."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import openpyxl  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from tests.lake.sources.conftest import Taken, drain

from noria.errors import SourceError
from noria.lake.reading import Reading
from noria.lake.sources.opening import open_source


def book(path: Path, **sheets: list[list[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


ROWS: list[list[Any]] = [
    ["code", "n", "x", "ok", "at", "day", "note"],
    ["007", 1, 1.5, True, datetime(2024, 1, 31, 5, 6), date(2024, 1, 31), "é"],
    [],
    ["010", 2, 2, False, datetime(2024, 1, 31, 6, 6), None, None],
]


def read(path: Path, wanted: pa.Schema | None = None, **how: Any) -> Taken:
    return drain(open_source(path, reading=Reading(**how))[0], wanted)


def test_cells_have_types(tmp_path: Path) -> None:
    taken = read(book(tmp_path / "rows.xlsx", data=ROWS), time_zone="Europe/Vienna")
    assert taken.schema is not None
    assert [str(each.type) for each in taken.schema] == [
        "string", "int64", "double", "bool", "timestamp[us, tz=UTC]", "date32[day]", "string",
    ]  # fmt: skip
    assert taken.rows[0]["at"] == datetime(2024, 1, 31, 4, 6, tzinfo=UTC)
    assert [each["code"] for each in taken.rows] == ["007", "010"]
    assert (taken.rows[0]["day"], taken.rows[0]["note"], taken.rows[1]["note"]) == (
        date(2024, 1, 31),
        "é",
        None,
    )


def test_a_cell_that_does_not_fit_costs_its_row(tmp_path: Path) -> None:
    path = book(tmp_path / "rows.xlsx", data=[["id", "n"], ["a", 1], ["b", "many"], [3, 4], ["c", 2.5]])
    taken = read(path, pa.schema([("id", pa.string()), ("n", pa.int64())]))
    assert taken.rows == [{"id": "a", "n": 1}, {"id": "3", "n": 4}]
    assert taken.told == [
        (1, "'n' cannot be read as int64", '{"id":"b","n":"many"}'),
        (3, "'n' cannot be read as int64", '{"id":"c","n":2.5}'),
    ]


def test_the_sheet_is_named_where_several_hold_rows(tmp_path: Path) -> None:
    path = book(tmp_path / "rows.xlsx", one=[["a"], [1]], two=[["b"], [2]], three=[])
    assert read(path, sheet="two").rows == [{"b": 2}]
    with pytest.raises(SourceError, match=r"has several sheets \(one, two\); say which"):
        read(path)
    with pytest.raises(SourceError, match="has no sheet 'four'; it has one, two, three"):
        read(path, sheet="four")
    assert read(book(tmp_path / "one.xlsx", empty=[], filled=[["a"], [1]])).rows == [{"a": 1}]


def test_an_empty_workbook_has_no_rows_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    assert read(book(tmp_path / "rows.xlsx", empty=[])) == Taken()
    assert read(book(tmp_path / "rows.xlsx", head=[["a", "b"]])) == Taken()
    (tmp_path / "rows.xlsx").write_bytes(b"no such thing")
    with pytest.raises(SourceError, match="is damaged, or no workbook of Excel"):
        read(tmp_path / "rows.xlsx")


def test_a_header_is_held_to_be_names(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has column 'a' more than once"):
        read(book(tmp_path / "rows.xlsx", data=[["a", "a"], [1, 2]]))
    with pytest.raises(SourceError, match="lacks column 'code'; the nearest is 'Code'"):
        read(book(tmp_path / "rows.xlsx", data=[["Code"], [1]]), pa.schema([("code", pa.string())]))
    path = book(tmp_path / "rows.xlsx", data=[[1, "x"]])
    assert read(path, header=False, names=["n", "t"]).rows == [{"n": 1, "t": "x"}]


def test_an_instant_at_midnight_is_no_day(tmp_path: Path) -> None:
    at = [datetime(2024, 1, day, hour) for day, hour in ((1, 12), (2, 0), (3, 0))]
    path = book(tmp_path / "x.xlsx", s=[["at"], *([each] for each in at)])
    assert [each["at"] for each in read(path).rows] == at
    wanted = pa.schema([("at", pa.timestamp("us", "UTC"))])
    taken = read(path, wanted, time_zone="UTC")
    assert [each["at"] for each in taken.rows] == [each.replace(tzinfo=UTC) for each in at]
    only_days = book(tmp_path / "y.xlsx", s=[["at"], [date(2024, 1, 1)]])
    assert read(only_days).rows == [{"at": date(2024, 1, 1)}]


def test_decimals_are_as_excel_shows_them(tmp_path: Path) -> None:
    path = book(tmp_path / "x.xlsx", s=[["eur"], [0.1 + 0.2], [7], [1.005], ["2.25"]])
    taken = read(path, pa.schema([("eur", pa.decimal128(10, 2))]))
    assert [str(each["eur"]) for each in taken.rows] == ["0.30", "7.00", "2.25"]
    assert [each.row for each in taken.broken] == [2]


@pytest.mark.parametrize("how", [{"header": False}, {"header": True}])
@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_names_are_as_many_as_there_are_columns(
    tmp_path: Path, how: dict[str, bool], names: list[str]
) -> None:
    path = book(tmp_path / "x.xlsx", s=[["x", "y"], [1, 2]])
    with pytest.raises(SourceError, match=rf"has 2 cells, but {len(names)} names are given"):
        read(path, names=names, **how)
    assert read(path, names=["a", "b"]).rows == [{"a": 1, "b": 2}]


def test_a_table_need_not_begin_in_the_first_row(tmp_path: Path) -> None:
    path = book(tmp_path / "x.xlsx", s=[[], [None], ["n"], [1], ["a"], [3]])
    (source,) = open_source(path)
    taken = drain(source, pa.schema([("n", pa.int64())]))
    assert taken.rows == [{"n": 1}, {"n": 3}]
    assert [each.row for each in taken.broken] == [1]
