"""Requests that make no sense, to every path that is answered: none is a 5xx, none is told too much.

The paths are found in the application itself, so that a new one is fuzzed without a word here.
"""

import gzip
import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Mount, Route
from tests.api.test_control_plane import SINCE

import noria
from noria.api.application import application
from noria.api.mlflow.application import MlflowApplication
from noria.api.server import ControlPlane
from noria.api.tracking import BASE
from noria.tracking.remote.sending import CONTENT_TYPE, PROTOCOL, PROTOCOL_HEADER
from noria.workspace.up.records import Role, UpState

DECLARED = """
import noria


@noria.pipeline
def clean(month: str = "2024-01", limit: int = 3) -> None: ...
"""
NEVER = (
    "Traceback",
    "SELECT ",
    "INSERT INTO",
    "UPDATE ",
    "sqlalchemy",
    "sqlite3",
    "psycopg",
    "site-packages",
)
NAMES = (  # noqa: SIM905 - as a list it takes a page
    "run_id run_uuid experiment_id experiment_ids key value timestamp step metrics params tags name new_name "
    "status end_time start_time filter order_by max_results page_token datasets metric_key run_ids run_name "
    "user_id view_type run_view_type experiment_name start_step end_step artifact_location source version "
    "alias stage description model_id path num_parts upload_id parts artifact_file_path limit state kind "
    "views entities at reader entity rows search tag owner key params models dataset digest model_json"
).split()
LONG = "9" * 5_000
WORDS = st.sampled_from(
    ["0", "1", "clean", "loss", "Default", "FINISHED", "metrics.loss > 1", "models:/a/1", "ALL", "a/b", "..",
     "%2e%2e/x", "\\", "\0", "\ud800", "ä" * 200, LONG, "", " ", "NaN", "null", "2024-01-01T00:00:00Z",
     "m-" + "0" * 32, "name = 'x' AND", "'; DROP TABLE runs; --", "<script>"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)
RAW = st.binary(max_size=40) | st.sampled_from(
    [b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe{\x00}\x00",
     b"{}" + b" " * 9_000,
     b'{"value": 1e999}', b'{"step": ' + b"9" * 4_000 + b"}", b'{"run_id": "\\ud800"}', b"\x1f\x8b", b"PAR1"]
)  # fmt: skip
KINDS = st.sampled_from(
    ["application/json", "application/json; charset=utf-16", "text/plain", "", "application/x-ndjson",
     "text/csv", "application/octet-stream", "application/vnd.apache.parquet", "\xff",
     "multipart/form-data; boundary=x",
     "a/b;" * 50]
)  # fmt: skip
JUNK = st.dictionaries(
    st.sampled_from(["range", "authorization", "content-encoding", "idempotency-key", "accept",
                     "x-mlflow-workspace",
                     "cookie", "if-none-match", "if-range", "origin", "x-forwarded-proto", "expect-nothing"]),
    st.sampled_from(["bytes=0-", "bytes=9-1", "bytes=-0", "bytes=" + "1-2," * 99, "Basic x", "gzip", "*",
                     "\xff\xfe",
                     "x" * 3_000, "", "null", "http://localhost", '"x"', "a\tb"]),
    max_size=3,
)  # fmt: skip


@dataclass(frozen=True)
class Fuzzed:
    port: int
    root: Path
    routes: list[tuple[str, str]]
    known: dict[str, str]


def routes_of(app: Any) -> Iterator[tuple[str, str]]:
    """Give the methods and paths of an application, through whatever stands before it."""
    while not isinstance(app, MlflowApplication):
        app = app._app
    yield from app.paths()
    yield from app.raw_paths()
    own: Any = app._otherwise
    while not hasattr(own, "routes"):
        own = own._app
    yield from _routes_below(own.routes, "")


def _routes_below(routes: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for each in routes:
        if isinstance(each, Mount):
            yield from _routes_below(each.routes, prefix + each.path)
        elif isinstance(each, Route):
            for method in each.methods or ():
                yield method, prefix + each.path


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    root = tmp_path_factory.mktemp("hidden-place")
    (root / "noria.toml").write_text('[project]\nname = "fuzzed"\nmodules = ["fuzzed_declared"]\n')
    (root / "fuzzed_declared.py").write_text(DECLARED)
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        app = application(project, lambda: state, host="127.0.0.1")
        plane.start(app)
        port, routes = int(plane.url.rpartition(":")[2]), sorted(set(routes_of(app)))
        ask = Fuzzed(port, root, routes, {})
        run = _made(ask, "/runs/create", {})["run"]["info"]["run_id"]
        model = _made(ask, "/logged-models", {"experiment_id": "0", "source_run_id": run})["model"]["info"]
        _made(ask, "/registered-models/create", {"name": "a"})
        yield Fuzzed(port, root, routes, {"run": run, "model": model["model_id"]})


def _made(fuzzed: Fuzzed, path: str, fields: dict[str, Any]) -> Any:
    kind = {"content-type": "application/json"}
    status, body = _sent(fuzzed, "POST", f"/api/2.0/mlflow{path}", json.dumps(fields).encode(), kind)
    assert status == 200, body
    return json.loads(body)


def _sent(fuzzed: Fuzzed, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", fuzzed.port, timeout=60)) as connection:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        if "content-length" not in headers:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _request(data: st.DataObject, fuzzed: Fuzzed) -> tuple[str, str, bytes, dict[str, str]]:
    method, pattern = data.draw(st.sampled_from(fuzzed.routes))
    if data.draw(st.integers(0, 9)) == 0:
        method = data.draw(
            st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "FOO"])
        )
    words = WORDS | st.sampled_from(sorted(fuzzed.known.values()))
    path = "/".join(
        quote(data.draw(words).encode("utf-8", "surrogatepass"), safe="/%") if part.startswith("{") else part
        for part in pattern.split("/")
    )[:6_000]
    fields = data.draw(FIELDS)
    for name in data.draw(st.lists(st.sampled_from(["run_id", "model_id", "experiment_id"]), max_size=2)):
        fields[name] = {"experiment_id": "0", "run_id": fuzzed.known["run"]}.get(name, fuzzed.known["model"])
    body = data.draw(RAW | st.just(json.dumps(fields).encode()))
    if data.draw(st.booleans()):
        texts = {name: str(value).encode("utf-8", "surrogatepass") for name, value in fields.items()}
        path += f"?{urlencode(texts)}"[:6_000]
    headers = {"content-type": data.draw(KINDS), **data.draw(JUNK)}
    if pattern.startswith(BASE) and data.draw(st.booleans()):
        headers |= {"content-type": CONTENT_TYPE, PROTOCOL_HEADER: PROTOCOL}
        body = data.draw(RAW | st.just(_packed(fields)))
    if headers.get("content-encoding") == "gzip" and data.draw(st.booleans()):
        body = gzip.compress(body)
    return method, path, b"" if method == "HEAD" else body, headers


def _packed(fields: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(fields)
    except (OverflowError, UnicodeEncodeError):  # beyond what MessagePack has
        return b"\x81\xa1a\xc0"


def _check(fuzzed: Fuzzed, data: st.DataObject) -> None:
    method, path, body, headers = _request(data, fuzzed)
    status, answer = _sent(fuzzed, method, path, body, headers)
    shown = (method, path[:300], body[:300], headers, status, answer[:600])
    assert status < 500, shown
    if status >= 400:
        text = answer.decode()
        assert not any(each in text for each in (*NEVER, os.fspath(fuzzed.root), fuzzed.root.name)), shown
        if method != "HEAD" and answer and not text.startswith("Invalid HTTP request"):
            told = json.loads(text)
            assert set(told) in ({"error"}, {"error_code", "message"}, {"sha256", "is_kept"}), shown
    status, answer = _sent(fuzzed, "GET", "/health", b"", {})
    assert (status, json.loads(answer)["status"]) == (200, "ok")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_request_makes_any_path_fail(fuzzed: Fuzzed, data: st.DataObject) -> None:
    _check(fuzzed, data)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_request_of_many_makes_any_path_fail(fuzzed: Fuzzed, data: st.DataObject) -> None:
    _check(fuzzed, data)


def test_every_path_was_found(fuzzed: Fuzzed) -> None:
    paths = {path for _, path in fuzzed.routes}
    assert {"/health", "/version", "/streams/{name}", "/api/noria/runs/{id}", "/get-artifact"} <= paths
    assert "/api/2.0/mlflow/runs/log-batch" in paths
    assert len(paths) > 90
