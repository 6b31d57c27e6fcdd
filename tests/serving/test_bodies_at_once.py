"""Large bodies that come slowly: bounded together, whichever way they are read; small ones go past them."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.served import numeric, supervised
from tests.serving.test_limits import ask, by_infer

from noria.deploy.supervisor import Supervisor
from noria.serving.http.exchange import Bodies
from noria.serving.records import Limits, WorkerConfig

SIZE = 200_000
CONFIG = WorkerConfig(environment="production", limits=Limits(max_body_bytes=SIZE))
SLOW = 40  # connections, more than there is room for


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    folder = tmp_path_factory.mktemp("bodies")
    with supervised(numeric(folder), folder=folder / "server", config=CONFIG) as running:
        yield running


def begin(supervisor: Supervisor, head: str) -> socket.socket:
    """Send a request of which the last byte is missing."""
    address = supervisor.address
    connection = socket.create_connection((address.host, address.port), timeout=20)
    path, body, _ = by_infer(1)
    whole = f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {SIZE}\r\n\r\n".encode() + body.ljust(
        SIZE
    )
    connection.sendall(whole[:-1])
    return connection


@pytest.mark.parametrize("head", ["", "Content-Encoding: identity\r\n"], ids=["quickly", "by ASGI"])
def test_large_bodies_that_come_slowly_are_bounded_together(supervisor: Supervisor, head: str) -> None:
    path, body, _ = by_infer(1)
    headers = {"Content_Encoding": "identity"} if head else {}
    with ExitStack() as opened:
        slow = [opened.enter_context(begin(supervisor, head)) for _ in range(SLOW)]
        ends = time.monotonic() + 20
        while (found := ask(supervisor, path, body.ljust(SIZE), **headers))[0] != 503:
            assert time.monotonic() < ends, "there is always room"
        assert "too many large requests" in found[1]["error"]
        assert ask(supervisor, path, body, **headers)[0] == 200  # a small one
        statuses = []
        for each in slow:
            each.sendall(b" ")
            statuses.append(each.recv(100_000).split(b" ")[1])
        assert set(statuses) == {b"200", b"503"}
        assert statuses.count(b"200") >= 20  # those for which there was room lost nothing
        assert ask(supervisor, path, body.ljust(SIZE), **headers)[0] == 200  # and now there is again
        for _ in range(3):
            with ExitStack() as left:
                for _ in range(SLOW):
                    left.enter_context(begin(supervisor, head))
    ends = time.monotonic() + 20
    while ask(supervisor, path, body.ljust(SIZE), **headers)[0] != 200:  # who left is counted no longer
        assert time.monotonic() < ends, "who left is still counted"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 200_000)), max_size=60))
def test_what_is_counted_is_what_is_held(steps: list[tuple[int, int]]) -> None:
    bodies = Bodies(500_000)
    sizes, held = [0] * 5, [0] * 5
    for place, more in steps:
        counted = bodies.take(sizes[place] + more, held[place])
        if counted is None:
            assert bodies.held + max(sizes[place] + more - Bodies.FREE, 0) - held[place] > 500_000
            bodies.give(held[place])
            sizes[place] = held[place] = 0
        else:
            sizes[place] += more
            held[place] = counted
        assert bodies.held == sum(held) == sum(max(each - Bodies.FREE, 0) for each in sizes) <= 500_000
