"""Who may ask a real worker, over what: keys, TLS, proxies; and what is told of a request anywhere."""

import http.client
import json
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.serving.served import mixed, numeric, supervised

from noria.deploy.supervisor import Supervisor
from noria.errors import ConfigError
from noria.serving.http.keys import KeyFile
from noria.serving.logs.log import decode_frame
from noria.serving.records import STATUS_FILE, Limits, WorkerConfig
from noria.streams.spool import read_spool

NONE: Mapping[str, str] = {}
PLAIN = WorkerConfig(environment="production", limits=Limits(max_body_bytes=100_000))
NUMBERS = {"x0": 0.5, "x1": 1.0, "x2": -1.0, "x3": 3.0}
INFER = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [1, 2, 3, 4]}]}'
ASKING: list[tuple[str, str, bytes]] = [
    ("POST", "/v2/models/numbers/infer", INFER),
    ("POST", "/v2/models/numbers/versions/1/infer", INFER),
    ("POST", "/v1/models/numbers:predict", b'{"instances":[[1,2,3,4]]}'),
    ("POST", "/models/numbers/predict", json.dumps(NUMBERS).encode()),
    ("POST", "/invocations?model=numbers", b'{"inputs":[[1,2,3,4]]}'),
    ("GET", "/v2/models/numbers", b""),
    ("GET", "/v2/models/numbers/ready", b""),
    ("GET", "/v1/models/numbers", b""),
    ("POST", "/v2/repository/models/numbers/load", b""),
]
OF_THE_SERVER = [
    ("GET", "/v1/models"), ("GET", "/v2"), ("POST", "/v2/repository/index"), ("GET", "/metrics"),
    ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/outcomes"), ("GET", "/nowhere"),
]  # fmt: skip
OTHER_SPELLINGS = [
    "//v2/models/numbers/infer", "/v2/models/numbers/infer/", "/v2/models/%6eumbers/infer", "/metrics/",
    "/v2/./models/numbers/infer", "/v2/health/live/../../models/numbers/infer", "//metrics", "/%6detrics",
    "/invocations/?model=numbers", "/%69nvocations?model=numbers", "/V2/models/numbers/infer",
    "/v2/health/live/x",
]  # fmt: skip
OPEN = ["/", "/v2/health/live", "/v2/health/ready", "/ping", "/health", "/version"]


def ask(
    supervisor: Supervisor, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = NONE
) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection(supervisor.address.host, supervisor.address.port, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return KeyFile(tmp_path_factory.mktemp("keys") / "serving-keys.json")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, file: KeyFile) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("keyed")
    config = msgspec.structs.replace(PLAIN, keys=str(file.path))
    with supervised(numeric(folder), mixed(folder), folder=folder / "server", config=config) as running:
        yield running


@pytest.fixture(scope="module")
def headers(keyed: Supervisor, file: KeyFile) -> dict[str, dict[str, str]]:
    """Give the headers of callers, once the server knows their keys."""
    made = {
        "all": file.add("shop").key,
        "numbers": file.add("till", deployments=["numbers"]).key,
        "mixed": file.add("lab", deployments=["mixed"]).key,
        "gone": file.add("gone").key,
    }
    file.revoke("gone")
    found = {name: {"Authorization": f"Bearer {key}"} for name, key in made.items()}
    until_known(keyed, found["mixed"])
    return found


def until_known(supervisor: Supervisor, headers: Mapping[str, str]) -> None:
    ends = time.monotonic() + 3.0
    while ask(supervisor, "GET", "/v1/models", headers=headers)[0] != 200:
        assert time.monotonic() < ends, "the server did not follow"
        time.sleep(0.05)


@pytest.mark.parametrize("place", range(len(ASKING)))
def test_only_the_keys_of_a_deployment_open_it(
    keyed: Supervisor, headers: dict[str, dict[str, str]], place: int
) -> None:
    method, path, body = ASKING[place]
    assert ask(keyed, method, path, body, headers["all"])[0] == 200
    assert ask(keyed, method, path, body, headers["numbers"])[0] == 200
    wrong = (NONE, headers["gone"], {"X-Api-Key": "no"}, headers["mixed"])
    for given, wanted in zip(wrong, (401, 401, 401, 403), strict=True):
        status, told, answer = ask(keyed, method, path, body, given)
        assert status == wanted, answer
        assert told["www-authenticate"].startswith('Bearer realm="noria"')
        read = json.loads(answer)
        if path.startswith("/invocations"):
            wanted_code = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}[wanted]
            assert (read["error_code"], list(read)) == (wanted_code, ["error_code", "message"])
        else:
            assert list(read) == ["error"]


