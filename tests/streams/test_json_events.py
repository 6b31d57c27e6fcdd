"""From JSON to columns: what fits, and what is told of an event that does not."""

from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.lake.schema import INSTANT
from noria.streams.contract import MAX_EVENT_BYTES, StreamEvent
from noria.streams.json_events import JsonEvents

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("n", pa.int32()),
        ("x", pa.float64()),
        ("ok", pa.bool_()),
        ("at", INSTANT),
        ("day", pa.date32()),
        ("price", pa.decimal128(8, 2)),
        ("local", pa.timestamp("us")),
        ("raw", pa.binary()),
        ("tags", pa.list_(pa.string())),
        ("deep-er", pa.struct([("a b", pa.int64()), ("at", INSTANT)])),
    ]
)


def events(*payloads: bytes) -> list[StreamEvent]:
    return [StreamEvent(100 + place, payload, 0, None) for place, payload in enumerate(payloads)]


def test_a_whole_event_is_read_with_every_type() -> None:
    payload = (
        b'{"id":"a","n":3,"x":2,"ok":true,"at":"2024-05-01T10:00:00+02:00","day":"2024-05-01","price":"1.25",'
        b'"local":"2024-05-01T10:00:00","raw":"aGk=","tags":["p",null],'
        b'"deep-er":{"a b":1,"at":"2024-05-01T08:00:00Z"}}'
    )
    batches, broken = JsonEvents(SCHEMA).read(events(payload, b'{"id":"b"}', b"{}"))
    assert broken == []
    rows = pa.Table.from_batches(batches).to_pylist()
    at = datetime(2024, 5, 1, 8, tzinfo=UTC)
    assert rows[0] == {
        "id": "a", "n": 3, "x": 2.0, "ok": True, "at": at, "day": date(2024, 5, 1), "price": Decimal("1.25"),
        "local": datetime(2024, 5, 1, 10), "raw": b"hi", "tags": ["p", None], "deep-er": {"a b": 1, "at": at},
    }  # fmt: skip
    assert rows[1] == dict.fromkeys(SCHEMA.names) | {"id": "b"}
    assert rows[2] == dict.fromkeys(SCHEMA.names)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "the event is empty"),
        (b" \n ", "the event is empty"),
        (b"hello", "no JSON"),
        (b'{"id":"a"', "no JSON"),
        (b'{"id":"a"} x', "no JSON"),
        (b'{"id":"a"}{"id":"b"}', "no JSON"),
        (b'{"x":NaN}', "no JSON"),
        (b'{"x":Infinity}', "no JSON"),
        (b'\xef\xbb\xbf{"id":"a"}', "no JSON"),
        (b'{"id":"\xff"}', "no UTF-8"),
        (b'{"id":"\\ud800"}', "no JSON"),
        (b"[1]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"id":1}', r"Expected `str \| null`, got `int` - at `\$.id`"),
        (b'{"n":"1"}', r"got `str` - at `\$.n`"),
        (b'{"n":1.5}', r"got `float` - at `\$.n`"),
        (b'{"n":3000000000}', "'n' does not fit int32"),
        (b'{"n":99999999999999999999}', "'n' does not fit int32"),
        (b'{"x":1e999}', "out of range"),
        (b'{"ok":1}', r"at `\$.ok`"),
        (b'{"at":"yesterday"}', "'at' does not fit an instant with its time zone"),
        (b'{"at":"2024-05-01T10:00:00"}', "has no time zone"),
        (b'{"at":1714557600}', r"at `\$.at`"),
        (b'{"day":"2024-13-01"}', r"at `\$.day`"),
        (b'{"price":"1.255"}', "'price' does not fit decimal"),
        (b'{"local":"2024-05-01T10:00:00Z"}', r"at `\$.local`"),
        (b'{"raw":"?"}', r"at `\$.raw`"),
        (b'{"tags":[1]}', r"at `\$.tags\[0\]`"),
        (b'{"deep-er":{"a b":"x"}}', r"at `\$.deep-er.a b`"),
        (b'{"deep-er":{"c":1}}', "unknown field `c`"),
        (b'{"colour":"red"}', "unknown field `colour`"),
    ],
)
def test_what_is_no_row_says_why_and_the_others_are_rows(payload: bytes, reason: str) -> None:
    import re

    batches, broken = JsonEvents(SCHEMA).read(events(b'{"id":"before"}', payload, b'{"id":"after"}'))
    assert pa.Table.from_batches(batches)["id"].to_pylist() == ["before", "after"]
    assert [each.row for each in broken] == [101]
    assert re.search(reason, broken[0].reason), broken[0].reason
    assert broken[0].payload == payload.decode(errors="backslashreplace")


def test_an_instant_may_have_more_digits_than_a_table() -> None:
    batches, broken = JsonEvents(SCHEMA).read(events(b'{"at":"2024-05-01T10:00:00.1234567Z"}', b"{}"))
    assert broken == []
    found = pa.Table.from_batches(batches)["at"].to_pylist()
    assert found == [datetime(2024, 5, 1, 10, 0, 0, 123457, UTC), None]


def test_the_largest_event_that_is_no_row_is_kept_whole() -> None:
    _, broken = JsonEvents(SCHEMA).read(events(b"x" * MAX_EVENT_BYTES))
    assert broken[0].payload == "x" * MAX_EVENT_BYTES


GOOD = st.fixed_dictionaries(
    {"id": st.text(max_size=5), "n": st.none() | st.integers(-(2**31), 2**31 - 1)},
    optional={"x": st.floats(allow_nan=False, allow_infinity=False), "tags": st.lists(st.text(max_size=3))},
).map(msgspec.json.encode)
BAD = st.sampled_from([b"", b"x", b'{"n":5000000000}', b'{"at":"x"}', b'{"y":1}', b'{"id":"\xff"}'])


@given(st.lists(st.tuples(st.booleans(), GOOD, BAD), max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_event_is_a_row_or_told_of_in_its_order(drawn: list[tuple[bool, bytes, bytes]]) -> None:
    payloads = [good if is_good else bad for is_good, good, bad in drawn]
    batches, broken = JsonEvents(SCHEMA).read(events(*payloads))
    rows = [row for batch in batches for row in batch.to_pylist()]
    wanted = [msgspec.json.decode(good) for is_good, good, _ in drawn if is_good]
    assert [row["id"] for row in rows] == [each["id"] for each in wanted]
    assert [row["n"] for row in rows] == [each["n"] for each in wanted]
    assert [each.row for each in broken] == [100 + place for place, each in enumerate(drawn) if not each[0]]


def test_an_instant_is_of_the_years_1_to_9999() -> None:
    far = b'{"id":"b","at":"9999-12-31T23:59:59-01:00"}'
    batches, broken = JsonEvents(SCHEMA).read(events(b'{"id":"a","at":"9999-12-31T23:59:59Z"}', far))
    assert [each["id"] for each in pa.Table.from_batches(batches).to_pylist()] == ["a"]
    assert [each.row for each in broken] == [101]
    assert "it is not in the years 1 to 9999" in broken[0].reason
