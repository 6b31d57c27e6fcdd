import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.serving.conftest import NOW, Trained, route

from noria.deploy.supervisor import Supervisor
from noria.errors import DeploymentError
from noria.serving.client import ServingClient
from noria.serving.records import Limits, WorkerConfig

Supervise = Callable[..., Supervisor]
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, worker_config: WorkerConfig, first: Trained
) -> Iterator[Supervisor]:
    limits = Limits(read_timeout_s=0.4, max_connections=4)
    config = msgspec.structs.replace(worker_config, limits=limits)
    with Supervisor(tmp_path_factory.mktemp("strict") / "production", config) as supervisor:
        supervisor.start(route(1, first.served(1)))
        yield supervisor


def connect(supervisor: Supervisor) -> socket.socket:
    connection = socket.create_connection((supervisor.address.host, supervisor.address.port))
    connection.settimeout(5)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    read = b""
    while data := connection.recv(4_096):
        read += data
    return read


def received(connection: socket.socket) -> bytes:
    """One answer: head and body may come apart."""
    found = b""
    while not found.endswith(b"}"):
        data = connection.recv(4_096)
        assert data, found
        found += data
    return found


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /v2/models/la",
        b"POST /v2/models/late/infer HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{",
        LIVE + b"GET /v2/health/live HTTP/1.1\r\nHo",
    ],
    ids=["headers", "body", "the second request"],
)
def test_a_client_that_does_not_end_its_request_gets_408(strict: Supervisor, begun: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(begun)
        answer = read_to_end(connection)
    assert b"HTTP/1.1 408" in answer
    assert b"connection: close" in answer
    assert b'{"error":"the request did not come in time' in answer


def test_a_client_that_says_nothing_is_shown_out_and_one_between_requests_is_not(strict: Supervisor) -> None:
    with connect(strict) as silent, connect(strict) as kept:
        kept.sendall(LIVE)
        assert b"200 OK" in received(kept)
        assert read_to_end(silent) == b""
        time.sleep(0.3)
        kept.sendall(LIVE)
        assert b"200 OK" in received(kept)


def test_one_connection_too_many_gets_503_and_the_others_go_on(strict: Supervisor) -> None:
    kept = [connect(strict) for _ in range(4)]
    for each in kept:
        each.sendall(LIVE)
        assert b"200 OK" in received(each)
    with connect(strict) as another:
        another.sendall(LIVE)
        answer = read_to_end(another)
    assert b"HTTP/1.1 503" in answer
    assert b"retry-after: 1" in answer
    kept[0].sendall(LIVE)
    assert b"200 OK" in received(kept[0])
    for each in kept:
        each.close()


def test_what_is_in_flight_is_answered_where_a_server_stops(supervise: Supervise, first: Trained) -> None:
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    body = b'{"inputs": []}'
    with connect(supervisor) as connection:
        head = f"POST /v2/models/late/infer HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:3])
        time.sleep(0.1)
        stopping = threading.Thread(target=supervisor.stop)
        stopping.start()
        time.sleep(0.2)
        connection.sendall(body[3:])
        answer = read_to_end(connection)
        stopping.join()
    assert b"HTTP/1.1 400" in answer  # that it has no inputs was read and told
    assert b"connection: close" in answer


def test_a_server_speaks_tls(
    supervise: Supervise, worker_config: WorkerConfig, first: Trained, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=here", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    config = msgspec.structs.replace(worker_config, tls_certificate=str(certificate), tls_key=str(key))
    supervisor = supervise(using=config)
    assert str(supervisor.start(route(1, first.served(1)))).startswith("https://")
    with supervisor.client() as client:
        assert client.infer("late", {"carrier": ["AA"], "distance": [1]}, at=NOW).versions == [1]
    host, port = supervisor.address.host, supervisor.address.port
    with (
        ServingClient(host, port, retry_s=0.0) as plain,
        pytest.raises(DeploymentError, match="no worker answers"),
    ):
        plain.get("/v2/health/live")
    with socket.create_connection((host, port)) as bare, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(bare, server_hostname="here")
