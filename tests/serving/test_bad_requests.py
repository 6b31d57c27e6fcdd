import gzip
import http.client
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from tests.serving.conftest import NOW

from noria.clock import to_micros
from noria.deploy.supervisor import Supervisor
from noria.serving.logs.log import decode_frame
from noria.streams.spool import read_spool

SECRET = "secret-17"
INFER = "/v2/models/late_arrival/infer"


def tensor(name: str, datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data} | more


CARRIER = tensor("carrier", "BYTES", [SECRET])
DISTANCE = tensor("distance", "FP64", [1.0])
AT = {"at": to_micros(NOW)}


def body(*tensors: Any, **more: Any) -> bytes:
    return orjson.dumps({"inputs": tensors, "parameters": AT} | more)


CASES: dict[str, tuple[bytes, int, str]] = {
    "no json": (b"{", 400, "not JSON"),
    "empty": (b"", 400, "not JSON"),
    "not utf-8": (b'{"inputs": [{"name": "\xff"}]}', 400, "not UTF-8"),
    "infinity": (b'{"inputs": [{"name":"a","datatype":"FP64","shape":[1],"data":[Infinity]}]}', 400, "JSON"),
    "another shape of document": (b"[1]", 400, "Expected `object`"),
    "no inputs": (b"{}", 400, "required field `inputs`"),
    "empty inputs": (body(), 400, "one tensor per request column"),
    "no name": (body({"datatype": "FP64", "shape": [1], "data": [1]}), 400, "required field `name`"),
    "unknown column": (
        body(CARRIER, DISTANCE, tensor("colour", "BYTES", ["red"])),
        400,
        "no input 'colour'; 'late_arrival' takes distance (a number (such as FP64)), carrier (text (BYTES))",
    ),
    "missing column": (body(CARRIER), 400, "inputs are missing: distance"),
    "text for a number": (body(CARRIER, tensor("distance", "BYTES", ["far"])), 400, "wanted is a number"),
    "number for text": (body(tensor("carrier", "INT64", [1]), DISTANCE), 400, "wanted is text"),
    "unknown datatype": (body(CARRIER, tensor("distance", "FP65", [1])), 400, "unknown datatype"),
    "strings in a number tensor": (body(CARRIER, tensor("distance", "FP64", [SECRET])), 400, "got `str`"),
    "fractions in an integer tensor": (
        body(CARRIER, tensor("distance", "INT64", [1.5])),
        400,
        "Expected `int | null`, got `float`",
    ),
    "booleans in a number tensor": (body(CARRIER, tensor("distance", "FP64", [True])), 400, "got `bool`"),
    "out of range": (body(CARRIER, tensor("distance", "INT8", [300])), 400, "Expected `int` <= 127"),
    "too large for a float": (
        b'{"inputs":[{"name":"d","datatype":"FP64","shape":[1],"data":[1' + b"0" * 400 + b"]}]}",
        400,
        "",
    ),
    "wrong shape": (
        body(CARRIER, tensor("distance", "FP64", [1.0], shape=[2])),
        400,
        "has 2 rows, the inputs before it have 1",
    ),
    "matrix": (body(tensor("x", "FP64", [1.0, 2.0], shape=[1, 2])), 400, "input 'x' has 2 columns"),
    "no rows": (
        body(tensor("carrier", "BYTES", []), tensor("distance", "FP64", [])),
        400,
        "at least one row",
    ),
    "nested beyond the shape": (body(CARRIER, tensor("distance", "FP64", [[1.0]])), 400, "got `array`"),
    "ragged rows": (body(CARRIER, tensor("distance", "FP64", [1.0, 2.0])), 400, "has 2 rows"),
    "column twice": (body(CARRIER, CARRIER, DISTANCE), 400, "is there twice"),
    "binary tensor": (
        body(
            CARRIER,
            {"name": "distance", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}},
        ),
        400,
        "has no header Inference-Header-Content-Length",
    ),
    "unknown output": (body(CARRIER, DISTANCE, outputs=[{"name": "p"}]), 400, "no output 'p'"),
    "malformed instant": (body(CARRIER, DISTANCE, parameters={"at": "noon"}), 400, "`at` is no instant"),
    "ids that are no text": (body(CARRIER, DISTANCE, tensor("prediction_id", "INT64", [1])), 400, "BYTES"),
    "a missing id": (body(CARRIER, DISTANCE, tensor("prediction_id", "BYTES", [None])), 400, "non-empty ids"),
    "an endless id": (
        body(CARRIER, DISTANCE, tensor("prediction_id", "BYTES", ["x" * 300])),
        400,
        "256 bytes",
    ),
    "an id twice": (
        body(
            tensor("carrier", "BYTES", ["AA", "AA"]),
            tensor("distance", "FP64", [1, 2]),
            tensor("prediction_id", "BYTES", ["a", "a"]),
        ),
        400,
        "there twice: 'a'",
    ),
    "too large": (b" " * 100_001, 413, "larger than 100000 bytes"),
}


