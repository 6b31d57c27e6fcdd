import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import NotFound, SourceError
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.profiles.patterns import find_pattern
from noria.profiles.proposals import propose_contract

AT = datetime(2024, 1, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")
_nasty = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_columns = {
    "i": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "few": (pa.int64(), st.integers(0, 3)),
    "f": (pa.float64(), st.floats()),
    "g": (pa.float64(), st.floats(-5, 5)),
    "s": (pa.string(), _nasty),
    "code": (pa.string(), st.from_regex(r"[A-C]-[0-9]{2,3}", fullmatch=True)),
    'od"d \n n': (pa.string(), st.sampled_from(['"', "\\", "\n", "a\tb", "'", '"""', "\x00", "☃"])),
    "b": (pa.bool_(), st.booleans()),
    "d": (pa.date32(), st.dates()),
    "at2": (INSTANT, st.datetimes(datetime(1970, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))),
    "l": (pa.list_(pa.int64()), st.lists(st.integers(0, 5), max_size=2)),
    "none": (pa.null(), st.none()),
}


def declared(text: str) -> Dataset:
    space: dict[str, Any] = {}
    exec(compile(text, "proposal.py", "exec"), space)
    (found,) = [each for each in space.values() if isinstance(each, Dataset)]
    return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    opened = Lake(str(tmp_path_factory.mktemp("lake")), ledger=None)
    yield opened
    opened.close()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_proposal_runs_and_accepts_the_rows_that_it_was_made_from(lake: Lake, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(_columns)), unique=True, max_size=6))
    if "l" in names and "none" in names:  # a list has no name in a schema, and without one nulls have no type
        names.remove("none")
    rows = data.draw(st.integers(1, 25))
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"r{each}" for each in range(rows)]),
        "at": pa.array([AT + timedelta(hours=each) for each in range(rows)], INSTANT),
    }
    for name in names:
        kind, values = _columns[name]
        drawn = data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[name] = pa.array(drawn, kind)
    table = pa.table(columns)
    text = propose_contract(
        "rows", table, source='a "test" \n of', key=data.draw(st.sampled_from([(), ("id",)]))
    )
    dataset = declared(text)
    verdict = lake.check(dataset, table, at=AT + timedelta(days=9999))
    assert (verdict.findings, verdict.reasons) == ((), ()), text
    assert verdict.accepted.num_rows == rows


def proposed(columns: dict[str, Any], **given: Any) -> str:
    return propose_contract("sales", pa.table(columns), source="a test", **given)


def instants(count: int, by: timedelta = timedelta(0)) -> pa.Array:
    return pa.array([AT + timedelta(hours=each) + by for each in range(count)], INSTANT)


def test_what_was_seen_is_proposed_with_its_reasons() -> None:
    text = proposed(
        {
            "sale_no": [f"s{each:03}" for each in range(50)],
            "sold_at": instants(50),
            "synced_at": instants(50, timedelta(hours=2)),
            "euro": [0.5 + each for each in range(50)],
            "pieces": [each % 7 - 3 for each in range(50)],
            "shop": [f"shop {each % 3}" for each in range(50)],
            "note": ["so" if each % 2 else None for each in range(50)],
            "free": [f"{'x' * each} and more" for each in range(50)],
        },
        others={"shops": pa.table({"name": [f"shop {each}" for each in range(4)]})},
    )
    for line in (
        'key="sale_no"',
        'event_at="sold_at"',
        'known_at="synced_at"',
        '"note": "string",  # missing in 50.0%, 1 different',
        'check.not_null("euro", "pieces", "shop", "free")',
        'check.between("euro", 0.0, 54.4),  # seen 0.5 to 49.5, 10% of the range added',
        'check.between("pieces", -4, 4)',
        'check.references("shop", "shops", "name"),  # all 3 are there',
        'check.one_of("note", ["so"])',
        'check.matches("sale_no", "[a-z][0-9]{3}")',
        'check.length("free", None, 116)',
        'check.unique("free"),  # no value came twice',
    ):
        assert line in text, text


def test_several_columns_may_be_the_key() -> None:
    days, shops = [each // 5 for each in range(40)], [each % 5 for each in range(40)]
    same = pa.array([AT] * 40, INSTANT)
    text = proposed({"day": days, "shop_id": shops, "x": [1.5] * 40, "at": same})
    assert declared(text).keys in {("day", "shop_id"), ("shop_id", "day")}
    with pytest.raises(SourceError, match="no column, and no 3 of them together"):
        proposed({"day": days, "x": [1.5] * 40, "at": same})


def test_columns_that_are_named_are_taken() -> None:
    columns = {"a": [1, 2], "b": [1, 2], "t": instants(2), "u": instants(2, timedelta(hours=-1))}
    found = declared(proposed(columns, key=("b",), event_at="u", known_at="t"))
    assert (found.keys, found.event_at, found.known_at) == (("b",), "u", "t")
    with pytest.raises(SourceError, match="'u' cannot be known_at"):
        proposed(columns, event_at="t", known_at="u")
    with pytest.raises(SourceError, match=r"'a' .* cannot be event_at"):
        proposed(columns, event_at="a")
    with pytest.raises(NotFound, match="no column named 'c'"):
        proposed(columns, key=("c",))


def test_rows_without_an_instant_or_without_rows_are_refused() -> None:
    clock = pa.array([datetime(2024, 1, 1)], pa.timestamp("us"))
    with pytest.raises(SourceError, match="opened shows a clock without a time zone: name the zone"):
        proposed({"a": [1], "opened": clock})
    with pytest.raises(SourceError, match="no column is an instant in each row"):
        proposed({"a": [1, 2], "t": pa.array([AT, None], INSTANT)})
    with pytest.raises(SourceError, match="holds no rows"):
        proposed({"a": pa.array([], pa.int64())})


def test_numbers_that_are_none_get_no_bounds() -> None:
    text = proposed({"id": [1, 2, 3], "at": instants(3), "f": [1.0, math.nan, math.inf]})
    assert "with NaN or infinities" in text
    assert 'between("f"' not in text


@given(st.lists(st.from_regex(r"[A-Z]{1,2}[.-][0-9]{1,3}", fullmatch=True) | _nasty, max_size=5))
@settings(max_examples=100, deadline=None)
def test_a_pattern_is_matched_by_all_texts(texts: list[str]) -> None:
    pattern = find_pattern(texts)
    assert pattern is None or all(re.fullmatch(pattern, each) for each in texts)


def test_a_proposal_names_the_file_that_it_is_for(tmp_path: Path) -> None:
    text = propose_contract("class_", pa.table({"id": [1], "at": instants(1)}), source="x.csv")
    (tmp_path / "shop.py").write_text(text, encoding="utf-8")
    assert declared((tmp_path / "shop.py").read_text(encoding="utf-8")).name == "class_"
