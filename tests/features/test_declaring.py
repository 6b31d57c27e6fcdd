"""Declarations, and what their columns may hold."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from noria.errors import ConfigError, SourceError
from noria.features import FeatureView, ViewSpec, agg
from noria.features.columns import entity_codes, key_bytes
from noria.features.layout import Measure
from noria.features.measuring import Measures
from noria.features.offline import point_in_time
from noria.lake.declarations import Dataset

AT = datetime(2013, 3, 1, 12, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
SOURCE = Dataset("things", key="id", event_at="event_at")


def view(**features: Any) -> FeatureView:
    return FeatureView("v", source=SOURCE, entity="who", features=features)


def one_row(**columns: Any) -> pa.Table:
    given = {
        "id": [1],
        "event_at": pa.array([AT], INSTANT),
        "known_at": pa.array([AT], INSTANT),
        "who": ["a"],
    }
    return pa.table({**given, **columns})


SPINE = pa.table({"who": ["a"], "at": pa.array([AT], INSTANT)})


def test_a_spec_survives_the_wire_and_keeps_its_digest() -> None:
    spec = view(
        n=agg.count("6h"), p=agg.quantile("x", 0.9, "30d", low=0, high=10, width=1), age=agg.age()
    ).spec()
    again = msgspec.json.decode(msgspec.json.encode(spec), type=ViewSpec)
    assert again == spec
    assert again.digest == spec.digest != view(n=agg.count("7h")).spec().digest
    assert spec.columns == ("v__n", "v__p", "v__age")
    assert spec.source_columns == ("event_at", "id", "known_at", "who", "x")
    assert spec.longest_window_s is None
    assert view(n=agg.count("6h"), a=agg.age(max_age="3d")).spec().longest_window_s == 3 * 86_400


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: agg.count("soon"),
        lambda: agg.sum("x", "1d", scale=0),
        lambda: agg.quantile("x", 1.5, "1d", low=0, high=1, width=1),
        lambda: agg.quantile("x", 0.1234567, "1d", low=0, high=1, width=1),
        lambda: agg.quantile("x", 0.5, "1d", low=0, high=1, width=0.5),
        lambda: agg.quantile("x", 0.5, "1d", low=1, high=1, width=1),
        lambda: agg.quantile("x", 0.5, "1d", low=0, high=1, width=-1),
        lambda: agg.quantile("x", 0.5, "1d", low=0, high=10_000, width=1),
        lambda: view(),
        lambda: view(a__b=agg.count("1d")),
        lambda: view(a="count"),
        lambda: FeatureView("", source=SOURCE, entity="who", features={"n": agg.count("1d")}),
        lambda: FeatureView("v", source=SOURCE, entity=(), features={"n": agg.count("1d")}),
    ],
)
def test_declarations_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([1.5]), "give `scale`"),
        (pa.array(["x"]), "numeric"),
        (pa.array([2**41]), "lower `scale`"),
        (pa.array([2**63], pa.uint64()), "lower `scale`"),
        (pa.array([AT], INSTANT), "numeric"),
    ],
)
def test_columns_that_cannot_be_counted_are_source_errors(column: pa.Array, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        point_in_time(view(m=agg.mean("x", "1d")), one_row(x=column), SPINE)


def test_a_missing_column_is_named_with_what_there_is() -> None:
    with pytest.raises(SourceError, match="'x' is missing; there is 'id', 'event_at'"):
        point_in_time(view(m=agg.mean("x", "1d")), one_row(), SPINE)


@pytest.mark.parametrize(
    "column", [pa.array([AT.replace(tzinfo=None)]), pa.array([None], INSTANT), pa.array([5])]
)
def test_instants_have_a_time_zone_and_are_there(column: pa.Array) -> None:
    with pytest.raises(SourceError, match="event_at"):
        point_in_time(view(n=agg.count("1d")), one_row(event_at=column), SPINE)


def test_whole_floats_and_decimals_and_booleans_count() -> None:
    for column in (pa.array([3.0]), pa.array([3]).cast(pa.decimal128(21, 2)), pa.array([3], pa.uint8())):
        assert point_in_time(view(m=agg.mean("x", "1d")), one_row(x=column), SPINE)["v__m"].to_pylist() == [
            3.0
        ]
    assert Measures(one_row(x=pa.array([True]))).measured(Measure("x", 1)).values.tolist() == [1]


def test_dictionaries_are_entities_like_plain_text() -> None:
    rows = one_row().set_column(3, "who", pa.array(["a"]).dictionary_encode())
    assert point_in_time(view(n=agg.count("1d")), rows, SPINE)["v__n"].to_pylist() == [1.0]


def test_compound_entities_do_not_run_into_each_other() -> None:
    rows = pa.table({"a": ["x1:", "x"], "b": ["y", "1:y"]})
    codes, of_spine, entities = entity_codes(rows, rows.slice(1), ("a", "b"))
    assert entities == 1
    assert (codes.tolist(), of_spine.tolist()) == ([-1, 0], [0])
    codes, of_spine, entities = entity_codes(rows.slice(0, 0), rows, ("a", "b"))
    assert entities == len(set(of_spine.tolist())) == 2


def test_keys_compare_as_bytes_like_their_values() -> None:
    numbers = [-(2**63), -7, 0, 3, 2**63 - 1]
    texts = ["", "\0", "a", "a\0", "aa", "ä", "😀"]
    alone = key_bytes(pa.table({"k": numbers}), ("k",))
    assert alone == sorted(alone)
    pairs = sorted((text, number) for text in texts for number in numbers)
    encoded = key_bytes(
        pa.table({"t": [pair[0] for pair in pairs], "n": [pair[1] for pair in pairs]}), ("t", "n")
    )
    assert encoded == sorted(encoded)
    assert len(set(encoded)) == len(pairs)


def test_an_empty_spine_and_empty_sources_give_columns() -> None:
    features = {
        "n": agg.count("1d"),
        "last": agg.last("x"),
        "p": agg.quantile("x", 0.5, "1d", low=0, high=9, width=1),
    }
    rows = one_row(x=pa.array([1]))
    assert point_in_time(view(**features), rows, SPINE.slice(0, 0)).num_rows == 0
    empty = point_in_time(view(**features), rows.slice(0, 0), SPINE)
    assert empty["v__n"].to_pylist() == [0.0]
    assert np.isnan(empty["v__last"].to_numpy()).all()
    assert np.isnan(empty["v__p"].to_numpy()).all()
