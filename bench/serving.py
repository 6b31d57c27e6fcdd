"""CPU of a worker per request at one connection, against bare uvicorn that only scores the same model."""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import orjson

from bench.measuring import Line, cpu_of_process
from bench.served_model import AT, TrainedModel, train
from noria.deploy.supervisor import Supervisor
from noria.serving.records import Route, RouteEntry, WorkerConfig

_REQUESTS, _RUNS = 300, 5


def lines(folder: Path) -> Iterator[Line]:
    plain, rich = folder / "plain", folder / "rich"
    plain.mkdir()
    rich.mkdir()
    yield from _served(train(plain, with_features=False), plain, rows=(1,), goals_us=(190,))
    yield from _served(train(rich, with_features=True), rich, rows=(1, 13), goals_us=(None, None))


def _served(
    model: TrainedModel, folder: Path, *, rows: Sequence[int], goals_us: Sequence[float | None]
) -> Iterator[Line]:
    config = WorkerConfig(
        environment="bench",
        online=str(folder / "online"),
        clock="replay",
    )
    route = Route(
        environment="bench",
        deployment="late",
        number=1,
        id="route",
        entries=(RouteEntry(release=model.served.release),),
        models=(model.served,),
    )
    views = f"{len(model.served.views)} views" if model.served.views else "no views"
    with Supervisor(folder / "bench", config) as supervisor, _bare_app(model.path) as bare:
        supervisor.start(route)
        starting = cpu_of_process(supervisor.pids[0])
        ours = _Asked(supervisor.pids[0], supervisor.address.port, "/v2/models/late/infer")
        floor = _Asked(*bare, "/")
        for count, goal in zip(rows, goals_us, strict=True):
            figures, floors = [], []
            for run in range(-1, _RUNS):  # the first one warms up
                figure = ours.cpu_us(_requests(model, count, run))
                floor_figure = floor.cpu_us([orjson.dumps(each) for each in model.matrices(count, _REQUESTS)])
                if run >= 0:
                    figures.append(figure)
                    floors.append(floor_figure)
            what = f"serving: request of {count} rows, {views}, log"
            yield Line(what, median(figures), "us", "bare uvicorn, model only", median(floors), at_most=goal)
        yield Line(f"serving: start of a worker, {views}", starting, "s", at_most=1.5)
        memory = [_pss_mb(pid) for pid in (supervisor.pids[0], bare[0])]
        yield Line(
            f"serving: PSS of a worker, {views}", memory[0], "MB", "bare uvicorn", memory[1], at_most=110
        )


class _Asked:
    """One kept connection to a process."""

    def __init__(self, pid: int, port: int, path: str) -> None:
        self._pid, self._path = pid, path
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def cpu_us(self, bodies: Sequence[bytes]) -> float:
        """Give the process's CPU per request, in microseconds."""
        before = cpu_of_process(self._pid)
        for body in bodies:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
            assert response.status == 200, answer
        return (cpu_of_process(self._pid) - before) / len(bodies) * 1e6


def _requests(model: TrainedModel, rows: int, run: int) -> list[bytes]:
    """Give requests with new ids: a known one is answered from the log."""
    made = []
    for number, columns in enumerate(model.requests(rows, _REQUESTS)):
        ids = [f"{rows}-{run}-{number}-{row}" for row in range(rows)]
        inputs = [
            {"name": name, "datatype": datatype, "shape": [rows], "data": data}
            for name, (datatype, data) in {**columns, "prediction_id": ("BYTES", ids)}.items()
        ]
        made.append(orjson.dumps({"inputs": inputs, "parameters": {"at": AT}}))
    return made


@contextmanager
def _bare_app(model: Path) -> Iterator[tuple[int, int]]:
    """Give the process id and the port of the floor."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_app", str(model), str(port)])
    try:
        _wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _wait_until(what: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError("the bare app does not listen")
        time.sleep(0.02)


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1_024 / 1e6
