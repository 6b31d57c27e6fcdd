"""JSON lines: an object a line; what is none is kept."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.lake.sources.conftest import Taken

from noria.errors import SourceError
from noria.lake.sources import json_lines

Take = Callable[..., Taken]
NAME = "rows.jsonl"
WANTED = pa.schema([("id", pa.string()), ("n", pa.int64()), ("at", pa.timestamp("us", "UTC"))])


def test_types_are_those_of_the_values(take: Take) -> None:
    taken = take(
        '{"id": "a", "n": 1, "x": 1, "ok": true, "at": "2024-01-31T05:06:07Z", "day": "2024-01-31"}\n'
        '{"id": "b", "x": 1.5, "tags": ["t"], "deep": {"v": 1, "none": null}}\n',
        name=NAME,
    )
    assert taken.schema is not None
    assert {each.name: str(each.type) for each in taken.schema} == {
        "id": "string", "n": "int64", "x": "double", "ok": "bool", "at": "timestamp[us, tz=UTC]",
        "day": "date32[day]", "tags": "list<item: string>", "deep": "struct<v: int64, none: string>",
    }  # fmt: skip
    first, second = taken.rows
    assert (first["at"], first["day"]) == (datetime(2024, 1, 31, 5, 6, 7, tzinfo=UTC), date(2024, 1, 31))
    assert (second["n"], second["tags"], second["deep"]) == (None, ["t"], {"v": 1, "none": None})


def test_nothing_inside_of_an_object_or_a_list_is_dropped_or_cut(take: Take) -> None:
    deep = pa.struct([("x", pa.int64()), ("y", pa.list_(pa.float64())), ("at", pa.timestamp("us", "UTC"))])
    good = [
        {"x": 1.0, "y": [1, 2.5], "at": "2024-01-01T00:00:00+01:00"},
        {"y": None},
        None,
    ]
    bad: list[Any] = [
        {"x": 1, "z": 2},
        {"x": 1.5},
        {"x": True},
        {"y": [True]},
        {"y": ["1"]},
        {"y": 1.5},
        {"at": "2024-01-01T00:00:00"},
        {"at": "0001-01-01T00:00:00+14:00"},
        {"at": "9999-12-31T23:00:00-05:00"},
        [1],
    ]
    lines = [msgspec.json.encode({"deep": each}) for each in [*good, *bad]]
    taken = take(b"\n".join(lines), name=NAME, wanted=pa.schema([("deep", deep)]))
    at = datetime(2023, 12, 31, 23, tzinfo=UTC)
    empty = {"x": None, "y": None, "at": None}
    assert [each["deep"] for each in taken.rows] == [{"x": 1, "y": [1.0, 2.5], "at": at}, empty, None]
    assert [each.row for each in taken.broken] == list(range(3, 3 + len(bad)))


def test_the_first_rows_need_not_agree_on_what_is_nested(take: Take) -> None:
    lines = [
        '{"a": [1]}',
        '{"a": [[1]]}',
        '{"a": [2]}',
        '{"a": [{"x": 1}]}',
        '{"a": {"x": [1]}}',
        '{"a": null}',
    ]
    taken = take("\n".join(lines), name=NAME)
    assert taken.rows == [{"a": [1]}, {"a": [2]}, {"a": None}]
    assert [each.row for each in taken.broken] == [1, 3, 4]
    for levels in (17, 500):
        taken = take(f'{{"a": {"[" * levels}{"]" * levels}, "b": 1}}\n{{"b": 2}}', name=NAME)
        assert (taken.rows, taken.told[0][1]) == ([{"a": None, "b": 2}], "'a' is a list, wanted a text")


def test_decimals_are_those_that_are_written(take: Take) -> None:
    wanted = pa.schema([("eur", pa.decimal128(38, 20)), ("x", pa.float64())])
    texts = ["1.10", "5", '"2.25"', "12345678901234567.89", "1e400", "true", '"a"', "null"]
    taken = take("\n".join(f'{{"eur": {each}, "x": 0.1}}' for each in texts), name=NAME, wanted=wanted)
    assert [each["eur"] for each in taken.rows] == [
        *map(Decimal, ("1.1", "5", "2.25", "12345678901234567.89")),
        None,
    ]
    assert {each["x"] for each in taken.rows} == {0.1}
    assert [each.row for each in taken.broken] == [4, 5, 6]


def test_what_is_no_row_is_kept_and_the_rest_goes_on(take: Take) -> None:
    lines = [
        b'{"id": "a", "n": 1, "at": "2024-01-01T00:00:00Z"}',
        b'{"id": "b", "n": 1',
        b"[1]",
        b'{"id": "c", "n": "1"}',
        b'{"id": "d", "n": 1.5}',
        b'{"id": 5, "n": 1}',
        b'{"id": "\xff"}',
        b'{"id": "e", "n": true}',
        b'{"id": "f", "m": 1}',
        b'{"id": "g", "n": NaN}',
        b'{"id": "h", "at": "yesterday"}',
        b'{"id": "i", "at": 5}',
        b'{"id": "j", "n": 2.0}',
    ]
    taken = take(b"\n\n".join(lines) + b"\r\n", name=NAME, wanted=WANTED)
    assert [each["id"] for each in taken.rows] == ["a", "j"]
    assert [(each.row, each.reason) for each in taken.broken] == [
        (1, "cannot be read as JSON"),
        (2, "is no JSON object"),
        (3, "'n' cannot be read as int64"),
        (4, "'n' cannot be read as int64"),
        (5, "'id' is a number, wanted a text"),
        (6, "cannot be read as JSON"),
        (7, "'n' cannot be read as int64"),
        (8, "has 'm', which the table does not have"),
        (9, "cannot be read as JSON, which has no NaN"),
        (10, "'at' cannot be read as timestamp[us, tz=UTC]"),
        (11, "'at' cannot be read as timestamp[us, tz=UTC]"),
    ]
    assert taken.broken[0].payload == '{"id": "b", "n": 1'
    assert taken.broken[5].payload == '{"id": "\\xff"}'


VALUES = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.text("ab\né", max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["id", "n", "z"]), VALUES), max_size=12), st.integers(1, 50))
def test_each_line_is_a_row_or_is_kept_however_the_file_is_cut(
    take: Take, small_chunks: Callable[[int], None], rows: list[dict[str, Any]], size: int
) -> None:
    wanted = pa.schema([("id", pa.string()), ("n", pa.int64()), ("z", pa.float64())])
    small_chunks(size)
    taken = take(b"\n".join(msgspec.json.encode(each) for each in rows), name=NAME, wanted=wanted)
    expected = [{name: row.get(name) for name in wanted.names} for row in rows if _fits(row)]
    assert taken.rows == expected
    assert [each.row for each in taken.broken] == [place for place, row in enumerate(rows) if not _fits(row)]


def _fits(row: dict[str, Any]) -> bool:
    text, whole, real = row.get("id"), row.get("n"), row.get("z")
    return (
        (text is None or isinstance(text, str))
        and (whole is None or (not isinstance(whole, str) and whole == int(whole) and abs(whole) < 2**63))
        and not isinstance(real, str)
    )


def test_an_array_of_objects_is_taken_apart(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    assert take('[{"id": "a"},\n {"id": 5}, {"id": "b"}]', name="rows.json").rows == [
        {"id": "a"},
        {"id": "b"},
    ]
    with pytest.raises(SourceError, match="begins as an array of JSON, but is none"):
        take('[{"id": "a"}', name="rows.json")
    monkeypatch.setattr(json_lines, "MAX_ARRAY_BYTES", 5)
    with pytest.raises(SourceError, match="write JSON lines"):
        take('[{"id": "a"}]', name="rows.json")


def test_a_key_of_all_rows_that_no_column_has_is_no_matter_of_single_rows(take: Take) -> None:
    with pytest.raises(SourceError, match="has 'm', which the table does not have"):
        take('{"id": "a", "m": 1}\n{"id": "b", "m": 2}\n', name=NAME, wanted=WANTED)


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_has_no_rows(take: Take, content: str) -> None:
    assert take(content, name=NAME, wanted=WANTED) == Taken()


def test_values_that_are_no_texts_are_said_to_be_what_they_are(take: Callable[..., Taken]) -> None:
    lines = [b'{"id": 5}', b'{"id": true}', b'{"id": [1]}', b'{"id": {"a": 1}}']
    taken = take(b"\n".join(lines), name=NAME, wanted=pa.schema([("id", pa.string())]))
    assert [each.reason for each in taken.broken] == [
        f"'id' is {each}, wanted a text" for each in ("a number", "true or false", "a list", "an object")
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (NAME, '{"id": "a", "m": 1}\n{"m": "two", "more": [2], "id": "b"}\n'),
        ("rows.csv", "m,id,more\n1,a,\ntwo,b,[2]\n"),
    ],
)
def test_where_only_what_is_wanted_is_read_other_columns_do_no_harm(
    take: Take, name: str, content: str
) -> None:
    wanted = pa.schema([("id", pa.string())])
    taken = take(content, name=name, wanted=wanted, only_wanted=True)
    assert taken.rows == [{"id": "a"}, {"id": "b"}] and not taken.broken
