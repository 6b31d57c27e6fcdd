"""HTTP as no library sends it, over bare sockets: answered, or refused and closed, and the server goes on."""

import json
import random
import socket
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.served import numeric, supervised

from noria.deploy.supervisor import Supervisor
from noria.serving.records import Limits, WorkerConfig

CONFIG = WorkerConfig(environment="production", limits=Limits(read_timeout_s=1.0))
ROW = {"x0": 0.5, "x1": None, "x2": -1.0, "x3": 3.0}
BODY = json.dumps(ROW).encode()
PATH = "/models/numbers/predict"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("bad_http")
    with supervised(numeric(folder), folder=folder / "server", config=CONFIG) as running:
        (pid,) = running.pids
        yield running
        assert running.pids == (pid,)  # nothing of this ended the worker
        log = (running.folder / "worker.log").read_text()
        assert "Traceback" not in log, log[log.index("Traceback") :][:6_000]


def post(body: bytes = BODY, *, version: str = "1.1", length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    head = f"POST {PATH} HTTP/{version}\r\nHost: here\r\nContent-Length: {size}\r\n{more}\r\n"
    return head.encode() + body


def say(supervisor: Supervisor, *parts: bytes, ends: bool = False, wait_s: float = 5.0) -> bytes:
    """Send bytes, maybe with pauses; give all that comes until the server closes or says no more."""
    with socket.create_connection((supervisor.address.host, supervisor.address.port), timeout=wait_s) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            made.sendall(part)
            if part is not parts[-1]:
                time.sleep(0.02)
        if ends:
            made.shutdown(socket.SHUT_WR)
        told = b""
        made.settimeout(0.5 if not ends else wait_s)
        try:
            while data := made.recv(65_536):
                told += data
        except (TimeoutError, ConnectionResetError):
            pass
        return told


def statuses(told: bytes) -> list[int]:
    return [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]]


def test_the_well_behaved_request_that_the_others_are_held_against(supervisor: Supervisor) -> None:
    told = say(supervisor, post())
    assert statuses(told) == [200]
    assert b'"score":' in told


def test_requests_that_come_all_at_once_are_answered_in_their_order(supervisor: Supervisor) -> None:
    ids = [f"p{place}" for place in range(200)]
    bodies = [json.dumps(ROW | {"prediction_id": each}).encode() for each in ids]
    mixed = b"".join(post(body) + (LIVE if place % 3 == 0 else b"") for place, body in enumerate(bodies))
    told = say(supervisor, mixed)
    assert statuses(told) == [200] * (200 + 67)
    found = [told.index(f'"{each}"'.encode()) for each in ids]
    assert found == sorted(found)
    in_pieces = [mixed[at : at + 1_111] for at in range(0, 40_000, 1_111)]
    assert set(statuses(say(supervisor, *in_pieces))) == {200}


def test_a_half_closed_connection_gets_its_answer(supervisor: Supervisor) -> None:
    assert statuses(say(supervisor, post(), ends=True)) in ([200], [])  # as uvicorn: whoever closes has gone
    assert statuses(say(supervisor, post(length=400), ends=True)) == []
    assert statuses(say(supervisor, b"", ends=True)) == []


def test_http_1_0_is_answered_and_closed(supervisor: Supervisor) -> None:
    started = time.monotonic()
    told = say(supervisor, post(version="1.0"), wait_s=3.0)
    assert b"200 OK" in told
    assert b"connection: close" in told.lower()
    assert time.monotonic() - started < 0.4
    kept = say(supervisor, post(version="1.0", more="Connection: keep-alive\r\n"))
    assert b"200 OK" in kept


def test_who_asks_whether_to_go_on_is_told_to(supervisor: Supervisor) -> None:
    asking = post(b"", length=len(BODY), more="Expect: 100-continue\r\n")
    told = say(supervisor, asking, BODY)
    assert statuses(told) == [100, 200]


@pytest.mark.parametrize("sizes", [[1] * 40, [1_000], [7, 3]])
def test_a_body_in_parts_is_read(supervisor: Supervisor, sizes: list[int]) -> None:
    chunks, at = b"", 0
    for size in [*sizes, len(BODY)]:
        part = BODY[at : at + size]
        at += size
        if part:
            chunks += f"{len(part):x};a=b\r\n".encode() + part + b"\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert statuses(say(supervisor, head, chunks, b"0\r\nX-Trailer: a\r\n\r\n")) == [200]


