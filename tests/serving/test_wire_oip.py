from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.serving.records import RouteEntry, assignment_point, pick, split
from noria.serving.requests import BadRequestError, InferRequest
from noria.serving.wire.oip import parse_request

VALUES: Any = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
DATA = st.lists(VALUES | st.lists(VALUES, max_size=2), max_size=4)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "prediction_id"]) | VALUES,
        "datatype": st.sampled_from(["FP64", "INT8", "BOOL", "BYTES", "UINT64"]) | VALUES,
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


def read(data: bytes) -> InferRequest | None:
    try:
        return parse_request(data)
    except BadRequestError:
        return None


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
        assert {len(column.values) for column in found.columns.values()} <= {found.rows}


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


def test_deeply_nested_json_is_refused() -> None:
    assert read(b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}") is None


@pytest.mark.parametrize("at", ["2013-06-01T12:00:00Z", "2013-06-01T14:00:00+02:00", 1_370_088_000_000_000])
def test_an_instant_is_iso_or_microseconds(at: str | int) -> None:
    data = {
        "inputs": [{"name": "a", "datatype": "INT64", "shape": [1], "data": [1]}],
        "parameters": {"at": at},
    }
    assert parse_request(orjson.dumps(data)).at == 1_370_088_000_000_000


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
