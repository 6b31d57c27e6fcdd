"""CSV: every row that can be read is, and every other one is kept with its raw text."""

import gzip
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.lake.sources.conftest import Taken, drain

from noria.errors import ConfigError, SourceError
from noria.lake.reading import Reading
from noria.lake.sources.opening import open_source

Take = Callable[..., Taken]
WANTED = pa.schema([("id", pa.string()), ("n", pa.int64()), ("at", pa.timestamp("us", "UTC"))])


def test_types_are_those_that_all_values_have(take: Take) -> None:
    taken = take(
        "code,n,x,ok,day,at,local,text,nothing,long\n"
        "007,1,1.5,true,2024-01-31,2024-01-31T05:06:07Z,2024-01-31 05:06,a,,12345678901234567890\n"
        "010,-2,NA,FALSE,,2024-01-31T05:06:07.5+01:00,,b,,1\n"
    )
    assert taken.schema is not None
    assert [str(each.type) for each in taken.schema] == [
        "string", "int64", "double", "bool", "date32[day]", "timestamp[us, tz=UTC]", "timestamp[us]",
        "string", "string", "string",
    ]  # fmt: skip
    assert taken.rows[0] | {"at": None} == {
        "code": "007", "n": 1, "x": 1.5, "ok": True, "day": date(2024, 1, 31), "at": None,
        "local": datetime(2024, 1, 31, 5, 6), "text": "a", "nothing": None, "long": "12345678901234567890",
    }  # fmt: skip
    assert [each["at"] for each in taken.rows] == [
        datetime(2024, 1, 31, 5, 6, 7, tzinfo=UTC),
        datetime(2024, 1, 31, 4, 6, 7, 500_000, tzinfo=UTC),
    ]
    assert taken.rows[1]["x"] is None
    assert not taken.broken


def test_declared_types_decide(take: Take) -> None:
    wanted = pa.schema([("code", pa.string()), ("n", pa.int32()), ("x", pa.float64())])
    taken = take("x,code,n\n1,007,+3\n2,010,5.0\n, , 7 \n", wanted=wanted)
    assert taken.schema == pa.schema([("x", pa.float64()), ("code", pa.string()), ("n", pa.int32())])
    assert taken.rows == [
        {"x": 1.0, "code": "007", "n": 3},
        {"x": 2.0, "code": "010", "n": 5},
        {"x": None, "code": " ", "n": 7},
    ]


def test_what_is_no_row_is_kept_with_its_text_and_the_rest_goes_on(take: Take) -> None:
    content = (
        b"id,n,at\n"
        b"a,1,2024-01-01T00:00:00Z\n"
        b"b,2\n"
        b"c,x,2024-01-01T00:00:00Z\n"
        b"d,4,2024-01-01T00:00:00Z,5\n"
        b"\xff,5,2024-01-01T00:00:00Z\n"
        b'e,6,"2024-01-01\n"\n'
        b"f,99999999999999999999,never\n"
        b'g,"8"x,2024-01-01T00:00:00Z\n'
        b"h,9,2024-01-01T00:00:00Z\n"
    )
    taken = take(content, wanted=WANTED)
    assert [each["id"] for each in taken.rows] == ["a", "h"]
    assert taken.told == [
        (1, "2 fields, wanted 3", "b,2"),
        (2, "'n' cannot be read as int64", "c,x,2024-01-01T00:00:00Z"),
        (3, "4 fields, wanted 3", "d,4,2024-01-01T00:00:00Z,5"),
        (4, "'id' is no UTF-8 text", "\\xff,5,2024-01-01T00:00:00Z"),
        (5, "'at' cannot be read as timestamp[us, tz=UTC]", 'e,6,"2024-01-01\n"'),
        (
            6,
            "'n' cannot be read as int64; 'at' cannot be read as timestamp[us, tz=UTC]",
            "f,99999999999999999999,never",
        ),
        (7, "its quotes do not pair", 'g,"8"x,2024-01-01T00:00:00Z'),
    ]


