"""Named fields for people, and the protocol's words about models."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.test_wire_mlflow import MIXED, NUMBERS, WITH_VECTOR
from tests.serving.test_wire_oip import VALUES, answer

from noria.serving.binding import RequestColumn, RequestPlan, bind, digests_of_request
from noria.serving.records import SCORE, Output
from noria.serving.requests import BadRequestError, InferRequest, OutputColumn, RequestError
from noria.serving.wire.plain import encode_answer, parse_request
from noria.serving.wire.repository import (
    IndexEntry,
    encode_index,
    encode_metadata,
    parse_index,
    parse_load,
)


def ask(body: Any, plan: RequestPlan = MIXED) -> tuple[InferRequest, bool]:
    return parse_request(body if isinstance(body, bytes) else orjson.dumps(body), plan, name="late")


def test_an_object_of_fields_is_one_row() -> None:
    request, is_single = ask(
        {"distance": 10, "carrier": "AA", "prediction_id": "p1", "at": "2013-06-01T12:00:00Z"}
    )
    assert is_single
    assert (request.rows, request.prediction_ids, request.at) == (1, ["p1"], 1_370_088_000_000_000)
    assert {name: each.values for name, each in request.columns.items()} == {
        "distance": [10],
        "carrier": ["AA"],
        "seats": [None],
    }


def test_rows_are_objects_of_fields() -> None:
    rows = [
        {"distance": 10, "carrier": None, "prediction_id": "p1"},
        {"distance": 2.5, "carrier": "AA", "prediction_id": "p2", "seats": 4},
    ]
    request, is_single = ask({"rows": rows})
    assert not is_single
    assert request.prediction_ids == ["p1", "p2"]
    bound = bind(request, MIXED, name="late")
    assert bound.texts == {"carrier": [None, "AA"]}
    assert bound.numbers[1].tolist() == [2.5, 4]


def test_a_column_of_a_model_goes_before_a_word_of_the_protocol() -> None:
    plan = RequestPlan([RequestColumn("rows", is_text=False, width=2), RequestColumn("at", is_text=False)])
    request, is_single = ask({"rows": [1, 2], "at": 5}, plan)
    assert (is_single, request.at, request.columns["at"].values) == (True, None, [5])
    request, is_single = ask({"rows": [{"rows": [1, 2], "at": 5}]}, plan)
    assert (is_single, request.columns["rows"].values) == (False, [1, 2])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"distance": 1},
            "field 'carrier' is missing; 'late' wants distance (number), carrier (text), seats",
        ),
        ({"distance": 1, "carrier": "AA", "airline": 4711}, "there is no field 'airline'; 'late' wants"),
        ({"distance": "4711", "carrier": "AA"}, "field 'distance' takes a number or null"),
        ({"distance": True, "carrier": "AA"}, "field 'distance' takes a number or null"),
        ({"distance": 1, "carrier": 4711}, "field 'carrier' takes a text or null"),
        ({"distance": [4711], "carrier": "AA"}, "field 'distance' takes a number or null"),
        ({"rows": [{"distance": 1, "carrier": "AA"}, {"distance": 1}]}, "row 2: field 'carrier' is missing"),
        ({"rows": [4711]}, "row 1: a row is a JSON object"),
        ({"rows": []}, "no rows"),
        ({"rows": 5}, "there is no field 'rows'"),
        ({"rows": [{"distance": 1, "carrier": "AA"}], "carrier": "AA"}, "found 'carrier'"),
        ({"distance": 1, "carrier": "AA", "prediction_id": 4711}, "'prediction_id' holds texts"),
        ({"distance": 1, "carrier": "AA", "at": "4711"}, "`at` is no instant"),
        ([1], "no JSON object of fields"),
        (b"{", "not JSON"),
        (b'{"distance":' + b"9" * 400 + b',"carrier":"AA"}', "outside of FP64"),
        (b'{"a":' * 100_000, "not JSON"),
        ({"rows": [{}] * 100_001}, "at most 100000"),
    ],
)
def test_what_does_not_fit_is_named(body: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(body)
    assert said in str(caught.value)
    assert "4711" not in str(caught.value)


def test_vectors_and_booleans_are_told_by_their_kind() -> None:
    with pytest.raises(BadRequestError, match="'pixels' takes a list of 3 numbers or null"):
        ask({"id": "a", "pixels": [1, 2]}, WITH_VECTOR)
    plan = RequestPlan([RequestColumn("late", is_text=False, datatype="BOOL")])
    assert ask({"late": True}, plan)[0].columns["late"].values == [True]
    with pytest.raises(BadRequestError, match="takes true or false or null"):
        ask({"late": "yes"}, plan)


@settings(max_examples=200, deadline=None)
@given(
    row=st.dictionaries(
        st.sampled_from(["x", "y", "z", "prediction_id", "at", "rows"]),
        VALUES | st.lists(st.dictionaries(st.sampled_from("xyz"), VALUES)),
    )
)
def test_whatever_is_asked_is_read_whole_or_refused(row: dict[str, Any]) -> None:
    try:
        body = orjson.dumps({"x": 1, "y": 2, "z": None} | row)
    except orjson.JSONEncodeError:
        return
    try:
        request, _ = ask(body, NUMBERS)
    except BadRequestError:
        return
    if request.misfit:  # it has an id, so it may be a retry of what an earlier model answered
        assert request.prediction_ids is not None
        with pytest.raises(BadRequestError, match="'late' wants"):
            bind(request, NUMBERS, name="late")
        assert len(digests_of_request(request) or [b""]) == request.rows
        return
    assert bind(request, NUMBERS, name="late").numbers.shape == (request.rows, 3)


def test_one_row_is_answered_by_one_object() -> None:
    score = OutputColumn("score", "FP64", [0.5])
    assert orjson.loads(encode_answer(answer(score, ids=1, stale={"shops": 90}), is_single=True)) == {
        "score": 0.5,
        "prediction_id": "id-0",
        "release": "late:7",
        "version": 3,
        "stale": {"shops": 90},
    }


def test_rows_are_answered_by_rows() -> None:
    label = OutputColumn("label", "BYTES", ["yes", "no"])
    probability = OutputColumn("probability", "FP64", [0.25, 0.75, math.nan, 0], 2, ("no", "yes"))
    vector = OutputColumn("embedding", "FP64", [1.0, 2, 3, 4], 2)
    body = encode_answer(answer(label, probability, vector, defaulted={"shops": 2}), is_single=False)
    found = orjson.loads(body)
    assert found["defaulted"] == {"shops": 2}
    assert found["rows"][1] == {
        "label": "no",
        "probability": {"no": None, "yes": 0.0},
        "embedding": [3, 4],
        "prediction_id": "id-1",
        "release": "late:7",
        "version": 3,
    }


def test_metadata_name_what_goes_in_and_out() -> None:
    outputs = [Output(name="probability", width=2, labels=("no", "yes")), SCORE]
    found = orjson.loads(
        encode_metadata(
            "late", versions=[3, 4], platform="noria_skops", columns=WITH_VECTOR.columns, outputs=outputs
        )
    )
    assert found == {
        "name": "late",
        "versions": ["3", "4"],
        "platform": "noria_skops",
        "inputs": [
            {"name": "id", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "FP64", "shape": [-1, 3]},
        ],
        "outputs": [
            {
                "name": "probability",
                "datatype": "FP64",
                "shape": [-1, 2],
                "parameters": {"labels": ["no", "yes"]},
            },
            {"name": "score", "datatype": "FP64", "shape": [-1]},
            {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
            {"name": "release", "datatype": "BYTES", "shape": [-1]},
            {"name": "version", "datatype": "INT64", "shape": [-1]},
        ],
    }


def test_the_index_lists_what_is_ready_and_what_is_not() -> None:
    entries = [
        IndexEntry("late", "3", is_ready=True),
        IndexEntry("late", "4", is_ready=False, reason="digest"),
    ]
    assert orjson.loads(encode_index(entries)) == [
        {"name": "late", "version": "3", "state": "READY", "reason": ""},
        {"name": "late", "version": "4", "state": "UNAVAILABLE", "reason": "digest"},
    ]
    assert len(orjson.loads(encode_index(entries, ready_only=True))) == 1


def test_bodies_of_the_repository_may_be_empty() -> None:
    assert [parse_index(body) for body in (b"", b"\n", b"{}", b'{"ready": true}')] == [
        False,
        False,
        False,
        True,
    ]
    parse_load(b"")
    parse_load(b'{"parameters": {"unload_dependents": false}}')
    for parse, body in ((parse_index, b"[]"), (parse_index, b"x"), (parse_load, b'{"parameters": 1}')):
        with pytest.raises(BadRequestError):
            parse(body)
    with pytest.raises(BadRequestError, match="'config' is not taken: models and their configuration come"):
        parse_load(b'{"parameters": {"config": "{}"}}')
