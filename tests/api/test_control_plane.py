"""The control plane over real HTTP: what it answers, what it takes, what it refuses."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import noria
from noria.api.application import application
from noria.api.errors import status_of
from noria.api.guards import is_loopback
from noria.api.server import ControlPlane
from noria.errors import ConfigError, Conflict, NotFound, PortInUse, StoreError
from noria.records import RunState
from noria.workspace.project import Project
from noria.workspace.up.records import Role, UpState

SINCE = datetime(2024, 5, 1, tzinfo=UTC)
DECLARED = """
import noria


@noria.pipeline
def clean(month: str = "2024-01", limit: int = 3) -> None: ...


@noria.pipeline
def needy(day: str) -> None: ...


nightly = noria.Trigger(noria.schedule("0 3 * * *", tz="Europe/Vienna"), run=clean, name="nightly")
"""


@dataclass
class Asker:
    """Asks one control plane."""

    port: int
    project: Project
    state: list[UpState] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Give status and answer. Headers are given with '_' for '-'."""
        data = raw if body is None else msgspec.json.encode(body)
        named = {"content-type": "application/json"} if method == "POST" else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            assert answer.headers["content-type"] == "application/json"
            return answer.status, json.loads(answer.read())


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\nmodules = ["api_declared"]\n')
    (tmp_path / "api_declared.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def asker(project: Project) -> Iterator[Asker]:
    with ControlPlane("127.0.0.1", 0) as plane:
        made = Asker(int(plane.url.rpartition(":")[2]), project)
        made.state.append(UpState(role=Role.FOLLOWER, since=SINCE, leader="pid 7 on elsewhere"))
        plane.start(application(project, lambda: made.state[-1], host="127.0.0.1"))
        yield made


def test_health_tells_the_role_without_the_database(asker: Asker) -> None:
    asker.state.append(msgspec.structs.replace(asker.state[-1], database="it is gone"))
    status, answer = asker.ask("GET", "/health")
    assert status == 200
    assert answer == {
        "status": "ok",
        "role": "follower",
        "since": "2024-05-01T00:00:00Z",
        "leader": "pid 7 on elsewhere",
        "database": "it is gone",
    }


def test_status_is_that_of_the_project_and_of_the_process(asker: Asker) -> None:
    status, answer = asker.ask("GET", "/api/noria/status")
    assert status == 200
    assert answer["project"]["declared"]["triggers"] == ["nightly"]
    clean, needy = answer["project"]["pipelines"]
    assert (clean["name"], clean["last"], clean["next"]["trigger"]) == ("clean", None, "nightly")
    assert (needy["name"], needy["next"]) == ("needy", None)
    assert (answer["up"]["role"], answer["up"]["waiting"], answer["up"]["serving"]) == ("follower", 0, [])


def test_schedules_tell_what_comes_next(asker: Asker) -> None:
    status, (nightly,) = asker.ask("GET", "/api/noria/schedules")
    assert status == 200
    assert (nightly["trigger"], nightly["runs"], nightly["by"]) == ("nightly", "clean", "up")
    assert (nightly["schedule"], nightly["tz"], nightly["catch_up"]) == (
        "0 3 * * *",
        "Europe/Vienna",
        "newest",
    )
    instants = [datetime.fromisoformat(each) for each in nightly["next"]]
    assert len(instants) == 5
    assert instants == sorted(instants)
    assert instants[0] > datetime.now(UTC)


def test_runs_are_listed_filtered_and_shown(asker: Asker) -> None:
    ledger = asker.project.ledger
    cause = ledger.append("person.asked", subject="x")
    with ledger.running("ingest", "rows", cause=cause.id) as done:
        version = ledger.record_version("dataset", "rows", sha256="0" * 64, uri="rows", run=done.id)
    failed = ledger.start_run("check", "rows")
    ledger.finish_run(failed.id, state=RunState.FAILED, error="it was wrong")
    assert [each["id"] for each in asker.ask("GET", "/api/noria/runs")[1]] == [failed.id, done.id]
    assert [each["id"] for each in asker.ask("GET", "/api/noria/runs?state=failed")[1]] == [failed.id]
    assert [each["id"] for each in asker.ask("GET", "/api/noria/runs?kind=ingest&limit=1")[1]] == [done.id]
    status, shown = asker.ask("GET", f"/api/noria/runs/{done.id}")
    assert status == 200
    assert shown["cause"]["id"] == cause.id
    assert [each["id"] for each in shown["outputs"]] == [version.id]
    assert shown["inputs"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1"])
def test_a_limit_has_limits(asker: Asker, query: str) -> None:
    status, answer = asker.ask("GET", f"/api/noria/runs?{query}")
    assert (status, answer["error"]["kind"]) == (400, "BadRequest")
    assert "from 1 to 1000" in answer["error"]["message"]


def test_what_does_not_exist_is_not_found(asker: Asker) -> None:
    for method, path in (
        ("GET", "/api/noria/runs/nothing"),
        ("GET", "/api/noria/runs?state=odd"),
        ("POST", "/api/noria/runs/nothing/cancel"),
        ("POST", "/api/noria/pipelines/clear/runs"),
    ):
        status, answer = asker.ask(method, path)
        assert (status, answer["error"]["kind"]) == (404, "NotFound"), path
    assert "did you mean 'clean'?" in answer["error"]["message"]
    assert asker.ask("GET", "/elsewhere")[0] == 404
    assert asker.ask("DELETE", "/health")[0] == 405


def test_a_run_of_a_pipeline_is_asked_for_once(asker: Asker) -> None:
    path, body = "/api/noria/pipelines/clean/runs", {"params": {"month": "2024-02"}, "key": "monday"}
    status, first = asker.ask("POST", path, body)
    assert status == 202
    assert first["reason"] == "clean was asked for with month='2024-02'"
    assert asker.ask("POST", path, body) == (202, first)
    (event,) = asker.project.ledger.list_events(verb="pipeline.requested")
    assert (event.id, event.subject, event.actor) == (first["event"], "clean", "api")
    assert event.payload["params"] == {"month": "2024-02"}
    status, answer = asker.ask("POST", path, {"key": "monday"})
    assert (status, answer["error"]["kind"]) == (409, "Conflict")
    assert asker.ask("POST", path)[0] == asker.ask("POST", path)[0] == 202
    assert len(asker.project.ledger.list_events(verb="pipeline.requested")) == 3


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"moon": 1}, "pipeline 'clean' has no parameter 'moon'; it has month, limit"),
        ({"limit": [1]}, "pipeline 'clean': 'limit' is [1] (list), wanted is int"),
        ({"limit": "three"}, "clean: the parameter 'limit' is 'three', wanted is int"),
        ({"month": 3}, "pipeline 'clean': 'month' is 3 (int), wanted is str"),
    ],
)
def test_what_a_pipeline_does_not_take_is_refused_as_the_command_line_does(
    asker: Asker, params: dict[str, Any], told: str
) -> None:
    status, answer = asker.ask("POST", "/api/noria/pipelines/clean/runs", {"params": params})
    assert (status, answer["error"]["kind"]) == (422, "ConfigError")
    assert answer["error"]["message"] == told
    with pytest.raises(ConfigError) as caught:
        asker.project.run_pipeline("clean", params)
    assert str(caught.value) == told
    assert asker.project.ledger.list_events(verb="pipeline.requested") == []