@pytest.fixture(scope="module")
def connection(module_supervisor: Supervisor) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(module_supervisor.address.host, module_supervisor.address.port)
    yield connection
    connection.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, data: bytes = b"", **headers: str
) -> tuple[int, Any]:
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    return response.status, orjson.loads(response.read())


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_told_why_and_logged_nowhere(
    case: str, connection: http.client.HTTPConnection, module_supervisor: Supervisor
) -> None:
    data, wanted, message = CASES[case]
    status, answer = ask(connection, "POST", INFER, data)
    assert status == wanted, answer
    assert list(answer) == ["error"]
    assert message in answer["error"]
    assert SECRET not in answer["error"]
    assert not list(read_spool(module_supervisor.folder / "late" / "spool"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v2/models/late_arival/infer", "no model 'late_arival' here; there is late_arrival, late"),
        ("/v2/models/late_arrival/versions/7/infer", "no version '7' of 'late_arrival'; it has 1, 2"),
        ("/v2/models/late_arrival/versions/x/infer", "no version 'x'"),
        ("/v2/models/late_arrival/stats", "nothing at 'stats'"),
        ("/nowhere", "nothing at '/nowhere'"),
    ],
)
def test_what_is_not_there_is_404(path: str, message: str, connection: http.client.HTTPConnection) -> None:
    status, answer = ask(connection, "POST", path, body(CARRIER, DISTANCE))
    assert (status, list(answer)) == (404, ["error"])
    assert message in answer["error"]


def test_bytes_that_are_not_what_their_headers_say_are_refused(
    connection: http.client.HTTPConnection,
) -> None:
    good = body(CARRIER, DISTANCE)
    for length, message in (
        ("10", "not JSON"),
        ("x", "Inference-Header-Content-Length"),
        ("9999", "at most the body's"),
    ):
        status, answer = ask(connection, "POST", INFER, good, **{"Inference-Header-Content-Length": length})
        assert status == 400
        assert message in answer["error"]
    for encoding, wanted in (("gzip", 400), ("deflate", 400), ("br", 415)):
        status, answer = ask(connection, "POST", INFER, good, **{"Content-Encoding": encoding})
        assert status == wanted, answer
    bomb = gzip.compress(b" " * 50_000_000)
    status, answer = ask(connection, "POST", INFER, bomb, **{"Content-Encoding": "gzip"})
    assert (status, "larger than 100000" in answer["error"]) == (413, True)


def test_a_wrong_method_is_told_the_right_one(connection: http.client.HTTPConnection) -> None:
    status, answer = ask(connection, "GET", INFER)
    assert (status, answer) == (405, {"error": "GET is not taken here; send POST"})


def test_the_connection_survives_bad_requests_and_answers_good_ones(
    connection: http.client.HTTPConnection, module_supervisor: Supervisor
) -> None:
    status, answer = ask(connection, "POST", INFER, body(CARRIER, DISTANCE, id="good"))
    assert status == 200
    (payload,) = [payload for _, payload in read_spool(module_supervisor.folder / "late" / "spool")]
    assert decode_frame(payload).ids == ["good-0"] == answer["outputs"][1]["data"]
