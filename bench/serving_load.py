"""Servers of the same models under load: noria's, FastAPI by hand, MLflow, BentoML, bare ASGI.

Requests a second of one worker that has a core are one over its CPU per request, which is what is compared:
the generator and the servers share the machine's cores.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from statistics import median

import msgspec

from bench.load import Measured, ended, offer, request_bytes, start
from bench.measuring import Line
from bench.peers.environments import NotMeasured, environment, python_of
from bench.serving_models import Boosted, Pipelined, boosted, featured, pipelined
from noria.deploy.supervisor import Supervisor
from noria.serving.records import Route, RouteEntry, ServedModel, WorkerConfig

_CONNECTIONS, _FEW = 64, 16
_SECONDS, _RUNS = 2.0, 5
_BRIEF_S, _PAIRS = 1.0, 15  # where the goal is nearer than a machine's moods are
_STARTS, _EACH = 5, 3  # and nearer than servers of the same code are: some 5 %, for as long as each runs
_STARTS_LOGGED = 12  # with five, the same code gave 1.11 to 1.23
_ROWS = 256  # different ones, asked in turn
_OCTETS = "application/octet-stream"
_STARTS_S = 90.0
_SILENT = Path(__file__).parent / "silent"


@dataclass(frozen=True)
class Server:
    """A server that runs: the roots of its processes, its port, and what it is asked."""

    pids: tuple[int, ...]
    port: int
    requests: Sequence[bytes]

    def load(self, *, connections: int = _CONNECTIONS, seconds: float = _SECONDS) -> Measured:
        """Ask it for a while; every answer has to be right."""
        found = offer(
            self.port,
            self.requests,
            connections=connections,
            seconds=seconds,
            servers=self.pids,
        )
        if found.unanswered or not found.answers:
            raise RuntimeError(f"{found.unanswered} requests went unanswered: {found.statuses}")
        return found


def lines(folder: Path) -> Iterator[Line]:
    trees, mixed = boosted(folder), pipelined(folder)
    yield from _one_row(trees, folder)
    yield from _many_rows(trees, folder)
    yield from _of_pipelines(mixed, folder)
    yield from _what_it_costs(trees, folder)
    yield from _starting(trees, folder)
    yield from _swapping(trees, folder)


def _one_row(trees: Boosted, folder: Path) -> Iterator[Line]:
    what = "serving: LightGBM, one row, 64 connections"
    peers: Mapping[str, tuple[Callable[[], AbstractContextManager[Server]], float | None]] = {
        "bare ASGI": (lambda: _bare(trees), 1 / 0.55),
        "FastAPI by hand": (lambda: _fastapi("lightgbm", trees.records, folder), 1 / 12),
        "mlflow models serve": (lambda: _mlflow("lightgbm", trees.split, folder), 1 / 60),
        "BentoML": (lambda: _bentoml(trees, folder), None),
    }
    with _noria(trees.served, folder / "one", _asked("boosted", trees.tensor)) as ours:
        for name, (starts, goal) in peers.items():
            with _or_none(starts, name) as peer:
                if peer is None:
                    continue
                mine, its = _in_turns(ours, peer)
                yield _compared(what, mine, name, its, ratio_at_most=goal)
                if name == "FastAPI by hand":
                    mine, its = _in_turns(ours, peer, connections=_FEW)
                    yield Line(
                        "serving: LightGBM, p99 at 16 connections (wall)",
                        median(each.p99_us for each in mine),
                        "us",
                        name,
                        median(each.p99_us for each in its),
                        ratio_at_most=0.1,
                    )


def _many_rows(trees: Boosted, folder: Path) -> Iterator[Line]:
    count = 1_000
    as_json = [request_bytes("/v2/models/boosted/infer", trees.tensor(0, count))]
    body, length = trees.binary(0, count)
    headers = {"Content-Type": _OCTETS, "Inference-Header-Content-Length": str(length)}
    as_binary = [request_bytes("/v2/models/boosted/infer", body, headers=headers)]
    with _noria(trees.served, folder / "many", as_json) as ours:
        binary = Server(ours.pids, ours.port, as_binary)
        with _or_none(lambda: _fastapi("lightgbm", trees.records, folder), "FastAPI by hand") as peer:
            if peer is not None:
                asked = Server(peer.pids, peer.port, [request_bytes("/predict", trees.records(0, count))])
                mine, its = _in_turns(ours, asked, connections=4)
                yield _compared(
                    "serving: 1,000 rows, JSON", mine, "FastAPI by hand", its, ratio_at_most=1 / 3
                )
        mine, its = _in_turns(binary, ours, connections=4)
        yield _compared("serving: 1,000 rows, binary", mine, "our JSON", its, ratio_at_most=1)


def _of_pipelines(mixed: Pipelined, folder: Path) -> Iterator[Line]:
    what = "serving: scikit-learn pipeline, one row"
    peers = {
        "FastAPI by hand": lambda: _fastapi("pipeline", mixed.records, folder),
        "mlflow models serve": lambda: _mlflow("pipeline", mixed.split, folder),
    }
    with _noria(mixed.served, folder / "mixed", _asked("pipelined", mixed.tensors)) as ours:
        for name, starts in peers.items():
            with _or_none(starts, name) as peer:
                if peer is not None:
                    mine, its = _in_turns(ours, peer)
                    yield _compared(what, mine, name, its, ratio_at_most=1 / 40)


def _what_it_costs(trees: Boosted, folder: Path) -> Iterator[Line]:
    requests = _asked("boosted", trees.tensor)
    logged: list[Measured] = []
    silent: list[Measured] = []
    for number in range(_STARTS_LOGGED):
        with _noria(trees.served, folder / f"logged-{number}", requests) as ours, ExitStack() as running:
            with _python_path(_SILENT):
                other = running.enter_context(_noria(trees.served, folder / f"silent-{number}", requests))
            mine, its = _in_turns(ours, other, runs=_EACH, seconds=_BRIEF_S)
            logged, silent = logged + mine, silent + its
    yield _compared("serving: request with log and counts", logged, "without", silent, ratio_at_most=1 / 0.85)
    model, bodies = featured(trees, folder / "online")
    keyed = [request_bytes("/v2/models/featured/infer", each) for each in bodies]
    named = _asked("boosted", lambda row: _named(trees, row))
    with_store = WorkerConfig(environment="bench", online=str(folder / "online"))
    with (
        _noria(model, folder / "keyed", keyed, config=with_store) as ours,
        _noria(trees.served, folder / "named", named) as other,
    ):
        mine, its = _in_turns(ours, other, runs=_PAIRS, seconds=_BRIEF_S)
        more = median(one - less for one, less in zip(_each_cpu(mine), _each_cpu(its), strict=True))
        yield Line("serving: ten online features of two entities", more, "us", at_most=60)
    yield from _two_workers(trees, folder)


def _two_workers(trees: Boosted, folder: Path) -> Iterator[Line]:
    """Measure two workers, and two servers that share nothing but the machine: what these cost is its own."""
    requests = _asked("boosted", trees.tensor)
    config = WorkerConfig(environment="bench", workers=2)
    mine: list[Measured] = []
    its: list[Measured] = []
    apart: list[float] = []
    for number in range(_STARTS):
        with (
            _noria(trees.served, folder / f"two-{number}", requests, config=config) as two,
            _noria(trees.served, folder / f"single-{number}", requests) as one,
            _noria(trees.served, folder / f"apart-{number}", requests) as other,
        ):
            for _ in range(_EACH):
                # as many connections for each worker
                mine.append(two.load(connections=2 * _CONNECTIONS, seconds=_BRIEF_S))
                its.append(one.load(seconds=_BRIEF_S))
                apart.append(_at_once(one, other))
    what = "serving: request, two workers"
    yield _compared(what, mine, "one worker", its, ratio_at_most=2 / 1.8)
    what = "serving: request, two servers apart"
    yield Line(what, median(apart), "us", "one of them", _cpu(its), paired=_paired(apart, _each_cpu(its)))


def _at_once(*servers: Server) -> float:
    """Ask servers at the same time, and give the CPU per request of all, in microseconds."""
    asking = [
        start(each.port, each.requests, connections=_CONNECTIONS, seconds=_BRIEF_S, servers=each.pids)
        for each in servers
    ]
    found = [ended(each) for each in asking]
    if any(each.unanswered or not each.answers for each in found):
        raise RuntimeError(f"requests went unanswered: {[each.statuses for each in found]}")
    return sum(each.server_cpu_us * each.answers for each in found) / sum(each.answers for each in found)


def _starting(trees: Boosted, folder: Path) -> Iterator[Line]:
    taken, memory = [], []
    for run in range(_RUNS):
        began = time.perf_counter()
        with _noria(trees.served, folder / f"cold-{run}", _asked("boosted", trees.tensor)) as server:
            asked = f"http://127.0.0.1:{server.port}/v2/models/boosted/infer"
            with urllib.request.urlopen(asked, trees.tensor(0), timeout=30) as answer:
                assert answer.status == 200
            taken.append(time.perf_counter() - began)
            server.load()
            memory.append(max(_pss_mb(each) for each in server.pids))
    yield Line("serving: start to the first answer (wall)", median(taken), "s", at_most=1.5)
    yield Line("serving: PSS of a worker, LightGBM, after load", median(memory), "MB", at_most=110)


def _swapping(trees: Boosted, folder: Path) -> Iterator[Line]:
    """Swap three times under load; the seconds without a swap are what those with one are compared with."""
    requests = _asked("boosted", trees.tensor)
    supervisor = Supervisor(folder / "swapped", WorkerConfig(environment="bench"))
    with supervisor:
        supervisor.start(_route(trees.served, 1))
        asking = start(
            supervisor.address.port, requests, connections=_FEW, seconds=9, servers=supervisor.pids
        )
        began = time.monotonic() + 1.0  # its interpreter's start and its warm-up, about
        swapped = []
        for number in (2, 3, 4):
            time.sleep(max(0.0, began + 2.5 * (number - 1) - time.monotonic()))
            swapped.append(time.time())
            model = msgspec.structs.replace(trees.served, release=f"boosted:{number}", version=number)
            supervisor.swap(_route(model, number))
        found = ended(asking)
    during = {int(each - found.began_at) for each in swapped}
    steady = median(each.p99_us for place, each in enumerate(found.slices) if place not in during)
    worst = median(found.slices[each].p99_us for each in during)
    yield Line("serving: unanswered over three swaps", found.unanswered, "", at_most=0)
    yield Line("serving: p99 of a second with a swap (wall)", worst, "us", "without", steady, ratio_at_most=3)


def _in_turns(
    *servers: Server, connections: int = _CONNECTIONS, runs: int = _RUNS, seconds: float = _SECONDS
) -> list[list[Measured]]:
    """Ask servers one after the other, the first of a run last in the next."""
    found: list[list[Measured]] = [[] for _ in servers]
    for run in range(runs):
        places = range(len(servers)) if run % 2 == 0 else reversed(range(len(servers)))
        for place in places:
            found[place].append(servers[place].load(connections=connections, seconds=seconds))
    return found


def _compared(
    what: str,
    mine: Sequence[Measured],
    name: str,
    its: Sequence[Measured],
    *,
    ratio_at_most: float | None,
) -> Line:
    """Compare the CPU per request of runs that took turns."""
    return Line(
        what,
        _cpu(mine),
        "us",
        name,
        _cpu(its),
        ratio_at_most=ratio_at_most,
        paired=_paired(_each_cpu(mine), _each_cpu(its)),
    )


def _paired(mine: Sequence[float], its: Sequence[float]) -> float:
    return median(ours / other for ours, other in zip(mine, its, strict=True))


def _each_cpu(measured: Sequence[Measured]) -> list[float]:
    return [each.server_cpu_us for each in measured]


def _cpu(measured: Sequence[Measured]) -> float:
    return median(_each_cpu(measured))


def _asked(model: str, body: Callable[[int], bytes]) -> list[bytes]:
    return [request_bytes(f"/v2/models/{model}/infer", body(row)) for row in range(_ROWS)]


def _named(trees: Boosted, row: int) -> bytes:
    inputs = [
        {"name": f"x{place}", "datatype": "FP64", "shape": [1], "data": [value]}
        for place, value in enumerate(trees.rows[row].tolist())
    ]
    return msgspec.json.encode({"inputs": inputs})


@contextmanager
def _python_path(folder: Path) -> Iterator[None]:
    """Let what is started find modules in a folder."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _route(model: ServedModel, number: int) -> Route:
    return Route(
        environment="bench",
        deployment=model.model,
        number=number,
        id=f"route-{number}",
        entries=(RouteEntry(release=model.release),),
        models=(model,),
    )


