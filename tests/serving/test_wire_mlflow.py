"""MLflow's scoring protocol and KServe's first one."""

import math
from http import HTTPStatus
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.test_wire_oip import VALUES, answer

from noria.serving.binding import RequestColumn, RequestPlan, bind
from noria.serving.requests import BadRequestError, OutputColumn, RequestError
from noria.serving.wire.kserve import encode_models, encode_ready, parse_predict
from noria.serving.wire.mlflow import encode_error, encode_predictions, parse_invocations

MIXED = RequestPlan(
    [
        RequestColumn("distance", is_text=False),
        RequestColumn("carrier", is_text=True, datatype="BYTES"),
        RequestColumn("seats", is_text=False, datatype="INT64", optional=True),
    ]
)
NUMBERS = RequestPlan([RequestColumn(name, is_text=False) for name in "xyz"])
VECTOR = RequestPlan([RequestColumn("pixels", is_text=False, width=3)])
WITH_VECTOR = RequestPlan([RequestColumn("id", is_text=True, datatype="BYTES"), *VECTOR.columns])


def rows_of(body: Any, plan: RequestPlan = MIXED, content_type: str | None = "application/json") -> Any:
    """Read a request and bind it as the server does: numbers row by row, and texts."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    bound = bind(parse_invocations(data, content_type, plan, name="late"), plan, name="late")
    numbers = [[None if math.isnan(each) else each for each in row] for row in bound.numbers.tolist()]
    return numbers, dict(bound.texts)


def refused(body: Any, plan: RequestPlan = MIXED, content_type: str | None = "application/json") -> str:
    with pytest.raises(RequestError) as caught:
        rows_of(body, plan, content_type)
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {
            "dataframe_split": {
                "index": [7, 9],
                "columns": ["carrier", "distance", "seats"],
                "data": [["AA", 10, None], [None, 2.5, 3]],
            }
        },
        {"dataframe_split": {"data": [[10, "AA", None], [2.5, None, 3]]}},
        {"dataframe_records": [{"carrier": "AA", "distance": 10}, {"distance": 2.5, "seats": 3}]},
        {"instances": [{"carrier": ["AA"], "distance": [10]}, {"distance": [2.5], "seats": [3]}]},
        {"instances": [[10, "AA", None], [2.5, None, 3]]},
        {"inputs": [[10, "AA", None], [2.5, None, 3]], "params": {"temperature": 0.5}},
        {"inputs": {"distance": [10, 2.5], "carrier": ["AA", None], "seats": [None, 3]}},
        {"inputs": {"distance": [[10], [2.5]], "carrier": [["AA"], [None]], "seats": [[None], [3]]}},
        b'{"dataframe_split": {"columns": ["distance", "carrier", "seats"],'
        b' "data": [[10.0, "AA", NaN], [2.5, null, 3.0]]}}',
    ],
)
def test_every_form_of_json_reads_the_same(body: Any) -> None:
    assert rows_of(body) == ([[10, None], [2.5, 3]], {"carrier": ["AA", None]})


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2.5, None], [4, 5, 6]]},
        {"inputs": [[1, 2.5, None], [4, 5, 6]]},
        {"dataframe_split": {"columns": [0, 1, 2], "data": [[1, 2.5, None], [4, 5, 6]]}},
        {"dataframe_split": {"columns": ["x", "y", "z"], "data": [[1, 2.5, None], [4, 5, 6]]}},
    ],
)
def test_rows_without_names_are_in_the_order_of_the_model(body: Any) -> None:
    assert rows_of(body, NUMBERS) == ([[1, 2.5, None], [4, 5, 6]], {})


def test_vectors_are_lists() -> None:
    wanted: Any = [[1, 2, 3], [4, None, 6]]
    assert rows_of({"instances": wanted}, VECTOR) == (wanted, {})
    assert rows_of({"inputs": {"pixels": wanted}}, VECTOR) == (wanted, {})
    named = [{"id": "a", "pixels": [1, 2, 3]}, {"id": "b", "pixels": None}]
    assert rows_of({"dataframe_records": named}, WITH_VECTOR)[0] == [[1, 2, 3], [None] * 3]
    assert rows_of({"instances": [["a", [1, 2, 3]]]}, WITH_VECTOR)[0] == [[1, 2, 3]]
    for wrong in ([1, 2], 5, [[1, 2, 3]], ["x", "y", "z"]):
        assert "pixels" in refused({"dataframe_records": [{"id": "a", "pixels": wrong}]}, WITH_VECTOR)


def test_a_list_of_values_is_the_one_column_of_a_model() -> None:
    plan = RequestPlan([RequestColumn("word", is_text=True, datatype="BYTES")])
    assert rows_of({"instances": ["a", "b"]}, plan) == ([[], []], {"word": ["a", "b"]})


def test_ids_of_rows_come_as_a_column() -> None:
    body = orjson.dumps({"dataframe_records": [{"x": 1, "y": 2, "z": 3, "prediction_id": "p1"}]})
    request = parse_invocations(body, None, NUMBERS, name="late")
    assert (request.prediction_ids, list(request.columns)) == (["p1"], ["x", "y", "z"])
    assert "none of them empty" in refused(
        {"dataframe_records": [{"x": 1, "y": 2, "z": 3, "prediction_id": ""}]}, NUMBERS
    )


def test_csv_has_a_header_and_types_of_the_model() -> None:
    body = '\ufeffdistance,"carrier",seats\n10,"A ""x"", y",\n2.5,,3\n\n'.encode()
    assert rows_of(body, content_type="text/csv; charset=utf-8") == (
        [[10, None], [2.5, 3]],
        {"carrier": ['A "x", y', None]},
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no rows"),
        (b"distance,carrier\n", "no rows"),
        (b"distance,carrier\n1,AA,3\n", "line 2 has 3 values, the header 2"),
        (b"distance,distance\n1,1\n", "twice in the header"),
        (b"distance,carrier\n4,AA\n4711x,AA\n", "row 2 of input 'distance' is no number"),
        (b"distance,carrier\n1_000,AA\n", "row 1 of input 'distance' is no number"),
        (b"distance,carrier\ninf,AA\n", "row 1 of input 'distance' is no number"),
        (b"distance,airline\n1,AA\n", "there is no input 'airline'; 'late' takes distance"),
        (b"carrier\nAA\n", "inputs are missing: distance"),
        (b'distance,carrier\n1,"AA\n', "no CSV"),
        (b"distance,carrier\n1,\xff\n", "not UTF-8"),
        (b"distance,carrier\n" + b"1,A\n" * 100_001, "at most 100000"),
    ],
)
def test_csv_that_does_not_fit_is_refused(body: bytes, said: str) -> None:
    message = refused(body, content_type="text/csv")
    assert said in message
    assert "4711" not in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "exactly one of dataframe_split, dataframe_records, instances, inputs; it has none"),
        ({"instances": [], "inputs": []}, "it has instances and inputs"),
        ([[1]], "no scoring request"),
        ({"instances": []}, "no rows"),
        ({"instances": [[1, 2, 3], {"x": 1}]}, "several forms"),
        ({"instances": [[1, 2, 3], [1, 2]]}, "not of the same length"),
        ({"instances": [[1, 2]]}, "the rows have 2 values; 'late' takes distance"),
        ({"dataframe_records": [{}]}, "no fields"),
        ({"dataframe_records": [{"distance": 1, "airline": "AA"}]}, "there is no input 'airline'"),
        ({"dataframe_records": [{"distance": 1}]}, "inputs are missing: carrier"),
        ({"dataframe_records": [{"distance": "4711", "carrier": "AA"}]}, "'distance' came as BYTES"),
        ({"dataframe_records": [{"distance": 1, "carrier": 4711}]}, "'carrier' came as INT64"),
        ({"inputs": {"distance": [1, True], "carrier": ["a", "b"]}}, "found booleans, numbers"),
        ({"inputs": {"distance": [{"4711": 1}], "carrier": ["a"]}}, "found objects"),
        ({"inputs": {"distance": [1, 2], "carrier": ["a"]}}, "not of the same length"),
        ({"inputs": {"distance": 1, "carrier": "a"}}, "holds a list for each"),
        ({"inputs": {}}, "no rows"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 1]]}}, "a name twice"),
        ({"dataframe_split": {"columns": ["distance"], "data": [[1, 4711]]}}, "do not have its 1 columns"),
        ({"dataframe_split": {"columns": ["distance"], "data": []}}, "no rows or no columns"),
        (b'{"instances":' + b"[" * 100_000, "not JSON"),
        (b'{"instances":[[' + b"9" * 400 + b',"AA",1]]}', "outside of FP64"),
        ({"instances": [["a", [1, 2, 3], 4]]}, "'carrier' holds lists of another length"),
    ],
)
def test_json_that_does_not_fit_is_refused(body: Any, said: str) -> None:
    message = refused(body)
    assert said in message
    assert "4711" not in message


def test_a_million_rows_are_refused() -> None:
    assert "at most 100000" in refused(b'{"instances":[' + b"[1,2,3]," * 999_999 + b"[1,2,3]]}", NUMBERS)


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    value=st.recursive(
        VALUES | st.floats(-5, 5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["id", "pixels", "columns", "data", "prediction_id", "x"]), inner
            )
        ),
        max_leaves=12,
    ),
)
def test_whatever_is_asked_is_read_whole_or_refused(form: str, value: Any) -> None:
    try:
        body = orjson.dumps({form: value})
    except orjson.JSONEncodeError:
        return
    for plan in (MIXED, NUMBERS, VECTOR, WITH_VECTOR):
        try:
            bound = bind(parse_invocations(body, None, plan, name="late"), plan, name="late")
        except BadRequestError:
            continue
        assert bound.numbers.shape == (bound.rows, plan.width)
        assert bound.rows > 0


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet='ab,"\n\r1.x\ufeff', max_size=40))
def test_csv_is_read_whole_or_refused(text: str) -> None:
    body = b"distance,carrier\n" + text.encode()
    try:
        request = parse_invocations(body, "text/csv", MIXED, name="late")
    except BadRequestError:
        return
    assert {len(each.values) for each in request.columns.values()} == {request.rows}


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json; charset=latin-1", "application/json; version=1", "json", ";"],
)
def test_other_content_types_are_not_taken(content_type: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_invocations(b"{}", content_type, MIXED, name="late")
    assert caught.value.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    body, kind = encode_error(caught.value)
    assert (body.decode(), kind) == (str(caught.value), "text/plain")


@pytest.mark.parametrize("content_type", ['Application/JSON;charset="UTF-8"', "application/json;", "", None])
def test_json_is_known_by_its_content_type(content_type: str | None) -> None:
    assert rows_of({"instances": [[1, 2, 3]]}, NUMBERS, content_type) == ([[1, 2, 3]], {})


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "BAD_REQUEST"), (404, "RESOURCE_DOES_NOT_EXIST"), (500, "INTERNAL_ERROR"), (422, "BAD_REQUEST")],
)
def test_errors_have_the_shape_that_mlflow_gives_them(status: int, code: str) -> None:
    body, kind = encode_error(RequestError(HTTPStatus(status), "no"))
    assert (orjson.loads(body), kind) == ({"error_code": code, "message": "no"}, "application/json")


def test_predictions_have_the_shape_that_mlflow_gives_them() -> None:
    score = OutputColumn("score", "FP64", [0.5, math.nan])
    vector = OutputColumn("probability", "FP64", [0.25, 0.75, 1, 0], 2, ("no", "yes"))
    label = OutputColumn("label", "BYTES", ["yes", "no"])

    def shape(*outputs: OutputColumn) -> Any:
        return orjson.loads(encode_predictions(answer(*outputs)))["predictions"]

    assert shape(score) == [0.5, None]
    assert shape(vector) == [[0.25, 0.75], [1, 0]]
    assert shape(label, vector) == [
        {"label": "yes", "probability": [0.25, 0.75]},
        {"label": "no", "probability": [1, 0]},
    ]


def test_kserve_takes_instances() -> None:
    for key in ("instances", "inputs"):
        body = orjson.dumps({key: [{"x": 1, "y": 2, "z": 3}]})
        assert parse_predict(body, NUMBERS, name="late").columns["y"].values == [2]
    both = {"instances": [[1, 2, 3]], "inputs": []}
    wrongs: list[Any] = [{}, {"instances": None}, both, {"instances": []}]
    for wrong in wrongs:
        with pytest.raises(BadRequestError):
            parse_predict(orjson.dumps(wrong), NUMBERS, name="late")
    assert orjson.loads(encode_ready("late", ready=True)) == {"name": "late", "ready": True}
    assert orjson.loads(encode_models(["late"])) == {"models": ["late"]}
