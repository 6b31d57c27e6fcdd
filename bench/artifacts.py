"""Files through the server: up and down over HTTP, and the most memory that the server ever had."""

import hashlib
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

from bench.measuring import Line, cpu_of_process, take_turns
from noria.api.mlflow.application import MlflowApplication
from noria.api.mlflow.artifacts import ArtifactRoutes
from noria.api.server import ControlPlane
from noria.database.store import Database
from noria.storage.local import LocalStorage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.multipart import PartedUploads

_MEGABYTES = 256
_PIECE = b"0123456789abcdef" * 65_536
_RUNS = 3
_BELOW = "/api/2.0/mlflow-artifacts/artifacts"


def lines(folder: Path) -> Iterator[Line]:
    command = [sys.executable, "-m", "bench.artifacts", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        port = int(server.stdout.readline())
        started_mb = _peak_mb(server.pid)
        up = [_taken(server.pid, partial(_put, port, number)) for number in range(_RUNS)]
        down = [_taken(server.pid, partial(_get, port, number)) for number in range(_RUNS)]
        peak_mb = _peak_mb(server.pid)
        server.stdin.close()
    floor_up, floor_down = take_turns(
        lambda _: _write(folder / "floor"), lambda _: _read(folder / "floor"), runs=_RUNS
    )
    what = f"artifact of {_MEGABYTES} MB"
    yield Line(f"{what} up, server", _of(up, 0), "s", "sha256 and a write", floor_up)
    yield Line(f"{what} down, server", _of(down, 0), "s", "a read and sha256", floor_down)
    yield Line(f"{what} up, wall", _MEGABYTES / _of(up, 1), "MB/s")
    yield Line(f"{what} down, wall", _MEGABYTES / _of(down, 1), "MB/s")
    yield Line("server, peak memory meanwhile", peak_mb, "MB", "before", started_mb, at_most=200)


def _of(taken: list[tuple[float, float]], which: int) -> float:
    return median(each[which] for each in taken)


def _taken(pid: int, work: Callable[[], None]) -> tuple[float, float]:
    cpu, wall = cpu_of_process(pid), time.monotonic()
    work()
    return cpu_of_process(pid) - cpu, time.monotonic() - wall


def _put(port: int, number: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        first = b"%016d" % number + _PIECE[16:]  # other bytes each time: they have a place of their own
        pieces = (_PIECE if place else first for place in range(_MEGABYTES))
        size = {"content-length": str(_MEGABYTES << 20)}
        connection.request("PUT", f"{_BELOW}/0/{number}", pieces, size)
        assert connection.getresponse().read() == b"{}"


def _get(port: int, number: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", f"{_BELOW}/0/{number}")
        answer = connection.getresponse()
        size = 0
        while piece := answer.read(1 << 20):
            size += len(piece)
        assert size == _MEGABYTES << 20


def _write(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(_MEGABYTES):
            digest.update(_PIECE)
            file.write(_PIECE)


def _read(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _peak_mb(pid: int) -> float:
    told = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2]
    return int(told.split()[0]) / 1_024


def _serve(root: Path) -> None:
    with Database.open(f"sqlite:///{root}/noria.db") as database, ControlPlane("127.0.0.1", 0) as plane:
        store = ArtifactStore(database, LocalStorage(root / "storage"), root / "staging")
        routes = ArtifactRoutes(store, str, str, PartedUploads(store, root / "parts"))
        plane.start(MlflowApplication([], routes.endpoints(), otherwise=_nowhere))
        print(plane.url.rpartition(":")[2], flush=True)
        sys.stdin.read()


async def _nowhere(scope: object, receive: object, send: object) -> None:
    raise AssertionError("no other path is asked for")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
