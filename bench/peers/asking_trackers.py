"""Asks a tracking server that speaks MLflow's protocol, and counts the CPU of all of its processes."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["ask_tracker", "cpu_s", "pids_below", "pss_mb", "wait_for_port"]

API = "/api/2.0/mlflow"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def ask_tracker(port: int, pid: int, *, runs: int) -> dict[str, float]:
    """Give what requests cost, in milliseconds of the server's CPU each, and its memory at rest in MB.

    Parameters
    ----------
    port, pid
        Of the server, which has started and rests.
    runs
        How many are in the experiment that is searched.
    """
    server = _Server(port, pid)
    figures = {"idle_mb": pss_mb(pid)}
    run = server.new_run("0")
    figures["log_metric_ms"] = server.cost(
        400,
        lambda each: (
            "runs/log-metric",
            {"run_id": run, "key": "loss", "value": each, "timestamp": each, "step": each},
        ),
    )
    figures["one_writer_per_s"] = _rate(port, pid, run, writers=1)
    figures["many_writers_per_s"] = _rate(port, pid, run, writers=64)
    figures["log_batch_ms"] = server.cost(
        20, lambda each: ("runs/log-batch", {"run_id": run, "metrics": _points(f"m{each % 10}", each)})
    )
    for each in range(20):
        server.post("runs/log-batch", {"run_id": run, "metrics": _points("history", each)})
    path = f"{API}/metrics/get-history?run_id={run}&metric_key=history&max_results=25000"
    figures["history_ms"] = server.cost_of_gets(5, path, least=1_000_000)
    folder = server.post("experiments/create", {"name": "searched"})["experiment_id"]
    for each in range(runs):
        made = server.new_run(folder)
        batch = {
            "run_id": made,
            "metrics": [{"key": "auc", "value": each * 7919 % runs / runs, "timestamp": 1, "step": 0}],
            "params": [{"key": "leaves", "value": str(each % 7)}],
        }
        server.post("runs/log-batch", batch)
    search = {
        "experiment_ids": [folder],
        "filter": "metrics.auc > 0.3",
        "order_by": ["metrics.auc DESC"],
        "max_results": 100,
    }
    assert len(server.post("runs/search", search)["runs"]) == 100
    figures["search_ms"] = server.cost(10, lambda each: ("runs/search", search))
    return figures


def _rate(port: int, pid: int, run: str, *, writers: int) -> float:
    """Give how many metrics a second so many clients log at once, one request each."""
    each = 640 // writers

    def log(who: int) -> None:
        server = _Server(port, pid)
        for step in range(each):
            fields = {
                "run_id": run,
                "key": f"w{who}",
                "value": step,
                "timestamp": step,
                "step": writers * step,
            }
            server.post("runs/log-metric", fields)

    began = time.perf_counter()
    with ThreadPoolExecutor(writers) as threads:
        for _ in threads.map(log, range(writers)):
            pass
    return writers * each / (time.perf_counter() - began)


def pids_below(pid: int) -> Iterator[int]:
    """Give a process and all that it started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from pids_below(int(child))


def pss_mb(pid: int) -> float:
    """Give the memory of a process and all that it started, what they share counted once."""
    total = 0
    for each in pids_below(pid):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1_024 / 1e6


def cpu_s(pid: int) -> float:
    """Give the CPU of a process and all that it started, those that have ended included."""
    total = 0
    for each in pids_below(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))  # its own and that of children that have ended
    return total / _TICKS_PER_S


def wait_for_port(port: int, *, seconds: float = 90) -> None:
    """Wait until somebody answers there that it is well."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody answers at port {port}")
        time.sleep(0.05)


class _Server:
    def __init__(self, port: int, pid: int) -> None:
        self._pid, self._port = pid, port
        self._connect()

    def _connect(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, fields: dict[str, Any]) -> Any:
        return json.loads(self._ask("POST", f"{API}/{path}", json.dumps(fields).encode()))

    def new_run(self, experiment: str) -> str:
        return str(
            self.post("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
        )

    def cost(self, requests: int, request_of: Any) -> float:
        """Give the CPU of a request, in milliseconds: the median of five rounds."""
        rounds = []
        for turn in range(6):  # the first one warms up
            asked = [request_of(turn * requests + each) for each in range(requests)]
            bodies = [(f"{API}/{path}", json.dumps(fields).encode()) for path, fields in asked]
            before = cpu_s(self._pid)
            for path, body in bodies:
                self._ask("POST", path, body)
            rounds.append((cpu_s(self._pid) - before) / requests * 1e3)
        return median(rounds[1:])

    def cost_of_gets(self, requests: int, path: str, *, least: int) -> float:
        rounds = []
        for _ in range(4):
            before = cpu_s(self._pid)
            for _ in range(requests):
                assert len(self._ask("GET", path, None)) > least
            rounds.append((cpu_s(self._pid) - before) / requests * 1e3)
        return median(rounds[1:])

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):  # it was idle for too long
            self._connect()
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data[:500]
        return data


def _points(name: str, batch: int) -> list[dict[str, Any]]:
    first = batch * 1_000
    return [
        {"key": name, "value": each / 3, "timestamp": first + each, "step": first + each}
        for each in range(1_000)
    ]