def test_what_is_of_no_deployment_needs_any_key_but_for_health(
    keyed: Supervisor, headers: dict[str, dict[str, str]]
) -> None:
    for path in OPEN:
        assert ask(keyed, "GET", path)[0] in (200, 303), path
    for method, path in OF_THE_SERVER:
        assert ask(keyed, method, path)[0] == 401, path
        assert ask(keyed, method, path, headers=headers["mixed"])[0] not in (401, 403), path
    for path in ("/v2/models/unknown/infer", "/v1/models/unknown:predict", "/models/unknown/predict"):
        assert ask(keyed, "POST", path, INFER)[0] == 401, path  # what there is is told to nobody
        assert ask(keyed, "POST", path, INFER, headers["mixed"])[0] == 404


def test_outcomes_are_taken_of_those_who_may_ask_there(
    keyed: Supervisor, headers: dict[str, dict[str, str]]
) -> None:
    body = b'{"prediction_id": "p-1", "outcome": 1, "deployment": "numbers"}'
    assert ask(keyed, "POST", "/outcomes", body, headers["mixed"])[0] == 403
    assert ask(keyed, "POST", "/outcomes", body, headers["numbers"])[0] == 200


def test_a_stranger_is_not_told_what_there_is(keyed: Supervisor, headers: dict[str, dict[str, str]]) -> None:
    status, _, answer = ask(keyed, "POST", "/invocations", b"{}")
    assert (status, b"mixed" in answer) == (401, False)
    status, _, answer = ask(keyed, "POST", "/invocations", b"{}", headers["all"])
    assert (status, b"numbers, mixed" in answer) == (400, True)


def test_a_path_written_in_another_way_opens_nothing(keyed: Supervisor) -> None:
    for path in OTHER_SPELLINGS:
        for method in ("GET", "POST", "HEAD", "PUT", "OPTIONS"):
            assert ask(keyed, method, path, INFER)[0] in (401, 405), (method, path)


def test_predictions_are_logged_with_who_asked(keyed: Supervisor, headers: dict[str, dict[str, str]]) -> None:
    body = json.dumps(NUMBERS | {"prediction_id": "of-the-till"}).encode()
    assert ask(keyed, "POST", "/models/numbers/predict", body, headers["numbers"])[0] == 200
    with keyed.client() as client:  # the supervisor has a key of its own
        client.infer("numbers", {name: [value] for name, value in NUMBERS.items()}, ids=["of-the-server"])
    frames = [decode_frame(each) for _, each in read_spool(keyed.folder / "numbers" / "spool")]
    callers = {each.ids[0]: each.caller for each in frames}
    assert (callers["of-the-till"], callers["of-the-server"]) == ("till", "noria")


def test_a_running_server_follows_the_file_within_a_second(keyed: Supervisor, file: KeyFile) -> None:
    made = file.add("guest")
    headers = {"X-Api-Key": made.key}
    until_known(keyed, headers)
    file.revoke("guest", id=made.id)
    revoked_at = time.monotonic()
    while ask(keyed, "GET", "/v1/models", headers=headers)[0] == 200:
        assert time.monotonic() - revoked_at < 1.6, "a revoked key counts on"
        time.sleep(0.02)


