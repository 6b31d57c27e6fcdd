"""A real `noria up` in a process of its own, that can be killed and comes back on the same port."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STARTS_S = 60.0


class NoriaUp:
    """The server of a project in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-W", "ignore", "-m", "noria", "up", "--project", str(self.folder)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NORIA_")}
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=log, stderr=log, env=kept
            )
        ends = time.monotonic() + _STARTS_S
        while time.monotonic() < ends and self._process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/health")
                connection.getresponse().read()  # whatever it is: there may be a prefix
                return
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        raise AssertionError(f"noria up did not come up: {(self.folder / 'up.log').read_text()[-3000:]}")

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._end(signal.SIGTERM)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let it answer nobody within the block, as a machine does that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=60)


@contextmanager
def noria_up(folder: Path, *, database: str = "", starts: bool = True) -> Iterator[NoriaUp]:
    """Give the server of a fresh project; its database is of a URL, or SQLite."""
    folder.mkdir(parents=True)
    stores = f'[stores]\ndatabase = "{database}"\n' if database else ""
    (folder / "noria.toml").write_text(f'[project]\nname = "site"\n{stores}')
    server = NoriaUp(folder)
    try:
        if starts:
            server.start()
        yield server
    finally:
        server.stop()
