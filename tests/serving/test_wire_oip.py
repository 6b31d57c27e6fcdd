"""The Open Inference Protocol as JSON."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.serving.records import RouteEntry, assignment_point, pick, split
from noria.serving.requests import BadRequestError, InferRequest, OutputColumn, Prediction, RequestError
from noria.serving.wire import oip
from noria.serving.wire.oip import Reply, encode_answer, parse_request

VALUES: Any = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
DATA = st.lists(VALUES | st.lists(VALUES, max_size=2), max_size=4)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "prediction_id"]) | VALUES,
        "datatype": st.sampled_from(["FP64", "FP16", "INT8", "BOOL", "BYTES", "UINT64"]) | VALUES,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | VALUES,
        "data": DATA | VALUES,
        "parameters": st.dictionaries(st.just("binary_data_size"), VALUES, max_size=1),
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3)},
    optional={
        "id": VALUES,
        "parameters": st.dictionaries(st.sampled_from(["at", "binary_data_output"]), VALUES, max_size=2),
        "outputs": st.lists(st.fixed_dictionaries({"name": VALUES}), max_size=2) | VALUES,
    },
)

KINDS: dict[str, Any] = {
    "FP64": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    "FP32": st.none() | st.integers(-1_000, 1_000) | st.floats(allow_nan=False, allow_infinity=False),
    "INT8": st.none() | st.integers(-129, 128) | st.just(1.0),
    "UINT64": st.none() | st.integers(-1, 2**64 - 1),
    "BOOL": st.none() | st.booleans() | st.integers(0, 1),
    "BYTES": st.none() | st.text(max_size=3),
    "FP8": st.none() | st.floats(),  # there is none
}


@st.composite
def fitting(draw: st.DrawFn) -> dict[str, Any]:
    """Give a request that may well be right: its data is as its shape and its datatype are, or nearly."""
    rows = draw(st.integers(1, 3))
    tensors = []
    for number in range(draw(st.integers(1, 3))):
        datatype = draw(st.sampled_from(sorted(KINDS)))
        width = draw(st.integers(0, 3))
        shape = [rows, width] if width else [rows]
        size = rows * (width or 1) + draw(st.sampled_from([0, 0, 0, 0, 1]))
        data: list[Any] = draw(st.lists(KINDS[datatype], min_size=size, max_size=size))
        match draw(st.sampled_from(["flat", "flat", "nested", "strange"])):
            case "nested":
                step = width or 1
                data = [data[at : at + step] for at in range(0, len(data), step)]
            case "strange":
                data[draw(st.integers(0, size - 1))] = draw(VALUES | st.lists(VALUES, max_size=2))
        given: dict[str, Any] = tensor(data, shape=shape, datatype=datatype, name=f"t{number}")
        keys = draw(st.permutations(list(given)))
        tensors.append({each: given[each] for each in keys})
    return {"inputs": tensors, "id": draw(st.none() | st.just("a") | st.just(1))}


def tensor(data: Any, *, shape: list[int], datatype: str = "FP64", name: str = "a", **more: Any) -> Any:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def ask(*tensors: Any, **more: Any) -> InferRequest:
    return parse_request(orjson.dumps({"inputs": list(tensors), **more}))[0]


def read(data: bytes) -> InferRequest | None:
    try:
        return parse_request(data)[0]
    except BadRequestError:
        return None


def answer(*outputs: OutputColumn, ids: int = 2, **more: Any) -> Prediction:
    return Prediction(
        route_number=4,
        outputs=outputs,
        ids=[f"id-{row}" for row in range(ids)],
        releases=["late:7"] * ids,
        versions=[3] * ids,
        logged=0,
        scored={},
        answered={},
        failed={},
        **more,
    )


@settings(max_examples=300, deadline=None)
@given(request=REQUESTS)
def test_whatever_is_asked_is_read_whole_or_refused(request: dict[str, Any]) -> None:
    try:
        data = orjson.dumps(request)
    except orjson.JSONEncodeError:
        return  # an integer of more than 64 bits
    found = read(data)
    if found is not None:
        assert found.rows > 0
        assert all(len(each.values) == found.rows * each.width for each in found.columns.values())


@settings(max_examples=500, deadline=None)
@given(request=fitting() | REQUESTS)
def test_reading_in_one_pass_is_as_reading_in_two(request: dict[str, Any]) -> None:
    try:
        data = orjson.dumps(request)
    except orjson.JSONEncodeError:
        return  # an integer of more than 64 bits
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for read_to in (oip._READ_TO, -1):
            patch.setattr(oip, "_READ_TO", read_to)
            try:
                found.append(repr(parse_request(data)))
            except BadRequestError as err:
                found.append(str(err))
    assert found[0] == found[1]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs":[{"name":"a","datatype":"FP64","shape":[1,1],"data":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}]}",
    ],
)
def test_deeply_nested_json_is_refused(body: bytes) -> None:
    assert read(body) is None
    assert read(body.replace(b"FP64", b"NaN")) is None


@pytest.mark.parametrize(
    ("data", "shape", "width"),
    [
        ([1.5, None], [2], 1),
        ([1.5, None], [2, 1], 1),
        ([[1.5], [None]], [2, 1], 1),
        ([1.5, None], [1, 2], 2),
        ([[1.5, None]], [1, 2], 2),
    ],
)
def test_values_may_be_flat_or_nested_and_missing(data: list[Any], shape: list[int], width: int) -> None:
    request = ask(tensor(data, shape=shape))
    column = request.columns["a"]
    assert (request.rows, column.width, column.values) == (shape[0], width, [1.5, None])


@pytest.mark.parametrize("space", [b" ", b"\n\t", b""])
def test_nested_values_are_found_behind_space(space: bytes) -> None:
    body = b'{"inputs":[{"name":"a","datatype":"INT8","shape":[2,1],"data":[' + space + b"[1], [2]]}]}"
    request, _ = parse_request(body)
    assert request.columns["a"].values == [1, 2]


@pytest.mark.parametrize(
    ("datatype", "inside", "outside"),
    [
        ("INT8", [-128, 127, None], [128]),
        ("UINT8", [0, 255], [-1]),
        ("INT64", [-(2**63), 2**63 - 1], [2**63]),
        ("UINT64", [0, 2**64 - 1], [-1]),
        ("FP16", [65504, 0.5, None], [70000]),
        ("FP32", [3e38, -1], [1e39]),
        ("FP64", [1e308, 7], ["1"]),
        ("BOOL", [True, False, None], [1]),
        ("BYTES", ["", "é", None], [1]),
        ("INT32", [5], [5.0]),
        ("FP64", [0.5], [True]),
    ],
)
def test_values_are_of_the_range_of_their_datatype(
    datatype: str, inside: list[Any], outside: list[Any]
) -> None:
    values = ask(tensor(inside, shape=[len(inside)], datatype=datatype)).columns["a"].values
    wanted = inside if datatype != "FP32" else np.array(inside, "f4").tolist()
    assert [None if each is None or each != each else each for each in values] == wanted
    with pytest.raises(BadRequestError, match=f"'a' does not fit {datatype}"):
        ask(tensor(outside, shape=[1], datatype=datatype))


def test_an_integer_beyond_64_bits_is_refused() -> None:
    body = b'{"inputs":[{"name":"a","datatype":"UINT64","shape":[1],"data":[%s]}]}'
    for digits in (b"18446744073709551616", b"9" * 5000):
        assert read(body % digits) is None
        assert read(body.replace(b"[1]", b"[%s]" % digits) % b"1") is None


def test_nan_that_is_no_json_is_missing() -> None:
    body = b'{"inputs":[{"name":"NaN","datatype":"FP64","shape":[2],"data":[NaN, 2]}]}'
    assert parse_request(body)[0].columns["NaN"].values == [None, 2.0]
    assert read(body.replace(b"[NaN, 2]", b"[NaN, Infinity]")) is None
    assert read(body.replace(b'"NaN"', b'"\xff"')) is None


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([], "`inputs` is empty"),
        ([tensor([1], shape=[1]), tensor([1], shape=[1])], "'a' is there twice"),
        ([tensor([1], shape=[1]), tensor([1, 2], shape=[2], name="b")], "'b' has 2 rows, the inputs before"),
        ([tensor([1], shape=[1, 1, 1])], "3 dimensions"),
        ([tensor([], shape=[0])], "at least one row"),
        ([tensor([], shape=[1, 0])], "at least one row"),
        ([tensor([1], shape=[1_000_000])], "1000000 rows; at most 100000"),
        ([tensor([1], shape=[1], datatype="FP8")], "unknown datatype; there is BOOL, BYTES, FP16"),
        ([tensor([1, 2, 3], shape=[2])], r"shape \[2\] but 3 values"),
        ([tensor([[1, 2], [3]], shape=[2, 2])], r"does not have its shape \[2, 2\]"),
        ([tensor([[1], [2]], shape=[2])], "does not fit FP64"),
        ([tensor(None, shape=[1])], "does not fit FP64"),
        ([{"name": "a", "datatype": "FP64", "shape": [1]}], "neither `data` nor"),
        ([tensor(["x", ""], shape=[2], datatype="BYTES", name="prediction_id")], "non-empty ids"),
        ([tensor([1], shape=[1], name="prediction_id")], "BYTES tensor"),
        ([tensor([1], shape=[1], parameters={"binary_data_size": 8})], "`data` and a `binary_data_size`"),
    ],
)
def test_what_is_wrong_is_said(tensors: list[Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        ask(*tensors)


def test_no_message_repeats_a_value() -> None:
    for data in (["4711-secret"], [["4711-secret"]], [{"4711-secret": 1}], "4711-secret"):
        with pytest.raises(BadRequestError) as caught:
            ask(tensor(data, shape=[1, 1]))
        assert "4711" not in str(caught.value)


def test_conventions_of_other_servers_are_read_over() -> None:
    request = ask(
        tensor(["x"], shape=[1, 1], datatype="BYTES", parameters={"content_type": "str"}),
        tensor(["p"], shape=[1], datatype="BYTES", name="prediction_id"),
        parameters={"content_type": "pd", "sequence_id": 4},
        outputs=[{"name": "score", "parameters": {"binary_data": False}}, {"name": "score"}],
        id="r1",
    )
    assert (request.outputs, request.prediction_ids, request.id) == (("score",), ["p"], "r1")
    assert list(request.columns) == ["a"]


@pytest.mark.parametrize("at", ["2013-06-01T12:00:00Z", "2013-06-01T14:00:00+02:00", 1_370_088_000_000_000])
def test_an_instant_is_iso_or_microseconds(at: str | int) -> None:
    assert ask(tensor([1], shape=[1]), parameters={"at": at}).at == 1_370_088_000_000_000


@pytest.mark.parametrize("at", [True, -1, "yesterday", 2**60, [1]])
def test_what_is_no_instant_is_refused(at: Any) -> None:
    with pytest.raises(BadRequestError, match="`at` is no instant"):
        ask(tensor([1], shape=[1]), parameters={"at": at})


def test_an_answer_tells_model_version_release_and_columns() -> None:
    probability = OutputColumn("probability", "FP64", [0.25, 0.75, math.nan, math.inf], 2, ("no", "yes"))
    prediction = answer(
        OutputColumn("label", "BYTES", ["yes", "no"]), probability, stale={"customers": 1, "shops": 2}
    )
    body, length = encode_answer(prediction, model="late", request_id="r1")
    assert length is None
    assert orjson.loads(body) == {
        "model_name": "late",
        "model_version": "3",
        "id": "r1",
        "parameters": {"route": 4, "logged": 0, "release": "late:7", "stale": "customers=1, shops=2"},
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "no"]},
            {
                "name": "probability",
                "datatype": "FP64",
                "shape": [2, 2],
                "parameters": {"labels": ["no", "yes"]},
                "data": [0.25, 0.75, None, None],
            },
            {"name": "prediction_id", "datatype": "BYTES", "shape": [2], "data": ["id-0", "id-1"]},
            {"name": "release", "datatype": "BYTES", "shape": [2], "data": ["late:7", "late:7"]},
            {"name": "version", "datatype": "INT64", "shape": [2], "data": [3, 3]},
        ],
    }


def test_an_answer_has_the_columns_that_were_asked_for() -> None:
    prediction = answer(OutputColumn("score", "FP64", [0.5, 0.25]), columns=("version", "score"))
    found = orjson.loads(encode_answer(prediction, Reply(), model="late")[0])
    assert [(each["name"], each["data"]) for each in found["outputs"]] == [
        ("version", [3, 3]),
        ("score", [0.5, 0.25]),
    ]


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    route=st.text(max_size=5),
    name=st.text(max_size=10),
)
def test_every_prediction_is_assigned_to_one_answering_release(
    weights: list[float], route: str, name: str
) -> None:
    entries = [RouteEntry(release=str(place), weight=weight) for place, weight in enumerate(weights)]
    entries += [RouteEntry(release="shadow", mode="shadow"), RouteEntry(release="off", weight=0)]
    shares = tuple(split(entries))
    point = assignment_point(route, name)
    assert 0 <= point < 1
    assert pick(shares, point) in {str(place) for place in range(len(weights))}
    assert shares[-1][1] == pytest.approx(1)