CELLS = st.sampled_from(["1", "-7", "x", "", '"2"', '"a,b"', '"q""q"', 'in"side', '"open', "é", " 3 "])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=12), size=st.integers(4, 60))
def test_each_record_is_a_row_or_is_kept_however_the_file_is_cut(
    take: Take, small_chunks: Callable[[int], None], lines: list[list[str]], size: int
) -> None:
    content = "\n".join(["id,n", *(",".join(each) for each in lines)]) + "\n"
    wanted = pa.schema([("id", pa.string()), ("n", pa.int64())])
    small_chunks(1 << 20)
    whole = take(content, wanted=wanted)
    small_chunks(size)
    cut = take(content, wanted=wanted)
    assert (cut.rows, sorted(cut.told)) == (whole.rows, sorted(whole.told))
    places = sorted([each.row for each in whole.broken])
    assert len(set(places)) == len(places)
    assert all(0 <= place < len(whole.rows) + len(places) for place in places)


def test_a_misfit_in_row_one_million_is_one_misfit(take: Take) -> None:
    lines = [f"k{each},{each}" for each in range(1_000_001)]
    lines[1_000_000] = "k1000000,1.5"
    taken = take("\n".join(["id,n", *lines]))
    assert len(taken.rows) == 1_000_000
    assert taken.told == [(1_000_000, "'n' cannot be read as int64", "k1000000,1.5")]


def test_what_comes_after_the_first_block_follows_its_types(
    take: Take, small_chunks: Callable[[int], None]
) -> None:
    small_chunks(64)
    taken = take("id,n\n" + "".join(f"k{each},{each}\n" for each in range(50)) + "k50,1.5\nk51,51\n")
    assert taken.schema == pa.schema([("id", pa.string()), ("n", pa.int64())])
    assert len(taken.rows) == 51
    assert taken.told == [(50, "'n' cannot be read as int64", "k50,1.5")]


@pytest.mark.parametrize("content", ["", "\n\n", "\r\n", "\ufeff"])
def test_an_empty_file_has_no_rows(take: Take, content: str) -> None:
    assert take(content, wanted=WANTED) == Taken()


def test_a_header_alone_has_no_rows(take: Take) -> None:
    assert take("id,n,at\n", wanted=WANTED) == Taken()
    assert take("id,n,at") == Taken()


def test_no_line_end_at_the_end_is_fine(take: Take) -> None:
    assert (
        take("id,n\na,1").rows
        == take("id,n\r\na,1\r\n").rows
        == take("id,n\ra,1\r").rows
        == [{"id": "a", "n": 1}]
    )


def test_headers_are_held_to_be_names(take: Take) -> None:
    with pytest.raises(SourceError, match="has column 'a' more than once"):
        take("a,b,a\n1,2,3\n")
    with pytest.raises(SourceError, match=r"column 2 of .* has no name"):
        take("a,,c\n1,2,3\n")
    with pytest.raises(
        SourceError, match=r"lacks column 'departed_at'; the nearest is 'DepartedAt': rename it"
    ):
        take("id,DepartedAt\n", wanted=pa.schema([("id", pa.string()), ("departed_at", pa.string())]))
    with pytest.raises(SourceError, match=r"lacks column 'zzz'; supply it"):
        take("id,b\n", wanted=pa.schema([("zzz", pa.string())]))
    with pytest.raises(SourceError, match="begins with a line that is no row"):
        take('a,"b"c\n1,2\n')


def test_names_of_columns_have_one_spelling(take: Take) -> None:
    assert take("cafe\u0301,größe\n1,2\n").rows == [{"café": 1, "größe": 2}]


def test_a_file_without_a_header_needs_names(take: Take) -> None:
    assert take("1,a\n2,b\n", header=False, names=["n", "t"]).rows == [{"n": 1, "t": "a"}, {"n": 2, "t": "b"}]
    assert take("x,y\n1,a\n", names=["n", "t"]).rows == [{"n": 1, "t": "a"}]
    with pytest.raises(SourceError, match="has no header, so its columns need names"):
        take("1,a\n", header=False)
    with pytest.raises(SourceError, match="has 2 fields, but 3 names are given"):
        take("1,a\n", header=False, names=["n", "t", "u"])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_where_that_is_safe(take: Take, delimiter: str) -> None:
    assert take(f"a{delimiter}b\n1{delimiter}x\n").rows == [{"a": 1, "b": "x"}]


