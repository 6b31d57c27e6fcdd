"""What a server is told to take, at the limit and beyond it, by every protocol."""

import gzip
import http.client
import io
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.serving.served import numeric, supervised

from noria.deploy.supervisor import Supervisor
from noria.serving.records import Limits, WorkerConfig

NAMES = ("x0", "x1", "x2", "x3")
LIMITS = Limits(max_body_bytes=40_000, max_rows=50, read_timeout_s=1.0)
CONFIG = WorkerConfig(environment="production", limits=LIMITS)
Encode = Callable[[int], tuple[str, bytes, str]]


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("limits")
    with supervised(numeric(folder), folder=folder / "server", config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("default")
    with supervised(numeric(folder), folder=folder / "server") as running:
        yield running


def ask(supervisor: Supervisor, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, {"Content-Type": "application/json", **named})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def matrix(rows: int) -> list[list[float]]:
    return [[0.5, 1.0, -1.0, float(row)] for row in range(rows)]


def by_infer(rows: int) -> tuple[str, bytes, str]:
    data = [value for row in matrix(rows) for value in row]
    tensor = {"name": "x", "datatype": "FP64", "shape": [rows, 4], "data": data}
    return "/v2/models/numbers/infer", json.dumps({"inputs": [tensor]}).encode(), "application/json"


def by_columns(rows: int) -> tuple[str, bytes, str]:
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [rows], "data": [row[place] for row in matrix(rows)]}
        for place, name in enumerate(NAMES)
    ]
    return "/v2/models/numbers/infer", json.dumps({"inputs": tensors}).encode(), "application/json"


def by_kserve(rows: int) -> tuple[str, bytes, str]:
    return "/v1/models/numbers:predict", json.dumps({"instances": matrix(rows)}).encode(), "application/json"


def by_split(rows: int) -> tuple[str, bytes, str]:
    body = {"dataframe_split": {"columns": NAMES, "data": matrix(rows)}}
    return "/invocations", json.dumps(body).encode(), "application/json"


def by_csv(rows: int) -> tuple[str, bytes, str]:
    lines = [",".join(NAMES), *(",".join(map(str, row)) for row in matrix(rows))]
    return "/invocations", "\n".join(lines).encode(), "text/csv"


def by_parquet(rows: int) -> tuple[str, bytes, str]:
    table = pa.table({name: [row[place] for row in matrix(rows)] for place, name in enumerate(NAMES)})
    return "/invocations", packed(table), "application/vnd.apache.parquet"


def by_names(rows: int) -> tuple[str, bytes, str]:
    named = [dict(zip(NAMES, row, strict=True)) for row in matrix(rows)]
    return "/models/numbers/predict", json.dumps({"rows": named}).encode(), "application/json"