@contextmanager
def _noria(
    model: ServedModel, folder: Path, requests: Sequence[bytes], *, config: WorkerConfig | None = None
) -> Iterator[Server]:
    """Serve a model by noria's own server."""
    with Supervisor(folder, config or WorkerConfig(environment="bench")) as supervisor:
        address = supervisor.start(_route(model, 1))
        yield Server(supervisor.pids, address.port, requests)


@contextmanager
def _bare(trees: Boosted) -> Iterator[Server]:
    requests = [request_bytes("/", trees.matrix(row)) for row in range(_ROWS)]
    command = [sys.executable, "-m", "bench.bare_app", str(trees.path)]
    with _running(lambda port: [*command, str(port)], path=None) as (pid, port):
        yield Server((pid,), port, requests)


@contextmanager
def _fastapi(model: str, body: Callable[[int], bytes], folder: Path) -> Iterator[Server]:
    requests = [request_bytes("/predict", body(row)) for row in range(_ROWS)]
    command = [str(python_of("serving")), "-m", "bench.peers.serve_fastapi", str(folder), model]
    with _running(lambda port: [*command, str(port)], variables=_home(folder)) as (pid, port):
        yield Server((pid,), port, requests)


@contextmanager
def _mlflow(model: str, body: Callable[[int], bytes], folder: Path) -> Iterator[Server]:
    python, variables = str(python_of("serving")), _home(folder)
    if not (folder / f"mlflow-{model}").exists():
        saving = [python, "-W", "ignore", "-m", "bench.peers.save_mlflow", str(folder)]
        done = subprocess.run(saving, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMeasured(f"the models cannot be saved: {done.stderr.splitlines()[-1]}")
    command = [python, "-W", "ignore", "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", str(folder / f"mlflow-{model}"), "--host", "127.0.0.1", "--workers", "1", "--port"]
    requests = [request_bytes("/invocations", body(row)) for row in range(_ROWS)]
    with _running(lambda port: [*command, str(port)], variables=variables, path="/ping") as (pid, port):
        yield Server((pid,), port, requests)


@contextmanager
def _bentoml(trees: Boosted, folder: Path) -> Iterator[Server]:
    variables = {
        **_home(folder),
        "BENCH_MODEL": str(trees.path),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    command = [str(python_of("serving")), "-W", "ignore", "-m", "bentoml", "serve"]
    command += ["bench.peers.serve_bentoml:Scores", "--host", "127.0.0.1", "--port"]
    requests = [request_bytes("/predict", b'{"rows": ' + trees.records(row) + b"}") for row in range(_ROWS)]
    with _running(lambda port: [*command, str(port)], variables=variables, path="/readyz") as (pid, port):
        yield Server((pid,), port, requests)


def _home(folder: Path) -> dict[str, str]:
    """Give what a peer is started with; its programs stand first, as MLflow starts `uvicorn` by its name."""
    variables = environment(folder / "homes" / uuid.uuid4().hex)
    programs = f"{python_of('serving').parent}{os.pathsep}{variables['PATH']}"
    return {**variables, "PATH": programs, "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def _running(
    command: Callable[[int], list[str]],
    *,
    path: str | None = "/health",
    variables: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, int]]:
    """Start a server, and give its process id and port once it answers at `path`, or listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(port),
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + _STARTS_S
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotMeasured(f"{' '.join(command(port))} does not answer")
            time.sleep(0.1)
        yield process.pid, port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int, path: str | None) -> bool:
    if path is None:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", port)) == 0
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


@contextmanager
def _or_none(starts: Callable[[], AbstractContextManager[Server]], name: str) -> Iterator[Server | None]:
    """Give a peer, or None where it cannot be had; its lines are left out then."""
    with ExitStack() as running:
        try:
            server: Server | None = running.enter_context(starts())
        except NotMeasured as err:
            print(f"serving_load: {name} is left out: {err}", file=sys.stderr)
            server = None
        yield server


def _pss_mb(pid: int) -> float:
    told = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in told if line.startswith("Pss:")) * 1_024 / 1e6