def test_the_delimiter_is_asked_for_where_it_is_not(take: Take) -> None:
    assert take("a;b,c\n1;2,3\n4;5\n", delimiter=";").rows == [{"a": 1, "b,c": "2,3"}, {"a": 4, "b,c": "5"}]
    with pytest.raises(SourceError, match=r"may be delimited by ',' or ';'; say which"):
        take("a;b,c\n1;2,3\n")
    assert take('a;"b,c"\n1;"2,3"\n').rows == [{"a": 1, "b,c": "2,3"}]
    assert take("a,b\tc,d\n", name="rows.tsv").rows == []
    assert take("only\n1\n").rows == [{"only": 1}]
    with pytest.raises(ConfigError, match="it has to be one ASCII character"):
        Reading(delimiter="::")


def test_encodings_are_named_or_marked(take: Take) -> None:
    text = "name,n\ncafé,1\nЖ,2\n"
    rows = [{"name": "café", "n": 1}, {"name": "Ж", "n": 2}]
    assert take(text.encode("utf-8-sig")).rows == rows
    assert take(text.encode("utf-16")).rows == rows
    assert take(text.encode("utf-16-le"), encoding="utf-16-le").rows == rows
    assert take("näme,n\ncafé,1\n".encode("cp1252"), encoding="cp1252").rows == [{"näme": "café", "n": 1}]
    with pytest.raises(SourceError, match="is no UTF-8: it is full of zero bytes"):
        take(text.encode("utf-16-le"))
    with pytest.raises(SourceError, match=r"the header of .* is no UTF-8 text; say its encoding"):
        take("näme,n\ncafé,1\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="'klingon' is no encoding"):
        take(text, encoding="klingon")
    with pytest.raises(SourceError, match="is no utf-16"):
        take(b"\xff\xfea\x00,", wanted=None)


def test_bytes_that_an_encoding_does_not_have_cost_their_row(take: Take) -> None:
    taken = take(b"name,n\n\x81x,1\ny,2\n", encoding="cp1252")
    assert taken.rows == [{"name": "y", "n": 2}]
    assert taken.told == [(0, "'name' is no UTF-8 text", "\\x81x,1")]


def test_zero_bytes_are_signs_of_texts(take: Take) -> None:
    assert take("id,n\na\0b,1\n").rows == [{"id": "a\0b", "n": 1}]


def test_an_empty_text_is_one_only_in_quotes(take: Take) -> None:
    assert take('id,t\n1,\n2,""\n3,"a\n\nb"\n').rows == [
        {"id": 1, "t": None},
        {"id": 2, "t": ""},
        {"id": 3, "t": "a\n\nb"},
    ]


def test_null_texts_can_be_named(take: Take) -> None:
    assert take("id,t,n\n-,-,-\n1,NA,2\n", nulls=["-"]).rows == [
        {"id": None, "t": None, "n": None},
        {"id": 1, "t": "NA", "n": 2},
    ]


def test_local_instants_need_to_know_where_the_clock_stood(take: Take) -> None:
    content = (
        "id,n,at\na,1,2013-03-10 01:30\nb,2,2013-03-10 02:30\nc,3,2013-11-03 01:30\nd,4,2013-07-01T12:00Z\n"
    )
    taken = take(content, wanted=WANTED, time_zone="America/New_York")
    assert [(each["id"], each["at"]) for each in taken.rows] == [
        ("a", datetime(2013, 3, 10, 6, 30, tzinfo=UTC)),
        ("d", datetime(2013, 7, 1, 12, tzinfo=UTC)),
    ]
    assert [each.row for each in taken.broken] == [1, 2]  # never was, and was twice
    local = "id,n,at\na,1,2013-03-10 01:30\n"
    with pytest.raises(
        SourceError, match=r"'at' holds instants without an offset.*time_zone='Europe/Vienna'"
    ):
        take(local, wanted=WANTED)
    assert take(local, time_zone="UTC").rows[0]["at"] == datetime(2013, 3, 10, 1, 30, tzinfo=UTC)
    with pytest.raises(ConfigError, match="'Mars/Olympus' is no time zone"):
        Reading(time_zone="Mars/Olympus")


@pytest.mark.parametrize("pack", ["gz", "bz2", "xz", "zst", "zip"])
def test_packed_files_are_unpacked_as_they_are_read(tmp_path: Path, pack: str) -> None:
    content = b"id,n\n" + b"".join(b"k%d,%d\n" % (each, each) for each in range(5_000))
    path = tmp_path / f"rows.csv.{pack}"
    if pack == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside.csv", content)
    elif pack == "zst":
        path.write_bytes(pa.compress(content, codec="zstd", asbytes=True))
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(content)
    else:
        module = {"gz": gzip, "bz2": __import__("bz2"), "xz": __import__("lzma")}[pack]
        path.write_bytes(module.compress(content))
    taken = drain(open_source(path)[0])
    assert len(taken.rows) == 5_000
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged[: -len(damaged) // 4]))
    with pytest.raises(SourceError, match="is damaged"):
        drain(open_source(path)[0])


def test_an_archive_holds_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x\n")
        archive.writestr("b.csv", "x\n")
    with pytest.raises(SourceError, match=r"holds 2 files \(a.csv, b.csv\), wanted is one"):
        drain(open_source(path)[0])


def test_a_long_line_is_kept_whole_up_to_1_mib_and_its_reason_says_where_it_was_cut(take: Take) -> None:
    (whole,) = take("id,n\na," + "é" * 100_000 + "\nb,1\n", wanted=WANTED.remove(2)).broken
    assert whole.payload == "a," + "é" * 100_000
    assert "cut" not in whole.reason
    (cut,) = take("id,n\na," + "é" * 600_000 + "\nb,1\n", wanted=WANTED.remove(2)).broken
    assert len(cut.payload.encode()) == 1 << 20
    assert cut.payload.startswith("a,é")
    assert cut.reason.endswith("; what is kept of it is cut at 1 MiB")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_an_hour_that_the_clocks_skip_or_repeat_is_said_to_be_one(
    take: Callable[..., Taken], name: str
) -> None:
    clocks = ["2024-03-31T02:28:00", "2024-10-27T02:28:00", "2024-10-27T02:28:00+01:00", "soon"]
    lines = [f'{{"id": "{each}", "at": "{clock}"}}' for each, clock in enumerate(clocks)]
    if name == "rows.csv":
        lines = ["id,at", *(f"{each},{clock}" for each, clock in enumerate(clocks))]
    wanted = pa.schema([("id", pa.string()), ("at", pa.timestamp("us", "UTC"))])
    taken = take("\n".join(lines), name=name, wanted=wanted, time_zone="Europe/Vienna")
    assert [each["id"] for each in taken.rows] == ["2"]
    assert [each.reason for each in taken.broken] == [
        "'at' is an hour that did not exist on that day in Europe/Vienna",
        "'at' is an hour that occurs twice on that day in Europe/Vienna; write its offset",
        "'at' cannot be read as timestamp[us, tz=UTC]",
    ]


def test_an_instant_is_of_the_years_1_to_9999_in_utc_too(take: Take) -> None:
    lines = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"]
    taken = take("\n".join(["at", *lines]), wanted=pa.schema([("at", pa.timestamp("us", "UTC"))]))
    assert [each["at"].year for each in taken.rows] == [9999]
    assert taken.told == [(row, "'at' is not in the years 1 to 9999", lines[row]) for row in (0, 2)]


def test_a_nested_value_keeps_all_it_has_or_costs_its_row(take: Take) -> None:
    lines = ['"{""x"":1}"', '"{""x"":1,""y"":2}"', '"{""x"":1.5}"', "", "none"]
    wanted = pa.schema([("id", pa.int64()), ("deep", pa.struct([("x", pa.int64())]))])
    taken = take("\n".join(["id,deep", *(f"{row},{line}" for row, line in enumerate(lines))]), wanted=wanted)
    assert taken.rows == [{"id": 0, "deep": {"x": 1}}, {"id": 3, "deep": None}]
    assert [each.row for each in taken.broken] == [1, 2, 4]


@pytest.mark.parametrize("encoding", ["rot13", "base64", "idna", "zip"])
def test_an_encoding_is_one_of_texts(take: Take, encoding: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{encoding}' is no encoding"):
        take("a,b\n1,2\n", encoding=encoding)
