"""Who may ask the control plane: passwords, tokens, roles, and what nobody gets to see."""

import base64
import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_control_plane import SINCE

import noria
from noria.api import auth
from noria.api.application import application
from noria.api.auth import needed_role
from noria.api.guards import check_strangers, checked_prefix, exposures
from noria.api.mlflow.wiring import mlflow_application
from noria.api.server import Certificate, ControlPlane
from noria.config import Server
from noria.errors import ConfigError, Conflict, NotFound
from noria.workspace.up import records as up_records
from noria.workspace.up.records import UpState
from noria.workspace.user_desk import UserDesk
from noria.workspace.users import Role, User, UserFile, is_password

API = "/api/2.0/mlflow"
ADA, EVE, MAX = "correct horse battery", "staple und größe", "another long one"
DECLARED = "import noria\n\n\n@noria.pipeline\ndef clean(month: str = '2024-01') -> None: ...\n"


@dataclass
class Site:
    """A control plane whose users are known."""

    project: noria.Project
    port: int
    tokens: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: object = None, *, by: str | None = None, **headers: str
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        named = {"content-type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        if by is not None:
            named["authorization"] = by
        data = None if body is None else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text, answer.headers

    @property
    def file(self) -> UserFile:
        return UserFile(self.project.root / "users.json")


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def state() -> UpState:
    return UpState(role=up_records.Role.FOLLOWER, since=SINCE, leader=None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    (root / "noria.toml").write_text(
        '[project]\nname = "site"\nmodules = ["users_declared"]\n[server]\nusers = "users.json"\n'
    )
    (root / "users_declared.py").write_text(DECLARED)
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        desk = UserDesk(project)
        desk.add("ada", Role.WRITE, password=ADA)
        desk.add("eve", Role.READ, password=EVE)
        desk.add("max", Role.ADMIN, password=MAX)
        made = Site(project, int(plane.url.rpartition(":")[2]))
        made.tokens = {name: f"Bearer {desk.make_token(name).token}" for name in ("ada", "eve", "max")}
        plane.start(application(project, state, host="127.0.0.1"))
        yield made


def test_who_does_not_say_who_asks_is_asked(site: Site) -> None:
    for method, path in (
        ("GET", f"{API}/experiments/get?experiment_id=0"),
        ("GET", "/api/noria/status"),
        ("GET", "/features"),
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x"),
        ("POST", f"{API}/runs/create"),
        ("POST", "/datasets/x/rows"),
        ("GET", "/get-artifact?run_id=x&path=y"),
    ):
        status, answer, headers = site.ask(method, path)
        assert (status, headers["www-authenticate"].split()[0]) == (401, "Basic"), path
        assert answer.get("error_code", answer.get("error", {}).get("kind")).upper() == "UNAUTHENTICATED"
    assert site.ask("GET", "/health")[0] == site.ask("GET", "/version")[0] == 200


@pytest.mark.parametrize(
    "by",
    [
        "Basic",
        "Basic !!",
        "Basic " + base64.b64encode(b"ada").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Bearer",
        "Bearer nothing",
        "Bearer \xff",
        "Digest x",
        "x" * 20_000,
        " ",
    ],
)
def test_credentials_that_are_none_prove_nothing(site: Site, by: str) -> None:
    status, answer, _ = site.ask("GET", f"{API}/experiments/get?experiment_id=0", by=by)
    assert (status, answer["error_code"]) == (401, "UNAUTHENTICATED")


def test_a_role_may_what_it_says(site: Site) -> None:
    asked: list[tuple[str, str, object, str]] = [
        ("GET", f"{API}/experiments/get?experiment_id=0", None, "eve"),
        ("POST", f"{API}/runs/search", {"experiment_ids": ["0"]}, "eve"),
        ("POST", "/ajax-api/2.0/mlflow/experiments/search", {}, "eve"),
        ("GET", "/api/noria/status", None, "eve"),
        ("POST", f"{API}/runs/create", {}, "ada"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x", {}, "ada"),
        ("POST", "/api/noria/pipelines/clean/runs", {}, "ada"),
        ("POST", f"{API}/experiments/create", {"name": "gone"}, "ada"),
        ("POST", "/api/3.0/mlflow/experiments/delete", {"experiment_id": "1"}, "max"),
    ]
    ranks = ["eve", "ada", "max"]
    for method, path, body, least in asked:
        for name in ranks:
            status, answer, _ = site.ask(method, path, body, by=site.tokens[name])
            if ranks.index(name) < ranks.index(least):
                assert status == 403, (path, name)
                told = answer["message"] if "message" in answer else answer["error"]["message"]
                assert f"noria user add {name} --role" in told
            else:
                assert status in {200, 202, 400}, (path, name, answer)


def test_every_procedure_that_changes_something_needs_more_than_reading(site: Site) -> None:
    paths = mlflow_application(site.project, otherwise=lambda *_: None).paths()  # type: ignore[arg-type]
    reading = {
        path.removeprefix(API)
        for method, path in paths
        if needed_role(method, path) is Role.READ and method != "GET"
    }
    assert reading == {
        "/experiments/search",
        "/experiments/search-datasets",
        "/runs/search",
        "/logged-models/search",
        "/registered-models/get-latest-versions",
    }
    assert {path.removeprefix(API) for method, path in paths if needed_role(method, path) is Role.ADMIN} == {
        "/experiments/delete",
        "/experiments/restore",
        "/registered-models/delete",
    }


def test_events_are_the_users_and_the_owner_is_whom_the_client_names(site: Site) -> None:
    run = site.ask("POST", f"{API}/runs/create", {"user_id": "robot"}, by=basic("ada", ADA))[1]["run"]["info"]
    assert run["user_id"] == "robot"
    site.ask(
        "POST", f"{API}/runs/update", {"run_id": run["run_id"], "status": "FAILED"}, by=basic("max", MAX)
    )
    events = site.project.ledger.list_events(subject=f"run/{run['run_id']}")
    assert [(each.verb, each.actor) for each in events] == [
        ("run.started", "person:ada"),
        ("run.failed", "person:max"),
    ]
    asked = site.ask("POST", "/api/noria/pipelines/clean/runs", {}, by=site.tokens["ada"])[1]["event"]
    assert site.project.ledger.get_event(asked).actor == "person:ada"
    assert site.project.ledger.append("x.happened").actor != "person:ada"


def test_a_change_of_the_file_counts_at_once(site: Site) -> None:
    desk, path = UserDesk(site.project), f"{API}/experiments/get?experiment_id=0"
    desk.add("tim", Role.READ)
    one, other = desk.make_token("tim"), desk.make_token("tim", lasts=timedelta(seconds=1))
    for made in (one, other):
        assert site.ask("GET", path, by=f"Bearer {made.token}")[0] == 200
    assert site.ask("POST", f"{API}/runs/create", {}, by=f"Bearer {one.token}")[0] == 403
    desk.add("tim", Role.WRITE, replace=True)
    assert site.ask("POST", f"{API}/runs/create", {}, by=f"Bearer {one.token}")[0] == 200
    time.sleep(1.0)
    assert site.ask("GET", path, by=f"Bearer {other.token}")[0] == 401  # it has ended, though it was known
    desk.remove("tim", token=one.id)
    assert site.ask("GET", path, by=f"Bearer {one.token}")[0] == 401
    desk.remove("tim")
    with pytest.raises(NotFound):
        desk.make_token("tim")
    verbs = [each.verb for each in site.project.ledger.list_events(subject="user/tim")]
    first = ["user.added", "user.token_made", "user.token_made", "user.added"]
    assert verbs == [*first, "user.token_removed", "user.removed"]


def test_a_file_that_cannot_be_read_lets_nobody_in(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    good, path = site.file.path.read_bytes(), f"{API}/experiments/get?experiment_id=0"
    try:
        for text, mode in ((b"{", 0o600), (good, 0o644), (good.replace(b"scrypt$15", b"scrypt$40"), 0o600)):
            site.file.path.write_bytes(text)
            site.file.path.chmod(mode)
            status, answer, headers = site.ask("GET", path, by=site.tokens["ada"])
            assert (status, answer["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
            assert headers["retry-after"] and str(site.project.root) not in answer["message"]
        assert "`chmod 600` it" in caplog.text
    finally:
        site.file.path.write_bytes(good)
        site.file.path.chmod(0o600)
    assert site.ask("GET", path, by=site.tokens["ada"])[0] == 200


def test_guessing_is_slowed_down_and_whoever_is_known_goes_on(site: Site) -> None:
    path = f"{API}/experiments/get?experiment_id=0"
    assert site.ask("GET", path, by=basic("eve", EVE))[0] == 200
    found = [site.ask("GET", path, by=basic("eve", f"guess {number}")) for number in range(7)]
    assert [status for status, _, _ in found] == [401] * 5 + [429] * 2
    assert int(found[-1][2]["retry-after"]) >= 1
    assert found[-1][1]["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert site.ask("GET", path, by=basic("eve", EVE))[0] == 200
    assert site.ask("GET", path, by=site.tokens["eve"])[0] == 200
    assert site.ask("GET", path, by=basic("ada", ADA))[0] == 200


def test_the_same_wrong_password_from_many_at_once_is_one_guess(site: Site) -> None:
    UserDesk(site.project).add("forgetful", Role.READ, password=MAX)
    path, by = f"{API}/experiments/get?experiment_id=0", basic("forgetful", "not that one")
    with ThreadPoolExecutor(8) as pool:
        assert {s for s, _, _ in pool.map(lambda _: site.ask("GET", path, by=by), range(8))} == {401}
    assert site.ask("GET", path, by=basic("forgetful", MAX))[0] == 200


def test_only_whose_record_changes_has_to_prove_it_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def counted(user: User | None, password: str) -> bool:
        tried.append("" if user is None else user.name)
        return is_password(user, password)

    monkeypatch.setattr(auth, "is_password", counted)
    desk, path = UserDesk(site.project), f"{API}/experiments/get?experiment_id=0"
    for name in ("one", "other"):
        desk.add(name, Role.READ, password=f"a password of {name}")
        assert site.ask("GET", path, by=basic(name, f"a password of {name}"))[0] == 200
    desk.add("one", Role.READ, password="another password", replace=True)
    assert site.ask("GET", path, by=basic("other", "a password of other"))[0] == 200
    assert tried == ["one", "other"]
    assert site.ask("GET", path, by=basic("one", "a password of one"))[0] == 401
    assert tried == ["one", "other", "one"]


def test_addresses_end_with_the_user_who_was_given_them(site: Site) -> None:
    desk, mpu = UserDesk(site.project), "/api/2.0/mlflow-artifacts/mpu"
    desk.add("guest", Role.WRITE)
    by = f"Bearer {desk.make_token('guest').token}"
    assert site.ask("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/gone", {}, by=by)[0] == 200
    made = site.ask("POST", f"{mpu}/create/0", {"path": "x"}, by=by, x_forwarded_proto="https")[1]
    signed = site.ask("GET", "/api/2.0/mlflow-artifacts/presigned/0/gone", by=by)[1]["url"]
    assert made["credentials"][0]["url"].startswith("https://127.0.0.1")
    part, whole = (each.partition(f":{site.port}")[2] for each in (made["credentials"][0]["url"], signed))
    assert site.ask("PUT", part, {})[0] == site.ask("GET", whole)[0] == 200
    for wrong in (
        part.replace("/guest/", "/ada/"),
        part.replace("/guest/", "/-/"),
        part.replace("/guest", ""),
    ):
        assert site.ask("PUT", wrong, {})[0] in {401, 404}
    assert site.ask("GET", whole.replace("/guest/", "/ada/"))[0] == 403
    desk.add("guest", Role.READ, replace=True)
    assert (site.ask("PUT", part, {})[0], site.ask("GET", whole)[0]) == (403, 200)
    desk.remove("guest")
    assert (site.ask("PUT", part, {})[0], site.ask("GET", whole)[0]) == (401, 401)


def test_many_who_come_at_once_are_all_let_in(site: Site) -> None:
    UserDesk(site.project).add("crowd", Role.READ, password=MAX)
    path, by = f"{API}/experiments/get?experiment_id=0", basic("crowd", MAX)
    with ThreadPoolExecutor(32) as pool:
        assert {status for status, _, _ in pool.map(lambda _: site.ask("GET", path, by=by), range(64))} == {
            200
        }


def test_no_secret_is_told_anywhere(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    secret = "an unlucky password"
    for number in range(6):
        site.ask("GET", "/api/noria/status", by=basic("nobody", f"{secret}{number}"))
    with pytest.raises(ConfigError) as caught:
        site.file.add("short", Role.READ, password="shortsecret")
    kept = site.file.path.read_text()
    events = str(site.project.ledger.list_events())
    for text in (ADA, EVE, MAX, secret, "shortsecret", *(each.split()[1] for each in site.tokens.values())):
        assert text not in kept + events + caplog.text + str(caught.value)
    assert site.file.path.stat().st_mode & 0o777 == 0o600


def test_what_is_remembered_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", 2)
    path = f"{API}/experiments/get?experiment_id=0"
    for _ in range(2):
        for by in site.tokens.values():
            assert site.ask("GET", path, by=by)[0] == 200


def test_names_and_passwords_have_limits(tmp_path: Path) -> None:
    file = UserFile(tmp_path / "users.json")
    for name in ("", "a:b", "a b", "ü", "-a", "a" * 101):
        with pytest.raises(ConfigError, match="no name of a user"):
            file.add(name, Role.READ)
    for password in ("a" * 11, "a" * 1_025, "a line\nand another"):
        with pytest.raises(ConfigError, match="password"):
            file.add("a", Role.READ, password=password)
    file.add("a" * 100, Role.READ)
    with pytest.raises(Conflict, match="--replace"):
        file.add("a" * 100, Role.READ)
    assert [each.name for each in file.read().all] == ["a" * 100]


def test_many_who_change_the_file_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: UserFile(tmp_path / "u.json").add(f"u{n}", Role.READ), range(24)))
    assert len(UserFile(tmp_path / "u.json").read().all) == 24
    assert {each.name for each in tmp_path.iterdir()} == {"u.json", "u.json.lock"}


@pytest.mark.parametrize("prefix", ["x", "//", "/a//b", "/../x", "/a b", "/ü", "/a?b"])
def test_a_prefix_that_can_be_none_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        checked_prefix(prefix if prefix != "//" else "//a")


def test_beyond_this_machine_users_are_wanted() -> None:
    with pytest.raises(ConfigError, match="whoever reaches this machine"):
        check_strangers(Server(host="0.0.0.0"))
    for good in (Server(), Server(host="0.0.0.0", users="u"), Server(host="0.0.0.0", strangers="allow")):
        check_strangers(good)
    assert exposures(Server()) == exposures(Server(host="::", users="u", tls_certificate="c")) == []
    assert exposures(Server(host="::", strangers="allow"))[0].startswith("ANYBODY")
    assert "plain text" in exposures(Server(host="::", users="u"))[0]


def test_hosts_prefix_and_origins(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text(
        '[project]\nname = "site"\n[server]\nhosts = ["ML.example"]\nprefix = "/api/"\n'
    )
    with noria.open(tmp_path) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, state, host="0.0.0.0"))
        site = Site(project, int(plane.url.rpartition(":")[2]))
        path = f"/api{API}/experiments/get?experiment_id=0"
        for host, status in (
            ("ml.example:80", 200),
            ("ml.EXAMPLE", 200),
            ("127.0.0.1", 421),
            ("evil.example", 421),
        ):
            assert site.ask("GET", path, host=host)[0] == status, host
        assert site.ask("GET", "/api/api/noria/status", host="ml.example")[0] == 200
        for elsewhere in ("/api", f"{API}/experiments/get?experiment_id=0", "/health", "/"):
            assert site.ask("GET", elsewhere, host="ml.example")[0] == 404, elsewhere
        assert site.ask("GET", "/api/health", host="ml.example")[0] == 200
        create, by_host = f"/api{API}/runs/create", {"host": "ml.example"}
        for origin, status in (
            ("https://ml.example", 200),
            ("https://evil.example", 403),
            ("null", 403),
            ("http://[", 403),
        ):
            assert site.ask("POST", create, {}, origin=origin, **by_host)[0] == status, origin


def test_a_page_of_another_site_changes_nothing_beyond_this_machine_either(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\n')
    with noria.open(tmp_path) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, state, host="0.0.0.0"))
        site = Site(project, int(plane.url.rpartition(":")[2]))
        create, host = f"{API}/runs/create", "any.example:8000"
        assert site.ask("POST", create, {}, host=host, origin="http://any.example:8000")[0] == 200
        assert site.ask("POST", create, {}, host=host, origin="https://evil.example")[0] == 403


def test_tls_with_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\n')
    with noria.open(tmp_path) as project:
        with ControlPlane("127.0.0.1", 0, certificate=Certificate(chain, key)) as plane:
            assert plane.url.startswith("https://127.0.0.1:")
            plane.start(application(project, state, host="127.0.0.1"))
            context = ssl.create_default_context(cafile=os.fspath(chain))
            port = int(plane.url.rpartition(":")[2])
            with closing(http.client.HTTPSConnection("localhost", port, context=context)) as connection:
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
            monkeypatch.setenv("NORIA_TRACKING__SPOOL", str(tmp_path / "spool"))
            monkeypatch.setenv("NORIA_TRACKING__PATIENCE_S", "0.3")
            url = f"https://localhost:{port}"
            with noria.start_run(server=url, system_metrics=False) as waits:
                waits.log_metric("loss", 1)
            (done,) = noria.sync_runs().logs
            assert not done.is_sent
            assert "SSL_CERT_FILE" in done.why
            monkeypatch.setenv("SSL_CERT_FILE", str(chain))
            assert noria.sync_runs().is_whole
            assert project.ledger.get_run(waits.id).metrics == {"loss": 1}
        for certificate in (Certificate(key, key), Certificate(tmp_path / "none.pem")):
            with pytest.raises(ConfigError, match="tls_certificate"):
                ControlPlane("127.0.0.1", 0, certificate=certificate)