def packed(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


FORMS = (by_infer, by_columns, by_kserve, by_split, by_csv, by_parquet, by_names)


@pytest.mark.parametrize("encode", FORMS)
def test_rows_are_taken_up_to_the_limit_and_refused_beyond_it(supervisor: Supervisor, encode: Encode) -> None:
    for rows, wanted in ((49, 200), (50, 200), (51, 413)):
        path, body, kind = encode(rows)
        status, answer = ask(supervisor, path, body, Content_Type=kind)
        assert status == wanted, answer
    assert "51 rows" in str(answer) or "more than 50 rows" in str(answer)


@pytest.mark.parametrize("encode", [by_infer, by_kserve, by_split, by_names])
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_a_body_is_taken_up_to_the_limit_and_refused_beyond_it(
    supervisor: Supervisor, encode: Encode, encoding: str
) -> None:
    path, body, _ = encode(2)
    packs: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    pack = packs[encoding]
    headers = {"Content_Encoding": encoding} if encoding else {}
    for size, wanted in ((39_999, 200), (40_000, 200), (40_001, 413)):
        status, answer = ask(supervisor, path, pack(body.ljust(size)), **headers)
        assert status == wanted, answer
    assert "larger than 40000 bytes" in str(answer)


def test_a_body_in_parts_is_counted_as_it_comes(supervisor: Supervisor) -> None:
    path, body, _ = by_infer(2)
    address = supervisor.address
    for size, wanted in ((40_000, 200), (40_001, 413), (4_000_000, 413)):
        connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        parts = iter([body.ljust(size)[at : at + 9_000] for at in range(0, size, 9_000)])
        try:
            connection.request("POST", path, parts, {"Content-Type": "application/json"}, encode_chunked=True)
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (wanted, True)
        except (BrokenPipeError, ConnectionResetError):
            assert wanted == 413  # it was cut off before it had sent all
        finally:
            connection.close()


def test_a_bomb_in_any_wrapper_is_refused_before_it_goes_off(default: Supervisor) -> None:
    path, body, _ = by_infer(1)
    before = default.memory_bytes()
    bomb = gzip.compress(body.ljust(100_000_000))
    assert ask(default, path, bomb, Content_Encoding="gzip")[0] == 413
    assert (
        ask(default, path, gzip.compress(bomb), Content_Encoding="gzip")[0] == 400
    )  # no JSON: one layer is read
    assert ask(default, path, gzip.compress(bomb), Content_Encoding="gzip, gzip")[0] == 415
    assert ask(default, path, zlib.compress(body.ljust(100_000_000)), Content_Encoding="deflate")[0] == 413
    many = pa.table({name: pa.nulls(2_000_000, pa.float64()) for name in NAMES})
    status, answer = ask(default, "/invocations", packed(many), Content_Type="application/vnd.apache.parquet")
    assert (status, "rows" in str(answer)) == (413, True)
    wide = pa.table({"x0": [0.0], "x1": [0.0], "x2": [0.0], "x3": ["z" * 280_000_000]})
    status, answer = ask(default, "/invocations", packed(wide), Content_Type="application/vnd.apache.parquet")
    assert status in (400, 413), answer
    assert default.memory_bytes() - before < 120_000_000
    assert ask(default, path, body)[0] == 200


def test_a_million_rows_are_refused_soon(default: Supervisor) -> None:
    row = "[0,0,0,0]"
    bodies = {
        "/v1/models/numbers:predict": f'{{"instances":[{",".join([row] * 1_000_000)}]}}',
        "/v2/models/numbers/infer": (
            '{"inputs":[{"name":"x","datatype":"FP64","shape":[1000000,4],"data":['
            f"{','.join(['0'] * 4_000_000)}]}}]}}"
        ),
    }
    for path, body in bodies.items():
        assert len(body) < 16 * 2**20
        status, answer = ask(default, path, body.encode())
        assert (status, "100000" in answer["error"]) == (413, True)


@pytest.mark.parametrize("encode", [by_infer, by_kserve, by_split, by_names])
def test_what_is_nested_without_end_is_no_request(supervisor: Supervisor, encode: Encode) -> None:
    path, _, _ = encode(1)
    for depth in (100, 5_000, 19_000):
        for key in ("inputs", "instances", "rows", "dataframe_split", "elsewhere"):
            for opens, closes in (("[", "]"), ('{"a":', "}")):
                inner = (
                    (opens * depth + "0" + closes * depth) if depth * len(opens) < 38_000 else opens * 7_000
                )
                status, answer = ask(supervisor, path, f'{{"{key}":{inner}}}'.encode())
                assert status in (400, 413), answer
    path, body, _ = encode(1)
    assert ask(supervisor, path, body)[0] == 200


def test_headers_without_end_are_refused(supervisor: Supervisor) -> None:
    address = supervisor.address
    path, body, _ = by_infer(1)
    assert ask(supervisor, path, body, X_Long="a" * 30_000)[0] == 200
    for begun in (b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\nX-Long: ", b"GET /", b"GET / HTTP/1.1\r\n"):
        with socket.create_connection((address.host, address.port), timeout=10) as connection:
            try:
                connection.sendall(begun)
                for _ in range(600):
                    connection.sendall(b"a" * 1_000 if not begun.endswith(b"\n") else b"A: b\r\n" * 160)
                answer = connection.recv(4_096)
            except (BrokenPipeError, ConnectionResetError):
                answer = b"HTTP/1.1 431 cut off before it was read"
        assert b"HTTP/1.1 431" in answer


def test_a_client_that_does_not_take_its_answers_is_cut_off(supervisor: Supervisor) -> None:
    address = supervisor.address
    path, body, _ = by_columns(50)
    request = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((address.host, address.port))
        connection.settimeout(0.5)
        started = time.monotonic()
        try:
            while time.monotonic() - started < 60.0:  # the buffers of the system are large
                try:
                    connection.sendall(request)
                except TimeoutError:
                    continue
            pytest.fail("it was served for ever")
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert ask(supervisor, path, body)[0] == 200
