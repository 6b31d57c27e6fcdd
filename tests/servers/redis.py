"""A real Redis for tests, on a free loopback port and a socket, in a folder of its own.

A test module, or the conftest beside it, imports the fixture that it wants from here.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from tests.servers.shared import Shared

_START_S = 20.0


@dataclass
class RedisServer:
    """A server; without `options` it keeps nothing once it ends."""

    program: str
    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"redis+unix://{self.folder}/s"

    def start(self) -> None:
        command = [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--unixsocket", str(self.folder / "s"), "--save", "", *self.options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while self.command("PING") != "+PONG":
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "Redis does not come up"
            time.sleep(0.02)

    def command(self, *words: str) -> str:
        """Send a command and give the first line of the answer, empty where there is none."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            with connection.makefile("r", encoding="latin-1") as answer:
                return answer.readline().strip()
        return ""

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a test may have stopped it
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _made(options: tuple[str, ...] = ()) -> Iterator[RedisServer]:
    pytest.importorskip("redis", reason="redis-py is not installed: the extra `redis` brings it")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed: apt-get install -y --no-install-recommends redis-server")
    folder = Path(tempfile.mkdtemp(prefix="noria-rd-"))  # short: the path of a socket has 107 bytes at most
    server = RedisServer(program, folder, free_port(), options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


_SHARED = Shared(contextmanager(_made))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Give a running server that tests share, each with a prefix of its own: see `redis_url`."""
    with _SHARED.taken() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Give a server to kill, flush and fill; it writes each change to a file before it answers."""
    yield from _made(("--appendonly", "yes", "--appendfsync", "no"))


@pytest.fixture
def redis_url(redis_server: RedisServer, request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty store; a writer that died is waited for a short while only."""
    digest = sha256(request.node.nodeid.encode()).hexdigest()
    return f"{redis_server.url}?prefix=t{digest[:16]}&lease_ms=2000"