def test_metrics_and_docs_are_shown_to_anybody_where_that_is_said(tmp_path: Path) -> None:
    config = msgspec.structs.replace(PLAIN, keys=str(tmp_path / "keys"), without_key=("metrics", "docs"))
    with supervised(numeric(tmp_path), folder=tmp_path / "server", config=config) as running:
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert ask(running, "GET", path)[0] == 200
        assert ask(running, "GET", "/v2/models/numbers")[0] == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_strangers_are_let_in_only_where_that_is_said(tmp_path: Path, host: str) -> None:
    beyond = msgspec.structs.replace(PLAIN, host=host)
    with (
        pytest.raises(ConfigError, match=r"noria key add CALLER@production.*strangers = \"allow\""),
        supervised(numeric(tmp_path), folder=tmp_path / "server", config=beyond),
    ):
        pass
    for config in (
        msgspec.structs.replace(beyond, strangers="allow"),
        msgspec.structs.replace(beyond, keys=str(tmp_path / "keys.json")),
    ):
        with supervised(numeric(tmp_path), folder=tmp_path / "server", config=config) as running:
            wanted = 200 if config.strangers == "allow" else 401
            connection = http.client.HTTPConnection("127.0.0.1", running.address.port)
            connection.request("GET", "/v1/models")
            assert connection.getresponse().status == wanted
            connection.close()


def test_a_file_of_keys_that_others_may_change_lets_no_server_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    path.chmod(0o660)
    config = msgspec.structs.replace(PLAIN, keys=str(path))
    with (
        pytest.raises(ConfigError, match="chmod 600"),
        supervised(numeric(tmp_path), folder=tmp_path / "server", config=config),
    ):
        pass


def certified(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=here", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_keys_and_tls_go_together_and_a_broken_handshake_harms_nobody(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    file = KeyFile(tmp_path / "keys.json")
    made = file.add("shop")
    config = msgspec.structs.replace(
        PLAIN, keys=str(file.path), tls_certificate=str(certificate), tls_key=str(key)
    )
    with supervised(numeric(tmp_path), folder=tmp_path / "server", config=config) as running:
        where = (running.address.host, running.address.port)
        for wrong in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"a" * 500, b""):
            with socket.create_connection(where, timeout=5) as bare:
                bare.sendall(wrong)
                bare.shutdown(socket.SHUT_WR)
                assert b"200" not in bare.recv(4_096)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(where, timeout=5) as bare,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            old.wrap_socket(bare)
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        secure = http.client.HTTPSConnection(*where, context=context, timeout=10)
        secure.request("POST", "/models/numbers/predict", json.dumps(NUMBERS), {"X-Api-Key": made.key})
        response = secure.getresponse()
        assert (response.status, "score" in json.loads(response.read())) == (200, True)
        secure.request("GET", "/v1/models")
        assert secure.getresponse().status == 401
        secure.close()
        with running.client() as client:
            assert client.infer("numbers", {name: [value] for name, value in NUMBERS.items()}).versions == [1]


@pytest.mark.parametrize(
    ("proxies", "is_believed"), [((), False), (("10.9.8.7",), False), (("127.0.0.0/8",), True)]
)
def test_a_forwarded_address_is_believed_from_a_proxy_alone(
    tmp_path: Path, proxies: tuple[str, ...], is_believed: bool
) -> None:
    config = msgspec.structs.replace(PLAIN, proxies=proxies)
    with supervised(numeric(tmp_path), folder=tmp_path / "server", config=config) as running:
        forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Host": "models.example"}
        status, _, page = ask(running, "GET", "/docs", headers=forwarded)
        assert (status, b"https://models.example" in page) == (200, is_believed)
        for nonsense in ("unknown", "", ",,,", "1.2.3.4:99999, []", "\xff", "a" * 20_000):
            said = {"X-Forwarded-For": nonsense, "X-Forwarded-Proto": nonsense}
            for path in ("/docs", "/v2/repository/index", "/v2/repository/models/numbers/load"):
                told = ask(running, "GET" if path == "/docs" else "POST", path, headers=said)
                assert told[0] < 500, (nonsense, path, told)


SECRET = "quetzalcoatl"
SECRET_NUMBER = 987654321.25
PREDICTS = ("/models/mixed/predict", "/invocations", "/v1/models/mixed:predict", "/v2/models/mixed/infer")
WITH_SECRETS = (
    "Authorization", "X-Api-Key", "Cookie", "traceparent", "X-Request-Id", "Accept", "Accept-Encoding",
    "Referer", "Inference-Header-Content-Length", "X-Forwarded-For", "Content-Encoding", "User-Agent",
)  # fmt: skip
Sent = tuple[str, str, bytes, dict[str, str]]


