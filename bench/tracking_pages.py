"""Pages of 100 whole runs over HTTP, from `noria up` on SQLite and on a PostgreSQL: CPU per request.

Of PostgreSQL the process of noria and those of the database are told apart.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from tests.servers.postgres import missing_postgres, running_postgres

from bench.measuring import Line, cpu_of_process
from bench.peers.asking_trackers import cpu_s, wait_for_port

__all__ = ["page_lines", "postgresql_to_fill"]

_PAGE, _REQUESTS, _ROUNDS = 100, 20, 3
_AT_MOST_MS = 10
_ASKED = {"filter": "metrics.accuracy > 0.5", "order_by": ["metrics.loss DESC"], "max_results": _PAGE}


def page_lines(
    folder: Path, sizes: Mapping[int, int], *, sqlite: str, postgresql: str | None
) -> Iterator[Line]:
    """Measure both databases.

    Parameters
    ----------
    sizes
        How many runs an experiment holds.
    sqlite, postgresql
        URLs of databases that hold them.
    """
    for name, url in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        if url is None:
            print(f"PostgreSQL is not measured: {missing_postgres()}", file=sys.stderr)
            continue
        with _serving(folder / name, url) as (port, pid):
            processes = {"noria": pid} | ({} if name == "SQLite" else {"its database": _postmaster(url)})
            for experiment, size in sizes.items():
                costs = _costs(port, experiment, processes)
                what = f"{size:,} runs: {_PAGE} whole ones by HTTP, {name}"
                yield Line(what, costs["noria"], "ms", at_most=_AT_MOST_MS)
                if "its database" in costs:
                    yield Line(f"{what}, in the database", costs["its database"], "ms")


def _costs(port: int, experiment: int, processes: Mapping[str, int]) -> dict[str, float]:
    """Give the CPU of a request in milliseconds, by process: the median of some rounds after the first."""
    body = json.dumps({**_ASKED, "experiment_ids": [str(experiment)]}).encode()
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    rounds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(1 + _ROUNDS):
        before = _spent(processes)
        for _ in range(_REQUESTS):
            connection.request(
                "POST", "/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            found = answer.read()
            assert answer.status == 200 and len(json.loads(found)["runs"]) == _PAGE, found[:500]
        for name, spent in _spent(processes).items():
            rounds[name].append((spent - before[name]) / _REQUESTS * 1e3)
    connection.close()
    return {name: median(each[1:]) for name, each in rounds.items()}


def _spent(processes: Mapping[str, int]) -> dict[str, float]:
    """Give the CPU seconds of each; of a database with all that it has started, to the tick."""
    return {name: cpu_of_process(pid) if name == "noria" else cpu_s(pid) for name, pid in processes.items()}


@contextmanager
def _serving(site: Path, database: str) -> Iterator[tuple[int, int]]:
    """Give the port and the process of `noria up` on a database."""
    site.mkdir()
    (site / "noria.toml").write_text(
        f'[project]\nname = "site"\nmodules = []\n[stores]\ndatabase = "{database}"\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "noria", "up", "--project", str(site), "--port", str(port)]
    with (site / "up.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for_port(port)
        time.sleep(1)  # what it does once, at its start
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


def _postmaster(url: str) -> int:
    import psycopg

    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return int((Path(row[0]) / "postmaster.pid").read_text().split()[0])


@contextmanager
def postgresql_to_fill() -> Iterator[str | None]:
    """Give the URL of an empty database of a server of one's own; None where there is no PostgreSQL."""
    if missing_postgres() is not None:
        yield None
        return
    with running_postgres() as server:
        yield server.create("bench")
