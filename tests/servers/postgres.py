"""A real PostgreSQL for tests: one server a process on a free loopback port, a fresh database for each test.

A test module, or the conftest beside it, imports the fixture that it wants from here.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from tests.servers.shared import Shared

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@dataclass(frozen=True)
class Postgres:
    """A server in a folder of its own."""

    programs: Path
    folder: Path
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c max_connections=300"
        log = str(self.folder / "server.log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", log, "-o", options, "start")

    @property
    def is_running(self) -> bool:
        return (self.folder / "data" / "postmaster.pid").exists()

    def stop(self) -> None:
        """Stop it as a crash of the machine would look to clients: connections end at once."""
        if not self.is_running:
            return  # a test that failed has left it so
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def create(self, database: str) -> str:
        """Make an empty database and give its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", database)
        return self.url(database)

    def initialize(self) -> None:
        self._run("initdb", "-A", "trust", "-N", "-U", "postgres", "-D", str(self.folder / "data"))

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, timeout=60
        )
        assert done.returncode == 0, f"{program}: {done.stdout}\n{done.stderr}"


def missing_postgres() -> str | None:
    """Say why there is no PostgreSQL here, if that is so."""
    if not _PROGRAMS:
        return "PostgreSQL is not installed: apt-get install -y --no-install-recommends postgresql"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "PostgreSQL does not run as root, and there is no setpriv"
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed: the extra `postgres` brings it"
    return None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Give a server of one's own. What it wrote need not survive a power loss."""
    folder = Path(tempfile.mkdtemp(prefix="noria-pg-"))  # short: the path of a socket has 107 bytes at most
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(_PROGRAMS[-1], folder, _free_port())
    try:
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_SHARED = Shared(running_postgres)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Give a running server."""
    reason = missing_postgres()
    if reason is not None:
        pytest.skip(reason)
    with _SHARED.taken() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres, request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty database."""
    if not postgres_server.is_running:  # a test that failed has left it so
        postgres_server.start()
    digest = sha256(request.node.nodeid.encode()).hexdigest()
    return postgres_server.create(f"t{digest[:20]}")