def test_a_parameter_that_a_pipeline_needs_is_named(asker: Asker) -> None:
    status, answer = asker.ask("POST", "/api/noria/pipelines/needy/runs")
    assert (status, answer["error"]["kind"]) == (422, "ConfigError")
    assert "'needy': the parameter 'day' is missing" in answer["error"]["message"]


def test_a_text_is_read_as_the_pipeline_wants_it(asker: Asker) -> None:
    assert asker.ask("POST", "/api/noria/pipelines/clean/runs", {"params": {"limit": "3"}})[0] == 202


def test_a_run_is_asked_to_end_once(asker: Asker) -> None:
    ledger = asker.project.ledger
    run = ledger.start_run("pipeline", "clean")
    path = f"/api/noria/runs/{run.id}/cancel"
    assert asker.ask("POST", path)[0] == asker.ask("POST", path, {})[0] == 202
    (event,) = ledger.list_events(verb="run.cancel_requested")
    assert (event.subject, event.key) == (f"run/{run.id}", f"cancel:{run.id}")
    assert event.payload["reason"] == "asked for over HTTP"
    ledger.finish_run(run.id, state=RunState.CANCELLED)
    status, answer = asker.ask("POST", path)
    assert (status, answer["error"]["kind"]) == (409, "Conflict")
    assert "is already cancelled" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"parms": {}}', {}, 400),
        (b'{"params": 3}', {}, 400),
        (b"\xff", {}, 400),
        (b"{}", {"content_type": "text/plain"}, 415),
        (b"key=monday", {"content_type": "application/x-www-form-urlencoded"}, 415),
        (b'"' + b"x" * (1 << 20) + b'"', {}, 413),
        (b"{}", {"host": "elsewhere.example"}, 421),
        (b"{}", {"host": "127.0.0.1.elsewhere.example:80"}, 421),
    ],
)
def test_bodies_and_hosts_that_are_refused(
    asker: Asker, raw: bytes, headers: dict[str, str], status: int
) -> None:
    found, answer = asker.ask("POST", "/api/noria/pipelines/clean/runs", raw=raw, **headers)
    assert found == status
    assert answer["error"]["kind"] == "BadRequest"
    assert asker.project.ledger.list_events(verb="pipeline.requested") == []


def test_a_fault_is_a_500_and_the_next_request_is_answered(
    asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    right = asker.state.pop()
    status, answer = asker.ask("GET", "/health")
    assert (status, answer["error"]["kind"]) == (500, "IndexError")
    assert "GET /health failed: IndexError" in caplog.text
    asker.state.append(right)
    assert asker.ask("GET", "/health")[0] == 200


def test_each_error_has_its_status() -> None:
    assert [int(status_of(each)) for each in (NotFound("run", "x"), Conflict("x"), ConfigError("x"))] == [
        404,
        409,
        422,
    ]
    assert [int(status_of(each)) for each in (StoreError("x"), PortInUse("h", 1))] == [503, 500]


def test_loopback_names() -> None:
    for name in ("localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1"):
        assert is_loopback(name)
    for name in ("", "elsewhere", "10.0.0.1", "localhost.elsewhere", "0.0.0.0"):
        assert not is_loopback(name)


def test_a_port_that_is_taken_or_is_none_is_refused() -> None:
    with ControlPlane("127.0.0.1", 0) as plane:
        port = int(plane.url.rpartition(":")[2])
        with pytest.raises(PortInUse, match="choose another with `--port`"):
            ControlPlane("127.0.0.1", port)
    for host, wrong in (("127.0.0.1", 99_999), ("127.0.0.1", -1), ("192.0.2.7", 0), ("no such host", 0)):
        with pytest.raises(ConfigError):
            ControlPlane(host, wrong)


def test_an_address_of_the_sixth_version_is_written_in_brackets() -> None:
    try:
        plane = ControlPlane("::1", 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with plane:
        assert plane.url.startswith("http://[::1]:")