BROKEN = {
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50, [400]),
    "no version": (b"GET /\r\n\r\n", [200, 400]),
    "http 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 404, 405]),
    "another method": (b"BREW / HTTP/1.1\r\nHost: here\r\n\r\n", [400]),
    "a length that is none": (f"POST {PATH} HTTP/1.1\r\nContent-Length: ten\r\n\r\n".encode(), [400]),
    "a length below 0": (post(length=-1), [400]),
    "two lengths": (post(more="Content-Length: 3\r\n"), [400]),
    "a length and parts": (post(more="Transfer-Encoding: chunked\r\n"), [400]),
    "parts that are none": (
        f"POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n".encode(), [400],
    ),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost here\r\n\r\n", [400]),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: here\r\n b\r\n\r\n", [400]),
    "a nul in the path": (b"GET /\x00 HTTP/1.1\r\nHost: here\r\n\r\n", [400]),
    "a path that is no utf-8": (b"GET /models/%ff/predict HTTP/1.1\r\nHost: here\r\n\r\n", [400, 404, 405]),
    "a path of many parts": (b"GET " + b"/a" * 4_000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", [404]),
    "a whole address": (b"GET http://elsewhere/v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n", [200, 404]),
    "less than it said": (post(length=len(BODY) - 3), [400]),
    "a websocket": (
        b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        [200, 400],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_request_is_refused(supervisor: Supervisor, case: str) -> None:
    sent, wanted = BROKEN[case]
    told = say(supervisor, sent)
    assert told, "nothing was answered"
    assert statuses(told)[0] in wanted, told
    assert statuses(say(supervisor, post())) == [200]


def test_more_than_it_said_is_no_second_request(supervisor: Supervisor) -> None:
    told = say(supervisor, post(BODY + b"more", length=len(BODY)))
    assert statuses(told) in ([200], [200, 400], [400])


def test_whoever_leaves_in_the_middle_harms_nobody(supervisor: Supervisor) -> None:
    for cut in range(0, len(post()), 7):
        with socket.create_connection((supervisor.address.host, supervisor.address.port)) as made:
            made.sendall(post()[:cut])
            if cut % 2:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert statuses(say(supervisor, post())) == [200]


def test_a_flood_of_requests_that_nobody_reads_is_held_back(supervisor: Supervisor) -> None:
    """Requests that come behind each other wait in the socket, not in the worker."""
    before = supervisor.memory_bytes()
    flood = post(BODY.ljust(2_000)) * 200
    sent = at = 0
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        made.connect((supervisor.address.host, supervisor.address.port))
        made.setblocking(False)
        ends = time.monotonic() + 4.0
        while time.monotonic() < ends:
            try:
                gone = made.send(flood[at:])
                sent, at = sent + gone, (at + gone) % len(flood)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        assert supervisor.memory_bytes() - before < 40_000_000, f"{sent} bytes were sent"
    assert statuses(say(supervisor, post())) == [200]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_no_bytes_at_all_end_the_worker(supervisor: Supervisor, seed: int, cuts: list[int]) -> None:
    rng = random.Random(seed)
    sent = bytearray(post() + LIVE + post(more="Transfer-Encoding: chunked\r\n"))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(sent))
        match rng.randrange(3):
            case 0:
                sent[at] = rng.randrange(256)
            case 1:
                del sent[at : at + rng.randrange(1, 30)]
            case _:
                sent[at:at] = rng.randbytes(rng.randrange(1, 30))
    edges = sorted({0, *(cut % len(sent) for cut in cuts), len(sent)})
    with socket.create_connection((supervisor.address.host, supervisor.address.port)) as made:
        made.settimeout(0.02)
        told = b""
        try:
            for start, end in pairwise(edges):
                made.sendall(sent[start:end])
            while data := made.recv(65_536):
                told += data
        except (TimeoutError, ConnectionError):
            pass
    assert not [each for each in statuses(told) if each >= 500], told


def test_the_worker_lives(supervisor: Supervisor) -> None:
    assert statuses(say(supervisor, post())) == [200]
