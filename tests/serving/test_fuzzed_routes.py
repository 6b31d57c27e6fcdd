"""Every route with bodies that no client would send: refused or answered, never 500, and the worker lives."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.serving.served import mixed, numeric, strings, supervised

from noria.deploy.supervisor import Supervisor
from noria.serving.records import Limits, WorkerConfig

CONFIG = WorkerConfig(environment="production", limits=Limits(max_body_bytes=200_000, read_timeout_s=5.0))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["AA", "Köln", "FP64", "BYTES", "INT8", "x0", "distance", "\x00", "\ud800", "1e999", "NaN"]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
)
WORDS = """
inputs instances rows dataframe_split dataframe_records columns data index name shape datatype parameters
outputs id at prediction_id x0 x1 distance carrier city month snow params outcome outcomes known_at deployment
top ready binary_data_size binary_data
"""
NAMES = """
Content-Type Inference-Header-Content-Length Content-Encoding Accept Accept-Encoding traceparent X-Noria-Model
"""
VALUES = [
    "",
    "application/json",
    "text/csv",
    "text/html",
    "gzip",
    "deflate",
    "0",
    "10",
    "-1",
    "9" * 30,
    "\xff",
]
VALUES += ["numbers", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "*/*;q=0"]
KEYS = st.sampled_from(WORDS.split())
HEADERS = st.dictionaries(st.sampled_from(NAMES.split()), st.sampled_from(VALUES), max_size=2)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
ENDS = st.sampled_from(["/", "?a=b", "?top=x", "/x", "?model=numbers", "?model=%00", "//", ":explain"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("fuzzed")
    models = (numeric(folder), mixed(folder), strings(folder))
    with supervised(*models, folder=folder / "server", config=CONFIG) as supervisor:
        (pid,) = supervisor.pids
        yield supervisor
        assert supervisor.pids == (pid,)
        log = (supervisor.folder / "worker.log").read_text()
        assert "failed: " not in log, log[log.index("failed: ") :][:4_000]


@pytest.fixture(scope="module")
def described(running: Supervisor) -> dict[str, Any]:
    with running.client() as client:
        found: dict[str, Any] = client.get("/openapi.json")
        return found


@st.composite
def changed(draw: st.DrawFn, value: Any, depth: int = 0) -> Any:
    """Change a right body in one place or another: a value, a key, what is there twice or not at all."""
    if draw(st.integers(0, 5)) == 0 or depth > 6:
        return draw(JSON)
    if isinstance(value, dict) and value:
        found = dict(value)
        for key in draw(st.lists(st.sampled_from(sorted(found)), max_size=2)):
            found[key] = draw(changed(found[key], depth + 1))
        if draw(st.booleans()):
            found[draw(KEYS)] = draw(JSON)
        if len(found) > 1 and draw(st.integers(0, 3)) == 0:
            del found[draw(st.sampled_from(sorted(found)))]
        return found
    if isinstance(value, list) and value:
        found_list = list(value)
        place = draw(st.integers(0, len(value) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                del found_list[place]
            case 1:
                found_list.append(found_list[place])
            case _:
                found_list[place] = draw(changed(found_list[place], depth + 1))
        return found_list
    return draw(SCALARS)


def operations(described: dict[str, Any]) -> list[tuple[str, str, Any]]:
    found = []
    for path, item in described["paths"].items():
        for method, operation in item.items():
            if method not in ("get", "post"):
                continue
            contents = operation.get("requestBody", {}).get("content", {})
            example = contents.get("application/json", {}).get("example")
            found.append((method.upper(), path, example))
    return found


def check(running: Supervisor, described: dict[str, Any], data: st.DataObject, connection: Any) -> None:
    method, path, example = data.draw(st.sampled_from(operations(described)))
    if data.draw(st.integers(0, 9)) == 0:
        method = data.draw(METHODS)
    if data.draw(st.integers(0, 9)) == 0:
        path += data.draw(ENDS)
    body = b""
    if example is not None or data.draw(st.integers(0, 4)) == 0:
        given_body = data.draw(changed(example) if example is not None else JSON)
        body = json.dumps(given_body).encode("utf-8", "surrogatepass")
        if data.draw(st.integers(0, 9)) == 0 and body:
            cut = data.draw(st.integers(0, len(body)))
            body = body[:cut] + data.draw(st.binary(max_size=6)) + body[cut:]
    headers = data.draw(HEADERS)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    assert response.status < 500, (method, path, body, headers, answer)
    if (
        response.status >= 400
        and method != "HEAD"
        and response.getheader("content-type") == "application/json"
    ):
        assert "error" in json.loads(answer) or "error_code" in json.loads(answer)


def run(running: Supervisor, described: dict[str, Any], examples: int) -> None:
    connection = http.client.HTTPConnection(running.address.host, running.address.port, timeout=20)

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        database=None,
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        check(running, described, data, connection)

    try:
        ask()
    finally:
        connection.close()


def test_no_body_makes_a_route_fail(running: Supervisor, described: dict[str, Any]) -> None:
    assert len(operations(described)) > 10
    run(running, described, 300)
    with running.client() as client:
        assert client.get("/v2/health/ready")["ready"] is True


@pytest.mark.soak
def test_no_body_makes_a_route_fail_in_twenty_thousand(
    running: Supervisor, described: dict[str, Any]
) -> None:
    run(running, described, 20_000)