def bodies_with(value: Any) -> Iterator[tuple[str, Any]]:
    """Give bodies that hold a value as a row, an outcome, an instant or a parameter, with their paths."""
    row = {"distance": value, "carrier": value}
    for body in (row, {"rows": [row]}, {"rows": value}, {"at": value, **row}):
        yield PREDICTS[0], body
    frame = {"columns": ["distance", "carrier"], "data": [[value, value]]}
    for key in ("instances", "inputs", "dataframe_split", "dataframe_records"):
        for given in (value, [value], [row], frame):
            yield PREDICTS[1], {key: given, "params": value}
            yield PREDICTS[2], {key: given}
    for datatype in ("BYTES", "FP64", "INT8", "BOOL"):
        names = ("distance", "carrier")
        yield (
            PREDICTS[3],
            {
                "inputs": [
                    {"name": each, "datatype": datatype, "shape": [1], "data": [value]} for each in names
                ]
            },
        )
    yield "/outcomes", {"prediction_id": "p", "outcome": value, "known_at": value}
    yield "/v2/repository/index", {"ready": value}
    yield "/v2/repository/models/mixed/load", {"parameters": value}


def secret_requests() -> Iterator[Sent]:
    """Give requests, right and wrong ones, with a secret wherever a client may write a value."""
    values: list[Any] = [SECRET, SECRET_NUMBER, [SECRET], {"colour": SECRET}, [[SECRET_NUMBER]], None]
    for value in values:
        for path, body in bodies_with(value):
            yield "POST", path, json.dumps(body).encode(), {}
    for text in (SECRET, f'{{"{SECRET}', f'"{SECRET}"', SECRET * 10_000):
        for path in PREDICTS:
            yield "POST", path, text.encode(), {}
            yield "POST", path, text.encode(), {"Content-Encoding": "gzip"}
    table = f'distance,carrier\n{SECRET},{SECRET_NUMBER}\n{SECRET_NUMBER},{SECRET}\n"{SECRET}'.encode()
    yield "POST", "/invocations", table, {"Content-Type": "text/csv"}
    yield "POST", "/invocations", table, {"Content-Type": f"text/{SECRET}"}
    parquet = {"Content-Type": "application/vnd.apache.parquet"}
    yield "POST", "/invocations", b"PAR1" + table + b"PAR1", parquet
    right = json.dumps({"distance": SECRET_NUMBER, "carrier": SECRET}).encode()
    for name in WITH_SECRETS:
        yield "POST", PREDICTS[0], right, {name: SECRET}
        yield "POST", PREDICTS[3], right, {name: SECRET}
    for path in ("/docs", "/metrics", "/openapi.json", "/v2/models/mixed/ready", PREDICTS[0], "/v2"):
        yield "GET", f"{path}?a={SECRET}&{SECRET}=1", b"", {}
        yield "POST", f"{path}?a={SECRET}&{SECRET}=1", right, {}


def test_no_value_of_a_request_is_told_in_answers_logs_metrics_or_status(tmp_path: Path) -> None:
    with supervised(mixed(tmp_path), folder=tmp_path / "server", config=PLAIN) as running:
        statuses = set()
        for method, path, body, headers in secret_requests():
            status, told, answer = ask(running, method, path, body, headers)
            statuses.add(status)
            for text in (answer.decode("latin-1"), str(dict(told))):
                assert SECRET not in text, (method, path, body[:200], headers, text)
                assert "987654321" not in text, (method, path, body[:200], headers, text)
            assert status < 500, (method, path, body[:200], headers, answer)
        assert {200, 400, 405, 413, 415} <= statuses
        _, _, metrics = ask(running, "GET", "/metrics")
        told_of = {
            "metrics": metrics,
            "log": (running.folder / "worker.log").read_bytes(),
            "status": msgspec.json.encode(running.status()) + (running.folder / STATUS_FILE).read_bytes(),
        }
        for name, data in told_of.items():
            for secret in (SECRET, "987654321"):
                assert secret.encode() not in data, name
        logged = b"".join(each for _, each in read_spool(running.folder / "mixed" / "spool"))
        assert SECRET.encode() in logged  # there it is kept, unless `redact` says otherwise
