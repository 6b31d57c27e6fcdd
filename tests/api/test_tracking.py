"""Logs that other machines send, over real HTTP: bodies too slow, too large, or not what they say."""

import hashlib
import http.client
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import msgspec
import pytest
from tests.api.test_control_plane import SINCE
from tests.tracking.test_sent_logs import beginning, first, loss

import noria
from noria.api import tracking
from noria.api.application import application
from noria.api.mlflow import held_bodies, receiving
from noria.api.server import ControlPlane
from noria.api.tracking import BASE
from noria.tracking.remote.sending import CONTENT_TYPE, PROTOCOL, PROTOCOL_HEADER, decode_kept, encode_wire
from noria.workspace.up.records import Role, UpState

HEADERS = {PROTOCOL_HEADER: PROTOCOL, "content-type": CONTENT_TYPE}
DATA = b"what was logged"
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Client:
    port: int

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, BASE + path, body, named)
            found = connection.getresponse()
            assert found.headers[PROTOCOL_HEADER] == PROTOCOL
            return found.status, found.read()

    def ask_half(self, method: str, path: str) -> int:
        """Send the beginning of a body, and no more of it; give the status."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            head = f"{method} {BASE}{path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n"
            named = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
            connection.sendall(f"{head}{named}\r\nx".encode())
            return int(connection.recv(65_536).split()[1])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("site")
    (root / "noria.toml").write_text('[project]\nname = "site"\n')
    state = UpState(role=Role.FOLLOWER, since=SINCE, leader=None)
    with noria.open(root) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        yield Client(int(plane.url.rpartition(":")[2]))


def test_a_client_that_is_too_slow_is_told_to_come_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_bodies, "_WITHIN_S", 0.1)
    monkeypatch.setattr(receiving, "_LOOK_EVERY_S", 0.1)
    assert client.ask_half("POST", "/batches") == 408  # and not 400: nothing is wrong with what it sends
    assert client.ask_half("PUT", f"/files/{SHA256}") == 408
    assert client.ask_half("PUT", f"/code/{SHA256}") == 408
    assert client.ask("HEAD", f"/files/{SHA256}")[0] == 404


def test_more_than_may_be_held_comes_again_and_what_is_too_large_never(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(300_000)
    with monkeypatch.context() as patch:
        patch.setattr(held_bodies, "_MOST_BYTES", 200_000)
        assert client.ask("POST", "/batches", body)[0] == 503
    monkeypatch.setattr(tracking, "_MOST_BYTES", 200_000)
    for _ in range(3):  # nothing of it is held any more
        assert client.ask("POST", "/batches", body)[0] == 413
    assert client.ask("POST", "/beginnings", encode_wire(beginning()))[0] == 200


def test_what_is_not_what_it_says_is_refused(client: Client) -> None:
    assert client.ask("POST", "/batches", b"{}", content_type="application/json")[0] == 415
    assert client.ask("POST", "/batches", b"", noria_tracking="2")[0] == 400
    for body in (b"", b"\xc1", b"\x90", b"\x91" * 5_000):
        assert client.ask("POST", "/batches", body)[0] == 400
    name = msgspec.msgpack.encode("far one")
    lone_surrogate = encode_wire(beginning()).replace(name, b"\xa3\xed\xa0\x80")
    assert client.ask("POST", "/beginnings", lone_surrogate)[0] == 400
    naive = encode_wire(beginning(began_at=datetime(2026, 3, 1)))
    assert client.ask("POST", "/beginnings", naive)[0] == 422
    for path in ("/files/x", "/code/x", f"/files/{SHA256.upper()}"):
        assert client.ask("PUT", path, DATA)[0] == 422
    assert client.ask("PUT", f"/files/{'a' * 64}", DATA)[0] == 422
    assert client.ask("HEAD", f"/files/{'a' * 64}")[0] == 404


def test_a_file_is_kept_once_and_what_names_another_run_is_not(client: Client) -> None:
    assert [client.ask("PUT", f"/files/{SHA256}", DATA)[0] for _ in range(2)] == [201, 200]
    assert client.ask("HEAD", f"/files/{SHA256}") == (200, b"")
    assert client.ask("HEAD", f"/code/{SHA256}")[0] == 404
    asked = beginning()
    assert client.ask("POST", "/batches", encode_wire(first(asked, 10, loss(0))))[0] == 404
    assert client.ask("POST", "/beginnings", encode_wire(asked))[0] == 200
    status, told = client.ask("POST", "/batches", encode_wire(first(asked, 10, loss(0))))
    assert (status, decode_kept(told).position) == (200, (1, 10))
