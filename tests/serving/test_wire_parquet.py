"""Parquet as a scoring request, read by a process of its own."""

import io
import subprocess
import sys
from http import HTTPStatus
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.serving.test_wire_mlflow import MIXED, WITH_VECTOR

from noria.serving.binding import RequestPlan, bind
from noria.serving.requests import BadRequestError, InferRequest, RequestError
from noria.serving.wire import parquet
from noria.serving.wire.mlflow import is_table, parse_invocations


def file_of(columns: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.table(columns), made)
    return made.getvalue()


def read(body: bytes, plan: RequestPlan = MIXED) -> InferRequest:
    return parse_invocations(body, "application/vnd.apache.parquet", plan, name="late")


def test_columns_of_every_kind_are_read() -> None:
    body = file_of(
        {
            "id": pa.array(["a", None]).dictionary_encode(),
            "pixels": pa.array([[1, 2, 3], None], pa.list_(pa.int32())),
            "prediction_id": pa.array(["p", "q"], pa.large_string()),
            "__index_level_0__": [7, 9],
        }
    )
    request = read(body, WITH_VECTOR)
    bound = bind(request, WITH_VECTOR, name="late")
    assert request.prediction_ids == ["p", "q"]
    assert bound.texts == {"id": ["a", None]}
    assert bound.numbers[0].tolist() == [1, 2, 3]
    request = read(file_of({"distance": [1.5, -2.0], "seats": [None, 3], "carrier": ["AA", "é"]}))
    bound = bind(request, MIXED, name="late")
    assert bound.numbers[:, 0].tolist() == [1.5, -2]
    assert (bound.numbers[1, 1], bound.texts) == (3, {"carrier": ["AA", "é"]})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"airline": [1]}, "there is no input 'airline'"),
        ({"distance": pa.array([0], pa.timestamp("us"))}, "of the type timestamp"),
        ({"distance": pa.array([], pa.float64())}, "no rows"),
        ({"distance": pa.nulls(100_001, pa.float64())}, "at most 100000"),
        ({"carrier": pa.array(["x" * 1_000_000]).take(pa.array([0] * 1000))}, "too much text"),
    ],
)
def test_what_does_not_fit_is_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(file_of(columns))


def test_a_file_that_ends_its_reader_is_refused() -> None:
    body = file_of({"distance": [1.5, -2.0], "carrier": ["AA", "é"]})
    for broken in (b"", b"PAR1", body[:-8] + b"\xff\xff\xff\x7fPAR1", body.replace(b"distance", b"\xff" * 8)):
        with pytest.raises(BadRequestError, match="no Parquet file that can be read"):
            read(broken)


def test_bodies_that_take_long_to_read_are_known_by_their_content_type() -> None:
    assert is_table("application/vnd.apache.Parquet; charset=utf-8")
    assert not any(map(is_table, (None, "", "application/json")))


def test_without_its_library_parquet_is_a_type_that_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pyarrow is not installed") as caught:
        read(b"")
    assert caught.value.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


def test_a_server_loads_no_engine_for_its_wires() -> None:
    wires = ("oip", "mlflow", "kserve", "plain", "repository")
    program = f"import sys, noria.serving.http.docs_page\nfrom noria.serving.wire import {', '.join(wires)}\n"
    program += "print({'pyarrow', 'pandas', 'sklearn', 'sqlalchemy', 'duckdb', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
