import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.checks.payloads import read_payloads
from noria.checks.verdicts import row_json, row_jsons

SCHEMA = pa.schema(
    [
        ("i", pa.int32()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.binary()),
        ("o", pa.bool_()),
        ("t", pa.timestamp("us", "UTC")),
        ("n", pa.timestamp("us")),
        ("d", pa.date32()),
        ("m", pa.decimal128(12, 3)),
        ("l", pa.list_(pa.float64())),
        ("r", pa.struct([("a", pa.timestamp("us", "UTC")), ("c", pa.list_(pa.string()))])),
    ]
)
_instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
_aware = _instants.map(lambda each: each.replace(tzinfo=UTC))
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_floats = st.floats()
_values = {
    "i": st.integers(-(2**31), 2**31 - 1),
    "f": _floats,
    "s": _texts,
    "b": st.binary(max_size=6),
    "o": st.booleans(),
    "t": _aware,
    "n": _instants,
    "d": st.dates(),
    "m": st.decimals(-(10**8), 10**8, places=3),
    "l": st.lists(st.none() | _floats, max_size=3),
    "r": st.fixed_dictionaries({"a": st.none() | _aware, "c": st.none() | st.lists(_texts, max_size=2)}),
}


@given(
    st.lists(
        st.fixed_dictionaries({name: st.none() | each for name, each in _values.items()}),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=80, deadline=None)
def test_rows_come_back_as_they_were(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    assert row_jsons(table) == [row_json(row) for row in table.to_pylist()]
    back, faults = read_payloads([row_json(row) for row in table.to_pylist()], SCHEMA)
    assert faults == [""] * len(rows)
    assert repr(back.to_pylist()) == repr(table.to_pylist())


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ("", "no JSON"),
        ("[1]", "no JSON object"),
        ('{"i": "1"}', "column 'i' is '1', wanted int32"),
        ('{"i": 1.5}', "column 'i' is 1.5, wanted int32"),
        ('{"i": 99999999999}', "column 'i' is 99999999999, wanted int32"),
        ('{"f": "many"}', "column 'f' is 'many', wanted double"),
        ('{"t": "yesterday"}', "column 't' is 'yesterday'"),
        ('{"d": "2013-02-30"}', "column 'd'"),
        ('{"m": "1.23456"}', "column 'm'"),
        ('{"b": "!"}', "column 'b'"),
        ('{"l": 3}', "column 'l'"),
        ('{"o": "yes"}', "column 'o'"),
        ('{"s": 5}', "column 's' is 5, wanted string"),
    ],
)
def test_what_is_no_row_is_told_and_spoils_no_other(payload: str, told: str) -> None:
    rows, faults = read_payloads(['{"i": 7}', payload, '{"i": 8}'], SCHEMA)
    assert told in faults[1]
    assert (faults[0], faults[2]) == ("", "")
    assert rows["i"].to_pylist()[::2] == [7, 8]


def test_columns_that_are_lacking_are_null_and_others_are_left_out() -> None:
    rows, faults = read_payloads(
        ['{"x": 1, "f": "nan"}'], pa.schema([("f", pa.float64()), ("g", pa.int64())])
    )
    assert faults == [""]
    assert math.isnan(rows["f"][0].as_py())
    assert rows["g"].to_pylist() == [None]
